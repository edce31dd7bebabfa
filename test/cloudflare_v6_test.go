package test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/certificate_authorities"
	"github.com/cloudflare/cloudflare-go/v6/client_certificates"
	"github.com/cloudflare/cloudflare-go/v6/option"
	"github.com/cloudflare/cloudflare-go/v6/user"
	"github.com/cloudflare/cloudflare-go/v6/zero_trust"
	"github.com/cloudflare/cloudflare-go/v6/zones"
)

// v6 is Cloudflare's generated SDK, told the base URL and nothing else. Retries are off, so that an answer which
// the SDK would ask again for shows.
func v6(r ready) *cloudflare.Client {
	return cloudflare.NewClient(option.WithBaseURL(r.api()), option.WithAPIToken(r.Token), option.WithMaxRetries(0))
}

// wantStatus fails unless err is the SDK's error for an HTTP status, with the error list of the envelope filled.
func wantStatus(t *testing.T, what string, err error, status int) {
	t.Helper()
	var apiErr *cloudflare.Error
	switch {
	case !errors.As(err, &apiErr):
		t.Errorf("%s: error %v (%T), want an API error with status %d", what, err, err, status)
	case apiErr.StatusCode != status:
		t.Errorf("%s: status %d, want %d: %v", what, apiErr.StatusCode, status, err)
	case len(apiErr.Errors) == 0 || apiErr.Errors[0].Message == "":
		t.Errorf("%s: status %d without a message: %v", what, status, err)
	}
}

// TestCloudflareV6ClientCertificates walks one client certificate through its life, by the SDK and at the edge.
func TestCloudflareV6ClientCertificates(t *testing.T) {
	r := startDev(t)
	certs := v6(r).ClientCertificates
	zone := cloudflare.F(r.ZoneID)

	key, csr := newCSR(t, "sdk-device-1")
	made, err := certs.New(t.Context(), client_certificates.ClientCertificateNewParams{
		ZoneID: zone, Csr: cloudflare.F(csr), ValidityDays: cloudflare.F[int64](365),
	})
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	leaf := parsePEM(t, made.Certificate)
	checkClientCertificate(t, made, leaf.Raw)
	pair := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	at := func(step string, want int) {
		t.Helper()
		if got := edgeStatus(t, r, &pair); got != want {
			t.Errorf("edge, %s: status %d, want %d", step, got, want)
		}
	}
	get := func(step string, want string) {
		t.Helper()
		got, err := certs.Get(t.Context(), made.ID, client_certificates.ClientCertificateGetParams{ZoneID: zone})
		if err != nil {
			t.Fatalf("get, %s: %v", step, err)
		}
		if string(got.Status) != want || got.SerialNumber != made.SerialNumber {
			t.Errorf("get, %s: status %s serial %s, want %s %s", step, got.Status, got.SerialNumber, want, made.SerialNumber)
		}
	}
	get("issued", "active")
	at("issued", http.StatusOK)

	gone, err := certs.Delete(t.Context(), made.ID, client_certificates.ClientCertificateDeleteParams{ZoneID: zone})
	if err != nil {
		t.Fatalf("delete: %v", err)
	}
	if gone.Status != "pending_revocation" || gone.ID != made.ID {
		t.Errorf("delete: %s %s, want %s pending_revocation", gone.ID, gone.Status, made.ID)
	}
	at("revoked", http.StatusForbidden)
	get("revoked", "revoked")

	back, err := certs.Edit(t.Context(), made.ID, client_certificates.ClientCertificateEditParams{
		ZoneID: zone, Reactivate: cloudflare.F(true),
	})
	if err != nil {
		t.Fatalf("edit: %v", err)
	}
	if back.Status != "pending_reactivation" {
		t.Errorf("edit: status %s, want pending_reactivation", back.Status)
	}
	at("reactivated", http.StatusOK)
	get("reactivated", "active")
}

// checkClientCertificate judges the fields of a fresh certificate against its DER.
func checkClientCertificate(t *testing.T, c *client_certificates.ClientCertificate, der []byte) {
	t.Helper()
	sum := sha256.Sum256(der)
	if want := hex.EncodeToString(sum[:]); c.FingerprintSha256 != want {
		t.Errorf("fingerprint_sha256 %q, want %q", c.FingerprintSha256, want)
	}
	if len(c.SerialNumber)%2 != 0 || c.SerialNumber != strings.ToLower(c.SerialNumber) || c.SerialNumber == "" {
		t.Errorf("serial_number %q, want lower hex in whole bytes", c.SerialNumber)
	}
	if c.CommonName != "sdk-device-1" || c.Organization != "Example Ltd" || c.Country != "JP" {
		t.Errorf("subject: common_name %q, organization %q, country %q", c.CommonName, c.Organization, c.Country)
	}
	if c.Status != "active" || c.ValidityDays != 365 || c.CertificateAuthority.ID == "" {
		t.Errorf("status %q, validity_days %d, certificate_authority %q", c.Status, c.ValidityDays, c.CertificateAuthority.ID)
	}
}

