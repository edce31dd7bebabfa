package revocation

import (
	"crypto/x509"
	"slices"
	"sync"

	"sekisho/internal/certpath"
	"sekisho/internal/pkix"
)

// signers remembers the paths of certificates that sign lists and are not the issuer's own, since each look-up would
// check their signatures again.
type signers struct {
	mu    sync.Mutex
	paths map[signerKey][]*x509.Certificate
}

type signerKey struct{ signer, anchor pkix.Fingerprint }

const maxSigners = 1024

// path is the path from a signer to the trust anchor of the subject's path; empty when there is none that is valid now.
func (m *signers) path(s *subject, signer *x509.Certificate) []*x509.Certificate {
	anchor := s.path[len(s.path)-1]
	key := signerKey{pkix.FingerprintOf(signer.Raw), pkix.FingerprintOf(anchor.Raw)}
	m.mu.Lock()
	defer m.mu.Unlock()
	path, ok := m.paths[key]
	if !ok {
		found, err := certpath.Build(signer, nil, certpath.Options{
			Anchors: []*x509.Certificate{anchor}, Intermediates: slices.Concat(s.ca.Anchors, s.ca.Intermediates), At: s.now,
			Purpose: certpath.AnyPurpose, Allows: s.policy.Allows, IgnoreValidity: true,
		})
		if err == nil {
			path = found[0]
		}
		if m.paths == nil || len(m.paths) >= maxSigners {
			m.paths = make(map[signerKey][]*x509.Certificate)
		}
		m.paths[key] = path
	}
	for _, c := range path {
		if s.now.Before(c.NotBefore) || s.now.After(c.NotAfter) {
			return nil
		}
	}
	return path
}
