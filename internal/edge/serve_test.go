package edge

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sekisho/internal/identity"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

func (c *checkpoint) tcp() *net.TCPConn {
	c.t.Helper()
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

func TestPlainHTTPOnTLSPort(t *testing.T) {
	c := newCheckpoint(t, require)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"} {
		conn := c.tcp()
		fmt.Fprintf(conn, "%s / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 30000\r\n\r\n%s", method, strings.Repeat("x", 30000))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 400 || string(body) != "Client sent an HTTP request to an HTTPS server.\n" {
			t.Errorf("%s: %d %q %v", method, resp.StatusCode, body, err)
		}
		_ = resp.Body.Close()
		_ = conn.Close()
	}
	if n := c.s.ConnectionMetrics().Errors["plain_http"]; n != 9 {
		t.Errorf("%d counted", n)
	}
}

func TestGarbageOnTLSPort(t *testing.T) {
	c := newCheckpoint(t, require)
	for _, garbage := range []string{
		"\x00\x01\x02\x03\x04\x05\x06", "SSH-2.0-x\r\n", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
		"\x15\x03\x01\x00\x02\x02\x28", "\x80\x2e\x01\x00\x02", "\x16\x03\x01\x00\x04\x01\xff\xff\xff", strings.Repeat("\x16\x03\x01\x00\x00", 100),
	} {
		conn := c.tcp()
		_, _ = io.WriteString(conn, garbage)
		_ = conn.CloseWrite()
		if !closed(conn, 10*time.Second) {
			t.Errorf("%q: not closed", garbage)
		}
	}
	conn := c.mustDial(c.config(nil, nil))
	if status, _ := c.mustAsk(conn, "/"); status != http.StatusForbidden {
		t.Errorf("after the garbage: %d", status)
	}
}

func TestUnknownNameGetsAlert(t *testing.T) {
	c := newCheckpoint(t, require)
	for _, version := range tlsVersions {
		_, err := c.dial(c.config(nil, func(t *tls.Config) {
			t.ServerName, t.MinVersion, t.MaxVersion = "unknown.example", version, version
		}))
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("error %v, want the alert unrecognized_name", err)
		}
	}
	out := openssl(t, strings.NewReader(""), "s_client", "-connect", c.addr, "-noservername")
	if !strings.Contains(out, "BEGIN CERTIFICATE") {
		t.Errorf("without a server name there is no default host:\n%s", out)
	}
}

// byteWise sends every write one byte at a time.
type byteWise struct{ net.Conn }

