package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mldsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestIssueKeyTypes issues from every kind of CA to every kind of key, and lets crypto/x509 verify.
func TestIssueKeyTypes(t *testing.T) {
	subjects := map[string]crypto.Signer{}
	for _, kind := range pkix.KeyTypes() {
		subjects[string(kind)] = newKey(t, kind)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	subjects["ecdsa-p521"] = p521
	for name, params := range map[string]mldsa.Parameters{"ml-dsa-44": mldsa.MLDSA44(), "ml-dsa-87": mldsa.MLDSA87()} {
		key, err := mldsa.GenerateKey(params)
		if err != nil {
			t.Fatal(err)
		}
		subjects[name] = key
	}
	for _, kind := range pkix.KeyTypes() {
		t.Run(string(kind), func(t *testing.T) {
			f := newCA(t, kind)
			for name, key := range subjects {
				for _, profile := range []string{ca.ProfileClient, ca.ProfileServer} {
					template := named("a.example.com")
					template.DNSNames = []string{"b.example.com"}
					row, err := f.Issue(t.Context(), ca.IssueRequest{
						ZoneID: zone, Profile: profile, CSR: csr(t, key, template), ValidDays: 90, Actor: "test",
					})
					if err != nil {
						t.Errorf("%s for %s: %v", profile, name, err)
						continue
					}
					checkLeaf(t, f, row, profile, key.Public())
				}
			}
		})
	}
}

// checkLeaf verifies a certificate and looks at everything a profile promises.
func checkLeaf(t *testing.T, f *fixture, row ca.Certificate, profile string, pub crypto.PublicKey) {
	t.Helper()
	cert := parse(t, row)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(f.Root())
	between.AddCert(f.Issuing())
	usage := x509.ExtKeyUsageClientAuth
	if profile == ca.ProfileServer {
		usage = x509.ExtKeyUsageServerAuth
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}, DNSName: "b.example.com", CurrentTime: f.cfg.Now(),
	})
	if err != nil {
		t.Errorf("%s: %v", profile, err)
	}
	wantUsage := x509.KeyUsageDigitalSignature
	if _, isRSA := pub.(*rsa.PublicKey); isRSA && profile == ca.ProfileServer {
		wantUsage |= x509.KeyUsageKeyEncipherment
	}
	id := f.issuingID()
	got := []any{
		cert.KeyUsage, cert.ExtKeyUsage, cert.IsCA, cert.CRLDistributionPoints, cert.OCSPServer, cert.IssuingCertificateURL,
		bytes.Equal(cert.AuthorityKeyId, f.Issuing().SubjectKeyId), len(cert.SerialNumber.Bytes()), cert.Version,
	}
	want := []any{
		wantUsage,
		[]x509.ExtKeyUsage{usage},
		false,
		[]string{f.url + "/crl/" + id + "/0.crl"},
		[]string{f.url + "/ocsp"},
		[]string{f.url + "/ca/" + id + ".cer"},
		true, 20, 3,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", profile, diff)
	}
	stored, err := f.Certificate(t.Context(), zone, row.ID)
	if err != nil || !bytes.Equal(stored.DER, row.DER) {
		t.Errorf("%s: the ledger has not this certificate: %v", profile, err)
	}
}

// TestSubject passes a request's subject through octet for octet, and takes the two written forms.
func TestSubject(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	key := newKey(t, pkix.ECDSAP256)
	const nine = "/C=JP/ST=Tokyo/L=Chuo/O=Kame/OU=Rock/CN=Super Client/emailAddress=kame@example.com/serialNumber=42/DC=example"
	raw, err := pkix.ParseDN(nine)
	if err != nil {
		t.Fatal(err)
	}
	request := csr(t, key, x509.CertificateRequest{RawSubject: raw})
	for name, c := range map[string]struct {
		req  ca.IssueRequest
		want string
	}{
		"from the request": {ca.IssueRequest{CSR: request}, nine},
		"slash form":       {ca.IssueRequest{CSR: request, Subject: "/C=JP/CN=Other"}, "/C=JP/CN=Other"},
		"RFC 4514":         {ca.IssueRequest{CSR: request, Subject: `CN=Other,O=A\, B,C=JP`}, "/C=JP/O=A, B/CN=Other"},
		"DER and a key":    {ca.IssueRequest{PublicKey: key.Public(), SubjectDER: raw}, nine},
	} {
		t.Run(name, func(t *testing.T) {
			c.req.ZoneID, c.req.Profile, c.req.ValidDays = zone, ca.ProfileClient, 1
			row, err := f.Issue(t.Context(), c.req)
			if err != nil {
				t.Fatal(err)
			}
			cert := parse(t, row)
			if got := pkix.DNLegacy(cert.RawSubject); got != c.want {
				t.Errorf("subject %s, want %s", got, c.want)
			}
			if c.want == nine && !bytes.Equal(cert.RawSubject, raw) {
				t.Error("the subject was encoded anew")
			}
		})
	}
}

