package certpath

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// chain is a leaf and what its owner sends with it.
func chain(l testpki.Leaf) []*x509.Certificate {
	return append([]*x509.Certificate{l.Cert}, l.Chain...)
}

// edit and extension make certificates odd.
func edit(f func(*x509.Certificate)) testpki.Option { return testpki.Edit(f) }

func extension(oid asn1.ObjectIdentifier, critical bool, value []byte) testpki.Option {
	return edit(func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, x509pkix.Extension{Id: oid, Critical: critical, Value: value})
	})
}

// reasonOf is the reason of an *Error, "" for nil.
func reasonOf(t testing.TB, err error) Reason {
	t.Helper()
	if err == nil {
		return ""
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("%T is no *Error: %v", err, err)
	}
	if e.Err == nil || e.Error() == "" {
		t.Errorf("no explanation for %s", e.Reason)
	}
	return e.Reason
}

func TestReasons(t *testing.T) {
	now := time.Now()
	old := now.Add(-30 * time.Minute) // after the issuers' notBefore, an hour ago
	ca, foreign := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("foreign"))
	namesake := testpki.NewCA(t) // ca's name, another key
	sub := ca.Intermediate("sub")
	usage := func(u x509.KeyUsage) testpki.Option { return edit(func(c *x509.Certificate) { c.KeyUsage = u }) }
	eku := func(u ...x509.ExtKeyUsage) testpki.Option {
		return edit(func(c *x509.Certificate) { c.ExtKeyUsage = u })
	}
	short := ca.Intermediate("short", edit(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }))
	domain := ca.Intermediate("domain", edit(func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"good.example"}, true
	}))
	explicit := ca.Intermediate("explicit", extension(asn1.ObjectIdentifier{2, 5, 29, 36}, true, []byte{0x30, 3, 0x80, 1, 0}))
	client, server := Options{}, Options{Purpose: Server}
	cases := []struct {
		name  string
		certs []*x509.Certificate
		o     Options
		want  Reason
		index int
	}{
		{"plain", chain(ca.Client("x")), client, "", 0},
		{"intermediate", chain(sub.Client("x")), client, "", 0},
		{"intermediate not sent", chain(sub.Client("x"))[:1], client, Untrusted, 0},
		{"intermediate known", chain(sub.Client("x"))[:1], Options{Intermediates: []*x509.Certificate{sub.Cert}}, "", 0},
		{"nothing but the leaf's name", chain(ca.Client("x", testpki.NoSAN(), testpki.NoEKU(), testpki.NoKeyUsage())), client, "", 0},
		{"X.509 v1 leaf", chain(ca.Client("x", testpki.V1())), client, "", 0},
		{"foreign", chain(foreign.Client("x")), client, Untrusted, 0},
		{"foreign of the same name", chain(namesake.Client("x")), client, BadSignature, 0},
		{"foreign and expired", chain(foreign.Client("x", testpki.NotAfter(old))), client, Untrusted, 0},
		{"foreign of the same name, expired", chain(namesake.Client("x", testpki.NotAfter(old))), client, BadSignature, 0},
		{"expired", chain(ca.Client("x", testpki.NotAfter(old))), client, Expired, 0},
		{"expired CA", chain(ca.Intermediate("old", testpki.NotAfter(old)).Client("x")), client, Expired, 1},
		{"not yet valid", chain(ca.Client("x", testpki.NotBefore(now.Add(time.Hour)))), client, NotYetValid, 0},
		{"expired, but that does not matter", chain(ca.Client("x", testpki.NotAfter(old))), Options{IgnoreValidity: true}, "", 0},
		{"expired and for servers", chain(ca.Client("x", testpki.NotAfter(old), testpki.WrongEKU())), Options{IgnoreValidity: true}, WrongUsage, 0},
		{"for servers", chain(ca.Client("x", testpki.WrongEKU())), client, WrongUsage, 0},
		{"for servers, as a server", chain(ca.Client("x", testpki.WrongEKU())), server, "", 0},
		{"for servers, for anything", chain(ca.Client("x", testpki.WrongEKU())), Options{Purpose: AnyPurpose}, "", 0},
		{"for servers, EKU ignored", chain(ca.Client("x", testpki.WrongEKU())), Options{EKU: trust.EKUIgnore}, "", 0},
		{"any usage", chain(ca.Client("x", eku(x509.ExtKeyUsageAny))), client, "", 0},
		{"CA for servers", chain(ca.Intermediate("s", eku(x509.ExtKeyUsageServerAuth)).Client("x")), client, WrongUsage, 1},
		{"CA for both", chain(ca.Intermediate("s", eku(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)).Client("x")), client, "", 0},
		{"key for encryption alone", chain(ca.Client("x", usage(x509.KeyUsageKeyEncipherment))), client, WrongUsage, 0},
		{"key for encryption, as a server", chain(ca.Server("x.example")), server, "", 0},
		{"key for agreement", chain(ca.Client("x", usage(x509.KeyUsageKeyAgreement))), client, "", 0},
		{"OCSP signer", chain(ca.Client("x", eku(x509.ExtKeyUsageOCSPSigning))), Options{Purpose: OCSPSigning}, "", 0},
		{"no OCSP signer", chain(ca.Client("x", testpki.NoEKU())), Options{Purpose: OCSPSigning}, WrongUsage, 0},
		{"host", chain(ca.Server("a.example")), Options{Purpose: Server, Host: "A.example"}, "", 0},
		{"other host", chain(ca.Server("a.example")), Options{Purpose: Server, Host: "b.example"}, WrongHost, 0},
		{"a leaf as issuer", leafBelowLeaf(t, ca), client, NotACA, 1},
		{"CA:FALSE", chain(ca.Intermediate("no", edit(func(c *x509.Certificate) { c.IsCA = false })).Client("x")), client, NotACA, 1},
		{"v1 intermediate", chain(ca.Intermediate("one", testpki.V1()).Client("x")), client, NotACA, 1},
		{"CA that may not sign certificates", chain(ca.Intermediate("crl", usage(x509.KeyUsageCRLSign)).Client("x")), client, NotACA, 1},
		{"CA without key usage", chain(ca.Intermediate("ku", testpki.NoKeyUsage()).Client("x")), client, "", 0},
		{"path too long", chain(short.Intermediate("below").Client("x")), client, PathTooLong, 2},
		{"path just long enough", chain(short.Client("x")), client, "", 0},
		{"self-issued does not count", chain(short.Intermediate("short").Client("x")), client, "", 0},
		{"inside the name constraints", chain(domain.Server("a.good.example")), server, "", 0},
		{"outside the name constraints", chain(domain.Server("a.bad.example")), server, NameConstraints, 0},
		{"no policy where a CA demands one", chain(explicit.Client("x")), client, Policy, 0},
		{"no policy where we demand one", chain(ca.Client("x")), Options{RequireExplicitPolicy: true}, Policy, 0},
		{"critical extension nobody knows", chain(ca.Client("x", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, true, []byte{5, 0}))), client, Malformed, 0},
		{"the same in a CA", chain(ca.Intermediate("c", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, true, []byte{5, 0})).Client("x")), client, Malformed, 1},
		{"the same not critical", chain(ca.Client("x", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, false, []byte{5, 0}))), client, "", 0},
		{"critical distribution points", chain(ca.Client("x", extension(asn1.ObjectIdentifier{2, 5, 29, 31}, true, []byte{0x30, 0}))), client, "", 0},
		{"empty extended key usage", chain(ca.Client("x", testpki.NoEKU(), extension(asn1.ObjectIdentifier{2, 5, 29, 37}, false, []byte{0x30, 0}))), client, Malformed, 0},
		{"key usage without a bit", chain(ca.Client("x", testpki.NoKeyUsage(), extension(asn1.ObjectIdentifier{2, 5, 29, 15}, false, []byte{3, 1, 0}))), client, WrongUsage, 0},
		{"longer than MaxDepth", chain(sub.Client("x")), Options{MaxDepth: 2}, TooComplex, 0},
		{"too many presented", slices.Repeat(chain(ca.Client("x")), 130), client, TooComplex, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tc.o.Anchors, tc.o.At = []*x509.Certificate{ca.Cert}, now
			paths, err := Build(tc.certs[0], tc.certs[1:], tc.o)
			if got := reasonOf(t, err); got != tc.want || (len(paths) > 0) != (tc.want == "") {
				t.Fatalf("%q (%v) and %d paths; want %q", got, err, len(paths), tc.want)
			}
			if e, ok := errors.AsType[*Error](err); ok && e.Index != tc.index {
				t.Errorf("certificate %d is at fault, want %d: %v", e.Index, tc.index, err)
			}
			for _, path := range paths {
				if err := Validate(path, tc.o); err != nil {
					t.Errorf("Validate of a path that was found: %v", err)
				}
			}
			if tc.want == "" {
				return
			}
			// The same certificates as a path, where they are one, are refused for the same reason.
			whole := append(Path(slices.Clone(tc.certs)), ca.Cert)
			if got := reasonOf(t, Validate(whole, tc.o)); got != tc.want && !strings.Contains(tc.name, "not sent") {
				t.Errorf("Validate: %q, want %q", got, tc.want)
			}
		})
	}
}

