package edge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/edge/upstream"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

// origin starts an origin server, over HTTP/2 without TLS too.
func origin(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// badOrigin accepts connections and leaves them to serve.
func badOrigin(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			serve(c)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestUpstreamFailures(t *testing.T) {
	ca := testpki.NewCA(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := "http://" + l.Addr().String()
	_ = l.Close()
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text); _ = c.Close() }
	}
	for _, tt := range []struct {
		name, url string
		status    int
		reason    string
	}{
		{"down", down, 502, "upstream_unreachable"},
		{"hangs up", badOrigin(t, func(c net.Conn) { _ = c.Close() }), 502, "upstream_broke_off"},
		{"resets", badOrigin(t, func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() }), 502, "upstream_broke_off"},
		{"no HTTP", badOrigin(t, say("SSH-2.0-OpenSSH_9.2\r\n")), 502, "upstream_broke_off"},
		{"header too large", badOrigin(t, say("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")), 502, "upstream_broke_off"},
		{"switches unasked", badOrigin(t, say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")), 502, ""},
	} {
		f := newFront(t, ca, frontHost(ca, "a.example", site.Off, tt.url))
		resp, body := f.raw("a.example", nil, "GET /p HTTP/1.1\r\nHost: a.example\r\n\r\n")
		if resp.StatusCode != tt.status || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: status %d, header %v, want %d", tt.name, resp.StatusCode, resp.Header, tt.status)
		}
		if strings.Contains(body, "127.0.0.1") || strings.Count(body, "\n") != 1 {
			t.Errorf("%s: body %q", tt.name, body)
		}
		line := f.logLine(resp.Header.Get("X-Request-Id"))
		if line["decision"] != "allow" || line["reason"] != "" || tt.reason != "" && line["failure"] != tt.reason {
			t.Errorf("%s: log has %v", tt.name, line)
		}
		if !strings.Contains(f.log.String(), strings.TrimPrefix(tt.url, "http://")) && tt.reason != "" {
			t.Errorf("%s: the log does not name the origin:\n%s", tt.name, f.log.String())
		}
		if resp, _ := f.raw("a.example", nil, "GET /p HTTP/1.1\r\nHost: a.example\r\nAccept: text/html\r\n\r\n"); resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: no page: %v", tt.name, resp.Header)
		}
	}
}

// An origin that does not answer in time, or takes no more of a body, is answered for.
func TestUpstreamTimeouts(t *testing.T) {
	ca := testpki.NewCA(t)
	const limit = 200 * time.Millisecond
	over := make(chan struct{})
	hang := origin(t, func(http.ResponseWriter, *http.Request) { <-over })
	t.Cleanup(func() { close(over) })
	for _, scheme := range []string{"http", "h2c"} {
		h := frontHost(ca, "a.example", site.Off, strings.Replace(hang.URL, "http", scheme, 1))
		h.Upstream.DialTimeout, h.Upstream.HeaderTimeout = limit, limit
		f := newFront(t, ca, h)
		for _, h2 := range []bool{false, true} {
			c := f.client("a.example", nil, h2)
			for _, body := range []io.Reader{nil, strings.NewReader("short"), &pattern{n: 1 << 40}} {
				start := time.Now()
				resp, err := c.Post("https://a.example/", "text/plain", body)
				if err != nil {
					t.Errorf("%s, HTTP/2 %v, %T: %v", scheme, h2, body, err)
					continue
				}
				text, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(text), "did not answer in time") {
					t.Errorf("%s, HTTP/2 %v, %T: status %d, %q", scheme, h2, body, resp.StatusCode, text)
				}
				if took := time.Since(start); took < limit || took > 10*limit {
					t.Errorf("%s, HTTP/2 %v, %T: %v", scheme, h2, body, took)
				}
			}
		}
		if n := f.server.RequestMetrics().UpstreamErrors["timeout"]; n != 6 {
			t.Errorf("%s: %d timeouts counted, want 6", scheme, n)
		}
	}
}

