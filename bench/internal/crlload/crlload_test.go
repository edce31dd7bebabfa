package crlload_test

import (
	"strings"
	"testing"

	"sekisho/bench/internal/crlload"
	"sekisho/bench/internal/pki"
)

// TestRun loads a list in each way, and pins what makes the figures worth something: a list by somebody else is refused,
// and look-ups that find too much or too little end the run.
func TestRun(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	files, err := pki.Make(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Make(other, 1); err != nil {
		t.Fatal(err)
	}
	const n = 20_000
	list, err := pki.MakeList(dir, n)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.MakeList(other, n)
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []string{crlload.Sekisho, crlload.Stdlib, crlload.OpenSSL} {
		t.Run(by, func(t *testing.T) {
			c := crlload.Config{By: by, List: list, CA: files.CA, Entries: n, Dir: t.TempDir(), OpenSSL: "openssl"}
			r, err := crlload.Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if r.Wall <= 0 || r.CPU <= 0 || r.Peak < 1<<20 {
				t.Errorf("%+v", r)
			}
			c.List = foreign
			if _, err := crlload.Run(t.Context(), c); err == nil {
				t.Error("a list with another CA's signature is loaded")
			}
			if by == crlload.OpenSSL {
				return
			}
			if r.Hit == nil || r.Miss == nil || r.Hit.Nanos <= 0 || r.Miss.Nanos <= 0 {
				t.Errorf("look-ups: %+v", r)
			}
			c.List, c.Entries = list, 2*n
			if _, err := crlload.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "serial numbers found") {
				t.Errorf("half of what is looked up is not on the list: %v", err)
			}
		})
	}
}
