package crl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/pkix"
)

// LoadAll loads the places that were not tried yet: files, and of URLs the copies on disk, and then, from the network,
// the URLs without a copy. It returns when all are done or ctx has ended, and what is wrong with each place then; fetches
// that are not done go on. Nothing that is wrong with one place keeps another from being loaded.
func (k *Keeper) LoadAll(ctx context.Context) error {
	k.prepare(ctx)
	k.coarse.Store(k.cfg.Now().Unix())
	k.mu.RLock()
	var fresh []*slot
	for _, s := range k.slots {
		_, demanded := s.places[demandedBy]
		// Strangers' lists are not waited for: a client that needs one does that itself.
		if h := s.held.Load(); h.List == nil && h.LastAttempt.IsZero() && !demanded {
			fresh = append(fresh, s)
		}
	}
	k.mu.RUnlock()
	k.all(ctx, fresh, true)
	var urls []*slot
	for _, s := range fresh {
		if isURL(s.key.address) && s.held.Load().List == nil {
			urls = append(urls, s)
		}
	}
	k.all(ctx, urls, false)
	var errs []error
	for _, s := range fresh {
		switch h := s.held.Load(); {
		case h.either() == nil && h.Err == nil:
			errs = append(errs, fmt.Errorf("CRL %s: %w", h.Address, ErrNotLoaded))
		case h.Err != nil && h.waiting == nil:
			errs = append(errs, fmt.Errorf("CRL %s: %w", h.Address, h.Err))
		}
	}
	return errors.Join(errs...)
}

// all makes an attempt at each slot and waits for them, or for the end of ctx.
func (k *Keeper) all(ctx context.Context, slots []*slot, copyOnly bool) {
	var flights []*flight
	for _, s := range slots {
		f, err := k.begin(ctx, s, copyOnly)
		if err != nil {
			return
		}
		flights = append(flights, f)
	}
	for _, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return
		}
	}
}

// demandIdle is how long a list that certificates name is kept current after somebody asked for it last. After that it
// is fetched again when somebody does.
const demandIdle = time.Hour

// idle reports whether nobody has asked for the slot's list for that long, at now, unix time.
func (s *slot) idle(now int64) bool { return now-s.used.Load() > int64(demandIdle/time.Second) }

// Run keeps the lists current until ctx has ended, and returns when every attempt has. Nothing can be demanded after it.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.Close()
	ticker := time.NewTicker(k.beat)
	defer ticker.Stop()
	swept := k.cfg.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			now := k.cfg.Now()
			k.coarse.Store(now.Unix())
			for _, s := range k.due(now) {
				if _, err := k.begin(ctx, s, false); err != nil {
					return err
				}
			}
			if now.Sub(swept) > 24*time.Hour {
				swept = now
				k.sweepCopies(ctx, now)
			}
		}
	}
}

// due are the slots to look at now: files always, for a look costs a stat.
func (k *Keeper) due(now time.Time) []*slot {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var out []*slot
	for _, s := range k.slots {
		h := s.held.Load()
		_, demanded := s.places[demandedBy]
		switch {
		case s.flight != nil, demanded && s.idle(now.Unix()):
		case !isURL(s.key.address), !now.Before(h.NextAttempt), h.List != nil && !h.List.Readable(), s.overdueLocked(h, now):
			out = append(out, s)
		}
	}
	return out
}

// overdueLocked reports whether a list is older than a policy wants that came after the next attempt was fixed.
func (s *slot) overdueLocked(h *Held, now time.Time) bool {
	if h.Err != nil || h.LastAttempt.IsZero() {
		return false
	}
	refresh := s.refreshLocked()
	return refresh > 0 && now.Sub(h.LastAttempt) >= refresh
}

// Demand returns what is held of a distribution point that a certificate names, once it is fresh: at once if it is,
// otherwise after one fetch, which all who ask share. After a failure nothing is fetched until its backoff is over: the
// failure is returned at once. With an error there may be a list still, which is not fresh. It must be called only for
// clients that have proved their key.
func (k *Keeper) Demand(ctx context.Context, p Place) (*Held, error) {
	if len(p.Issuers) == 0 || !isURL(p.Address) {
		return nil, fmt.Errorf("CRL %.200q: a URL and the certificate's issuer are needed", p.Address)
	}
	s, gone, err := k.demanded(p)
	k.removeCopies(gone)
	if err != nil {
		return nil, fmt.Errorf("CRL %.200s: %w", p.Address, err)
	}
	h := s.held.Load()
	now := k.cfg.Now()
	if err := h.problem(now); err == nil || !h.LastAttempt.IsZero() && now.Before(h.NextAttempt) {
		return h, err
	}
	f, err := k.begin(ctx, s, false)
	if err != nil {
		return h, err
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return s.held.Load(), fmt.Errorf("CRL %s: %w", p.Address, ctx.Err())
	}
	h = s.held.Load()
	return h, h.problem(k.cfg.Now())
}

// problem is why there is no fresh list; nil: there is one.
func (h *Held) problem(now time.Time) error {
	switch {
	case h.Current(now, 0):
		return nil
	case h.Err != nil:
		return fmt.Errorf("CRL %s: %w", h.Address, h.Err)
	}
	return fmt.Errorf("CRL %s: %w", h.Address, ErrExpired)
}

// ErrFull says that certificates name more lists than are kept, all of which are being fetched now.
var ErrFull = errors.New("too many lists that certificates name are being fetched")

// demanded is the slot of a distribution point. Certificates with one issuer share it. gone are the URLs of those that it
// took the place of.
func (k *Keeper) demanded(p Place) (s *slot, gone []string, err error) {
	key := slotKey{p.Address, pkix.KeyIDOf(p.Issuers[0])}
	now := k.cfg.Now().Unix()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.slots[key] == nil {
		if gone, err = k.makeRoomLocked(); err != nil {
			return nil, gone, err
		}
	}
	s = k.slotLocked(key)
	s.places[demandedBy] = p
	s.used.Store(now)
	return s, gone, nil
}

// makeRoomLocked forgets the distribution points that were asked for longest ago as far as there are too many, or their
// lists too large.
func (k *Keeper) makeRoomLocked() (gone []string, err error) {
	count, size := 0, int64(0)
	var idle []*slot
	for _, s := range k.slots {
		if _, demanded := s.places[demandedBy]; !demanded {
			continue
		}
		count++
		if list := s.held.Load().List; list != nil {
			size += list.Size()
		}
		if s.flight == nil {
			idle = append(idle, s)
		}
	}
	if count < k.cfg.MaxPlaces && size < k.cfg.MaxBytesDemanded {
		return nil, nil
	}
	slices.SortFunc(idle, func(a, b *slot) int { return cmp.Compare(a.used.Load(), b.used.Load()) })
	for _, s := range idle {
		if count < k.cfg.MaxPlaces && size < k.cfg.MaxBytesDemanded {
			break
		}
		count--
		if list := s.held.Load().List; list != nil {
			size -= list.Size()
		}
		delete(s.places, demandedBy)
		k.dropLocked(s)
		gone = append(gone, s.key.address)
	}
	if count >= k.cfg.MaxPlaces || size >= k.cfg.MaxBytesDemanded {
		return gone, ErrFull
	}
	return gone, nil
}
