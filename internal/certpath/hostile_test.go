package certpath

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// within runs a search that must end soon, and returns its error.
func within(t *testing.T, limit time.Duration, leaf *x509.Certificate, presented []*x509.Certificate, o Options) error {
	t.Helper()
	start := time.Now()
	_, err := Build(leaf, presented, o)
	if took := time.Since(start); took > limit {
		t.Errorf("took %v, more than %v", took, limit)
	} else {
		t.Logf("%v: %v", took, err)
	}
	return err
}

func TestLongChain(t *testing.T) {
	ca := testpki.NewCA(t)
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now()}
	var presented []*x509.Certificate
	last := ca
	for i := range 100 {
		last = last.Intermediate(fmt.Sprint("ca ", i))
		presented = append(presented, last.Cert)
	}
	leaf := last.Client("x").Cert
	if err := within(t, time.Second, leaf, presented, o); reasonOf(t, err) != TooComplex {
		t.Error(err)
	}
	o.MaxDepth, o.Budget = 200, 50
	if err := within(t, time.Second, leaf, presented, o); reasonOf(t, err) != TooComplex {
		t.Errorf("101 signatures with a budget of 50: %v", err)
	}
	o.Budget = 101
	if err := within(t, time.Second, leaf, presented, o); err != nil {
		t.Errorf("101 signatures with a budget of 101: %v", err)
	}
}

// Nine CAs that all certify one another, genuinely, below an anchor: the paths are beyond counting, each pair of
// certificates is checked once.
func TestCrossSignedMesh(t *testing.T) {
	ca := testpki.NewCA(t)
	var cas []*testpki.CA
	for i := range 9 {
		cas = append(cas, ca.Intermediate(fmt.Sprint("ca ", i)))
	}
	var presented []*x509.Certificate
	for i, subject := range cas {
		presented = append(presented, subject.Cert)
		for j, issuer := range cas {
			if i != j {
				presented = append(presented, issuer.Intermediate(subject.Cert.Subject.CommonName, testpki.Key(subject.Key)).Cert)
			}
		}
	}
	good := cas[0].Client("x").Cert
	bad := cas[0].Client("x", testpki.WrongEKU()).Cert
	checks := map[string]int{}
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now()}
	if err := within(t, time.Second, good, presented, o); err != nil {
		t.Error(err)
	}
	if err := within(t, time.Second, bad, presented, o); reasonOf(t, err) != WrongUsage {
		t.Error(err)
	}
	o.Allows = func(string) bool { checks["all"]++; return true }
	o.RequireExplicitPolicy = true // no path has one, so all are tried
	if err := within(t, time.Second, good, presented, o); reasonOf(t, err) != TooComplex || checks["all"] > DefaultBudget+1 {
		t.Errorf("%v after %d signatures", err, checks["all"])
	}
	o.Budget = 10_000
	if err := within(t, 2*time.Second, good, presented, o); !errors.Is(err, errSteps) {
		t.Errorf("with signatures to spare: %v", err)
	}
	// The same mesh without its anchor costs nothing.
	checks["all"] = 0
	o.Anchors = []*x509.Certificate{testpki.NewCA(t, testpki.Name("other")).Cert}
	if err := within(t, 100*time.Millisecond, good, presented, o); reasonOf(t, err) != Untrusted || checks["all"] != 0 {
		t.Errorf("%v after %d signatures", err, checks["all"])
	}
}

// A hundred CAs with the anchor's name and as many keys: one signature each at the most, and no key of theirs is used.
func TestNamesakes(t *testing.T) {
	ca := testpki.NewCA(t)
	var presented []*x509.Certificate
	for range 99 {
		presented = append(presented, testpki.NewCA(t).Cert)
	}
	leaf := testpki.NewCA(t).Client("x").Cert
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now(), Budget: 1000}
	if err := within(t, time.Second, leaf, presented, o); reasonOf(t, err) != BadSignature {
		t.Error(err)
	}
	o.Budget = 10
	if err := within(t, time.Second, leaf, presented, o); reasonOf(t, err) != TooComplex {
		t.Error(err)
	}
}

