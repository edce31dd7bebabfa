// Package revocation answers one question: is this certificate revoked now, and says who.
//
// The [Index] is memory only: a question costs an atomic load when nothing changed since the asker last looked
// ([Index.Epoch]) and one look-up when something did. Nothing here fetches or blocks. Sources put what they know into
// it with [Index.Load] and [Index.Apply]; today the source is our own CA's ledger.
//
//	index.Apply(revocation.Change{Entry: revocation.Entry{ID: id, Reason: pkix.KeyCompromise, At: now}, Revoked: true})
//	entry, revoked := index.Lookup(id)
package revocation

import (
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/pkix"
)

// Entry is one revoked certificate.
type Entry struct {
	ID     pkix.CertID
	Reason pkix.Reason
	At     time.Time
}

// Change is one step in the life of a certificate: Revoked true when it was revoked or put on hold, false when it was
// reactivated.
type Change struct {
	Entry
	Revoked bool
}

// Index is the set of revoked certificates. Reads take no lock and allocate nothing (serials up to 20 octets); writes
// are serialised. A million entries take 32 MB. The zero Index is not usable: see [NewIndex].
type Index struct {
	epoch   atomic.Uint64
	current atomic.Pointer[state]

	writing sync.Mutex // held by Load and Apply
}

// NewIndex returns an empty index at epoch 0.
func NewIndex() *Index {
	x := &Index{}
	x.current.Store(&state{})
	return x
}

// Load replaces everything by the entries of the sequence, in any order, and returns how many certificates the index
// then holds. When the sequence yields an error nothing changes. It is for the start: changes that were applied before
// it and are not in the sequence are forgotten; those applied while it runs wait and come on top.
func (x *Index) Load(entries iter.Seq2[Entry, error]) (int, error) {
	x.writing.Lock()
	defer x.writing.Unlock()
	next := &state{long: make(map[pkix.CertID]record), issuers: make(map[pkix.KeyID][][]record)}
	base := make(map[pkix.KeyID]*[]record)
	for e, err := range entries {
		if err != nil {
			return x.current.Load().count, fmt.Errorf("revocation: load: %w", err)
		}
		key, short := keyOf(e.ID.Serial)
		key = fill(key, Change{Entry: e, Revoked: true})
		if !short {
			next.long[e.ID] = key
			continue
		}
		run := base[e.ID.Issuer]
		if run == nil {
			run = new([]record)
			base[e.ID.Issuer] = run
		}
		*run = append(*run, key)
	}
	next.count = len(next.long)
	for issuer, run := range base {
		slices.SortFunc(*run, record.compare)
		sorted := slices.CompactFunc(*run, func(a, b record) bool { return a.compare(b) == 0 })
		if cap(sorted) > len(sorted)+len(sorted)/64 {
			sorted = slices.Clone(sorted) // what append left over stays with the index for good otherwise
			*run = nil
		}
		next.issuers[issuer] = [][]record{slices.Clip(sorted)}
		next.count += len(sorted)
	}
	x.current.Store(next)
	x.epoch.Add(1)
	return next.count, nil
}

// Apply makes the changes visible, all at once, and then raises the epoch: who reads the new epoch sees the changes.
func (x *Index) Apply(changes ...Change) {
	if len(changes) == 0 {
		return
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	x.current.Store(x.current.Load().with(changes))
	x.epoch.Add(1)
}

// Epoch counts the changes. Judge with a look-up made after reading the epoch, remember the number, and the judgement
// holds as long as Epoch returns the same.
func (x *Index) Epoch() uint64 { return x.epoch.Load() }

// raise makes everyone judge again: another source than the index changed.
func (x *Index) raise() { x.epoch.Add(1) }

// Lookup returns the entry of a revoked certificate. The time is in whole seconds.
func (x *Index) Lookup(id pkix.CertID) (Entry, bool) {
	r, ok := x.current.Load().lookup(id)
	if !ok {
		return Entry{}, false
	}
	return r.entry(id), true
}

// Len is how many certificates are revoked.
func (x *Index) Len() int { return x.current.Load().count }
