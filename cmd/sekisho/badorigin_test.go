package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestBadUpstreams: one that is down, resets, is slow or never answers costs its own request and no other.
func TestBadUpstreams(t *testing.T) {
	arrived, aborted := make(chan struct{}, 4), make(chan struct{}, 4)
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Hello World\n") })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(500 * time.Millisecond)
		_, _ = io.WriteString(w, "late")
	})
	mux.HandleFunc("/never", func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		aborted <- struct{}{}
	})
	mux.HandleFunc("/reset", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	})
	upstream := httptest.NewServer(mux)
	defer upstream.Close()
	p, ordinary := badServer(t, upstream.URL)
	pair, _ := p.issue("client")
	client := p.client(pair)
	if status, body := p.get(client, "/slow"); status != http.StatusOK || body != "late" {
		t.Errorf("slow: %d %q", status, body)
	}
	if status, body := p.get(client, "/reset"); status != http.StatusBadGateway {
		t.Errorf("reset: %d %q, want 502", status, body)
	}
	ordinary()
	goAway(t, p, p.client(pair), arrived, aborted)
	ordinary()
	address := upstream.Listener.Addr().String()
	upstream.CloseClientConnections()
	upstream.Close()
	if status, body := p.get(client, "/hello"); status != http.StatusBadGateway || strings.Contains(body, address) {
		t.Errorf("down: %d %q, want 502 without the origin's address", status, body)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	again := &http.Server{Handler: mux}
	go again.Serve(ln)
	defer again.Close()
	waitUntil(t, "the upstream is used again", func() bool { status, _ := p.get(client, "/hello"); return status == http.StatusOK })
	p.stop()
}

// goAway has a client ask for what is never answered and leave once its request is with the upstream, which is told.
func goAway(t *testing.T, p *process, client *http.Client, arrived, aborted <-chan struct{}) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	go func() {
		select {
		case <-arrived:
			leave()
		case <-ctx.Done():
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.ready.Edge+"/never", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
		t.Error("an answer from an upstream that gives none")
	}
	select {
	case <-aborted:
	case <-time.After(15 * time.Second):
		t.Error("the client went away and the upstream was not told")
	}
}

// TestDiskFullDuringIssue fills the file system of the data directory: issuing says so, nothing is half made, the edge
// serves on, and with space again issuing works.
func TestDiskFullDuringIssue(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m,mode=0700"); err != nil {
		t.Skipf("a file system of 3 MiB is needed: mount -t tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	p := startDev(t, dir)
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	csr, _, err := makeCSR(issueFlags{subject: "CN=full", keyType: "ecdsa-p256"})
	if err != nil {
		t.Fatal(err)
	}
	acknowledged, refused := 0, ""
	for range 2000 {
		status, env := p.api("POST", p.certificates(), map[string]any{"csr": string(csr), "validity_days": 30})
		if status == http.StatusOK {
			acknowledged++
			continue
		}
		refused = env.Errors[0].Message
		break
	}
	if !strings.Contains(refused, "no space left on the device") || !strings.Contains(refused, "nothing was stored") {
		t.Errorf("the answer on a full disk is %q", refused)
	}
	// The line follows the answer through a pipe.
	waitUntil(t, "the log names the full disk", func() bool { return strings.Contains(p.log.String(), "no space left on the device") })
	if status, body := p.get(p.client(p.devClient()), "/hello"); status != http.StatusOK {
		t.Errorf("the edge on a full disk: %d %s", status, body)
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	p.issue("space again")
	if got, want := len(everyCertificate(t, p)), acknowledged+2; got != want { // the dev client and the last
		t.Errorf("%d certificates in the ledger, %d were acknowledged", got, want)
	}
	p.kill()
	startDev(t, dir).stop()
}
