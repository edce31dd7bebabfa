package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sekisho/internal/pkix"
)

// given returns a CA's signer that was made elsewhere. One that has ended or is revoked signs nothing: then there is
// no answer.
func (s *ocspSigners) given(ctx context.Context, issuer *authorityCA) (ocspSigner, error) {
	name := issuer.record.Name
	if issuer.ocsp == nil {
		return ocspSigner{}, fmt.Errorf("the key of the CA %s is not here and it has no OCSP signer; give one: sekisho ca ocsp-signer %s", name, name)
	}
	cert, now := issuer.ocsp.cert, s.a.now()
	switch {
	case now.After(cert.NotAfter):
		return ocspSigner{}, fmt.Errorf("the OCSP signer of the CA %s ended at %s; give a new one: sekisho ca ocsp-signer %s",
			name, cert.NotAfter.UTC().Format(time.RFC3339), name)
	case now.Before(cert.NotBefore):
		return ocspSigner{}, fmt.Errorf("the OCSP signer of the CA %s begins at %s", name, cert.NotBefore.UTC().Format(time.RFC3339))
	}
	status, err := s.a.ocsp.status(ctx, issuer, pkix.SerialOf(cert.SerialNumber))
	switch {
	case err != nil:
		return ocspSigner{}, err
	case status.Status == pkix.OCSPRevoked: // RFC 6960, Section 2.6: its key may be in other hands
		return ocspSigner{}, fmt.Errorf("the OCSP signer of the CA %s is revoked since %s (%s); give a new one: sekisho ca ocsp-signer %s",
			name, status.RevokedAt.UTC().Format(time.RFC3339), status.Reason, name)
	}
	s.warn(ctx, issuer)
	return *issuer.ocsp, nil
}

// ending reports whether a signer that only the operator can renew ends soon or has ended.
func (c *authorityCA) ending(now time.Time) bool {
	return c.ocsp != nil && now.After(c.ocsp.cert.NotAfter.Add(-ocspSignerRenew)) && now.Before(c.cert.NotAfter)
}

// warn logs once a day that a given signer ends soon.
func (s *ocspSigners) warn(ctx context.Context, issuer *authorityCA) {
	now := s.a.now()
	if !issuer.ending(now) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := issuer.record.ID
	if last, ok := s.warned[id]; ok && now.Sub(last) < day && !now.Before(last) {
		return
	}
	s.warned[id] = now
	s.a.cfg.Logger.WarnContext(ctx, "OCSP signer ends soon and cannot be renewed here: give a new one with sekisho ca ocsp-signer",
		"ca", issuer.record.Name, "not_after", issuer.ocsp.cert.NotAfter)
}

// errNoKey is why nothing is published for a CA.
var errNoKey = errors.New("the key of the CA is not here: whoever has it publishes its CRL")
