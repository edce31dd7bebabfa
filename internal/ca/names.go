package ca

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxNames bounds the subject alternative names of one certificate.
const maxNames = 100

// altNames are the subject alternative names of a certificate, checked and without doubles.
type altNames struct {
	dns    []string
	emails []string
	ips    []netip.Addr
	uris   []string
}

func (n *altNames) empty() bool { return n.count() == 0 }

func (n *altNames) count() int { return len(n.dns) + len(n.emails) + len(n.ips) + len(n.uris) }

// addDNS adds a host name, in lower case. The left-most label may be a wildcard.
func (n *altNames) addDNS(name string) error {
	name = strings.ToLower(name)
	if !isHostName(strings.TrimPrefix(name, "*.")) {
		return invalid("hosts", "%.80q is no host name: letters, digits and hyphens in labels of up to 63, no dot at the end", name)
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return invalid("hosts", "%s is an address; name it as an IP address, not as a host", name)
	}
	return addName(n, &n.dns, name)
}

func (n *altNames) addIP(addr netip.Addr) error {
	if !addr.IsValid() || addr.Zone() != "" {
		return invalid("hosts", "%.60q is no IP address that a certificate can name", addr.String())
	}
	return addName(n, &n.ips, addr.Unmap())
}

func (n *altNames) addEmail(address string) error {
	local, domain, found := strings.Cut(address, "@")
	if !found || local == "" || !printable(local) || !isHostName(strings.ToLower(domain)) {
		return invalid("hosts", "%.80q is no e-mail address", address)
	}
	return addName(n, &n.emails, address)
}

func (n *altNames) addURI(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || !printable(text) {
		return invalid("hosts", "%.80q is no absolute URI", text)
	}
	return addName(n, &n.uris, text)
}

// addHost adds a common name that is a host name or an address; anything else is left alone.
func (n *altNames) addHost(text string) error {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return n.addIP(addr)
	}
	if isHostName(strings.TrimPrefix(strings.ToLower(text), "*.")) {
		return n.addDNS(text)
	}
	return nil
}

// addName adds a name to its list unless it is there. The bound is checked at each, not at the end: a request may list
// a hundred thousand, and looking for doubles among them takes a minute.
func addName[T comparable](n *altNames, list *[]T, v T) error {
	switch {
	case slices.Contains(*list, v):
	case n.count() == maxNames:
		return invalid("hosts", "there are too many subject alternative names; at most %d fit", maxNames)
	default:
		*list = append(*list, v)
	}
	return nil
}

// extension is subjectAltName: RFC 5280, Section 4.2.1.6: critical when the subject is empty.
func (n *altNames) extension(emptySubject bool) extension {
	add := func(b *cryptobyte.Builder, tag uint8, value []byte) {
		b.AddASN1(cbasn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
	}
	return extension{oid(17), emptySubject, encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, v := range n.dns {
				add(b, 2, []byte(v))
			}
			for _, v := range n.emails {
				add(b, 1, []byte(v))
			}
			for _, v := range n.ips {
				add(b, 7, v.AsSlice())
			}
			for _, v := range n.uris {
				add(b, 6, []byte(v))
			}
		})
	})}
}

// isHostName: RFC 1123, Section 2.1: labels of letters, digits and inner hyphens. The name is in lower case.
func isHostName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

// printable reports whether text is ASCII without blanks and control characters.
func printable(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return false
		}
	}
	return text != ""
}
