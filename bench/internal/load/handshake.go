package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// certPool hands out client certificates in turn; with again it starts anew at the end.
type certPool struct {
	certs []tls.Certificate
	again bool
	next  atomic.Int64
}

// take returns the next certificate, or nil when there is none left.
func (p *certPool) take() *tls.Certificate {
	n := int(p.next.Add(1) - 1)
	if n >= len(p.certs) && !p.again {
		return nil
	}
	return &p.certs[n%len(p.certs)]
}

// handshaker connects, shakes hands, says goodbye and waits for the server's goodbye.
type handshaker struct {
	addr   string
	dialer net.Dialer
	cfg    *tls.Config
	pool   *certPool
	resume bool
	cert   *tls.Certificate // of the handshake in progress
	buf    []byte
}

// newHandshaker makes worker number i. Each has a source address of its own, so that no port runs out.
func newHandshaker(addr string, i int, pool *certPool, resume bool) *handshaker {
	h := &handshaker{addr: addr, pool: pool, resume: resume, buf: make([]byte, 512), cfg: clientConfig("http/1.1")}
	h.dialer = net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}, KeepAlive: -1}
	if resume { // a session belongs to one certificate, which is the worker's for good
		h.cert = pool.take()
		h.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	h.cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return h.cert, nil }
	return h
}

func (h *handshaker) once() (resumed bool, err error) {
	if !h.resume {
		if h.cert = h.pool.take(); h.cert == nil {
			return false, errExhausted
		}
	}
	raw, err := h.dialer.DialContext(context.Background(), "tcp", h.addr)
	if err != nil {
		return false, err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return false, err
	}
	conn := tls.Client(raw, h.cfg)
	if err := conn.Handshake(); err != nil {
		return false, err
	}
	if err := conn.CloseWrite(); err != nil {
		return false, err
	}
	// The server's tickets come first and are kept; a refusal comes as an alert; then its close_notify or a bare EOF.
	if n, err := conn.Read(h.buf); n > 0 {
		return false, fmt.Errorf("the server sent %d bytes after a handshake without a request", n)
	} else if !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("after the handshake: %w", err)
	}
	return conn.ConnectionState().DidResume, nil
}

func (h *handshaker) close() {}