// leafBelowLeaf is a certificate issued by one that is no CA.
func leafBelowLeaf(t *testing.T, ca *testpki.CA) []*x509.Certificate {
	t.Helper()
	issuer := ca.Client("no CA")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: x509pkix.Name{CommonName: "x"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Cert, issuer.Key.Public(), issuer.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{c, issuer.Cert}
}

func TestAnchors(t *testing.T) {
	now := time.Now()
	v1 := testpki.NewCA(t, testpki.Name("v1"), testpki.V1())
	bare := testpki.NewCA(t, testpki.Name("bare"), edit(func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA, c.KeyUsage = false, false, 0 }))
	denies := testpki.NewCA(t, testpki.Name("denies"), edit(func(c *x509.Certificate) { c.IsCA = false }))
	crl := testpki.NewCA(t, testpki.Name("crl"), edit(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }))
	old := testpki.NewCA(t, testpki.Name("old"), testpki.NotAfter(now.Add(-time.Minute)))
	ca := testpki.NewCA(t)
	sub := ca.Intermediate("sub")
	leaf := sub.Client("x")
	expiredRoot := testpki.NewCA(t, testpki.Name("old root"), testpki.NotAfter(now.Add(-time.Minute)))
	below := expiredRoot.Intermediate("sub of old")
	cases := []struct {
		name   string
		anchor *x509.Certificate
		certs  []*x509.Certificate
		want   Reason
		path   int
	}{
		{"v1", v1.Cert, chain(v1.Client("x")), "", 2},
		{"v3 without extensions", bare.Cert, chain(bare.Client("x")), "", 2},
		{"CA:FALSE", denies.Cert, chain(denies.Client("x")), NotACA, 0},
		{"not for certificates", crl.Cert, chain(crl.Client("x")), NotACA, 0},
		{"expired", old.Cert, chain(old.Client("x")), Expired, 0},
		{"an intermediate", sub.Cert, chain(leaf), "", 2},
		{"an intermediate, with its root presented", sub.Cert, append(chain(leaf), ca.Cert), "", 2},
		{"the root presented too", ca.Cert, append(chain(leaf), ca.Cert), "", 3},
		{"an intermediate below an expired root", below.Cert, append(chain(below.Client("x")), expiredRoot.Cert), "", 2},
		{"the leaf itself", leaf.Cert, chain(leaf), "", 1},
		{"the leaf itself, self-signed", ca.Cert, []*x509.Certificate{ca.Cert}, "", 1},
		{"the leaf itself, for servers", ca.Server("x").Cert, nil, WrongUsage, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if tc.certs == nil {
				tc.certs = []*x509.Certificate{tc.anchor}
			}
			o := Options{Anchors: []*x509.Certificate{tc.anchor}, At: now}
			paths, err := Build(tc.certs[0], tc.certs, o) // the leaf among them
			if got := reasonOf(t, err); got != tc.want {
				t.Fatalf("%q (%v), want %q", got, err, tc.want)
			}
			if err == nil && (len(paths) != 1 || len(paths[0]) != tc.path) {
				t.Errorf("paths %d, the first of %d certificates, want one of %d", len(paths), len(paths[0]), tc.path)
			}
		})
	}
	if _, err := Build(leaf.Cert, chain(leaf), Options{At: now}); reasonOf(t, err) != Untrusted {
		t.Errorf("without anchors: %v", err)
	}
	if err := Validate(Path{leaf.Cert, sub.Cert, ca.Cert}, Options{At: now}); reasonOf(t, err) != Untrusted {
		t.Errorf("Validate without anchors: %v", err)
	}
	if err := Validate(Path{leaf.Cert, sub.Cert}, Options{At: now, Anchors: []*x509.Certificate{ca.Cert}}); reasonOf(t, err) != Untrusted {
		t.Errorf("Validate of a path that stops short: %v", err)
	}
	if err := Validate(nil, Options{At: now, Anchors: []*x509.Certificate{ca.Cert}}); reasonOf(t, err) != Untrusted {
		t.Errorf("Validate of no path: %v", err)
	}
	for _, c := range []*x509.Certificate{nil, {}} {
		if _, err := Build(c, nil, Options{At: now}); reasonOf(t, err) != Malformed {
			t.Errorf("not parsed: %v", err)
		}
		if _, err := Build(leaf.Cert, []*x509.Certificate{c}, Options{At: now}); reasonOf(t, err) != Malformed {
			t.Errorf("not parsed: %v", err)
		}
	}
}

