package pkix_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mldsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

func at(year int) time.Time {
	return time.Date(year, 5, 6, 7, 8, 9, 123, time.FixedZone("JST", 9*3600))
}

func template(ca *testpki.CA) pkix.CRLTemplate {
	now := time.Now().Truncate(time.Second)
	return pkix.CRLTemplate{Issuer: ca.Cert, Number: big.NewInt(7), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
}

func sign(t *testing.T, tmpl pkix.CRLTemplate, ca *testpki.CA, entries ...pkix.CRLEntry) *x509.RevocationList {
	t.Helper()
	var encoded []byte
	for _, e := range entries {
		encoded = pkix.AppendCRLEntry(encoded, e)
	}
	der, err := pkix.SignCRL(tmpl, encoded, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func serial(t *testing.T, text string) pkix.Serial {
	t.Helper()
	s, err := pkix.ParseSerial(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCRLEntries(t *testing.T) {
	ca := testpki.NewCA(t)
	var entries []pkix.CRLEntry
	for i, reason := range pkix.Reasons() {
		entries = append(entries, pkix.CRLEntry{Serial: serial(t, fmt.Sprintf("8%x", i)), At: at(2020 + i), Reason: reason})
	}
	entries = append(entries,
		pkix.CRLEntry{Serial: pkix.SerialFromBytes(make([]byte, 3)), At: at(1949)},
		pkix.CRLEntry{Serial: serial(t, strings.Repeat("ff", 40)), At: at(2050), Reason: pkix.KeyCompromise, InvalidityDate: at(2001)},
		pkix.CRLEntry{Serial: serial(t, "7f"), At: at(2049), InvalidityDate: at(2002)},
	)
	delta := template(ca)
	delta.BaseNumber = big.NewInt(3) // or removeFromCRL is refused
	list := sign(t, delta, ca, entries...)
	if len(list.RevokedCertificateEntries) != len(entries) {
		t.Fatalf("%d entries, want %d", len(list.RevokedCertificateEntries), len(entries))
	}
	for i, got := range list.RevokedCertificateEntries {
		want := entries[i]
		if pkix.SerialOf(got.SerialNumber) != want.Serial || got.ReasonCode != int(want.Reason) ||
			!got.RevocationTime.Equal(want.At.Truncate(time.Second)) {
			t.Errorf("entry %d is %v %v %v, want %v", i, got.SerialNumber, got.RevocationTime, got.ReasonCode, want)
		}
		wantExts := 0
		if want.Reason != pkix.Unspecified {
			wantExts++
		}
		if !want.InvalidityDate.IsZero() {
			wantExts++
			checkInvalidity(t, got, want.InvalidityDate)
		}
		if len(got.Extensions) != wantExts {
			t.Errorf("entry %d has %d extensions, want %d", i, len(got.Extensions), wantExts)
		}
	}
}

func checkInvalidity(t *testing.T, entry x509.RevocationListEntry, want time.Time) {
	t.Helper()
	ext := entry.Extensions[len(entry.Extensions)-1]
	var date time.Time
	rest, err := asn1.UnmarshalWithParams(ext.Value, &date, "generalized")
	if err != nil || len(rest) > 0 || !date.Equal(want.Truncate(time.Second)) || ext.Id.String() != "2.5.29.24" {
		t.Errorf("invalidity date %v in %v (%v), want %v", date, ext.Id, err, want)
	}
}

func TestCRLKeyTypes(t *testing.T) {
	keys := []pkix.KeyType{pkix.ECDSAP256, pkix.ECDSAP384, pkix.RSA2048, pkix.Ed25519, pkix.MLDSA65}
	for _, keyType := range keys {
		t.Run(string(keyType), func(t *testing.T) { checkSigned(t, testpki.NewCA(t, testpki.KeyType(keyType))) })
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("ecdsa-p521", func(t *testing.T) { checkSigned(t, testpki.NewCA(t, testpki.Key(p521))) })
	for _, params := range []mldsa.Parameters{mldsa.MLDSA44(), mldsa.MLDSA87()} {
		key, err := mldsa.GenerateKey(params)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(params.String(), func(t *testing.T) { checkSigned(t, testpki.NewCA(t, testpki.Key(key))) })
	}
	t.Run("no key usage", func(t *testing.T) { checkSigned(t, testpki.NewCA(t, testpki.NoKeyUsage())) })
	t.Run("v1", func(t *testing.T) { checkSigned(t, testpki.NewCA(t, testpki.V1())) })
}

// checkSigned lets crypto/x509, crypto/mldsa or openssl judge the signature.
func checkSigned(t *testing.T, ca *testpki.CA) {
	t.Helper()
	list := sign(t, template(ca), ca, pkix.CRLEntry{Serial: serial(t, "ab"), At: at(2020)})
	if err := ca.Cert.CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, list.Signature); err != nil {
		t.Errorf("signature: %v", err)
	}
	if pub, ok := ca.Cert.PublicKey.(*mldsa.PublicKey); ok {
		if err := mldsa.Verify(pub, list.RawTBSRevocationList, list.Signature, nil); err != nil {
			t.Errorf("crypto/mldsa: %v", err)
		}
		return // Debian 12's openssl cannot read ML-DSA
	}
	dir := t.TempDir()
	write(t, dir, "ca.pem", ca.PEM)
	write(t, dir, "crl.pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list.Raw}))
	if out := openssl(t, dir, "crl", "-in", "crl.pem", "-CAfile", "ca.pem", "-noout"); !strings.Contains(out, "verify OK") {
		t.Errorf("openssl crl: %s", out)
	}
}

func TestCRLExtensions(t *testing.T) {
	ca := testpki.NewCA(t)
	tmpl := template(ca)
	tmpl.Number = new(big.Int).SetBytes([]byte{0x7f, 19: 1})
	tmpl.DistributionPoints = []string{"http://pki.example/a.crl", "http://pki.example/b.crl"}
	tmpl.FreshestCRL = []string{"http://pki.example/delta.crl"}
	tmpl.OnlyUserCerts = true
	list := sign(t, tmpl, ca)
	if list.Number.Cmp(tmpl.Number) != 0 || string(list.AuthorityKeyId) != string(ca.Cert.SubjectKeyId) || len(list.RevokedCertificateEntries) != 0 {
		t.Errorf("number %v, AKI %x", list.Number, list.AuthorityKeyId)
	}
	if !list.ThisUpdate.Equal(tmpl.ThisUpdate) || !list.NextUpdate.Equal(tmpl.NextUpdate) {
		t.Errorf("%v to %v", list.ThisUpdate, list.NextUpdate)
	}
	dir := t.TempDir()
	write(t, dir, "crl.der", list.Raw)
	text := openssl(t, dir, "crl", "-inform", "DER", "-in", "crl.der", "-noout", "-text")
	for _, want := range []string{
		"Version 2 (0x1)", "X509v3 Issuing Distribution Point: critical", "URI:http://pki.example/a.crl", "URI:http://pki.example/b.crl",
		"Only User Certificates", "X509v3 Freshest CRL:", "URI:http://pki.example/delta.crl", "No Revoked Certificates",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl does not print %q:\n%s", want, text)
		}
	}
	delta := template(ca)
	delta.BaseNumber = big.NewInt(3)
	list = sign(t, delta, ca, pkix.CRLEntry{Serial: serial(t, "01"), At: at(2020), Reason: pkix.RemoveFromCRL})
	write(t, dir, "crl.der", list.Raw)
	text = openssl(t, dir, "crl", "-inform", "DER", "-in", "crl.der", "-noout", "-text")
	if !strings.Contains(text, "X509v3 Delta CRL Indicator: critical\n                3\n") || !strings.Contains(text, "Remove From CRL") {
		t.Errorf("openssl prints of the delta:\n%s", text)
	}
}

// TestCRLVerifiedByOpenSSL: full CRL and delta with the same distribution
// point make openssl refuse the revoked certificates and no other.
func TestCRLVerifiedByOpenSSL(t *testing.T) {
	const uri = "http://pki.example/shard.crl"
	ca := testpki.NewCA(t)
	dp := testpki.Edit(func(c *x509.Certificate) { c.CRLDistributionPoints = []string{uri} })
	full := template(ca)
	full.DistributionPoints, full.OnlyUserCerts = []string{uri}, true
	delta := full
	delta.Number, delta.BaseNumber = big.NewInt(8), full.Number
	full.FreshestCRL = []string{"http://pki.example/delta.crl"} // or openssl looks at no delta
	revoked, later, good := ca.Client("revoked", dp), ca.Client("later", dp), ca.Client("good", dp)
	entry := func(l testpki.Leaf) pkix.CRLEntry {
		return pkix.CRLEntry{Serial: pkix.SerialOf(l.Cert.SerialNumber), At: at(2020), Reason: pkix.KeyCompromise}
	}
	dir := t.TempDir()
	write(t, dir, "ca.pem", ca.PEM)
	write(t, dir, "crls.pem", join(
		pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: sign(t, full, ca, entry(revoked)).Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: sign(t, delta, ca, entry(later)).Raw})))
	openssl(t, dir, "version")
	for _, tt := range []struct {
		leaf testpki.Leaf
		want string
	}{{revoked, "certificate revoked"}, {later, "certificate revoked"}, {good, "leaf.pem: OK"}} {
		write(t, dir, "leaf.pem", tt.leaf.CertPEM)
		cmd := exec.CommandContext(t.Context(), "openssl", "verify", "-extended_crl", "-use_deltas", "-crl_check",
			"-CAfile", "ca.pem", "-CRLfile", "crls.pem", "leaf.pem")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %v\n%s", pkix.DNString(tt.leaf.Cert.RawSubject), err, out)
		}
	}
}

func TestSignCRLErrors(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t)
	for _, tt := range []struct {
		name string
		edit func(*pkix.CRLTemplate)
		want string
	}{
		{"issuer", func(c *pkix.CRLTemplate) { c.Issuer = nil }, "no issuer"},
		{"other key", func(c *pkix.CRLTemplate) { c.Issuer = other.Cert }, "not the key of certificate CN=testpki root"},
		{"no number", func(c *pkix.CRLTemplate) { c.Number = nil }, "number"},
		{"negative", func(c *pkix.CRLTemplate) { c.Number = big.NewInt(-1) }, "number -1"},
		{"21 octets", func(c *pkix.CRLTemplate) { c.Number = new(big.Int).Lsh(big.NewInt(1), 159) }, "2^159"},
		{"base", func(c *pkix.CRLTemplate) { c.BaseNumber = big.NewInt(9) }, "base number 9"},
		{"times", func(c *pkix.CRLTemplate) { c.NextUpdate = c.ThisUpdate }, "not after"},
		{"delta's freshest", func(c *pkix.CRLTemplate) { c.BaseNumber, c.FreshestCRL = big.NewInt(1), []string{"x"} }, "freshest"},
	} {
		tmpl := template(ca)
		tt.edit(&tmpl)
		_, err := pkix.SignCRL(tmpl, nil, ca.Key)
		wantError(t, err, tt.want)
	}
}

func TestReasons(t *testing.T) {
	for _, r := range pkix.Reasons() {
		for _, text := range []string{r.String(), strings.ToUpper(r.String()), fmt.Sprint(int(r)), " " + r.String()} {
			if got, err := pkix.ParseReason(text); err != nil || got != r {
				t.Errorf("%q: %v, %v", text, got, err)
			}
		}
		if !r.Known() {
			t.Errorf("%v is not known", r)
		}
	}
	if got, err := pkix.ParseReason("KEY_COMPROMISE"); err != nil || got != pkix.KeyCompromise {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "7", "11", "-1", "stolen"} {
		_, err := pkix.ParseReason(bad)
		wantError(t, err, "keyCompromise (1)")
	}
	if pkix.Reason(7).Known() || pkix.Reason(7).String() != "reason 7" {
		t.Error("reason 7 is known")
	}
}

func TestAppendCRLEntryAllocates(t *testing.T) {
	e := pkix.CRLEntry{Serial: serial(t, "028a07ff"), At: at(2026), Reason: pkix.CertificateHold}
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { buf = pkix.AppendCRLEntry(buf[:0], e) }); n > 0 {
		t.Errorf("%v allocations an entry", n)
	}
}
