// Package trust holds CA bundles as immutable sets: which certificates a host accepts as the issuers of its clients.
//
// A [Set] never changes; a host's new set replaces the old one, and [Set.Digest] tells the two apart, also across
// restarts, so that a session ticket made under one set is not honoured under another. The package verifies nothing.
//
//	set, err := trust.NewSet([]trust.CA{{ID: "…", Name: "devices", Anchors: certs}})
package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"sekisho/internal/pkix"
)

// CA is one certification authority that a host may trust.
type CA struct {
	ID            string              // id of the CA's record, or a path for a file
	Name          string              // for people
	Anchors       []*x509.Certificate // trust anchors: a path must end in one of these
	Intermediates []*x509.Certificate // helpers for path building that clients need not send
	Policy        Policy              // how its clients are judged
}

// Set is an immutable set of CAs. The nil Set trusts nobody.
type Set struct {
	cas      []CA
	hints    *x509.CertPool
	byAnchor map[string]int // position in cas, by an anchor's DER
	groups   []Group
	digest   [32]byte
}

// ErrNotCA is wrapped by the error for an anchor that says it is no CA (basicConstraints CA:FALSE).
var ErrNotCA = errors.New("not a CA certificate")

// NewSet returns the set of the given CAs. A certificate whose basicConstraints say CA:FALSE is refused; one without
// the extension is taken (X.509 v1, and what openssl makes without configuration). An empty list gives a set that
// trusts nobody.
func NewSet(cas []CA) (*Set, error) {
	s := &Set{cas: slices.Clone(cas), hints: x509.NewCertPool(), byAnchor: make(map[string]int)}
	var intermediates []*x509.Certificate
	var judged [][64]byte // each anchor's fingerprint, and what its clients are judged by
	for i, ca := range cas {
		policy, err := ca.Policy.digest()
		if err != nil {
			return nil, fmt.Errorf("trust: CA %q: policy: %w", ca.Name, err)
		}
		for _, c := range ca.Anchors {
			if c.BasicConstraintsValid && !c.IsCA {
				return nil, fmt.Errorf("trust: CA %q: certificate %q: %w", ca.Name, pkix.DNString(c.RawSubject), ErrNotCA)
			}
			if _, ok := s.byAnchor[string(c.Raw)]; !ok {
				s.byAnchor[string(c.Raw)] = i
			}
			s.hints.AddCert(c)
			print := pkix.FingerprintOf(c.Raw)
			judged = append(judged, [64]byte(append(print[:], policy[:]...)))
		}
		for _, c := range ca.Intermediates {
			s.hints.AddCert(c)
			intermediates = append(intermediates, c)
		}
	}
	s.groups = groupsOf(cas, intermediates)
	slices.SortFunc(judged, func(a, b [64]byte) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, j := range slices.Compact(judged) {
		h.Write(j[:])
	}
	h.Sum(s.digest[:0])
	return s, nil
}

// digest is the SHA-256 of a policy's JSON, which is the same for equal policies on every machine.
func (p Policy) digest() ([32]byte, error) {
	data, err := json.Marshal(p)
	return sha256.Sum256(data), err
}

// CAs returns the CAs of the set; the slice must not be changed.
func (s *Set) CAs() []CA {
	if s == nil {
		return nil
	}
	return s.cas
}

// CAOf returns the CA that a trust anchor belongs to, the first of several; nil when it is not one of the set's.
// Its policy is the one that paths to the anchor are judged by.
func (s *Set) CAOf(anchor *x509.Certificate) *CA {
	if s == nil {
		return nil
	}
	i, ok := s.byAnchor[string(anchor.Raw)]
	if !ok {
		return nil
	}
	return &s.cas[i]
}

// Groups are the anchors of the set, by what their policies say about paths; none for the set that trusts nobody.
func (s *Set) Groups() []Group {
	if s == nil {
		return nil
	}
	return s.groups
}

// Hints is the pool whose subjects a server names in its CertificateRequest (RFC 8446, Section 4.2.4).
func (s *Set) Hints() *x509.CertPool {
	if s == nil {
		return nil
	}
	return s.hints
}

// Digest is the SHA-256 over the sorted fingerprints of the anchors, each with the policy of its CA: sets that judge
// every client alike have equal digests, on every machine. Helpers for path building do not count.
func (s *Set) Digest() [32]byte {
	if s == nil {
		return sha256.Sum256(nil)
	}
	return s.digest
}
