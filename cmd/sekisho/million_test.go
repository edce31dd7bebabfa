package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestInvariant01NoHandshakeBeforeTheRevokedAreLoaded kills a server that has many revoked certificates and starts it
// again under a client that never stops dialling with one of them: it never gets through. SEKISHO_LONG=1 takes 1,000,000.
func TestInvariant01NoHandshakeBeforeTheRevokedAreLoaded(t *testing.T) {
	rows := 20_000
	if long() {
		rows = 1_000_000
	}
	dir := t.TempDir()
	file, address := millionConfig(t)
	args := []string{"--config", file, "--data", dir, "--edge", address}
	p := start(t, dir, args...)
	revoked, id := p.issue("revoked")
	good, goodID := p.issue("good")
	if status, env := p.api("DELETE", p.certificates()+"/"+id+"?reason=superseded", nil); status != http.StatusOK {
		t.Fatalf("revoke: %d %+v", status, env.Errors)
	}
	p.stop()
	begin := time.Now()
	fillLedger(t, dir, history{issued: rows, revoked: rows})
	t.Logf("ledger filled with %d revoked certificates in %v", rows, time.Since(begin).Round(time.Millisecond))
	p = start(t, dir, args...)
	p.kill()

	h := &hammer{address: address, revoked: p.tlsConfig(revoked), good: p.tlsConfig(good)}
	ctx, cancel := context.WithCancel(t.Context())
	for range 8 {
		go h.dial(ctx)
	}
	begin = time.Now()
	p = start(t, dir, args...)
	ready := time.Since(begin)
	expectAnswer(t, p, h.good, http.StatusOK, "Hello World")
	waitUntil(t, "the revoked certificate is refused", func() bool { return h.refused.Load()+h.through.Load() > 0 })
	time.Sleep(500 * time.Millisecond)
	cancel()
	if n := h.through.Load(); n > 0 {
		t.Errorf("the revoked certificate got through %d times", n)
	}
	if h.refused.Load() == 0 {
		t.Errorf("nothing was refused: the dialling client saw no server (%d dials)", h.dials.Load())
	}
	t.Logf("%d revoked certificates: ready %v after exec; %s; %d dials by the revoked client, %d refused, %d through",
		rows, ready.Round(time.Millisecond), memory(t, p), h.dials.Load(), h.refused.Load(), h.through.Load())
	reportCRL(t, p, rows, begin, goodID)
	expectAnswer(t, p, h.good, http.StatusForbidden, "client certificate was revoked")
	p.stop()
}

// millionConfig writes a configuration with a fixed edge address, so that a client can dial before the server listens.
func millionConfig(t *testing.T) (file, address string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "sekisho.yaml")
	config := `
listen: {admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
log: {access: "off"}
limits: {handshakes_per_ip: 5000}
hosts:
  - {name: localhost, names: ["127.0.0.1"], default: true, echo: true, client_auth: {mode: require}}
`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, "127.0.0.1:" + freePort(t)
}

// hammer dials without pause.
type hammer struct {
	address                 string
	revoked, good           *tls.Config
	dials, refused, through atomic.Int64
}

func (h *hammer) dial(ctx context.Context) {
	dialer := &net.Dialer{Timeout: time.Second}
	for ctx.Err() == nil {
		h.dials.Add(1)
		raw, err := dialer.DialContext(ctx, "tcp", h.address)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
		conn := tls.Client(raw, h.revoked)
		_, _ = io.WriteString(conn, "GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		conn.Close()
		switch {
		case strings.HasPrefix(string(answer), "HTTP/1.1 200"):
			h.through.Add(1)
		case strings.HasPrefix(string(answer), "HTTP/1.1 403"):
			h.refused.Add(1)
		}
	}
}

// memory reads what the process holds.
func memory(t *testing.T, p *process) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return "no /proc here"
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if key, value, _ := strings.Cut(line, ":"); key == "VmRSS" || key == "VmHWM" || key == "RssAnon" {
			out = append(out, key+" "+strings.TrimSpace(value))
		}
	}
	return strings.Join(out, ", ")
}

// reportCRL waits for the first CRL, revokes one more certificate and waits for the CRL that tells of it.
func reportCRL(t *testing.T, p *process, rows int, started time.Time, id string) {
	t.Helper()
	begin := time.Now()
	crl, err := fetchCRL(p)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	t.Logf("first CRL: %d KiB, fetched in %v, %v after exec; %s", len(crl)>>10, time.Since(begin).Round(time.Millisecond), time.Since(started).Round(time.Millisecond), memory(t, p))
	status, env := p.api("GET", p.certificates()+"/"+id, nil)
	if status != http.StatusOK {
		t.Fatalf("get: %d %+v", status, env.Errors)
	}
	_, serialText, _ := strings.Cut(string(env.Result), `"serial_number":"`)
	serial, _ := new(big.Int).SetString(serialText[:strings.IndexByte(serialText, '"')], 16)
	entry, err := asn1.Marshal(serial)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(crl, entry) {
		t.Fatal("the CRL has a certificate that is not revoked")
	}
	begin = time.Now()
	if status, env := p.api("DELETE", p.certificates()+"/"+id, nil); status != http.StatusOK {
		t.Fatalf("revoke: %d %+v", status, env.Errors)
	}
	answered := time.Since(begin)
	for !bytes.Contains(crl, entry) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("no CRL tells of the revocation after 30 s\n%s", p.log)
		}
		time.Sleep(10 * time.Millisecond)
		if crl, err = fetchCRL(p); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(begin)
	t.Logf("one more revoked among %d: answered in %v, in the CRL (fetched whole) after %v; %s", rows, answered.Round(100*time.Microsecond), took.Round(time.Millisecond), memory(t, p))
	// The list of all shards is made once a second at most: a second may be over first, and then it is made and fetched.
	within(t, "the list of all shards tells of a revocation", took, 2*time.Second, 1)
}
