package crl

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync/atomic"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
)

// slot is one place and what is held of it.
type slot struct {
	key  slotKey
	held atomic.Pointer[Held]
	used atomic.Int64 // unix time, by Keeper.coarse

	// Guarded by Keeper.mu.
	places map[string]Place // by owner; demandedBy is certificates
	flight *flight          // nil: none

	// Of the flight in progress, of which there is one at a time.
	base   source
	delta  source // of the list's freshest CRL extension
	logged string // the error that was logged last
}

// demandedBy is the owner of places that certificates name. No CA has this name.
const demandedBy = "\x00"

// placeLocked is what the owners say of the place together. They have the same candidates; what one of them would not
// take is not shown to it.
func (s *slot) placeLocked() Place {
	merged := Place{Address: s.key.address, Origin: outbound.FromCertificate}
	var allows []func(string) bool
	for name, p := range s.places {
		if name != demandedBy {
			merged.Origin = p.Origin
		}
		merged.Issuers = p.Issuers
		allows = append(allows, p.Allows)
	}
	merged.Refresh = s.refreshLocked()
	merged.Allows = func(algorithm string) bool {
		return slices.ContainsFunc(allows, func(f func(string) bool) bool { return takes(f, algorithm) })
	}
	return merged
}

// refreshLocked is the shortest interval that an owner wants; 0: none says.
func (s *slot) refreshLocked() (least time.Duration) {
	for _, p := range s.places {
		if p.Refresh > 0 && (least == 0 || p.Refresh < least) {
			least = p.Refresh
		}
	}
	return least
}

// source is one address that lists come from, and how it went.
type source struct {
	list               *List
	err                error
	etag, lastModified string
	file               fileState
	local              bool // a file, which only the operator writes
	fails              int  // in a row
	attempt, success   time.Time
	next               time.Time
	copyTried          bool // the copy on disk was looked for
	fromDisk           bool
	unkept             bool // the list is to be kept on disk
	marks              map[pkix.KeyID]mark
}

// mark is the latest list of one key that was in force: none before it is taken again, whichever key's came between.
type mark struct {
	number *big.Int // nil: not given
	this   time.Time
}

func markOf(l *List) mark { return mark{l.Number(), l.ThisUpdate()} }

// due reports whether a URL is to be asked now: its time has come, or a policy wants to know sooner than the one before.
func (src *source) due(now time.Time, refresh time.Duration) bool {
	return !now.Before(src.next) || refresh > 0 && src.err == nil && !src.attempt.IsZero() && now.Sub(src.attempt) >= refresh
}

