package ca

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// wholePause is the least time between two lists of all shards; see [publisher.wholePause] for large ones.
const wholePause = time.Second

// whole is the list of all shards of a CA, for clients that know one list per CA. It has no scope and no delta: the
// extensions for both are critical, and such clients refuse what they do not know. Its numbers are a sequence of its own.
type whole struct {
	caID    string
	current atomic.Pointer[CRL] // nil: none since start
	changes atomic.Int64        // how many transitions were announced

	mu      sync.Mutex
	told    int64 // the changes that current has at least
	lastEnd time.Time
	cost    time.Duration
	err     error // of the last attempt

	signing  sync.Mutex // one list at a time; guards what follows
	readBack bool
}

func (p *publisher) whole(caID string) *whole {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wholes[caID]
	if w == nil {
		w = &whole{caID: caID}
		p.wholes[caID] = w
	}
	return w
}

// FullCRL returns the list of all shards of a CA. It is made when it is asked for, at most once a second and for a
// quarter of the time; who asks more often gets the last one, which is at most a second and the time of a signature
// behind. For a CA with one shard it is the shard's list. An unknown CA is ErrNotFound.
func (a *Authority) FullCRL(ctx context.Context, caID string) (CRL, error) {
	return a.fullCRL(ctx, caID, false)
}

// FullCRLNow is FullCRL, but waits until the list tells of everything that was revoked before the call.
func (a *Authority) FullCRLNow(ctx context.Context, caID string) (CRL, error) {
	return a.fullCRL(ctx, caID, true)
}

func (a *Authority) fullCRL(ctx context.Context, caID string, wait bool) (CRL, error) {
	issuer, err := a.ca(caID)
	if err != nil {
		return CRL{}, err
	}
	if !issuer.signs() {
		return CRL{}, fmt.Errorf("CRL of the CA %s: %w: %w", issuer.record.Name, errNoKey, ErrNotFound)
	}
	if issuer.record.Shards <= 1 {
		return a.oneShard(ctx, caID, wait)
	}
	p := &a.publisher
	w := p.whole(caID)
	asked := w.changes.Load()
	for {
		current, due := p.wholeNow(w)
		if !due && w.has(asked) {
			return *current, nil
		}
		if pause := p.wholePause(w); pause > 0 {
			if !wait && (current != nil || w.failed() != nil) {
				return p.lastWhole(current, w.failed())
			}
			if err := sleep(ctx, pause); err != nil {
				return CRL{}, err
			}
			continue
		}
		if wait || current == nil {
			w.signing.Lock()
		} else if !w.signing.TryLock() {
			return p.lastWhole(current, nil) // somebody is at it
		}
		made, err := p.makeWhole(context.WithoutCancel(ctx), issuer, w) // it is for others too, who need not fail with this one
		w.signing.Unlock()
		switch {
		case err == nil:
			return *made, nil
		case wait:
			return CRL{}, err
		}
		a.cfg.Logger.ErrorContext(ctx, "CRL of all shards not published", "ca", issuer.record.Name, "error", err)
		return p.lastWhole(current, err)
	}
}

// lastWhole is the list that there is, while there is no newer one because of err. One that ran out, or is of the future,
// is not given to anybody.
func (p *publisher) lastWhole(current *CRL, err error) (CRL, error) {
	now := p.a.cfg.Now()
	switch {
	case current != nil && !now.Before(current.ThisUpdate) && now.Before(current.NextUpdate):
		return *current, nil
	case err == nil:
		err = errors.New("the list of all shards ran out and is being made anew; try again in a second")
	}
	return CRL{}, err
}

// oneShard is the list of a CA with one shard.
func (a *Authority) oneShard(ctx context.Context, caID string, wait bool) (CRL, error) {
	s := a.publisher.shard(shardKey{caID, 0})
	for wait && s.current.Load() != nil && s.hasChanges() && a.publisher.running.Load() {
		if err := sleep(ctx, minPublishDelay); err != nil {
			return CRL{}, err
		}
	}
	return a.CRL(ctx, caID, 0)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// wholeNow is the list there is, and whether it is due for another whatever changed.
func (p *publisher) wholeNow(w *whole) (current *CRL, due bool) {
	current = w.current.Load()
	return current, p.wholeRenewIn(current) <= 0
}

// has reports whether the list tells of so many changes.
func (w *whole) has(changes int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told >= changes
}

func (w *whole) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// wholePause is how long no new list is made yet: a second after the last one, and three times what that took.
func (p *publisher) wholePause(w *whole) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lastEnd.IsZero() {
		return 0
	}
	return time.Until(w.lastEnd.Add(max(wholePause, 3*w.cost)))
}

