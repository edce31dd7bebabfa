package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"sekisho/internal/testpki"
)

// servePlain runs a plainServer until the test ends.
func servePlain(t *testing.T, ln net.Listener, write time.Duration, handler http.HandlerFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	server := plainServer{listener: ln, handler: handler, logger: slog.New(slog.DiscardHandler), write: write}
	go func() { done <- server.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// TestInvariant13ClientThatNeverReads: it is dropped, over HTTP/1.1 and HTTP/2; who reads gets everything.
func TestInvariant13ClientThatNeverReads(t *testing.T) {
	const size = 32 << 20 // more than the buffers of two sockets
	body := bytes.Repeat([]byte("a"), size)
	ca := testpki.NewCA(t)
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.Server("127.0.0.1").TLS()}, NextProtos: []string{"h2"}}
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			ended := make(chan error, 1)
			ln := loopback(t)
			served, url := ln, "http://"+ln.Addr().String()
			if proto == "HTTP/2.0" {
				served, url = tls.NewListener(ln, config), "https://"+ln.Addr().String()
			}
			servePlain(t, served, 1500*time.Millisecond, func(w http.ResponseWriter, _ *http.Request) {
				_, err := w.Write(body)
				ended <- err
			})
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.Proto != proto {
				t.Fatalf("spoke %s", resp.Proto)
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the answer went out, and nobody read it")
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the handler still writes after 20 s")
			}
			if n, err := io.Copy(io.Discard, resp.Body); err == nil || n == size {
				t.Errorf("%d octets of %d could be read afterwards, %v", n, size, err)
			}
		})
	}
	t.Run("a reader", func(t *testing.T) {
		ln := loopback(t)
		servePlain(t, ln, time.Minute, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
			t.Errorf("%d octets of %d, %v", n, size, err)
		}
	})
}

// TestLongerWriteDeadline: a handler that allows an answer more time than the server does, as the responder does for a
// large CRL, has it.
func TestLongerWriteDeadline(t *testing.T) {
	ln := loopback(t)
	servePlain(t, ln, 200*time.Millisecond, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute))
		for range 4 {
			time.Sleep(100 * time.Millisecond)
			_, _ = w.Write(bytes.Repeat([]byte("a"), 64<<10))
		}
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != 4*64<<10 {
		t.Errorf("%d octets, %v", n, err)
	}
}
