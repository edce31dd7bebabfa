package pkix

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of ParseDN: octets of text, attributes in all.
const (
	maxDNText       = 16 << 10
	maxDNAttributes = 64
)

// dnValue is one parsed attribute; der is its value.
type dnValue struct {
	attr attribute
	der  []byte
}

// ParseDN reads a distinguished name and returns it as a Name in DER.
//
// Text that begins with a slash is OpenSSL's form, /C=JP/O=Sekisho/CN=name, in
// certificate order, with `\/`, `\+` and `\\` as escapes (and \xHH for an
// octet, as DNLegacy writes it); "/" alone is the empty name. Any other text is
// RFC 4514, CN=name,O=Sekisho,C=JP, whose order is the reverse of the
// certificate's; blanks around separators are allowed. In both, + joins the
// attributes of a multi-valued RDN.
//
// C is written as a PrintableString of two letters, serialNumber and
// dnQualifier as PrintableString, DC and emailAddress as IA5String, all else
// as UTF8String. An unknown attribute, an empty value, a control character or
// a value above X.520's bound is an error that names it.
func ParseDN(text string) ([]byte, error) {
	if len(text) > maxDNText {
		return nil, fmt.Errorf("distinguished name of %d bytes; at most %d are read", len(text), maxDNText)
	}
	trimmed := strings.TrimLeft(text, " ")
	if trimmed == "" {
		return nil, errors.New(`distinguished name is empty; write for instance "CN=name,O=organisation"`)
	}
	p := dnParser{text: text, pos: len(text) - len(trimmed)}
	var err error
	if trimmed[0] == '/' {
		err = p.slashForm()
	} else {
		err = p.rfc4514()
		slices.Reverse(p.rdns)
	}
	if err != nil {
		return nil, fmt.Errorf("distinguished name: %w", err)
	}
	return encodeName(p.rdns)
}

type dnParser struct {
	text  string
	pos   int
	count int
	rdns  [][]dnValue
}

// add appends an attribute, to the last RDN if joined by +.
func (p *dnParser) add(v dnValue, joined bool) error {
	if p.count++; p.count > maxDNAttributes {
		return fmt.Errorf("more than %d attributes", maxDNAttributes)
	}
	if !joined {
		p.rdns = append(p.rdns, []dnValue{v})
		return nil
	}
	last := &p.rdns[len(p.rdns)-1]
	if slices.ContainsFunc(*last, func(o dnValue) bool { return o.attr.oid == v.attr.oid }) {
		return fmt.Errorf("%s appears twice in one multi-valued RDN; write a backslash before a + that belongs to a value", v.attr.name())
	}
	*last = append(*last, v)
	return nil
}

// attributeType reads up to the = and past it; stop are the characters that
// end an attribute in this form.
func (p *dnParser) attributeType(stop, hint string) (attribute, error) {
	start := p.pos
	i := strings.IndexAny(p.text[start:], "="+stop)
	if i < 0 || p.text[start+i] != '=' {
		end := len(p.text)
		if i >= 0 {
			end = start + i
		}
		return attribute{}, fmt.Errorf("%.60q at character %d has no =; %s", p.text[start:end], start+1, hint)
	}
	p.pos = start + i + 1
	return attributeNamed(strings.Trim(p.text[start:start+i], " "))
}

// slashForm reads /type=value/type=value+type=value as `openssl req -subj` does.
func (p *dnParser) slashForm() error {
	p.pos++ // the first slash
	joined := false
	for p.pos < len(p.text) {
		attr, err := p.attributeType("/", `write \/ for a slash inside a value`)
		if err != nil {
			return err
		}
		value, end, err := p.slashValue()
		if err != nil {
			return err
		}
		if err := attr.check(value); err != nil {
			return err
		}
		if err := p.add(stringValue(attr, value), joined); err != nil {
			return err
		}
		joined = end == '+'
		if joined && p.pos >= len(p.text) {
			return errors.New("nothing follows the last +")
		}
	}
	return nil
}

// slashValue reads a value and the separator after it (0 at the end).
func (p *dnParser) slashValue() (value string, end byte, err error) {
	var out []byte
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		p.pos++
		switch c {
		case '/', '+':
			return string(out), c, nil
		case '\\':
			rest := p.text[p.pos:]
			if rest == "" {
				return "", 0, errors.New("the last character is a backslash; it must escape something")
			}
			if len(rest) >= 3 && rest[0] == 'x' && isHex(rest[1]) && isHex(rest[2]) {
				octet, _ := hex.DecodeString(rest[1:3])
				out = append(out, octet...)
				p.pos += 3
				continue
			}
			out = append(out, rest[0])
			p.pos++
		default:
			out = append(out, c)
		}
	}
	return string(out), 0, nil
}

// rfc4514 reads type=value[+type=value],... .
func (p *dnParser) rfc4514() error {
	joined := false
	for {
		p.blanks()
		attr, err := p.attributeType(",+", `write \, for a comma inside a value`)
		if err != nil {
			return err
		}
		p.blanks()
		value, err := p.rfc4514Value(attr)
		if err != nil {
			return err
		}
		if err := p.add(value, joined); err != nil {
			return err
		}
		if p.pos == len(p.text) {
			return nil
		}
		joined = p.text[p.pos] == '+'
		p.pos++
	}
}

