package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// badServer starts a server with short timeouts whose upstream is o, and returns an ordinary request that must work.
func badServer(t *testing.T, upstream string) (p *process, ordinary func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sekisho.yaml")
	config := fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
limits: {handshake_timeout: 2s, header_timeout: 2s}
hosts:
  - {name: localhost, default: true, upstreams: [%q], client_auth: {mode: require}}
`, upstream)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p = start(t, dir, "--config", file, "--data", dir)
	pair, _ := p.issue("ordinary")
	return p, func() {
		t.Helper()
		expectAnswer(t, p, p.tlsConfig(pair), http.StatusOK, "Hello World")
	}
}

// endInTime is when a connection that gets on with nothing must be over: less than the 10 s of a server that is not told
// otherwise, and time enough for a busy machine.
const endInTime = 8 * time.Second

// exchange sends bytes to the edge and returns what comes back until the server closes or the time is over.
func exchange(t *testing.T, p *process, patience time.Duration, parts ...[]byte) (answer []byte, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp", p.edgeAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	for _, part := range parts {
		if _, err := conn.Write(part); err != nil {
			break
		}
	}
	answer, err = io.ReadAll(conn)
	return answer, !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestInvariant13HostileClients sends what no honest client sends; the server ends it in time and serves on.
func TestInvariant13HostileClients(t *testing.T) {
	o := newOrigin(t)
	p, ordinary := badServer(t, o.url)
	ordinary()
	alert := func(answer []byte) bool { return len(answer) >= 7 && answer[0] == 21 }
	t.Run("garbage", func(t *testing.T) {
		garbage := make([]byte, 4096)
		_, _ = rand.Read(garbage)
		garbage[0] = 0xff
		if _, closed := exchange(t, p, 30*time.Second, garbage); !closed {
			t.Error("the connection stays open")
		}
		ordinary()
	})
	t.Run("garbage in a handshake record", func(t *testing.T) {
		answer, closed := exchange(t, p, 30*time.Second, []byte{22, 3, 1, 0, 8, 1, 0, 0, 4, 9, 9, 9, 9})
		if !closed || !alert(answer) {
			t.Errorf("closed %v, answer %x, want an alert", closed, answer)
		}
		ordinary()
	})
	t.Run("plain HTTP", func(t *testing.T) {
		answer, closed := exchange(t, p, 30*time.Second, []byte("GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"))
		if !closed || !strings.Contains(string(answer), "400") || !strings.Contains(string(answer), "HTTP request to an HTTPS server") {
			t.Errorf("closed %v, answer %q", closed, answer)
		}
		ordinary()
	})
	t.Run("nothing at all", func(t *testing.T) {
		if _, closed := exchange(t, p, endInTime); !closed {
			t.Errorf("not closed after %v, want the handshake timeout of 2 s", endInTime)
		}
		ordinary()
	})
	t.Run("slow headers", func(t *testing.T) { slowHeaders(t, p); ordinary() })
	t.Run("hello in single bytes", func(t *testing.T) { helloInBytes(t, p); ordinary() })
	t.Run("header of 1 MiB", func(t *testing.T) { hugeHeader(t, p); ordinary() })
	t.Run("chain of 70 KB", func(t *testing.T) { hugeChain(t, p); ordinary() })
	p.stop()
}

// slowHeaders is slowloris: a header that never ends, a byte at a time.
func slowHeaders(t *testing.T, p *process) {
	pair, _ := p.issue("slow")
	config := p.tlsConfig(pair)
	config.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", p.edgeAddress(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	gone := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, conn); close(gone) }()
	begin := time.Now()
	for _, b := range []byte("GET /hello HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + strings.Repeat("a", 1000)) {
		if _, err := conn.Write([]byte{b}); err != nil {
			break
		}
		select {
		case <-gone:
			return
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(begin) > endInTime {
			t.Fatalf("a request whose header never ends is still open after %v; header_timeout is 2 s", endInTime)
		}
	}
}

// helloInBytes does an honest handshake whose bytes arrive one by one.
func helloInBytes(t *testing.T, p *process) {
	pair, _ := p.issue("bytes")
	raw, err := net.Dial("tcp", p.edgeAddress())
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.(*net.TCPConn).SetNoDelay(true)
	conn := tls.Client(&byteByByte{raw}, p.tlsConfig(pair))
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("answer %q, %v", answer, err)
	}
}

// byteByByte writes one byte at a time.
type byteByByte struct{ net.Conn }

func (c *byteByByte) Write(b []byte) (n int, err error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// hugeHeader is refused over both protocols: 431, or an HTTP/2 stream or connection that is closed.
func hugeHeader(t *testing.T, p *process) {
	pair, _ := p.issue("huge")
	for _, protocol := range []string{"http/1.1", "h2"} {
		config := p.tlsConfig(pair)
		config.NextProtos = []string{protocol}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: protocol == "h2"}, Timeout: 30 * time.Second}
		req, err := http.NewRequest("GET", p.ready.Edge+"/hello", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Huge", strings.Repeat("h", 1<<20))
		resp, err := client.Do(req)
		if err != nil { // the server may close while the client still writes
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: no answer: %v", protocol, err)
			}
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %s, want 431", protocol, resp.Status)
		}
	}
}

// hugeChain shows a certificate with a tail of others, 70 KB in all: it is refused or taken, and never breaks the server.
func hugeChain(t *testing.T, p *process) {
	pair, _ := p.issue("chain")
	ca := testpki.NewCA(t)
	for size := 0; size < 70_000; {
		filler := ca.Client(strings.Repeat("x", 50), testpki.KeyType(pkix.RSA2048))
		pair.Certificate = append(pair.Certificate, filler.Cert.Raw)
		for range 20 { // the same one again: keys are slow to make
			pair.Certificate = append(pair.Certificate, filler.Cert.Raw)
		}
		size += 21 * len(filler.Cert.Raw)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := p.tlsConfig(pair)
		config.MaxVersion, config.ClientSessionCache = version, tls.NewLRUClientSessionCache(2)
		for range 2 { // the second would resume
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, Timeout: 30 * time.Second}
			resp, err := client.Get(p.ready.Edge + "/hello")
			if err != nil {
				if errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: no answer: %v", tls.VersionName(version), err)
				}
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s: %s", tls.VersionName(version), resp.Status)
			}
		}
	}
}
