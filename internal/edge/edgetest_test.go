package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/revocation"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// front is an edge with one listener, named "edge", and what tests of its HTTP side ask of it.
type front struct {
	t      testing.TB
	server *Server
	p      *pipeline
	index  *revocation.Index
	addr   string
	ca     *testpki.CA
	log    *logBuffer // access log and events, JSON lines
	mu     sync.Mutex
	shared *site.Snapshot
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// frontHost is a host in front of an upstream URL; "" is the echo upstream. The CA issues its server certificate and is
// the one whose clients it trusts.
func frontHost(ca *testpki.CA, name string, mode site.Mode, url string) *site.Host {
	server := ca.Server(strings.Replace(name, "*", "x", 1), name).TLS()
	h := &site.Host{
		Name: name, Mode: mode, Forward: site.Forward{RFC9440: true}, Echo: url == "",
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &server, nil },
	}
	if url != "" {
		h.Upstream.URLs = []string{url}
	}
	if mode != site.Off {
		set, err := trust.NewSet([]trust.CA{{ID: "ca", Name: "ca", Anchors: []*x509.Certificate{ca.Cert}}})
		if err != nil {
			panic(err)
		}
		h.Trust = set
	}
	return h
}

// newFront starts an edge that ends with the test.
func newFront(t testing.TB, ca *testpki.CA, hosts ...*site.Host) *front {
	t.Helper()
	return newFrontWith(t, ca, Config{}, hosts...)
}

// newFrontWith is newFront with limits and such.
func newFrontWith(t testing.TB, ca *testpki.CA, cfg Config, hosts ...*site.Host) *front {
	t.Helper()
	f := &front{t: t, ca: ca, log: &logBuffer{}, index: revocation.NewIndex()}
	f.use(hosts...)
	logger := slog.New(slog.NewJSONHandler(f.log, nil))
	cfg.Snapshot, cfg.Verifier = f.snapshot, verify.New(verify.Config{Revocation: revocation.NewChecker(revocation.CheckerConfig{Index: f.index})})
	cfg.Logger, cfg.AccessLog = logger, logger
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.server, f.p = server, server.handler.(*pipeline)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- server.Serve(context.Background(), "edge", l) }()
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		if err := server.Shutdown(now); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

// use makes the hosts the current snapshot.
func (f *front) use(hosts ...*site.Host) {
	f.t.Helper()
	s, err := site.NewSnapshot(hosts, "")
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shared = s
}

func (f *front) snapshot() *site.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.shared
}

// revoke puts a certificate in the index and cuts its connections, as a revocation does.
func (f *front) revoke(leaf testpki.Leaf) {
	id := pkix.CertIDOf(leaf.Cert, f.ca.Cert)
	f.index.Apply(revocation.Change{Entry: revocation.Entry{ID: id, At: time.Now()}, Revoked: true})
	f.server.Cut(id)
}

// dial opens a TLS connection with an optional client certificate and ALPN protocol.
func (f *front) dial(name string, leaf *testpki.Leaf, protocols ...string) *tls.Conn {
	f.t.Helper()
	c, err := tls.Dial("tcp", f.addr, f.tlsConfig(name, leaf, protocols...))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func (f *front) tlsConfig(name string, leaf *testpki.Leaf, protocols ...string) *tls.Config {
	cfg := &tls.Config{RootCAs: f.ca.Pool(), ServerName: name, NextProtos: protocols}
	if leaf != nil {
		cfg.Certificates = []tls.Certificate{leaf.TLS()}
	}
	return cfg
}

// client is an HTTP client whose connections all go to the front and name one host.
func (f *front) client(name string, leaf *testpki.Leaf, h2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", f.addr)
		},
		TLSClientConfig: f.tlsConfig(name, leaf), Protocols: protocols, DisableCompression: true,
	}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// raw sends bytes over HTTP/1.1 and returns the answer, its body read.
func (f *front) raw(name string, leaf *testpki.Leaf, request string) (*http.Response, string) {
	f.t.Helper()
	c := f.dial(name, leaf, "http/1.1")
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		f.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		f.t.Fatalf("%.80q: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatalf("%.80q: %v", request, err)
	}
	return resp, string(body)
}

func get(t testing.TB, c *http.Client, url string, edit func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}
