package revocation

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/crlset"
	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// SetKeeperConfig is what a [SetKeeper] needs. Zero fields take the default given.
type SetKeeperConfig struct {
	HTTP     *outbound.Client // nil: files only
	Now      func() time.Time
	OnChange func(issuers []pkix.KeyID) // after a swap, with nil: a set may speak of every issuer
	Logger   *slog.Logger
}

// SetKeeper keeps CRLSets current: files are looked at every second and read again when they changed, URLs are asked
// every hour, or as often as a policy says. A set that cannot be read leaves the one before in force. It is safe for concurrent use.
type SetKeeper struct {
	cfg  SetKeeperConfig
	held atomic.Pointer[map[string]*heldSet]

	files, urls chan struct{} // each has room for the one who reads places of that kind

	changing sync.Mutex // held to replace what held points to
	wanted   map[string]bool
	interval map[string]time.Duration // of places that are URLs: the shortest that a policy wants
}

// heldSet is what is known of one place. Immutable.
type heldSet struct {
	set       *crlset.Set // nil: none was ever read
	err       error       // of the last attempt
	attempted time.Time
	next      time.Time // not tried before; zero for a file that was read
	sum       [sha256.Size]byte
	stamp     string // of the file whose set was taken: size and time; empty when it may change without that changing
	etag      string // of the answer whose set was taken
	modified  string
}

const (
	maxSet      = 16 << 20 // bytes of a CRLSet; the largest published are under 1 MiB
	setInterval = time.Hour
	setRetry    = 10 * time.Second
)

// NewSetKeeper returns a keeper without sets.
func NewSetKeeper(c SetKeeperConfig) *SetKeeper {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.OnChange == nil {
		c.OnChange = func([]pkix.KeyID) {}
	}
	k := &SetKeeper{cfg: c, files: make(chan struct{}, 1), urls: make(chan struct{}, 1)}
	k.held.Store(&map[string]*heldSet{})
	return k
}

// at is what is known of a place; nil when it is not one of the configured.
func (k *SetKeeper) at(place string) *heldSet { return (*k.held.Load())[place] }

// SetMetrics count the CRLSets of a [SetKeeper].
type SetMetrics struct {
	Places  int // that policies name
	Failing int // of which the latest attempt failed, whatever set is still in force
	Serials int // in the sets in force
}

// Metrics returns the counts of now.
func (k *SetKeeper) Metrics() SetMetrics {
	var m SetMetrics
	for _, h := range *k.held.Load() {
		m.Places++
		if h.err != nil {
			m.Failing++
		}
		if h.set != nil {
			m.Serials += h.set.NumSerials()
		}
	}
	return m
}

// SetPlaces keeps the CRLSets that the policies of the CAs name, beside those of before until [SetKeeper.Forget]. Files
// that are new are read before it returns; for URLs see [SetKeeper.Load].
func (k *SetKeeper) SetPlaces(ctx context.Context, cas []trust.CA) {
	k.changing.Lock()
	k.wanted, k.interval = make(map[string]bool), make(map[string]time.Duration)
	next := maps.Clone(*k.held.Load())
	for _, ca := range cas {
		for _, place := range ca.Policy.CRLSets {
			k.wanted[place] = true
			next[place] = cmp.Or(next[place], &heldSet{})
			if r := ca.Policy.Refresh; r > 0 && (k.interval[place] == 0 || r < k.interval[place]) {
				k.interval[place] = r
			}
		}
	}
	k.held.Store(&next)
	k.changing.Unlock()
	k.refresh(ctx, false)
}

// Load asks the URLs that are due, as far as ctx lets it.
func (k *SetKeeper) Load(ctx context.Context) { k.refresh(ctx, true) }

// Forget drops the sets that the latest [SetKeeper.SetPlaces] did not name.
func (k *SetKeeper) Forget() {
	k.changing.Lock()
	defer k.changing.Unlock()
	next := maps.Clone(*k.held.Load())
	maps.DeleteFunc(next, func(place string, _ *heldSet) bool { return !k.wanted[place] })
	k.held.Store(&next)
}

// Run keeps the sets current until ctx ends. A URL that does not answer delays no file.
func (k *SetKeeper) Run(ctx context.Context) error {
	var fetching sync.WaitGroup
	fetching.Go(func() { k.keep(ctx, true) })
	k.keep(ctx, false)
	fetching.Wait()
	return nil
}

// keep is Run for one kind of places.
func (k *SetKeeper) keep(ctx context.Context, urls bool) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.refresh(ctx, urls)
		}
	}
}

// refresh reads what is due of one kind, one at a time. A set that changed is in force before OnChange is called.
func (k *SetKeeper) refresh(ctx context.Context, urls bool) {
	reading := k.files
	if urls {
		reading = k.urls
	}
	select {
	case reading <- struct{}{}:
	case <-ctx.Done():
		return
	}
	changed := false
	for place, old := range *k.held.Load() {
		if trust.IsURL(place) != urls {
			continue
		}
		next := k.look(ctx, place, old)
		if next == old {
			continue
		}
		if next.err != nil && (old.err == nil || next.err.Error() != old.err.Error()) {
			k.cfg.Logger.ErrorContext(ctx, "CRLSet not read, what was known stays", "place", place, "error", next.err)
		}
		changed = changed || next.set != old.set
		k.put(place, next)
	}
	<-reading
	if changed {
		k.cfg.OnChange(nil)
	}
}

// put swaps in what is known of a place, unless it was forgotten meanwhile.
func (k *SetKeeper) put(place string, h *heldSet) {
	k.changing.Lock()
	defer k.changing.Unlock()
	next := maps.Clone(*k.held.Load())
	if next[place] != nil {
		next[place] = h
		k.held.Store(&next)
	}
}

