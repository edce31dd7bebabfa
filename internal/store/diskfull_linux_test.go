package store_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"sekisho/internal/store/storetest"
)

// TestDiskFull fills a small file system of its own and makes room again.
func TestDiskFull(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("sekisho", disk, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("no file system can be mounted here (%v); TestDatabaseFull stands in", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
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
