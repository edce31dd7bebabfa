package edge

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/site"
)

// conn is one accepted connection whose handshake is complete. It is made by the listener side (serve.go), found by
// requests through the context, and owned by the goroutine that serves it; the fields say who else may touch them.
type conn struct {
	server   *Server
	raw      net.Conn // the TCP connection below tls
	tls      *tls.Conn
	listener string              // name of the listener it came in by
	state    tls.ConnectionState // after the handshake; never changes
	remote   string              // client address without the port
	started  time.Time
	resumed  bool

	judging  sync.Mutex               // held while current is replaced
	current  atomic.Pointer[standing] // replaced by check, read by anyone
	visits   visits                   // requests in progress to other hosts than the handshake's
	inflight atomic.Int32             // requests being served
	cut      atomic.Bool              // set once, before the connection is closed by decision
	welcomed atomic.Bool              // its identity was verified at some time
	warned   atomic.Bool              // that the identity headers are too large was logged
	closers  closers                  // WebSocket and other hijacked streams to end gracefully when cut
	link     link                     // how the listener side holds the connection
}

// standing is an identity as it was judged at some epoch and snapshot. A request for another host may use it only if
// that host's Policy is that of standing.host, whose CAs the identity was judged against.
type standing struct {
	identity identity.Identity
	host     *site.Host                      // of the handshake's name as that snapshot has it; nil when it is gone
	doom     string                          // why a change of the host ended the connection's right to exist; empty: it did not
	epoch    uint64                          // of the revocation index when judged
	snapshot *site.Snapshot                  // current when judged
	headers  atomic.Pointer[identityHeaders] // what the upstream is told; made by the first request that needs it
}

type connKey struct{}

// connOf returns the connection a request came in by; nil outside the edge.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// check returns the connection's standing as of now. When neither the revocation index nor the snapshot changed and no
// end of validity passed, that costs two atomic loads and a comparison of times.
func (c *conn) check(now time.Time) *standing {
	s := c.current.Load()
	if c.upToDate(s) && s.timely(now) {
		return s
	}
	c.judging.Lock()
	defer c.judging.Unlock()
	s = c.current.Load()
	if c.upToDate(s) && s.timely(now) {
		return s
	}
	// A revocation that comes between the judgement and the entry in the live table does not find the connection
	// there; it raised the epoch, so the judgement is made again.
	for again := true; again; again = !c.upToDate(s) {
		old := s
		s = c.judge(old)
		if !slices.Equal(old.identity.Path(), s.identity.Path()) || old.host != s.host || !old.due().Equal(s.due()) {
			c.server.live.follow(c, s, now)
		}
	}
	c.setStanding(s)
	return s
}

// setStanding publishes a standing.
func (c *conn) setStanding(s *standing) {
	if s.identity.Verified() {
		c.welcomed.Store(true)
	}
	c.current.Store(s)
}

// due is when the identity ends by itself, or is to be judged again: whichever comes first.
func (s *standing) due() time.Time {
	end, until := s.identity.NotAfter(), s.identity.Until()
	if s.identity.Verified() && !until.IsZero() && until.Before(end) {
		return until
	}
	return end
}

// resolve asks the sources of revocation about a connection whose identity waits for them, and returns its standing then.
// Its client has proved its key, as every connection's has.
func (c *conn) resolve(ctx context.Context) *standing {
	cfg := &c.server.cfg
	s := c.check(cfg.Now())
	if s.identity.Reason() != identity.RevocationPending || s.host == nil {
		return s
	}
	next := &standing{epoch: cfg.Verifier.Epoch(), snapshot: s.snapshot, host: s.host, doom: s.doom}
	next.identity = cfg.Verifier.Resolve(ctx, s.host.Trust, s.identity, c.state.OCSPResponse)
	c.judging.Lock()
	if c.current.Load() == s { // else somebody judged meanwhile, by what the fetches brought
		c.server.live.follow(c, next, cfg.Now())
		c.setStanding(next)
	}
	c.judging.Unlock()
	return c.check(cfg.Now())
}