// look returns what is known of a place now: the same value when there is nothing new.
func (k *SetKeeper) look(ctx context.Context, place string, old *heldSet) *heldSet {
	now := k.cfg.Now()
	interval := k.intervalOf(place)
	if now.Before(old.next) && (old.err != nil || now.Sub(old.attempted) < interval) {
		return old
	}
	next := *old
	next.attempted = now
	var raw []byte
	var err error
	if trust.IsURL(place) {
		next.next = now.Add(interval)
		raw, err = k.fetch(ctx, place, &next)
	} else {
		raw, err = readChanged(place, &next, now)
	}
	switch {
	case errors.Is(err, errUnchanged) && old.err == nil && old.next.IsZero():
		return old // a file, which is looked at every second
	case errors.Is(err, errUnchanged):
		next.err = nil
		return &next
	case err == nil:
		err = next.take(raw)
	}
	if next.err = err; err != nil {
		// What marks a set as read is of one that was taken.
		next.stamp, next.etag, next.modified = old.stamp, old.etag, old.modified
		next.next = now.Add(setRetry)
	} else if !trust.IsURL(place) {
		next.next = time.Time{}
	}
	return &next
}

// intervalOf is how often a URL is asked.
func (k *SetKeeper) intervalOf(place string) time.Duration {
	k.changing.Lock()
	defer k.changing.Unlock()
	return cmp.Or(k.interval[place], setInterval)
}

// take puts a set in the place of the one before, unless it is an earlier one.
func (h *heldSet) take(raw []byte) error {
	sum := sha256.Sum256(raw)
	if h.set != nil && sum == h.sum {
		return nil
	}
	set, err := crlset.Parse(raw)
	if err != nil {
		return err
	}
	if h.set != nil && set.Sequence < h.set.Sequence {
		return fmt.Errorf("its sequence %d is below %d, which is in force", set.Sequence, h.set.Sequence)
	}
	h.set, h.sum = set, sum
	return nil
}

// errUnchanged says that a place has what was read last.
var errUnchanged = errors.New("unchanged")

// settled is how long ago a file must have changed for its time to tell the next change.
const settled = 2 * time.Second

// readChanged reads a file that is not the one that was read last.
func readChanged(path string, h *heldSet, now time.Time) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // to read a FIFO may take for ever
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	stamp := strconv.FormatInt(info.Size(), 10) + " " + info.ModTime().String()
	if stamp == h.stamp {
		return nil, errUnchanged
	}
	h.stamp = stamp
	if age := now.Sub(info.ModTime()); -settled < age && age < settled {
		h.stamp = "" // its clock ticks in milliseconds: it may be written once more in the same one
	}
	if info.Size() > maxSet {
		return nil, fmt.Errorf("%s has %d bytes; at most %d are read", path, info.Size(), maxSet)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxSet+1)) // crlset.Parse refuses what was cut
}

// fetch asks a URL.
func (k *SetKeeper) fetch(ctx context.Context, url string, h *heldSet) ([]byte, error) {
	if k.cfg.HTTP == nil {
		return nil, errors.New("nothing is fetched here")
	}
	resp, err := k.cfg.HTTP.Do(ctx, outbound.Request{
		Method: http.MethodGet, URL: url, ETag: h.etag, LastModified: h.modified, MaxBytes: maxSet, Origin: outbound.FromOperator,
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.NotModified {
		return nil, errUnchanged
	}
	h.etag, h.modified = resp.ETag, resp.LastModified
	return io.ReadAll(resp.Body)
}

// judge is what a set says of a certificate, as Chromium applies it: a blocked key of the certificate, of its issuer or
// of one above, a subject that is limited to other keys, or a listed serial. Good is said of what its issuer's list
// covers only, while the set has not expired.
func (h *heldSet) judge(s *subject) answer {
	a := answer{state: Unknown}
	if h == nil || h.set == nil {
		return a
	}
	revoked := func() answer {
		return answer{state: Revoked, entry: Entry{ID: s.id, Reason: pkix.Unspecified}}
	}
	at := slices.Index(s.path, s.cert)
	for _, c := range s.path[max(at, 0):] {
		key := pkix.KeyIDOf(c)
		if h.set.Blocked(key) || h.set.SubjectBlocked(c.RawSubject, key) {
			return revoked()
		}
	}
	listed, covered := h.set.Lookup(s.id.Issuer, s.id.Serial)
	expired := !h.set.NotAfter.IsZero() && s.now.After(h.set.NotAfter.Add(s.policy.Grace))
	switch {
	case listed:
		return revoked()
	case !covered:
		a.state = "" // the set has nothing to say about this issuer
	case !expired:
		a.state = Good
		if !h.set.NotAfter.IsZero() {
			a.until = h.set.NotAfter.Add(s.policy.Grace)
		}
	}
	return a
}

func (h *heldSet) report(place string) SourceReport {
	r := SourceReport{Source: trust.CRLSet, Address: place, Origin: configured}
	if h == nil {
		r.Error = "not read yet"
		return r
	}
	r.LastAttempt = reported(h.attempted)
	if h.err != nil {
		r.Error = h.err.Error()
	}
	if h.set != nil {
		r.Number, r.NextUpdate = strconv.FormatInt(h.set.Sequence, 10), reported(h.set.NotAfter)
		r.Fresh = h.set.NotAfter.IsZero() || r.LastAttempt != nil && !h.attempted.After(h.set.NotAfter)
	}
	return r
}
