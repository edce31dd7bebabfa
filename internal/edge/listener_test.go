package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// clock is a clock that tests move.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// checkpoint is a whole Server on a real listener, with the pipeline replaced by a small handler unless asked.
type checkpoint struct {
	t        testing.TB
	s        *Server
	addr     string
	ca       *testpki.CA // of servers and clients alike
	server   tls.Certificate
	index    *revocation.Index
	clock    *clock
	snapshot atomic.Pointer[site.Snapshot]
	log      *logBuffer
	reached  atomic.Int64  // requests that were let through
	hung     chan struct{} // one for each request that began to hang or to transfer
	stop     func() error  // ends Serve and Run, then shuts down
}

type option func(*Config)

func newCheckpoint(t testing.TB, hosts func(c *checkpoint) []*site.Host, opts ...option) *checkpoint {
	t.Helper()
	c := &checkpoint{t: t, ca: testpki.NewCA(t), index: revocation.NewIndex(), clock: &clock{}, log: &logBuffer{}, hung: make(chan struct{}, 10000)}
	c.server = c.ca.Server("a.example", "b.example", "localhost").TLS()
	c.use(hosts(c)...)
	cfg := Config{
		Snapshot: c.snapshot.Load, Now: c.clock.now,
		Verifier: verify.New(verify.Config{Revocation: revocation.NewChecker(revocation.CheckerConfig{Index: c.index, Now: c.clock.now}), Now: c.clock.now}),
		Logger:   slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Limits:   Limits{DrainTimeout: 500 * time.Millisecond},
	}
	for _, o := range opts {
		o(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.handler = http.HandlerFunc(c.serve)
	c.s = s
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.Serve(ctx, "edge", ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	work.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	c.stop = sync.OnceValue(func() error {
		cancel()
		work.Wait()
		return s.Shutdown(context.Background())
	})
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return c
}

// serve is the pipeline in small: count, judge, answer.
func (c *checkpoint) serve(w http.ResponseWriter, r *http.Request) {
	conn := connOf(r.Context())
	conn.inflight.Add(1)
	defer conn.inflight.Add(-1)
	st := conn.check(c.clock.now())
	if st.host == nil || st.host.Mode == site.Require && !st.identity.Verified() {
		http.Error(w, "refused: "+string(st.identity.Reason()), http.StatusForbidden)
		return
	}
	c.reached.Add(1)
	switch r.URL.Path {
	case "/download":
		c.hung <- struct{}{}
		block := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	case "/burst":
		_, _ = w.Write(make([]byte, 1<<20)) // the client may be gone
		c.hung <- struct{}{}
	case "/upload":
		c.hung <- struct{}{}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, err)
	case "/hang":
		c.hung <- struct{}{}
		<-r.Context().Done()
	default:
		fmt.Fprintf(w, "hello %s resumed=%v\n", st.identity.Reason(), conn.resumed)
	}
}

// begun waits for a request to hang or to begin a transfer.
func (c *checkpoint) begun() {
	c.t.Helper()
	select {
	case <-c.hung:
	case <-time.After(20 * time.Second):
		c.t.Fatal("no request arrived within 20 s")
	}
}

// use makes the hosts the current snapshot, without telling the server.
func (c *checkpoint) use(hosts ...*site.Host) {
	c.t.Helper()
	s, err := site.NewSnapshot(hosts, "a.example")
	if err != nil {
		c.t.Fatal(err)
	}
	c.snapshot.Store(s)
}

// host is a host of this checkpoint that trusts the given CAs, by default the checkpoint's own.
func (c *checkpoint) host(name string, mode site.Mode, cas ...*testpki.CA) *site.Host {
	c.t.Helper()
	h := &site.Host{Name: name, Mode: mode, Echo: true, Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.server, nil }}
	if len(cas) == 0 {
		cas = []*testpki.CA{c.ca}
	}
	if mode != site.Off {
		var list []trust.CA
		for _, ca := range cas {
			list = append(list, trust.CA{Name: "ca", Anchors: []*x509.Certificate{ca.Cert}})
		}
		set, err := trust.NewSet(list)
		if err != nil {
			c.t.Fatal(err)
		}
		h.Trust = set
	}
	return h
}

// require is one host, a.example, that wants a certificate and refuses by HTTP.
func require(c *checkpoint) []*site.Host { return []*site.Host{c.host("a.example", site.Require)} }

// alerting is the same, refusing in the handshake.
func alerting(c *checkpoint) []*site.Host {
	h := c.host("a.example", site.Require)
	h.RefuseInHandshake = true
	return []*site.Host{h}
}

func (c *checkpoint) config(leaf *testpki.Leaf, edit func(*tls.Config)) *tls.Config {
	cfg := &tls.Config{RootCAs: c.ca.Pool(), ServerName: "a.example", NextProtos: []string{"http/1.1"}}
	if leaf != nil {
		cert := leaf.TLS()
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	if edit != nil {
		edit(cfg)
	}
	return cfg
}

func (c *checkpoint) dial(cfg *tls.Config) (*tls.Conn, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", c.addr, cfg)
	if err != nil {
		return nil, err
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn, nil
}

func (c *checkpoint) mustDial(cfg *tls.Config) *tls.Conn {
	c.t.Helper()
	conn, err := c.dial(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// ask sends a GET over HTTP/1.1 and returns status and body; an error when the connection is dead.
func ask(conn net.Conn, path string) (int, string, error) {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n", path); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func (c *checkpoint) mustAsk(conn net.Conn, path string) (int, string) {
	c.t.Helper()
	status, body, err := ask(conn, path)
	if err != nil {
		c.t.Fatal(err)
	}
	return status, body
}

// id names a leaf of the checkpoint's CA.
func (c *checkpoint) id(leaf testpki.Leaf) pkix.CertID { return pkix.CertIDOf(leaf.Cert, c.ca.Cert) }

func (c *checkpoint) revoke(leaves ...testpki.Leaf) int {
	var ids []pkix.CertID
	var changes []revocation.Change
	for _, l := range leaves {
		ids = append(ids, c.id(l))
		changes = append(changes, revocation.Change{Revoked: true, Entry: revocation.Entry{ID: c.id(l), Reason: pkix.CertificateHold, At: c.clock.now()}})
	}
	c.index.Apply(changes...)
	return c.s.Cut(ids...)
}

func (c *checkpoint) reactivate(leaf testpki.Leaf) {
	c.index.Apply(revocation.Change{Entry: revocation.Entry{ID: c.id(leaf)}})
}

// eventually waits for a condition that must come true soon.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within twenty seconds: %s", what)
}

// closed reports whether the peer ends the connection within the time, and reads what still comes.
func closed(conn net.Conn, within time.Duration) bool {
	_ = conn.SetReadDeadline(time.Now().Add(within))
	_, err := io.Copy(io.Discard, conn)
	ne, ok := errors.AsType[net.Error](err)
	return !ok || !ne.Timeout()
}

// openssl runs the real thing.
func openssl(t testing.TB, stdin io.Reader, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "openssl", args...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// files writes a leaf and its key for openssl.
func files(t testing.TB, leaf testpki.Leaf) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	for name, data := range map[string][]byte{cert: leaf.CertPEM, key: leaf.KeyPEM} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func reasonIs(want identity.Reason) string { return "refused: " + string(want) + "\n" }
