package edge

import (
	"context"
	"net/http"
	"sync"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/pkix"
	"sekisho/internal/site"
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
	return s.judgeAll(s.live.all(), func(c *conn, st *standing) (string, bool) {
		if reason, ok := st.welcome(); !ok {
			return reason, true
		}
		return c.strays(st)
	})
}

// RevocationChanged judges the live connections again that have a certificate of one of the issuers in their path (nil:
// of any), after a source of revocation changed, and cuts those that were let in and are revoked now, or whose host
// requires an answer that there is no more. It returns how many. Connections about which a source is to be asked first
// are cut, where they must be, when it has answered.
func (s *Server) RevocationChanged(issuers []pkix.KeyID) int {
	var conns []*conn
	for _, c := range s.live.all() {
		if s.live.concerns(c, issuers) {
			conns = append(conns, c)
		}
	}
	return s.judgeAll(conns, (*conn).lapsed)
}

// lapsed reports a connection whose client was let in by its certificate, and must not be any more.
func (c *conn) lapsed(st *standing) (reason string, yes bool) {
	if reason, ok := st.welcome(); !ok {
		return reason, true
	}
	reason = string(st.identity.Reason())
	switch {
	case !c.welcomed.Load() || st.identity.Verified() || !st.host.AsksForCertificate():
		return "", false
	case st.identity.Reason() == identity.Revoked, st.identity.Reason() == identity.Expired:
		return reason, true
	}
	return reason, st.host.Mode == site.Require
}

// maxResolving is how many connections are asked about at once after a change.
const maxResolving = 32

// judgeAll judges connections and cuts the doomed. Those that wait for a source are judged again, and cut by lapsed, in
// the background once the source was asked.
func (s *Server) judgeAll(conns []*conn, doomed func(*conn, *standing) (string, bool)) int {
	now := s.cfg.Now()
	var cut, waiting []*conn
	var reasons []string
	for _, c := range conns {
		st := c.check(now)
		if st.identity.Reason() == identity.RevocationPending {
			waiting = append(waiting, c)
		}
		if reason, yes := doomed(c, st); yes && reason != string(identity.RevocationPending) {
			cut, reasons = append(cut, c), append(reasons, reason)
		}
	}
	s.resolveAll(waiting)
	return cutAll(cut, func(i int) string { return reasons[i] })
}

// resolveAll asks the sources about connections on goroutines that Shutdown waits for.
func (s *Server) resolveAll(conns []*conn) {
	next := make(chan *conn, len(conns))
	for _, c := range conns {
		next <- c
	}
	close(next)
	for range min(len(conns), maxResolving) {
		s.errands.Go(func() {
			for c := range next {
				if s.isClosing() {
					return
				}
				if reason, yes := c.lapsed(c.resolve(context.Background())); yes {
					c.cutNow(reason)
				}
			}
		})
	}
}

// expire judges the connections again whose path's validity or whose answer about revocation has ended, and cuts those
// that may not stay.
func (s *Server) expire(now time.Time) int {
	due := s.live.expiry.take(now)
	for _, c := range due {
		if st := c.check(now); !now.After(st.due()) {
			s.live.follow(c, st, now)
		}
	}
	return s.judgeAll(due, (*conn).lapsed)
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
	if c.closers.run(&c.server.errands, reason, closerPatience) {
		c.server.errands.Go(func() {
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