func TestFailureStatuses(t *testing.T) {
	ca := testpki.NewCA(t)
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, ""))
	for _, tt := range []struct {
		err    error
		status int
		text   string
	}{
		{&upstream.Error{Op: upstream.OpTimeout, Addr: "http://10.0.0.1", Err: errors.New("x")}, 504, "did not answer in time"},
		{&upstream.Error{Op: upstream.OpWrite, Addr: "http://10.0.0.1", Err: errors.New("x")}, 502, "broke off"},
		{&upstream.Error{Op: upstream.OpBody, Addr: "http://10.0.0.1", Err: errors.New("x")}, 400, "body of the request"},
		{errors.New("10.0.0.1"), 502, "did not answer as it should"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		x := &exchange{p: f.p, w: w, r: r, host: f.snapshot().Hosts()[0]}
		x.fail(tt.err)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.text) || strings.Contains(w.Body.String(), "10.0.0.1") {
			t.Errorf("%v: status %d, %q", tt.err, w.Code, w.Body)
		}
	}
	if got := f.server.RequestMetrics().UpstreamErrors; got["timeout"] != 1 || got["other"] != 1 || got["body"] != 1 {
		t.Errorf("metrics %v", got)
	}
}

// An answer that ends early must not look like a whole one.
func TestBrokenAnswerBreaksTheClients(t *testing.T) {
	ca := testpki.NewCA(t)
	for _, head := range []string{"Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"} {
		url := badOrigin(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head+"\r\n5\r\nhello\r\n")
			_ = c.Close()
		})
		f := newFront(t, ca, frontHost(ca, "a.example", site.Off, url))
		for _, h2 := range []bool{false, true} {
			resp, err := f.client("a.example", nil, h2).Get("https://a.example/")
			if err != nil {
				continue // broken before the header was flushed
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil {
				t.Errorf("%q, HTTP/2 %v: body %q read as whole", head, h2, body)
			}
		}
	}
}

func TestAnswersAreCarriedAsTheyAre(t *testing.T) {
	ca := testpki.NewCA(t)
	o := origin(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.URL.Path {
		case "/head":
			h.Set("Content-Length", "12345")
			h.Set("Etag", `"x"`)
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			h.Set("Etag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		case "/untyped":
			h["Content-Type"] = nil
			_, _ = io.WriteString(w, "<html>")
		case "/hop":
			h["Connection"] = []string{"X-Private"}
			h.Set("X-Private", "1")
			h.Set("Keep-Alive", "timeout=1")
			h["Set-Cookie"] = []string{"a=1", "b=2"}
		case "/uri":
			_, _ = io.WriteString(w, r.RequestURI)
		case "/hints":
			h.Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			h.Del("Link")
			_, _ = io.WriteString(w, "done")
		default:
			_, _ = io.WriteString(w, r.RequestURI+" "+r.Host)
		}
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, o.URL))
	for _, h2 := range []bool{false, true} {
		c := f.client("a.example", nil, h2)
		resp, err := c.Head("https://a.example/head")
		if err != nil {
			t.Fatal(err)
		}
		if resp.ContentLength != 12345 || resp.Header.Get("Etag") != `"x"` {
			t.Errorf("HEAD: length %d, header %v", resp.ContentLength, resp.Header)
		}
		for path, status := range map[string]int{"/204": 204, "/304": 304, "/untyped": 200} {
			resp, _ := get(t, c, "https://a.example"+path, nil)
			if resp.StatusCode != status || resp.Header.Get("Content-Type") != "" {
				t.Errorf("%s: status %d, header %v", path, resp.StatusCode, resp.Header)
			}
		}
		resp, _ = get(t, c, "https://a.example/hop", nil)
		if resp.Header.Get("X-Private") != "" || resp.Header.Get("Keep-Alive") != "" || len(resp.Header["Set-Cookie"]) != 2 {
			t.Errorf("/hop: %v", resp.Header)
		}
		if _, body := get(t, c, "https://a.example/a%2fb/%e5%b2%a9?x=%2F;y&z", nil); body != "/a%2fb/%e5%b2%a9?x=%2F;y&z a.example" {
			t.Errorf("target arrives as %q", body)
		}
		var hints []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h.Get("Link")))
			return nil
		}}
		resp, body := get(t, c, "https://a.example/hints", func(r *http.Request) {
			*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
		})
		if len(hints) != 1 || hints[0] != "103</style.css>; rel=preload" || body != "done" || resp.Header.Get("Link") != "" {
			t.Errorf("/hints: %q, body %q, header %v", hints, body, resp.Header)
		}
	}
}

