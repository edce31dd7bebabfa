package pkix

import (
	"crypto/x509"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// ava is one attribute of a name, in certificate order.
type ava struct {
	set     int // index of its RDN
	attr    attribute
	known   bool // the table has the attribute
	tag     asn1.Tag
	value   []byte // content octets
	element []byte // the whole value in DER
}

// readName splits a Name in DER. What cannot be read ends the list: names
// come from certificates that crypto/x509 has parsed.
func readName(rawName []byte) []ava {
	input := cryptobyte.String(rawName)
	var rdns cryptobyte.String
	if !input.ReadASN1(&rdns, asn1.SEQUENCE) {
		return nil
	}
	var out []ava
	for set := 0; !rdns.Empty(); set++ {
		var rdn cryptobyte.String
		if !rdns.ReadASN1(&rdn, asn1.SET) {
			return out
		}
		for !rdn.Empty() {
			a, ok := readAVA(&rdn)
			if !ok {
				return out
			}
			a.set = set
			out = append(out, a)
		}
	}
	return out
}

func readAVA(rdn *cryptobyte.String) (ava, bool) {
	var seq, oid, element cryptobyte.String
	var a ava
	if !rdn.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) ||
		!seq.ReadAnyASN1Element(&element, &a.tag) || !seq.Empty() {
		return ava{}, false
	}
	var id x509.OID
	if id.UnmarshalBinary(oid) != nil {
		return ava{}, false
	}
	a.attr, a.known = attributeFor(id.String())
	a.element = element
	var value cryptobyte.String
	element.ReadAnyASN1(&value, nil)
	a.value = value
	return a, true
}

// text is the value as UTF-8, and whether its type is a string type at all.
// One-octet types are read as Latin-1, as OpenSSL does.
func (a ava) text() (string, bool) {
	switch a.tag {
	case asn1.UTF8String:
		return string(a.value), true
	case asn1.PrintableString, asn1.IA5String, asn1.T61String, asn1.UTCTime, asn1.GeneralizedTime, 18, 26: // and NumericString, VisibleString
		var b strings.Builder
		for _, c := range a.value {
			b.WriteRune(rune(c))
		}
		return b.String(), true
	case 30: // BMPString
		if len(a.value)%2 != 0 {
			return "", false
		}
		units := make([]uint16, 0, len(a.value)/2)
		for i := 0; i < len(a.value); i += 2 {
			units = append(units, uint16(a.value[i])<<8|uint16(a.value[i+1]))
		}
		return string(utf16.Decode(units)), true
	case 28: // UniversalString
		if len(a.value)%4 != 0 {
			return "", false
		}
		var b strings.Builder
		for v := a.value; len(v) > 0; v = v[4:] {
			b.WriteRune(rune(uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3])))
		}
		return b.String(), true
	}
	return "", false
}

// DNString is a Name in DER as RFC 4514 text, the way nginx and OpenSSL's
// XN_FLAG_RFC2253 print it: the last RDN first, `\,` escapes, octets outside
// ASCII as \XX, multi-valued RDNs joined by +, unknown attributes as
// 1.2.3=#hex. The empty name is "".
func DNString(rawName []byte) string {
	avas := readName(rawName)
	var b strings.Builder
	for i := len(avas) - 1; i >= 0; i-- {
		a := avas[i]
		if i < len(avas)-1 {
			if avas[i+1].set == a.set {
				b.WriteByte('+')
			} else {
				b.WriteByte(',')
			}
		}
		b.WriteString(a.attr.name())
		b.WriteByte('=')
		if text, ok := a.text(); ok && a.known {
			writeEscaped(&b, text)
		} else {
			fmt.Fprintf(&b, "#%X", a.element)
		}
	}
	return b.String()
}

// writeEscaped writes a value with OpenSSL's ASN1_STRFLGS_RFC2253 escapes. A
// blank or # that is the whole value counts as its last character, not its
// first; OpenSSL does so.
func writeEscaped(b *strings.Builder, text string) {
	const upperHex = "0123456789ABCDEF"
	for i := range len(text) {
		c := text[i]
		last := i == len(text)-1
		first := i == 0 && !last
		switch {
		case c < 0x20 || c >= 0x7f:
			b.WriteByte('\\')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
			continue
		case strings.IndexByte(`,+"\<>;`, c) >= 0, c == '#' && first, c == ' ' && (first || last):
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
}

// DNLegacy is a Name in DER as OpenSSL's X509_NAME_oneline prints it:
// /C=JP/ST=Tokyo/CN=name in certificate order, + between the attributes of a
// multi-valued RDN, octets outside printable ASCII as \xHH.
func DNLegacy(rawName []byte) string {
	avas := readName(rawName)
	var b strings.Builder
	for i, a := range avas {
		if i > 0 && avas[i-1].set == a.set {
			b.WriteByte('+')
		} else {
			b.WriteByte('/')
		}
		b.WriteString(a.attr.name())
		b.WriteByte('=')
		value := a.value
		if a.tag == asn1.BIT_STRING && len(value) > 0 {
			value = value[1:] // OpenSSL keeps the count of unused bits elsewhere
		}
		for _, c := range value {
			switch {
			case c < 0x20 || c > 0x7e:
				fmt.Fprintf(&b, `\x%02X`, c)
			case c == '/' || c == '+':
				b.WriteByte('\\')
				b.WriteByte(c)
			default:
				b.WriteByte(c)
			}
		}
	}
	return b.String()
}

// CommonName is the first CN of a Name in DER as UTF-8 text, unescaped; "" if
// there is none.
func CommonName(rawName []byte) string { return Attribute(rawName, "CN") }

// Attribute is the first value of an attribute in a Name in DER, as UTF-8 text
// without escapes. short is OpenSSL's short name in its own case: CN, O, OU,
// C, ST, L, DC, UID, emailAddress, serialNumber. No such attribute is "".
func Attribute(rawName []byte, short string) string {
	for _, a := range readName(rawName) {
		if !a.known || a.attr.short != short {
			continue
		}
		text, _ := a.text()
		return strings.ToValidUTF8(text, string(utf8.RuneError))
	}
	return ""
}
