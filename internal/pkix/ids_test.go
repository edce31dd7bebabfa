package pkix_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

func TestFingerprint(t *testing.T) {
	ca := testpki.NewCA(t)
	fp := pkix.FingerprintOf(ca.Cert.Raw)
	dir := t.TempDir()
	out := openssl(t, dir, "x509", "-in", write(t, dir, "ca.pem", ca.PEM), "-noout", "-fingerprint", "-sha256")
	_, colons, _ := strings.Cut(strings.TrimSpace(out), "=")
	for _, text := range []string{colons, strings.ToLower(colons), fp.String(), fp.Upper()} {
		got, err := pkix.ParseFingerprint(text)
		if err != nil || got != fp {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "ab", fp.String() + "00", strings.Repeat("zz", 32), strings.Repeat("a", 10000)} {
		if _, err := pkix.ParseFingerprint(bad); err == nil {
			t.Errorf("%.20q was taken", bad)
		}
	}
}

func TestCertID(t *testing.T) {
	one, two := testpki.NewCA(t, testpki.Name("same")), testpki.NewCA(t, testpki.Name("same"))
	serial := testpki.Serial(big.NewInt(0xab))
	a, b := one.Client("a", serial), two.Client("b", serial)
	if pkix.CertIDOf(a.Cert, one.Cert) == pkix.CertIDOf(b.Cert, two.Cert) {
		t.Error("two CAs of one name share a name space")
	}
	renewed := testpki.NewCA(t, testpki.Key(one.Key), testpki.Name("other"))
	if pkix.CertIDOf(a.Cert, one.Cert) != pkix.CertIDOf(a.Cert, renewed.Cert) {
		t.Error("a cross certificate of the same key changed the id")
	}
	if pkix.KeyIDOf(one.Cert) != pkix.KeyIDOfSPKI(one.Cert.RawSubjectPublicKeyInfo) || len(pkix.KeyIDOf(one.Cert).String()) != 64 {
		t.Error("key id")
	}
}

func TestSKI(t *testing.T) {
	plain := testpki.NewCA(t, testpki.V1())
	dir := t.TempDir()
	// openssl's subjectKeyIdentifier=hash is RFC 5280's method 1.
	write(t, dir, "ext.cnf", []byte("subjectKeyIdentifier=hash\n"))
	key, err := pkix.EncodePrivateKey(plain.Key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "key.pem", key)
	openssl(t, dir, "req", "-new", "-key", "key.pem", "-subj", "/CN=x", "-out", "x.csr")
	openssl(t, dir, "x509", "-req", "-in", "x.csr", "-signkey", "key.pem", "-extfile", "ext.cnf", "-out", "x.pem")
	out := openssl(t, dir, "x509", "-in", "x.pem", "-noout", "-ext", "subjectKeyIdentifier")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	want := strings.ReplaceAll(strings.TrimSpace(lines[len(lines)-1]), ":", "")
	if got := strings.ToUpper(hex.EncodeToString(pkix.SKI(plain.Cert))); got != want {
		t.Errorf("SKI without extension %s, openssl says %s", got, want)
	}
	ski, err := pkix.NewSKI(plain.Key.Public())
	if err != nil || len(ski) != 20 {
		t.Fatalf("%x, %v", ski, err)
	}
	if withExt := testpki.NewCA(t, testpki.Key(plain.Key)); !bytes.Equal(pkix.SKI(withExt.Cert), ski) {
		t.Error("SKI is not the extension's")
	}
	if _, err := pkix.NewSKI("no key"); err == nil {
		t.Error("a string has a key identifier")
	}
}

func TestKeyTypes(t *testing.T) {
	for _, keyType := range pkix.KeyTypes() {
		if keyType == pkix.RSA3072 || keyType == pkix.RSA4096 {
			continue // seconds of work and the same code as RSA2048
		}
		key, err := pkix.GenerateKey(keyType)
		if err != nil {
			t.Fatal(err)
		}
		if got := pkix.KeyTypeOf(key.Public()); got != string(keyType) {
			t.Errorf("KeyTypeOf is %q, want %q", got, keyType)
		}
		pemText, err := pkix.EncodePrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := pkix.ParsePrivateKey(pemText)
		if err != nil || pkix.KeyTypeOf(again.Public()) != string(keyType) {
			t.Errorf("%s: %v", keyType, err)
		}
		if got, err := pkix.ParseKeyType(strings.ToUpper(string(keyType))); err != nil || got != keyType {
			t.Errorf("%s: parsed as %q, %v", keyType, got, err)
		}
	}
	for text, want := range map[string]pkix.KeyType{
		"": pkix.ECDSAP256, "P-256": pkix.ECDSAP256, "prime256v1": pkix.ECDSAP256, "secp384r1": pkix.ECDSAP384,
		"rsa": pkix.RSA2048, "rsa:4096": pkix.RSA4096, "RSA_3072": pkix.RSA3072, "MLDSA65": pkix.MLDSA65, "Ed25519": pkix.Ed25519,
	} {
		if got, err := pkix.ParseKeyType(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	_, err := pkix.ParseKeyType("rsa-1024")
	wantError(t, err, `"rsa-1024"`, "rsa-2048")
	_, err = pkix.GenerateKey("dsa")
	wantError(t, err, "dsa")
}

func TestSignTBSKeepsCertificates(t *testing.T) {
	ca := testpki.NewCA(t)
	der, err := pkix.SignTBS(ca.Cert.RawTBSCertificate, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	again, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.CheckSignatureFrom(ca.Cert); err != nil {
		t.Error(err)
	}
}
