package ca

import (
	"cmp"
	"context"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/pkix"
)

const (
	minPublishDelay = 10 * time.Millisecond  // changes that come together share a CRL
	maxPublishDelay = 400 * time.Millisecond // the longest pause between two, however dear the signature
	publishRetry    = time.Second            // after a failure
)

// publisher keeps the CRLs of all shards. The ledger hands out the CRL numbers; a transition carries the number of the
// CRL that must tell of it, and the publisher never signs number N before it has everything up to N.
type publisher struct {
	a       *Authority
	wake    chan struct{} // capacity 1
	running atomic.Bool   // Run does the publishing

	mu     sync.Mutex
	shards map[shardKey]*shard
}

// shardKey names a CRL.
type shardKey struct {
	caID  string
	shard int
}

// shard is the state of one CRL.
type shard struct {
	key     shardKey
	current atomic.Pointer[CRL] // nil: none signed since start

	mu        sync.Mutex
	pending   []change
	waitSince time.Time // of the first pending change; zero: none
	lastEnd   time.Time // of the last publication
	cost      time.Duration
	retryAt   time.Time // after a failure; zero: none

	signing sync.Mutex // one publication at a time; guards what follows
	loaded  bool
	number  int64     // everything up to this CRL number is in entries
	entries []byte    // encoded, in no order
	since   time.Time // entries of certificates that expired before are left out
}

// change is what a CRL number stands for: a transition, or (serial zero) a renewal without one.
type change struct {
	number int64
	entry  pkix.CRLEntry
	remove bool // reactivated
}

func (p *publisher) init(a *Authority) {
	p.a, p.wake, p.shards = a, make(chan struct{}, 1), map[shardKey]*shard{}
}

func (p *publisher) shard(key shardKey) *shard {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.shards[key]
	if s == nil {
		s = &shard{key: key}
		p.shards[key] = s
	}
	return s
}

// published is the CRL there is; nil before the first.
func (p *publisher) published(key shardKey) *CRL { return p.shard(key).current.Load() }

// changed takes note of a transition that is in the ledger.
func (p *publisher) changed(row Certificate) {
	s := p.shard(shardKey{row.CAID, row.Shard})
	s.note(change{
		number: row.CRLNumber,
		entry:  pkix.CRLEntry{Serial: row.Serial, At: row.RevokedAt, Reason: row.Reason, InvalidityDate: row.InvalidityDate},
		remove: row.Status == Active,
	})
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (s *shard) note(c change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, c)
	if s.waitSince.IsZero() {
		s.waitSince = time.Now()
	}
}

func (s *shard) take() []change {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := s.pending
	s.pending, s.waitSince = nil, time.Time{}
	slices.SortFunc(pending, func(a, b change) int { return cmp.Compare(a.number, b.number) })
	return pending
}

// Run publishes CRLs until ctx ends: within a fraction of a second after a change, and again before nextUpdate. A CRL
// that cannot be made is tried again every second and logged; the one before it stays. It returns nil.
func (a *Authority) Run(ctx context.Context) error {
	p := &a.publisher
	p.running.Store(true)
	defer p.running.Store(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		// At least once a minute, whatever the clock does meanwhile.
		timer.Reset(min(p.publishDue(ctx), time.Minute))
	}
}

// publishDue publishes every CRL that is due and returns how long nothing more is.
func (p *publisher) publishDue(ctx context.Context) time.Duration {
	next := time.Minute
	for _, c := range p.a.cas.Load().all() {
		for n := range c.record.Shards {
			s := p.shard(shardKey{c.record.ID, n})
			wait := p.dueIn(s)
			if wait <= 0 {
				if _, err := p.publish(ctx, c, s); err != nil && ctx.Err() == nil {
					p.a.cfg.Logger.ErrorContext(ctx, "CRL not published", "ca", c.record.Name, "shard", n, "error", err)
				}
				wait = max(p.dueIn(s), time.Millisecond)
			}
			next = min(next, wait)
		}
	}
	return next
}

