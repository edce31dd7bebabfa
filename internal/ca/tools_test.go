package ca_test

import (
	"crypto"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestTools lets openssl, gnutls and curl judge certificates, CRLs and OCSP answers before a revocation, on hold, after
// reactivation and after the revocation, for each kind of CA key that OpenSSL 3.0 can read.
func TestTools(t *testing.T) {
	for _, kind := range []pkix.KeyType{pkix.ECDSAP256, pkix.ECDSAP384, pkix.RSA2048, pkix.RSA4096, pkix.Ed25519} {
		t.Run(string(kind), func(t *testing.T) {
			f := newCA(t, kind, shards(4))
			f.run()
			key := newKey(t, kind)
			row, err := f.Issue(t.Context(), ca.IssueRequest{
				ZoneID: zone, Profile: ca.ProfileClient, CSR: csr(t, key, named("Super Client")), ValidDays: 90, Actor: "test",
			})
			if err != nil {
				t.Fatal(err)
			}
			f.shard = row.Shard
			j := newJudges(f, row)
			j.ask("")
			f.hold(row.ID)
			j.ask("certificateHold")
			f.reactivate(row.ID)
			j.ask("")
			f.revoke(row.ID, pkix.KeyCompromise)
			j.ask("keyCompromise")
		})
	}
}

// judges are the files that the tools want.
type judges struct {
	f                        *fixture
	row                      ca.Certificate
	root, issuing, leaf, all string
}

func newJudges(f *fixture, row ca.Certificate) *judges {
	root, issuing := pkix.EncodeCertificate(f.Root().Raw), pkix.EncodeCertificate(f.Issuing().Raw)
	return &judges{
		f: f, row: row, root: f.file("root.pem", root), issuing: f.file("issuing.pem", issuing),
		leaf: f.file("leaf.pem", pkix.EncodeCertificate(row.DER)), all: f.file("all.pem", append(issuing, root...)),
	}
}

// ask has each tool judge; reason "" is a good certificate.
func (j *judges) ask(reason string) {
	j.f.t.Helper()
	j.f.waitCRL(func(list *x509.RevocationList) bool { return (entry(j.f.t, list, j.row) != nil) == (reason != "") })
	j.openssl(reason)
	j.opensslOCSP(reason)
	j.ocsptool(reason)
}

// download fetches a URL out of the certificate with curl.
func (j *judges) download(name, url string) string {
	j.f.t.Helper()
	path := j.f.file(name, nil)
	wants(j.f.t, nil, "curl", "-sSf", "-o", path, url)
	return path
}

func (j *judges) openssl(reason string) {
	t := j.f.t
	t.Helper()
	leaf := parse(t, j.row)
	der := j.download("issuing.crl", leaf.CRLDistributionPoints[0])
	crl := j.f.file("issuing-crl.pem", nil)
	wants(t, []string{"verify OK"}, "openssl", "crl", "-inform", "DER", "-in", der, "-CAfile", j.issuing, "-noout")
	wants(t, nil, "openssl", "crl", "-inform", "DER", "-in", der, "-out", crl)
	text := wants(t, []string{"X509v3 CRL Number", "X509v3 Issuing Distribution Point: critical", "Only User Certificates"},
		"openssl", "crl", "-in", crl, "-noout", "-text")
	if listed := strings.Contains(text, j.row.Serial.Upper()); listed != (reason != "") {
		t.Errorf("openssl crl lists the serial: %v; reason %q", listed, reason)
	}
	out, err := tool(t, "openssl", "verify", "-CAfile", j.root, "-untrusted", j.issuing, "-crl_check", "-CRLfile", crl, "-purpose", "sslclient", j.leaf)
	if (err == nil) != (reason == "") || reason != "" && !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl verify with reason %q: %v\n%s", reason, err, out)
	}
	if reason == "" { // the whole chain, with the root's own CRL
		rootDER := j.download("root.crl", j.f.Issuing().CRLDistributionPoints[0])
		rootCRL := j.f.file("root-crl.pem", nil)
		wants(t, nil, "openssl", "crl", "-inform", "DER", "-in", rootDER, "-out", rootCRL)
		wants(t, []string{"OK"}, "openssl", "verify", "-CAfile", j.root, "-untrusted", j.issuing, "-crl_check_all",
			"-CRLfile", crl, "-CRLfile", rootCRL, j.leaf)
	}
	issuer := j.download("issuing.cer", leaf.IssuingCertificateURL[0])
	wants(t, []string{"sekisho Issuing CA"}, "openssl", "x509", "-inform", "DER", "-in", issuer, "-noout", "-subject")
	wants(t, []string{"OK"}, "openssl", "verify", "-x509_strict", "-CAfile", j.root, "-untrusted", j.issuing, j.leaf)
}