func (b byteWise) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := b.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestSplitClientHello(t *testing.T) {
	c := newCheckpoint(t, require)
	leaf := c.ca.Client("client")
	conn := tls.Client(byteWise{c.tcp()}, c.config(&leaf, nil))
	if status, _ := c.mustAsk(conn, "/"); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestSlowlorisIsBounded(t *testing.T) {
	c := newCheckpoint(t, require, func(cfg *Config) {
		// Time enough for an honest handshake on a busy machine.
		cfg.Limits.HandshakeTimeout, cfg.Limits.HeaderTimeout, cfg.Limits.IdleTimeout = time.Second, time.Second, time.Second
	})
	leaf := c.ca.Client("client")
	drip := func(conn net.Conn) time.Duration {
		start := time.Now()
		for time.Since(start) < 9*time.Second {
			if _, err := conn.Write([]byte("a")); err != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		return time.Since(start)
	}
	hello := c.tcp()
	_, _ = hello.Write([]byte("\x16\x03\x01\x02\x00"))
	if took := drip(hello); took > 8*time.Second {
		t.Errorf("a dripping ClientHello held on for %v", took)
	}
	silent := c.tcp()
	if !closed(silent, 8*time.Second) {
		t.Error("a connection without a ClientHello is kept")
	}
	header := c.mustDial(c.config(&leaf, nil))
	_, _ = io.WriteString(header, "GET / HTTP/1.1\r\nHost: a.example\r\nX: ")
	if took := drip(header); took > 8*time.Second {
		t.Errorf("a dripping header held on for %v", took)
	}
	idle := c.mustDial(c.config(&leaf, nil))
	c.mustAsk(idle, "/")
	if !closed(idle, 8*time.Second) {
		t.Error("an idle connection is kept")
	}
	eventually(t, "nothing left", func() bool { return c.s.Live() == 0 })
	if n := c.s.ConnectionMetrics().Errors["timeout"]; n != 2 {
		t.Errorf("%d handshake timeouts counted, want 2: %v", n, c.s.ConnectionMetrics().Errors)
	}
}

func TestHugeHeaderGets431(t *testing.T) {
	c := newCheckpoint(t, require)
	leaf := c.ca.Client("client")
	conn := c.mustDial(c.config(&leaf, nil))
	go func() { // ends with the connection
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a.example\r\nX: %s\r\n\r\n", strings.Repeat("x", 1<<20))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
	if c.reached.Load() != 0 {
		t.Error("the request was served")
	}
}

// wrongKey signs with another key than the certificate's.
type wrongKey struct {
	crypto.Signer
	other crypto.Signer
}

func (w wrongKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return w.other.Sign(rand.Reader, digest, opts)
}

// A certificate is public: who presents one without its key is nobody, and leaves nothing behind.
func TestInvariant01StolenCertificate(t *testing.T) {
	for versionName, version := range tlsVersions {
		t.Run(versionName, func(t *testing.T) {
			c := newCheckpoint(t, require)
			victim, thief := c.ca.Client("victim"), testpki.NewCA(t)
			cert := victim.TLS()
			cert.PrivateKey = wrongKey{victim.Key, thief.Key}
			conn, err := c.dial(c.config(nil, func(t *tls.Config) {
				t.MinVersion, t.MaxVersion = version, version
				t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			}))
			if err == nil {
				_, _, err = ask(conn, "/")
			}
			if err == nil {
				t.Error("the thief got an answer")
			}
			eventually(t, "counted", func() bool { return c.s.ConnectionMetrics().Refused[reasonUnproven] == 1 })
			m := c.s.ConnectionMetrics()
			if len(c.s.live.of(c.id(victim))) != 0 || m.Live != 0 || m.Full != 0 || c.reached.Load() != 0 {
				t.Errorf("left behind: %+v", m)
			}
			eventually(t, "logged", func() bool { return strings.Contains(c.log.String(), "handshake refused") })
			if strings.Contains(c.log.String(), "accepted") {
				t.Errorf("log:\n%s", c.log.String())
			}
		})
	}
}

func TestRefusedInHandshake(t *testing.T) {
	foreign := testpki.NewCA(t, testpki.Name("foreign"))
	cases := []struct {
		reason identity.Reason
		leaf   func(c *checkpoint) *testpki.Leaf
		alert  string
	}{
		{identity.NoCertificate, func(*checkpoint) *testpki.Leaf { return nil }, "certificate required"},
		{identity.Untrusted, func(*checkpoint) *testpki.Leaf { l := foreign.Client("x"); return &l }, "bad certificate"},
		{identity.Expired, func(c *checkpoint) *testpki.Leaf {
			l := c.ca.Client("x", testpki.NotAfter(time.Now().Add(-time.Hour)))
			return &l
		}, "bad certificate"},
		{identity.WrongUsage, func(c *checkpoint) *testpki.Leaf { l := c.ca.Client("x", testpki.WrongEKU()); return &l }, "bad certificate"},
		{identity.Revoked, func(c *checkpoint) *testpki.Leaf { l := c.ca.Client("x"); c.revoke(l); return &l }, "bad certificate"},
	}
	for _, tc := range cases {
		t.Run(string(tc.reason), func(t *testing.T) {
			c := newCheckpoint(t, alerting)
			conn, err := c.dial(c.config(tc.leaf(c), nil))
			if err == nil {
				_, _, err = ask(conn, "/")
			}
			if err == nil || !strings.Contains(err.Error(), tc.alert) {
				t.Errorf("error %v, want %s", err, tc.alert)
			}
			eventually(t, "counted", func() bool { return c.s.ConnectionMetrics().Refused[string(tc.reason)] == 1 })
			if c.s.Live() != 0 || c.reached.Load() != 0 {
				t.Error("let in")
			}
			eventually(t, "logged", func() bool { return strings.Contains(c.log.String(), "handshake refused") }) // after it is counted
			if log := c.log.String(); !strings.Contains(log, "level=INFO msg=\"handshake refused\"") || !strings.Contains(log, "reason="+string(tc.reason)) || !strings.Contains(log, "sni=a.example") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// A client certificate that crypto/x509 cannot parse ends in an alert and is named in the log.
func TestUnparsableClientCertificate(t *testing.T) {
	c := newCheckpoint(t, func(c *checkpoint) []*site.Host { return []*site.Host{c.host("a.example", site.Request)} })
	leaf := c.ca.Client("client")
	cert := leaf.TLS()
	cert.Leaf = nil
	cert.Certificate = [][]byte{append([]byte{0x30, 0x82, 0x01, 0x00}, make([]byte, 256)...)}
	conn, err := c.dial(c.config(nil, func(t *tls.Config) {
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: cert.Certificate, PrivateKey: leaf.Key, Leaf: leaf.Cert}, nil
		}
	}))
	if err == nil {
		_, _, err = ask(conn, "/")
	}
	if err == nil {
		t.Error("let in")
	}
	eventually(t, "counted", func() bool { return c.s.ConnectionMetrics().Refused[string(identity.Malformed)] == 1 })
	eventually(t, "logged", func() bool { return strings.Contains(c.log.String(), "failed to parse client certificate") })
}

func TestLimits(t *testing.T) {
	c := newCheckpoint(t, require, func(cfg *Config) { cfg.Limits.HandshakesPerIP, cfg.Limits.MaxConnections = 3, 5 })
	leaf := c.ca.Client("client")
	for range 3 {
		c.tcp()
	}
	eventually(t, "three handshakes", func() bool { return c.s.ConnectionMetrics().Accepted == 3 })
	// A refused connection is reset, which connect may report already.
	if fourth, err := net.Dial("tcp", c.addr); err == nil && !closed(fourth, 8*time.Second) {
		t.Error("a fourth handshake from one address is in progress")
	}
	if n := c.s.ConnectionMetrics().Limited["address"]; n != 1 {
		t.Errorf("%v", c.s.ConnectionMetrics().Limited)
	}
	c.s.gate.abort()
	eventually(t, "free again", func() bool {
		c.s.gate.mu.Lock()
		defer c.s.gate.mu.Unlock()
		return c.s.gate.total == 0
	})
	for range 5 {
		c.mustDial(c.config(&leaf, nil))
	}
	if _, err := c.dial(c.config(&leaf, nil)); err == nil {
		t.Error("a sixth connection was accepted")
	}
	if n := c.s.ConnectionMetrics().Limited["connections"]; n == 0 {
		t.Errorf("%v", c.s.ConnectionMetrics().Limited)
	}
}

// Shutdown lets requests in flight finish, closes what is idle, and leaves no goroutine.
func TestInvariant14ShutdownDrains(t *testing.T) {
	before := runtime.NumGoroutine()
	c := newCheckpoint(t, require, func(cfg *Config) { cfg.Limits.DrainTimeout = 30 * time.Second })
	leaf := c.ca.Client("client")
	release := make(chan struct{})
	small := c.s.handler
	c.s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			c.hung <- struct{}{}
			<-release
		}
		small.ServeHTTP(w, r)
	})
	idle, busy, h2 := c.mustDial(c.config(&leaf, nil)), c.mustDial(c.config(&leaf, nil)), c.dialH2(&leaf)
	c.mustAsk(idle, "/")
	pending := c.tcp() // a handshake that never comes
	fmt.Fprintf(busy, "GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n")
	h2.request(t, 1, "GET", "/slow")
	c.begun()
	c.begun()
	stopped := make(chan error, 1)
	go func() { stopped <- c.stop() }()
	if !closed(idle, 8*time.Second) || !closed(pending, 8*time.Second) {
		t.Error("what is idle was not closed at once")
	}
	if _, err := c.dial(c.config(&leaf, nil)); err == nil {
		t.Error("a new connection is accepted")
	}
	if !h2.await(http2.FrameGoAway, 8*time.Second) {
		t.Error("no GOAWAY")
	}
	select {
	case err := <-stopped:
		t.Fatalf("did not wait for the requests: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Errorf("request in flight: %v %v", resp, err)
	}
	if !h2.await(http2.FrameData, 8*time.Second) {
		t.Error("the HTTP/2 request in flight got no answer")
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	_ = resp.Body.Close()
	if !h2.ended(8 * time.Second) {
		t.Error("HTTP/2 connection not closed")
	}
	eventually(t, "goroutines as before", func() bool { return runtime.NumGoroutine() <= before+1 })
}

// What does not end within the drain timeout is cut.
func TestInvariant14DrainTimeout(t *testing.T) {
	c := newCheckpoint(t, require, func(cfg *Config) { cfg.Limits.DrainTimeout = 100 * time.Millisecond })
	leaf := c.ca.Client("client")
	conn, h2 := c.mustDial(c.config(&leaf, nil)), c.dialH2(&leaf)
	fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100\r\n\r\n")
	h2.request(t, 1, "GET", "/hang")
	c.begun()
	c.begun()
	start := time.Now()
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("took %v", took)
	}
	if c.s.Live() != 0 || !closed(conn, 8*time.Second) || !h2.ended(8*time.Second) {
		t.Error("not cut")
	}
}

// failing is a listener that has no descriptors for a while.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: err}
	}
	return f.Listener.Accept()
}

func TestAcceptBacksOff(t *testing.T) {
	c := newCheckpoint(t, require)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- c.s.Serve(ctx, "edge", &failing{ln, []error{os.NewSyscallError("accept4", syscall.EMFILE), os.NewSyscallError("accept4", syscall.EMFILE)}})
	}()
	c.addr = ln.Addr().String()
	leaf := c.ca.Client("client")
	conn := c.mustDial(c.config(&leaf, nil))
	if status, _ := c.mustAsk(conn, "/"); status != 200 {
		t.Errorf("status %d", status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	broken := errors.New("broken")
	ln2, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.s.Serve(t.Context(), "edge", &failing{ln2, []error{broken}}); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

// visit opens a connection of one of three kinds: HTTP/2, HTTP/1.1 after a request, HTTP/1.1 before one.
func (c *checkpoint) visit(leaf *testpki.Leaf, kind int64) net.Conn {
	conn, err := tls.Dial("tcp", c.addr, c.config(leaf, func(t *tls.Config) {
		if kind == 0 {
			t.NextProtos = []string{"h2"}
		}
	}))
	if err != nil {
		c.t.Error(err)
		return nil
	}
	switch kind {
	case 0:
		_, err = io.WriteString(conn, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	case 1:
		_, _, err = ask(conn, "/")
	}
	if err != nil {
		c.t.Error(err)
	}
	return conn
}

// Connections that came and went leave nothing.
func TestConnectionsLeaveNothing(t *testing.T) {
	each := 500
	if os.Getenv("SEKISHO_LONG") != "" {
		each = 10_000
		var files syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
			t.Fatal(err)
		}
		if most := int(files.Cur)/2 - 200; each > most { // both ends are in this process
			t.Logf("%d connections instead of %d: the process may have %d files open", most, each, files.Cur)
			each = most
		}
	}
	c := newCheckpoint(t, require, func(cfg *Config) {
		cfg.Limits.HandshakesPerIP, cfg.Limits.HeaderTimeout, cfg.Limits.IdleTimeout = 1<<20, time.Hour, time.Hour
	})
	var leaves []testpki.Leaf
	for range 20 {
		leaves = append(leaves, c.ca.Client("client"))
	}
	round := func() (goroutines, descriptors int, heap uint64) {
		conns := make([]net.Conn, each)
		var next atomic.Int64
		var work sync.WaitGroup
		for range 8 {
			work.Go(func() {
				for i := next.Add(1) - 1; i < int64(each); i = next.Add(1) - 1 {
					conns[i] = c.visit(&leaves[i%int64(len(leaves))], i%3)
				}
			})
		}
		work.Wait()
		eventually(t, "all live", func() bool { return c.s.Live() == each })
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
		conns = nil
		eventually(t, "none live", func() bool { return c.s.Live() == 0 && c.s.gate.count() == 0 })
		eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() < 50 })
		for range 3 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(fds), m.HeapAlloc
	}
	g1, d1, h1 := round()
	g2, d2, h2 := round()
	t.Logf("%d connections a round: goroutines %d, %d; descriptors %d, %d; heap %d, %d bytes", each, g1, g2, d1, d2, h1, h2)
	if g2 > g1+2 || d2 > d1+2 || float64(h2) > float64(h1)*1.05+64<<10 {
		t.Error("something was left behind")
	}
	if len(c.s.live.expiry.items) != 0 {
		t.Error("the expiry queue holds closed connections")
	}
}
