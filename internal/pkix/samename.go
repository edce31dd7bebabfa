package pkix

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// maxRDN is how many attributes of one RDN are compared one by one; larger sets must have the same octets.
const maxRDN = 8

// nameAttribute is a type and value of a distinguished name.
type nameAttribute struct {
	oid, value cryptobyte.String
	tag        asn1.Tag
}

// SameName reports whether two Names in DER are the same by RFC 5280, Section 7.1. It allocates nothing.
func SameName(a, b []byte) bool { return bytes.Equal(a, b) || matchName(a, b, false) }

// WithinName reports whether a Name is in the subtree of base: its first RDNs are those of base.
func WithinName(base, name []byte) bool { return matchName(base, name, true) }

func matchName(base, name []byte, prefix bool) bool {
	a, b := cryptobyte.String(base), cryptobyte.String(name)
	if !a.ReadASN1(&a, asn1.SEQUENCE) || !b.ReadASN1(&b, asn1.SEQUENCE) {
		return false
	}
	for !a.Empty() {
		var x, y cryptobyte.String
		if !a.ReadASN1(&x, asn1.SET) || !b.ReadASN1(&y, asn1.SET) || !bytes.Equal(x, y) && !sameRDN(x, y) {
			return false
		}
	}
	return prefix || b.Empty()
}

// sameRDN compares two sets of attributes. DER sorts them by their octets, which differ when the string types do, so
// order does not count.
func sameRDN(a, b cryptobyte.String) bool {
	var left, right [maxRDN]nameAttribute
	n, ok := readRDN(&left, a)
	m, ok2 := readRDN(&right, b)
	if !ok || !ok2 || n != m {
		return false
	}
	var used [maxRDN]bool
next:
	for i := range n {
		for j := range n {
			if !used[j] && left[i].same(right[j]) {
				used[j] = true
				continue next
			}
		}
		return false
	}
	return true
}

// readRDN reads the attributes of an RDN, which must be at most maxRDN.
func readRDN(out *[maxRDN]nameAttribute, rdn cryptobyte.String) (int, bool) {
	n := 0
	for ; !rdn.Empty(); n++ {
		var seq cryptobyte.String
		if n == maxRDN || !rdn.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1(&out[n].oid, asn1.OBJECT_IDENTIFIER) ||
			!seq.ReadAnyASN1(&out[n].value, &out[n].tag) || !seq.Empty() {
			return 0, false
		}
	}
	return n, true
}

// same compares type and value: character strings by their characters, everything else by its octets.
func (a nameAttribute) same(b nameAttribute) bool {
	if !bytes.Equal(a.oid, b.oid) {
		return false
	}
	if a.tag == b.tag && bytes.Equal(a.value, b.value) {
		return true
	}
	if !isCharacters(a.tag) || !isCharacters(b.tag) {
		return false
	}
	x, y := folded{tag: a.tag, rest: a.value}, folded{tag: b.tag, rest: b.value}
	for {
		r, ok := x.next()
		if q, ok2 := y.next(); r != q || ok != ok2 {
			return false
		}
		if !ok {
			return true
		}
	}
}

// tagBMPString is the two octets of UCS-2; cryptobyte has no name for it.
const tagBMPString = asn1.Tag(30)

func isCharacters(tag asn1.Tag) bool {
	switch tag {
	case asn1.UTF8String, asn1.PrintableString, asn1.IA5String, asn1.T61String, tagBMPString:
		return true
	}
	return false
}

// folded reads a string as it is compared: upper case like lower case, no blanks at the ends and one between words
// (RFC 4518, Sections 2.2 and 2.6.1).
type folded struct {
	rest  []byte
	tag   asn1.Tag
	begun bool
}

// next returns the next character; ok is false at the end.
func (f *folded) next() (r rune, ok bool) {
	blank := false
	for len(f.rest) > 0 {
		r, size := rune(f.rest[0]), 1
		if r >= utf8.RuneSelf || f.tag == tagBMPString {
			r, size = f.decode()
		}
		switch {
		case unicode.IsSpace(r):
			blank = true
		case blank && f.begun:
			return ' ', true // what follows the blanks is for the next call
		default:
			f.begun, f.rest = true, f.rest[size:]
			if r < utf8.RuneSelf {
				if 'A' <= r && r <= 'Z' {
					r += 'a' - 'A'
				}
				return r, true
			}
			return unicode.ToLower(unicode.ToUpper(r)), true
		}
		f.rest = f.rest[size:]
	}
	return 0, false
}

// decode returns the first character as it is written and how many octets it has. Octets that are no character are told
// apart from one another and from all characters.
func (f *folded) decode() (rune, int) {
	switch f.tag {
	case asn1.UTF8String:
		if r, size := utf8.DecodeRune(f.rest); r != utf8.RuneError || size > 1 {
			return r, size
		}
		return utf8.MaxRune + 1 + rune(f.rest[0]), 1
	case tagBMPString:
		if len(f.rest) >= 2 {
			return rune(f.rest[0])<<8 | rune(f.rest[1]), 2
		}
		return utf8.MaxRune + 1 + rune(f.rest[0]), 1
	}
	return rune(f.rest[0]), 1 // ASCII; T61String is Latin-1 in practice
}
