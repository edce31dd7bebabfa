package crl

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// The reasons why a place has no list in force, or none that is fresh, besides those of [Load].
var (
	ErrNotLoaded = errors.New("not loaded yet")
	ErrExpired   = errors.New("the list's nextUpdate has passed")
	ErrNoBase    = errors.New("the delta waits for the list that it builds upon")
	ErrClosed    = errors.New("the keeper of lists is closed")
)

// Place is where a list is to be had, and who may have signed it.
type Place struct {
	Address string // path of a file, or http or https URL
	Origin  outbound.Trust
	Issuers []*x509.Certificate         // may have signed; see [Options.Issuers]. Of a distribution point, first the issuer of the certificate
	Allows  func(algorithm string) bool // as in [Options.Allows]
	Refresh time.Duration               // a URL is asked at least this often; 0: every hour
}

// KeeperConfig is what a Keeper needs. Zero fields take the default given.
type KeeperConfig struct {
	Dir    string           // where copies of lists are; nothing else may be in it. "": lists are in memory, and gone with the process
	Client *outbound.Client // nil: URLs are not fetched, and say so
	Now    func() time.Time // time.Now
	Logger *slog.Logger     // slog.Default()
	// OnChange is called after lists of these issuers changed, by the ids of their keys. It may be nil, and is called from
	// several goroutines.
	OnChange func(issuers []pkix.KeyID)

	MaxBytes                int64 // of one list from a file or a URL that the operator wrote; 1 GiB
	MaxBytesFromCertificate int64 // of one from a URL in a certificate or in a list; 64 MiB
	MaxPlaces               int   // that certificates name; 4096. The one that was asked for longest ago goes
	MaxBytesDemanded        int64 // of all lists that certificates name; 1 GiB. The same one goes
}

// Held is what is known of a place: an immutable snapshot. With List and Err both set the latest attempt failed and the
// list before it is still in force.
type Held struct {
	Address                               string
	List                                  *List
	Err                                   error // of the latest attempt
	LastAttempt, LastSuccess, NextAttempt time.Time
	FromDisk                              bool // the list is the copy that an earlier process kept

	waiting *List // a delta that was configured, and is nothing by itself
}

// unannounced is how long a list without nextUpdate counts after its source was reached last.
const unannounced = 24 * time.Hour

// Current reports whether there is a list that is fresh, see [List.Fresh]. One without nextUpdate, which RFC 5280, Section
// 5.1.2.5, demands, is so for a day after it was seen at its URL: who keeps us from there must not keep it in force.
func (h *Held) Current(now time.Time, grace time.Duration) bool {
	return h.List != nil && h.List.Fresh(now, grace) && (!h.List.NextUpdate().IsZero() || !isURL(h.Address) || now.Sub(h.LastSuccess) <= unannounced+grace)
}

// Keeper keeps lists current: of the places that are configured for CAs ([Keeper.SetPlaces]), and of those that
// certificates name ([Keeper.Demand]). Files are looked at every second and read again when they changed; URLs are asked
// ahead of the list's nextUpdate, or of that of its delta, which is fetched from where the list's freshest CRL extension
// says. Whatever goes wrong leaves the list before in force, and is tried again: URLs after 10 seconds at first and 10
// minutes at last. A list never gives way to an older one. What was fetched is kept on disk and read back, its signature
// checked again, by the next process, so that a start needs no network.
//
// A Keeper is safe for concurrent use. Questions read memory alone. NewKeeper starts nothing: see [Keeper.Run].
type Keeper struct {
	cfg      KeeperConfig
	counts   counters
	beat     time.Duration // of Run
	prepared sync.Once     // Dir
	fetching chan struct{} // room for fetches in progress from URLs that the operator wrote
	checking chan struct{} // room for lists that are being checked: each takes a processor or two
	coarse   atomic.Int64  // unix time, as Run last read it
	work     sync.WaitGroup

	mu      sync.RWMutex
	slots   map[slotKey]*slot
	at      map[string][]*slot // by address
	owners  map[string]*owner
	flights map[*flight]bool
	closed  bool
}

// slotKey tells places apart. One address may be asked on behalf of CAs that trust different signers: the list of one
// must not be taken, nor its failure held, for that of another. set is of the candidates of a configured place, or of
// the issuer of the certificates that name it.
type slotKey struct {
	address string
	set     pkix.KeyID
}

// owner is a CA with its configured places.
type owner struct {
	places []Place
	slots  []*slot // of each place
	view   []*Held // what Lists returns: replaced, never changed
}

// Room for what is done at once.
const (
	maxFetching = 16
	maxChecking = 2
)