// TestCloudflareV6Paging lists more certificates than a page holds: each once, and the pager must end.
func TestCloudflareV6Paging(t *testing.T) {
	r := startDev(t)
	certs := v6(r).ClientCertificates
	zone := cloudflare.F(r.ZoneID)
	want := []string{r.ClientCertificateID}
	for i := range 7 {
		_, csr := newCSR(t, fmt.Sprintf("page-%d", i))
		c, err := certs.New(t.Context(), client_certificates.ClientCertificateNewParams{
			ZoneID: zone, Csr: cloudflare.F(csr), ValidityDays: cloudflare.F[int64](30),
		})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, c.ID)
	}
	revoked := want[3]
	if _, err := certs.Delete(t.Context(), revoked, client_certificates.ClientCertificateDeleteParams{ZoneID: zone}); err != nil {
		t.Fatal(err)
	}
	list := func(status client_certificates.ClientCertificateListParamsStatus) []string {
		t.Helper()
		var ids []string
		pages := certs.ListAutoPaging(t.Context(), client_certificates.ClientCertificateListParams{
			ZoneID: zone, PerPage: cloudflare.F(5.0), Status: cloudflare.F(status),
		})
		for pages.Next() {
			if ids = append(ids, pages.Current().ID); len(ids) > 100 {
				t.Fatal("the pager does not end")
			}
		}
		if err := pages.Err(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(ids)
		return ids
	}
	slices.Sort(want)
	if got := list(client_certificates.ClientCertificateListParamsStatusAll); !slices.Equal(got, want) {
		t.Errorf("all: %v, want %v", got, want)
	}
	if got := list(client_certificates.ClientCertificateListParamsStatusRevoked); !slices.Equal(got, []string{revoked}) {
		t.Errorf("revoked: %v, want only %s", got, revoked)
	}
	active := slices.DeleteFunc(slices.Clone(want), func(id string) bool { return id == revoked })
	if got := list(client_certificates.ClientCertificateListParamsStatusActive); !slices.Equal(got, active) {
		t.Errorf("active: %v, want %v", got, active)
	}
}

// TestCloudflareV6Hostnames replaces, reads and clears the hostnames of the managed CA.
func TestCloudflareV6Hostnames(t *testing.T) {
	r := startDev(t)
	hosts := v6(r).CertificateAuthorities.HostnameAssociations
	zone, err := v6(r).Zones.Get(t.Context(), zones.ZoneGetParams{ZoneID: cloudflare.F(r.ZoneID)})
	if err != nil {
		t.Fatalf("zone: %v", err)
	}
	get := func() []string {
		t.Helper()
		res, err := hosts.Get(t.Context(), certificate_authorities.HostnameAssociationGetParams{ZoneID: cloudflare.F(r.ZoneID)})
		if err != nil {
			t.Fatalf("get: %v", err)
		}
		slices.Sort(res.Hostnames)
		return res.Hostnames
	}
	before := get()
	for _, want := range [][]string{{"api." + zone.Name, "shop." + zone.Name}, {"api." + zone.Name}, {}} {
		res, err := hosts.Update(t.Context(), certificate_authorities.HostnameAssociationUpdateParams{
			ZoneID:                 cloudflare.F(r.ZoneID),
			TLSHostnameAssociation: certificate_authorities.TLSHostnameAssociationParam{Hostnames: cloudflare.F(want)},
		})
		if err != nil {
			t.Fatalf("update %v: %v", want, err)
		}
		// What the configuration file ties to the managed CA stays, whatever the list says.
		got := slices.DeleteFunc(get(), func(h string) bool { return slices.Contains(before, h) && !slices.Contains(want, h) })
		if !slices.Equal(got, want) {
			t.Errorf("update %v: answered %v, then %v", want, res.Hostnames, got)
		}
	}
}

