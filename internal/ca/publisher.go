package ca

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/pkix"
)

const (
	minPublishDelay = 10 * time.Millisecond  // changes that come together share a CRL
	maxPublishDelay = 400 * time.Millisecond // the longest pause between two of a shard, however dear the signature
	maxShardPause   = 25 * time.Millisecond  // the longest pause between lists of two shards
	publishRetry    = time.Second            // after a failure
	pkiURLsListed   = 8                      // addresses in an issuing distribution point, newest first
)

// publisher keeps the CRLs of all shards, their deltas, and the lists of all shards together. The ledger hands out the
// CRL numbers; a transition carries the number of the CRL that must tell of it, and the publisher never signs number N
// before it has everything up to N.
//
// Who may sign is whoever has the ledger: one process holds the exclusive lock of the data directory, so there is one
// publisher for a CA, and no other lease is needed. A ledger that several processes share would have to hand one out.
type publisher struct {
	a         *Authority
	wake      chan struct{}            // capacity 1: a shard changed
	wakeWhole chan struct{}            // the same for the lists of all shards
	wakeFiles chan struct{}            // something was published
	running   atomic.Bool              // Run does the publishing
	urls      atomic.Pointer[[]string] // addresses that certificates name, newest first
	files     *crlFiles                // nil: nothing is published on disk
	rest      time.Time                // of publishDue: until when changes wait, see there

	mu     sync.Mutex
	shards map[shardKey]*shard
	wholes map[string]*whole // by CA
}

// shardKey names a CRL.
type shardKey struct {
	caID  string
	shard int
}

func (p *publisher) init(a *Authority) {
	p.a, p.shards, p.wholes = a, map[shardKey]*shard{}, map[string]*whole{}
	p.wake, p.wakeWhole, p.wakeFiles = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	p.urls.Store(&[]string{a.cfg.PKIURL})
	if a.cfg.PublishDir != "" {
		p.files = newCRLFiles(a)
	}
}

