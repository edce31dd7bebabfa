package ca_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// pssFlags make openssl sign with RSASSA-PSS as RFC 4055 recommends it.
var pssFlags = []string{"-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"}

// opensslPSS makes a root and an issuing CA below it with openssl, both signed with RSASSA-PSS. algorithm is that of the
// issuing CA's key: RSA or RSA-PSS.
func opensslPSS(t *testing.T, algorithm string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ext := "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
	if err := os.WriteFile(path("ext"), []byte(ext), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, algorithm := range map[string]string{"root": "RSA", "issuing": algorithm} {
		wants(t, nil, "openssl", "genpkey", "-quiet", "-algorithm", algorithm, "-pkeyopt", "rsa_keygen_bits:2048", "-out", path(name+".key"))
	}
	wants(t, nil, "openssl", append([]string{
		"req", "-x509", "-new", "-key", path("root.key"), "-subj", "/CN=PSS Root", "-days", "3650",
		"-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", path("root.pem"),
	}, pssFlags...)...)
	wants(t, nil, "openssl", append([]string{"req", "-new", "-key", path("issuing.key"), "-subj", "/CN=PSS Issuing", "-out", path("issuing.csr")}, pssFlags...)...)
	wants(t, nil, "openssl", append([]string{
		"x509", "-req", "-in", path("issuing.csr"), "-CA", path("root.pem"), "-CAkey", path("root.key"), "-days", "3000",
		"-set_serial", "0x4a5b", "-extfile", path("ext"), "-out", path("issuing.pem"),
	}, pssFlags...)...)
	return dir
}

// adopt puts CAs that openssl made into the ledger and their keys into the key store.
func (f *fixture) adopt(dir string) error {
	f.t.Helper()
	parent := ""
	for i, name := range []string{"root", "issuing"} {
		key, err := os.ReadFile(filepath.Join(dir, name+".key"))
		if err != nil {
			f.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.dir, "keys", name+".key"), key, 0o600); err != nil {
			f.t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, name+".pem"))
		if err != nil {
			f.t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		id := strings.Repeat(string(rune('a'+i)), 32)
		record := ca.CARecord{ID: id, Name: name, Parent: parent, KeyName: name, DER: block.Bytes, CreatedOn: f.cfg.Now(), Shards: 1}
		if err := f.store.AddCA(f.t.Context(), record, auditlog.Entry{Action: "ca.create", Object: id, At: f.cfg.Now()}); err != nil {
			f.t.Fatal(err)
		}
		parent = id
	}
	return f.Init(f.t.Context(), "test", ca.InitRequest{}) // reads the ledger, and finds that it need not make any
}

// TestPSS: below CAs that are signed with RSASSA-PSS everything is: certificates, CRLs, OCSP answers and who signs them;
// openssl, gnutls, crypto/x509 and our own reader verify it all.
func TestPSS(t *testing.T) {
	f := newFixture(t)
	if err := f.adopt(opensslPSS(t, "RSA")); !errors.Is(err, ca.ErrConflict) {
		t.Fatal(err)
	}
	f.run()
	row := f.issue("pss")
	if leaf := parse(t, row); leaf.SignatureAlgorithm != x509.SHA256WithRSAPSS {
		t.Errorf("the leaf is signed with %v", leaf.SignatureAlgorithm)
	}
	j := newJudges(f, row)
	j.issuing = f.file("issuing.pem", pkix.EncodeCertificate(f.Issuing().Raw))
	check := func(reason string) {
		t.Helper()
		f.waitCRL(func(list *x509.RevocationList) bool { return (entry(t, list, row) != nil) == (reason != "") })
		if got := f.crl().SignatureAlgorithm; got != x509.SHA256WithRSAPSS {
			t.Errorf("the CRL is signed with %v", got)
		}
		der := j.download("issuing.crl", parse(t, row).CRLDistributionPoints[0])
		wants(t, []string{"verify OK"}, "openssl", "crl", "-inform", "DER", "-in", der, "-CAfile", j.issuing, "-noout")
		wants(t, []string{"rsassaPss", "Salt Length: 0x20"}, "openssl", "crl", "-inform", "DER", "-in", der, "-noout", "-text")
		j.opensslOCSP(reason)
		j.ocsptool(reason)
	}
	wants(t, []string{"OK"}, "openssl", "verify", "-x509_strict", "-CAfile", j.root, "-untrusted", j.issuing, j.leaf)
	check("")
	f.hold(row.ID)
	check("certificateHold")
	answer, err := pkix.ParseOCSPResponse(f.answer(request(crypto.SHA256, f.Issuing(), []byte("n"), row.Serial)).DER)
	if err != nil {
		t.Fatal(err)
	}
	onlyPSS := func(name string) bool { return name == "sha256-rsa-pss" }
	if _, err := answer.CheckResponder(f.Issuing(), f.cfg.Now(), onlyPSS); err != nil {
		t.Error(err)
	}
	list, err := f.CRL(t.Context(), f.issuingID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := pkix.ParseCRLHeader(list.DER)
	if err != nil || crl.SignatureAlgorithm() != "sha256-rsa-pss" || crl.CheckSignature(f.Issuing().PublicKey) != nil {
		t.Errorf("our own reader: %v, %v", crl, err)
	}
}

// TestPSSKey: a key that is restricted to RSASSA-PSS in the certificate cannot be read, and the error says what to do.
func TestPSSKey(t *testing.T) {
	dir := opensslPSS(t, "RSA-PSS")
	f := newFixture(t)
	// As it stands, the private key cannot be read; with another private key, the certificate cannot.
	if err := f.adopt(dir); err == nil || !strings.Contains(err.Error(), "issuing") {
		t.Errorf("with the key: %v", err)
	}
	other := newFixture(t)
	if err := os.Rename(filepath.Join(dir, "root.key"), filepath.Join(dir, "issuing.key")); err != nil {
		t.Fatal(err)
	}
	wants(t, nil, "cp", filepath.Join(dir, "issuing.key"), filepath.Join(dir, "root.key"))
	err := other.adopt(dir)
	if err == nil || !strings.Contains(err.Error(), "id-RSASSA-PSS") || !strings.Contains(err.Error(), "rsaEncryption") {
		t.Errorf("with another key: %v", err)
	}
	// A delegate with such a key is told from one with a wrong signature.
	text, err := os.ReadFile(filepath.Join(dir, "issuing.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pkix.ParseCertificate(text)
	if err != nil || !pkix.HasPSSKey(cert) || !pkix.SignedWithPSS(cert) {
		t.Fatalf("%v, or it is not told apart", err)
	}
	csr, err := os.ReadFile(filepath.Join(dir, "issuing.csr"))
	if err != nil {
		t.Fatal(err)
	}
	f = newCA(t, pkix.ECDSAP256)
	_, err = f.Issue(t.Context(), ca.IssueRequest{ZoneID: zone, Profile: ca.ProfileClient, CSR: csr, ValidDays: 1})
	if refused, ok := errors.AsType[*ca.RequestError](err); !ok || !strings.Contains(err.Error(), "1.2.840.113549.1.1.10") {
		t.Errorf("a CSR with such a key: %v (%v)", err, refused)
	}
}
