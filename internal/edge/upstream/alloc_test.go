package upstream

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// TestAllocs bounds what a keep-alive GET with a body of 1 KiB allocates: the
// response, its header (map, strings, values), the context's watch.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	answer := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: x\r\nContent-Length: 1024\r\n\r\n" + string(bytes.Repeat([]byte("x"), 1024))
	o := newRawOrigin(t, answering(answer))
	tr := newTransport(t, Config{URLs: []string{o.url}})
	req := newRequest(t, http.MethodGet, nil)
	req.Header.Set("Accept", "*/*")
	get := func() {
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := resp.Body.(io.WriterTo).WriteTo(io.Discard); n != 1024 || err != nil {
			t.Fatal(n, err)
		}
		resp.Body.Close()
	}
	// The origin of this test allocates some 5 times itself.
	if n := testing.AllocsPerRun(200, get); n > 16 {
		t.Errorf("%.0f allocations", n)
	}
}
