package pkix_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

func crlf(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestParseCertificate(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("x")
	other := []byte("some words\n")
	for _, tt := range []struct {
		name string
		in   []byte
		want string // part of the error; "" is success
	}{
		{"plain", ca.PEM, ""},
		{"CRLF", crlf(ca.PEM), ""},
		{"text before", join(other, ca.PEM), ""},
		{"blank lines after", join(ca.PEM, []byte("\n \n")), ""},
		{"text after", join(ca.PEM, other), "10 bytes follow"},
		{"two", join(ca.PEM, leaf.CertPEM), "2 certificates"},
		{"key", leaf.KeyPEM, "private key (PRIVATE KEY)"},
		{"certificate and key", join(ca.PEM, leaf.KeyPEM), "private key"},
		{"key first", join(leaf.KeyPEM, ca.PEM), "private key"},
		{"empty", nil, "the text is empty"},
		{"words", other, "begins with a line"},
		{"DER", ca.Cert.Raw, "looks like DER"},
		{"escaped line ends", bytes.ReplaceAll(ca.PEM, []byte("\n"), []byte(`\n`)), `written as \n`},
		{"blanks for line ends", bytes.ReplaceAll(ca.PEM, []byte("\n"), []byte(" ")), "double quotes"},
		{"cut off", ca.PEM[:len(ca.PEM)/2], "cut off or damaged"},
		{"damaged, then whole", join(ca.PEM[:100], []byte("\n"), ca.PEM), "cut off or damaged"},
		{"CSR", pkix.EncodeCSR([]byte{0x30, 0}), `"CERTIFICATE REQUEST"`},
		{"trusted", pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: ca.Cert.Raw}), "openssl x509"},
		{"nonsense inside", pkix.EncodeCertificate([]byte("nonsense")), "x509"},
		{"bytes inside after the DER", pkix.EncodeCertificate(append(bytes.Clone(ca.Cert.Raw), 0)), "trailing data"},
		{"huge", bytes.Repeat([]byte("x"), pkix.MaxCertificateBytes+1), "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, err := pkix.ParseCertificate(tt.in)
			if tt.want != "" {
				wantError(t, err, tt.want)
				if err != nil && strings.Contains(err.Error(), "MHc") {
					t.Errorf("the error repeats the key: %v", err)
				}
			} else if err != nil || !cert.Equal(ca.Cert) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestParseCertificates(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("x")
	certs, err := pkix.ParseCertificates(join([]byte("# one\n"), ca.PEM, []byte("\n# two\n"), crlf(leaf.CertPEM), []byte("# end\n")))
	if err != nil || len(certs) != 2 || !certs[0].Equal(ca.Cert) || !certs[1].Equal(leaf.Cert) {
		t.Fatalf("%d certificates, %v", len(certs), err)
	}
	again, err := pkix.ParseCertificates(pkix.EncodeCertificates(certs))
	if err != nil || len(again) != 2 {
		t.Errorf("encoded and parsed: %d, %v", len(again), err)
	}
	_, err = pkix.ParseCertificates(join(ca.PEM, leaf.KeyPEM))
	wantError(t, err, "private key")
	_, err = pkix.ParseCertificates(join(ca.PEM, pkix.EncodeCertificate([]byte{1})))
	wantError(t, err, "certificate 2 of 2")
	_, err = pkix.ParseCertificates([]byte("nothing"))
	wantError(t, err, "no PEM")
	_, err = pkix.ParseCertificates(join(ca.PEM, leaf.CertPEM[:200]))
	wantError(t, err, "cut off")
	_, err = pkix.ParseCertificates(bytes.Repeat([]byte("x"), pkix.MaxBundleBytes+1))
	wantError(t, err, "at most")
}

func TestParseCSR(t *testing.T) {
	dir := t.TempDir()
	openssl(t, dir, "ecparam", "-name", "prime256v1", "-genkey", "-out", "key.pem") // with EC PARAMETERS
	openssl(t, dir, "req", "-new", "-key", "key.pem", "-subj", "/C=JP/CN=x", "-out", "x.csr")
	good := []byte(openssl(t, dir, "req", "-in", "x.csr"))
	text := []byte(openssl(t, dir, "req", "-in", "x.csr", "-text"))
	newer := bytes.ReplaceAll(good, []byte("CERTIFICATE REQUEST"), []byte("NEW CERTIFICATE REQUEST"))
	for name, in := range map[string][]byte{"plain": good, "with text": text, "CRLF": crlf(good), "NEW": newer} {
		csr, err := pkix.ParseCSR(in)
		if err != nil || pkix.CommonName(csr.RawSubject) != "x" || csr.CheckSignature() != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	block, _ := pem.Decode(good)
	block.Bytes[len(block.Bytes)-1] ^= 1
	if csr, err := pkix.ParseCSR(pkix.EncodeCSR(block.Bytes)); err != nil || csr.CheckSignature() == nil {
		t.Errorf("bad signature: parsed with %v, and the signature passes", err)
	}
	leaf := testpki.NewCA(t).Client("x")
	for _, tt := range []struct {
		in   []byte
		want string
	}{
		{join(good, good), "2 requests"},
		{leaf.CertPEM, `"CERTIFICATE"`},
		{leaf.KeyPEM, "private key"},
		{join(good, []byte("x")), "1 bytes follow"},
		{bytes.Repeat([]byte("x"), pkix.MaxCSRBytes+1), "at most 65536"},
	} {
		_, err := pkix.ParseCSR(tt.in)
		wantError(t, err, tt.want)
	}
}

func TestParsePrivateKeyFromOpenSSL(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		name string
		args string
		want string
	}{
		{"SEC1 with parameters", "ecparam -name prime256v1 -genkey", "ecdsa-p256"},
		{"SEC1", "ecparam -name secp384r1 -genkey -noout", "ecdsa-p384"},
		{"SEC1 P-521", "ecparam -name secp521r1 -genkey -noout", "ecdsa-p521"},
		{"PKCS1", "genrsa -traditional 2048", "rsa-2048"},
		{"PKCS8 RSA", "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048", "rsa-2048"},
		{"PKCS8 EC", "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", "ecdsa-p256"},
		{"PKCS8 Ed25519", "genpkey -algorithm ED25519", "ed25519"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			openssl(t, dir, slices.Insert(strings.Fields(tt.args), 1, "-out", "key.pem")...)
			openssl(t, dir, "pkey", "-in", "key.pem", "-pubout", "-outform", "PEM", "-out", "pub.pem")
			key, err := pkix.ParsePrivateKey(readFile(t, dir, "key.pem"))
			if err != nil {
				t.Fatal(err)
			}
			if got := pkix.KeyTypeOf(key.Public()); got != tt.want {
				t.Errorf("type %s, want %s", got, tt.want)
			}
			ours, err := pkix.EncodePrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, "ours.pem", ours)
			if got := openssl(t, dir, "pkey", "-in", "ours.pem", "-pubout"); got != string(readFile(t, dir, "pub.pem")) {
				t.Error("openssl reads another public key from our encoding")
			}
		})
	}
	openssl(t, dir, "genrsa", "-aes128", "-passout", "pass:secret", "-traditional", "-out", "old.pem", "2048")
	openssl(t, dir, "genpkey", "-quiet", "-algorithm", "ED25519", "-aes128", "-pass", "pass:secret", "-out", "new.pem")
	for _, name := range []string{"old.pem", "new.pem"} {
		_, err := pkix.ParsePrivateKey(readFile(t, dir, name))
		wantError(t, err, "encrypted", "openssl pkey")
	}
}

