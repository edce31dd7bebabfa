package certpath

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// entity is a name with keys; certificates bind the two.
type entity struct {
	name string
	key  crypto.Signer
}

// forest makes certificates between a few CAs at random: cross-signed, expired, constrained, with the wrong usage.
type forest struct {
	t       testing.TB
	random  *mathrand.Rand
	cas     []entity
	serial  int64
	now     time.Time
	anchors []*x509.Certificate
	others  []*x509.Certificate
}

func newForest(t testing.TB, seed uint64, keys []crypto.Signer) *forest {
	f := &forest{t: t, random: mathrand.New(mathrand.NewPCG(seed, 1)), now: time.Now()}
	for i := range 3 + f.random.IntN(4) {
		// Two CAs may share a name, and a CA may have two keys.
		f.cas = append(f.cas, entity{fmt.Sprint("ca ", f.random.IntN(i+1)), keys[f.random.IntN(len(keys))]})
	}
	for range 1 + f.random.IntN(2) {
		ca := f.pick()
		f.anchors = append(f.anchors, f.issue(ca, ca, true))
	}
	for range 3 + f.random.IntN(9) {
		f.others = append(f.others, f.issue(f.pick(), f.pick(), true))
	}
	return f
}

func (f *forest) pick() entity { return f.cas[f.random.IntN(len(f.cas))] }

// one in n.
func (f *forest) one(n int) bool { return f.random.IntN(n) == 0 }

// issue makes a certificate, most of the time a sound one.
func (f *forest) issue(issuer, subject entity, ca bool) *x509.Certificate {
	f.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(f.serial), Subject: x509pkix.Name{CommonName: subject.name},
		NotBefore: f.now.Add(-time.Hour), NotAfter: f.now.Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: ca, MaxPathLen: -1,
	}
	if f.one(8) {
		template.NotAfter = f.now.Add(-time.Minute)
	}
	if f.one(12) {
		template.NotBefore, template.NotAfter = f.now.Add(time.Minute), f.now.Add(time.Hour)
	}
	if f.one(6) {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if f.one(6) {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	if ca {
		f.makeCA(template)
	} else {
		template.DNSNames = []string{f.domain("*.a.example")}
		if f.one(3) {
			template.DNSNames = append(template.DNSNames, f.domain("x.c.example"))
		}
	}
	parent := &x509.Certificate{Subject: x509pkix.Name{CommonName: issuer.name}}
	parent.SubjectKeyId, _ = pkix.NewSKI(issuer.key.Public())
	der, err := x509.CreateCertificate(rand.Reader, template, parent, subject.key.Public(), issuer.key)
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *forest) makeCA(template *x509.Certificate) {
	if f.one(8) {
		template.IsCA = false
	} else if f.one(6) {
		template.MaxPathLen = f.random.IntN(3)
		template.MaxPathLenZero = template.MaxPathLen == 0
	}
	if f.one(3) {
		template.KeyUsage = x509.KeyUsageCertSign
	} else if f.one(10) {
		template.KeyUsage = x509.KeyUsageCRLSign
	}
	if f.one(6) {
		template.PermittedDNSDomains = []string{f.domain(".a.example"), f.domain("b.example")}
	}
	if f.one(8) {
		template.ExcludedDNSDomains = []string{f.domain(".a.example")}
	}
}

// domain is one of a few domains, or the extra one.
func (f *forest) domain(extra string) string {
	return []string{"a.example", "b.a.example", "c.example", "example", extra}[f.random.IntN(5)]
}

// TestAgreesWithX509 judges random forests beside crypto/x509. The two must agree on whether there is a path, except
// where crypto/x509 is stricter than RFC 5280: it counts self-issued certificates for pathLenConstraint and holds their
// names against constraints.
func TestAgreesWithX509(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 300
	}
	var keys []crypto.Signer
	for range 6 {
		key, err := pkix.GenerateKey(pkix.ECDSAP256)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	var good, paths, stricter int
	for seed := range uint64(rounds) {
		f := newForest(t, seed, keys)
		leaf := f.issue(f.pick(), entity{"leaf", keys[0]}, false)
		roots, pool := x509.NewCertPool(), x509.NewCertPool()
		for _, c := range f.anchors {
			roots.AddCert(c)
		}
		for _, c := range f.others {
			pool.AddCert(c)
		}
		chains, theirs := leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: pool, CurrentTime: f.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		o := Options{Anchors: f.anchors, Intermediates: f.others[len(f.others)/2:], At: f.now}
		found, ours := Build(leaf, f.others[:len(f.others)/2], o)
		for _, path := range found {
			if err := Validate(path, o); err != nil {
				t.Fatalf("seed %d: Validate of what Build found: %v", seed, err)
			}
		}
		for _, chain := range chains {
			if err := Validate(chain, o); err != nil {
				t.Fatalf("seed %d: crypto/x509 takes %v, Validate says %v", seed, subjects([]Path{chain}), err)
			}
		}
		switch {
		case ours == nil && theirs != nil && slices.ContainsFunc(found, hasSelfIssued):
			stricter++
		case (ours == nil) != (theirs == nil):
			t.Fatalf("seed %d: ours %v %v, theirs %v", seed, subjects(found), ours, theirs)
		case ours == nil:
			good++
			paths += len(found)
		}
	}
	t.Logf("%d forests: %d leaves have a path, %d paths in all; in %d crypto/x509 is stricter about self-issued CAs", rounds, good, paths, stricter)
	if good < rounds/10 || paths <= good {
		t.Error("the forests do not tell much")
	}
}

func hasSelfIssued(p Path) bool {
	return slices.ContainsFunc(p[1:max(len(p)-1, 1)], selfIssued)
}