// Weak algorithms are for Allows to say, on every certificate below the anchor and not on the anchor itself.
func TestAlgorithms(t *testing.T) {
	now := time.Now()
	ca := testpki.NewCA(t, testpki.KeyType(pkix.RSA2048))
	sub := ca.Intermediate("sub")
	leaf := sub.Client("x")
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: now}
	if _, err := Build(leaf.Cert, leaf.Chain, o); err != nil {
		t.Fatal(err)
	}
	for denied, want := range map[string]int{"sha256-rsa": 1, "sha256-ecdsa": 0, "ed25519": -1} {
		o.Allows = trust.Policy{DenyAlgorithms: []string{denied}}.Allows
		_, err := Build(leaf.Cert, leaf.Chain, o)
		e, _ := errors.AsType[*Error](err)
		switch {
		case want < 0 && err != nil:
			t.Errorf("%s denied: %v", denied, err)
		case want >= 0 && (e == nil || e.Reason != WeakSignature || e.Index != want):
			t.Errorf("%s denied: %v, want certificate %d", denied, err, want)
		}
	}

	sha1 := sha1Leaf(t)
	o.Anchors, o.Allows = sha1[1:], nil
	if _, err := Build(sha1[0], nil, o); reasonOf(t, err) != WeakSignature {
		t.Errorf("SHA-1: %v", err)
	}
	o.Allows = trust.Policy{AllowAlgorithms: []string{"sha1-ecdsa"}}.Allows
	if _, err := Build(sha1[0], nil, o); err != nil {
		t.Errorf("SHA-1 where it is allowed: %v", err)
	}

	for _, kind := range []pkix.KeyType{pkix.Ed25519, pkix.MLDSA65, pkix.ECDSAP384} {
		ca := testpki.NewCA(t, testpki.KeyType(kind))
		leaf := ca.Intermediate("sub", testpki.KeyType(kind)).Client("x", testpki.KeyType(kind))
		if _, err := Build(leaf.Cert, leaf.Chain, Options{Anchors: []*x509.Certificate{ca.Cert}, At: now}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// sha1Leaf is a leaf signed with SHA-1 and its CA.
func sha1Leaf(t *testing.T) []*x509.Certificate {
	t.Helper()
	ca := testpki.NewCA(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: x509pkix.Name{CommonName: "x"}, SignatureAlgorithm: x509.ECDSAWithSHA1,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, ca.Key.Public(), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{c, ca.Cert}
}

// RSA keys that anybody can break, or that take very long to use, sign nothing.
func TestKeySizes(t *testing.T) {
	for bits, want := range map[int]bool{512: false, 1016: false, 1024: true, 16384: true, 16392: false} {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits)-1)
		if err := checkKey(&x509.Certificate{PublicKey: &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}}); (err == nil) != want {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}

// Of several issuers the good one is found, whatever comes first, and preferred paths come first.
func TestPreference(t *testing.T) {
	now := time.Now()
	one, two := testpki.NewCA(t, testpki.Name("one")), testpki.NewCA(t, testpki.Name("two"))
	sub := one.Intermediate("sub")
	cross := two.Intermediate("sub", testpki.Key(sub.Key))
	expired := two.Intermediate("sub", testpki.Key(sub.Key), testpki.NotAfter(now.Add(-time.Minute)))
	otherKey := one.Intermediate("sub")
	anchored := one.Intermediate("sub", testpki.Key(sub.Key)) // the same CA, renewed, as an anchor
	leaf := sub.Client("x")
	both := []*x509.Certificate{one.Cert, two.Cert}
	cases := []struct {
		name      string
		presented []*x509.Certificate
		anchors   []*x509.Certificate
		ignore    bool
		want      []Path
	}{
		{"two roots", []*x509.Certificate{sub.Cert, cross.Cert}, both, false, []Path{{leaf.Cert, sub.Cert, one.Cert}, {leaf.Cert, cross.Cert, two.Cert}}},
		{"order of presentation", []*x509.Certificate{cross.Cert, sub.Cert}, both, false, []Path{{leaf.Cert, cross.Cert, two.Cert}, {leaf.Cert, sub.Cert, one.Cert}}},
		{"one root", []*x509.Certificate{sub.Cert, cross.Cert}, both[1:], false, []Path{{leaf.Cert, cross.Cert, two.Cert}}},
		{"expired first", []*x509.Certificate{expired.Cert, sub.Cert}, both, false, []Path{{leaf.Cert, sub.Cert, one.Cert}}},
		{"expired does not matter, but valid is better", []*x509.Certificate{expired.Cert, sub.Cert}, both, true, []Path{{leaf.Cert, sub.Cert, one.Cert}}},
		{"expired is all there is", []*x509.Certificate{expired.Cert}, both, true, []Path{{leaf.Cert, expired.Cert, two.Cert}}},
		{"another key first", []*x509.Certificate{otherKey.Cert, sub.Cert}, both, false, []Path{{leaf.Cert, sub.Cert, one.Cert}}},
		{"the shorter first", []*x509.Certificate{sub.Cert}, append(both, anchored.Cert), false, []Path{{leaf.Cert, anchored.Cert}, {leaf.Cert, sub.Cert, one.Cert}}},
		{"twice the same", []*x509.Certificate{sub.Cert, sub.Cert, leaf.Cert, one.Cert}, both[:1], false, []Path{{leaf.Cert, sub.Cert, one.Cert}}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Build(leaf.Cert, tc.presented, Options{Anchors: tc.anchors, At: now, IgnoreValidity: tc.ignore})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got, tc.want, func(a, b Path) bool { return slices.Equal(a, b) }) {
				t.Errorf("%d paths %v, want %v", len(got), subjects(got), subjects(tc.want))
			}
		})
	}
}

