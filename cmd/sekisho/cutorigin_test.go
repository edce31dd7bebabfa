package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// origin is the upstream of the cut tests. It counts what it sees ended before its time.
type origin struct {
	url              string
	aborted          atomic.Int64 // downloads and uploads whose client went away
	started          atomic.Int64 // downloads, uploads and WebSockets begun
	mu               sync.Mutex
	hits             map[string]time.Time // by path of /hit/...
	downloadsWritten atomic.Int64
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{hits: make(map[string]time.Time)}
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Hello World\n") })
	mux.HandleFunc("/hit/", func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.hits[r.URL.Path] = time.Now()
		o.mu.Unlock()
		_, _ = io.WriteString(w, "ok")
	})
	mux.HandleFunc("/download", o.download)
	mux.HandleFunc("/upload", o.upload)
	mux.HandleFunc("/ws", o.webSocket)
	s := httptest.NewServer(mux)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	o.url = s.URL
	return o
}

// download never ends by itself.
func (o *origin) download(w http.ResponseWriter, r *http.Request) {
	o.started.Add(1)
	defer o.aborted.Add(1)
	chunk := make([]byte, 16<<10)
	for r.Context().Err() == nil {
		n, err := w.Write(chunk)
		o.downloadsWritten.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// upload reads until the client is done or gone.
func (o *origin) upload(_ http.ResponseWriter, r *http.Request) {
	o.started.Add(1)
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		o.aborted.Add(1)
	}
}

// webSocket sends a text frame now and then.
func (o *origin) webSocket(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	o.started.Add(1)
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	_ = rw.Flush()
	gone := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, rw); close(gone) }()
	for {
		select {
		case <-gone:
			return
		case <-time.After(200 * time.Millisecond):
			if _, err := conn.Write([]byte{0x81, 2, 'h', 'i'}); err != nil {
				return
			}
		}
	}
}

// readFrame reads one unmasked WebSocket frame (RFC 6455, Section 5.2) of at most 125 octets.
func readFrame(r *bufio.Reader) (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, head[1]&0x7f)
	_, err = io.ReadFull(r, payload)
	return head[0] & 0x0f, payload, err
}
