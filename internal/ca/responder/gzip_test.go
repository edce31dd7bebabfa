package responder

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"sekisho/internal/ca"
)

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "x-gzip": true, "br, gzip": true, "gzip;q=0": false, "gzip; q=0.000": false,
		"gzip;q=0.001": true, "*": true, "*;q=0": false, "*;q=0.5": true, "gzip;q=0, *": false, "*;q=0, gzip;q=1": true,
		"identity": false, "identity, gzip;q=0.5": false, "identity;q=0.5, gzip;q=0.5": true, "identity;q=0.5, *;q=0.1": false,
		"gzip;q=2": false, "gzip;q=-1": false, "gzip;q=x": false, "gzip;q=NaN": false, "gzip;level=9": false, "gzip;": true,
		"deflate, br": false, "gzipped": false, " gzip ; Q = 1 ": true,
	} {
		if got := acceptsGzip([]string{header}); got != want {
			t.Errorf("Accept-Encoding %q: %v, want %v", header, got, want)
		}
	}
	if !acceptsGzip([]string{"br", "gzip"}) || acceptsGzip(nil) {
		t.Error("several headers, or none")
	}
}

// TestGzipCache: one form a list, made once; the newest list of a place replaces the one before; what does not get smaller
// or came too soon after a dear one goes out as it is; the whole is bounded.
func TestGzipCache(t *testing.T) {
	list := func(id, tag string, size int) ca.CRL {
		return ca.CRL{CAID: id, DER: bytes.Repeat([]byte(tag), size/len(tag)), ETag: `"` + tag + `"`}
	}
	g := newGzipCache()
	first := g.of(list("a", "one", 9000))
	if got := unzip(t, first); !bytes.Equal(got, list("a", "one", 9000).DER) {
		t.Fatal("it is another list")
	}
	if again := g.of(list("a", "one", 9000)); &again[0] != &first[0] {
		t.Error("the list was compressed twice")
	}
	g.next = time.Now().Add(time.Hour)
	if g.of(list("b", "one", 9000)) != nil || g.of(list("a", "one", 9000)) == nil {
		t.Error("while compressing pauses, only what there is goes out")
	}
	g.next = time.Time{}
	if got := unzip(t, g.of(list("a", "two", 9000))); !bytes.Equal(got, list("a", "two", 9000).DER) || len(g.lists) != 1 {
		t.Errorf("the next list of the place: %d kept", len(g.lists))
	}
	noise := make([]byte, 4000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	if g.of(ca.CRL{CAID: "noise", DER: noise, ETag: `"n"`}) != nil || g.of(list("small", "x", 100)) != nil {
		t.Error("what does not get smaller, or is small, was compressed")
	}
	for i := range 2 * gzipListsMax {
		g.next = time.Time{}
		g.keep(place{ca: fmt.Sprint(i)}, gzipped{"x", make([]byte, gzipKept/1000)})
	}
	total := 0
	for _, z := range g.lists {
		total += len(z.body)
	}
	if total != g.size || total > gzipKept || len(g.lists) > gzipListsMax {
		t.Errorf("%d lists of %d octets are kept, %d counted", len(g.lists), total, g.size)
	}
}

func unzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}