// opensslOCSP asks with and without a nonce and with both hashes; the issuing CA's own status in another request.
func (j *judges) opensslOCSP(reason string) {
	t := j.f.t
	t.Helper()
	status := []string{"Response verify OK", ": good"}
	if reason != "" {
		status = []string{"Response verify OK", ": revoked", "Reason: " + reason}
	}
	url := parse(t, j.row).OCSPServer[0]
	for _, flags := range [][]string{{"-nonce"}, {"-no_nonce"}, {"-sha256", "-nonce"}} {
		args := append([]string{"ocsp", "-issuer", j.issuing}, flags...)
		args = append(args, "-cert", j.leaf, "-url", url, "-CAfile", j.root, "-verify_other", j.issuing)
		if flags[0] == "-sha256" { // the hash is for the certificates named after it
			args = append([]string{"ocsp", "-sha256", "-issuer", j.issuing, "-nonce"}, args[5:]...)
		}
		out := wants(t, status, "openssl", args...)
		if strings.Contains(out, "WARNING") {
			t.Errorf("openssl %v:\n%s", flags, out)
		}
	}
	wants(t, []string{"Response verify OK", ": good"}, "openssl", "ocsp", "-issuer", j.root, "-cert", j.issuing, "-url", url, "-CAfile", j.root)
	wants(t, []string{"Response verify OK", ": unknown"}, "openssl", "ocsp", "-issuer", j.issuing, "-serial", "0x1234", "-url", url,
		"-CAfile", j.root, "-verify_other", j.issuing)
}

// ocsptool is the article's own command.
func (j *judges) ocsptool(reason string) {
	t := j.f.t
	t.Helper()
	status := []string{"Certificate Status: good", "Verifying OCSP Response: Success"}
	if reason != "" {
		status = []string{"Certificate Status: revoked", "Verifying OCSP Response: Success"}
	}
	wants(t, status, "ocsptool", "--ask="+parse(t, j.row).OCSPServer[0], "--load-issuer", j.issuing, "--load-trust", j.all, "--load-cert", j.leaf)
}

// TestMovedResponder: certificates that name the old PKI URL are judged by the CRL of the new one.
func TestMovedResponder(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	good, gone := f.issue("good"), f.issue("gone")
	f.revoke(gone.ID, pkix.Superseded)
	cfg := f.cfg
	cfg.PKIURL = "http://pki.example.com"
	moved, err := ca.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := moved.CRL(t.Context(), f.issuingID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	der, file := f.file("crl.der", crl.DER), f.file("crl.pem", nil)
	wants(t, nil, "openssl", "crl", "-inform", "DER", "-in", der, "-out", file)
	for row, want := range map[*ca.Certificate]string{&good: "OK", &gone: "certificate revoked"} {
		j := newJudges(f, *row)
		out, _ := tool(t, "openssl", "verify", "-CAfile", j.root, "-untrusted", j.issuing, "-crl_check", "-CRLfile", file, j.leaf)
		if !strings.Contains(out, want) {
			t.Errorf("%s: no %q in\n%s", row.CommonName, want, out)
		}
	}
}

// TestMLDSA checks what OpenSSL 3.0 cannot read with Go alone.
func TestMLDSA(t *testing.T) {
	f := newCA(t, pkix.MLDSA65)
	row, _, err := f.IssueWithKey(t.Context(), ca.IssueRequest{
		ZoneID: zone, Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 1,
	}, pkix.MLDSA65)
	if err != nil {
		t.Fatal(err)
	}
	checkLeafUsage(t, f, row)
	f.askGood(row)
	f.revoke(row.ID, pkix.Superseded)
	if entry(t, f.crl(), row) == nil { // crl checks the signature
		t.Error("the revoked certificate is not in the CRL")
	}
	answer := f.answer(request(crypto.SHA256, f.Issuing(), []byte("nonce"), row.Serial))
	if answer.Status != "revoked" {
		t.Errorf("OCSP says %s", answer.Status)
	}
	resp, err := http.Get(f.url + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if root, err := pkix.ParseCertificate(body); err != nil || !root.Equal(f.Root()) {
		t.Errorf("/ca.pem is not the root: %v", err)
	}
}

func checkLeafUsage(t *testing.T, f *fixture, row ca.Certificate) {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(f.Root())
	between.AddCert(f.Issuing())
	if _, err := parse(t, row).Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		t.Error(err)
	}
}
