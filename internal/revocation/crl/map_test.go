//go:build linux

package crl

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/testpki"
)

// mappings counts the mapped files in dir, by their places in memory.
func mappings(t *testing.T, dir string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), dir+"/")
}

// TestSwap replaces a mapped list a thousand times under readers that look into it all the time. A mapping that went
// too early is SIGBUS or SIGSEGV, one that stays is found in the maps of the process, and so is its file.
func TestSwap(t *testing.T) {
	ca := testpki.NewCA(t)
	dir := t.TempDir()
	const n = 2000
	der := many(t, ca, template(ca, 1), n)
	var current atomic.Pointer[List]
	current.Store(load(t, der, Options{Issuer: ca.Cert, Dir: dir}))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var looked atomic.Int64
	for r := range 2 {
		wg.Go(func() {
			for i := r; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, found := current.Load().Lookup(nil, serialOf(i%(2*n))); found != (i%(2*n) < n) {
					t.Errorf("serial %d: found %v", i%(2*n), found)
					return
				}
				looked.Add(1)
			}
		})
	}
	swaps := 1000
	if testing.Short() {
		swaps = 100
	}
	most := 0
	for i := range swaps {
		current.Store(load(t, der, Options{Issuer: ca.Cert, Dir: dir}))
		if i%50 == 0 {
			runtime.GC()
			most = max(most, mappings(t, dir))
		}
	}
	close(stop)
	wg.Wait()
	left := 0
	for range 1000 { // cleanups run on a goroutine of the runtime's own
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
		if left = mappings(t, dir); left <= 1 {
			break
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || left > 1 || len(files) > 1 {
		t.Errorf("after %d swaps %d mappings and %d files are left (%v)", swaps, left, len(files), err)
	}
	t.Logf("%d look-ups during %d swaps, at most %d mappings", looked.Load(), swaps, most)
	runtime.KeepAlive(&current)
}

// TestLostPages cuts our own copy off under the list. The fault must end neither the process nor in an answer.
func TestLostPages(t *testing.T) {
	ca := testpki.NewCA(t)
	dir := t.TempDir()
	const n = 1000
	l := load(t, many(t, ca, template(ca, 1), n), Options{Issuer: ca.Cert, Dir: dir})
	if !l.Fresh(moment(), 0) || !l.Readable() {
		t.Fatal("the list is not fresh")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 0); err != nil {
		t.Fatal(err)
	}
	if _, found := l.Lookup(nil, serialOf(1)); found || l.Fresh(moment(), 0) || l.Readable() {
		t.Errorf("found %v, fresh %v, readable %v", found, l.Fresh(moment(), 0), l.Readable())
	}
}

func TestKeep(t *testing.T) {
	ca := testpki.NewCA(t)
	dir := t.TempDir()
	der := many(t, ca, template(ca, 1), 100)
	for range 2 { // the second in place of the first
		l := load(t, der, Options{Issuer: ca.Cert, Dir: dir})
		if err := l.Keep("name.crl"); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(filepath.Join(dir, "name.crl"))
	if err != nil || !bytes.Equal(kept, der) {
		t.Fatalf("kept %d bytes of %d: %v", len(kept), len(der), err)
	}
	info, err := os.Stat(filepath.Join(dir, "name.crl"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	l, err := open("name.crl", Options{Issuer: ca.Cert, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, found := l.Lookup(nil, serialOf(1)); !found {
		t.Error("the list that was kept lacks an entry")
	}
	l = nil
	eventually(t, "the kept file alone is left", func() bool {
		runtime.GC()
		files, err := os.ReadDir(dir)
		return err == nil && len(files) == 1
	})
}

// TestMemory measures what a list of a million entries costs besides the pages of its file.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second; run without -short")
	}
	ca := testpki.NewCA(t)
	path, dir := listFile(t, ca, million), t.TempDir()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	began := time.Now()
	l := loadFile(t, path, Options{Issuer: ca.Cert, Dir: dir})
	took := time.Since(began)
	_, file := resident(t)
	after := heap()
	heaped, mapped := float64(after)-float64(before), float64(len(l.base.index.memory))
	t.Logf("loaded in %v; %.2f bytes of heap and %.2f bytes of the index an entry; %d MB of files resident", took, heaped/million, mapped/million, file)
	if heaped > 1<<20 || mapped == 0 || heaped+mapped > 8*million {
		t.Errorf("%.0f bytes of heap and %.0f of the index: want at most 1 MiB, and 8 an entry in all", heaped, mapped)
	}
	if _, found := l.Lookup(nil, serialOf(million-1)); !found {
		t.Error("the last entry is not found")
	}
}

// TestTenMillion loads a list of ten million entries.
func TestTenMillion(t *testing.T) {
	if os.Getenv("SEKISHO_LONG") == "" {
		t.Skip("makes a list of 350 MB; set SEKISHO_LONG=1")
	}
	ca := testpki.NewCA(t)
	path, dir := listFile(t, ca, 10*million), t.TempDir()
	debug.FreeOSMemory() // what the making of the list took
	began := time.Now()
	l := loadFile(t, path, Options{Issuer: ca.Cert, Dir: dir})
	took := time.Since(began)
	anon, file := resident(t)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d MB loaded in %v; heap %d MB, resident: anonymous %d MB, files %d MB", l.Size()>>20, took, m.HeapAlloc>>20, anon, file)
	for i := 0; i < 20*million; i += 9973 {
		if _, found := l.Lookup(nil, serialOf(i)); found != (i < 10*million) {
			t.Fatalf("serial %d: found %v", i, found)
		}
	}
}
