package edge

import (
	"net"
	"net/netip"
	"sync"
)

// gate counts connections and handshakes in progress, and refuses those over a limit before they cost anything.
type gate struct {
	maxConnections int
	perAddress     int

	mu        sync.Mutex
	total     int // connections, handshakes included
	pending   map[net.Conn]netip.Addr
	byAddress map[netip.Addr]int // handshakes in progress
}

func newGate(l Limits) *gate {
	return &gate{
		maxConnections: l.MaxConnections, perAddress: l.HandshakesPerIP,
		pending: make(map[net.Conn]netip.Addr), byAddress: make(map[netip.Addr]int),
	}
}

// enter counts a connection in, or names the limit that is reached. Each success needs one proved and one leave.
func (g *gate) enter(raw net.Conn, addr netip.Addr) (limit string) {
	addr = network(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.total >= g.maxConnections:
		return "connections"
	case g.byAddress[addr] >= g.perAddress:
		return "address"
	}
	g.total++
	g.byAddress[addr]++
	g.pending[raw] = addr
	return ""
}

// proved ends the counting of a handshake, whatever came of it.
func (g *gate) proved(raw net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	addr, ok := g.pending[raw]
	if !ok {
		return
	}
	delete(g.pending, raw)
	if g.byAddress[addr]--; g.byAddress[addr] == 0 {
		delete(g.byAddress, addr)
	}
}

// leave counts a connection out.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
}

// count is how many connections there are, handshakes included.
func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total
}

// abort closes every connection whose handshake is not complete.
func (g *gate) abort() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for raw := range g.pending {
		_ = raw.Close() // its goroutine reports
	}
}

// network is what counts as one client: an IPv4 address, or an IPv6 /64, which one subscriber has whole.
func network(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

// addressOf is a peer's address, the zero Addr when it has no IP address (a Unix socket).
func addressOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
