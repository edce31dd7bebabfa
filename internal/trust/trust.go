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
	cas           []CA
	roots         *x509.CertPool
	intermediates *x509.CertPool
	hints         *x509.CertPool
	extra         []*x509.Certificate
	digest        [32]byte
}

// ErrNotCA is wrapped by the error for an anchor that says it is no CA (basicConstraints CA:FALSE).
var ErrNotCA = errors.New("not a CA certificate")

// NewSet returns the set of the given CAs. A certificate whose basicConstraints say CA:FALSE is refused; one without
// the extension is taken (X.509 v1, and what openssl makes without configuration). An empty list gives a set that
// trusts nobody.
func NewSet(cas []CA) (*Set, error) {
	s := &Set{cas: slices.Clone(cas), roots: x509.NewCertPool(), intermediates: x509.NewCertPool(), hints: x509.NewCertPool()}
	var prints []pkix.Fingerprint
	for _, ca := range cas {
		for _, c := range ca.Anchors {
			if c.BasicConstraintsValid && !c.IsCA {
				return nil, fmt.Errorf("trust: CA %q: certificate %q: %w", ca.Name, pkix.DNString(c.RawSubject), ErrNotCA)
			}
			s.roots.AddCert(c)
			s.hints.AddCert(c)
			prints = append(prints, pkix.FingerprintOf(c.Raw))
		}
		for _, c := range ca.Intermediates {
			s.intermediates.AddCert(c)
			s.hints.AddCert(c)
			s.extra = append(s.extra, c)
		}
	}
	slices.SortFunc(prints, func(a, b pkix.Fingerprint) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, p := range slices.Compact(prints) {
		h.Write(p[:])
	}
	h.Sum(s.digest[:0])
	return s, nil
}

// CAs returns the CAs of the set; the slice must not be changed.
func (s *Set) CAs() []CA {
	if s == nil {
		return nil
	}
	return s.cas
}

// Roots is the pool of anchors for crypto/x509, nil for the nil Set: callers must refuse then, since a nil pool means
// the system's roots to crypto/x509.
func (s *Set) Roots() *x509.CertPool {
	if s == nil {
		return nil
	}
	return s.roots
}

// Intermediates are the certificates that path building may use beside those the client sent.
func (s *Set) Intermediates() []*x509.Certificate {
	if s == nil {
		return nil
	}
	return s.extra
}

// Hints is the pool whose subjects a server names in its CertificateRequest (RFC 8446, Section 4.2.4).
func (s *Set) Hints() *x509.CertPool {
	if s == nil {
		return nil
	}
	return s.hints
}

// Digest is the SHA-256 over the sorted fingerprints of the anchors: equal sets have equal digests, on every machine.
func (s *Set) Digest() [32]byte {
	if s == nil {
		return sha256.Sum256(nil)
	}
	return s.digest
}
