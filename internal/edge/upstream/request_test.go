package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sent encodes req and returns its lines, the header sorted.
func sent(t *testing.T, req *http.Request) ([]string, error) {
	t.Helper()
	tr := newTransport(t, Config{URLs: []string{"http://origin.example:81"}})
	x, err := tr.newExchange(req)
	if err != nil {
		return nil, err
	}
	head, body, _ := strings.Cut(string(x.wire), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	slices.Sort(lines[1:])
	if body != "" {
		lines = append(lines, "", body)
	}
	return lines, nil
}

func TestRequestWire(t *testing.T) {
	get := func(method, target, host string, h http.Header) *http.Request {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{Method: method, URL: u, Host: host, Header: h}
	}
	withBody := func(r *http.Request, body string, n int64) *http.Request {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), n
		return r
	}
	tests := []struct {
		name string
		req  *http.Request
		want []string
		err  string
	}{
		{"plain", get("", "/a%2Fb?x=y", "app.example", nil), []string{"GET /a%2Fb?x=y HTTP/1.1", "Host: app.example"}, ""},
		{"empty path, host of URL", get("GET", "http://u.example:8/", "", nil), []string{"GET / HTTP/1.1", "Host: u.example:8"}, ""},
		{"host of origin", get("GET", "?", "", nil), []string{"GET /? HTTP/1.1", "Host: origin.example"}, ""},
		{"zone", get("GET", "/", "[fe80::1%25en0]:80", nil), []string{"GET / HTTP/1.1", "Host: [fe80::1]:80"}, ""},
		{"IDN", get("GET", "/", "bücher.example", nil), []string{"GET / HTTP/1.1", "Host: xn--bcher-kva.example"}, ""},
		{"asterisk", &http.Request{Method: "OPTIONS", URL: &url.URL{Path: "*"}, Host: "h"}, []string{"OPTIONS * HTTP/1.1", "Host: h"}, ""},
		{"blank in query", &http.Request{URL: &url.URL{Path: "/a b", RawQuery: "c d HTTP/1.1"}, Host: "h"}, []string{"GET /a%20b?c%20d%20HTTP/1.1 HTTP/1.1", "Host: h"}, ""},
		{"framing fields in any spelling are ours", get("GET", "/", "h", http.Header{
			"host": {"evil"}, "Content-Length": {"5"}, "transfer-ENCODING": {"chunked"}, "Connection": {"X"}, "TRAILER": {"a"},
			"Content_length": {"5"}, "content.length": {"5"}, "Transfer_Encoding": {"chunked"}, "TRANSFER_ENCODING": {"chunked"}, "Transfer~encoding": {"x"},
			"X-A": {"1", " 2 "}, "User-Agent": {""},
		}), []string{"GET / HTTP/1.1", "Host: h", "X-A: 1", "X-A: 2"}, ""},
		{"no body, POST", get("POST", "/", "h", nil), []string{"POST / HTTP/1.1", "Content-Length: 0", "Host: h"}, ""},
		{"short body", withBody(get("PUT", "/", "h", nil), "hello", 5), []string{"PUT / HTTP/1.1", "Content-Length: 5", "Host: h", "", "hello"}, ""},
		{"unknown length", withBody(get("PUT", "/", "h", nil), "hello", -1), []string{"PUT / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"}, ""},
		{"body with length 0 is unknown", withBody(get("PUT", "/", "h", nil), "hello", 0), []string{"PUT / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"}, ""},
		{"body too short", withBody(get("PUT", "/", "h", nil), "hell", 5), nil, "shorter than its Content-Length"},
		{"newline in value", get("GET", "/", "h", http.Header{"X": {"a\r\nY: b"}}), nil, "control character"},
		{"bad name", get("GET", "/", "h", http.Header{"X:": {"a"}}), nil, "field name"},
		{"newline in host", get("GET", "/", "h\r\nX: y", nil), nil, "host"},
		{"newline in query", &http.Request{URL: &url.URL{Path: "/", RawQuery: "a\r\nb"}, Host: "h"}, nil, "control character"},
		{"blank in opaque", &http.Request{URL: &url.URL{Opaque: "/a b"}, Host: "h"}, nil, "control character"},
		{"relative", &http.Request{URL: &url.URL{Opaque: "a"}, Host: "h"}, nil, "absolute path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := sent(t, tt.req)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %q, error %v; want %q", got, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRefusedRequests(t *testing.T) {
	tr := newTransport(t, Config{URLs: []string{"http://127.0.0.1:1"}})
	for want, req := range map[string]*http.Request{
		"CONNECT": {Method: "CONNECT", URL: &url.URL{Path: "/"}},
		"token":   {Method: "G T", URL: &url.URL{Path: "/"}},
		"URL":     {Method: "GET"},
	} {
		closed := &closeCounter{Reader: strings.NewReader("x")}
		req.Body = closed
		if _, err := tr.RoundTrip(req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if closed.n == 0 {
			t.Errorf("%s: body not closed", want)
		}
	}
	tr.Close()
	if _, err := tr.RoundTrip(newRequest(t, "GET", nil)); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

type closeCounter struct {
	io.Reader
	n int
}

func (c *closeCounter) Close() error { c.n++; return nil }

// TestUploads sends bodies of all framings through net/http's server, which
// echoes them while it reads.
func TestUploads(t *testing.T) {
	o := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		http.NewResponseController(w).Flush() // else a short answer gets a length, and no trailer
		io.Copy(w, r.Body)
		w.Header().Set(http.TrailerPrefix+"X-Got", r.Trailer.Get("X-Sum"))
	})
	tr := newTransport(t, Config{URLs: []string{o.URL}})
	for _, size := range []int{1, maxInline, maxInline + 1, 300_000, 3 << 20} {
		for _, known := range []bool{true, false} {
			data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			req := newRequest(t, "POST", io.NopCloser(bytes.NewReader(data)))
			length := "-1"
			if known {
				req.ContentLength, length = int64(size), fmt.Sprint(size)
			} else {
				req.Trailer = http.Header{"X-Sum": {"42"}}
			}
			resp, got, err := fetch(tr, req)
			if err != nil {
				t.Fatal(size, known, err)
			}
			if got != string(data) || resp.Header.Get("X-Length") != length {
				t.Errorf("size %d: got %d bytes, length %s", size, len(got), resp.Header.Get("X-Length"))
			}
			if !known && resp.Trailer.Get("X-Got") != "42" {
				t.Errorf("request trailer did not arrive: %v", resp.Trailer)
			}
		}
	}
	if n := o.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestEarlyAnswer uploads 10 MiB to an origin that refuses without reading.
func TestEarlyAnswer(t *testing.T) {
	const refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
	for _, hang := range []bool{true, false} {
		o := newRawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(c, refusal)
			if hang { // keeps the connection open and reads nothing
				<-t.Context().Done()
			}
		})
		tr := newTransport(t, Config{URLs: []string{o.url}})
		for _, length := range []int64{10 << 20, -1} {
			req := newRequest(t, "POST", io.LimitReader(endless{}, 10<<20))
			req.ContentLength = length
			closed := &closeCounter{Reader: req.Body}
			req.Body = closed
			start := time.Now()
			resp, body, err := fetch(tr, req)
			if err != nil || resp.StatusCode != 413 || body != "big" {
				t.Fatalf("hang %v: %v %q %v", hang, resp, body, err)
			}
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("took %v", d)
			}
			if closed.n != 1 {
				t.Errorf("request body closed %d times", closed.n)
			}
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestBodyFails ends the upload with an error of the body's own.
func TestBodyFails(t *testing.T) {
	aborted := make(chan bool, 1)
	o := newHTTPOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		aborted <- err != nil
	})
	tr := newTransport(t, Config{URLs: []string{o.URL}})
	cause := errors.New("client went away")
	for name, length := range map[string]int64{"chunked": -1, "length": 1 << 20} {
		pr, pw := io.Pipe()
		req := newRequest(t, "POST", pr)
		req.ContentLength = length
		go func() {
			io.WriteString(pw, "some")
			pw.CloseWithError(cause)
		}()
		_, err := tr.RoundTrip(req)
		var e *Error
		if !errors.As(err, &e) || e.Op != OpBody || !errors.Is(err, cause) {
			t.Errorf("%s: %v", name, err)
		}
		if !<-aborted {
			t.Errorf("%s: the origin took a cut-off body for whole", name)
		}
	}
}

// TestStuckBody ends an exchange whose body's Read never returns by itself.
func TestStuckBody(t *testing.T) {
	o := newRawOrigin(t, func(_ int, _ net.Conn, r *bufio.Reader) { readHead(r) })
	tr := newTransport(t, Config{URLs: []string{o.url}})
	pr, pw := io.Pipe()
	defer pw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := tr.RoundTrip(newRequest(t, "POST", pr).WithContext(ctx))
	if err == nil || ctx.Err() != nil {
		t.Errorf("error %v, context %v", err, ctx.Err())
	}
	if _, err := io.WriteString(pw, "x"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("request body was not closed: %v", err)
	}
}
