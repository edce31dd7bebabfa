package edge

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/identity"
)

// upgradeOf is the protocol that an HTTP/1.1 request asks to switch to (RFC 9110, Section 7.8), "" when it asks for
// none or for another version of HTTP or for TLS: on such a connection the client would send the upstream requests
// that never passed the pipeline, with whatever identity headers it likes. With a body there is no switch either: the
// origin may answer before the body's end, and its rest and the new protocol would be read at the same time.
func upgradeOf(r *http.Request) string {
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 || r.ContentLength != 0 || len(r.Header["Upgrade"]) != 1 || !hasToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	protocol := strings.TrimSpace(r.Header["Upgrade"][0])
	lower := strings.ToLower(protocol)
	if strings.ContainsAny(lower, ", \t") || strings.HasPrefix(lower, "h2") || strings.HasPrefix(lower, "h3") ||
		strings.HasPrefix(lower, "http") || strings.HasPrefix(lower, "tls") {
		return ""
	}
	return protocol
}

const (
	cutGrace  = 20 * time.Millisecond  // for a frame under way to end; the cut waits for closers a little longer
	farewell  = 500 * time.Millisecond // for the client to read the close frame, should nobody close the connection
	headWrite = 10 * time.Second       // to send the 101
)

// switchProtocols takes the client's connection out of HTTP and couples it with the origin's, until one of them ends
// or the client's certificate is cut.
func (x *exchange) switchProtocols(resp *http.Response, upgrade string) {
	origin, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || upgrade == "" || !strings.EqualFold(resp.Header.Get("Upgrade"), upgrade) {
		x.fail(errors.New("the origin switched to a protocol that was not asked for"))
		return
	}
	head := resp.Header.Clone()
	removeHopByHop(head, false)
	head["Connection"], head["Upgrade"], head["X-Request-Id"] = []string{"Upgrade"}, []string{upgrade}, x.idValue[:]
	client, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.fail(errors.Join(errors.New("the client's connection cannot be taken over"), err))
		return
	}
	defer client.Close()
	x.status = http.StatusSwitchingProtocols
	x.p.counters.upgraded.Add(1)

	s := &stream{client: client, origin: origin, websocket: strings.EqualFold(upgrade, "websocket"), said: make(chan struct{})}
	unregister := x.c.closers.register(s.end)
	defer unregister()
	x.release()                                       // a cut resets connections with a request in flight, and would lose the close frame
	_ = client.SetDeadline(time.Now().Add(headWrite)) // also ends the server's own deadlines
	if err := writeHead(client, head); err != nil {
		return
	}
	_ = client.SetDeadline(time.Time{})
	x.bytes = s.couple(buffered.Reader)
}

// writeHead sends the answer to an accepted Upgrade.
func writeHead(w io.Writer, head http.Header) error {
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = head.Write(&b) // a Builder takes everything
	b.WriteString("\r\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// stream is a connection that was switched to another protocol. Everything sent to the client goes through its Write,
// which knows where WebSocket frames end.
type stream struct {
	client    net.Conn
	origin    io.ReadWriteCloser
	websocket bool
	ending    atomic.Bool            // a cut was asked for
	why       atomic.Pointer[string] // the cut's reason; set before ending

	mu     sync.Mutex // held while something is sent to the client
	frames frames
	ended  bool // nothing more is sent to the client

	said chan struct{} // closed after the close frame
}

var errCut = errors.New("connection was cut")

// couple copies both ways until both have ended, and returns the bytes sent to the client.
func (s *stream) couple(client io.Reader) int64 {
	var sent int64
	done := make(chan struct{})
	go func() { // ends when the origin's or the client's connection does, both of which are closed below
		defer close(done)
		var err error
		sent, err = io.Copy(writerOnly{s}, s.origin)
		s.finish(err, s.client)
	}()
	from := &fromClient{r: client, s: s}
	_, err := io.Copy(s.origin, from)
	if s.ending.Load() && !from.frames.closed { // the close frame is under way: a reset would overtake it
		_ = s.client.SetReadDeadline(time.Now().Add(farewell))
		_, _ = io.Copy(io.Discard, from)
	}
	s.finish(err, s.origin)
	<-done
	_ = s.origin.Close()
	return sent
}

// finish passes on the end of one direction: the end of the stream as such where the other side can be told, an error
// as the end of both directions.
func (s *stream) finish(err error, to any) {
	half, ok := to.(interface{ CloseWrite() error })
	if err == nil && ok && !s.websocket && half.CloseWrite() == nil {
		return
	}
	_ = s.origin.Close()
	if !s.ending.Load() {
		_ = s.client.Close()
	}
}

// Write sends a piece from the origin to the client; after a cut only to the end of the frame.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, errCut
	}
	n := len(p)
	if s.websocket {
		for n = 0; n < len(p) && !(s.ending.Load() && s.frames.boundary()); {
			n += s.frames.next(p[n:])
		}
	}
	if _, err := s.client.Write(p[:n]); err != nil {
		return 0, err
	}
	if s.ending.Load() && s.frames.boundary() {
		s.sayGoodbyeLocked()
	}
	if s.ended {
		return n, errCut
	}
	return n, nil
}