func subjects(paths []Path) (out []string) {
	for _, p := range paths {
		var s []string
		for _, c := range p {
			s = append(s, c.Subject.CommonName+"<"+c.Issuer.CommonName)
		}
		out = append(out, strings.Join(s, " "))
	}
	return out
}

// A CA that renewed its key certifies the new one by the old one under one name (RFC 4210, Section 4.4): self-issued
// certificates link the two.
func TestKeyRollover(t *testing.T) {
	now := time.Now()
	old := testpki.NewCA(t, testpki.Name("rollover"))
	newWithOld := old.Intermediate("rollover")
	leaf := newWithOld.Client("x")
	paths, err := Build(leaf.Cert, leaf.Chain, Options{Anchors: []*x509.Certificate{old.Cert}, At: now})
	if err != nil || len(paths) != 1 || len(paths[0]) != 3 {
		t.Errorf("%v %v", subjects(paths), err)
	}
}

// A stranger's certificates cause no signature check with a key of his own, and few with ours.
func TestStrangersCostNothing(t *testing.T) {
	ca := testpki.NewCA(t)
	stranger := testpki.NewCA(t) // ca's name
	leaf := stranger.Intermediate("a").Intermediate("b").Intermediate("c").Client("x")
	asked := 0
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now(), Allows: func(string) bool { asked++; return true }}
	if _, err := Build(leaf.Cert, leaf.Chain, o); reasonOf(t, err) != BadSignature {
		t.Error(err)
	}
	if asked != 1 {
		t.Errorf("%d signatures checked, want one: the anchor's on the topmost certificate", asked)
	}
	asked = 0
	other := testpki.NewCA(t, testpki.Name("other")).Intermediate("a").Client("x")
	if _, err := Build(other.Cert, other.Chain, o); reasonOf(t, err) != Untrusted || asked != 0 {
		t.Errorf("%v, %d signatures checked, want none", err, asked)
	}
}

