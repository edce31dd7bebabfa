package crl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
		if p.Refresh > 0 && (merged.Refresh == 0 || p.Refresh < merged.Refresh) {
			merged.Refresh = p.Refresh
		}
	}
	merged.Allows = func(algorithm string) bool {
		return slices.ContainsFunc(allows, func(f func(string) bool) bool { return takes(f, algorithm) })
	}
	return merged
}

// source is one address that lists come from, and how it went.
type source struct {
	list               *List
	err                error
	etag, lastModified string
	file               fileState
	fails              int // in a row
	attempt, success   time.Time
	next               time.Time
	copyTried          bool // the copy on disk was looked for
	fromDisk           bool
	unkept             bool // the list is to be kept on disk
}

// due reports whether a URL is to be asked now.
func (src *source) due(now time.Time) bool { return !now.Before(src.next) }

// settle notes how an attempt ended: with a list, with none because the one in force is still current, or with an error.
func (src *source) settle(l *List, err error, now time.Time, refresh time.Duration) (changed bool) {
	src.attempt = now
	if err == nil && l != nil {
		changed, err = src.take(l)
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

// take puts a list in force unless the one that is there is the same or newer.
func (src *source) take(l *List) (changed bool, err error) {
	old := src.list
	if old != nil && bytes.Equal(old.Issuer().RawSubjectPublicKeyInfo, l.Issuer().RawSubjectPublicKeyInfo) {
		switch same := old.same(l); {
		case same && old.Readable():
			return false, nil
		case same:
		case !newer(l, old):
			return false, fmt.Errorf("%w: %s comes after %s", ErrOlder, describe(l), describe(old))
		}
	}
	src.list, src.unkept = l, true
	return true, nil
}

// same reports whether two lists are one: the signature covers everything else.
func (l *List) same(other *List) bool {
	return l.base.body.size() == other.base.body.size() && bytes.Equal(l.base.signature, other.base.signature)
}

// newer compares by number, and by thisUpdate where a number is missing or the same (RFC 5280, Section 5.2.3: numbers
// only grow).
func newer(l, old *List) bool {
	if a, b := l.Number(), old.Number(); a != nil && b != nil {
		if c := a.Cmp(b); c != 0 {
			return c > 0
		}
	}
	return l.ThisUpdate().After(old.ThisUpdate())
}

func describe(l *List) string {
	if n := l.Number(); n != nil {
		return fmt.Sprintf("number %v of %s", n, l.ThisUpdate().Format(time.RFC3339))
	}
	return "a list of " + l.ThisUpdate().Format(time.RFC3339)
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
		if list := h.either(); list != nil && !list.taken(o.places[i].Allows) {
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

// taken reports whether a policy takes the signatures of the list and its delta. Owners of one place may differ in this.
func (l *List) taken(allows func(string) bool) bool {
	return takes(allows, l.base.algorithm) && (l.delta == nil || takes(allows, l.delta.algorithm))
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
	var candidates []pkix.KeyID // of whose certificates an indirect list may speak
	for name, p := range s.places {
		if o := k.owners[name]; o != nil {
			view := o.compose()
			changed = append(changed, differences(o.view, view)...)
			o.view = view
		}
		for _, c := range p.Issuers {
			candidates = append(candidates, pkix.KeyIDOf(c))
		}
	}
	k.mu.Unlock()
	k.log(ctx, s, h, len(changed) > 0)
	var issuers []pkix.KeyID
	for _, l := range changed {
		issuers = append(issuers, pkix.KeyIDOf(l.Issuer()))
		if l.Indirect() {
			issuers = append(issuers, candidates...)
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
		k.cfg.Logger.InfoContext(ctx, "CRL in force", "address", h.Address, "list", describe(list), "entries", list.Len(),
			"next_update", list.NextUpdate(), "from_disk", h.FromDisk)
	}
}
