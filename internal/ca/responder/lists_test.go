package responder_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestLists: the delta and the list of all shards have places, types and tags of their own.
func TestLists(t *testing.T) {
	w := newWorldOf(t, 0, 3)
	tags := map[string]string{}
	for path, want := range map[string]int{
		"/crl/" + w.id + "/0.crl": 200, "/crl/" + w.id + "/2.crl": 200, "/crl/" + w.id + "/2-delta.crl": 200, "/crl/" + w.id + ".crl": 200,
		"/crl/" + w.id + "/3.crl": 404, "/crl/" + w.id + "/3-delta.crl": 404, "/crl/" + w.id + "/-delta.crl": 404, "/crl/" + w.id + "/00-delta.crl": 404,
		"/crl/" + w.id + "/0-delta-delta.crl": 404, "/crl/" + w.id + "/-1.crl": 404, "/crl/none.crl": 404, "/crl/none/0-delta.crl": 404, "/crl/" + w.id + "-delta.crl": 404,
	} {
		got := w.get(path, nil)
		if got.status != want {
			t.Errorf("GET %s: %d, want %d", path, got.status, want)
		}
		if want != 200 {
			continue
		}
		tag := got.header.Get("ETag")
		if other, taken := tags[tag]; taken || tag == "" {
			t.Errorf("%s and %s have the tag %s", path, other, tag)
		}
		tags[tag] = path
		list, err := pkix.ParseCRLHeader(got.body)
		if err != nil || got.header.Get("Content-Type") != "application/pkix-crl" || (list.BaseNumber != nil) != strings.Contains(path, "delta") {
			t.Errorf("%s: %v, %v", path, err, got.header)
		}
	}
}

// TestGzip: the compressed form is the same list under a tag of its own, for GET and HEAD; a client that has either form
// is told so; and curl understands it.
func TestGzip(t *testing.T) {
	w := newWorld(t, 0)
	revokeOne := func(i int) {
		row, _, err := w.IssueWithKey(t.Context(), ca.IssueRequest{Profile: ca.ProfileClient, Subject: fmt.Sprint("CN=c", i), ValidDays: 1}, pkix.ECDSAP256)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Revoke(t.Context(), ca.RevokeRequest{ID: row.ID, Reason: pkix.Superseded}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		revokeOne(i)
	}
	path := "/crl/" + w.id + "/0.crl"
	zipped := http.Header{"Accept-Encoding": {"br, gzip;q=0.9"}}
	plain, small := w.get(path, http.Header{"Accept-Encoding": {"identity"}}), w.get(path, zipped)
	r, err := gzip.NewReader(bytes.NewReader(small.body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain.body) || len(small.body) >= len(plain.body) {
		t.Errorf("%d octets of %d, %v", len(small.body), len(plain.body), err)
	}
	for _, h := range []http.Header{plain.header, small.header} {
		if h.Get("Vary") != "Accept-Encoding" || !strings.HasPrefix(h.Get("ETag"), `"`) || h.Get("Content-Type") != "application/pkix-crl" {
			t.Errorf("%v", h)
		}
	}
	if plain.header.Get("Content-Encoding") != "" || small.header.Get("Content-Encoding") != "gzip" || plain.header.Get("ETag") == small.header.Get("ETag") {
		t.Errorf("%v and %v", plain.header, small.header)
	}
	head := w.do(http.MethodHead, path, zipped, nil)
	if len(head.body) != 0 || head.header.Get("Content-Length") != fmt.Sprint(len(small.body)) || head.header.Get("ETag") != small.header.Get("ETag") ||
		head.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("HEAD: %v", head.header)
	}
	for _, has := range []string{plain.header.Get("ETag"), small.header.Get("ETag"), "W/" + small.header.Get("ETag")} {
		got := w.get(path, http.Header{"Accept-Encoding": {"gzip"}, "If-None-Match": {has}})
		if got.status != http.StatusNotModified || got.header.Get("ETag") != strings.TrimPrefix(has, "W/") || got.header.Get("Vary") == "" || got.header.Get("Content-Encoding") != "" {
			t.Errorf("If-None-Match %s: %d %v", has, got.status, got.header)
		}
	}
	if got := w.get(path, http.Header{"If-None-Match": {small.header.Get("ETag")}, "Accept-Encoding": {"identity"}}); got.status != 200 {
		t.Errorf("who takes no gzip has not the list that is compressed: %d", got.status)
	}
	revokeOne(99)
	if got := w.get(path, http.Header{"Accept-Encoding": {"gzip"}, "If-None-Match": {small.header.Get("ETag")}}); got.status != 200 {
		t.Errorf("the list has changed: %d", got.status)
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is not installed; make test-tools installs it")
	}
	file := filepath.Join(t.TempDir(), "list")
	if out, err := exec.CommandContext(t.Context(), "curl", "-sSf", "--compressed", "-o", file, w.url+path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, w.get(path, http.Header{"Accept-Encoding": {"identity"}}).body) {
		t.Errorf("curl has another list, %v", err)
	}
}
