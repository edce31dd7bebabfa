package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	cfv0 "github.com/cloudflare/cloudflare-go"
	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/certificate_authorities"
	"github.com/cloudflare/cloudflare-go/v6/mtls_certificates"
	"github.com/cloudflare/cloudflare-go/v6/zero_trust"
	"github.com/cloudflare/cloudflare-go/v6/zones"
)

// ownCA is a CA that somebody brings, in PEM, and a client of it.
func ownCA(t *testing.T, name string) (caPEM string, cert *x509.Certificate, client tls.Certificate) {
	t.Helper()
	sign := func(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	keys := make([]*ecdsa.PrivateKey, 2)
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Example Inc."}, Country: []string{"US"}, CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
	}
	cert = sign(root, root, keys[0], keys[0])
	leaf := sign(&x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "device of " + name}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, cert, keys[1], keys[0])
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})), cert,
		tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: keys[1], Leaf: leaf}
}

// TestCloudflareV6MTLSCertificates brings a CA to API Shield by the SDK: its client is somebody at the edge while its
// hostname is tied to the CA.
func TestCloudflareV6MTLSCertificates(t *testing.T) {
	r := startDev(t)
	c := v6(r)
	account := cloudflare.F(r.AccountID)
	text, cert, client := ownCA(t, "v6 root")
	made, err := c.MTLSCertificates.New(t.Context(), mtls_certificates.MTLSCertificateNewParams{
		AccountID: account, CA: cloudflare.F(true), Certificates: cloudflare.F(text), Name: cloudflare.F("v6"),
	})
	if err != nil {
		t.Fatalf("new: %v", err)
	}
	if made.ID == "" || !made.CA || made.Name != "v6" || made.Certificates != text || made.SerialNumber != cert.SerialNumber.String() ||
		made.Signature != "ECDSAWithSHA256" || !made.ExpiresOn.Equal(cert.NotAfter) || made.UploadedOn.IsZero() || made.UpdatedAt.IsZero() ||
		made.Type != mtls_certificates.MTLSCertificateNewResponseTypeCustom || made.Issuer != "CN=v6 root,O=Example Inc.,C=US" {
		t.Errorf("new: %+v", made)
	}
	tie := func(hosts ...string) {
		t.Helper()
		_, err := c.CertificateAuthorities.HostnameAssociations.Update(t.Context(), certificate_authorities.HostnameAssociationUpdateParams{
			ZoneID: cloudflare.F(r.ZoneID), TLSHostnameAssociation: certificate_authorities.TLSHostnameAssociationParam{
				Hostnames: cloudflare.F(append([]string{}, hosts...)), MTLSCertificateID: cloudflare.F(made.ID),
			},
		})
		if err != nil {
			t.Fatalf("tie to %v: %v", hosts, err)
		}
		got, err := c.CertificateAuthorities.HostnameAssociations.Get(t.Context(), certificate_authorities.HostnameAssociationGetParams{
			ZoneID: cloudflare.F(r.ZoneID), MTLSCertificateID: cloudflare.F(made.ID),
		})
		if err != nil || !slices.Equal(got.Hostnames, hosts) {
			t.Errorf("tied to %v: %+v, %v", hosts, got, err)
		}
	}
	// The host in front of --dev requires a certificate: an unknown CA's client is nobody.
	if status := edgeStatus(t, r, &client); status != http.StatusForbidden {
		t.Errorf("before the tie: status %d", status)
	}
	tie("localhost")
	if status := edgeStatus(t, r, &client); status != http.StatusOK {
		t.Errorf("tied: status %d", status)
	}
	page, err := c.MTLSCertificates.Associations.Get(t.Context(), made.ID, mtls_certificates.AssociationGetParams{AccountID: account})
	if err != nil || len(page.Result) != 1 || page.Result[0].Status != "active" {
		t.Errorf("associations: %+v, %v", page, err)
	}
	_, err = c.MTLSCertificates.Delete(t.Context(), made.ID, mtls_certificates.MTLSCertificateDeleteParams{AccountID: account})
	wantStatus(t, "delete while a hostname is tied", err, http.StatusBadRequest)
	tie()
	if status := edgeStatus(t, r, &client); status != http.StatusForbidden {
		t.Errorf("untied: status %d", status)
	}
	list, err := c.MTLSCertificates.List(t.Context(), mtls_certificates.MTLSCertificateListParams{AccountID: account})
	if err != nil || len(list.Result) != 1 || list.Result[0].ID != made.ID {
		t.Errorf("list: %+v, %v", list, err)
	}
	gone, err := c.MTLSCertificates.Delete(t.Context(), made.ID, mtls_certificates.MTLSCertificateDeleteParams{AccountID: account})
	if err != nil || gone.ID != made.ID {
		t.Errorf("delete: %+v, %v", gone, err)
	}
	_, err = c.MTLSCertificates.Get(t.Context(), made.ID, mtls_certificates.MTLSCertificateGetParams{AccountID: account})
	wantStatus(t, "get after delete", err, http.StatusNotFound)
	_, err = c.MTLSCertificates.New(t.Context(), mtls_certificates.MTLSCertificateNewParams{
		AccountID: account, CA: cloudflare.F(true), Certificates: cloudflare.F("no certificate"),
	})
	wantStatus(t, "new without a certificate", err, http.StatusBadRequest)
}