// dueIn is how long until the CRL should be signed anew. A change after a quiet time is signed at once; in a stream of
// changes dear signatures pause for twice what one takes, so that they never hold more than a third of a core.
func (p *publisher) dueIn(s *shard) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wait := time.Until(s.retryAt); wait > 0 {
		return wait
	}
	wait := p.renewIn(s.current.Load())
	if !s.waitSince.IsZero() {
		at := later(s.waitSince.Add(minPublishDelay), s.lastEnd.Add(min(2*s.cost, maxPublishDelay)))
		wait = min(wait, time.Until(at))
	}
	return wait
}

// renewIn is how long until a CRL must be renewed; 0 for none, and for one of the future: the clock was set back, and
// whoever has the right time does not take it.
func (p *publisher) renewIn(crl *CRL) time.Duration {
	now := p.a.cfg.Now()
	if crl == nil || now.Before(crl.ThisUpdate) {
		return 0
	}
	return crl.NextUpdate.Add(-p.a.cfg.CRLOverlap).Sub(now)
}

// CRL returns the published CRL of a CA's shard. While [Authority.Run] does not run (the command line on the store),
// it publishes what is due first. An unknown CA or shard is ErrNotFound.
func (a *Authority) CRL(ctx context.Context, caID string, shardNumber int) (CRL, error) {
	issuer, err := a.ca(caID)
	if err != nil {
		return CRL{}, err
	}
	if shardNumber < 0 || shardNumber >= issuer.record.Shards {
		return CRL{}, fmt.Errorf("CRL shard %d of CA %s: %w", shardNumber, caID, ErrNotFound)
	}
	s := a.publisher.shard(shardKey{caID, shardNumber})
	current := s.current.Load()
	if current != nil && (a.publisher.running.Load() || a.publisher.dueIn(s) > maxPublishDelay) {
		return *current, nil
	}
	fresh, err := a.publisher.publish(ctx, issuer, s)
	if err != nil {
		return CRL{}, err
	}
	return *fresh, nil
}

// publish brings a shard up to date and signs its CRL, unless somebody did meanwhile.
func (p *publisher) publish(ctx context.Context, issuer *authorityCA, s *shard) (*CRL, error) {
	s.signing.Lock()
	defer s.signing.Unlock()
	start := time.Now()
	crl, err := p.publishLocked(ctx, issuer, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		p.a.counters.crlFailures.Add(1)
		s.retryAt = time.Now().Add(publishRetry)
		return nil, fmt.Errorf("CRL of the %s CA, shard %d: %w", issuer.record.Name, s.key.shard, err)
	}
	s.lastEnd, s.retryAt = time.Now(), time.Time{}
	s.cost = s.lastEnd.Sub(start)
	return crl, nil
}

func (p *publisher) publishLocked(ctx context.Context, issuer *authorityCA, s *shard) (*CRL, error) {
	current := s.current.Load()
	renew := p.renewIn(current) <= 0
	pending := s.take()
	if renew {
		// RFC 5280, Section 5.2.3: two CRLs issued at different times have different numbers.
		n, err := p.a.cfg.Ledger.RaiseCRLNumber(ctx, s.key.caID, s.key.shard, p.a.now())
		if err != nil {
			s.putBack(pending)
			return nil, err
		}
		pending = append(pending, change{number: n})
		if current != nil {
			// Section 3.3: an entry may leave once a CRL issued after the certificate's end has carried it. After a
			// start since is zero: what was published before is not known, so everything is carried once more.
			// A clock that was ahead and is set back brings back what has left too early.
			s.since, s.loaded = earlier(current.ThisUpdate, p.a.now()), false
		}
	}
	if !s.loaded || !s.apply(pending) {
		if err := s.rebuild(ctx, p.a.cfg.Ledger); err != nil {
			s.putBack(pending)
			return nil, err
		}
	}
	if current != nil && s.number <= current.Number.Int64() {
		return current, nil
	}
	crl, err := p.sign(issuer, s)
	if err != nil {
		s.putBack(pending) // so that the next round is due; what it has already it skips
		return nil, err
	}
	s.current.Store(crl)
	p.a.counters.crlPublished.Add(1)
	p.a.cfg.Logger.InfoContext(ctx, "CRL published", "ca", issuer.record.Name, "shard", s.key.shard,
		"number", s.number, "bytes", len(crl.DER), "next_update", crl.NextUpdate)
	return crl, nil
}

