package ca

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"time"

	"sekisho/internal/pkix"
)

// Certificate returns one certificate, or ErrNotFound. zoneID, when set, must be its zone.
func (a *Authority) Certificate(ctx context.Context, zoneID, id string) (Certificate, error) {
	row, err := a.cfg.Ledger.Certificate(ctx, zoneID, id)
	if err != nil {
		return row, fmt.Errorf("certificate %.60s: %w", id, err)
	}
	return row, nil
}

// Certificates returns the certificates that match, newest first, and how many match in all.
func (a *Authority) Certificates(ctx context.Context, f Filter) (rows []Certificate, total int, err error) {
	return a.cfg.Ledger.Certificates(ctx, f)
}

// Find returns the certificates that a text names, newest first: an id, a SHA-256 fingerprint, a serial number in any
// spelling, or a common name; tried in this order, the first that matches wins. None is ErrNotFound.
func (a *Authority) Find(ctx context.Context, text string) ([]Certificate, error) {
	text = strings.TrimSpace(text)
	if strings.Count(text, "-") == 4 {
		row, err := a.cfg.Ledger.Certificate(ctx, "", strings.ToLower(text))
		if err == nil {
			return []Certificate{row}, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	var filters []Filter
	if f, err := pkix.ParseFingerprint(text); err == nil {
		filters = append(filters, Filter{Fingerprint: &f})
	}
	if s, err := pkix.ParseSerial(text); err == nil {
		filters = append(filters, Filter{Serial: &s})
	}
	if text != "" {
		filters = append(filters, Filter{CommonName: text})
	}
	for _, f := range filters {
		rows, _, err := a.cfg.Ledger.Certificates(ctx, f)
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			return rows, nil
		}
	}
	return nil, fmt.Errorf("no certificate has the id, fingerprint, serial number or common name %.100q: %w", text, ErrNotFound)
}

// RevokedEntries yields every revoked certificate of all our CAs that has not expired, for whoever keeps an index of
// them. The error ends the sequence.
func (a *Authority) RevokedEntries(ctx context.Context) (iter.Seq2[RevokedRow, error], error) {
	_, rows, err := a.cfg.Ledger.Revoked(ctx, "", -1, a.now())
	return rows, err
}

// counters are what Metrics reads.
type counters struct {
	issued, refused, revoked, held, reactivated       atomic.Int64
	ocspGood, ocspRevoked, ocspUnknown, ocspErrors    atomic.Int64
	ocspCached, ocspSigned, crlPublished, crlFailures atomic.Int64
}

// Metrics is a reading of the counters since start. The CRL fields are of the issuing CA's shard 0.
type Metrics struct {
	Issued, Refused, Revoked, Held, Reactivated    int64
	OCSPGood, OCSPRevoked, OCSPUnknown, OCSPErrors int64 // answers by status; errors are answers without one
	OCSPCached, OCSPSigned                         int64 // responses served from memory, and signed
	CRLPublished, CRLFailures                      int64
	CRLBytes, CRLNumber                            int64
	CRLNextUpdate                                  time.Time
	RootNotAfter, IssuingNotAfter                  time.Time
}

// Metrics reads the counters.
func (a *Authority) Metrics() Metrics {
	c := &a.counters
	m := Metrics{
		Issued: c.issued.Load(), Refused: c.refused.Load(), Revoked: c.revoked.Load(), Held: c.held.Load(), Reactivated: c.reactivated.Load(),
		OCSPGood: c.ocspGood.Load(), OCSPRevoked: c.ocspRevoked.Load(), OCSPUnknown: c.ocspUnknown.Load(), OCSPErrors: c.ocspErrors.Load(),
		OCSPCached: c.ocspCached.Load(), OCSPSigned: c.ocspSigned.Load(), CRLPublished: c.crlPublished.Load(), CRLFailures: c.crlFailures.Load(),
	}
	h := a.cas.Load()
	if h.root != nil {
		m.RootNotAfter = h.root.cert.NotAfter
	}
	if h.issuing != nil {
		m.IssuingNotAfter = h.issuing.cert.NotAfter
		if crl := a.publisher.published(shardKey{h.issuing.record.ID, 0}); crl != nil {
			m.CRLBytes, m.CRLNumber, m.CRLNextUpdate = int64(len(crl.DER)), crl.Number.Int64(), crl.NextUpdate
		}
	}
	return m
}
