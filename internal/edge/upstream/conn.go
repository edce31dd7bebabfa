package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	// readBufferSize is the read buffer of a connection; a longer header
	// section makes it grow.
	readBufferSize = 4 << 10
	// keepBufferSize is the largest buffer that stays with an idle connection.
	keepBufferSize = 16 << 10
)

// conn is one HTTP/1.1 connection. Between take and put or close it belongs to
// one exchange; only cut may be called by others.
type conn struct {
	o   *origin
	nc  net.Conn // TLS or the same as raw
	raw net.Conn
	tls *tls.ConnectionState

	buf    []byte
	r, w   int     // buf[r:w] has been read from the network
	first  span    // the status line of the last section
	minor  int     // and what it says: HTTP/1.minor
	code   int     // and the status
	fields []field // the fields of the last section

	deadline    time.Time // read deadline that is set, zero for none
	writeBy     time.Time // write deadline that is set, zero for none
	headerStart time.Time // when waiting for the header began; zero while reading a body
	upload      *upload   // whose end starts the wait for the header anew
	got         bool      // a byte of the response has come

	reused    bool
	idleSince time.Time
	cutFunc   func()
	rawConn   syscall.RawConn
	peek      func(uintptr)
	quiet     bool
}

// dialNet connects to the origin, TLS handshake included, within DialTimeout.
func (o *origin) dialNet(ctx context.Context, cfg *tls.Config) (nc, raw net.Conn, err error) {
	dctx, cancel := context.WithTimeout(ctx, o.t.cfg.DialTimeout)
	defer cancel()
	raw, err = o.dialer.DialContext(dctx, o.target.network, o.target.addr)
	if err == nil && cfg != nil {
		tc := tls.Client(raw, cfg)
		if err = tc.HandshakeContext(dctx); err != nil {
			raw.Close()
		}
		nc = tc
	} else {
		nc = raw
	}
	if err != nil {
		e := o.fail(ctx, OpDial, err)
		e.unreached = true
		return nil, nil, e
	}
	return nc, raw, nil
}

func (o *origin) dial(ctx context.Context) (*conn, error) {
	nc, raw, err := o.dialNet(ctx, o.tlsConfig)
	if err != nil {
		return nil, err
	}
	c := &conn{o: o, nc: nc, raw: raw, buf: make([]byte, readBufferSize)}
	if tc, ok := nc.(*tls.Conn); ok {
		state := tc.ConnectionState()
		c.tls = &state
	}
	if sc, ok := raw.(syscall.Conn); ok {
		c.rawConn, _ = sc.SyscallConn()
	}
	c.cutFunc, c.peek = c.cut, c.peekFD
	return c, nil
}

// cut ends the connection at once, without a TLS alert. Whoever reads from or
// writes to it gets an error and closes it. Safe for concurrent use.
func (c *conn) cut() { c.raw.Close() }

// close ends the connection and gives back its place. Called once, by its owner.
func (c *conn) close() {
	c.nc.Close()
	c.o.release()
}

// abandon is close in the middle of an exchange: no TLS alert that would wait
// for a full send buffer.
func (c *conn) abandon() {
	c.raw.Close()
	c.o.release()
}

// shrink drops a buffer that a long header section made grow.
func (c *conn) shrink() {
	if len(c.buf) > keepBufferSize {
		c.buf, c.fields = make([]byte, readBufferSize), nil
	}
	c.r, c.w = 0, 0
}

// startWait begins the wait for a response header. One deadline stays set over
// many exchanges: it is never later than the header's own, and when it fires
// early, expired sets it anew. So an exchange normally touches no timer.
func (c *conn) startWait(u *upload) error {
	c.got, c.upload, c.headerStart = false, u, time.Now()
	if c.deadline.After(c.headerStart) {
		return nil
	}
	return c.setDeadline(c.headerStart.Add(c.o.t.cfg.ResponseHeaderTimeout))
}

// limitWrite gives the next write at least ResponseHeaderTimeout, and at most
// twice that: so an exchange on a busy connection touches no timer here either.
func (c *conn) limitWrite() error {
	limit, now := c.o.t.cfg.ResponseHeaderTimeout, time.Now()
	if c.writeBy.Sub(now) >= limit {
		return nil
	}
	c.writeBy = now.Add(2 * limit)
	return c.nc.SetWriteDeadline(c.writeBy)
}

// unlimitWrite lets writes take as long as they like.
func (c *conn) unlimitWrite() error {
	c.writeBy = time.Time{}
	return c.nc.SetWriteDeadline(c.writeBy)
}

func (c *conn) setDeadline(at time.Time) error {
	c.deadline = at
	return c.nc.SetReadDeadline(at)
}

// expired handles a read deadline: nil means read on.
func (c *conn) expired() error {
	if c.headerStart.IsZero() { // a body may take as long as it likes
		return c.setDeadline(time.Time{})
	}
	now := time.Now()
	start := c.headerStart
	if c.upload != nil {
		start = c.upload.waitsSince(now)
	}
	at := start.Add(c.o.t.cfg.ResponseHeaderTimeout)
	if !at.After(now) {
		return errHeaderTimeout
	}
	return c.setDeadline(at)
}

// read reads from the network, past deadlines that do not matter.
func (c *conn) read(p []byte) (int, error) {
	for {
		n, err := c.nc.Read(p)
		if n > 0 {
			c.got = true
			return n, nil
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if err := c.expired(); err != nil {
			return 0, err
		}
	}
}

func (c *conn) buffered() int { return c.w - c.r }

// leftover reports that crypto/tls holds bytes behind the end of a response: it
// reads ahead, where neither buffered nor stale looks. They would become the
// answer to somebody else's request. A deadline that has passed keeps Read from
// the network, so that it sees only what is there.
func (c *conn) leftover() bool {
	if c.tls == nil {
		return false
	}
	if err := c.setDeadline(time.Unix(1, 0)); err != nil {
		return true
	}
	n, err := c.nc.Read(c.buf[:1])
	return n > 0 || !errors.Is(err, os.ErrDeadlineExceeded)
}

// fill reads more into the buffer, after making room for it.
func (c *conn) fill() error {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w < len(c.buf):
	case c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	default:
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.read(c.buf[c.w:])
	c.w += n
	return err
}

// readSome reads at least one byte into p, straight from the network when the
// buffer is empty and p is large.
func (c *conn) readSome(p []byte) (int, error) {
	if c.r == c.w {
		if len(p) >= len(c.buf) {
			return c.read(p)
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.w])
	c.r += n
	return n, nil
}

// isEOF reports the end as io.Reader defines it, by the value itself: an error
// that wraps io.EOF is a failure, and must not make a cut-off body whole.
func isEOF(err error) bool { return err == io.EOF } //nolint:errorlint // see above

// unexpected turns an end of file inside a message into the error that says so.
func unexpected(err error) error {
	if isEOF(err) {
		return io.ErrUnexpectedEOF
	}
	return err
}