// putBack returns changes to the queue after a failure.
func (s *shard) putBack(changes []change) {
	for _, c := range changes {
		s.note(c)
	}
}

// apply puts consecutive changes into the list; false when a number in between is missing (another transition is
// committed but not yet announced), so that the ledger must be asked.
func (s *shard) apply(changes []change) bool {
	fresh := slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return c.number <= s.number })
	slices.SortFunc(fresh, func(a, b change) int { return cmp.Compare(a.number, b.number) })
	last := map[string]change{} // by serial: the latest change decides
	for i, c := range fresh {
		if c.number != s.number+int64(i)+1 {
			return false
		}
		if !c.entry.Serial.IsZero() {
			last[string(c.entry.Serial.Bytes())] = c
		}
	}
	s.entries = removeEntries(s.entries, last)
	for _, c := range fresh {
		if l, ok := last[string(c.entry.Serial.Bytes())]; ok && l.number == c.number && !c.remove {
			s.entries = pkix.AppendCRLEntry(s.entries, c.entry)
		}
	}
	s.number += int64(len(fresh))
	return true
}

// removeEntries leaves out the entries of the serial numbers in the map. One walk over a million entries takes some
// 20 ms, less than signing them; what stays is moved only behind something that left.
func removeEntries(entries []byte, serials map[string]change) []byte {
	if len(serials) == 0 {
		return entries
	}
	kept, run := 0, 0 // entries[:kept] is done, entries[run:at] stays
	for at := 0; at < len(entries); {
		// AppendCRLEntry writes SEQUENCE { INTEGER, ... }, both of them shorter than 128 octets.
		size := 2 + int(entries[at+1])
		serial := entries[at+4 : at+4+int(entries[at+3])]
		for len(serial) > 1 && serial[0] == 0 {
			serial = serial[1:]
		}
		if _, gone := serials[string(serial)]; gone {
			if kept != run {
				copy(entries[kept:], entries[run:at])
			}
			kept += at - run
			run = at + size
		}
		at += size
	}
	if kept != run {
		copy(entries[kept:], entries[run:])
	}
	return entries[:kept+len(entries)-run]
}

// rebuild reads the list from the ledger, in one consistent view.
func (s *shard) rebuild(ctx context.Context, ledger Ledger) error {
	number, rows, err := ledger.Revoked(ctx, s.key.caID, s.key.shard, s.since)
	if err != nil {
		return err
	}
	s.loaded = false
	s.entries = s.entries[:0]
	for row, err := range rows {
		if err != nil {
			return err
		}
		s.entries = pkix.AppendCRLEntry(s.entries, pkix.CRLEntry{Serial: row.ID.Serial, At: row.At, Reason: row.Reason, InvalidityDate: row.InvalidityDate})
	}
	s.number, s.loaded = number, true
	return nil
}

// sign makes the CRL of what the shard holds.
func (p *publisher) sign(issuer *authorityCA, s *shard) (*CRL, error) {
	now := p.a.now()
	number := big.NewInt(s.number)
	t := pkix.CRLTemplate{
		Issuer: issuer.cert, Number: number, ThisUpdate: now, NextUpdate: now.Add(p.a.cfg.CRLLifetime),
		OnlyUserCerts: issuer.record.Name == issuingName,
	}
	// RFC 5280, Section 5.2.5: a list that is one of several says which. A single list names no distribution point: it is
	// good for every certificate of the CA, also for those that name the URL of before a move.
	if issuer.record.Shards > 1 {
		t.DistributionPoints = []string{p.a.CRLURL(s.key.caID, s.key.shard)}
	}
	der, err := pkix.SignCRL(t, s.entries, issuer.signer)
	if err != nil {
		return nil, err
	}
	return &CRL{
		CAID: s.key.caID, Shard: s.key.shard, Number: number, DER: der,
		ThisUpdate: t.ThisUpdate, NextUpdate: t.NextUpdate,
		// No two CRLs of a shard have one number, so the number is as good a tag as a hash, and costs nothing.
		ETag: fmt.Sprintf(`"%s-%d-%d"`, s.key.caID, s.key.shard, s.number),
	}, nil
}
