package trust_test

import (
	"crypto/x509"
	"errors"
	"testing"

	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

func set(t *testing.T, cas ...*testpki.CA) *trust.Set {
	t.Helper()
	var list []trust.CA
	for _, ca := range cas {
		list = append(list, trust.CA{Name: "test", Anchors: []*x509.Certificate{ca.Cert}})
	}
	s, err := trust.NewSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDigestIsOfAnchorsAndPolicies(t *testing.T) {
	a, b := testpki.NewCA(t), testpki.NewCA(t)
	if set(t, a, b).Digest() != set(t, b, a, a).Digest() {
		t.Error("order and repetition change the digest")
	}
	if set(t, a).Digest() == set(t, a, b).Digest() || set(t).Digest() == set(t, a).Digest() {
		t.Error("different sets have one digest")
	}
	helped, err := trust.NewSet([]trust.CA{{Anchors: []*x509.Certificate{a.Cert}, Intermediates: []*x509.Certificate{b.Cert}}})
	if err != nil {
		t.Fatal(err)
	}
	if helped.Digest() != set(t, a).Digest() {
		t.Error("a helper for path building changes the digest")
	}
	digest := func(cas ...trust.CA) [32]byte {
		t.Helper()
		s, err := trust.NewSet(cas)
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest()
	}
	loose, strict := trust.Policy{OnFailure: trust.Soft}, trust.Policy{OnFailure: trust.Hard}
	of := func(ca *testpki.CA, p trust.Policy) trust.CA {
		return trust.CA{Anchors: []*x509.Certificate{ca.Cert}, Policy: p}
	}
	if digest(of(a, loose)) == digest(of(a, strict)) {
		t.Error("another policy has the same digest")
	}
	if digest(of(a, loose), of(b, strict)) == digest(of(a, strict), of(b, loose)) {
		t.Error("two CAs that swap their policies have the same digest")
	}
	if digest(of(a, loose), of(b, strict)) != digest(of(b, strict), of(a, loose)) {
		t.Error("order changes the digest")
	}
}

func TestNilSetTrustsNobody(t *testing.T) {
	var s *trust.Set
	if s.Groups() != nil || s.Hints() != nil || s.CAs() != nil {
		t.Error("the nil set holds something")
	}
	if s.Digest() != set(t).Digest() {
		t.Error("the nil set and the empty set differ")
	}
}

func TestNewSetRefusesALeaf(t *testing.T) {
	leaf := testpki.NewCA(t).Client("no CA", testpki.Edit(func(c *x509.Certificate) { c.BasicConstraintsValid = true }))
	_, err := trust.NewSet([]trust.CA{{Name: "wrong", Anchors: []*x509.Certificate{leaf.Cert}}})
	if !errors.Is(err, trust.ErrNotCA) {
		t.Errorf("a leaf as anchor: %v", err)
	}
}