func TestParsePrivateKeyErrors(t *testing.T) {
	leaf := testpki.NewCA(t).Client("x")
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	bare := func(b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "Ed25519 PRIVATE KEY", Bytes: b}) }
	for _, b := range [][]byte{key.Seed(), key} {
		got, err := pkix.ParsePrivateKey(bare(b))
		if err != nil || !key.Equal(got) {
			t.Errorf("bare Ed25519 of %d octets: %v", len(b), err)
		}
	}
	for _, tt := range []struct {
		in   []byte
		want string
	}{
		{bare(make([]byte, 64)), "public half"},
		{bare(make([]byte, 40)), "private key"},
		{leaf.CertPEM, "this is a certificate"},
		{join(leaf.KeyPEM, leaf.KeyPEM), "2 blocks"},
		{join(leaf.KeyPEM, leaf.CertPEM), "2 blocks"},
		{join(leaf.KeyPEM, []byte("tail")), "4 bytes follow"},
		{pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}), "0 blocks"},
		{pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{6, 0}}), "public key"},
		{nil, "empty"},
	} {
		_, err := pkix.ParsePrivateKey(tt.in)
		wantError(t, err, tt.want)
	}
}

func FuzzParseCertificates(f *testing.F) {
	ca := testpki.NewCA(f)
	leaf := ca.Client("x", testpki.V1())
	f.Add(ca.PEM)
	f.Add(join(ca.PEM, leaf.CertPEM))
	f.Add(join(ca.PEM[:50], leaf.CertPEM))
	f.Add(crlf(leaf.CertPEM))
	f.Add(leaf.KeyPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := pkix.ParseCertificates(text)
		if err != nil {
			return
		}
		again, err := pkix.ParseCertificates(pkix.EncodeCertificates(certs))
		if len(certs) == 0 || err != nil || len(again) != len(certs) {
			t.Errorf("%d certificates, then %d, %v", len(certs), len(again), err)
		}
	})
}
