package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/ca"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

const childDir = "SEKISHO_STORE_TEST_DIR"

// TestMain is also the process that the tests below kill: it issues and prints each id that was acknowledged.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, child(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func child(dir string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		return err
	}
	_, start, err := s.Certificates(ctx, ca.Filter{Limit: 1})
	for n := start; err == nil; n++ {
		c := storetest.Certificate(n)
		if err = s.RecordCertificate(ctx, c, storetest.Entry("certificate.issue", c.ID)); err == nil {
			fmt.Println(c.ID)
		}
	}
	return err
}

// TestInvariant08KillAndStart kills a process that writes, again and again: each start after it is an ordinary one.
func TestInvariant08KillAndStart(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	storetest.AddCA(t, first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	acked := 0
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var ids []string
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if ids = append(ids, lines.Text()); len(ids) == 20+7*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || len(ids) == 0 {
			t.Fatalf("the child ended by itself after %d writes", len(ids))
		}
		acked += len(ids)
		s := open(t, dir)
		for _, id := range ids {
			if _, err := s.Certificate(t.Context(), "", id); err != nil {
				t.Errorf("round %d: acknowledged and lost: %v", round, err)
			}
		}
		if _, total, err := s.Certificates(t.Context(), ca.Filter{}); err != nil || total < acked {
			t.Errorf("round %d: %d rows, %v; %d were acknowledged", round, total, err, acked)
		}
		if err := errors.Join(s.VerifyAudit(t.Context()), s.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestInvariant08Fsync watches the child under strace: between two acknowledgements there is an fsync.
func TestInvariant08Fsync(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace on this machine: apt-get install strace; TestInvariant08SynchronousFull stands in")
	}
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	first := open(t, dir)
	storetest.AddCA(t, first)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-o", trace, "-e", "trace=fsync,fdatasync,write", "-E", childDir+"="+dir, os.Args[0])
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; n < 20 && lines.Scan(); n++ {
	}
	out.Close() // the child's next line is its last
	_ = cmd.Wait()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	synced, acks := false, 0
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.Contains(line, "sync(") || strings.Contains(line, "sync resumed"):
			synced = true
		case strings.Contains(line, "write(1, \""):
			if !synced {
				t.Errorf("acknowledged without a sync before it: %s", line)
			}
			synced = false
			acks++
		}
	}
	if acks < 10 {
		t.Skipf("strace saw %d acknowledgements; it may not trace here. TestInvariant08SynchronousFull stands in", acks)
	}
}

// TestDatabaseFull: SQLite's own limit of the file stands for the disk's.
func TestDatabaseFull(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	storetest.AddCA(t, s)
	if err := s.LimitPages(t.Context(), 60); err != nil {
		t.Fatal(err)
	}
	fillUp(t, s, dir, func() {
		if err := s.LimitPages(t.Context(), 1<<30); err != nil {
			t.Fatal(err)
		}
	})
}

// fillUp issues until there is no space, then makes room and issues on; nothing acknowledged is lost, nothing refused is
// there.
func fillUp(t *testing.T, s *testStore, path string, makeRoom func()) {
	t.Helper()
	issue := func(n int) error {
		c := storetest.Certificate(n)
		c.DER = append(c.DER, make([]byte, 5000)...)
		return s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID))
	}
	stored, refused := 0, 0
	for n := 0; n < 2000 && refused < 3; n++ {
		switch err := issue(n); {
		case err == nil:
			stored++
		case errors.Is(err, store.ErrDiskFull):
			refused++
			if !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not name %s: %v", path, err)
			}
		default:
			t.Fatalf("write %d: %v, want ErrDiskFull", n, err)
		}
	}
	if refused == 0 || stored == 0 {
		t.Fatalf("%d stored, %d refused; want some of both", stored, refused)
	}
	makeRoom()
	for n := 5000; n < 5003; n++ {
		if err := issue(n); err != nil {
			t.Errorf("with space again: %v", err)
		}
		stored++
	}
	if _, total, err := s.Certificates(t.Context(), ca.Filter{}); err != nil || total != stored {
		t.Errorf("%d rows, %v; %d were acknowledged", total, err, stored)
	}
	if err := s.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
}
