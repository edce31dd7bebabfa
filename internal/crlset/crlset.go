// Package crlset reads and writes CRLSets, Chromium's compact list of revoked
// certificates: a JSON header, then for each issuing key (by the SHA-256 of its
// SubjectPublicKeyInfo) the serial numbers that are revoked. Besides, the
// header blocks keys, and limits subjects to keys.
//
// It is pure: the raw file in, values out. The CRX file and the ZIP archive around a
// set that Chromium downloads are not read here, and neither are the deltas of
// old versions. A set holds the octets it was read from and four more for each
// serial number; looking one up is a binary search.
//
// It refuses sets over the bounds, another Version, ContentTypes other than
// "CRLSet", hashes that are not of 32 octets, a parent that comes twice, a serial
// number without octets, octets after the last parent, and another number of parents than
// the header's NumParents, where that is given. Keys of the header
// that it does not know are read over, and a comma before a closing bracket is
// taken, as Chromium does.
//
// Example:
//
//	set, err := crlset.Parse(raw)
//	if set.Expired(now) { ... }
//	revoked, covered := set.Lookup(pkix.KeyIDOf(issuer), pkix.SerialOf(cert.SerialNumber))
package crlset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"sekisho/internal/pkix"
)

// Bounds of a set. The format itself bounds the header to 65,535 octets.
const (
	MaxBytes   = 256 << 20
	MaxParents = 64 << 10
	MaxSerials = 16 << 20 // of all parents
)

// ErrMalformed is what every error of Parse is.
var ErrMalformed = errors.New("malformed CRLSet")

// Header is the part of a set that is JSON.
type Header struct {
	Sequence        int64
	NotAfter        time.Time // zero: the set does not expire
	BlockedSPKIs    []pkix.KeyID
	LimitedSubjects map[[sha256.Size]byte][]pkix.KeyID // by the SHA-256 of the subject: the keys that it may have
	// KnownInterceptionSPKIs are keys of intercepting proxies, which Chromium
	// only marks; BlockedInterceptionSPKIs are blocked too.
	KnownInterceptionSPKIs   []pkix.KeyID
	BlockedInterceptionSPKIs []pkix.KeyID
}

// Set is a CRLSet. It is not changed after it was made, so it is safe for
// concurrent use; its header is not to be changed either.
type Set struct {
	Header
	raw     []byte
	parents map[pkix.KeyID]span
	order   []pkix.KeyID // the parents as the file has them
	serials []uint32     // offsets in raw of every serial number's length octet, sorted within a parent
	blocked []pkix.KeyID // sorted
}

// span is where in Set.serials those of a parent are.
type span struct{ from, to int }

