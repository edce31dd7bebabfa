package site

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Key is a SHA-256 that stands for a policy: hosts with equal keys treat a client in the same way.
type Key [32]byte

// Policy is the same for two hosts exactly when they ask for client certificates in the same mode, trust the same
// anchors and take the same versions of TLS: a request for the one may then arrive on a connection made for the other
// (else 421, RFC 9110, Section 15.5.20).
func (h *Host) Policy() Key { return h.policy }

// Session is what a session ticket is bound to: the host's name and its [Host.Policy].
func (h *Host) Session() Key { return h.session }

// AsksForCertificate reports whether the handshake asks the client for a certificate.
func (h *Host) AsksForCertificate() bool { return h.Mode != Off }

// Snapshot is the immutable answer to "which host is this". It is safe for concurrent use.
type Snapshot struct {
	hosts    []*Host
	names    map[string][]*Host // by name, "*.example.com" for wildcards
	fallback string
}

// ErrDuplicate is wrapped when two hosts claim one name on one listener.
var ErrDuplicate = errors.New("two hosts of one name on one listener")

// NewSnapshot checks the hosts and makes them a snapshot. fallback, when not empty, is the name of the host for
// clients that send no server name. The hosts must not be changed afterwards.
func NewSnapshot(hosts []*Host, fallback string) (*Snapshot, error) {
	s := &Snapshot{hosts: hosts, names: make(map[string][]*Host), fallback: CanonicalName(fallback)}
	for _, h := range hosts {
		if err := s.add(h); err != nil {
			return nil, err
		}
	}
	if s.fallback != "" && len(s.names[s.fallback]) == 0 {
		return nil, fmt.Errorf("site: default host %q is not one of the hosts", fallback)
	}
	return s, nil
}

func (s *Snapshot) add(h *Host) error {
	switch h.Mode {
	case Off, Request, Require:
	default:
		return fmt.Errorf("site: host %q: client authentication mode %q: use off, request or require", h.Name, h.Mode)
	}
	if h.Certificate == nil {
		return fmt.Errorf("site: host %q has no server certificate", h.Name)
	}
	digest := h.Trust.Digest()
	if h.Mode == Off {
		digest = [32]byte{}
	}
	version := max(h.MinVersion, tls.VersionTLS12)
	h.policy = sha256.Sum256(append([]byte("policy\x00"+string(h.Mode)+"\x00"+tls.VersionName(version)+"\x00"), digest[:]...))
	h.session = sha256.Sum256(append([]byte("session\x00"+CanonicalName(h.Name)+"\x00"), h.policy[:]...))
	for _, name := range append([]string{h.Name}, h.Names...) {
		key := CanonicalName(name)
		if key == "" {
			return fmt.Errorf("site: host %q: %q is no host name", h.Name, name)
		}
		for _, other := range s.names[key] {
			if overlap(other.Listeners, h.Listeners) {
				return fmt.Errorf("site: %q: %w; bind them to different listeners", key, ErrDuplicate)
			}
		}
		s.names[key] = append(s.names[key], h)
	}
	return nil
}

func overlap(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	return slices.ContainsFunc(a, func(l string) bool { return slices.Contains(b, l) })
}

// Hosts returns every host; the slice must not be changed.
func (s *Snapshot) Hosts() []*Host { return s.hosts }

// Host returns the host that serves name on a listener, nil when there is none. The name may be in any case, end in a
// dot or be an IP literal in brackets; an exact name wins over a wildcard, which stands for exactly one label.
// The empty name is the default host's, if one is set.
func (s *Snapshot) Host(listener, name string) *Host {
	key := CanonicalName(name)
	if name == "" {
		key = s.fallback
	}
	if key == "" {
		return nil
	}
	if h := s.on(listener, key); h != nil {
		return h
	}
	if _, parent, ok := strings.Cut(key, "."); ok {
		return s.on(listener, "*."+parent)
	}
	return nil
}

func (s *Snapshot) on(listener, key string) *Host {
	for _, h := range s.names[key] {
		if len(h.Listeners) == 0 || slices.Contains(h.Listeners, listener) {
			return h
		}
	}
	return nil
}

// CanonicalName is the form under which host names are compared: lower case, without one trailing dot, without the
// brackets of an IPv6 literal, addresses in their shortest form. A name with a port, a slash or a space gives "".
func CanonicalName(name string) string {
	name = strings.TrimSuffix(name, ".")
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		if name = name[1 : len(name)-1]; strings.IndexByte(name, ':') < 0 {
			return "" // brackets are for IPv6 literals alone (RFC 3986, Section 3.2.2)
		}
	}
	if strings.IndexByte(name, ':') >= 0 {
		addr, err := netip.ParseAddr(name)
		if err != nil || addr.Zone() != "" {
			return ""
		}
		return addr.String()
	}
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7f || c == '/' || c == '@' || c == '\\' {
			return ""
		}
	}
	return strings.ToLower(name)
}
