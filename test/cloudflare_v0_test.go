package test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	cfv0 "github.com/cloudflare/cloudflare-go"
)

// v0 is Cloudflare's hand-written SDK, told the base URL and nothing else.
func v0(t *testing.T, r ready, token string) *cfv0.API {
	t.Helper()
	api, err := cfv0.NewWithAPIToken(token, cfv0.BaseURL(r.api()), cfv0.UsingRetryPolicy(0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// TestCloudflareV0 drives the calls that the old SDK has (it never learned client_certificates).
func TestCloudflareV0(t *testing.T) {
	r := startDev(t)
	api := v0(t, r, r.Token)
	rc := cfv0.ZoneIdentifier(r.ZoneID)

	token, err := api.VerifyAPIToken(t.Context())
	if err != nil || token.Status != "active" {
		t.Errorf("verify: %+v, %v", token, err)
	}
	zone, err := api.ZoneDetails(t.Context(), r.ZoneID)
	if err != nil || zone.ID != r.ZoneID || zone.Account.ID != r.AccountID {
		t.Fatalf("zone: %+v, %v", zone, err)
	}
	zones, err := api.ListZonesContext(t.Context(), cfv0.WithZoneFilters(zone.Name, r.AccountID, ""))
	if err != nil || len(zones.Result) != 1 || zones.Result[0].ID != r.ZoneID {
		t.Errorf("zones named %s: %+v, %v", zone.Name, zones.Result, err)
	}

	host := "v0." + zone.Name
	_, err = api.UpdateCertificateAuthoritiesHostnameAssociations(t.Context(), rc,
		cfv0.UpdateCertificateAuthoritiesHostnameAssociationsParams{Hostnames: []string{host}})
	if err != nil {
		t.Fatalf("hostname associations: %v", err)
	}
	hosts, err := api.ListCertificateAuthoritiesHostnameAssociations(t.Context(), rc,
		cfv0.ListCertificateAuthoritiesHostnameAssociationsParams{})
	if err != nil || !slices.Contains(hosts, host) {
		t.Errorf("hostname associations: %v, %v, want %s among them", hosts, err, host)
	}
	// The SDK leaves an empty list out of the body altogether: that clears, too.
	if _, err := api.UpdateCertificateAuthoritiesHostnameAssociations(t.Context(), rc,
		cfv0.UpdateCertificateAuthoritiesHostnameAssociationsParams{}); err != nil {
		t.Fatalf("clear hostname associations: %v", err)
	}
	hosts, err = api.ListCertificateAuthoritiesHostnameAssociations(t.Context(), rc,
		cfv0.ListCertificateAuthoritiesHostnameAssociationsParams{})
	if err != nil || slices.Contains(hosts, host) {
		t.Errorf("after clearing: %v, %v", hosts, err)
	}
	checkV0Settings(t, api, rc, host)

	// 401 or 403; the SDK has a type for each.
	var denied *cfv0.AuthenticationError
	var forbidden *cfv0.AuthorizationError
	_, err = v0(t, r, strings.Repeat("x", 40)).ZoneDetails(t.Context(), r.ZoneID)
	if !errors.As(err, &denied) && !errors.As(err, &forbidden) {
		t.Errorf("a wrong token gives %v (%T), want the SDK's authentication or authorization error", err, err)
	}
}

// checkV0Settings switches forwarding on for a hostname; china_network is left out of the body, as in the articles.
func checkV0Settings(t *testing.T, api *cfv0.API, rc *cfv0.ResourceContainer, host string) {
	t.Helper()
	on := true
	if _, err := api.UpdateAccessMutualTLSHostnameSettings(t.Context(), rc, cfv0.UpdateAccessMutualTLSHostnameSettingsParams{
		Settings: []cfv0.AccessMutualTLSHostnameSettings{{Hostname: host, ClientCertificateForwarding: &on}},
	}); err != nil {
		t.Fatalf("settings: %v", err)
	}
	settings, err := api.GetAccessMutualTLSHostnameSettings(t.Context(), rc)
	if err != nil {
		t.Fatalf("settings: %v", err)
	}
	i := slices.IndexFunc(settings, func(s cfv0.AccessMutualTLSHostnameSettings) bool { return s.Hostname == host })
	if i < 0 || settings[i].ClientCertificateForwarding == nil || !*settings[i].ClientCertificateForwarding ||
		settings[i].ChinaNetwork == nil || *settings[i].ChinaNetwork {
		t.Errorf("settings of %s: %+v", host, settings)
	}
}