// TestCloudflareV6AccessCertificates brings a CA to Access, of a zone and of the account, as Terraform does it: hostnames are
// cleared before the deletion.
func TestCloudflareV6AccessCertificates(t *testing.T) {
	r := startDev(t)
	c := v6(r)
	zone, err := c.Zones.Get(t.Context(), zones.ZoneGetParams{ZoneID: cloudflare.F(r.ZoneID)})
	if err != nil {
		t.Fatal(err)
	}
	certs := c.ZeroTrust.Access.Certificates
	host := "access." + zone.Name
	for _, account := range []bool{false, true} {
		text, cert, _ := ownCA(t, "access root")
		params := zero_trust.AccessCertificateNewParams{
			Certificate: cloudflare.F(text), Name: cloudflare.F("access"), AssociatedHostnames: cloudflare.F([]string{host}), ZoneID: cloudflare.F(r.ZoneID),
		}
		update := zero_trust.AccessCertificateUpdateParams{AssociatedHostnames: cloudflare.F([]string{}), ZoneID: cloudflare.F(r.ZoneID)}
		remove := zero_trust.AccessCertificateDeleteParams{ZoneID: cloudflare.F(r.ZoneID)}
		list := zero_trust.AccessCertificateListParams{ZoneID: cloudflare.F(r.ZoneID), PerPage: cloudflare.F[int64](25)}
		if account {
			id, none := cloudflare.F(r.AccountID), cloudflare.F("")
			params.AccountID, update.AccountID, remove.AccountID, list.AccountID = id, id, id, id
			params.ZoneID, update.ZoneID, remove.ZoneID, list.ZoneID = none, none, none, none
		}
		made, err := certs.New(t.Context(), params)
		if err != nil {
			t.Fatalf("new: %v", err)
		}
		if made.ID == "" || made.Name != "access" || !strings.HasPrefix(made.Fingerprint, "MD5 Fingerprint=") || !made.ExpiresOn.Equal(cert.NotAfter) || !slices.Equal(made.AssociatedHostnames, []string{host}) {
			t.Errorf("new: %+v", made)
		}
		found := 0
		for pages := certs.ListAutoPaging(t.Context(), list); pages.Next(); {
			if found++; pages.Current().ID != made.ID || found > 10 {
				t.Fatalf("list: %+v", pages.Current())
			}
		}
		if found != 1 {
			t.Errorf("listed %d", found)
		}
		_, err = certs.Delete(t.Context(), made.ID, remove)
		wantStatus(t, "delete while a hostname is tied", err, http.StatusBadRequest)
		cleared, err := certs.Update(t.Context(), made.ID, update)
		if err != nil || len(cleared.AssociatedHostnames) != 0 || cleared.Name != "access" {
			t.Errorf("update: %+v, %v", cleared, err)
		}
		gone, err := certs.Delete(t.Context(), made.ID, remove)
		if err != nil || gone.ID != made.ID {
			t.Errorf("delete: %+v, %v", gone, err)
		}
	}
	text, _, _ := ownCA(t, "foreign")
	_, err = certs.New(t.Context(), zero_trust.AccessCertificateNewParams{
		Certificate: cloudflare.F(text), Name: cloudflare.F("x"), AssociatedHostnames: cloudflare.F([]string{"elsewhere.example"}), ZoneID: cloudflare.F(r.ZoneID),
	})
	wantStatus(t, "a hostname of nobody", err, http.StatusBadRequest)
}