// Thousands of names against thousands of constraints stop at the budget.
func TestNameBomb(t *testing.T) {
	ca := testpki.NewCA(t)
	var domains []string
	var networks []*net.IPNet
	var addresses []net.IP
	for i := range 3000 {
		domains = append(domains, fmt.Sprintf("%d.example", i))
		addresses = append(addresses, net.IP{10, byte(i >> 8), byte(i), 1})
		networks = append(networks, &net.IPNet{IP: net.IP{11, byte(i >> 8), byte(i), 0}, Mask: net.CIDRMask(24, 32)})
	}
	leafNames := edit(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = domains, addresses })
	for name, constrain := range map[string]func(*x509.Certificate){
		"permitted": func(c *x509.Certificate) { c.PermittedDNSDomains = slices.Concat(domains[1:], domains[:1]) },
		"excluded":  func(c *x509.Certificate) { c.ExcludedIPRanges = networks },
	} {
		leaf := ca.Intermediate("bomb", edit(constrain)).Client("x", leafNames)
		o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now()}
		if err := within(t, time.Second, leaf.Cert, leaf.Chain, o); reasonOf(t, err) != TooComplex {
			t.Errorf("%s: %v", name, err)
		}
		stranger := testpki.NewCA(t).Intermediate("bomb", edit(constrain)).Client("x", leafNames)
		if err := within(t, 50*time.Millisecond, stranger.Cert, stranger.Chain, o); reasonOf(t, err) != BadSignature {
			t.Errorf("%s, of a stranger: %v", name, err)
		}
		o.NameBudget = 20_000_000
		if err := within(t, 10*time.Second, leaf.Cert, leaf.Chain, o); err != nil {
			t.Errorf("%s, with a budget that is enough: %v", name, err)
		}
	}
}

// Long names, equal but for their case and their last character, do not make comparisons dear.
func TestLongNames(t *testing.T) {
	ca := testpki.NewCA(t)
	long := func(last string, upper bool) testpki.Option {
		var rdns [][]attr
		for i := range 400 {
			text := strings.Repeat("ab ", 10) + fmt.Sprint(i)
			if upper {
				text = strings.ToUpper(text)
			}
			rdns = append(rdns, one(org, asn1.UTF8String, text))
		}
		return testpki.Subject(dn(append(rdns, one(cn, asn1.UTF8String, last))...))
	}
	var presented []*x509.Certificate
	for i := range 30 {
		presented = append(presented, testpki.NewCA(t, long(fmt.Sprint(i), i%2 == 0)).Cert)
	}
	leaf := testpki.NewCA(t, long("x", true)).Client("x").Cert
	twin := testpki.NewCA(t, long("1", true)).Client("x").Cert // a name that is presented
	o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now()}
	for _, c := range []*x509.Certificate{leaf, twin} {
		if err := within(t, time.Second, c, presented[:12], o); reasonOf(t, err) != Untrusted {
			t.Error(err)
		}
	}
	if err := within(t, time.Second, leaf, presented, o); reasonOf(t, err) != TooComplex {
		t.Errorf("more than 512 KiB: %v", err)
	}
}

func BenchmarkSameName(b *testing.B) {
	name := func(tag asn1.Tag, last string) []byte {
		return dn(one("\x55\x04\x06", asn1.PrintableString, "JP"), one(org, tag, "Sekisho"), one(cn, tag, last))
	}
	left, other, same := name(asn1.UTF8String, "Device CA 1"), name(asn1.UTF8String, "Device CA 2"), name(asn1.PrintableString, "DEVICE CA 1")
	for b.Loop() {
		if pkix.SameName(left, other) || !pkix.SameName(left, same) {
			b.Fatal("wrong")
		}
	}
}