// NewKeeper returns a keeper that holds nothing yet.
func NewKeeper(c KeeperConfig) *Keeper {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.OnChange == nil {
		c.OnChange = func([]pkix.KeyID) {}
	}
	c.MaxBytes = cmp.Or(c.MaxBytes, 1<<30)
	c.MaxBytesFromCertificate = cmp.Or(c.MaxBytesFromCertificate, 64<<20)
	c.MaxPlaces = cmp.Or(c.MaxPlaces, 4096)
	c.MaxBytesDemanded = cmp.Or(c.MaxBytesDemanded, 1<<30)
	return &Keeper{
		cfg: c, beat: time.Second, fetching: make(chan struct{}, maxFetching), checking: make(chan struct{}, maxChecking),
		slots: make(map[slotKey]*slot), at: make(map[string][]*slot), owners: make(map[string]*owner), flights: make(map[*flight]bool),
	}
}

// SetPlaces replaces the places of a CA; none: the CA is forgotten. Those that are new have no list before the next
// [Keeper.LoadAll] or beat of [Keeper.Run]; those that stay keep theirs, also when the candidates change and the signer is
// still one of them. Two CAs with one address and the same candidates share one list.
func (k *Keeper) SetPlaces(name string, places []Place) {
	k.removeCopies(k.setPlaces(name, places))
}

// setPlaces is SetPlaces, and returns the URLs that are wanted no more.
func (k *Keeper) setPlaces(name string, places []Place) (gone []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := &owner{places: places}
	before := k.owners[name]
	for _, p := range places {
		key := slotKey{p.Address, candidates(p.Issuers)}
		isNew := k.slots[key] == nil
		s := k.slotLocked(key)
		if isNew && before != nil {
			s.inherit(before.slots, p)
		}
		s.places[name] = p
		o.slots = append(o.slots, s)
	}
	delete(k.owners, name)
	if len(places) > 0 {
		k.owners[name] = o
		o.view = o.compose()
	}
	if before == nil {
		return nil
	}
	for _, s := range before.slots {
		if !slices.Contains(o.slots, s) {
			delete(s.places, name)
			k.dropLocked(s)
			if isURL(s.key.address) {
				gone = append(gone, s.key.address)
			}
		}
	}
	return gone
}

// inherit has a slot that is new begin with the list of the one before it for the same address, if a candidate has signed
// that: a CA that gets one more intermediate does not forget whom it revoked until the list is read anew.
func (s *slot) inherit(before []*slot, p Place) {
	for _, old := range before {
		h := old.held.Load()
		list := h.either()
		if old.key.address != s.key.address || list == nil ||
			!slices.ContainsFunc(p.Issuers, func(c *x509.Certificate) bool { return c.Equal(list.Issuer()) }) {
			continue
		}
		s.base.hold(&List{base: list.base})
		s.base.unkept, s.base.success = false, h.LastSuccess
		if list.delta != nil {
			s.delta.hold(&List{base: list.delta})
			s.delta.unkept = false
		}
		copied := *h
		copied.NextAttempt = time.Time{} // at once
		s.held.Store(&copied)
		return
	}
}

