package load

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/upstream"
)

// newRequester opens one kept-alive connection for a row.
func newRequester(c Config, cert tls.Certificate) (worker, error) {
	protocol := "http/1.1"
	if c.Row == HTTP2 {
		protocol = "h2"
	}
	cfg := clientConfig(protocol)
	cfg.Certificates = []tls.Certificate{cert}
	raw, err := net.DialTimeout("tcp", c.Addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != protocol {
		raw.Close()
		return nil, fmt.Errorf("the server chose %q, want %q", got, protocol)
	}
	// Bounds the whole run; a deadline for each request would cost a timer.
	if err := conn.SetDeadline(time.Now().Add(10*time.Minute + time.Duration(c.Seconds*float64(time.Second)))); err != nil {
		raw.Close()
		return nil, err
	}
	if c.Row == HTTP2 {
		return newHTTP2(conn)
	}
	return newHTTP1(conn), nil
}

// http1 keeps one connection busy with one request at a time.
type http1 struct {
	conn    net.Conn
	request []byte
	buf     []byte
}

func newHTTP1(conn net.Conn) *http1 {
	return &http1{
		conn:    conn,
		request: []byte("GET /hello HTTP/1.1\r\nHost: " + pki.Host + "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"),
		buf:     make([]byte, 16<<10),
	}
}

func (h *http1) once() (bool, error) {
	if _, err := h.conn.Write(h.request); err != nil {
		return false, err
	}
	n, want := 0, -1
	for n != want {
		if n == len(h.buf) {
			return false, fmt.Errorf("an answer over %d bytes", n)
		}
		m, err := h.conn.Read(h.buf[n:])
		if n += m; err != nil {
			return false, fmt.Errorf("after %d bytes of the answer: %w", n, err)
		}
		if want < 0 {
			if want, err = answerSize(h.buf[:n]); err != nil {
				return false, err
			}
		}
		if want >= 0 && n > want {
			return false, fmt.Errorf("%d bytes more than the answer", n-want)
		}
	}
	return false, nil
}

func (h *http1) close() { h.conn.Close() }

// answerSize is the length of an answer, header block and body, or -1 while its header block is not whole.
func answerSize(b []byte) (int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return -1, nil
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) {
		line, _, _ := bytes.Cut(b, []byte("\r\n"))
		return 0, fmt.Errorf("answered %q", line)
	}
	for line := range bytes.SplitSeq(b[:end], []byte("\r\n")) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) != len("Content-Length") || !bytes.EqualFold(name, []byte("Content-Length")) {
			continue
		}
		n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
		if err != nil || n != upstream.BodySize {
			return 0, fmt.Errorf("Content-Length %q, want %d", value, upstream.BodySize)
		}
		return end + 4 + n, nil
	}
	return 0, fmt.Errorf("an answer without Content-Length: %w", io.ErrUnexpectedEOF)
}