// A path of two is found with few allocations, of which the signature is half.
func TestAllocations(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("x").Cert
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now()}
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := Build(leaf, nil, o); err != nil {
			t.Fatal(err)
		}
	})
	if t.Logf("%v allocations", allocs); allocs > 25 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzValidate(f *testing.F) {
	ca := testpki.NewCA(f)
	sub := ca.Intermediate("sub", edit(func(c *x509.Certificate) {
		c.PermittedDNSDomains = []string{"example.com"}
		c.ExcludedIPRanges = []*net.IPNet{{IP: net.IP{10, 0, 0, 0}, Mask: net.CIDRMask(8, 32)}}
	}))
	f.Add(ca.Client("x").Cert.Raw)
	f.Add(sub.Cert.Raw)
	f.Add(sub.Server("a.example.com", "127.0.0.1").Cert.Raw)
	now := time.Now()
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := pkix.ParseAnyCertificate(der)
		if err != nil {
			return
		}
		o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: now, RequireExplicitPolicy: true}
		genuine := slices.ContainsFunc([]*x509.Certificate{sub.Cert}, c.Equal)
		paths, err := Build(c, []*x509.Certificate{sub.Cert, c}, o)
		if (err == nil) != (len(paths) > 0) {
			t.Fatalf("%d paths and %v", len(paths), err)
		}
		if err == nil && !genuine && c.CheckSignatureFrom(ca.Cert) != nil && c.CheckSignatureFrom(sub.Cert) != nil {
			t.Fatal("a certificate that nobody issued has a path")
		}
		_, _ = Build(sub.Cert, []*x509.Certificate{c}, Options{Anchors: []*x509.Certificate{c}, At: now, Purpose: AnyPurpose})
		_, _ = namesOf(c, factsOf(c).san)
	})
}

