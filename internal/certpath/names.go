package certpath

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
)

// errAltNames is for a subjectAltName that crypto/x509 took and that cannot be read all the same.
var errAltNames = errors.New("its subject alternative names cannot be read")

// name is a name of a certificate that constraints may concern.
type name struct {
	form    int
	value   string
	local   string // of a mailbox, without quotes
	host    string // of a DNS name, mailbox or URI; without a final dot
	unclear string // why it cannot be compared; "" when it can
	mailbox bool   // an otherName that constraints of e-mail addresses bind too (RFC 9598, Section 6)
}

// namesOf are the names of a certificate: the subject unless it is empty, the subject alternative names, and the
// e-mail addresses in the subject when there are none of these (RFC 5280, Section 4.2.1.10).
func namesOf(c *x509.Certificate, san []byte) ([]name, error) {
	var names []name
	if len(c.RawSubject) > 2 {
		names = append(names, name{form: formDirectory, value: string(c.RawSubject)})
	}
	if san == nil {
		for _, address := range subjectAddresses(c.RawSubject) {
			names = append(names, newName(formEmail, address))
		}
		return names, nil
	}
	return appendAltNames(names, san)
}

// appendAltNames reads a subjectAltName extension.
func appendAltNames(names []name, san []byte) ([]name, error) {
	input := cryptobyte.String(san)
	var list cryptobyte.String
	if !input.ReadASN1(&list, asn1.SEQUENCE) || !input.Empty() {
		return nil, errAltNames
	}
	for !list.Empty() {
		form, value, ok := readGeneralName(&list)
		if !ok {
			return nil, errAltNames
		}
		names = append(names, newName(form, value))
	}
	return names, nil
}

// newName takes a name apart.
func newName(form int, value []byte) name {
	n := name{form: form, value: string(value)}
	switch form {
	case formDNS:
		n.host = strings.TrimSuffix(n.value, ".")
		if !validDomain(n.host, true) {
			n.unclear = "it is no domain name"
		}
	case formEmail:
		var ok bool
		if n.local, n.host, ok = cutMailbox(n.value); !ok || !validDomain(n.host, false) {
			n.unclear = "it is no mailbox at a domain"
		}
	case formURI:
		if n.host = hostOfURI(n.value); !validDomain(n.host, false) || isAddress(n.host) {
			n.unclear = "it has no host with a domain name" // RFC 5280, Section 4.2.1.10: such a certificate is rejected
		}
	case formIP:
		if len(value) != 4 && len(value) != 16 {
			n.unclear = "it is no IP address"
		}
	case formOther:
		n.unclear = "names of this form cannot be compared"
		n.mailbox = isSmtpUTF8Mailbox(value)
	case formDirectory:
	default:
		n.unclear = "names of this form cannot be compared"
	}
	return n
}

// String says what kind of name it is and, shortened, which.
func (n *name) String() string {
	text := n.value
	switch n.form {
	case formDirectory:
		text = "directory name " + pkix.DNString([]byte(n.value))
	case formIP:
		addr, _ := netip.AddrFromSlice([]byte(n.value))
		text = "IP address " + addr.String()
	case formDNS:
		text = "DNS name " + text
	case formEmail:
		text = "e-mail address " + text
	case formURI:
		text = "URI " + text
	default:
		text = "name " + hex.EncodeToString([]byte(n.value))
	}
	return text[:min(len(text), 200)]
}

// within reports whether the name is in the subtree.
func (n *name) within(base string) bool {
	switch n.form {
	case formDirectory:
		return pkix.WithinName([]byte(base), []byte(n.value))
	case formDNS:
		return withinDomain(base, n.host)
	case formURI:
		return atHost(base, n.host)
	case formEmail:
		if local, host, full := cutMailbox(base); full {
			return local == n.local && strings.EqualFold(host, n.host) // RFC 5280, Section 7.5: only the host's case does not count
		}
		return atHost(base, n.host)
	case formIP:
		return withinNetwork(base, n.value)
	}
	return false
}

// overlaps reports whether a wildcard DNS name covers names of the subtree without being in it: "*.example.com" stands
// for a.example.com, so a CA that must not name a.example.com must not issue it.
func (n *name) overlaps(base string) bool {
	rest, wild := strings.CutPrefix(n.host, "*.")
	if n.form != formDNS || !wild {
		return false
	}
	_, parent, ok := strings.Cut(base, ".")
	return ok && base[0] != '.' && strings.EqualFold(parent, rest)
}