func TestStreaming(t *testing.T) {
	ca := testpki.NewCA(t)
	next := make(chan struct{})
	o := origin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		for i := range 3 {
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = rc.Flush()
		}
	})
	for _, scheme := range []string{"http", "h2c"} {
		f := newFront(t, ca, frontHost(ca, "a.example", site.Off, strings.Replace(o.URL, "http", scheme, 1)))
		for _, h2 := range []bool{false, true} {
			resp, err := f.client("a.example", nil, h2).Get("https://a.example/") // the header comes before any event
			if err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(resp.Body)
			for i := range 3 {
				next <- struct{}{}
				line, err := r.ReadString('\n')
				if err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("%s, HTTP/2 %v: %q, %v", scheme, h2, line, err)
				}
				_, _ = r.ReadString('\n')
			}
			_ = resp.Body.Close()
		}
	}
}

// pattern is a body of n bytes that is made as it is read.
type pattern struct{ n, read int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if atomic.LoadInt64(&p.read) >= p.n {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.n-p.read))
	for i := range b[:n] {
		b[i] = byte(i)
	}
	atomic.AddInt64(&p.read, int64(n))
	return n, nil
}

// An upload is not kept in memory: while the origin reads nothing, the client cannot send on; then all of it arrives.
func TestUploadIsNotBuffered(t *testing.T) {
	ca := testpki.NewCA(t)
	const size = 64 << 20
	stalled, gate := make(chan struct{}, 1), make(chan struct{})
	o := origin(t, func(w http.ResponseWriter, r *http.Request) {
		stalled <- struct{}{}
		<-gate
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, o.URL))
	for _, h2 := range []bool{false, true} {
		body := &pattern{n: size}
		c := f.client("a.example", nil, h2)
		answer := make(chan string, 1)
		go func() {
			resp, err := c.Post("https://a.example/", "application/octet-stream", body)
			if err != nil {
				answer <- err.Error()
				return
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			answer <- string(text)
		}()
		<-stalled
		var before int64
		for last := int64(-1); ; last = before {
			if before = atomic.LoadInt64(&body.read); before == last {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if before > size/2 {
			t.Errorf("HTTP/2 %v: the client has sent %d MiB to an origin that reads nothing", h2, before>>20)
		}
		gate <- struct{}{}
		if got := <-answer; got != fmt.Sprintf("%d <nil>", size) {
			t.Errorf("HTTP/2 %v: origin got %s, want %d bytes", h2, got, size)
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.Sys > 512<<20 {
		t.Errorf("process has %d MiB from the system", m.Sys>>20)
	}
}

// Both directions at once, as gRPC's bidirectional streams: each piece is answered before the next is sent.
func TestGRPCLikeStream(t *testing.T) {
	ca := testpki.NewCA(t)
	o := origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Te") != "trailers" || r.ProtoMajor != 2 {
			http.Error(w, "no trailers wanted", http.StatusBadRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "application/grpc")
		h.Set("Trailer", "Grpc-Status")
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			if n > 0 {
				_, _ = w.Write(bytes.ToUpper(b[:n]))
				_ = rc.Flush()
			}
			if err != nil {
				break
			}
		}
		h.Set("Grpc-Status", "0")
		h.Set(http.TrailerPrefix+"Grpc-Message", "fine")
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, strings.Replace(o.URL, "http", "h2c", 1)))
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.example/pkg.Service/Method", pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Te", "trailers")
	resp, err := f.client("a.example", nil, true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	b := make([]byte, 100)
	for _, piece := range []string{"one", "two", "three"} {
		_, _ = io.WriteString(pw, piece)
		n, err := io.ReadFull(resp.Body, b[:len(piece)])
		if err != nil || string(b[:n]) != strings.ToUpper(piece) {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	_ = pw.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Fatalf("%q, %v", rest, err)
	}
	if resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Grpc-Message") != "fine" {
		t.Errorf("trailers %v", resp.Trailer)
	}
	_ = resp.Body.Close()
}

func TestClientThatLeavesEndsTheUpstreamRequest(t *testing.T) {
	ca := testpki.NewCA(t)
	began, ended := make(chan struct{}), make(chan time.Time)
	o := origin(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		if r.URL.Path == "/upload" {
			_, _ = io.Copy(io.Discard, r.Body)
		} else if r.URL.Path == "/stream" {
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
		ended <- time.Now()
	})
	leave := func(f *front, h2 bool, path string) time.Duration {
		began = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		method, body := http.MethodGet, io.Reader(nil)
		pr, pw := io.Pipe()
		if path == "/upload" {
			method, body = http.MethodPost, pr
			go func() { _, _ = io.WriteString(pw, "part") }()
		}
		req, err := http.NewRequestWithContext(ctx, method, "https://a.example"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if resp, err := f.client("a.example", nil, h2).Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}()
		<-began
		time.Sleep(10 * time.Millisecond)
		left := time.Now()
		cancel()
		_ = pw.CloseWithError(context.Canceled)
		select {
		case at := <-ended:
			return at.Sub(left)
		case <-time.After(20 * time.Second):
			t.Fatalf("HTTP/2 %v, %s: the origin never heard", h2, path)
			return 0
		}
	}
	for _, scheme := range []string{"http", "h2c"} {
		f := newFront(t, ca, frontHost(ca, "a.example", site.Off, strings.Replace(o.URL, "http", scheme, 1)))
		for _, h2 := range []bool{false, true} {
			for _, path := range []string{"/wait", "/stream", "/upload"} {
				best := time.Hour // of three: others may use the machine
				for n := 0; n < 3 && best > 50*time.Millisecond; n++ {
					best = min(best, leave(f, h2, path))
				}
				if best > 50*time.Millisecond {
					t.Errorf("%s, HTTP/2 %v, %s: the origin heard after %v", scheme, h2, path, best)
				}
			}
		}
	}
}

// An origin may answer before it has read the body, and the client hears it at once.
func TestEarlyAnswer(t *testing.T) {
	ca := testpki.NewCA(t)
	o := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, o.URL))
	c := f.dial("a.example", nil, "http/1.1")
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000\r\n\r\nonly a part")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("%v, %v", resp, err)
	}
	start := time.Now() // the connection is not held for a rest that never comes
	if _, err := r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %v: %v, want the end of the connection", time.Since(start), err)
	}
}