// upToDate reports whether neither the revocation index nor the snapshot changed since a standing was judged.
func (c *conn) upToDate(s *standing) bool {
	return s.epoch == c.server.cfg.Verifier.Epoch() && s.snapshot == c.server.cfg.Snapshot()
}

// timely reports whether the clock says nothing else about the identity than it said when it was judged.
func (s *standing) timely(now time.Time) bool {
	if len(s.identity.Path()) == 0 {
		return true
	}
	if until := s.identity.Until(); !until.IsZero() && now.After(until) {
		return false
	}
	judged := s.identity.Reason()
	_, reason := s.identity.ValidAt(now)
	if reason == identity.OK {
		return judged != identity.Expired && judged != identity.NotYetValid
	}
	return judged == reason
}

// judge makes a new standing out of an old one. Epoch and snapshot are read first: what changes meanwhile is seen
// again by the next check.
func (c *conn) judge(old *standing) *standing {
	cfg := &c.server.cfg
	next := &standing{epoch: cfg.Verifier.Epoch(), snapshot: cfg.Snapshot(), host: old.host, doom: old.doom}
	if next.snapshot != old.snapshot {
		next.host = next.snapshot.Host(c.listener, c.state.ServerName)
	}
	switch {
	case next.host == old.host && next.host != nil:
		next.identity = cfg.Verifier.Recheck(next.host.Trust, old.identity)
	case next.host == nil:
		next.identity = cfg.Verifier.Check(nil, old.identity.Chain())
		next.doom = "host_gone"
		return next
	case old.host != nil && next.host.Policy() == old.host.Policy():
		next.identity = cfg.Verifier.Recheck(next.host.Trust, old.identity)
	default:
		next.identity = cfg.Verifier.Check(next.host.Trust, old.identity.Chain())
		next.doom = doomOf(old, next)
		if next.doom == "" && c.state.Version < next.host.MinVersion {
			next.doom = "policy"
		}
	}
	return next
}

// doomOf says why a connection may not live on after its host changed: a client that was somebody is so no more, or
// the host now requires what the client does not have.
func doomOf(old, next *standing) string {
	switch {
	case next.identity.Verified(), next.identity.Reason() == identity.RevocationPending:
		return ""
	case old.identity.Verified() && next.host.AsksForCertificate():
		return string(next.identity.Reason())
	case next.host.Mode == site.Require:
		return "policy"
	}
	return old.doom
}

// welcome reports whether a connection may be kept at all: its host exists, no change of it spoke against the client,
// and a host that refuses in the handshake has nothing against it now.
func (s *standing) welcome() (reason string, ok bool) {
	switch {
	case s.doom != "":
		return s.doom, false
	case s.host == nil:
		return "host_gone", false
	case refusesInHandshake(s.host) && !s.identity.Verified() && s.identity.Reason() != identity.RevocationPending:
		return string(s.identity.Reason()), false
	}
	return "", true
}

// visits counts the requests in progress to hosts other than the one the connection was made for, by the name in their
// Host header. Over HTTP/2 clients do so on purpose, where the hosts' policies are equal; that may end while a stream
// is open.
type visits struct {
	mu    sync.Mutex
	names map[string]int
}

func (v *visits) enter(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.names == nil {
		v.names = make(map[string]int)
	}
	v.names[name]++
}

func (v *visits) leave(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.names[name]--; v.names[name] == 0 {
		delete(v.names, name)
	}
}

// strays reports a host that requests in progress are for and that this connection may be used for no more.
func (c *conn) strays(s *standing) (reason string, yes bool) {
	c.visits.mu.Lock()
	defer c.visits.mu.Unlock()
	for name := range c.visits.names {
		switch host := s.snapshot.Host(c.listener, name); {
		case host == nil:
			return "host_gone", true
		case host.Policy() != s.host.Policy():
			return "policy", true
		}
	}
	return "", false
}