// withinDomain reports whether host is base with labels added on the left. A base that begins with a dot wants at least
// one more label, as everybody reads it, though the RFC knows that for URIs and e-mail only.
func withinDomain(base, host string) bool {
	if base == "" {
		return true
	}
	if len(host) <= len(base) {
		return len(host) == len(base) && base[0] != '.' && strings.EqualFold(base, host)
	}
	cut := len(host) - len(base)
	return strings.EqualFold(host[cut:], base) && (base[0] == '.' || host[cut-1] == '.')
}

// atHost reports whether host is the base, or below it where the base begins with a dot.
func atHost(base, host string) bool {
	return strings.EqualFold(base, host) || base == "" || base[0] == '.' && withinDomain(base, host)
}

// withinNetwork reports whether an address is in the network, which is as many octets of address and then of mask.
func withinNetwork(network, addr string) bool {
	if len(network) != 2*len(addr) {
		return false
	}
	for i := range len(addr) {
		if (network[i]^addr[i])&network[len(addr)+i] != 0 {
			return false
		}
	}
	return true
}

// validDomainBase reports whether text can be the base of a subtree of domains.
func validDomainBase(text string) bool {
	return text == "" || validDomain(strings.TrimPrefix(text, "."), false)
}

// validDomain reports whether text is a domain name in letters, digits, hyphens and underscores; wildcard allows the
// label "*" at its start.
func validDomain(text string, wildcard bool) bool {
	if wildcard {
		text = strings.TrimPrefix(text, "*.")
	}
	if text == "" || len(text) > 253 {
		return false
	}
	label := 0
	for i := range len(text) {
		switch b := text[i]; {
		case b == '.':
			if label == 0 {
				return false
			}
			label = 0
			continue
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '-', b == '_':
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return label > 0
}

// cutMailbox cuts an address at its last "@". The local part loses its quotes and backslashes (RFC 5321, Section
// 4.1.2); ok is false where it has neither form.
func cutMailbox(address string) (local, host string, ok bool) {
	at := strings.LastIndexByte(address, '@')
	if at < 1 {
		return "", "", false
	}
	local, host = address[:at], address[at+1:]
	if local[0] != '"' {
		return local, host, !strings.ContainsAny(local, "\x00 \"(),:;<>@[\\]")
	}
	var b strings.Builder
	for i := 1; i < len(local); i++ {
		switch local[i] {
		case '"':
			return b.String(), host, i == len(local)-1 && i > 1
		case '\\':
			if i++; i == len(local) {
				return "", "", false
			}
		}
		b.WriteByte(local[i])
	}
	return "", "", false
}

// hostOfURI is the host in the authority of a URI (RFC 3986, Section 3.2), "" without one.
func hostOfURI(uri string) string {
	_, rest, ok := strings.Cut(uri, "://")
	if !ok || strings.ContainsAny(uri[:len(uri)-len(rest)-len("://")], "/?#") {
		return ""
	}
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	if strings.ContainsAny(rest, "\\ \"<>^`{|}") { // not in a URI; others read on past a backslash
		return ""
	}
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if colon := strings.LastIndexByte(rest, ':'); colon >= 0 && !strings.HasSuffix(rest, "]") {
		rest = rest[:colon]
	}
	return strings.TrimSuffix(rest, ".")
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// isSmtpUTF8Mailbox reports whether the content of an otherName is an id-on-SmtpUTF8Mailbox, 1.3.6.1.5.5.7.8.9.
func isSmtpUTF8Mailbox(content []byte) bool {
	input := cryptobyte.String(content)
	var oid cryptobyte.String
	return input.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) && string(oid) == "\x2b\x06\x01\x05\x05\x07\x08\x09"
}

// subjectAddresses are the values of the emailAddress attributes (1.2.840.113549.1.9.1) of a Name.
func subjectAddresses(rawName []byte) [][]byte {
	input := cryptobyte.String(rawName)
	var list cryptobyte.String
	if !input.ReadASN1(&list, asn1.SEQUENCE) {
		return nil
	}
	var addresses [][]byte
	for !list.Empty() {
		var rdn cryptobyte.String
		if !list.ReadASN1(&rdn, asn1.SET) {
			return addresses
		}
		for !rdn.Empty() {
			var seq, oid, value cryptobyte.String
			var tag asn1.Tag
			if !rdn.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || !seq.ReadAnyASN1(&value, &tag) {
				return addresses
			}
			if string(oid) == "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01" {
				addresses = append(addresses, value)
			}
		}
	}
	return addresses
}
