package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/mldsa"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"sekisho/internal/pkix"
)

const (
	ocspSignerLife  = 30 * day
	ocspSignerRenew = 10 * day // before its end
)

// ocspSigner is a delegate that signs answers for one CA (RFC 6960, Section 4.2.2.2).
type ocspSigner struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// ocspSigners makes a delegate per CA when the first answer is wanted and anew before it ends. Its key lives in memory
// only; its certificate has a row in the ledger like every other.
type ocspSigners struct {
	a  *Authority
	mu sync.Mutex
	by map[string]ocspSigner // by CA id

	warned map[string]time.Time // by CA id: when the end of a given signer was last logged
}

func (s *ocspSigners) init(a *Authority) {
	s.a, s.by, s.warned = a, map[string]ocspSigner{}, map[string]time.Time{}
}

// get returns the delegate of a CA. When a new one cannot be made, the old one serves until its end.
func (s *ocspSigners) get(ctx context.Context, issuer *authorityCA) (ocspSigner, error) {
	if issuer.ocsp != nil || !issuer.signs() {
		return s.given(ctx, issuer)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.a.now()
	current, found := s.by[issuer.record.ID]
	// One of the future was made before the clock was set back; nobody with the right time takes it.
	if found && now.Before(current.renewAt(issuer.cert)) && !now.Before(current.cert.NotBefore) {
		return current, nil
	}
	fresh, err := s.issue(ctx, issuer)
	switch {
	case err == nil:
		s.by[issuer.record.ID] = fresh
		return fresh, nil
	case found && now.Before(current.cert.NotAfter):
		s.a.cfg.Logger.ErrorContext(ctx, "OCSP signer not renewed", "ca", issuer.record.Name, "not_after", current.cert.NotAfter, "error", err)
		return current, nil
	}
	return ocspSigner{}, fmt.Errorf("OCSP signer of the %s CA: %w", issuer.record.Name, err)
}

// renewAt is when a new delegate is due; one that ends with its CA cannot be bettered.
func (s ocspSigner) renewAt(issuer *x509.Certificate) time.Time {
	if !s.cert.NotAfter.Before(issuer.NotAfter) {
		return s.cert.NotAfter
	}
	return s.cert.NotAfter.Add(-ocspSignerRenew)
}

// issue makes a delegate's key and certificate and records it.
func (s *ocspSigners) issue(ctx context.Context, issuer *authorityCA) (ocspSigner, error) {
	key, err := ocspKey(issuer.cert.PublicKey)
	if err != nil {
		return ocspSigner{}, err
	}
	p := profile{name: profileOCSP, usage: x509.ExtKeyUsageOCSPSigning, noCheck: true}
	who, err := newApplicant(IssueRequest{PublicKey: key.Public(), Subject: "CN=sekisho OCSP responder"}, p)
	if err != nil {
		return ocspSigner{}, err
	}
	w := window{notBefore: later(s.a.notBefore(), issuer.cert.NotBefore), days: int(ocspSignerLife / day)}
	w.notAfter = w.notBefore.Add(ocspSignerLife)
	if w.notAfter.After(issuer.cert.NotAfter) {
		w.notAfter = issuer.cert.NotAfter
	}
	row, err := s.a.signAndRecord(ctx, issuance{issuer: issuer, profile: p, who: who, window: w, actor: "system:ocsp"})
	if err != nil {
		return ocspSigner{}, err
	}
	cert, err := x509.ParseCertificate(row.DER)
	if err != nil {
		return ocspSigner{}, err
	}
	s.a.cfg.Logger.InfoContext(ctx, "OCSP signer issued", "ca", issuer.record.Name, "serial", row.Serial.String(), "not_after", row.NotAfter)
	return ocspSigner{key: key, cert: cert}, nil
}

// ocspKey makes a delegate's key: of the CA's own kind where that signs fast, P-256 below RSA and Ed25519 (every OCSP
// client verifies it), ML-DSA below ML-DSA, lest a classical key speak for a post-quantum CA.
func ocspKey(issuer crypto.PublicKey) (crypto.Signer, error) {
	switch k := issuer.(type) {
	case *mldsa.PublicKey:
		return mldsa.GenerateKey(k.Parameters())
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(k.Curve, rand.Reader)
	}
	return pkix.GenerateKey(pkix.ECDSAP256)
}