// candidates names a set of certificates by their names and keys.
func candidates(certs []*x509.Certificate) pkix.KeyID {
	sums := make([]pkix.Fingerprint, 0, len(certs))
	for _, c := range certs {
		sums = append(sums, pkix.FingerprintOf(c.Raw))
	}
	slices.SortFunc(sums, func(a, b pkix.Fingerprint) int { return slices.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, sum := range slices.Compact(sums) {
		h.Write(sum[:])
	}
	return pkix.KeyID(h.Sum(nil))
}

// slotLocked finds or makes a slot.
func (k *Keeper) slotLocked(key slotKey) *slot {
	s := k.slots[key]
	if s == nil {
		s = &slot{key: key, places: make(map[string]Place)}
		s.held.Store(&Held{Address: key.address, Err: ErrNotLoaded})
		k.slots[key] = s
		k.at[key.address] = append(slices.Clone(k.at[key.address]), s)
	}
	return s
}

// dropLocked forgets a slot that nobody wants.
func (k *Keeper) dropLocked(s *slot) {
	if len(s.places) > 0 {
		return
	}
	delete(k.slots, s.key)
	rest := slices.DeleteFunc(slices.Clone(k.at[s.key.address]), func(other *slot) bool { return other == s })
	if k.at[s.key.address] = rest; len(rest) == 0 {
		delete(k.at, s.key.address)
	}
}

// Lists returns what is known of the places of a CA, in their order; a delta that could be put on one of the lists has
// no element of its own. The slice must not be changed.
func (k *Keeper) Lists(name string) []*Held {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if o := k.owners[name]; o != nil {
		return o.view
	}
	return nil
}

// Held returns what is known of an address, nil if nobody tried yet. Where lists of several issuers are held for it,
// see [Keeper.HeldFor].
func (k *Keeper) Held(address string) *Held {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var best *Held
	for _, s := range k.at[address] {
		if h := k.use(s); h != nil && (best == nil || best.List == nil && h.List != nil) {
			best = h
		}
	}
	return best
}

// HeldFor returns what is known of an address on behalf of certificates of one issuer: what [Keeper.Demand] was given
// first in Place.Issuers. Nobody else's failure or list is shown.
func (k *Keeper) HeldFor(address string, issuer *x509.Certificate) *Held {
	key := slotKey{address, pkix.KeyIDOf(issuer)}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if s := k.slots[key]; s != nil {
		return k.use(s)
	}
	return nil
}

// Fetching is when the attempt at an address that is in progress began, on behalf of certificates of one issuer as in
// [Keeper.HeldFor]; zero: there is none.
func (k *Keeper) Fetching(address string, issuer *x509.Certificate) time.Time {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if s := k.slots[slotKey{address, pkix.KeyIDOf(issuer)}]; s != nil && s.flight != nil {
		return s.flight.began
	}
	return time.Time{}
}

// use returns what a slot holds and notes that somebody asked.
func (k *Keeper) use(s *slot) *Held {
	if now := k.coarse.Load(); s.used.Load() < now {
		s.used.Store(now)
	}
	h := s.held.Load()
	if h.List == nil && h.LastAttempt.IsZero() {
		return nil
	}
	return h
}

// counters count attempts at files and URLs by how they ended.
type counters struct{ fetched, unchanged, failed, refused atomic.Uint64 }

// Metrics is what a Keeper counts.
type Metrics struct {
	Places, Lists, Entries int
	Failing                int       // places of which the latest attempt failed, whatever list is still in force
	Bytes                  int64     // of the lists, in DER
	Fetched                uint64    // attempts at files and URLs that brought a new list
	Unchanged              uint64    // that brought the list in force, or said that it is
	Failed                 uint64    // that brought none
	Refused                uint64    // that brought one which was not taken
	LastSuccess            time.Time // of any place; zero: none
}

// Metrics returns the counts of now.
func (k *Keeper) Metrics() Metrics {
	m := Metrics{
		Fetched: k.counts.fetched.Load(), Unchanged: k.counts.unchanged.Load(),
		Failed: k.counts.failed.Load(), Refused: k.counts.refused.Load(),
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	m.Places = len(k.slots)
	for _, s := range k.slots {
		h := s.held.Load()
		if h.LastSuccess.After(m.LastSuccess) {
			m.LastSuccess = h.LastSuccess
		}
		if _, demanded := s.places[demandedBy]; h.Err != nil && (demanded && !s.idle(k.coarse.Load()) || !demanded && h.waiting == nil) {
			m.Failing++ // what waits among lists does not, nor what nobody asks for any more
		}
		if list := cmp.Or(h.List, h.waiting); list != nil {
			m.Lists++
			m.Entries += list.Len()
			m.Bytes += list.Size()
		}
	}
	return m
}

// flight is an attempt in progress at one slot.
type flight struct {
	began  time.Time
	done   chan struct{}
	cancel context.CancelFunc
}

// maxFlight bounds an attempt, whatever the client's own deadlines are.
const maxFlight = 5 * time.Minute

// begin starts an attempt at a slot, or joins the one in progress. It ends by itself, or when the keeper is closed;
// never because one of those who wait for it gives up.
func (k *Keeper) begin(ctx context.Context, s *slot, copyOnly bool) (*flight, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, ErrClosed
	}
	if s.flight != nil {
		return s.flight, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxFlight)
	f := &flight{began: k.cfg.Now(), done: make(chan struct{}), cancel: cancel}
	s.flight, k.flights[f] = f, true
	place := s.placeLocked()
	k.work.Go(func() {
		defer cancel()
		k.attempt(ctx, s, place, copyOnly)
		k.mu.Lock()
		s.flight = nil
		delete(k.flights, f)
		k.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// Close ends every attempt in progress, waits for them, and lets no other begin. What is held is still told. Run does
// the same at its end.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	for f := range k.flights {
		f.cancel()
	}
	k.mu.Unlock()
	k.work.Wait()
}

func isURL(address string) bool { return trust.IsURL(address) }