// TestNames joins the names of request and call, and takes a server's host name out of its common name.
func TestNames(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	template := named("WWW.Example.com")
	template.DNSNames = []string{"api.example.com"}
	row, err := f.Issue(t.Context(), ca.IssueRequest{
		Profile: ca.ProfileServer, ValidDays: 1, CSR: csr(t, newKey(t, pkix.ECDSAP256), template),
		DNSNames: []string{"API.example.com", "*.example.net"}, IPAddresses: []netip.Addr{netip.MustParseAddr("::1")},
		URIs: []string{"spiffe://example.com/web"}, Emails: []string{"ops@example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, row)
	if diff := cmp.Diff([]string{"api.example.com", "*.example.net", "www.example.com"}, cert.DNSNames); diff != "" {
		t.Errorf("DNS names (-want +got):\n%s", diff)
	}
	if len(cert.IPAddresses) != 1 || len(cert.URIs) != 1 || len(cert.EmailAddresses) != 1 {
		t.Errorf("names %v %v %v", cert.IPAddresses, cert.URIs, cert.EmailAddresses)
	}
	// RFC 5280, Section 4.1.2.6: no subject, so the names are critical.
	row, err = f.Issue(t.Context(), ca.IssueRequest{
		Profile: ca.ProfileClient, ValidDays: 1, PublicKey: newKey(t, pkix.ECDSAP256).Public(), URIs: []string{"spiffe://example.com/a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range parse(t, row).Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) && !e.Critical {
			t.Error("subjectAltName of a certificate without a subject is not critical")
		}
	}
}

func ext(t *testing.T, id asn1.ObjectIdentifier, v any) x509.CertificateRequest {
	t.Helper()
	der, ok := v.([]byte)
	if !ok {
		var err error
		if der, err = asn1.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	template := named("x")
	template.ExtraExtensions = []x509pkix.Extension{{Id: id, Value: der}}
	return template
}

// TestBadRequests: each with its field and a text that says what was wrong, and nothing in the ledger.
func TestBadRequests(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, config(func(c *ca.Config) { c.IssuingLifetime = 400 * 24 * time.Hour }))
	key := newKey(t, pkix.ECDSAP256)
	good := csr(t, key, named("x"))
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(mustDER(t, good))
	forged[len(forged)-1] ^= 1
	type bits = asn1.BitString
	type basic struct{ CA bool }
	oid := func(last ...int) asn1.ObjectIdentifier { return append(asn1.ObjectIdentifier{2, 5, 29}, last...) }
	ekus := func(last ...int) []asn1.ObjectIdentifier {
		var out []asn1.ObjectIdentifier
		for _, n := range last {
			out = append(out, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, n})
		}
		return out
	}
	client := func(pem []byte) ca.IssueRequest {
		return ca.IssueRequest{Profile: ca.ProfileClient, CSR: pem, ValidDays: 1}
	}
	for _, c := range []struct {
		name, field, text string
		req               ca.IssueRequest
	}{
		{"bad signature", "csr", "signature", client(pkix.EncodeCSR(forged))},
		{"weak RSA", "csr", "1024 bits; at least 2048", client(csr(t, weak, named("x")))},
		{"huge", "csr", "65536", client(append(bytes.Repeat([]byte("x"), 64<<10), good...))},
		{"wrong curve", "csr", "ecdsa-p224", client(csr(t, p224, named("x")))},
		{"no subject, no name", "csr", "neither a subject nor", client(csr(t, key, x509.CertificateRequest{}))},
		{"private key", "csr", "private key", client([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))},
		{"certificate", "csr", "CERTIFICATE REQUEST", client(pkix.EncodeCertificate(f.Root().Raw))},
		{"not PEM", "csr", "no PEM block", client([]byte("hello"))},
		{"two", "csr", "2 requests", client(append(bytes.Clone(good), good...))},
		{"trailing", "csr", "follow the PEM block", client(append(bytes.Clone(good), "tail"...))},
		{"nothing", "csr", "give a certificate request", client(nil)},
		{"wants to be a CA", "csr", "CA:TRUE", client(csr(t, key, ext(t, oid(19), basic{true})))},
		{"certSign", "csr", "keyCertSign", client(csr(t, key, ext(t, oid(15), bits{Bytes: []byte{4}, BitLength: 6})))},
		{"keyEncipherment for ECDSA", "csr", "keyEncipherment", client(csr(t, key, ext(t, oid(15), bits{Bytes: []byte{0x20}, BitLength: 3})))},
		{"server usage", "csr", "serverAuth", client(csr(t, key, ext(t, oid(37), ekus(1))))},
		{"unknown extension", "csr", "1.3.6.1.4.1.99999.1", client(csr(t, key, ext(t, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, 1)))},
		{"directory name", "csr", "directoryName", client(csr(t, key, ext(t, oid(17), []byte{0x30, 4, 0xa4, 2, 0x30, 0})))},
		{"key twice", "csr", "not both", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, PublicKey: key.Public(), ValidDays: 1}},
		{"bad DN", "subject", "XX", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, Subject: "XX=1", ValidDays: 1}},
		{"bad DER", "subject", "no distinguished name", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, SubjectDER: []byte{0x30, 0, 0x30, 0}, ValidDays: 1}},
		{"host name", "hosts", "no host name", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, DNSNames: []string{"a_b."}, ValidDays: 1}},
		{"relative URI", "hosts", "absolute", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, URIs: []string{"/a"}, ValidDays: 1}},
		{"mail", "hosts", "e-mail", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, Emails: []string{"a"}, ValidDays: 1}},
		{"server without a name", "hosts", "at least one", ca.IssueRequest{Profile: ca.ProfileServer, CSR: csr(t, key, named("Super Server")), ValidDays: 1}},
		{"profile", "profile", "client and server", ca.IssueRequest{Profile: "ocsp", CSR: good, ValidDays: 1}},
		{"no days", "validity_days", "between 1 and 5475", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good}},
		{"too many days", "validity_days", "between 1 and 5475", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, ValidDays: 5476}},
		{"absurd days", "validity_days", "between", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, ValidDays: 1 << 62}},
		{"beyond the issuer", "validity_days", "outlive its issuer", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, ValidDays: 401}},
		{"days and end", "validity_days", "not both", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, ValidDays: 1, NotAfter: time.Now().Add(time.Hour)}},
		{"address as host", "hosts", "is an address", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, DNSNames: []string{"127.0.0.1"}, ValidDays: 1}},
		{"weak key beside", "public_key", "1024 bits", ca.IssueRequest{Profile: ca.ProfileClient, PublicKey: weak.Public(), Subject: "CN=x", ValidDays: 1}},
		{"unnamed key", "subject", "neither a subject nor", ca.IssueRequest{Profile: ca.ProfileClient, PublicKey: key.Public(), ValidDays: 1}},
		{"in the past", "validity_days", "ended", ca.IssueRequest{Profile: ca.ProfileClient, CSR: good, NotAfter: time.Now().Add(-time.Hour)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := f.Issue(t.Context(), c.req)
			bad, ok := errors.AsType[*ca.RequestError](err)
			if !ok || !errors.Is(err, ca.ErrInvalid) {
				t.Fatalf("error %v, want a RequestError", err)
			}
			if bad.Field != c.field || !strings.Contains(bad.Message, c.text) {
				t.Errorf("field %s, %q; want %s with %q", bad.Field, bad.Message, c.field, c.text)
			}
		})
	}
	if _, total, err := f.Certificates(t.Context(), ca.Filter{}); err != nil || total != 0 {
		t.Errorf("%d certificates in the ledger after refusals, %v", total, err)
	}
}

