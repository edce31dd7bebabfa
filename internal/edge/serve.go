package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"sekisho/internal/identity"
)

// Server is the edge: it accepts TLS connections, knows who is on each, and serves their requests. See [New].
type Server struct {
	cfg       Config
	handler   http.Handler     // the pipeline
	entry     http.HandlerFunc // handler, with each request counted in work
	front     *tls.Config
	hosts     hostConfigs
	protocols *protocols
	keys      *ticketKeys
	gate      *gate
	crew      *crew
	live      liveTable
	counters  counters
	refusals  refusals
	usages    usages

	work      sync.WaitGroup // connections, from accept to close, and requests
	errands   errands        // what a cut does beside its caller
	accepting sync.WaitGroup // calls of Serve

	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
}

// New returns a server that serves nothing yet. It reads the ticket keys from the store and makes the present ones; an
// error of the store is returned, a stored key that cannot be opened is logged and replaced.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, front: newFrontConfig(), protocols: newProtocols(cfg.Limits, cfg.Logger), gate: newGate(cfg.Limits),
		crew: newCrew(), keys: newTicketKeys(cfg.Tickets, cfg.Seal), listeners: make(map[net.Listener]struct{}),
	}
	s.hosts.now = cfg.Now
	s.usages.since = cfg.Now()
	s.entry = s.count
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.keys.rotate(ctx, cfg.Now()); errors.Is(err, errStore) {
		return nil, fmt.Errorf("edge: %w", err)
	} else if err != nil {
		cfg.Logger.Error("session ticket keys", "error", err)
	}
	if s.handler, err = newPipeline(s); err != nil {
		return nil, err
	}
	return s, nil
}

// count serves a request and keeps Shutdown waiting for it: an HTTP/2 handler may outlive its connection. A request to
// another host than the connection's is noted before it is judged, so that a change of the snapshot finds one of the two.
func (s *Server) count(w http.ResponseWriter, r *http.Request) {
	s.work.Add(1) // the connection is counted as well, so work is not at zero here
	defer s.work.Done()
	if c := connOf(r.Context()); c != nil {
		if name, ok := hostName(r.Host); ok && name != c.state.ServerName {
			c.visits.enter(name)
			defer c.visits.leave(name)
		}
	}
	s.handler.ServeHTTP(w, r)
}

// Run keeps the edge's clockwork until ctx ends: connections are cut within a second after their certificate's
// notAfter, and session ticket keys are made and dropped by the hour.
func (s *Server) Run(ctx context.Context) error {
	const beat = 250 * time.Millisecond
	const retry = time.Minute // after the store failed
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	var rotated time.Time // real time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := s.cfg.Now()
		if n := s.expire(now); n > 0 { //nolint:contextcheck // what it asks ends by its own budget, and Shutdown waits for it
			s.cfg.Logger.InfoContext(ctx, "connections cut", "reason", "certificate or answer about its revocation expired", "count", n)
		}
		if s.keys.due(now) && time.Since(rotated) > retry {
			rotated = time.Now()
			if err := s.keys.rotate(ctx, now); err != nil {
				s.cfg.Logger.ErrorContext(ctx, "session ticket keys", "error", err)
			}
		}
	}
}

// Serve accepts connections from ln, which it closes in the end, until ctx ends or Shutdown is called; it then returns
// nil while the connections live on. Hosts see listener as the name they may be bound to.
func (s *Server) Serve(ctx context.Context, listener string, ln net.Listener) error {
	defer ln.Close() // a second time when ctx ended
	if !s.track(ln) {
		return nil
	}
	defer s.untrack(ln)
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() }) // Accept reports it
	defer stop()
	var pause time.Duration
	for {
		raw, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			s.accept(listener, raw)
		case ctx.Err() != nil || s.isClosing():
			return nil
		case temporary(err):
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Logger.WarnContext(ctx, "accept", "listener", listener, "error", err, "retry_in", pause)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		default:
			return fmt.Errorf("edge: listener %q at %s: %w", listener, ln.Addr(), err)
		}
	}
}

// temporary reports whether accepting may succeed later: the client was gone, or the machine lacks something now.
func temporary(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) track(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.accepting.Add(1)
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) untrack(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
	s.accepting.Done()
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// accept starts the handshake of a connection on a goroutine of its own, or closes it when a limit is reached.
func (s *Server) accept(listener string, raw net.Conn) {
	s.counters.accepted.Add(1)
	sock := &socket{Conn: raw}
	addr := addressOf(raw.RemoteAddr())
	if limit := s.gate.enter(sock, addr); limit != "" {
		s.counters.limited.add(limit)
		if tcp, ok := raw.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // leave no TIME_WAIT behind for what is refused
		}
		_ = raw.Close() // nothing to tell the client
		return
	}
	s.work.Add(1)
	sock.handshake = &handshake{server: s, listener: listener, remote: addr.String()}
	s.crew.do(sock, &s.work, s.admit)
}

