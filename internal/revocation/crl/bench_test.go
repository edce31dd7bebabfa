package crl

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

const million = 1_000_000

// listFile writes a list with n entries.
func listFile(t testing.TB, ca *testpki.CA, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list.crl")
	if err := os.WriteFile(path, many(t, ca, template(ca, 1), n), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func loadFile(t testing.TB, path string, o Options) *List {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := Load(f, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// BenchmarkLoad loads a list of a million entries from a file: copy, signature, index.
func BenchmarkLoad(b *testing.B) {
	ca := testpki.NewCA(b)
	path := listFile(b, ca, million)
	for _, dir := range []string{"", b.TempDir()} {
		b.Run(map[bool]string{true: "heap", false: "mapped"}[dir == ""], func(b *testing.B) {
			for b.Loop() {
				loadFile(b, path, Options{Issuer: ca.Cert, Dir: dir})
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	ca := testpki.NewCA(b)
	l := load(b, many(b, ca, template(ca, 1), million), Options{Issuer: ca.Cert, Dir: b.TempDir()})
	serials := make([]pkix.Serial, 1<<16)
	for _, hit := range []bool{true, false} {
		for i := range serials {
			serials[i] = serialOf(i * 7919 % million)
			if !hit {
				serials[i] = serialOf(million + i)
			}
		}
		b.Run(map[bool]string{true: "hit", false: "miss"}[hit], func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, found := l.Lookup(nil, serials[i&(len(serials)-1)]); found != hit {
					b.Fatal(found)
				}
				i++
			}
		})
	}
}

// resident returns the anonymous and the file memory of the process in MB.
func resident(t testing.TB) (anon, file int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("no /proc/self/status to read the memory from")
	}
	field := func(name string) int {
		_, rest, _ := strings.Cut(string(status), name+":")
		kb, _ := strconv.Atoi(strings.Fields(rest)[0])
		return kb / 1024
	}
	return field("RssAnon"), field("RssFile")
}
