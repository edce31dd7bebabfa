package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

// smallDisk mounts a file system of its own; the test that stands in for this one is named where it cannot.
func smallDisk(t *testing.T, size, standIn string) string {
	t.Helper()
	disk := t.TempDir()
	if err := syscall.Mount("sekisho", disk, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no file system can be mounted here (%v); %s stands in", err, standIn)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// TestInvariant08JournalDiskFull fills the disk of the journal, which is another than the database's: nothing is revoked
// until there is space, issuing goes on, and nothing is half-done.
func TestInvariant08JournalDiskFull(t *testing.T) {
	disk, dir := smallDisk(t, "64k", "TestInvariant08JournalFaults"), t.TempDir()
	cfg := journaled(dir)
	cfg.Journal.Dir = filepath.Join(disk, "journal")
	s := openConfig(t, cfg)
	storetest.AddCA(t, s)
	ballast := filepath.Join(disk, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 40<<10), 0o600))
	revoked, refused := 0, 0
	for n := range 100 {
		mustIssue(t, s.Store, n)
		switch err := apply(s.Store, t, n, ca.Revoked, pkix.Superseded); {
		case err == nil:
			revoked++
		case errors.Is(err, store.ErrDiskFull) && strings.Contains(err.Error(), disk):
			refused++
		default:
			t.Fatalf("revocation %d: %v, want ErrDiskFull with the journal's path", n, err)
		}
	}
	if number := dumpOf(t, s.Store).Number; revoked == 0 || refused == 0 || number != int64(revoked) {
		t.Fatalf("%d revoked, %d refused, CRL number %d; want some of both, and the number of the revoked", revoked, refused, number)
	}
	must(t, os.Remove(ballast))
	for n := revoked; n < 100; n++ {
		mustApply(t, s.Store, n, ca.Revoked, pkix.Superseded)
	}
	closeStore(t, s)
	report, err := store.Verify(t.Context(), cfg, "")
	if err != nil || len(report.Findings) > 0 || report.Certificates != 100 {
		t.Errorf("%+v, %v; want 100 certificates and no finding", report, err)
	}
}

// TestDiskFull fills a small file system of its own and makes room again.
func TestDiskFull(t *testing.T) {
	disk := smallDisk(t, "3m", "TestDatabaseFull")
	dir := filepath.Join(disk, "data")
	s := open(t, dir)
	storetest.AddCA(t, s)
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fillUp(t, s, disk, func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	})
}
