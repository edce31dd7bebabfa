package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built once by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

// buildAndRun builds the parent module's command, runs the tests and removes the build.
func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sekisho-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "sekisho")
	build := exec.Command("go", "build", "-o", binary, "./cmd/sekisho")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build ./cmd/sekisho: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// ready is what --ready-file holds once everything listens.
type ready struct {
	Edge                string `json:"edge"`
	Admin               string `json:"admin"`
	PKI                 string `json:"pki"`
	Metrics             string `json:"metrics"`
	AccountID           string `json:"account_id"`
	ZoneID              string `json:"zone_id"`
	Token               string `json:"token"`
	Email               string `json:"email"`
	CA                  string `json:"ca"`
	ClientCert          string `json:"client_cert"`
	ClientKey           string `json:"client_key"`
	ClientCertificateID string `json:"client_certificate_id"`
}

// api is the base URL that a Cloudflare client is pointed at.
func (r ready) api() string { return r.Admin + "/client/v4" }

// lockedBuffer collects a process's output.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startDev starts `sekisho serve --dev` on free ports and state of its own. At the end of the test it is told to
// stop, and must exit 0.
func startDev(t *testing.T) ready {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "ready.json")
	var log lockedBuffer
	cmd := exec.Command(binary, "serve", "--dev", "--data", filepath.Join(dir, "data"), "--ready-file", file,
		"--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pki", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() { stop(t, cmd, exited, &log) })

	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var r ready
		if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &r) == nil {
			return r
		}
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("serve --dev ended before it was ready: %v\n%s", err, log.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("serve --dev wrote no ready file in 30 s\n%s", log.String())
		}
	}
}

// stop ends the program as an init system would and judges how it went.
func stop(t *testing.T, cmd *exec.Cmd, exited <-chan error, log *lockedBuffer) {
	t.Helper()
	// An error here means that it has ended already; Wait says how.
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("after SIGTERM: %v, want exit status 0", err)
		}
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill() // already failed
		<-exited
		t.Error("serve --dev did not end within 20 s of SIGTERM")
	}
	if t.Failed() {
		t.Logf("the program's output:\n%s", log.String())
	}
}
