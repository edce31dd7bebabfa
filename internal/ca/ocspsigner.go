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
	ocspSignerGrace = day      // how long clients leave the renewal to the responder
	ocspSignerRetry = time.Minute
)

// ocspSigner is a delegate that signs answers for one CA (RFC 6960, Section 4.2.2.2).
type ocspSigner struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// ocspSigners makes a delegate per CA when the first answer is wanted and anew before it ends. Its key lives in memory
// only; its certificate has a row in the ledger like every other.
type ocspSigners struct {
	a       *Authority
	issuing sync.Mutex // one at a time

	mu      sync.Mutex
	by      map[string]ocspSigner // by CA id
	failed  map[string]failure    // by CA id: why there is none, which everybody is told until the next try
	retryAt map[string]time.Time  // by CA id, after a failure
	warned  map[string]time.Time  // by CA id: when the end of a given signer was last logged
}

type failure struct {
	err   error
	until time.Time
}

func (s *ocspSigners) init(a *Authority) {
	s.failed = map[string]failure{}
	s.a, s.by, s.retryAt, s.warned = a, map[string]ocspSigner{}, map[string]time.Time{}, map[string]time.Time{}
}

// drop reports whether a certificate that changed is a signer's. A delegate of our own making signs no more then.
func (s *ocspSigners) drop(row Certificate) bool {
	if c, err := s.a.ca(row.CAID); err == nil && c.ocsp != nil && pkix.SerialOf(c.ocsp.cert.SerialNumber) == row.Serial {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if own, found := s.by[row.CAID]; found && pkix.SerialOf(own.cert.SerialNumber) == row.Serial {
		delete(s.by, row.CAID)
	}
	return row.Profile == profileOCSP // of one before it, too, there may be answers
}

// get returns the delegate of a CA. When a new one cannot be made, the old one serves until its end. While the responder
// runs, it makes the new one in time, and nobody waits for it here.
func (s *ocspSigners) get(ctx context.Context, issuer *authorityCA) (ocspSigner, error) {
	if issuer.ocsp != nil || !issuer.signs() {
		return s.given(ctx, issuer)
	}
	grace := time.Duration(0)
	if s.a.ocsp.running.Load() {
		grace = ocspSignerGrace
	}
	if current, ok := s.current(issuer, grace); ok {
		return current, nil
	}
	return s.renew(ctx, issuer)
}

// renewDue makes new delegates where one is due; a CA that nobody has asked about has none.
func (s *ocspSigners) renewDue(ctx context.Context) {
	for _, c := range s.a.cas.Load().all() {
		s.mu.Lock()
		_, found := s.by[c.record.ID]
		s.mu.Unlock()
		if _, ok := s.current(c, 0); found && !ok && c.ocsp == nil && c.signs() {
			_, _ = s.renew(ctx, c) // a failure with a delegate at hand is logged there, without one it is the next client's
		}
	}
}

// current is the delegate at hand if it need not be replaced yet: by the time that one is due and grace after.
func (s *ocspSigners) current(issuer *authorityCA, grace time.Duration) (ocspSigner, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.a.now()
	current, found := s.by[issuer.record.ID]
	// One of the future was made before the clock was set back; nobody with the right time takes it.
	if !found || now.Before(current.cert.NotBefore) || !now.Before(current.cert.NotAfter) {
		return ocspSigner{}, false
	}
	return current, now.Before(current.renewAt(issuer.cert).Add(grace)) || now.Before(s.retryAt[issuer.record.ID])
}

// renew makes a delegate unless somebody did meanwhile.
func (s *ocspSigners) renew(ctx context.Context, issuer *authorityCA) (ocspSigner, error) {
	s.issuing.Lock()
	defer s.issuing.Unlock()
	if current, ok := s.current(issuer, 0); ok {
		return current, nil
	}
	id := issuer.record.ID
	if err := s.resting(id); err != nil { // anybody may ask, and each try makes a key and writes to the ledger
		return ocspSigner{}, err
	}
	fresh, err := s.issue(context.WithoutCancel(ctx), issuer) // for others too, who need not fail with this one
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.a.now()
	current, found := s.by[id]
	switch {
	case err == nil:
		s.by[id] = fresh
		delete(s.retryAt, id)
		return fresh, nil
	case found && now.Before(current.cert.NotAfter) && !now.Before(current.cert.NotBefore):
		s.retryAt[id] = now.Add(ocspSignerRetry)
		s.a.cfg.Logger.ErrorContext(ctx, "OCSP signer not renewed", "ca", issuer.record.Name, "not_after", current.cert.NotAfter, "error", err)
		return current, nil
	}
	err = fmt.Errorf("OCSP signer of the %s CA: %w", issuer.record.Name, err)
	s.failed[id] = failure{err, time.Now().Add(publishRetry)}
	return ocspSigner{}, err
}

// resting is the failure after which the next try waits; nil when it does not.
func (s *ocspSigners) resting(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := s.failed[id]; time.Now().Before(last.until) {
		return last.err
	}
	return nil
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
	// It would be valid at no time that is now, so the next question would make another one.
	if now := s.a.now(); now.Before(issuer.cert.NotBefore) || !now.Before(issuer.cert.NotAfter) {
		return ocspSigner{}, fmt.Errorf("the CA is valid from %s to %s", issuer.cert.NotBefore.UTC().Format(time.RFC3339), issuer.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	key, err := ocspKey(issuer)
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
// client verifies it), ML-DSA below ML-DSA, lest a classical key speak for a post-quantum CA, and RSA with RSASSA-PSS below
// the same, for clients of that CA verify this one.
func ocspKey(issuer *authorityCA) (crypto.Signer, error) {
	switch k := issuer.cert.PublicKey.(type) {
	case *mldsa.PublicKey:
		return mldsa.GenerateKey(k.Parameters())
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(k.Curve, rand.Reader)
	}
	if pkix.IsPSS(issuer.signer) {
		key, err := pkix.GenerateKey(pkix.RSA2048)
		if err != nil {
			return nil, err
		}
		return pkix.PSS(key)
	}
	return pkix.GenerateKey(pkix.ECDSAP256)
}
