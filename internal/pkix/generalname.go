package pkix

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of what names CRLs.
const (
	MaxDistributionPoints = 32       // in one extension
	MaxGeneralNames       = 64       // in one GeneralNames
	maxRawName            = 64 << 10 // octets of one Name
)

// The tags of GeneralName (RFC 5280, Section 4.2.1.6) that have a meaning here.
const (
	TagDirectoryName = 4
	TagURI           = 6
)

// GeneralName is one GeneralName. Of the nine kinds, directory names and URIs
// are taken apart; the others are only compared.
type GeneralName struct {
	Tag  int    // 0 to 8
	Raw  []byte // the whole element in DER; two names are the same if this is
	URI  string // of TagURI
	Name []byte // of TagDirectoryName: the Name in DER
}

func contextTag(n int) cbasn1.Tag   { return cbasn1.Tag(n).ContextSpecific() }
func contextGroup(n int) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

// readGeneralNames reads the content of GeneralNames: one name at least.
func readGeneralNames(list cryptobyte.String) ([]GeneralName, error) {
	if list.Empty() {
		return nil, errors.New("a list of names is empty")
	}
	var names []GeneralName
	for !list.Empty() {
		if len(names) == MaxGeneralNames {
			return nil, fmt.Errorf("more than %d names in one list", MaxGeneralNames)
		}
		name, err := readGeneralName(&list)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

func readGeneralName(list *cryptobyte.String) (GeneralName, error) {
	var raw cryptobyte.String
	var tag cbasn1.Tag
	if !list.ReadAnyASN1Element(&raw, &tag) {
		return GeneralName{}, errors.New("a GeneralName cannot be read")
	}
	n := GeneralName{Tag: int(tag & 0x1f), Raw: raw}
	structured := n.Tag == 0 || n.Tag == 3 || n.Tag == TagDirectoryName || n.Tag == 5
	if n.Tag > 8 || structured && tag != contextGroup(n.Tag) || !structured && tag != contextTag(n.Tag) {
		return GeneralName{}, fmt.Errorf("there is no GeneralName with the tag %#02x", uint8(tag))
	}
	var content cryptobyte.String
	raw.ReadAnyASN1(&content, &tag)
	switch n.Tag {
	case TagDirectoryName: // a CHOICE is tagged explicitly
		if n.Name = content; !validName(content) {
			return GeneralName{}, errors.New("a directory name cannot be read")
		}
	case TagURI:
		if n.URI = string(content); !isIA5(n.URI) {
			return GeneralName{}, fmt.Errorf("a URI with other characters than ASCII: %.60q", n.URI)
		}
	}
	return n, nil
}

func isIA5(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// httpURL reports whether a URI is one that can be fetched as it stands.
func httpURL(uri string) bool {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || rest == "" || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return false
	}
	return strings.IndexFunc(uri, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// validName reports whether raw is a Name: SEQUENCE OF SET OF attributes. The
// empty name is one.
func validName(raw []byte) bool {
	input := cryptobyte.String(raw)
	var rdns cryptobyte.String
	if len(raw) > maxRawName || !input.ReadASN1(&rdns, cbasn1.SEQUENCE) || !input.Empty() {
		return false
	}
	for !rdns.Empty() {
		var rdn cryptobyte.String
		if !rdns.ReadASN1(&rdn, cbasn1.SET) || !validRDN(rdn) {
			return false
		}
	}
	return true
}

// validRDN reports whether content is that of a RelativeDistinguishedName: one
// attribute at least.
func validRDN(content cryptobyte.String) bool {
	if content.Empty() || len(content) > maxRawName {
		return false
	}
	for !content.Empty() {
		var seq, value cryptobyte.String
		var tag cbasn1.Tag
		if !content.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.SkipASN1(cbasn1.OBJECT_IDENTIFIER) ||
			!seq.ReadAnyASN1(&value, &tag) || !seq.Empty() {
			return false
		}
	}
	return true
}

// AppendRDN is the Name in DER with one more relative distinguished name at
// its end, of which relative is the content: the full name that
// nameRelativeToCRLIssuer stands for (RFC 5280, Section 4.2.1.13). It is nil
// if rawName is no Name.
func AppendRDN(rawName, relative []byte) []byte {
	input := cryptobyte.String(rawName)
	var rdns cryptobyte.String
	if !input.ReadASN1(&rdns, cbasn1.SEQUENCE) || !input.Empty() {
		return nil
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(rdns)
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(relative) })
	})
	return b.BytesOrPanic()
}
