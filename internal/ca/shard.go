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

// shard is one part of a CA's certificates with its CRL and the delta to it.
type shard struct {
	key     shardKey
	current atomic.Pointer[lists] // nil: none signed since start

	mu        sync.Mutex
	pending   []change
	taken     int       // changes that a publication has taken, which has not ended
	waitSince time.Time // of the first pending change; zero: none
	lastEnd   time.Time // of the last publication
	cost      time.Duration
	retryAt   time.Time // after a failure; zero: none
	failed    error     // that failure

	signing  sync.Mutex // one publication at a time; guards what follows
	readBack bool       // what an earlier process published was looked at
	state    shardState
}

// lists are a full CRL and its delta, which are published together under one number.
type lists struct {
	full, delta *CRL
	renewAt     time.Time
}

// shardState is everything up to a CRL number. The entries are encoded, in no order, and lie in the lists that were
// signed last: they are never changed, only replaced.
type shardState struct {
	loaded bool
	number int64
	full   []byte
	delta  []byte // what changed after base
	late   []byte // left the full CRL, but not yet the list of all shards
	base   int64
	kept   time.Time // when the newest base was made
	since  time.Time // entries of certificates that expired before are left out
}

// change is what a CRL number stands for: a transition, or a renewal without one.
type change struct {
	number  int64
	renewal bool // there is no entry
	entry   pkix.CRLEntry
	remove  bool // reactivated
}

func (s *shard) note(c change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, c)
	if s.waitSince.IsZero() {
		s.waitSince = time.Now()
	}
}

// resting is the failure after which the next try waits; nil when it does not.
func (s *shard) resting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.retryAt) {
		return s.failed
	}
	return nil
}

// hasChanges reports whether there are changes that the lists do not tell of.
func (s *shard) hasChanges() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)+s.taken > 0
}

func (s *shard) take() []change {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := s.pending
	s.pending, s.taken, s.waitSince = nil, len(pending), time.Time{}
	slices.SortFunc(pending, func(a, b change) int { return cmp.Compare(a.number, b.number) })
	return pending
}

// putBack returns changes to the queue after a failure.
func (s *shard) putBack(changes []change) {
	for _, c := range changes {
		s.note(c)
	}
}

// publish brings a shard up to date and signs its lists, unless somebody did meanwhile.
func (p *publisher) publish(ctx context.Context, issuer *authorityCA, s *shard) error {
	s.signing.Lock()
	defer s.signing.Unlock()
	_, err := p.publishSigning(ctx, issuer, s)
	return err
}

// publishAsked is publish for anybody who asks and gets the lists: each try writes to the ledger, so who waited for one that failed does not
// try too.
func (p *publisher) publishAsked(ctx context.Context, issuer *authorityCA, s *shard) (*lists, error) {
	s.signing.Lock()
	defer s.signing.Unlock()
	if p.running.Load() {
		if err := s.resting(); err != nil {
			return nil, err
		}
	}
	return p.publishSigning(ctx, issuer, s)
}

