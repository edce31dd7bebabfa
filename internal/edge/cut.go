package edge

import (
	"context"
	"net/http"
	"sync"
	"time"

	"sekisho/internal/pkix"
)

// How long a cut waits for politeness before it closes.
const (
	goawayPatience   = 25 * time.Millisecond // until a GOAWAY is written
	closerPatience   = 5 * time.Millisecond  // until WebSocket close frames are written
	farewellPatience = 25 * time.Millisecond // until a WebSocket client has closed
	alertPatience    = 20 * time.Millisecond // until close_notify is written
)

// maxUnsent is how much a client may still receive of a cut connection that is closed and not reset.
const maxUnsent = 64 << 10

// Cut ends every live connection that has one of the certificates in its path, and returns how many those were. The
// revocation index must already say revoked, so that a handshake that is under way sees it. Cut returns when nothing
// passes through the connections any more, which takes milliseconds however slow the clients are; WebSocket clients may
// still be answering the good-bye.
func (s *Server) Cut(ids ...pkix.CertID) int {
	seen := make(map[*conn]bool)
	for _, id := range ids {
		for _, c := range s.live.of(id) {
			seen[c] = true
		}
	}
	conns := make([]*conn, 0, len(seen))
	for c := range seen {
		conns = append(conns, c)
	}
	return cutAll(conns, func(int) string { return "revoked" })
}

// SnapshotChanged judges the live connections again after a new snapshot was published, and cuts those whose host is
// gone, whose CA the host trusts no more, that do not have what their host now requires, or that carry a request to
// another host, which is gone or treats its clients in another way now. It returns how many.
func (s *Server) SnapshotChanged() int {
	s.hosts.keep(s.cfg.Snapshot())
	now := s.cfg.Now()
	var doomed []*conn
	var reasons []string
	for _, c := range s.live.all() {
		standing := c.check(now)
		reason, ok := standing.welcome()
		if ok {
			var stray bool
			reason, stray = c.strays(standing)
			ok = !stray
		}
		if !ok {
			doomed, reasons = append(doomed, c), append(reasons, reason)
		}
	}
	return cutAll(doomed, func(i int) string { return reasons[i] })
}

// expire cuts the connections whose path's validity has ended.
func (s *Server) expire(now time.Time) int {
	return cutAll(s.live.expiry.take(now), func(int) string { return "expired" })
}

// cutAll cuts each on a goroutine of its own, since each may wait for its client for some milliseconds, and waits.
func cutAll(conns []*conn, reason func(i int) string) int {
	if len(conns) == 0 {
		return 0
	}
	var work sync.WaitGroup
	for i, c := range conns {
		work.Go(func() { c.cutNow(reason(i)) })
	}
	work.Wait()
	return len(conns)
}

// cutNow ends the connection: WebSocket streams by a close frame, HTTP/2 by a GOAWAY, and then by closing, or, when a
// request is in flight, by a reset, so that no more than what the kernel has already sent arrives. The contexts of its
// requests are cancelled, and with them the requests to the upstream. Only the first call does anything; others wait
// until it has done so.
func (c *conn) cutNow(reason string) {
	if !c.cut.CompareAndSwap(false, true) {
		<-c.link.closed
		return
	}
	defer close(c.link.closed)
	c.server.counters.cut.add(reason)
	if c.closers.run(&c.server.work, reason, closerPatience) {
		c.server.work.Go(func() {
			c.awaitEnd()
			c.hangUp()
		})
		return
	}
	c.hangUp()
}

// hangUp ends the connection below the streams that say good-bye themselves.
func (c *conn) hangUp() {
	inflight := c.inflight.Load() > 0
	if c.link.http2 {
		c.sayGoaway()
		inflight = inflight || c.inflight.Load() > 0
	}
	// Bytes that a slow client has yet to take are of an answer, complete or not; a GOAWAY and an alert are few.
	if inflight || unsent(c.raw) > maxUnsent {
		c.reset()
	} else {
		c.closeGently()
	}
	c.link.cancel()
}

// sayGoaway makes net/http write a GOAWAY to this connection, and waits for it a little.
func (c *conn) sayGoaway() {
	c.shutdown()
	timer := time.NewTimer(goawayPatience)
	defer timer.Stop()
	select {
	case <-c.link.goaway:
	case <-timer.C:
	}
}

// awaitEnd gives the client of a hijacked stream a moment to read the good-bye: closing a socket that holds unread
// bytes would reset it.
func (c *conn) awaitEnd() {
	timer := time.NewTimer(farewellPatience)
	defer timer.Stop()
	select {
	case <-c.link.ended:
	case <-timer.C:
	}
}

// shutdown tells the connection's http.Server to take no further request: an idle HTTP/1.1 connection is closed, a
// busy one after its answer, HTTP/2 gets a GOAWAY. It does not wait.
//
//nolint:contextcheck,nolintlint // the context is only there to have ended; the first is said of callers
func (c *conn) shutdown() {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.link.http.Shutdown(gone) // the error is the cancelled context
}

// reset closes the socket under TLS and HTTP so that the kernel drops what it has not sent (SO_LINGER 0).
func (c *conn) reset() {
	if lingerer, ok := c.raw.(interface{ SetLinger(int) error }); ok {
		_ = lingerer.SetLinger(0) // a socket that is closed already needs none
	}
	_ = c.raw.Close() // likewise
}

// closeGently sends close_notify and closes; a client that does not even take that is reset.
func (c *conn) closeGently() {
	timer := time.AfterFunc(alertPatience, c.reset)
	defer timer.Stop()
	_ = c.tls.Close() // the connection is over in any case
}

// idle reports whether no request is being read or served on an HTTP/1.1 connection.
func (c *conn) idle() bool {
	phase := http.ConnState(c.link.phase.Load())
	return !c.link.http2 && !c.link.hijacked.Load() && (phase == http.StateNew || phase == http.StateIdle)
}