// settle notes how an attempt ended: with a list, with none because the one in force is still current, or with an error.
func (src *source) settle(l *List, err error, now time.Time, refresh time.Duration) (changed bool) {
	src.attempt = now
	if err == nil && l != nil {
		changed, err = src.take(l, now)
	}
	if err == nil {
		src.success, src.fromDisk = now, false
		if !src.list.Fresh(now, 0) {
			err = fmt.Errorf("%w: %s", ErrExpired, src.list.NextUpdate().Format(time.RFC3339))
			if src.list.ThisUpdate().After(now) {
				err = fmt.Errorf("the list is of the future: thisUpdate is %s", src.list.ThisUpdate().Format(time.RFC3339))
			}
		}
	}
	if src.err = err; err != nil {
		src.fails++
		src.next = now.Add(backoff(src.fails))
		var refused *outbound.StatusError
		if errors.As(err, &refused) && refused.RetryAfter > 0 {
			src.next = later(src.next, now.Add(min(refused.RetryAfter, mostRefresh)))
		}
		return changed
	}
	src.fails = 0
	src.next = nextRefresh(src.list.ThisUpdate(), src.list.NextUpdate(), now, refresh)
	return changed
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// take puts a list in force unless the one that is there is the same or newer, or the new one is no successor of it.
func (src *source) take(l *List, now time.Time) (changed bool, err error) {
	old := src.list
	if old != nil {
		if err := l.succeeds(old, now); err != nil && (!src.local || errors.Is(err, ErrDelta)) {
			return false, err
		}
	}
	key := pkix.KeyIDOf(l.Issuer())
	switch last, known := src.marks[key]; {
	case old != nil && old.same(l) && old.Readable():
		return false, nil
	case old != nil && old.same(l), old != nil && old.IsDelta() && !l.IsDelta():
	case known && !newer(markOf(l), last):
		return false, fmt.Errorf("%w: %s comes after %s", ErrOlder, markOf(l), last)
	}
	src.hold(l)
	return true, nil
}

// hold puts a list in force.
func (src *source) hold(l *List) {
	src.list, src.unkept = l, true
	if src.marks == nil {
		src.marks = make(map[pkix.KeyID]mark) // at most one for each of the candidates
	}
	src.marks[pkix.KeyIDOf(l.Issuer())] = markOf(l)
}

// succeeds reports why a list is not the next one after old: it does not speak of the same certificates, so to take it
// would be to forget who is revoked. Whoever sits between us and an http URL could serve another list that the CA has
// truly signed. Once old has run out, a list of another scope may be all there is; a delta or another CA's list never is:
// what has run out says "revoked" still, and another CA's says nothing. Who means it names the place anew. What is in a
// file the operator put there: it may be of whatever CA and scope.
func (l *List) succeeds(old *List, now time.Time) error {
	switch current := !old.NextUpdate().IsZero() && old.Fresh(now, 0); {
	case l.IsDelta() && !old.IsDelta():
		return ErrDelta
	case !pkix.SameName(l.base.name, old.base.name):
		return fmt.Errorf("%w: it is by %.200s, not by %.200s; if that is meant, take the place out of the policy and add it again",
			ErrSuccessor, pkix.DNString(l.base.name), pkix.DNString(old.base.name))
	case current && !sameIDP(l.base, old.base):
		return fmt.Errorf("%w: their issuing distribution points differ; the one in force counts until %s, or until the place is taken out of the policy and added again",
			ErrSuccessor, old.NextUpdate().Format(time.RFC3339))
	}
	return nil
}

// same reports whether two lists are one: the signature covers everything else.
func (l *List) same(other *List) bool {
	return l.base.body.size() == other.base.body.size() && bytes.Equal(l.base.signature, other.base.signature)
}

// newer compares by number, and by thisUpdate where a number is missing or the same (RFC 5280, Section 5.2.3: numbers
// only grow).
func newer(l, old mark) bool {
	if l.number != nil && old.number != nil {
		if c := l.number.Cmp(old.number); c != 0 {
			return c > 0
		}
	}
	return l.this.After(old.this)
}

// String says which list it is.
func (m mark) String() string {
	if m.number != nil {
		return fmt.Sprintf("number %v of %s", m.number, m.this.Format(time.RFC3339))
	}
	return "a list of " + m.this.Format(time.RFC3339)
}

// snapshot makes what is held of the state.
func (s *slot) snapshot() *Held {
	b, d := &s.base, &s.delta
	h := &Held{
		Address: s.key.address, List: b.list, Err: b.err, LastAttempt: b.attempt, LastSuccess: b.success, NextAttempt: b.next, FromDisk: b.fromDisk,
	}
	switch {
	case b.list == nil:
		return h
	case b.list.IsDelta():
		h.List, h.waiting = nil, b.list
		if h.Err == nil {
			h.Err = fmt.Errorf("%w: it needs number %v of %.200s", ErrNoBase, b.list.BaseNumber(), pkix.DNString(b.list.IssuerName()))
		}
		return h
	case d.attempt.IsZero() && d.list == nil:
		return h
	}
	err := d.err
	if d.list != nil {
		combined, fit := b.list.WithDelta(d.list)
		switch {
		case fit == nil:
			h.List = combined
		case !errors.Is(fit, ErrOlder): // a list that is newer than the delta needs none
			err = fit
		}
	}
	if h.Err == nil && err != nil {
		h.Err = fmt.Errorf("delta: %w", err)
	}
	if d.next.Before(h.NextAttempt) {
		h.NextAttempt = d.next
	}
	return h
}

// compose puts the deltas among the places of a CA on the lists among them.
func (o *owner) compose() []*Held {
	var view, waiting []*Held
	for i, s := range o.slots {
		h := s.held.Load()
		if list := h.either(); list != nil && !list.Taken(o.places[i].Allows) {
			refused := *h
			refused.List, refused.waiting = nil, nil
			refused.Err = fmt.Errorf("%w: %s", ErrAlgorithm, list.SignatureAlgorithm())
			h = &refused
		}
		if h.waiting != nil {
			waiting = append(waiting, h)
			continue
		}
		view = append(view, h)
	}
	for _, d := range waiting {
		if !addDelta(view, d.waiting) {
			view = append(view, d)
		}
	}
	return view
}

// addDelta puts a delta on each list that it fits and that has no newer one. It is of no use by itself when there is a
// list that is newer.
func addDelta(view []*Held, d *List) (used bool) {
	for i, h := range view {
		if h.List == nil {
			continue
		}
		combined, err := h.List.WithDelta(d)
		if errors.Is(err, ErrOlder) {
			used = true
		}
		if err != nil {
			continue
		}
		used = true
		if n := h.List.DeltaNumber(); n == nil || n.Cmp(d.Number()) < 0 {
			with := *h
			with.List = combined
			view[i] = &with
		}
	}
	return used
}

// either is the list of a snapshot, whether it counts or waits.
func (h *Held) either() *List {
	if h.List != nil {
		return h.List
	}
	return h.waiting
}

// publish shows what the attempt at a slot came to, and tells of it.
func (k *Keeper) publish(ctx context.Context, s *slot) {
	h := s.snapshot()
	k.mu.Lock()
	changed := differences([]*Held{s.held.Load()}, []*Held{h})
	s.held.Store(h)
	var candidates []*x509.Certificate // of whose certificates an indirect list may speak
	for name, p := range s.places {
		if o := k.owners[name]; o != nil {
			view := o.compose()
			changed = append(changed, differences(o.view, view)...)
			o.view = view
		}
		candidates = append(candidates, p.Issuers...)
	}
	k.mu.Unlock()
	k.log(ctx, s, h, len(changed) > 0)
	var issuers []pkix.KeyID
	for _, l := range changed {
		issuers = append(issuers, pkix.KeyIDOf(l.Issuer()))
		for _, c := range candidates {
			// A CA that has a new key signs with it for the certificates of the old one, too.
			if l.Indirect() || pkix.SameName(c.RawSubject, l.IssuerName()) {
				issuers = append(issuers, pkix.KeyIDOf(c))
			}
		}
	}
	if len(issuers) > 0 {
		slices.SortFunc(issuers, func(a, b pkix.KeyID) int { return bytes.Compare(a[:], b[:]) })
		k.cfg.OnChange(slices.Compact(issuers))
	}
}

// differences are the lists that are in one of the views only.
func differences(a, b []*Held) []*List {
	var out []*List
	missing := func(from, in []*Held) {
		for _, h := range from {
			if h.List != nil && !slices.ContainsFunc(in, func(o *Held) bool {
				return o.List != nil && o.List.base == h.List.base && o.List.delta == h.List.delta
			}) {
				out = append(out, h.List)
			}
		}
	}
	missing(a, b)
	missing(b, a)
	return out
}

// log says once what is wrong with a place, and of each list that it is in force.
func (k *Keeper) log(ctx context.Context, s *slot, h *Held, changed bool) {
	text := ""
	if h.Err != nil && h.waiting == nil {
		if text = h.Err.Error(); text != s.logged && ctx.Err() == nil {
			k.cfg.Logger.WarnContext(ctx, "CRL", "address", h.Address, "error", h.Err, "next_attempt", h.NextAttempt)
		}
	}
	s.logged = text
	if list := h.either(); list != nil && changed {
		k.cfg.Logger.InfoContext(ctx, "CRL in force", "address", h.Address, "list", markOf(list).String(), "entries", list.Len(),
			"next_update", list.NextUpdate(), "from_disk", h.FromDisk)
	}
}