// Who is refused cannot hold the connection with a body that does not come.
func TestRefusalOfHalfABody(t *testing.T) {
	ca := testpki.NewCA(t)
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, ""))
	for _, framing := range []string{"Content-Length: 100000\r\n\r\nonly a part", "Transfer-Encoding: chunked\r\n\r\n9\r\nonly a part"} {
		c := f.dial("a.example", nil, "http/1.1")
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a.example\r\n"+framing)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("%.20s: %v, %v", framing, resp, err)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if _, err := r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.20s: after the answer: %v, want the end of the connection", framing, err)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	ca := testpki.NewCA(t)
	o := origin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %q", body, r.Header.Get("Expect"))
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, o.URL))
	c := f.dial("a.example", nil, "http/1.1")
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = r.ReadString('\n')
	_, _ = io.WriteString(c, "body")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != `body ""` {
		t.Errorf("body %q", body)
	}
}

// The request that a revocation cuts ends at the origin as well.
func TestCutAbortsTheUpstreamRequest(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	began, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	o := origin(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		began <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	for _, h2 := range []bool{false, true} {
		leaf := leaf
		if h2 {
			leaf = ca.Client("Iwa Te 2")
		}
		f := newFront(t, ca, frontHost(ca, "a.example", site.Require, o.URL))
		c := f.client("a.example", &leaf, h2)
		resp, err := c.Get("https://a.example/")
		if err != nil {
			t.Fatal(err)
		}
		<-began
		f.revoke(leaf)
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the body ended as if whole")
		}
		_ = resp.Body.Close()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("the origin never heard of the cut")
		}
		resp, err = c.Get("https://a.example/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 403 || string(body) != "client certificate was revoked\n" {
			t.Errorf("after the revocation: %d %q", resp.StatusCode, body)
		}
	}
}

// A header over the limit is answered by net/http with 431, and the connection ends.
func TestHugeHeader(t *testing.T) {
	ca := testpki.NewCA(t)
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, ""))
	c := f.dial("a.example", nil, "http/1.1")
	go func() { // the server stops reading; the write may fail
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if _, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, io.ErrUnexpectedEOF) {
			return // reset before the answer was read
		}
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", resp.StatusCode)
	}
}