func (p *dnParser) blanks() {
	for p.pos < len(p.text) && p.text[p.pos] == ' ' {
		p.pos++
	}
}

// rfc4514Value reads a value up to the separator after it, which it leaves.
func (p *dnParser) rfc4514Value(attr attribute) (dnValue, error) {
	if p.pos < len(p.text) && p.text[p.pos] == '#' {
		return p.hexValue(attr)
	}
	var out []byte
	keep := 0 // trailing blanks beyond this length are not escaped and go
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case c == ',' || c == '+':
			return checkedValue(attr, string(out[:keep]))
		case strings.IndexByte(`"<>;`, c) >= 0:
			return dnValue{}, fmt.Errorf("%s: %q at character %d needs a backslash before it", attr.name(), c, p.pos+1)
		case c == '\\':
			octet, n, ok := unescape(p.text[p.pos+1:])
			if !ok {
				return dnValue{}, fmt.Errorf("%s: the backslash at character %d escapes nothing that RFC 4514 lets escape", attr.name(), p.pos+1)
			}
			out = append(out, octet)
			keep = len(out)
			p.pos += 1 + n
			continue
		}
		out = append(out, c)
		if c != ' ' {
			keep = len(out)
		}
		p.pos++
	}
	return checkedValue(attr, string(out[:keep]))
}

// unescape reads what follows a backslash: a special character or two
// hexadecimal digits (RFC 4514, Section 3, pair).
func unescape(rest string) (octet byte, n int, ok bool) {
	switch {
	case rest == "":
		return 0, 0, false
	case strings.IndexByte(`"+,;<>\ #=`, rest[0]) >= 0:
		return rest[0], 1, true
	case len(rest) >= 2 && isHex(rest[0]) && isHex(rest[1]):
		b, _ := hex.DecodeString(rest[:2])
		return b[0], 2, true
	}
	return 0, 0, false
}

// hexValue reads #hex, the DER of the value. Values of string types obey the
// same rules as plain text. A # with nothing after it is itself the value, for
// so OpenSSL prints it.
func (p *dnParser) hexValue(attr attribute) (dnValue, error) {
	text := p.text[p.pos+1:]
	if i := strings.IndexAny(text, ",+"); i >= 0 {
		text = text[:i]
	}
	p.pos += 1 + len(text)
	text = strings.TrimRight(text, " ")
	if text == "" {
		return checkedValue(attr, "#")
	}
	der, err := hex.DecodeString(text)
	if err != nil {
		return dnValue{}, fmt.Errorf("%s: the value after # is not hexadecimal (write \\# for a plain #)", attr.name())
	}
	input := cryptobyte.String(der)
	var value cryptobyte.String
	var tag asn1.Tag
	if !input.ReadAnyASN1(&value, &tag) || !input.Empty() {
		return dnValue{}, fmt.Errorf("%s: the value after # is not one DER element", attr.name())
	}
	plain, isText := ava{tag: tag, value: value}.text()
	switch {
	case attr.short == "" || attr.form == formOther && !isText:
	case !isText:
		return dnValue{}, fmt.Errorf("%s: the value after # is not a string type", attr.name())
	case attr.form == formOther:
		attr.form = formUTF8 // printed as text, so it must be readable as text
		fallthrough
	default:
		if err := attr.check(plain); err != nil {
			return dnValue{}, err
		}
	}
	return dnValue{attr: attr, der: der}, nil
}

func checkedValue(attr attribute, text string) (dnValue, error) {
	if err := attr.check(text); err != nil {
		return dnValue{}, err
	}
	return stringValue(attr, text), nil
}

// stringValue encodes text in the attribute's string type.
func stringValue(attr attribute, text string) dnValue {
	der := appendHeader(nil, byte(attr.tag()), len(text))
	return dnValue{attr: attr, der: append(der, text...)}
}

// encodeName is the RDNSequence. The members of an RDN are a SET OF and sorted
// by their DER (X.690, 11.6).
func encodeName(rdns [][]dnValue) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range rdns {
			members := make([][]byte, 0, len(rdn))
			for _, v := range rdn {
				members = append(members, encodeAVA(b, v))
			}
			slices.SortFunc(members, bytes.Compare)
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(members, nil)) })
		}
	})
	return b.Bytes()
}

// encodeAVA is AttributeTypeAndValue; errors go to b.
func encodeAVA(b *cryptobyte.Builder, v dnValue) []byte {
	oid, err := x509.ParseOID(v.attr.oid)
	if err != nil {
		b.SetError(fmt.Errorf("attribute %s: %w", v.attr.oid, err))
		return nil
	}
	id, err := oid.MarshalBinary()
	if err != nil {
		b.SetError(fmt.Errorf("attribute %s: %w", v.attr.oid, err))
		return nil
	}
	body := appendHeader(nil, byte(asn1.OBJECT_IDENTIFIER), len(id))
	body = append(body, id...)
	body = append(body, v.der...)
	return append(appendHeader(nil, byte(asn1.SEQUENCE), len(body)), body...)
}