// TestCloudflareV0OwnCA is the same with the old SDK, which sends empty fields and times of the year 1 along.
func TestCloudflareV0OwnCA(t *testing.T) {
	r := startDev(t)
	api := v0(t, r, r.Token)
	account, zone := cfv0.AccountIdentifier(r.AccountID), cfv0.ZoneIdentifier(r.ZoneID)
	text, cert, client := ownCA(t, "v0 root")
	made, err := api.CreateMTLSCertificate(t.Context(), account, cfv0.CreateMTLSCertificateParams{Name: "v0", Certificates: text, CA: true})
	if err != nil || made.SerialNumber != cert.SerialNumber.String() || made.UploadedOn.IsZero() || made.UpdatedAt.IsZero() {
		t.Fatalf("create: %+v, %v", made, err)
	}
	list, info, err := api.ListMTLSCertificates(t.Context(), account, cfv0.ListMTLSCertificatesParams{Name: "v0"})
	if err != nil || len(list) != 1 || info.Total != 1 {
		t.Errorf("list: %+v %+v, %v", list, info, err)
	}
	tie := cfv0.UpdateCertificateAuthoritiesHostnameAssociationsParams{MTLSCertificateID: made.ID, Hostnames: []string{"localhost"}}
	if _, err := api.UpdateCertificateAuthoritiesHostnameAssociations(t.Context(), zone, tie); err != nil {
		t.Fatal(err)
	}
	if status := edgeStatus(t, r, &client); status != http.StatusOK {
		t.Errorf("tied: status %d", status)
	}
	uses, err := api.ListMTLSCertificateAssociations(t.Context(), account, cfv0.ListMTLSCertificateAssociationsParams{CertificateID: made.ID})
	if err != nil || len(uses) != 1 {
		t.Errorf("associations: %+v, %v", uses, err)
	}
	tie.Hostnames = nil // left out of the body: cleared
	if _, err := api.UpdateCertificateAuthoritiesHostnameAssociations(t.Context(), zone, tie); err != nil {
		t.Fatal(err)
	}
	if gone, err := api.DeleteMTLSCertificate(t.Context(), account, made.ID); err != nil || gone.ID != made.ID {
		t.Errorf("delete: %+v, %v", gone, err)
	}

	for _, rc := range []*cfv0.ResourceContainer{account, zone} {
		access, err := api.CreateAccessMutualTLSCertificate(t.Context(), rc, cfv0.CreateAccessMutualTLSCertificateParams{
			Name: "v0 access", Certificate: text, AssociatedHostnames: []string{"localhost"},
		})
		if err != nil || access.Fingerprint == "" || !slices.Equal(access.AssociatedHostnames, []string{"localhost"}) {
			t.Fatalf("create: %+v, %v", access, err)
		}
		all, _, err := api.ListAccessMutualTLSCertificates(t.Context(), rc, cfv0.ListAccessMutualTLSCertificatesParams{})
		if err != nil || len(all) != 1 {
			t.Errorf("list: %+v, %v", all, err)
		}
		if err := api.DeleteAccessMutualTLSCertificate(t.Context(), rc, access.ID); err == nil {
			t.Error("deleted while a hostname is tied")
		}
		cleared, err := api.UpdateAccessMutualTLSCertificate(t.Context(), rc, cfv0.UpdateAccessMutualTLSCertificateParams{ID: access.ID, Name: "renamed"})
		if err != nil || len(cleared.AssociatedHostnames) != 0 || cleared.Name != "renamed" {
			t.Errorf("update: %+v, %v", cleared, err)
		}
		if err := api.DeleteAccessMutualTLSCertificate(t.Context(), rc, access.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
}