// TestCloudflareV6ZonesAndToken reads the zones, the token and the settings that the managed CA needs.
func TestCloudflareV6ZonesAndToken(t *testing.T) {
	r := startDev(t)
	c := v6(r)
	zone, err := c.Zones.Get(t.Context(), zones.ZoneGetParams{ZoneID: cloudflare.F(r.ZoneID)})
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if zone.ID != r.ZoneID || zone.Account.ID != r.AccountID || zone.Status != zones.ZoneStatusActive {
		t.Errorf("zone %s of account %s is %s", zone.ID, zone.Account.ID, zone.Status)
	}
	for name, n := range map[string]int{zone.Name: 1, "not-" + zone.Name: 0} {
		pages := c.Zones.ListAutoPaging(t.Context(), zones.ZoneListParams{Name: cloudflare.F(name)})
		found := 0
		for pages.Next() && found < 10 {
			found++
		}
		if err := pages.Err(); err != nil || found != n {
			t.Errorf("zones named %s: %d (%v), want %d", name, found, err, n)
		}
	}
	token, err := c.User.Tokens.Verify(t.Context())
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	if token.Status != user.TokenVerifyResponseStatusActive || token.ID == "" {
		t.Errorf("token %q is %q, want active", token.ID, token.Status)
	}
}

// TestCloudflareV6Settings switches certificate forwarding for one hostname and reads it back.
func TestCloudflareV6Settings(t *testing.T) {
	r := startDev(t)
	c := v6(r)
	zone, err := c.Zones.Get(t.Context(), zones.ZoneGetParams{ZoneID: cloudflare.F(r.ZoneID)})
	if err != nil {
		t.Fatal(err)
	}
	settings := c.ZeroTrust.Access.Certificates.Settings
	host := "api." + zone.Name
	for _, on := range []bool{true, false} {
		_, err := settings.Update(t.Context(), zero_trust.AccessCertificateSettingUpdateParams{
			ZoneID: cloudflare.F(r.ZoneID),
			Settings: cloudflare.F([]zero_trust.CertificateSettingsParam{{
				Hostname: cloudflare.F(host), ClientCertificateForwarding: cloudflare.F(on), ChinaNetwork: cloudflare.F(false),
			}}),
		})
		if err != nil {
			t.Fatalf("update to %v: %v", on, err)
		}
		page, err := settings.Get(t.Context(), zero_trust.AccessCertificateSettingGetParams{ZoneID: cloudflare.F(r.ZoneID)})
		if err != nil {
			t.Fatalf("get: %v", err)
		}
		i := slices.IndexFunc(page.Result, func(s zero_trust.CertificateSettings) bool { return s.Hostname == host })
		if i < 0 || page.Result[i].ClientCertificateForwarding != on {
			t.Errorf("after setting %s to %v: %+v", host, on, page.Result)
		}
	}
}

// TestCloudflareV6Errors pins that refusals reach the SDK as its typed error, at once and without a retry.
func TestCloudflareV6Errors(t *testing.T) {
	r := startDev(t)
	c := v6(r)
	zone := cloudflare.F(r.ZoneID)
	_, err := c.ClientCertificates.Get(t.Context(), "00000000-0000-4000-8000-000000000000",
		client_certificates.ClientCertificateGetParams{ZoneID: zone})
	wantStatus(t, "an unknown certificate", err, http.StatusNotFound)

	_, err = c.ClientCertificates.New(t.Context(), client_certificates.ClientCertificateNewParams{
		ZoneID: zone, Csr: cloudflare.F("no request"), ValidityDays: cloudflare.F[int64](30),
	})
	wantStatus(t, "a request that is none", err, http.StatusBadRequest)

	_, err = c.Zones.Get(t.Context(), zones.ZoneGetParams{ZoneID: cloudflare.F(strings.Repeat("0", 32))})
	wantStatus(t, "an unknown zone", err, http.StatusNotFound)

	stranger := cloudflare.NewClient(option.WithBaseURL(r.api()), option.WithAPIToken(strings.Repeat("x", 40)), option.WithMaxRetries(0))
	_, err = stranger.Zones.Get(t.Context(), zones.ZoneGetParams{ZoneID: zone})
	var apiErr *cloudflare.Error
	if !errors.As(err, &apiErr) || (apiErr.StatusCode != http.StatusUnauthorized && apiErr.StatusCode != http.StatusForbidden) {
		t.Errorf("a wrong token: %v, want 401 or 403", err)
	}

	// The seeds' scheme: the same secret as a key, with its owner's e-mail.
	keyed := cloudflare.NewClient(option.WithBaseURL(r.api()), option.WithAPIKey(r.Token), option.WithAPIEmail(r.Email), option.WithMaxRetries(0))
	if _, err := keyed.Zones.Get(t.Context(), zones.ZoneGetParams{ZoneID: zone}); err != nil {
		t.Errorf("X-Auth-Email and X-Auth-Key: %v", err)
	}
}