// Parse reads a raw set, the member "crl-set" of Chromium's component. The set
// keeps raw, which must not change.
func Parse(raw []byte) (*Set, error) {
	s := &Set{raw: raw, parents: map[pkix.KeyID]span{}}
	if err := s.parse(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	s.blocked = slices.Concat(s.BlockedSPKIs, s.BlockedInterceptionSPKIs)
	slices.SortFunc(s.blocked, compareKeys)
	return s, nil
}

func compareKeys(a, b pkix.KeyID) int { return bytes.Compare(a[:], b[:]) }

func (s *Set) parse() error {
	if len(s.raw) > MaxBytes {
		return fmt.Errorf("%d bytes; at most %d are read", len(s.raw), MaxBytes)
	}
	if len(s.raw) < 2 {
		return errors.New("it ends before the header")
	}
	at := 2 + int(binary.LittleEndian.Uint16(s.raw))
	if at > len(s.raw) {
		return errors.New("it ends in the header")
	}
	parents, err := s.parseHeader(s.raw[2:at])
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	for at < len(s.raw) {
		if at, err = s.parseParent(at); err != nil {
			return fmt.Errorf("parent %d: %w", len(s.order)+1, err)
		}
	}
	if parents >= 0 && parents != len(s.order) { // nothing else tells a set that was cut between two parents from a whole one
		return fmt.Errorf("it has %d parents, and says %d", len(s.order), parents)
	}
	return nil
}

// parseParent reads a parent and its serial numbers, and returns where it ends.
func (s *Set) parseParent(at int) (int, error) {
	const head = sha256.Size + 4
	if len(s.raw)-at < head {
		return 0, errors.New("it is cut short")
	}
	if len(s.order) == MaxParents {
		return 0, fmt.Errorf("more than %d are not read", MaxParents)
	}
	parent := pkix.KeyID(s.raw[at : at+sha256.Size])
	count := int(binary.LittleEndian.Uint32(s.raw[at+sha256.Size:]))
	at += head
	from := len(s.serials)
	switch _, twice := s.parents[parent]; {
	case twice:
		return 0, fmt.Errorf("%s comes twice", parent)
	case count > (len(s.raw)-at)/2: // a serial number has at least two octets: memory follows what is there, not what is claimed
		return 0, fmt.Errorf("%d serial numbers, which are not there", count)
	case from+count > MaxSerials:
		return 0, fmt.Errorf("more than %d serial numbers are not read", MaxSerials)
	}
	s.serials = slices.Grow(s.serials, count)
	sorted := true
	for range count {
		if at == len(s.raw) || s.raw[at] == 0 || len(s.raw)-at-1 < int(s.raw[at]) {
			return 0, errors.New("a serial number is empty or cut short")
		}
		s.serials = append(s.serials, uint32(at))
		if n := len(s.serials); n > from+1 && bytes.Compare(s.serial(s.serials[n-2]), s.serial(s.serials[n-1])) > 0 {
			sorted = false
		}
		at += 1 + int(s.raw[at])
	}
	if !sorted {
		slices.SortFunc(s.serials[from:], func(a, b uint32) int { return bytes.Compare(s.serial(a), s.serial(b)) })
	}
	s.parents[parent] = span{from, len(s.serials)}
	s.order = append(s.order, parent)
	return at, nil
}

// serial is the serial number at an offset, without leading zero octets but
// the last.
func (s *Set) serial(at uint32) []byte {
	b := s.raw[at+1 : at+1+uint32(s.raw[at])]
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// Lookup reports whether a certificate is revoked, by the key that issued it
// and its serial number, and whether the set knows that key at all. What is
// not covered is neither good nor revoked.
func (s *Set) Lookup(issuerSPKI pkix.KeyID, serial pkix.Serial) (revoked, covered bool) {
	p, covered := s.parents[issuerSPKI]
	if !covered {
		return false, false
	}
	_, revoked = slices.BinarySearchFunc(s.serials[p.from:p.to], serial.Bytes(), func(at uint32, want []byte) int {
		return bytes.Compare(s.serial(at), want)
	})
	return revoked, true
}

// Blocked reports whether no certificate with this key is to be trusted,
// itself or as an issuer.
func (s *Set) Blocked(spki pkix.KeyID) bool {
	_, found := slices.BinarySearchFunc(s.blocked, spki, compareKeys)
	return found
}

// SubjectBlocked reports whether the set knows the subject, a raw Name, with
// other keys than this one.
func (s *Set) SubjectBlocked(rawSubject []byte, spki pkix.KeyID) bool {
	keys, limited := s.LimitedSubjects[sha256.Sum256(rawSubject)]
	return limited && !slices.Contains(keys, spki)
}

// Expired reports whether the set says that it is too old. Chromium then no
// longer takes "not in it" for good; what is in it stays revoked.
func (s *Set) Expired(at time.Time) bool { return !s.NotAfter.IsZero() && at.After(s.NotAfter) }

// NumParents is how many issuing keys the set covers.
func (s *Set) NumParents() int { return len(s.order) }

// NumSerials is how many revoked certificates it has.
func (s *Set) NumSerials() int { return len(s.serials) }

// Parents are the issuing keys in the order of the file, each with its serial
// numbers in the order of their octets.
func (s *Set) Parents() iter.Seq2[pkix.KeyID, iter.Seq[pkix.Serial]] {
	return func(yield func(pkix.KeyID, iter.Seq[pkix.Serial]) bool) {
		for _, parent := range s.order {
			p := s.parents[parent]
			serials := func(yield func(pkix.Serial) bool) {
				for _, at := range s.serials[p.from:p.to] {
					if !yield(pkix.SerialFromBytes(s.serial(at))) {
						return
					}
				}
			}
			if !yield(parent, serials) {
				return
			}
		}
	}
}

// Append appends the raw set.
func (s *Set) Append(b []byte) []byte { return append(b, s.raw...) }

// New is a set of the header and the revoked serial numbers of each issuing
// key. Parents and serial numbers are written sorted and once each.
func New(h Header, parents map[pkix.KeyID][]pkix.Serial) (*Set, error) {
	raw, err := h.appendTo(nil, len(parents))
	if err != nil {
		return nil, err
	}
	for _, parent := range slices.SortedFunc(maps.Keys(parents), compareKeys) {
		serials := slices.Clone(parents[parent])
		slices.SortFunc(serials, func(a, b pkix.Serial) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
		serials = slices.Compact(serials)
		raw = append(raw, parent[:]...)
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(serials)))
		for _, serial := range serials {
			octets := serial.Bytes()
			if len(octets) > 255 {
				return nil, fmt.Errorf("CRLSet: a serial number of %d octets; at most 255", len(octets))
			}
			raw = append(append(raw, byte(len(octets))), octets...)
		}
	}
	return Parse(raw)
}
