package upstream

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bytesConn is a connection on which an answer has already come.
type bytesConn struct {
	net.Conn
	r io.Reader
}

func (c *bytesConn) Read(p []byte) (int, error)      { return c.r.Read(p) }
func (c *bytesConn) Write(p []byte) (int, error)     { return len(p), nil }
func (c *bytesConn) Close() error                    { return nil }
func (c *bytesConn) SetReadDeadline(time.Time) error { return nil }

func (c *bytesConn) SetWriteDeadline(time.Time) error { return nil }

// readOurs reads one response; rest is what was read past it.
func readOurs(t testing.TB, tr *Transport, data []byte, method string, step int) (*http.Response, []byte, error) {
	req := &http.Request{Method: method, URL: &url.URL{Path: "/"}, Host: "h"}
	x, err := tr.newExchange(req)
	if err != nil {
		t.Fatal(err)
	}
	var r io.Reader = bytes.NewReader(data)
	if step > 0 {
		r = &stepReader{r: r, n: step}
	}
	nc := &bytesConn{r: r}
	c := &conn{o: tr.origins[0], nc: nc, raw: nc, buf: make([]byte, readBufferSize)}
	resp, e := c.do(t.Context(), x)
	if e != nil {
		return nil, nil, e
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	tr.CloseIdleConnections()
	return resp, body, err
}

type stepReader struct {
	r io.Reader
	n int
}

func (s *stepReader) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.n)]) }

// readTheirs is the same by net/http.
func readTheirs(data []byte, method string) (*http.Response, []byte, error) {
	br := bufio.NewReader(bytes.NewReader(data))
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		return resp, body, err
	}
}

// FuzzReadResponse: whatever this package accepts, net/http accepts and reads
// alike, in one piece or byte by byte.
func FuzzReadResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nrest",
		"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 404 \r\ncontent-length:0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n3;a=b\r\nabc\r\n0\r\nX-A: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nETag: x\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	tr := newTransport(f, Config{URLs: []string{"http://127.0.0.1:1"}})
	f.Fuzz(func(t *testing.T, data []byte, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		ours, body, err := readOurs(t, tr, data, method, 0)
		slow, slowBody, slowErr := readOurs(t, tr, data, method, 1)
		if (err == nil) != (slowErr == nil) || !bytes.Equal(body, slowBody) {
			t.Fatalf("whole: %q %v\nbyte by byte: %q %v", body, err, slowBody, slowErr)
		}
		if err != nil {
			return
		}
		if d := cmp.Diff(ours.Header, slow.Header); d != "" {
			t.Fatal(d)
		}
		theirs, want, err := readTheirs(data, method)
		if err != nil {
			t.Fatalf("accepted %v %q, net/http: %v", ours.Header, body, err)
		}
		if ours.StatusCode != theirs.StatusCode || !bytes.Equal(body, want) || ours.ContentLength != theirs.ContentLength {
			t.Fatalf("got %d, length %d, %q; net/http %d, length %d, %q", ours.StatusCode, ours.ContentLength, body,
				theirs.StatusCode, theirs.ContentLength, want)
		}
		for _, h := range []http.Header{ours.Header, theirs.Header} {
			for _, k := range []string{"Connection", "Cache-Control", "Transfer-Encoding", "Content-Length", "Trailer"} {
				delete(h, k) // net/http takes some away
			}
		}
		if d := cmp.Diff(theirs.Header, ours.Header); d != "" {
			t.Fatal(d)
		}
		trailers := func(h http.Header) http.Header {
			out := http.Header{}
			for k, vv := range h {
				if len(vv) > 0 {
					out[k] = vv
				}
			}
			return out
		}
		if d := cmp.Diff(trailers(theirs.Trailer), trailers(ours.Trailer)); d != "" {
			t.Fatal(d)
		}
	})
}
