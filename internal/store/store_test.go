package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

func TestOpenMakesPrivateFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c#d%41", "data")
	s := open(t, dir)
	storetest.AddCA(t, s)
	for name, want := range map[string]os.FileMode{"": 0o700, "sekisho.db": 0o600, "sekisho.db-wal": 0o600, "sekisho.db-shm": 0o600, "lock": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%q has mode %04o, want %04o", name, got, want)
		}
	}
	if s.Path() != filepath.Join(dir, "sekisho.db") {
		t.Errorf("path %s", s.Path())
	}
}

// TestInvariant08SynchronousFull: the connection that writes fsyncs each commit; see also TestInvariant08Fsync.
func TestInvariant08SynchronousFull(t *testing.T) {
	s := open(t, t.TempDir())
	if level, err := s.Synchronous(t.Context()); err != nil || level != 2 {
		t.Errorf("PRAGMA synchronous is %d, %v; want 2 (FULL)", level, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	if store.Held(dir) || store.Held(filepath.Join(dir, "nothing")) {
		t.Error("held before it was opened")
	}
	s := open(t, dir)
	if !store.Held(dir) {
		t.Error("not held while open")
	}
	_, err := store.Open(t.Context(), store.Config{Dir: dir})
	if !errors.Is(err, store.ErrLocked) {
		t.Fatalf("opened twice: %v, want ErrLocked", err)
	}
	for _, part := range []string{dir, strconv.Itoa(os.Getpid()), "stop that one"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if store.Held(dir) {
		t.Error("held after Close")
	}
	open(t, dir)
}

func TestCloseWaitsAndRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var group sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		group.Go(func() { errs[i] = s.SetMeta(context.Background(), strconv.Itoa(i), "x") })
	}
	time.Sleep(time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if err := s.SetMeta(t.Context(), "late", "x"); !errors.Is(err, store.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	again := open(t, dir)
	for i, err := range errs {
		_, stored, readErr := again.Meta(t.Context(), strconv.Itoa(i))
		if readErr != nil || stored != (err == nil) || err != nil && !errors.Is(err, store.ErrClosed) {
			t.Errorf("write %d: answered %v, stored %t, %v", i, err, stored, readErr)
		}
	}
}

// TestCancelWhileWaiting: a write that waits is dropped with its context, one that has begun is answered truly.
func TestCancelWhileWaiting(t *testing.T) {
	s := open(t, t.TempDir())
	begun, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.SetFault(func(point string) error {
		if point == "before-commit" {
			once.Do(func() { close(begun); <-release })
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	running, waiting := make(chan error, 1), make(chan error, 1)
	go func() { running <- s.SetMeta(ctx, "running", "x") }()
	<-begun
	go func() { waiting <- s.SetMeta(ctx, "waiting", "x") }()
	time.Sleep(10 * time.Millisecond)
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: %v, want context.Canceled", err)
	}
	close(release)
	if err := <-running; err != nil {
		t.Errorf("running: %v, want nil", err)
	}
	for key, want := range map[string]bool{"running": true, "waiting": false} {
		if _, ok, err := s.Meta(t.Context(), key); ok != want || err != nil {
			t.Errorf("%s is stored: %t, %v; want %t", key, ok, err, want)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	db := raw(t, dir)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Config{Dir: dir})
	if !errors.Is(err, store.ErrNewerSchema) || !strings.Contains(err.Error(), "9999") {
		t.Errorf("%v, want ErrNewerSchema with its number", err)
	}
	if store.Held(dir) {
		t.Error("the refused directory is still locked")
	}
}

func TestDamagedFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sekisho.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
		t.Errorf("%v; want the path and what to do", err)
	}
	for _, dir := range []string{"", path, filepath.Join(path, "below")} {
		if _, err := store.Open(t.Context(), store.Config{Dir: dir}); err == nil {
			t.Errorf("directory %q was taken", dir)
		}
	}
}

// TestInvariant08AppendOnly: whoever changes the audit log, lowers a CRL number or drops a certificate in SQL meets a trigger, and who goes around the
// triggers meets the chain.
func TestInvariant08AppendOnly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	storetest.AddCA(t, s)
	c := storetest.Certificate(1)
	if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.AppendAudit(t.Context(), storetest.Entry("a", "b")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.RaiseCRLNumber(t.Context(), storetest.CAID, 0, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	db := raw(t, dir)
	defer db.Close()
	for _, q := range []string{
		`UPDATE audit SET actor = 'x' WHERE seq = 2`,
		`DELETE FROM audit WHERE seq = 4`,
		`INSERT OR REPLACE INTO audit SELECT seq, prev, hash, at, 'x', action, object, outcome, detail FROM audit WHERE seq = 2`,
		`INSERT INTO audit SELECT 9, prev, hash, at, 'x', action, object, outcome, detail FROM audit WHERE seq = 2`,
		`UPDATE crl_numbers SET number = 2`,
		`UPDATE crl_numbers SET number = 3`,
		`DELETE FROM crl_numbers`,
		`DELETE FROM certificates`,
	} {
		if _, err := db.ExecContext(t.Context(), q); err == nil {
			t.Errorf("%s was done", q)
		}
	}
	if err := s.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
	for _, q := range []string{`DROP TRIGGER audit_no_update`, `UPDATE audit SET actor = 'x' WHERE seq = 2`} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if broken, ok := errors.AsType[*auditlog.BreakError](s.VerifyAudit(t.Context())); !ok || broken.Seq != 2 {
		t.Errorf("a changed record: %v, want a break at 2", broken)
	}
}

func explain(t *testing.T, db *sql.DB, query string, args ...any) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&plan, "\t", detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}
