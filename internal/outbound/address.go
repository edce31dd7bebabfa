package outbound

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// unmapPrefixes writes prefixes of IPv4-mapped IPv6 addresses as IPv4 ones, as
// addresses are before they are judged.
func unmapPrefixes(list []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		out = append(out, p.Masked())
	}
	return out
}

// forbidden are the addresses that a certificate may not name, with what they are.
func forbidden() []struct {
	prefix netip.Prefix
	what   string
} {
	return []struct {
		prefix netip.Prefix
		what   string
	}{
		{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"}, // Linux takes 0.0.0.0 for this machine
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("::1/128"), "loopback"},
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local"}, // 169.254.169.254 is the metadata service of most clouds
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("fd00:ec2::254/128"), "a cloud's metadata service"},  // Amazon
		{netip.MustParsePrefix("fd20:ce::254/128"), "a cloud's metadata service"},   // Google
		{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's metadata service"},   // Azure
		{netip.MustParsePrefix("100.100.100.200/32"), "a cloud's metadata service"}, // Alibaba
		{netip.MustParsePrefix("192.0.0.192/32"), "a cloud's metadata service"},     // Oracle
		{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},                          // RFC 1112, Section 4
		{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"},                    // RFC 8215: where the IPv4 address is in it is not known
	}
}

// leadsTo is the address and the IPv4 addresses in it that a packet to it may
// end up at.
func leadsTo(addr netip.Addr) []netip.Addr {
	addr = addr.WithZone("").Unmap() // Prefix.Contains is false for whatever has a zone
	all := []netip.Addr{addr}
	if addr.Is4() {
		return all
	}
	b := addr.As16()
	last := netip.AddrFrom4([4]byte(b[12:]))
	in := func(prefix string) bool { return netip.MustParsePrefix(prefix).Contains(addr) }
	switch {
	case addr.IsUnspecified(), addr.IsLoopback():
		return all
	case in("::/96"): // IPv4-compatible: RFC 4291, Section 2.5.5.1
		return append(all, last)
	case in("64:ff9b::/96"): // NAT64: RFC 6052, Section 2.1
		return append(all, last)
	case in("2002::/16"): // 6to4: RFC 3056, Section 2
		return append(all, netip.AddrFrom4([4]byte(b[2:])))
	case in("2001::/32"): // Teredo: RFC 4380, Section 4; server, and client with its bits turned over
		client := [4]byte(b[12:])
		for i := range client {
			client[i] ^= 0xff
		}
		return append(all, netip.AddrFrom4([4]byte(b[4:])), netip.AddrFrom4(client))
	case in("::ffff:0:0:0/96"): // IPv4-translated: RFC 7915, Section 2.1 (RFC 2765)
		return append(all, last)
	}
	return all
}

// judge reports why an address may not be dialled for a request of this trust.
func (c *Client) judge(addr netip.AddrPort, origin Trust) error {
	refuse := func(what string) error { return fmt.Errorf("%w: %s is %s", ErrAddress, addr, what) }
	contains := func(a netip.Addr) func(netip.Prefix) bool {
		return func(p netip.Prefix) bool { return p.Contains(a) }
	}
	forms := leadsTo(addr.Addr())
	for _, a := range forms {
		if slices.ContainsFunc(c.config.Deny, contains(a)) {
			return refuse("denied by the configuration")
		}
	}
	for _, a := range forms {
		switch {
		case c.isSelf(netip.AddrPortFrom(a, addr.Port())): // even where Allow has the address: it is meant for other servers there
			return refuse("our own listener")
		case slices.ContainsFunc(c.config.Allow, contains(a)):
			continue
		case a.IsUnspecified():
			return refuse("unspecified")
		case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return refuse("multicast or broadcast")
		case origin == FromOperator:
			continue
		}
		for _, f := range forbidden() {
			if f.prefix.Contains(a) {
				return refuse(f.what)
			}
		}
	}
	return nil
}

// isSelf reports whether one of our own listeners would answer.
func (c *Client) isSelf(addr netip.AddrPort) bool {
	if c.config.Self == nil {
		return false
	}
	for _, own := range c.config.Self() {
		a := own.Addr().WithZone("").Unmap()
		switch {
		case own.Port() != addr.Port():
		case a == addr.Addr(), a.IsUnspecified() && isLocal(addr.Addr()):
			return true
		}
	}
	return false
}

// isLocal reports whether an address is this machine's. Where its addresses
// cannot be had, every one may be.
func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		p, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		b, ok := netip.AddrFromSlice(p.IP)
		return ok && b.Unmap() == addr
	})
}