// publishSigning is publish where s.signing is held.
func (p *publisher) publishSigning(ctx context.Context, issuer *authorityCA, s *shard) (*lists, error) {
	start := time.Now()
	now, err := p.publishLocked(ctx, issuer, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = 0 // published, or pending again
	if err != nil {
		p.a.counters.crlFailures.Add(1)
		s.retryAt = time.Now().Add(publishRetry)
		s.failed = fmt.Errorf("CRL of the %s CA, shard %d: %w", issuer.record.Name, s.key.shard, err)
		return nil, s.failed
	}
	s.lastEnd, s.retryAt, s.failed = time.Now(), time.Time{}, nil
	s.cost = s.lastEnd.Sub(start)
	return now, nil
}

func (p *publisher) publishLocked(ctx context.Context, issuer *authorityCA, s *shard) (*lists, error) {
	if !s.readBack {
		if err := p.restoreShard(ctx, issuer, s); err != nil {
			return nil, err
		}
		s.readBack = true
	}
	current := s.current.Load()
	pending := s.take()
	next, err := p.advance(ctx, s, current, &pending)
	if err != nil {
		s.putBack(pending)
		return nil, err
	}
	if current != nil && next.number <= current.full.Number.Int64() {
		return current, nil
	}
	now, err := p.signShard(issuer, s, next)
	if err != nil {
		s.putBack(pending) // so that the next round is due; what it has already it skips
		return nil, err
	}
	s.current.Store(now)
	poke(p.wakeFiles)
	p.a.cfg.Logger.InfoContext(ctx, "CRL published", "ca", issuer.record.Name, "shard", s.key.shard, "number", next.number,
		"bytes", len(now.full.DER), "base", next.base, "delta_bytes", len(now.delta.DER), "next_update", now.full.NextUpdate)
	return now, nil
}

// draft is a state before it is signed: its entries are in parts, of which those that stay lie in the lists before.
type draft struct {
	shardState
	full, delta [][]byte
}

// advance makes the state after the pending changes, to which it adds a renewal when one is due.
func (p *publisher) advance(ctx context.Context, s *shard, current *lists, pending *[]change) (draft, error) {
	d := draft{shardState: s.state}
	if p.renewIn(current) <= 0 {
		n, err := p.renew(ctx, s, &d.shardState)
		if err != nil {
			return d, err
		}
		*pending = append(*pending, change{number: n, renewal: true})
		d.loaded = false // so that what expired leaves
		if current != nil {
			// Section 3.3: an entry may leave once a CRL issued after the certificate's end has carried it. After a
			// start since is zero: what was published before is not known, so everything is carried once more.
			// A clock that was ahead and is set back brings back what has left too early.
			d.since = earlier(current.full.ThisUpdate, p.a.now())
		}
	}
	if d.loaded && d.apply(*pending, p.a.now()) {
		return d, nil
	}
	return d, p.load(ctx, s.key, &d)
}

// renew raises the number without a change (RFC 5280, Section 5.2.3: two CRLs issued at different times have different
// numbers), and moves the base of deltas on.
func (p *publisher) renew(ctx context.Context, s *shard, state *shardState) (int64, error) {
	now, ledger := p.a.now(), p.a.cfg.Ledger
	_, bases, err := ledger.CRLBases(ctx, s.key.caID, s.key.shard)
	if err != nil {
		return 0, err
	}
	keep := now
	if n := len(bases); n > 0 && !bases[n-1].At.After(now) && bases[n-1].At.Add(p.baseSpacing()).After(now) {
		keep = time.Time{} // or starts in quick succession would push out the bases of lists that are valid
	}
	number, err := ledger.RaiseCRLNumber(ctx, s.key.caID, s.key.shard, keep)
	if err != nil {
		return 0, err
	}
	if !keep.IsZero() {
		bases = append(bases, CRLBase{Number: number, At: keep})
	}
	state.base, state.kept = oldestInUse(bases, now.Add(-p.a.cfg.CRLLifetime)), bases[len(bases)-1].At
	return number, nil
}

// baseSpacing is the least time between two kept bases: all that are kept span more than the life of a CRL.
func (p *publisher) baseSpacing() time.Duration { return p.a.cfg.CRLLifetime / (CRLBasesKept - 1) }

// oldestInUse is the number that every full CRL that is still valid has or exceeds: they were all signed after
// expired, hence after the newest base of before.
func oldestInUse(bases []CRLBase, expired time.Time) int64 {
	for _, b := range slices.Backward(bases) {
		if !b.At.After(expired) {
			return b.Number
		}
	}
	return bases[0].Number
}

// renewIn is how long until a shard's lists must be renewed; 0 for none, and for some of the future: the clock was set
// back, and whoever has the right time does not take them.
func (p *publisher) renewIn(now *lists) time.Duration {
	if now == nil || p.a.cfg.Now().Before(now.full.ThisUpdate) {
		return 0
	}
	return now.renewAt.Sub(p.a.cfg.Now())
}

// renewTime is when lists must be renewed: in time before nextUpdate, and, however often changes renew that, before the
// newest base is so old that deltas would grow without end.
func (p *publisher) renewTime(nextUpdate, kept time.Time) time.Time {
	cfg := p.a.cfg
	return earlier(nextUpdate.Add(-cfg.CRLOverlap), kept.Add(max(cfg.CRLLifetime-cfg.CRLOverlap, p.baseSpacing())))
}

// load reads the lists from the ledger.
func (p *publisher) load(ctx context.Context, key shardKey, d *draft) error {
	ledger := p.a.cfg.Ledger
	keepSince := earlier(d.since, p.whole(key.caID).toldUntil(d.since, p.a.cfg.Now()))
	number, rows, err := ledger.Revoked(ctx, key.caID, key.shard, keepSince)
	if err != nil {
		return err
	}
	var full []byte
	d.late = nil
	for row, err := range rows {
		switch {
		case err != nil:
			return err
		case row.NotAfter.Before(d.since):
			d.late = pkix.AppendCRLEntry(d.late, row.entry())
		default:
			full = pkix.AppendCRLEntry(full, row.entry())
		}
	}
	d.number, rows, err = ledger.Changed(ctx, key.caID, key.shard, d.base)
	if err != nil {
		return err
	}
	var delta []byte
	var changes []change
	for row, err := range rows {
		if err != nil {
			return err
		}
		c := change{entry: row.entry(), remove: row.Reason == pkix.RemoveFromCRL}
		delta = pkix.AppendCRLEntry(delta, c.inDelta(p.a.now()))
		if d.number != number {
			changes = append(changes, c)
		}
	}
	d.loaded, d.full, d.delta = true, [][]byte{full}, [][]byte{delta}
	if len(changes) > 0 {
		// Something changed between the two views. The delta is of the later one, and brings the full list there.
		d.full, d.late = amend(full, changes), slices.Concat(without(d.late, bySerial(changes))...)
	}
	return nil
}

// entry is the row as a CRL has it.
func (r RevokedRow) entry() pkix.CRLEntry {
	return pkix.CRLEntry{Serial: r.ID.Serial, At: r.At, Reason: r.Reason, InvalidityDate: r.InvalidityDate}
}

// signShard signs both lists and makes the draft the state of the shard.
func (p *publisher) signShard(issuer *authorityCA, s *shard, d draft) (*lists, error) {
	l := list{
		shard: s.key.shard, number: d.number, at: p.a.now(),
		points: p.points(issuer, s.key.shard), fresh: p.a.DeltaCRLURL(s.key.caID, s.key.shard),
	}
	full, err := p.sign(issuer, l, d.full)
	if err != nil {
		return nil, err
	}
	l.base, l.fresh = big.NewInt(d.base), "" // RFC 5280, Section 5.2.4: same scope, same number
	delta, err := p.sign(issuer, l, d.delta)
	if err != nil {
		return nil, fmt.Errorf("delta: %w", err)
	}
	state := d.shardState
	if state.full, err = entriesOf(full); err == nil {
		state.delta, err = entriesOf(delta)
	}
	if err != nil {
		return nil, err
	}
	s.state = state
	return &lists{full: full, delta: delta, renewAt: p.renewTime(full.NextUpdate, state.kept)}, nil
}

// entriesOf are the octets of the entries, where they lie in the list.
func entriesOf(crl *CRL) ([]byte, error) {
	parsed, err := pkix.ParseCRLHeader(crl.DER)
	if err != nil {
		return nil, fmt.Errorf("the list that was signed does not parse: %w", err)
	}
	return parsed.Entries(), nil
}
