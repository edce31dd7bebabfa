package admin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"sekisho/internal/testpki"
)

// TestListener asks one port in clear, by TLS and with silence, and counts what is left when it is closed.
func TestListener(t *testing.T) {
	before := runtime.NumGoroutine()
	pki := testpki.NewCA(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	ln := Listener(inner, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pki.Server("127.0.0.1").TLS()}})
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			_, _ = io.WriteString(w, "tls "+r.Proto)
			return
		}
		_, _ = io.WriteString(w, "plain "+r.Proto)
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()

	// Silent connections must not keep anybody waiting.
	var silent []net.Conn
	for range 50 {
		conn, err := net.Dial("tcp", inner.Addr().String())
		check(t, err)
		silent = append(silent, conn)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pki.Cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	for url, want := range map[string]string{"http://": "plain HTTP/1.1", "https://": "tls HTTP/2.0"} {
		resp, err := client.Get(url + inner.Addr().String())
		check(t, err)
		body, err := io.ReadAll(resp.Body)
		check(t, errors.Join(err, resp.Body.Close()))
		if string(body) != want {
			t.Errorf("%s: %q, want %q", url, body, want)
		}
	}
	// A client hello that comes in single bytes.
	conn, err := net.Dial("tcp", inner.Addr().String())
	check(t, err)
	slow := tls.Client(dribble{conn}, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	if err := slow.Handshake(); err != nil {
		t.Errorf("a client hello in single bytes: %v", err)
	}
	check(t, slow.Close())

	transport.CloseIdleConnections()
	check(t, server.Close())
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("serve: %v", err)
	}
	for _, conn := range silent {
		check(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout(err)) {
			t.Fatalf("a silent connection is left open: %v", err)
		}
		_ = conn.Close()
	}
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// errTimeout returns err when it is a timeout, and nothing that err could be otherwise.
func errTimeout(err error) error {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return err
	}
	return errNoHostname
}

// TestListenerBeyondLoopback: TLS only; a request in clear is told so.
func TestListenerBeyondLoopback(t *testing.T) {
	pki := testpki.NewCA(t)
	inner, err := net.Listen("tcp", "0.0.0.0:0")
	check(t, err)
	ln := Listener(inner, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pki.Server("127.0.0.1").TLS()}})
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a request in clear reached the handler")
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	_, port, err := net.SplitHostPort(inner.Addr().String())
	check(t, err)
	resp, err := http.Get("http://127.0.0.1:" + port)
	check(t, err)
	body, err := io.ReadAll(resp.Body)
	check(t, errors.Join(err, resp.Body.Close()))
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "HTTPS") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	check(t, server.Close())
	<-done
}

// dribble writes single bytes.
type dribble struct{ net.Conn }

func (d dribble) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}