// BenchmarkPath is a leaf and its anchor. It reports what remains of the median when the one signature is taken away.
func BenchmarkPath(b *testing.B) {
	ca := testpki.NewCA(b)
	leaf := ca.Client("x").Cert
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now(), IgnoreValidity: true}
	var whole, signature []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if _, err := Build(leaf, nil, o); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		if err := pkix.VerifySignature(leaf.RawSignatureAlgorithm, ca.Cert.PublicKey, leaf.RawTBSCertificate, leaf.Signature); err != nil {
			b.Fatal(err)
		}
		whole, signature = append(whole, between.Sub(start)), append(signature, time.Since(between))
	}
	slices.Sort(whole)
	slices.Sort(signature)
	b.ReportMetric(float64(whole[len(whole)/2]-signature[len(signature)/2]), "overhead-ns")
}

func BenchmarkPathX509(b *testing.B) {
	ca := testpki.NewCA(b)
	leaf := ca.Client("x")
	o := x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := leaf.Cert.Verify(o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignature(b *testing.B) {
	ca := testpki.NewCA(b)
	c := ca.Client("x").Cert
	b.ReportAllocs()
	for b.Loop() {
		if err := pkix.VerifySignature(c.RawSignatureAlgorithm, ca.Cert.PublicKey, c.RawTBSCertificate, c.Signature); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPathAmong100 is the same among a hundred anchors with other names.
func BenchmarkPathAmong100(b *testing.B) {
	ca := testpki.NewCA(b)
	leaf := ca.Client("x")
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now()}
	for range 100 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		o.Anchors = append(o.Anchors, testpki.NewCA(b, testpki.Name("testpki soot"), testpki.Key(key)).Cert)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(leaf.Cert, nil, o); err != nil {
			b.Fatal(err)
		}
	}
}