func mustDER(t *testing.T, pem []byte) []byte {
	t.Helper()
	request, err := pkix.ParseCSR(pem)
	if err != nil {
		t.Fatal(err)
	}
	return request.Raw
}

// TestLintRefusal: what zlint finds is refused by the lint's name.
func TestLintRefusal(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	// A common name of 65 characters, above X.520's bound, from a request whose subject passes through.
	template := named(strings.Repeat("x", 65))
	_, err := f.Issue(t.Context(), ca.IssueRequest{Profile: ca.ProfileClient, ValidDays: 1, CSR: csr(t, newKey(t, pkix.ECDSAP256), template)})
	if !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), "e_subject_common_name_max_length") {
		t.Errorf("error %v, want the lint by name", err)
	}
}

// TestCSRExtensions: what a request may ask for, since the profile gives it.
func TestCSRExtensions(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	key := newKey(t, pkix.RSA2048)
	template := named("x.example")
	template.ExtraExtensions = []x509pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0}},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 5, 0xa0}},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 14}, Value: []byte{4, 2, 1, 2}},
	}
	if _, err := f.Issue(t.Context(), ca.IssueRequest{Profile: ca.ProfileServer, ValidDays: 1, CSR: csr(t, key, template)}); err != nil {
		t.Error(err)
	}
}

