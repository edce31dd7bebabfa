package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/pkix"
)

// link is what the listener side knows of a connection beside what requests may see.
type link struct {
	http     *http.Server // serves this connection alone, so that a GOAWAY goes to exactly this one
	http2    bool
	cancel   context.CancelFunc // ends the context of all requests
	phase    atomic.Int32       // http.ConnState of an HTTP/1.1 connection
	hijacked atomic.Bool
	goaway   chan struct{} // filled when a GOAWAY was written after the cut began; nil for HTTP/1.1
	over     atomic.Bool   // counted out
	ended    chan struct{} // closed when counted out

	closed chan struct{} // closed when a cut has ended the connection

	indexing sync.Mutex    // held while the entry in liveTable changes
	shard    uint32        // in liveTable
	ids      []pkix.CertID // in liveTable; guarded by indexing
	release  func()        // ends that sources are kept current for this connection; may be nil; guarded by indexing
	removed  bool          // from liveTable; guarded by indexing

	expires time.Time // guarded by expiryQueue.mu
	place   int       // in the heap, from 1; 0: not in it; guarded by expiryQueue.mu
}

// wire is the net.Conn that net/http serves: the TLS connection, the answer to who is on it at hand, and an eye on
// its end.
type wire struct {
	*tls.Conn
	c *conn
}

// ConnectionState is the state after the handshake, without crypto/tls's lock.
func (w *wire) ConnectionState() tls.ConnectionState { return w.c.state }

// goawayHeader is the beginning of a GOAWAY without debug data (RFC 9113, Section 6.8): length 8, type 7, no flags,
// stream 0.
const goawayHeader = "\x00\x00\x08\x07\x00\x00\x00\x00\x00"

// Write watches for the GOAWAY of a cut. Payload that looks like one only makes the cut come sooner.
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if w.c.cut.Load() && w.c.link.goaway != nil && (err != nil || bytes.Contains(p, []byte(goawayHeader))) {
		select {
		case w.c.link.goaway <- struct{}{}:
		default:
		}
	}
	return n, err
}

// Close ends the connection. For a hijacked one nobody else says that it is over.
func (w *wire) Close() error {
	err := w.Conn.Close()
	if w.c.link.hijacked.Load() {
		w.c.server.over(w.c)
	}
	return err
}

// one is a listener with a single connection.
type one struct {
	conn net.Conn
	addr net.Addr
}

// Accept returns the connection, then io.EOF, which ends http.Server.Serve and leaves the connection served.
func (l *one) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, io.EOF
	}
	c := l.conn
	l.conn = nil
	return c, nil
}

func (l *one) Close() error   { return nil }
func (l *one) Addr() net.Addr { return l.addr }

// protocols is what the connections' http.Servers share: what each may speak, which is exactly what ALPN chose, and
// where they log.
type protocols struct {
	errorLog     *log.Logger
	http1, http2 http.Protocols
	tls          *tls.Config // tells net/http to set HTTP/2 up; nothing else is read from it
	settings     *http.HTTP2Config
}

func newProtocols(l Limits, logger *slog.Logger) *protocols {
	p := &protocols{
		errorLog: log.New(&serverLog{logger}, "", 0),
		tls:      &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}},
		settings: &http.HTTP2Config{MaxConcurrentStreams: int(l.MaxConcurrentH2)},
	}
	p.http1.SetHTTP1(true)
	p.http2.SetHTTP2(true)
	return p
}

// prepare makes the net/http server of the connection. Requests find the connection in their context, which ends when
// the connection is cut.
func (c *conn) prepare() {
	s := c.server
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), connKey{}, c))
	c.link.cancel = cancel
	server := &http.Server{
		Handler:                      s.entry,
		ReadHeaderTimeout:            s.cfg.Limits.HeaderTimeout,
		IdleTimeout:                  s.cfg.Limits.IdleTimeout,
		MaxHeaderBytes:               s.cfg.Limits.MaxHeaderBytes,
		ErrorLog:                     s.protocols.errorLog,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnState:                    c.stateChanged,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is judged as any other request
	}
	if c.link.http2 {
		server.Protocols, server.TLSConfig, server.HTTP2 = &s.protocols.http2, s.protocols.tls, s.protocols.settings
		c.link.goaway = make(chan struct{}, 1)
	} else {
		server.Protocols = &s.protocols.http1
	}
	c.link.http = server
	c.link.ended, c.link.closed = make(chan struct{}), make(chan struct{})
}

// serve hands the connection over to its net/http server and returns; the connection lives on until over is called.
func (c *conn) serve() {
	listener := &one{conn: &wire{Conn: c.tls, c: c}, addr: c.raw.LocalAddr()}
	_ = c.link.http.Serve(listener) // io.EOF of the second Accept
	if listener.conn != nil {
		// Cut before it was served: net/http took nothing and will report nothing.
		_ = c.raw.Close() // closed by the cut as well
		c.server.over(c)
	}
}

func (c *conn) stateChanged(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateHijacked:
		c.link.hijacked.Store(true)
	case http.StateClosed:
		c.server.over(c)
	default:
		c.link.phase.Store(int32(state))
	}
}

// closers are functions that end hijacked streams in their own way, each called at most once.
type closers struct {
	mu     sync.Mutex
	fns    map[int]func(reason string)
	next   int
	ran    bool
	reason string // of the cut
}

// register adds fn, to be called with the reason when the connection is cut: it should say good-bye and close, within a
// few milliseconds. If the cut is already under way it is called at once. unregister takes it back.
func (l *closers) register(fn func(reason string)) (unregister func()) {
	l.mu.Lock()
	if l.ran {
		l.mu.Unlock()
		fn(l.reason)
		return func() {}
	}
	defer l.mu.Unlock()
	if l.fns == nil {
		l.fns = make(map[int]func(string))
	}
	key := l.next
	l.next++
	l.fns[key] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.fns, key)
	}
}

// run calls what is registered, each on its own goroutine counted in work, and waits for them up to limit. It reports
// whether there were any.
func (l *closers) run(work *errands, reason string, limit time.Duration) bool {
	l.mu.Lock()
	fns := l.fns
	l.fns, l.ran, l.reason = nil, true, reason
	l.mu.Unlock()
	if len(fns) == 0 {
		return false
	}
	done := make(chan struct{}, len(fns))
	for _, fn := range fns {
		work.Go(func() {
			defer func() { done <- struct{}{} }()
			fn(reason)
		})
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for range fns {
		select {
		case <-done:
		case <-timer.C:
			return true
		}
	}
	return true
}
