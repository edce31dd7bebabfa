package upstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type responseTest struct {
	name, answer, method string
	status               int
	body                 string
	err                  string // part of the error text, from RoundTrip or Read
	reuse                bool   // the second request uses the same connection
}

func responseTests() []responseTest {
	many := strings.Repeat("X-A: b\r\n", maxFields+1)
	return []responseTest{
		{name: "length", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello", reuse: true},
		{name: "bare LF", answer: "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", status: 200, body: "hello", reuse: true},
		{name: "no reason", answer: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", status: 200, reuse: true},
		{name: "odd status", answer: "HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", status: 799, reuse: true},
		{name: "same length twice", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", status: 200, body: "hi", reuse: true},
		{name: "chunked", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA \r\n0123456789\r\n0\r\n\r\n", status: 200, body: "abc0123456789", reuse: true},
		{name: "until close", answer: "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it", status: 200, body: "all of it"},
		{name: "HTTP/1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", status: 200, body: "hi"},
		{name: "HTTP/1.0 kept", answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", status: 200, body: "hi", reuse: true},
		{name: "close asked", answer: "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nhi", status: 200, body: "hi"},
		{name: "HEAD", method: "HEAD", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", status: 200, reuse: true},
		{name: "HEAD chunked", method: "HEAD", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status: 200, reuse: true},
		{name: "204", answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, reuse: true},
		{name: "304 with length", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, reuse: true},
		{name: "1xx", answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", status: 200, body: "hi", reuse: true},
		{name: "more than asked", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more", status: 200, body: "hi"},

		{name: "101 unasked", answer: "HTTP/1.1 101 Switching Protocols\r\n\r\n", err: "switched protocols"},
		{name: "endless 1xx", answer: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 4000), err: "too large"},
		{name: "both lengths", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", err: "both"},
		{name: "conflicting lengths", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", err: "conflicting"},
		{name: "length list", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", err: "bad Content-Length"},
		{name: "signed length", answer: "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", err: "bad Content-Length"},
		{name: "length overflow", answer: "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", err: "bad Content-Length"},
		{name: "empty length", answer: "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", err: "empty Content-Length"},
		{name: "gzip coding", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", err: "transfer coding"},
		{name: "chunked twice", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", err: "transfer coding"},
		{name: "HTTP/1.0 chunked", answer: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", err: "HTTP/1.0"},
		{name: "folded", answer: "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", err: "folded"},
		{name: "blank before colon", answer: "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi", err: "malformed response header"},
		{name: "no colon", answer: "HTTP/1.1 200 OK\r\nnothing\r\n\r\n", err: "malformed response header"},
		{name: "lone CR", answer: "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n", err: "control character"},
		{name: "NUL", answer: "HTTP/1.1 200 OK\r\nX: a\x00\r\n\r\n", err: "control character"},
		{name: "huge header", answer: "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 70<<10), err: "too large"},
		{name: "many fields", answer: "HTTP/1.1 200 OK\r\n" + many + "\r\n", err: "more than 512"},
		{name: "not HTTP", answer: "SSH-2.0-OpenSSH_9.2 hello\r\n", err: "malformed status line"},
		{name: "HTTP/2", answer: "HTTP/2.0 200 OK\r\n\r\n", err: "malformed status line"},
		{name: "bad status", answer: "HTTP/1.1 20 OK\r\n\r\n", err: "malformed status line"},
		{name: "nothing", answer: "", err: "EOF"},
		{name: "half a header", answer: "HTTP/1.1 200 OK\r\nX: ", err: "unexpected EOF"},
		{name: "half a body", answer: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", status: 200, body: "hello", err: "unexpected EOF"},
		{name: "half a chunk", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nhello", status: 200, body: "hello", err: "unexpected EOF"},
		{name: "no last chunk", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", status: 200, body: "hi", err: "unexpected EOF"},
		{name: "bad chunk size", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n", status: 200, err: "malformed chunked"},
		{name: "bad chunk end", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n", status: 200, body: "hi", err: "malformed chunked"},
		{name: "chunk line with LF", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n", status: 200, err: "malformed chunked"},
		{name: "huge chunk size", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nhi", status: 200, err: "malformed chunked"},
		{name: "long chunk line", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + strings.Repeat("x", 5000) + "\r\nhi\r\n", status: 200, err: "malformed chunked"},
		{name: "bad trailer", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", status: 200, err: "trailer section has Content-Length"},
		{name: "chunk extensions for ever", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 40), status: 200, err: "not data"},
	}
}

func TestResponses(t *testing.T) {
	for _, split := range []bool{false, true} {
		for _, tt := range responseTests() {
			name := tt.name
			if split {
				if len(tt.answer) > 1000 || tt.name == "more than asked" { // what comes after the next request was sent is its answer
					continue
				}
				name += ", byte by byte"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o := newRawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
					for readHead(r) != "" {
						for i := 0; split && i < len(tt.answer); i++ {
							c.Write([]byte(tt.answer[i : i+1]))
							time.Sleep(20 * time.Microsecond)
						}
						if !split {
							io.WriteString(c, tt.answer)
						}
						if !tt.reuse {
							c.(*net.TCPConn).CloseWrite() // a reset could overtake the answer
							io.Copy(io.Discard, c)
							return
						}
					}
				})
				tr := newTransport(t, Config{URLs: []string{o.url}})
				for range 2 {
					resp, body, err := fetch(tr, newRequest(t, tt.method, nil))
					checkResponse(t, resp, body, err, tt.status, tt.err)
					if tt.err == "" && body != tt.body {
						t.Errorf("body %q, want %q", body, tt.body)
					}
				}
				want := int32(2)
				if tt.reuse {
					want = 1
				}
				if n := o.conns.Load(); n != want {
					t.Errorf("%d connections, want %d", n, want)
				}
			})
		}
	}
}

func checkResponse(t *testing.T, resp *http.Response, body string, err error, status int, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("error %v", err)
	case want != "":
		var e *Error
		if !errors.As(err, &e) || e.Op != OpRead || !strings.Contains(err.Error(), want) {
			t.Fatalf("error %v, body %q; want an *Error of op read with %q", err, body, want)
		}
	case resp.StatusCode != status:
		t.Fatalf("status %d, want %d", resp.StatusCode, status)
	}
}

func TestHeaderMap(t *testing.T) {
	o := newRawOrigin(t, answering("HTTP/1.1 203 Non-Authoritative Information\r\n"+
		"content-TYPE: text/plain\r\nX_under: 1\r\nset-cookie: a=1\r\nSet-Cookie:b=2 \r\nX-Empty:\r\nETag: \"x\"\r\ncontent-length: 2\r\n\r\nhi"))
	tr := newTransport(t, Config{URLs: []string{o.url}})
	resp, _, err := fetch(tr, newRequest(t, "", nil))
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"Content-Type": {"text/plain"}, "X_under": {"1"}, "Set-Cookie": {"a=1", "b=2"},
		"X-Empty": {""}, "Etag": {`"x"`}, "Content-Length": {"2"},
	}
	if d := cmp.Diff(want, resp.Header); d != "" {
		t.Error(d)
	}
	if resp.Status != "203 Non-Authoritative Information" || resp.Proto != "HTTP/1.1" || resp.ContentLength != 2 {
		t.Errorf("status %q, proto %q, length %d", resp.Status, resp.Proto, resp.ContentLength)
	}
	resp.Header.Add("Content-Type", "x") // must not run into the next value
	if d := cmp.Diff([]string{"1"}, resp.Header["X_under"]); d != "" {
		t.Error(d)
	}
}

func TestTrailers(t *testing.T) {
	o := newRawOrigin(t, answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, x-more\r\n\r\n"+
		"2\r\nhi\r\n0\r\nx-sum: 7\r\nX-Unannounced: 8\r\n\r\n"))
	tr := newTransport(t, Config{URLs: []string{o.url}})
	resp, err := tr.RoundTrip(newRequest(t, "", nil))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(http.Header{"X-Sum": nil, "X-More": nil}, resp.Trailer); d != "" {
		t.Error(d)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if d := cmp.Diff(http.Header{"X-Sum": {"7"}, "X-More": nil, "X-Unannounced": {"8"}}, resp.Trailer); d != "" {
		t.Error(d)
	}
}

func TestInterimHook(t *testing.T) {
	o := newRawOrigin(t, answering("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"))
	tr := newTransport(t, Config{URLs: []string{o.url}})
	req := newRequest(t, "", nil)
	var got []string
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, http.StatusText(code)+" "+h.Get("Link"))
			return nil
		},
	}))
	resp, _, err := fetch(tr, req)
	if err != nil || resp.StatusCode != 204 {
		t.Fatal(resp, err)
	}
	if d := cmp.Diff([]string{"Early Hints </a.css>"}, got); d != "" {
		t.Error(d)
	}
}
