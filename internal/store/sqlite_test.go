package store_test

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

// testStore is a Store that can fail and be killed.
type testStore struct {
	*store.Store
	dir   string
	cfg   store.Config
	fault atomic.Pointer[func(string) error]
}

var (
	_ storetest.Crasher = (*testStore)(nil)
	_ storetest.Faulty  = (*testStore)(nil)
)

func open(t testing.TB, dir string) *testStore {
	t.Helper()
	return openConfig(t, store.Config{Dir: dir})
}

func openConfig(t testing.TB, cfg store.Config) *testStore {
	t.Helper()
	s := &testStore{dir: cfg.Dir, cfg: cfg}
	var err error
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Fault = func(point string) error {
		if hook := s.fault.Load(); hook != nil {
			return (*hook)(point)
		}
		return nil
	}
	s.Store, err = store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *testStore) SetFault(hook func(string) error) {
	if hook == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&hook)
}

// Crash copies the files, WAL included, between a commit and its answer: what a kill -9 there leaves.
func (s *testStore) Crash(t *testing.T) storetest.Interface {
	t.Helper()
	dir := t.TempDir()
	done := make(chan error, 1)
	var once sync.Once
	s.SetFault(func(point string) error {
		if point == "after-commit" {
			once.Do(func() {
				done <- s.copyTo(dir)
			})
		}
		return nil
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.SetFault(nil)
	if s.cfg.Journal.Dir == "" {
		return open(t, dir)
	}
	return openJournaled(t, dir)
}

// copyTo copies database, WAL and journal.
func (s *testStore) copyTo(dir string) error {
	err := errors.Join(copyFile(s.dir, dir, "sekisho.db"), copyFile(s.dir, dir, "sekisho.db-wal"))
	if s.cfg.Journal.Dir == "" {
		return err
	}
	to := filepath.Join(dir, "journal")
	return errors.Join(err, os.MkdirAll(to, 0o700), copyFile(s.cfg.Journal.Dir, to, "revocations.log"))
}

func copyFile(from, to, name string) error {
	in, err := os.Open(filepath.Join(from, name))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(to, name))
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Interface { return open(t, t.TempDir()) })
}