func (p *publisher) wholeRenewIn(crl *CRL) time.Duration {
	now := p.a.cfg.Now()
	if crl == nil || now.Before(crl.ThisUpdate) {
		return 0
	}
	return crl.NextUpdate.Add(-p.a.cfg.CRLOverlap).Sub(now)
}

// toldUntil is until when the end of a certificate is known to whoever reads the list of all shards: the time of the last
// one. otherwise, when there is none that anybody could still rely on.
func (w *whole) toldUntil(otherwise, now time.Time) time.Time {
	if crl := w.current.Load(); crl != nil && crl.NextUpdate.After(now) {
		return crl.ThisUpdate
	}
	return otherwise
}

// wholesDue makes the lists of all shards that are due and returns how long nothing more is. They go to disk, so nobody
// has to ask for them.
func (p *publisher) wholesDue(ctx context.Context) time.Duration {
	next := time.Minute
	for _, c := range p.a.cas.Load().all() {
		if c.record.Shards <= 1 || !c.signs() {
			continue
		}
		w := p.whole(c.record.ID)
		current, due := p.wholeNow(w)
		if !due && w.has(w.changes.Load()) {
			next = min(next, p.wholeRenewIn(current))
			continue
		}
		if pause := p.wholePause(w); pause > 0 {
			next = min(next, pause)
			continue
		}
		w.signing.Lock()
		_, err := p.makeWhole(ctx, c, w)
		w.signing.Unlock()
		if err != nil && ctx.Err() == nil {
			p.a.cfg.Logger.ErrorContext(ctx, "CRL of all shards not published", "ca", c.record.Name, "error", err)
		}
		next = min(next, wholePause)
	}
	return next
}

// makeWhole makes the list, unless somebody did meanwhile. w.signing is held.
func (p *publisher) makeWhole(ctx context.Context, issuer *authorityCA, w *whole) (*CRL, error) {
	told := w.changes.Load()
	if current, due := p.wholeNow(w); !due && w.has(told) {
		return current, nil
	}
	var crl *CRL
	err := p.shardsForWhole(ctx, issuer, w)
	start := time.Now() // a start reads all shards, which says nothing of the cost of the next list
	if err == nil {
		crl, err = p.signWhole(ctx, issuer, w)
	}
	if err != nil {
		p.a.counters.crlFailures.Add(1)
		err = fmt.Errorf("CRL of all shards of the %s CA: %w", issuer.record.Name, err)
	} else {
		w.current.Store(crl)
		poke(p.wakeFiles)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastEnd, w.err = time.Now(), err
	w.cost = w.lastEnd.Sub(start)
	if err == nil {
		w.told = told
	}
	return crl, err
}

// shardsForWhole brings all shards up to date.
func (p *publisher) shardsForWhole(ctx context.Context, issuer *authorityCA, w *whole) error {
	for n := range issuer.record.Shards {
		s := p.shard(shardKey{w.caID, n})
		if s.current.Load() != nil && !s.hasChanges() {
			continue
		}
		if err := p.publish(ctx, issuer, s); err != nil {
			return err
		}
	}
	return nil
}

// signWhole takes the entries of all shards. Lists follow one another and shards only get newer, so none lacks a
// revocation that one before it had.
func (p *publisher) signWhole(ctx context.Context, issuer *authorityCA, w *whole) (*CRL, error) {
	shards := make([]*shard, issuer.record.Shards)
	var parts [][]byte
	late := make([][]byte, len(shards))
	for n := range shards {
		s := p.shard(shardKey{w.caID, n})
		shards[n] = s
		s.signing.Lock()
		parts, late[n] = append(parts, s.state.full), s.state.late
		s.signing.Unlock()
	}
	if !w.readBack {
		w.readBack = true
		if crl := p.restoreWhole(ctx, issuer, parts); crl != nil {
			return crl, nil
		}
	}
	number, err := p.a.cfg.Ledger.RaiseCRLNumber(ctx, w.caID, AllShards, time.Time{})
	if err != nil {
		return nil, err
	}
	crl, err := p.sign(issuer, list{shard: AllShards, number: number, at: p.a.now()}, append(parts, late...))
	if err != nil {
		return nil, err
	}
	for n, s := range shards {
		s.signing.Lock()
		if len(late[n]) > 0 && len(s.state.late) == len(late[n]) && &s.state.late[0] == &late[n][0] {
			s.state.late = nil
		}
		s.signing.Unlock()
	}
	p.a.cfg.Logger.InfoContext(ctx, "CRL of all shards published", "ca", issuer.record.Name, "number", number,
		"bytes", len(crl.DER), "next_update", crl.NextUpdate)
	return crl, nil
}
