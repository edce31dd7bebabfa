package admin

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	firstByteTimeout = 10 * time.Second
	maxWaiting       = 1024 // connections that have not sent their first byte
)

// CheckAddress refuses an address for the API that would carry credentials in clear over a network: without TLS only
// loopback is possible. addr is host:port; an empty host means every address.
func CheckAddress(addr string, withTLS bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("admin: address %q: %w", addr, err)
	}
	if withTLS || isLoopback(host) {
		return nil
	}
	return fmt.Errorf("admin: address %q is not on loopback and has no TLS: credentials would travel in clear; "+
		"use 127.0.0.1, or give the listener a certificate", addr)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Listener returns a listener whose connections speak what the API may be called by at its address: TLS anywhere,
// and on loopback plain HTTP too, on one port: a first byte of 0x16 begins a TLS record. tlsConfig may be nil on
// loopback only; elsewhere Accept returns an error then. Accept never waits for a client's first byte. Close closes
// ln and every connection that Accept has not returned, and waits for the goroutines of this listener.
func Listener(ln net.Listener, tlsConfig *tls.Config) net.Listener {
	host, _, err := net.SplitHostPort(ln.Addr().String())
	loopback := err == nil && isLoopback(host)
	if tlsConfig != nil {
		tlsConfig = tlsConfig.Clone()
		if len(tlsConfig.NextProtos) == 0 {
			tlsConfig.NextProtos = []string{"h2", "http/1.1"}
		}
	}
	switch {
	case !loopback && tlsConfig == nil:
		return refusing{ln}
	case !loopback:
		return tls.NewListener(ln, tlsConfig)
	case tlsConfig == nil:
		return ln
	}
	return &dual{Listener: ln, tls: tlsConfig, ready: make(chan net.Conn), done: make(chan struct{}), waiting: make(map[net.Conn]bool)}
}

// refusing is a listener that may not be used: beyond loopback and without TLS.
type refusing struct{ net.Listener }

func (r refusing) Accept() (net.Conn, error) {
	return nil, CheckAddress(r.Addr().String(), false)
}

// dual answers TLS and plain HTTP on one port.
type dual struct {
	net.Listener
	tls   *tls.Config
	ready chan net.Conn // sorted connections, to Accept
	done  chan struct{} // closed when the listener is
	tasks sync.WaitGroup

	started, stopped sync.Once

	mu      sync.Mutex
	waiting map[net.Conn]bool // connections whose first byte is awaited
	err     error             // why the inner listener ended
}

// Accept returns the next connection that has begun to speak. The first call starts the goroutine that takes them from
// the inner listener.
func (d *dual) Accept() (net.Conn, error) {
	d.started.Do(func() {
		d.mu.Lock() // stop holds it, too: nothing starts once Close waits
		defer d.mu.Unlock()
		select {
		case <-d.done:
		default:
			d.tasks.Go(d.accept)
		}
	})
	select {
	case conn := <-d.ready:
		return conn, nil
	case <-d.done:
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.err != nil {
			return nil, d.err
		}
		return nil, net.ErrClosed
	}
}

// Close ends Accept, closes what waits and returns when no goroutine is left.
func (d *dual) Close() error {
	d.stop(nil)
	err := d.Listener.Close()
	d.tasks.Wait()
	return err
}

func (d *dual) stop(err error) {
	d.stopped.Do(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.err = err
		close(d.done)
		for conn := range d.waiting {
			_ = conn.Close()
		}
	})
}

func (d *dual) accept() {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			if tooMany(err) { // out of descriptors: net/http would wait as well
				select {
				case <-time.After(50 * time.Millisecond):
					continue
				case <-d.done:
				}
			}
			d.stop(err)
			return
		}
		if !d.admit(conn) {
			_ = conn.Close()
			continue
		}
		d.tasks.Go(func() { d.sort(conn) })
	}
}

// tooMany reports whether an Accept failed for a reason that passes.
func tooMany(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	passing, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && passing.Temporary()
}

func (d *dual) admit(conn net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.done:
		return false
	default:
	}
	if len(d.waiting) >= maxWaiting {
		return false
	}
	d.waiting[conn] = true
	return true
}

// sort waits for the first byte of a connection and hands it to Accept as what it is.
func (d *dual) sort(conn net.Conn) {
	first := make([]byte, 1)
	err := conn.SetReadDeadline(time.Now().Add(firstByteTimeout))
	if err == nil {
		_, err = conn.Read(first)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	d.mu.Lock()
	delete(d.waiting, conn)
	d.mu.Unlock()
	if err != nil {
		_ = conn.Close()
		return
	}
	var sorted net.Conn = &begun{Conn: conn, first: first}
	if first[0] == 0x16 { // RFC 8446, Section 5.1: ContentType handshake
		sorted = tls.Server(sorted, d.tls)
	}
	select {
	case d.ready <- sorted:
	case <-d.done:
		_ = conn.Close()
	}
}

// begun is a connection whose first byte was read already.
type begun struct {
	net.Conn
	first []byte // nil once it was given back; reads of one connection do not overlap
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 && len(p) > 0 {
		n := copy(p, b.first)
		b.first = nil
		return n, nil
	}
	return b.Conn.Read(p)
}