// loadURLs makes sure that the ledger knows the address that certificates get from now on, and reads those before it.
func (p *publisher) loadURLs(ctx context.Context) error {
	ledger, own := p.a.cfg.Ledger, p.a.cfg.PKIURL
	urls, err := ledger.PKIURLs(ctx)
	if err == nil && (len(urls) == 0 || urls[0] != own) {
		if err = ledger.UsePKIURL(ctx, own); err == nil {
			urls, err = ledger.PKIURLs(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("addresses of the CRLs: %w", err)
	}
	urls = urls[:min(len(urls), pkiURLsListed)]
	p.urls.Store(&urls)
	return nil
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
func (p *publisher) published(key shardKey) *CRL {
	if now := p.shard(key).current.Load(); now != nil {
		return now.full
	}
	return nil
}

// changed takes note of a transition that is in the ledger.
func (p *publisher) changed(row Certificate) {
	s := p.shard(shardKey{row.CAID, row.Shard})
	s.note(change{
		number: row.CRLNumber,
		entry:  pkix.CRLEntry{Serial: row.Serial, At: row.RevokedAt, Reason: row.Reason, InvalidityDate: row.InvalidityDate},
		remove: row.Status == Active,
	})
	p.whole(row.CAID).changes.Add(1)
	poke(p.wake)
	poke(p.wakeWhole)
}

// poke wakes whoever waits, or is about to.
func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Run publishes CRLs until ctx ends: within a fraction of a second after a change, and again before nextUpdate. A CRL
// that cannot be made or written to disk is tried again every second and logged; the one before it stays. OCSP answers
// that are asked for are signed anew at half their life. It returns nil.
func (a *Authority) Run(ctx context.Context) error {
	p := &a.publisher
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { a.ocsp.run(ctx) })
	p.running.Store(true)
	defer p.running.Store(false)
	if p.files != nil {
		group.Go(func() { every(ctx, p.wakeWhole, p.wholesDue) })
		group.Go(func() { every(ctx, p.wakeFiles, p.files.writeDue) })
	}
	every(ctx, p.wake, p.publishDue)
	return nil
}

// Finish brings [Config.PublishDir] up to what was revoked until now, for a web server goes on with it while nobody runs
// here. It comes after Run and after the last change; what it does not do, the next Run does.
func (a *Authority) Finish(ctx context.Context) error {
	p := &a.publisher
	if p.files == nil {
		return nil
	}
	var errs []error
	for _, c := range a.cas.Load().all() {
		if !c.signs() {
			continue
		}
		for n := range c.record.Shards {
			if s := p.shard(shardKey{c.record.ID, n}); s.hasChanges() {
				errs = append(errs, p.publish(ctx, c, s))
			}
		}
		if w := p.whole(c.record.ID); c.record.Shards > 1 && !w.has(w.changes.Load()) {
			w.signing.Lock()
			_, err := p.makeWhole(ctx, c, w)
			w.signing.Unlock()
			errs = append(errs, err)
		}
	}
	p.files.mu.Lock()
	defer p.files.mu.Unlock()
	p.files.writeLocked(ctx) // which logs what it cannot write
	return errors.Join(errs...)
}

// every calls due whenever it is woken and when the time is over that due returned, until ctx ends.
func every(ctx context.Context, wake <-chan struct{}, due func(context.Context) time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
		// At least once a minute, whatever the clock does meanwhile.
		timer.Reset(min(due(ctx), time.Minute))
	}
}

// publishDue publishes what is due and returns how long nothing more is. Changes come first: lists are renewed one at a
// time, with a look for changes in between. A stream of changes to all shards pauses between two of them as dueIn does
// between two lists of one, or the signatures would take a core from those who revoke.
func (p *publisher) publishDue(ctx context.Context) time.Duration {
	next := time.Minute
	renewed := false
	for _, c := range p.a.cas.Load().all() {
		p.a.ocsp.signers.warn(ctx, c)
		if !c.signs() {
			continue
		}
		for n := range c.record.Shards {
			s := p.shard(shardKey{c.record.ID, n})
			wait := p.dueIn(s)
			changed := s.hasChanges()
			if wait <= 0 && !changed {
				if renewed {
					next = 0
					continue
				}
				renewed = true
			}
			if wait <= 0 {
				if changed && sleep(ctx, time.Until(p.rest)) != nil {
					return 0
				}
				start := time.Now()
				if err := p.publish(ctx, c, s); err != nil && ctx.Err() == nil {
					p.a.cfg.Logger.ErrorContext(ctx, "CRL not published", "ca", c.record.Name, "shard", n, "error", err)
				}
				end := time.Now()
				p.rest = end.Add(min(2*end.Sub(start), maxShardPause))
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

// CRL returns the published CRL of a CA's shard. While [Authority.Run] does not run (the command line on the store),
// it publishes what is due first. An unknown CA or shard is ErrNotFound.
func (a *Authority) CRL(ctx context.Context, caID string, shardNumber int) (CRL, error) {
	now, err := a.publisher.currentLists(ctx, caID, shardNumber)
	if err != nil {
		return CRL{}, err
	}
	return *now.full, nil
}

// DeltaCRL returns the delta to the CRL of a CA's shard. It may be used with every CRL of the shard that is still valid
// (RFC 5280, Section 5.2.4). Otherwise it is as [Authority.CRL].
func (a *Authority) DeltaCRL(ctx context.Context, caID string, shardNumber int) (CRL, error) {
	now, err := a.publisher.currentLists(ctx, caID, shardNumber)
	if err != nil {
		return CRL{}, err
	}
	return *now.delta, nil
}

func (p *publisher) currentLists(ctx context.Context, caID string, shardNumber int) (*lists, error) {
	issuer, err := p.a.ca(caID)
	if err != nil {
		return nil, err
	}
	if !issuer.signs() {
		return nil, fmt.Errorf("CRL of the CA %s: %w: %w", issuer.record.Name, errNoKey, ErrNotFound)
	}
	if shardNumber < 0 || shardNumber >= issuer.record.Shards {
		return nil, fmt.Errorf("CRL shard %d of CA %s: %w", shardNumber, caID, ErrNotFound)
	}
	s := p.shard(shardKey{caID, shardNumber})
	current := s.current.Load()
	if current != nil && (p.running.Load() || p.dueIn(s) > maxPublishDelay) {
		return current, nil
	}
	return p.publishAsked(context.WithoutCancel(ctx), issuer, s) // for others too, who need not wait longer when this one goes away
}

// list is everything of a CRL but its entries, before it is signed.
type list struct {
	shard  int
	number int64
	base   *big.Int // nil: a full CRL
	at     time.Time
	points []string // its distribution points, and that it is for user certificates; nil: it has no scope
	fresh  string   // where its delta is; "": nowhere
}

// sign makes the CRL with the entries in the parts.
func (p *publisher) sign(issuer *authorityCA, l list, parts [][]byte) (*CRL, error) {
	t := pkix.CRLTemplate{
		Issuer: issuer.cert, Number: big.NewInt(l.number), BaseNumber: l.base,
		ThisUpdate: l.at, NextUpdate: l.at.Add(p.a.cfg.CRLLifetime), DistributionPoints: l.points,
		OnlyUserCerts: l.points != nil && issuer.signsOnlyUserCerts(),
	}
	if l.fresh != "" {
		t.FreshestCRL = []string{l.fresh}
	}
	der, err := pkix.SignCRLOf(t, issuer.signer, parts...)
	if err != nil {
		return nil, err
	}
	p.a.counters.crlPublished.Add(1)
	return newCRL(issuer.record.ID, l.shard, t, der), nil
}

// newCRL is the CRL in der, which t describes.
func newCRL(caID string, shard int, t pkix.CRLTemplate, der []byte) *CRL {
	crl := &CRL{
		CAID: caID, Shard: shard, Number: t.Number, Base: t.BaseNumber, DER: der, ThisUpdate: t.ThisUpdate, NextUpdate: t.NextUpdate,
	}
	place := fmt.Sprint(shard)
	switch {
	case shard == AllShards:
		place = "all"
	case crl.Base != nil:
		place += "-delta"
	}
	// No two CRLs of a place have one number, so the number is as good a tag as a hash, and costs nothing.
	crl.ETag = fmt.Sprintf(`"%s-%s-%d"`, caID, place, crl.Number)
	return crl
}

// signsOnlyUserCerts reports whether no certificate of the CA can be a CA's (RFC 5280, Section 4.2.1.9).
func (c *authorityCA) signsOnlyUserCerts() bool {
	return c.cert.MaxPathLen == 0 && c.cert.MaxPathLenZero
}

// points are the names of a shard's list. RFC 5280, Section 5.2.5: a list that is one of several says which, by the name
// that certificates have for it; the address was another one before the CA moved, so all of them are named, and one name
// in common is enough (Section 6.3.3). A single list has no scope: it is good for every certificate of the CA.
func (p *publisher) points(issuer *authorityCA, shard int) []string {
	if issuer.record.Shards <= 1 {
		return nil
	}
	urls := *p.urls.Load()
	points := make([]string, len(urls))
	for i, u := range urls {
		points[i] = crlURL(u, issuer.record.ID, shard)
	}
	return points
}
