package load_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"sekisho/bench/internal/bare"
	"sekisho/bench/internal/load"
	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/upstream"
)

// startBare runs the upstream and the bare proxy until the test ends, and returns the proxy's address.
func startBare(t *testing.T, files pki.Files) string {
	t.Helper()
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { origin.Close() })
	go func() { _ = upstream.Serve(origin) }() // ends when the listener is closed
	addr := freeAddress(t)
	done := make(chan error, 1)
	go func() { done <- bare.Run(t.Context(), addr, "http://"+origin.Addr().String(), files) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// freeAddress is where nobody listens. Its port is below those that Linux gives to whoever asks for any.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no port of a hundred between 20000 and 32000 is free")
	return ""
}

// TestRun loads the bare proxy with each row for a moment: everything must succeed, and resume only where it should.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	files, err := pki.Make(dir, 3000)
	if err != nil {
		t.Fatal(err)
	}
	clients, err := pki.LoadClients(dir)
	if err != nil {
		t.Fatal(err)
	}
	addr := startBare(t, files)
	for _, row := range load.Rows() {
		if row.Plain() { // TestPlain
			continue
		}
		t.Run(string(row), func(t *testing.T) {
			r, err := load.Run(load.Config{Row: row, Addr: addr, Clients: clients, Seconds: 0.2, PID: os.Getpid()})
			if err != nil {
				t.Fatal(err)
			}
			if r.Ops == 0 || r.Errors > 0 || r.P50 <= 0 || r.P99 < r.P50 {
				t.Errorf("%+v", r)
			}
			want := 0
			if row == load.Resumed {
				want = r.Ops
			}
			if r.Resumed != want {
				t.Errorf("%d of %d resumed, want %d", r.Resumed, r.Ops, want)
			}
		})
	}
}

// TestRefused pins what makes the figures worth something: a refused certificate is an error, not a handshake.
func TestRefused(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	files, err := pki.Make(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Make(other, 1000); err != nil {
		t.Fatal(err)
	}
	strangers, err := pki.LoadClients(other)
	if err != nil {
		t.Fatal(err)
	}
	addr := startBare(t, files)
	_, err = load.Run(load.Config{Row: load.FullSeen, Addr: addr, Clients: strangers, Seconds: 0.1, PID: os.Getpid()})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another CA's certificates: %v, want the server's alert", err)
	}
	r, err := load.Run(load.Config{Row: load.Resumed, Addr: addr, Clients: strangers, Seconds: 0.1, PID: os.Getpid()})
	if err == nil && (r.Ops > 0 || r.Errors == 0) {
		t.Errorf("another CA's certificates: %d handshakes, %d errors", r.Ops, r.Errors)
	}
	if err := load.Probe(addr, nil); err == nil {
		t.Error("a client without a certificate was let in")
	}
}
