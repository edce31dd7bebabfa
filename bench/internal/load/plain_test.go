package load_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sekisho/bench/internal/load"
)

// TestPlain loads servers that keep connections, close each one, and write in chunks; each request is asked about in turn.
// An answer that is none of the row's is an error.
func TestPlain(t *testing.T) {
	const good = "\x30\x80\x00\x18\x0f20260101000000Z"
	var seen [2]atomic.Int64
	count := func(r *http.Request) {
		var n int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &n); err == nil {
			seen[n].Add(1)
		}
	}
	for name, c := range map[string]struct {
		row     load.Row
		handler http.HandlerFunc
		ok      bool
	}{
		"kept": {load.OCSPGet, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, good) }, true},
		"closed": {load.OCSPNonce, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, good)
		}, true},
		"chunked": {load.Issue16, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "BEGIN CERTIFICATE")
			_ = http.NewResponseController(w).Flush()
			fmt.Fprint(w, "-----")
		}, true},
		"one":     {load.Issue1, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "BEGIN CERTIFICATE") }, true},
		"refused": {load.OCSPGet, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "\x30\x03\x0a\x01\x06") }, false},
		"404":     {load.Issue1, http.NotFound, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { count(r); c.handler(w, r) }))
			defer server.Close()
			file := filepath.Join(t.TempDir(), "requests.bin")
			if err := load.WriteRequests(file, [][]byte{load.Get("/0"), load.Post("/1", "", []byte("x"))}); err != nil {
				t.Fatal(err)
			}
			before := [2]int64{seen[0].Load(), seen[1].Load()}
			r, err := load.Run(load.Config{Row: c.row, Addr: strings.TrimPrefix(server.URL, "http://"), Seconds: 0.2, PID: os.Getpid(), Requests: file})
			if err != nil {
				t.Fatal(err)
			}
			if (r.Ops > 0) != c.ok || (r.Errors == 0) != c.ok {
				t.Errorf("%+v", r)
			}
			if seen[0].Load() == before[0] || seen[1].Load() == before[1] {
				t.Error("the requests were not sent in turn")
			}
		})
	}
}