// admit runs the handshake and hands the connection over to net/http.
func (s *Server) admit(sock *socket) {
	hs := sock.handshake
	var c *conn // nil until admitted
	defer func() {
		p := recover()
		if p != nil {
			s.cfg.Logger.Error("panic in a handshake", "remote", hs.remote, "sni", hs.name, "panic", p, "stack", string(debug.Stack()))
		}
		switch {
		case c != nil && p != nil:
			c.reset()
			s.over(c)
		case c == nil:
			_ = sock.Close() // the handshake's error is the one that counts
			s.gate.proved(sock)
			s.gate.leave()
			s.work.Done()
		}
	}()
	tlsConn, err := hs.run(sock)
	if err != nil {
		hs.failed(sock, err)
		return
	}
	hs.resolve() // still counted as a handshake of its address: it waits for others
	s.gate.proved(sock)
	c = s.enter(hs, sock, tlsConn)
	c.settle()
	c.serve()
}

// enter makes the connection of a complete handshake and puts it in the live table.
func (s *Server) enter(hs *handshake, sock *socket, tlsConn *tls.Conn) *conn {
	sock.handshake = nil
	now := s.cfg.Now()
	c := &conn{
		server: s, raw: sock.Conn, tls: tlsConn, listener: hs.listener,
		state: tlsConn.ConnectionState(), remote: hs.remote, started: now,
	}
	c.resumed = c.state.DidResume
	c.link.http2 = c.state.NegotiatedProtocol == "h2"
	if c.resumed {
		s.counters.resumed.Add(1)
	} else {
		s.counters.full.Add(1)
	}
	c.prepare()
	first := &standing{identity: hs.identity, host: hs.host, epoch: hs.epoch, snapshot: hs.snapshot}
	c.setStanding(first)
	if state := hs.identity.Revocation(); state != "" {
		s.counters.judged.add(state)
	}
	s.live.add(c, first, now)
	s.noteUsage(first, now)
	// The connection's tls.Config leads to hs for as long as the connection lives; an old snapshot need not.
	hs.snapshot, hs.host, hs.identity, hs.staple, hs.resumed = nil, nil, identity.Identity{}, nil, nil
	return c
}

// settle looks once more at what may have changed between the judgement in the handshake and the entry in the live
// table: who revoked, swapped the snapshot or began to shut down in between did not find the connection there.
func (c *conn) settle() {
	if reason, ok := c.check(c.server.cfg.Now()).welcome(); !ok {
		c.cutNow(reason)
		return
	}
	if c.server.isClosing() {
		c.cutNow("shutdown")
	}
}

// over counts a connection out, once.
func (s *Server) over(c *conn) {
	if !c.link.over.CompareAndSwap(false, true) {
		return
	}
	close(c.link.ended)
	c.link.cancel()
	s.live.remove(c)
	s.gate.leave()
	s.work.Done()
}

// Shutdown stops accepting, lets the requests in flight finish for up to Limits.DrainTimeout or until ctx ends, closes
// what is idle, and cuts the rest. It returns when every goroutine of the edge has ended, or an error when some did not.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for ln := range s.listeners {
		_ = ln.Close() // Serve returns, and that is all
	}
	s.mu.Unlock()
	s.accepting.Wait()
	s.crew.stop()
	s.gate.abort()
	for _, c := range s.live.all() {
		if c.idle() {
			c.cutNow("shutdown")
		} else {
			c.shutdown()
		}
	}
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		s.errands.Wait()
		close(done)
	}()
	if !waitFor(ctx, done, s.cfg.Limits.DrainTimeout) {
		cutAll(s.live.all(), func(int) string { return "shutdown" })
		if !waitFor(context.WithoutCancel(ctx), done, 5*time.Second) {
			return fmt.Errorf("edge: %d connections did not end", s.live.count())
		}
	}
	if closer, ok := s.handler.(interface{ close() }); ok {
		closer.close()
	}
	return nil
}

func waitFor(ctx context.Context, done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// Live is how many connections have a complete handshake and are open.
func (s *Server) Live() int { return s.live.count() }

// serverLog is where net/http's servers write. What scanners and vanishing clients cause is noise; a panic is not.
type serverLog struct{ logger *slog.Logger }

func (l *serverLog) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p))
	if strings.HasPrefix(text, "http: panic") || strings.HasPrefix(text, "http2: panic") {
		l.logger.Error("panic in a request", "error", text)
	} else {
		l.logger.Debug("http", "error", text)
	}
	return len(p), nil
}
