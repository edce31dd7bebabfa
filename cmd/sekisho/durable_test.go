package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/auditlog"
)

// auditTrail follows the audit log over restarts: each record must continue the chain from the last one read.
type auditTrail struct {
	last   auditlog.Record
	issued map[string]bool // ids of certificate.issue
}

func newAuditTrail() *auditTrail { return &auditTrail{issued: make(map[string]bool)} }

// read reads on, and demands a record for every certificate that was acknowledged.
func (a *auditTrail) read(t *testing.T, p *process, acknowledged map[string]*entry) {
	t.Helper()
	for {
		status, env := p.api("GET", fmt.Sprintf("/sekisho/audit?per_page=1000&from=%d", a.last.Seq+1), nil)
		var rows []struct {
			auditlog.Entry
			Seq        int64
			Prev, Hash string
		}
		if err := json.Unmarshal(env.Result, &rows); err != nil || status != http.StatusOK {
			t.Fatalf("audit log: %d %+v %v", status, env.Errors, err)
		}
		for _, row := range rows {
			r := auditlog.Next(a.last, row.Entry)
			if r.Seq != row.Seq || hex.EncodeToString(r.Prev[:]) != row.Prev || hex.EncodeToString(r.Hash[:]) != row.Hash {
				t.Fatalf("audit record %d does not continue the chain from record %d", row.Seq, a.last.Seq)
			}
			a.last = r
			if r.Action == "certificate.issue" {
				a.issued[r.Object] = true
			}
		}
		if len(rows) == 0 {
			break
		}
	}
	for id := range acknowledged {
		if !a.issued[id] {
			t.Errorf("certificate %s was acknowledged and is not in the audit log", id)
		}
	}
}

func parsePEM(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no certificate: %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestInvariant08RevocationIsOnDiskBeforeTheAnswer has strace watch a revocation: between reading the request and
// writing the answer the journal is synced, and then the write-ahead log. Three are revoked, once the first lists, which sync
// both files too, are published.
func TestInvariant08RevocationIsOnDiskBeforeTheAnswer(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skipf("strace is not installed: %v", err)
	}
	p := startDev(t, t.TempDir())
	var ids []string
	for i := range 3 {
		_, id := p.issue(fmt.Sprint("watched ", i))
		ids = append(ids, id)
	}
	waitUntil(t, "the lists of the root and of 16 shards are published", func() bool { return strings.Count(p.log.String(), "CRL published") >= 17 })
	trace := filepath.Join(t.TempDir(), "trace")
	end := watch(t, p.cmd.Process.Pid, trace)
	for _, id := range ids {
		if status, env := p.api("DELETE", p.certificates()+"/"+id, nil); status != http.StatusOK {
			t.Fatalf("revoke: %d %+v", status, env.Errors)
		}
	}
	end()
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	answered := syncsBeforeAnswer(data)
	if len(answered) == 0 {
		t.Errorf("strace did not see a request and its answer:\n%s", data)
	}
	for _, synced := range answered {
		journal := slices.IndexFunc(synced, func(s string) bool { return strings.Contains(s, "revocations.log") })
		if journal < 0 || !slices.ContainsFunc(synced[journal:], func(s string) bool { return strings.Contains(s, "sekisho.db-wal") }) {
			t.Errorf("between a request and its answer the journal and then the write-ahead log must be synced, not %q:\n%s", synced, data)
		}
	}
	t.Logf("between request and answer: %q", answered)
	p.stop()
}

// watch has strace follow every thread of a process until end. One that begins while strace attaches may escape it, with
// the syncs that it makes: then strace attaches anew.
func watch(t *testing.T, pid int, trace string) (end func()) {
	t.Helper()
	for range 20 {
		strace := exec.Command("strace", "-f", "-y", "-s", "64", "-o", trace, "-e", "trace=fdatasync,fsync,read,write,recvfrom,sendto", "-p", fmt.Sprint(pid))
		stderr := &logBuffer{}
		strace.Stderr = stderr
		if err := strace.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- strace.Wait() }()
		end = func() {
			_ = strace.Process.Signal(syscall.SIGINT) // it may have ended
			<-ended
		}
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(stderr.String(), "attached"); time.Sleep(10 * time.Millisecond) {
			select {
			case err := <-ended:
				t.Skipf("strace cannot attach here: %v %s", err, stderr)
			default:
			}
			if time.Now().After(deadline) {
				end()
				t.Fatalf("strace does not attach: %s", stderr)
			}
		}
		if everyThreadTraced(t, pid) {
			return end
		}
		end()
	}
	t.Fatal("in 20 attempts strace did not attach to every thread")
	return nil
}

func everyThreadTraced(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("no thread of %d: %v", pid, err)
	}
	for _, thread := range threads {
		if status, err := os.ReadFile(thread); err == nil && bytes.Contains(status, []byte("TracerPid:\t0\n")) { // one that has ended is no matter
			return false
		}
	}
	return true
}

// syncsBeforeAnswer returns the completed syncs between the read of each DELETE and the write of its answer.
func syncsBeforeAnswer(trace []byte) (answered [][]string) {
	begun := regexp.MustCompile(`^(\d+) +(fdatasync|fsync)\((.*?)(?:\) += 0| <unfinished)`)
	resumed := regexp.MustCompile(`^(\d+) +<\.\.\. (?:fdatasync|fsync) resumed>.*= 0`)
	running := make(map[string]string)
	var synced []string
	reading := true
	for scanner := bufio.NewScanner(bytes.NewReader(trace)); scanner.Scan(); {
		line := scanner.Text()
		switch {
		case strings.Contains(line, `"DELETE /client/v4/`):
			reading, synced = false, nil
			clear(running)
		case !reading && strings.Contains(line, `"HTTP/1.1 200 OK`):
			reading = true
			answered = append(answered, synced)
		}
		if m := begun.FindStringSubmatch(line); m != nil && !reading {
			if strings.Contains(line, "unfinished") {
				running[m[1]] = m[2] + " " + m[3]
			} else {
				synced = append(synced, m[2]+" "+m[3])
			}
		}
		if m := resumed.FindStringSubmatch(line); m != nil && running[m[1]] != "" {
			synced = append(synced, running[m[1]])
			delete(running, m[1])
		}
	}
	return answered
}

// TestInvariant14TermDuringStart sends SIGTERM at random moments of a first start: the process exits 0, or dies of the
// signal where it has not begun to listen for it, and never with an error. The next start is an ordinary one.
func TestInvariant14TermDuringStart(t *testing.T) {
	dir := t.TempDir()
	args := []string{"serve", "--dev", "--data", dir, "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pki", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}
	for range 12 {
		cmd := exec.Command(binary, args...)
		said := &logBuffer{}
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(60 * time.Millisecond))
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != -1 || strings.Contains(said.String(), "error:") {
			t.Errorf("%v\n%s", err, said)
		}
	}
	startDev(t, dir).stop()
}

// killDuringStart ends a start at a random moment of its first 150 ms.
func killDuringStart(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(binary, "serve", "--dev", "--data", dir, "--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pki", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(rand.N(150 * time.Millisecond))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}
