package ca

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
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

// counters are what Metrics reads.
type counters struct {
	issued, refused, revoked, held, reactivated       atomic.Int64
	ocspGood, ocspRevoked, ocspUnknown, ocspErrors    atomic.Int64
	ocspCached, ocspSigned, crlPublished, crlFailures atomic.Int64
	crlFiles, crlFileFailures, crlFilesNewer          atomic.Int64
	ocspRenewed                                       atomic.Int64
}

// Metrics is a reading of the counters since start. CRLBytes, CRLNumber and CRLNextUpdate are of the issuing CA's shards:
// the sum, the highest and the earliest.
type Metrics struct {
	Issued, Refused, Revoked, Held, Reactivated    int64
	OCSPGood, OCSPRevoked, OCSPUnknown, OCSPErrors int64 // answers by status; errors are answers without one
	OCSPCached, OCSPSigned                         int64 // responses served from memory, and signed
	OCSPRenewed                                    int64 // answers in memory signed anew before anybody had to wait
	CRLPublished, CRLFailures                      int64
	CRLBytes, CRLNumber                            int64
	CRLFiles, CRLFileFailures                      int64 // CRLs written to PublishDir, and attempts that failed
	CRLFilesNewer                                  int64 // times a file was left alone because its CRL number is higher than ours
	CRLNextUpdate                                  time.Time
	RootNotAfter, IssuingNotAfter                  time.Time
	OCSPSignersEnding                              int64 // signers made elsewhere that end within 10 days, or have ended
}

// Metrics reads the counters.
func (a *Authority) Metrics() Metrics {
	c := &a.counters
	m := Metrics{
		Issued: c.issued.Load(), Refused: c.refused.Load(), Revoked: c.revoked.Load(), Held: c.held.Load(), Reactivated: c.reactivated.Load(),
		OCSPGood: c.ocspGood.Load(), OCSPRevoked: c.ocspRevoked.Load(), OCSPUnknown: c.ocspUnknown.Load(), OCSPErrors: c.ocspErrors.Load(),
		OCSPCached: c.ocspCached.Load(), OCSPSigned: c.ocspSigned.Load(), CRLPublished: c.crlPublished.Load(), CRLFailures: c.crlFailures.Load(),
		CRLFiles: c.crlFiles.Load(), CRLFileFailures: c.crlFileFailures.Load(), CRLFilesNewer: c.crlFilesNewer.Load(), OCSPRenewed: c.ocspRenewed.Load(),
	}
	h := a.cas.Load()
	for _, c := range h.all() {
		if c.ending(a.now()) {
			m.OCSPSignersEnding++
		}
	}
	if h.root != nil {
		m.RootNotAfter = h.root.cert.NotAfter
	}
	if h.issuing != nil {
		m.IssuingNotAfter = h.issuing.cert.NotAfter
		for n := range h.issuing.record.Shards {
			m.add(a.publisher.published(shardKey{h.issuing.record.ID, n}))
		}
	}
	return m
}

// add counts the CRL of a shard; nil is none.
func (m *Metrics) add(crl *CRL) {
	if crl == nil {
		return
	}
	m.CRLBytes += int64(len(crl.DER))
	m.CRLNumber = max(m.CRLNumber, crl.Number.Int64())
	if m.CRLNextUpdate.IsZero() || crl.NextUpdate.Before(m.CRLNextUpdate) {
		m.CRLNextUpdate = crl.NextUpdate
	}
}
