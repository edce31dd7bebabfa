package crl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/bits"
	"runtime"
	"slices"

	"sekisho/internal/pkix"
)

// index finds entries by serial number: open addressing with linear probing, ten slots for seven entries, five octets a
// slot. A slot holds where the entry is in the list and, apart, eight bits of its hash: the tag. The tags of eight slots
// are looked at together, so that nearly every search for a certificate that is not listed ends after one or two words,
// and all but one in 255 without the reading of an entry that is another one's. The hash is keyed by a secret that each
// list draws anew: whoever chooses serial numbers cannot choose where they land.
type index struct {
	seed       maphash.Seed
	size       int    // slots
	memory     []byte // of tags and offsets, when it is not the collector's; unmapped when the part is gone
	tags       []byte // 0: the slot is free; the first seven are repeated at the end
	offsets    []byte // of the entries in the list: four octets a slot
	count      int    // entries, each certificate once
	duplicates int
	issuers    issuers
	waiting    []arrival // entries that are not in their slots yet, while the index is built
}

// arrival is an entry on its way into the index.
type arrival struct {
	at     int // slot
	offset uint32
	issuer uint32
	tag    uint8
}

// group is how many tags are looked at together: the octets of a word.
const group = 8

// smallIndex is the size of an index, in octets, up to which it is on the heap.
const smallIndex = 256 << 10

// newIndex makes room for at most n entries. That of a large list is no matter of the garbage collector's, which would let
// the heap grow by several times its size.
func newIndex(n int) (index, error) {
	x := index{seed: maphash.MakeSeed()}
	if n == 0 {
		return x, nil
	}
	x.size = n + n*3/7 + group
	length := 4*x.size + x.size + group - 1
	var all []byte
	if length <= smallIndex || !canMap {
		all = make([]byte, length)
	} else {
		var err error
		if all, err = mapMemory(length); err != nil {
			return x, fmt.Errorf("memory for the index: %w", err)
		}
		x.memory = all
	}
	x.offsets, x.tags = all[:4*x.size], all[4*x.size:]
	x.waiting = make([]arrival, 0, maxWaiting)
	return x, nil
}

// offset is where the entry in a slot is in the list.
func (x *index) offset(slot int) uint32 { return binary.LittleEndian.Uint32(x.offsets[4*slot:]) }

func (x *index) setOffset(slot int, to uint32) {
	binary.LittleEndian.PutUint32(x.offsets[4*slot:], to)
}

// place is the slot where the search for a certificate begins, and its tag.
func (x *index) place(issuer uint32, serial []byte) (at int, tag uint8) {
	h := maphash.Bytes(x.seed, serial)
	if issuer != 0 {
		h = (h ^ uint64(issuer)) * 0x9e3779b97f4a7c15 // spreads the issuers; the secret is in h already
		h ^= h >> 29
	}
	high, _ := bits.Mul64(h, uint64(x.size))
	return int(high), max(uint8(h), 1)
}

// Each octet of a word 1, and the highest bit of each.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// look reads the tags of the group at a slot. Bit 7 of octet i of fits is set if slot at+i may have the tag and no slot
// before it is free; whether one is free at all is in ended. (An octet above one that fits may be taken for one that
// does; its entry says that it does not.)
func (x *index) look(at int, tag uint8) (fits uint64, ended bool) {
	word := binary.LittleEndian.Uint64(x.tags[at:])
	free := (word - ones) &^ word & highs
	word ^= ones * uint64(tag)
	fits = (word - ones) &^ word & highs
	return fits & (free&-free - 1), free != 0
}

// wrap is the slot that a number of at most a group more than there are stands for.
func (x *index) wrap(at int) int {
	if at >= x.size {
		at -= x.size
	}
	return at
}

// maxWaiting is how many entries are put into their slots at once. Each slot is a miss of the cache; together they wait
// for memory once.
const maxWaiting = 64

// add takes in one entry; flush must follow the last one.
func (x *index) add(c *pkix.CRL, e *pkix.CRLRecord) error {
	issuer, err := x.issuers.note(e)
	if err != nil {
		return err
	}
	at, tag := x.place(issuer, e.Serial)
	x.waiting = append(x.waiting, arrival{at, uint32(e.Offset), issuer, tag})
	if len(x.waiting) == maxWaiting {
		x.flush(c)
	}
	return nil
}

