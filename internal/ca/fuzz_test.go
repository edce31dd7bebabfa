package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"testing"
	"time"

	"sekisho/internal/ca/lint"
	"sekisho/internal/pkix"
)

// FuzzApplicant: whatever the request, checking it ends, and what passes makes a certificate that parses or a refusal.
func FuzzApplicant(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, template := range []x509.CertificateRequest{
		{Subject: x509pkix.Name{CommonName: "x"}},
		{DNSNames: []string{"a.example"}, EmailAddresses: []string{"a@example.com"}},
		{ExtraExtensions: []x509pkix.Extension{{Id: oid(15), Value: []byte{3, 2, 7, 0x80}}, {Id: oid(37), Value: []byte{0x30, 0}}, {Id: oid(19), Value: []byte{0x30, 0}}}},
	} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der, []byte("CN=y"), "b.example")
	}
	linter, err := lint.New()
	if err != nil {
		f.Fatal(err)
	}
	algorithm, err := algorithmOf(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, der, subject []byte, host string) {
		for _, name := range []string{ProfileClient, ProfileServer} {
			p, err := profileFor(name)
			if err != nil {
				t.Fatal(err)
			}
			if csr, err := x509.ParseCertificateRequest(der); err == nil { // the fuzzer makes no signatures
				_ = checkAttributes(csr.RawTBSCertificateRequest)
				for _, e := range csr.Extensions {
					_ = checkExtension(e.Id, e.Value, key.Public(), p)
				}
			}
			_, _ = newApplicant(IssueRequest{CSR: pkix.EncodeCSR(der)}, p)
			who, err := newApplicant(IssueRequest{PublicKey: key.Public(), SubjectDER: subject, DNSNames: []string{host}, Emails: []string{host}, URIs: []string{host}}, p)
			if err != nil {
				continue
			}
			tbs, err := tbsCertificate{
				serial: newSerial(), algorithm: algorithm, issuer: who.subject, subject: who.subject, spki: who.spki,
				notBefore: time.Unix(0, 0), notAfter: time.Unix(1e9, 0), extensions: []extension{who.names.extension(false)},
			}.marshal()
			if err == nil {
				_, _ = linter.Check(tbs, algorithm)
			}
		}
	})
}
