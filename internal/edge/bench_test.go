package edge

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"sekisho/internal/testpki"
)

// BenchmarkHandshake runs full mutual handshakes over loopback, client included, against the edge and against bare
// crypto/tls with the standard library's own verification.
func BenchmarkHandshake(b *testing.B) {
	b.Run("edge", func(b *testing.B) {
		c := newCheckpoint(b, require, func(cfg *Config) { cfg.Logger = slog.New(slog.DiscardHandler) })
		leaf := c.ca.Client("client")
		benchmarkHandshakes(b, c.addr, c.config(&leaf, nil))
	})
	b.Run("edge resumed", func(b *testing.B) {
		c := newCheckpoint(b, require, func(cfg *Config) { cfg.Logger = slog.New(slog.DiscardHandler) })
		leaf := c.ca.Client("client")
		cfg := c.config(&leaf, func(t *tls.Config) { t.ClientSessionCache = &oneSession{} })
		c.mustAsk(c.mustDial(cfg), "/")
		benchmarkHandshakes(b, c.addr, cfg)
	})
	for name, resume := range map[string]bool{"bare": false, "bare resumed": true} {
		b.Run(name, func(b *testing.B) {
			ca := testpki.NewCA(b)
			addr := bareServer(b, ca)
			leaf := ca.Client("client")
			cert := leaf.TLS()
			cfg := &tls.Config{RootCAs: ca.Pool(), ServerName: "a.example", Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
			if resume {
				cfg.ClientSessionCache = &oneSession{}
			}
			benchmarkHandshakes(b, addr, cfg)
		})
	}
}

// benchmarkHandshakes connects, waits until the server ended the handshake (its ticket or a byte of the answer), leaves.
func benchmarkHandshakes(b *testing.B, addr string, cfg *tls.Config) {
	b.Helper()
	b.ReportAllocs()
	buffer := make([]byte, 512)
	for b.Loop() {
		conn, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
		if err == nil {
			_, err = conn.Read(buffer)
		}
		if err != nil {
			b.Fatal(err)
		}
		_ = conn.Close()
	}
}

// bareServer is crypto/tls alone: it verifies the client and answers one byte.
func bareServer(b *testing.B, ca *testpki.CA) string {
	b.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{ca.Server("a.example").TLS()}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"},
	})
	if err != nil {
		b.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() { serveOne(conn) })
		}
	})
	b.Cleanup(func() { _ = ln.Close(); work.Wait() })
	return ln.Addr().String()
}

func serveOne(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	buffer := make([]byte, 4096)
	if _, err := conn.Read(buffer); err == nil {
		_, _ = io.WriteString(conn, "x")
		_, _ = conn.Read(buffer)
	}
}
