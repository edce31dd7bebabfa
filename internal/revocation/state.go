package revocation

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"sekisho/internal/pkix"
)

// shortSerial is the longest serial that fits a packed record, in octets (RFC 5280, Section 4.1.2.2). Longer ones,
// which the RFC forbids and which exist, are kept in a map.
const shortSerial = 20

// flushAt is how many changes the overlay holds before it becomes a run. Each Apply copies the overlay, so this
// bounds the cost of one change.
const flushAt = 256

// record is one entry of a run: 32 bytes. The serial is split into words, big-endian, so that comparing is three
// integer comparisons.
type record struct {
	hi, mid uint64
	lo      uint32
	reason  uint8
	gone    bool // reactivated: hides the entry of an older run
	at      int64
}

func (r record) compare(o record) int {
	switch { // the first words of two serials are hardly ever the same
	case r.hi != o.hi:
		return cmp.Compare(r.hi, o.hi)
	case r.mid != o.mid:
		return cmp.Compare(r.mid, o.mid)
	}
	return cmp.Compare(r.lo, o.lo)
}

func (r record) entry(id pkix.CertID) Entry {
	return Entry{ID: id, Reason: pkix.Reason(r.reason), At: time.Unix(r.at, 0).UTC()}
}

// keyOf packs a serial; ok is false when it is too long.
func keyOf(s pkix.Serial) (r record, ok bool) {
	var b [shortSerial]byte
	mag := s.Bytes()
	if len(mag) > shortSerial {
		return record{}, false
	}
	copy(b[shortSerial-len(mag):], mag)
	r.hi, r.mid = binary.BigEndian.Uint64(b[0:8]), binary.BigEndian.Uint64(b[8:16])
	r.lo = binary.BigEndian.Uint32(b[16:20])
	return r, true
}

func fill(r record, c Change) record {
	r.reason, r.at, r.gone = uint8(c.Reason), c.At.Unix(), !c.Revoked
	return r
}

// state is what readers see. Nothing in it changes after it was published.
type state struct {
	overlay map[pkix.CertID]record    // the latest changes, newest word on an id
	long    map[pkix.CertID]record    // entries with serials that no record holds
	issuers map[pkix.KeyID][][]record // sorted runs, oldest and largest first
	count   int                       // revoked certificates
}

func (s *state) lookup(id pkix.CertID) (record, bool) {
	if r, ok := s.overlay[id]; ok {
		return r, !r.gone
	}
	runs := s.issuers[id.Issuer]
	if len(runs) == 0 && len(s.long) == 0 {
		return record{}, false
	}
	key, short := keyOf(id.Serial)
	if !short {
		r, ok := s.long[id]
		return r, ok
	}
	for i := len(runs) - 1; i >= 0; i-- {
		if r, ok := find(runs[i], key); ok {
			return r, !r.gone
		}
	}
	return record{}, false
}

// find is a binary search without calls in the loop.
func find(run []record, key record) (record, bool) {
	lo, hi := 0, len(run)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		m := &run[mid]
		if m.hi < key.hi || m.hi == key.hi && (m.mid < key.mid || m.mid == key.mid && m.lo < key.lo) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(run) && run[lo].compare(key) == 0 {
		return run[lo], true
	}
	return record{}, false
}

// with returns a new state with the changes in its overlay, flushed into runs when that became long.
func (s *state) with(changes []Change) *state {
	next := &state{overlay: maps.Clone(s.overlay), long: s.long, issuers: s.issuers, count: s.count}
	if next.overlay == nil {
		next.overlay = make(map[pkix.CertID]record, len(changes))
	}
	for _, c := range changes {
		_, was := next.lookup(c.ID)
		key, _ := keyOf(c.ID.Serial)
		next.overlay[c.ID] = fill(key, c)
		switch {
		case c.Revoked && !was:
			next.count++
		case !c.Revoked && was:
			next.count--
		}
	}
	if len(next.overlay) > flushAt {
		next.flush()
	}
	return next
}

// flush turns the overlay into runs. s is not yet published; the maps it shares with its predecessor are copied.
func (s *state) flush() {
	fresh := make(map[pkix.KeyID][]record)
	s.long, s.issuers = maps.Clone(s.long), maps.Clone(s.issuers)
	for id, r := range s.overlay {
		switch _, short := keyOf(id.Serial); {
		case short:
			fresh[id.Issuer] = append(fresh[id.Issuer], r)
		case r.gone:
			delete(s.long, id)
		default:
			if s.long == nil {
				s.long = make(map[pkix.CertID]record)
			}
			s.long[id] = r
		}
	}
	if s.issuers == nil {
		s.issuers = make(map[pkix.KeyID][][]record, len(fresh))
	}
	for issuer, run := range fresh {
		slices.SortFunc(run, record.compare)
		s.issuers[issuer] = push(s.issuers[issuer], run)
	}
	s.overlay = nil
}

// push adds a run and merges neighbours until each is at most half its elder, so that there are few runs and an
// entry is copied O(log n) times in its life.
func push(runs [][]record, run []record) [][]record {
	runs = append(slices.Clone(runs), run)
	for len(runs) > 1 && len(runs[len(runs)-2]) < 2*len(runs[len(runs)-1]) {
		n := len(runs)
		runs[n-2] = merge(runs[n-2], runs[n-1], n == 2)
		runs = runs[:n-1]
	}
	if len(runs) == 1 {
		runs[0] = slices.DeleteFunc(runs[0], func(r record) bool { return r.gone })
	}
	return runs
}

// merge joins two sorted runs; on equal serials the younger wins. With oldest set nothing lies below, and the marks
// of reactivation have no further use.
func merge(old, young []record, oldest bool) []record {
	out := make([]record, 0, len(old)+len(young))
	for len(old) > 0 || len(young) > 0 {
		var r record
		switch {
		case len(young) == 0:
			r, old = old[0], old[1:]
		case len(old) == 0:
			r, young = young[0], young[1:]
		default:
			c := old[0].compare(young[0])
			if c < 0 {
				r, old = old[0], old[1:]
				break
			}
			if c == 0 {
				old = old[1:]
			}
			r, young = young[0], young[1:]
		}
		if !r.gone || !oldest {
			out = append(out, r)
		}
	}
	return out
}