func (x *index) flush(c *pkix.CRL) {
	var touched uint32
	for _, a := range x.waiting {
		touched += uint32(x.tags[a.at]) + x.offset(a.at)
	}
	runtime.KeepAlive(touched) // or the compiler might leave the loop out
	for _, a := range x.waiting {
		x.insert(c, a)
	}
	x.waiting = x.waiting[:0]
}

// insert puts an entry into its slot. One that names a certificate again counts only if the earlier one says that the
// certificate is not revoked any more, which a delta may do: in doubt it is revoked.
func (x *index) insert(c *pkix.CRL, a arrival) {
	for at := a.at; ; at = x.wrap(at + group) {
		fits, ended := x.look(at, a.tag)
		for ; fits != 0; fits &= fits - 1 {
			slot := x.wrap(at + bits.TrailingZeros64(fits)/8)
			before := int(x.offset(slot))
			if bytes.Equal(serialAt(c.Raw, before), serialAt(c.Raw, int(a.offset))) && x.issuers.at(before) == a.issuer {
				x.duplicates++
				if r, err := c.RecordAt(before); err == nil && r.Reason == pkix.RemoveFromCRL {
					x.setOffset(slot, a.offset)
				}
				return
			}
		}
		if ended {
			x.set(at, a)
			return
		}
	}
}

// set uses the first free slot at or after at.
func (x *index) set(at int, a arrival) {
	for at = x.wrap(at); x.tags[at] != 0; at = x.wrap(at + 1) {
	}
	x.tags[at] = a.tag
	x.setOffset(at, a.offset)
	if at < group-1 {
		x.tags[x.size+at] = a.tag
	}
	x.count++
}

// maxIssuers bounds the CAs whose certificates one indirect list names.
const maxIssuers = 1024

// issuers says whose certificate an entry of an indirect list names. RFC 5280, Section 5.3.3: an entry that does not say
// has the issuer of the entry before it, so what is kept is where the issuer changes. Issuer 0 is that of the list.
type issuers struct {
	names  [][]byte          // Names in DER, of issuer 0 on; empty: the list is not indirect
	known  map[string]uint32 // by Name in DER as the list spells it
	runs   []run             // by offset
	latest []byte            // of the entry before, while the index is built
	now    uint32
}

// run says that the entries from an offset on, to the next run, are of an issuer.
type run struct{ offset, issuer uint32 }

// begin prepares for an indirect list whose own issuer has the name.
func (i *issuers) begin(own []byte) {
	i.names, i.known = [][]byte{own}, map[string]uint32{string(own): 0}
}

// note returns the issuer of an entry, which must be the one after that of the call before.
func (i *issuers) note(e *pkix.CRLRecord) (uint32, error) {
	if e.Issuer == nil || bytes.Equal(e.Issuer, i.latest) {
		return i.now, nil
	}
	i.latest = e.Issuer
	id, found := i.id(e.Issuer)
	if !found {
		id = uint32(len(i.names))
		i.names = append(i.names, bytes.Clone(e.Issuer))
	}
	i.known[string(e.Issuer)] = id
	if len(i.known) > maxIssuers {
		return 0, fmt.Errorf("%w: it names certificates of more than %d CAs", ErrTooLarge, maxIssuers)
	}
	if id != i.now {
		i.now = id
		i.runs = append(i.runs, run{uint32(e.Offset), id})
	}
	return id, nil
}

// id finds an issuer by its Name in DER, spelled as in the list or otherwise.
func (i *issuers) id(name []byte) (uint32, bool) {
	if id, ok := i.known[string(name)]; ok {
		return id, true
	}
	for id, known := range i.names {
		if pkix.SameName(known, name) {
			return uint32(id), true
		}
	}
	return 0, false
}

// at is the issuer of the entry at an offset.
func (i *issuers) at(offset int) uint32 {
	n, found := slices.BinarySearchFunc(i.runs, offset, func(r run, offset int) int { return int(r.offset) - offset })
	if !found {
		n--
	}
	if n < 0 {
		return 0
	}
	return i.runs[n].issuer
}