// end cuts the stream. A WebSocket client is sent a close frame that says why, now or when the frame under way ends; if
// that does not happen in a few milliseconds, and for other protocols, the connection is closed without a word.
func (s *stream) end(reason string) {
	if !s.why.CompareAndSwap(nil, &reason) {
		return
	}
	s.ending.Store(true)
	if s.websocket {
		if s.mu.TryLock() {
			if s.frames.boundary() {
				s.sayGoodbyeLocked()
			}
			s.mu.Unlock()
		}
		timer := time.NewTimer(cutGrace)
		defer timer.Stop()
		select {
		case <-s.said:
			return
		case <-timer.C:
		}
	}
	_ = s.origin.Close()
	_ = s.client.Close()
}

// closeFrame is the close frame for a cut (RFC 6455, Section 7.4.1): 1001, going away, when the edge shuts down, and
// 1008, policy violation, for what was decided about the client.
func closeFrame(reason string) []byte {
	code, text := 1008, "no longer allowed: "+reason
	switch reason {
	case "shutdown":
		code, text = 1001, "server is shutting down"
	case string(identity.Revoked):
		text = "certificate revoked"
	case string(identity.Expired):
		text = "certificate expired"
	case string(identity.Untrusted):
		text = "certificate not trusted"
	}
	return append([]byte{0x88, byte(2 + len(text)), byte(code >> 8), byte(code & 0xff)}, text...)
}

// sayGoodbyeLocked sends the close frame, unless the origin has sent one, and lets nothing follow it. The cut closes the
// connection.
func (s *stream) sayGoodbyeLocked() {
	if s.ended {
		return
	}
	s.ended = true
	_ = s.client.SetWriteDeadline(time.Now().Add(cutGrace))
	if !s.frames.closed {
		_, _ = s.client.Write(closeFrame(*s.why.Load()))
	}
	// The client sees the end now, while its answer is awaited.
	if half, ok := s.client.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = s.origin.Close()
	close(s.said)
}

// fromClient is what the client sends. It ends when the stream is ending, so that nothing more reaches the origin; read
// on, it ends with the client's close frame, the answer to ours (RFC 6455, Section 7.1.1: the server then closes first).
type fromClient struct {
	r      io.Reader
	s      *stream
	frames frames
	ended  bool // what is read now is for nobody
}

func (f *fromClient) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if f.s.websocket {
		for at := 0; at < n; {
			at += f.frames.next(p[at:n])
		}
	}
	if f.s.ending.Load() {
		if f.frames.closed {
			err = io.EOF
		} else if !f.ended {
			f.ended = true
			return 0, io.EOF
		}
	}
	return n, err
}

// writerOnly hides everything of a writer but Write.
type writerOnly struct{ io.Writer }

// frames follows the frames of one direction of a WebSocket connection (RFC 6455, Section 5.2).
type frames struct {
	header [14]byte
	have   int    // bytes of header seen
	left   uint64 // bytes of payload to come
	closed bool   // a close frame went by
}

// boundary reports whether a new frame may begin here.
func (f *frames) boundary() bool { return f.have == 0 && f.left == 0 }

// next takes bytes until the end of the frame, or all of them, and returns how many.
func (f *frames) next(p []byte) int {
	n := 0
	for f.left == 0 && n < len(p) {
		f.header[f.have] = p[n]
		f.have++
		n++
		if !f.complete() {
			continue
		}
		f.closed = f.closed || f.header[0]&0x0f == 8
		f.left, f.have = f.payload(), 0
		if f.left == 0 {
			return n
		}
	}
	taken := min(f.left, uint64(len(p)-n))
	f.left -= taken
	return n + int(taken)
}

// complete reports whether the header of the frame is whole.
func (f *frames) complete() bool {
	if f.have < 2 {
		return false
	}
	size := 2
	switch f.header[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.header[1]&0x80 != 0 {
		size += 4
	}
	return f.have == size
}

func (f *frames) payload() uint64 {
	length, more := uint64(f.header[1]&0x7f), 0
	switch length {
	case 126:
		more, length = 2, 0
	case 127:
		more, length = 8, 0
	}
	for _, b := range f.header[2 : 2+more] {
		length = length<<8 | uint64(b)
	}
	return length
}
