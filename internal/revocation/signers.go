package revocation

import (
	"crypto/x509"
	"slices"
	"sync"
	"weak"

	"sekisho/internal/certpath"
	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// signers remembers the paths of certificates that sign lists and are not the issuer's own, since each look-up would
// check their signatures again.
type signers struct {
	mu    sync.Mutex
	paths map[signerKey][]*x509.Certificate
}

// signerKey is a signer under one CA as it was in force: what its policy and its certificates say decides about the path.
type signerKey struct {
	signer pkix.Fingerprint
	anchor pkix.Fingerprint
	ca     weak.Pointer[trust.CA]
}

const maxSigners = 1024

// path is the path from a signer to the trust anchor of the subject's path; empty when there is none that is valid now.
func (m *signers) path(s *subject, signer *x509.Certificate) []*x509.Certificate {
	anchor := s.path[len(s.path)-1]
	key := signerKey{pkix.FingerprintOf(signer.Raw), pkix.FingerprintOf(anchor.Raw), weak.Make(s.ca)}
	m.mu.Lock()
	path, ok := m.paths[key]
	m.mu.Unlock()
	if !ok {
		path = findSigner(s, signer, anchor)
		m.keep(key, path)
	}
	for _, c := range path {
		if s.now.Before(c.NotBefore) || s.now.After(c.NotAfter) {
			return nil
		}
	}
	return path
}

func (m *signers) keep(key signerKey, path []*x509.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paths == nil || len(m.paths) >= maxSigners {
		m.paths = make(map[signerKey][]*x509.Certificate)
	}
	m.paths[key] = path
}

// findSigner looks for the path, whether or not it is valid at this moment.
func findSigner(s *subject, signer, anchor *x509.Certificate) []*x509.Certificate {
	found, err := certpath.Build(signer, nil, certpath.Options{
		Anchors: []*x509.Certificate{anchor}, Intermediates: slices.Concat(s.ca.Anchors, s.ca.Intermediates), At: s.now,
		Purpose: certpath.AnyPurpose, Allows: s.policy.Allows, IgnoreValidity: true,
	})
	if err != nil {
		return nil
	}
	return found[0]
}
