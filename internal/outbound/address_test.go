package outbound

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// TestInvariant13AddressPolicy: who named an address decides what it may be.
func TestInvariant13AddressPolicy(t *testing.T) {
	plain := New(Config{})
	for _, tt := range []struct {
		addr                  string
		certificate, operator bool
	}{
		{"192.0.2.1", true, true},
		{"2001:db8::1", true, true},
		{"10.1.2.3", true, true}, // RFC 1918
		{"172.16.0.1", true, true},
		{"192.168.1.1", true, true},
		{"fd12:3456::1", true, true}, // RFC 4193
		{"100.64.0.1", true, true},
		{"::ffff:192.0.2.1", true, true},
		{"64:ff9b::192.0.2.1", true, true},
		{"2002:c000:0201::1", true, true},
		{"127.0.0.1", false, true},
		{"127.255.255.254", false, true},
		{"::1", false, true},
		{"::ffff:127.0.0.1", false, true},
		{"::127.0.0.1", false, true},
		{"::ffff:0:127.0.0.1", false, true},
		{"64:ff9b::127.0.0.1", false, true},
		{"64:ff9b:1::192.0.2.1", false, true},
		{"2002:7f00:1::1", false, true},
		{"2001:0:7f00:1:0:0:3fff:fdfe", false, true},   // Teredo server
		{"2001:0:c000:201:0:0:80ff:fffe", false, true}, // Teredo client 127.0.0.1
		{"2001:0:c000:201:0:0:3fff:fdfe", true, true},  // 192.0.2.1
		{"169.254.0.1", false, true},
		{"169.254.169.254", false, true},
		{"::ffff:169.254.169.254", false, true},
		{"64:ff9b::169.254.169.254", false, true},
		{"2002:a9fe:a9fe::", false, true},
		{"fe80::1", false, true},
		{"fe80::1%eth0", false, true},
		{"febf::1", false, true},
		{"fd00:ec2::254", false, true},
		{"fd20:ce::254", false, true},
		{"168.63.129.16", false, true},
		{"100.100.100.200", false, true},
		{"192.0.0.192", false, true},
		{"240.0.0.1", false, true},
		{"0.1.2.3", false, true},
		{"0.0.0.0", false, false},
		{"::", false, false},
		{"::ffff:0.0.0.0", false, false},
		{"64:ff9b::0.0.0.0", false, false},
		{"224.0.0.1", false, false},
		{"239.255.255.250", false, false},
		{"ff02::1", false, false},
		{"2002:e000:1::", false, false},
		{"255.255.255.255", false, false},
		{"64:ff9b::255.255.255.255", false, false},
	} {
		for origin, ok := range map[Trust]bool{FromCertificate: tt.certificate, FromOperator: tt.operator} {
			err := plain.judge(netip.AddrPortFrom(netip.MustParseAddr(tt.addr), 80), origin)
			if (err == nil) != ok || err != nil && !errors.Is(err, ErrAddress) {
				t.Errorf("%s, origin %d: %v", tt.addr, origin, err)
			}
		}
	}
}

func TestAddressAllowDeny(t *testing.T) {
	c := New(Config{
		Allow: prefixes("127.0.0.0/8", "::1/128", "10.0.0.0/24", "::ffff:169.254.0.0/112"),
		Deny:  prefixes("10.0.0.0/8", "::ffff:192.168.0.0/112", "127.0.0.9/32", "2001:db8::/32"),
	})
	for addr, ok := range map[string]bool{
		"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "64:ff9b::127.0.0.1": true, "169.254.1.1": true,
		"127.0.0.9": false, "10.0.0.1": false, "10.1.0.1": false, "::ffff:10.1.0.1": false, "64:ff9b::10.1.0.1": false,
		"192.168.1.1": false, "192.169.0.1": true, "2001:db8::1": false, "2001:db8::1%eth0": false,
	} {
		for _, origin := range []Trust{FromCertificate, FromOperator} {
			if err := c.judge(netip.AddrPortFrom(netip.MustParseAddr(addr), 80), origin); (err == nil) != ok {
				t.Errorf("%s, origin %d: %v", addr, origin, err)
			}
		}
	}
}

func TestAddressSelf(t *testing.T) {
	own := []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:443"), netip.MustParseAddrPort("[::ffff:192.0.2.2]:443"), netip.MustParseAddrPort("[::]:8443"),
	}
	self := func() []netip.AddrPort { return own }
	c := New(Config{Self: self})
	cases := map[string]bool{
		"192.0.2.1:443": false, "[::ffff:192.0.2.1]:443": false, "[64:ff9b::192.0.2.1]:443": false, "192.0.2.2:443": false,
		"192.0.2.1:80": true, "192.0.2.3:443": true, "192.0.2.1:8443": true, "127.0.0.1:8443": false, "[::1]:8443": false, "127.0.0.1:80": true,
	}
	for _, a := range localAddrs(t) {
		cases[netip.AddrPortFrom(a, 8443).String()] = false
		cases[netip.AddrPortFrom(a, 8444).String()] = true
	}
	for addr, ok := range cases {
		if err := c.judge(netip.MustParseAddrPort(addr), FromOperator); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
	allowed := New(Config{Self: self, Allow: prefixes("192.0.2.1/32")})
	if err := allowed.judge(own[0], FromCertificate); err == nil {
		t.Error("our own listener is reached because its address is allowed")
	}
	if err := allowed.judge(netip.MustParseAddrPort("192.0.2.1:80"), FromCertificate); err != nil {
		t.Errorf("another server at an allowed address: %v", err)
	}
}

// localAddrs are this machine's addresses that are not loopback ones.
func localAddrs(t *testing.T) []netip.Addr {
	t.Helper()
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		if p, ok := a.(*net.IPNet); ok {
			if b, ok := netip.AddrFromSlice(p.IP); ok && !b.Unmap().IsLoopback() {
				addrs = append(addrs, b.Unmap())
			}
		}
	}
	return addrs
}

// FuzzJudge: whatever a certificate may name, the operator may, and Deny holds for both.
func FuzzJudge(f *testing.F) {
	for _, text := range []string{"127.0.0.1", "::1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fe80::1"} {
		b := netip.MustParseAddr(text).As16()
		f.Add(b[:])
	}
	c := New(Config{})
	denied := New(Config{Deny: prefixes("0.0.0.0/0")})
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		ap := netip.AddrPortFrom(addr, 443)
		if c.judge(ap, FromCertificate) == nil && c.judge(ap, FromOperator) != nil {
			t.Errorf("%s: a certificate may, the operator may not", addr)
		}
		for _, a := range leadsTo(addr) {
			if a.IsLoopback() && c.judge(ap, FromCertificate) == nil {
				t.Errorf("%s leads to %s", addr, a)
			}
			if a.Is4() && denied.judge(ap, FromOperator) == nil {
				t.Errorf("%s leads to %s, which is denied", addr, a)
			}
		}
	})
}