// TestKeyCompromiseBlocksKey: a compromised key is never certified again, in whatever form it comes.
func TestKeyCompromiseBlocksKey(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	key := newKey(t, pkix.ECDSAP256)
	req := ca.IssueRequest{ZoneID: zone, Profile: ca.ProfileClient, ValidDays: 1, CSR: csr(t, key, named("x"))}
	row, err := f.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	f.revoke(row.ID, pkix.KeyCompromise)
	if _, err := f.Issue(t.Context(), req); !errors.Is(err, ca.ErrKeyBlocked) {
		t.Errorf("error %v, want ErrKeyBlocked", err)
	}
}

// TestDiskFullDuringIssue: a failed commit leaves no certificate, and the next request works.
func TestDiskFullDuringIssue(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	full := func(point string) error {
		if point == "before-commit" {
			return syscall.ENOSPC
		}
		return nil
	}
	f.fault.Store(&full)
	req := ca.IssueRequest{ZoneID: zone, Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 1}
	row, key, err := f.IssueWithKey(t.Context(), req, pkix.ECDSAP256)
	if !errors.Is(err, syscall.ENOSPC) || key != nil || row.DER != nil {
		t.Errorf("row %q, key %v, error %v; want only an error about space", row.ID, key, err)
	}
	f.fault.Store(nil)
	if _, total, err := f.Certificates(t.Context(), ca.Filter{}); err != nil || total != 0 {
		t.Errorf("%d certificates in the ledger, %v", total, err)
	}
	f.issue("after")
}

// takenLedger says of the first serial numbers that they are taken.
type takenLedger struct {
	ca.Ledger
	times int
	seen  map[pkix.Serial]bool
}

func (l *takenLedger) RecordCertificate(ctx context.Context, c ca.Certificate, e auditlog.Entry) error {
	l.seen[c.Serial] = true
	if len(l.seen) <= l.times {
		return ca.ErrSerialTaken
	}
	return l.Ledger.RecordCertificate(ctx, c, e)
}

// TestSerialTaken: a taken serial number costs another try with a new one, not a request.
func TestSerialTaken(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	req := ca.IssueRequest{Profile: ca.ProfileClient, ValidDays: 1, CSR: csr(t, newKey(t, pkix.ECDSAP256), named("x"))}
	for times, want := range map[int]error{2: nil, 3: ca.ErrSerialTaken} {
		ledger := &takenLedger{Ledger: f.store, times: times, seen: map[pkix.Serial]bool{}}
		cfg := f.cfg
		cfg.Ledger = ledger
		authority, err := ca.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := authority.Issue(t.Context(), req); !errors.Is(err, want) || len(ledger.seen) != 3 {
			t.Errorf("%d taken: %v after %d tries, want %v after 3", times, err, len(ledger.seen), want)
		}
	}
}

func BenchmarkIssue(b *testing.B) {
	for _, kind := range []pkix.KeyType{pkix.ECDSAP256, pkix.MLDSA65} {
		b.Run(string(kind), func(b *testing.B) {
			f := newCA(b, kind)
			req := ca.IssueRequest{ZoneID: zone, Profile: ca.ProfileClient, ValidDays: 1, CSR: csr(b, newKey(b, pkix.ECDSAP256), named("x"))}
			b.SetParallelism(16)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := f.Issue(b.Context(), req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
