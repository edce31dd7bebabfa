package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"ftp://h", "unknown scheme ftp"},
		{"localhost", "no scheme"},
		{"http://h/api", "a path is not allowed"},
		{"http://user:secret@h", "user info is not allowed"},
		{"http://h?x", "query"},
		{"http://h#x", "fragment"},
		{"http://", "no host"},
		{"http:h", "no host"},
		{"unix://run/app.sock", "three slashes"},
		{"unix:///", "three slashes"},
		{"http://h:port", "invalid port"},
	} {
		_, err := New(Config{URLs: []string{"http://ok", tt.url}})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", tt.url, err, tt.want)
		}
	}
	for _, cfg := range []Config{
		{},
		{URLs: []string{"http://a", "h2c://b"}},
		{URLs: []string{"http://a"}, MaxConns: -1},
		{URLs: []string{"http://a"}, IdleTimeout: -1},
		{URLs: make([]string, 65)},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	for _, u := range []string{"http://h", "https://[::1]:8443/", "unix:///run/app.sock"} {
		if _, err := New(Config{URLs: []string{u}}); err != nil {
			t.Error(err)
		}
	}
}

// TestIdleClose has the origin close each connection after one answer, without
// having said so, at once or after the connection went idle.
func TestIdleClose(t *testing.T) {
	for _, wait := range []time.Duration{0, 20 * time.Millisecond} {
		for _, method := range []string{"GET", "POST"} {
			if method == "POST" && wait == 0 {
				continue // may rightly fail: the origin may have seen it
			}
			closed := make(chan struct{}, 10) // the end has come as well, over loopback
			o := newRawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
				readHead(r)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
				time.Sleep(wait)
				c.Close()
				closed <- struct{}{}
			})
			tr := newTransport(t, Config{URLs: []string{o.url}})
			for i := range 10 {
				if _, body, err := fetch(tr, newRequest(t, method, nil)); err != nil || body != "hi" {
					t.Fatalf("%s, request %d: %q %v", method, i, body, err)
				}
				if wait > 0 {
					<-closed
				}
			}
			if n := o.conns.Load(); n != 10 {
				t.Errorf("%d connections, want 10", n)
			}
		}
	}
}

// TestNoRepeat has the origin read the second request and close without an
// answer: a GET is sent again, others are not.
func TestNoRepeat(t *testing.T) {
	for method, again := range map[string]bool{"GET": true, "POST": false, "DELETE": false} {
		var seen atomic.Int32
		o := newRawOrigin(t, func(n int, c net.Conn, r *bufio.Reader) {
			for i := 0; readHead(r) != ""; i++ {
				seen.Add(1)
				if n == 1 && i == 1 {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		tr := newTransport(t, Config{URLs: []string{o.url}})
		if _, _, err := fetch(tr, newRequest(t, method, nil)); err != nil {
			t.Fatal(err)
		}
		_, _, err := fetch(tr, newRequest(t, method, nil))
		want := int32(2)
		if again {
			want = 3
		}
		if (err == nil) != again || seen.Load() != want {
			t.Errorf("%s: error %v, %d requests seen, want %d", method, err, seen.Load(), want)
		}
	}
}

func TestUnsolicited(t *testing.T) {
	sent := make(chan struct{}, 10) // what is sent over loopback has come
	o := newRawOrigin(t, func(n int, c net.Conn, r *bufio.Reader) {
		for readHead(r) != "" {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n)
			time.Sleep(5 * time.Millisecond)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			sent <- struct{}{}
		}
	})
	tr := newTransport(t, Config{URLs: []string{o.url}})
	for i := range 3 {
		_, body, err := fetch(tr, newRequest(t, "GET", nil))
		if err != nil || body != fmt.Sprint(i+1) {
			t.Errorf("request %d: %q %v", i, body, err)
		}
		<-sent
	}
}

// TestUnsolicitedToWaiter is the same for a request that waits for a connection.
func TestUnsolicitedToWaiter(t *testing.T) {
	sent := make(chan struct{}, 2)
	o := newRawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for readHead(r) != "" {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 8192\r\n\r\n"+strings.Repeat("x", 8192))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			sent <- struct{}{}
		}
	})
	tr := newTransport(t, Config{URLs: []string{o.url}, MaxConns: 1})
	first, err := tr.RoundTrip(newRequest(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		_, body, err := fetch(tr, newRequest(t, "GET", nil))
		got <- fmt.Sprint(len(body), err)
	}()
	waiting := func() bool {
		tr.origins[0].mu.Lock()
		defer tr.origins[0].mu.Unlock()
		return len(tr.origins[0].waiters) == 1
	}
	for !waiting() {
		time.Sleep(time.Millisecond)
	}
	<-sent // all of the first answer, and more
	if _, err := io.ReadFull(first.Body, make([]byte, 8192)); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if s := <-got; s != "8192 <nil>" {
		t.Errorf("the second request was answered by %s", s)
	}
}

func TestCancel(t *testing.T) {
	for _, stage := range []string{"header", "body"} {
		best := time.Hour // of three: others may use the machine
		for n := 0; n < 3 && best > 50*time.Millisecond; n++ {
			best = min(best, cancelTakes(t, stage))
		}
		if best > 50*time.Millisecond {
			t.Errorf("%s: closed after %v", stage, best)
		}
	}
}

// cancelTakes cancels a request at a stage of its answer and returns how long after that the origin's connection is closed.
func cancelTakes(t *testing.T, stage string) time.Duration {
	t.Helper()
	closed := make(chan time.Time, 1)
	o := newRawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead(r)
		if stage == "body" {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhi")
		}
		r.ReadByte()
		closed <- time.Now()
	})
	tr := newTransport(t, Config{URLs: []string{o.url}})
	ctx, cancel := context.WithCancel(t.Context())
	var at time.Time
	time.AfterFunc(50*time.Millisecond, func() { at = time.Now(); cancel() })
	_, _, err := fetch(tr, newRequest(t, "GET", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%s: error %v", stage, err)
	}
	return (<-closed).Sub(at)
}

func TestHeaderTimeout(t *testing.T) {
	const limit = 500 * time.Millisecond
	o := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
		case "/long": // a body may take longer than the header
			w.WriteHeader(200)
			for range 5 {
				http.NewResponseController(w).Flush()
				time.Sleep(limit / 2)
				io.WriteString(w, "x")
			}
		case "/almost":
			time.Sleep(limit / 3)
		case "/upload":
			io.Copy(io.Discard, r.Body)
		}
	})
	tr := newTransport(t, Config{URLs: []string{o.URL}, ResponseHeaderTimeout: limit})
	get := func(path string, body io.Reader) (string, error) {
		req := newRequest(t, "POST", body)
		req.URL.Path = path
		_, got, err := fetch(tr, req)
		return got, err
	}
	for i := range 4 { // the deadline of one must not hit the next
		if _, err := get("/almost", nil); err != nil {
			t.Errorf("almost %d: %v", i, err)
		}
	}
	if got, err := get("/long", nil); err != nil || got != "xxxxx" {
		t.Errorf("long body: %q %v", got, err)
	}
	pr, pw := io.Pipe()
	go func() {
		for range 4 {
			io.WriteString(pw, "x")
			time.Sleep(limit / 2)
		}
		pw.Close()
	}()
	if _, err := get("/upload", pr); err != nil {
		t.Errorf("slow upload: %v", err)
	}
	start := time.Now()
	_, err := get("/slow", nil)
	var e *Error
	if !errors.As(err, &e) || e.Op != OpTimeout || !e.Timeout() {
		t.Errorf("slow header: %v", err)
	}
	if d := time.Since(start); d < limit || d > 2*limit {
		t.Errorf("timed out after %v", d)
	}
}

// TestStuckOrigin has the origin read nothing: neither a body nor a header that
// no send buffer holds may wait for ever, and it is the origin's timeout.
func TestStuckOrigin(t *testing.T) {
	const limit = 150 * time.Millisecond
	o := newRawOrigin(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		<-t.Context().Done()
	})
	for what, length := range map[string]int64{"chunked": -1, "length": 1 << 40, "header": 0} {
		for _, proxied := range []string{o.url, strings.Replace(o.url, "http", "h2c", 1)} {
			tr := newTransport(t, Config{URLs: []string{proxied}, DialTimeout: limit, ResponseHeaderTimeout: limit})
			req := newRequest(t, "POST", io.NopCloser(endless{}))
			req.ContentLength = length
			if length == 0 {
				req.Body = nil
				req.Header.Set("X-Long", strings.Repeat("x", 8<<20))
			}
			start := time.Now()
			_, _, err := fetch(tr, req)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Op != OpTimeout || errors.Is(err, context.DeadlineExceeded) && req.Context().Err() != nil {
				t.Errorf("%s to %s: %v", what, proxied, err)
			}
			if took := time.Since(start); took > 10*limit {
				t.Errorf("%s to %s: %v", what, proxied, took)
			}
		}
	}
}

// TestSlowReader has the origin read a body slowly, which is no fault.
func TestSlowReader(t *testing.T) {
	const limit = 750 * time.Millisecond
	o := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		var n int64
		for err := error(nil); err == nil; {
			var m int64
			m, err = io.CopyN(io.Discard, r.Body, 2<<20)
			n += m
			time.Sleep(limit / 25)
		}
		fmt.Fprint(w, n)
	})
	tr := newTransport(t, Config{URLs: []string{o.URL}, ResponseHeaderTimeout: limit})
	_, body, err := fetch(tr, newRequest(t, "POST", io.LimitReader(endless{}, 64<<20)))
	if err != nil || body != fmt.Sprint(64<<20) {
		t.Errorf("%q %v", body, err)
	}
}

func TestFailover(t *testing.T) {
	const dead = "http://127.0.0.1:1" // nobody is given this port
	a := newRawOrigin(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"))
	b := newRawOrigin(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"))
	tr := newTransport(t, Config{URLs: []string{dead, a.url, b.url}})
	count := map[string]int{}
	for range 30 {
		_, body, err := fetch(tr, newRequest(t, "GET", nil))
		if err != nil {
			t.Fatal(err)
		}
		count[body]++
	}
	if count["a"] < 8 || count["b"] < 8 {
		t.Errorf("shares %v", count)
	}
	if tr.origins[0].avoidUntil.Load() == 0 {
		t.Error("the dead origin is not avoided")
	}

	only := newTransport(t, Config{URLs: []string{dead}})
	_, _, err := fetch(only, newRequest(t, "POST", io.LimitReader(endless{}, 1<<20)))
	var e *Error
	if !errors.As(err, &e) || e.Op != OpDial || e.Addr != dead || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dead origin: %v", err)
	}
}

func TestMaxConns(t *testing.T) {
	var now, peak atomic.Int32
	o := newHTTPOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		time.Sleep(2 * time.Millisecond)
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
		now.Add(-1)
	})
	tr := newTransport(t, Config{URLs: []string{o.URL}, MaxConns: 3, DialTimeout: 2 * time.Second})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			req := newRequest(t, "GET", nil)
			req.Close = i%5 == 0
			if _, _, err := fetch(tr, req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if p := peak.Load(); p != 3 {
		t.Errorf("peak %d, want 3", p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() {
			req := newRequest(t, "GET", nil).WithContext(ctx)
			req.URL.Path = "/hang"
			fetch(tr, req)
		})
	}
	for now.Load() != 3 {
		time.Sleep(time.Millisecond)
	}
	_, _, err := fetch(tr, newRequest(t, "GET", nil))
	if e, ok := errors.AsType[*Error](err); !ok || e.Op != OpTimeout || !errors.Is(err, errBusy) {
		t.Errorf("at the limit: %v", err)
	}
	cancel()
	wg.Wait()
	if _, _, err := fetch(tr, newRequest(t, "GET", nil)); err != nil {
		t.Errorf("places were not given back: %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Host+" "+r.RequestURI)
	}, func(s *httptest.Server) { s.Listener.Close(); s.Listener = l })
	tr := newTransport(t, Config{URLs: []string{"unix://" + path}})
	for range 2 {
		if _, body, err := fetch(tr, newRequest(t, "GET", nil)); err != nil || body != "app.example /p?q=1" {
			t.Errorf("%q %v", body, err)
		}
	}
}

// TestConcurrent has 64 goroutines use one Transport in every way, and leaves
// nothing behind.
func TestConcurrent(t *testing.T) {
	before := runtime.NumGoroutine()
	o := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			http.NewResponseController(w).EnableFullDuplex()
			io.Copy(w, r.Body)
			return
		}
		for range 50 {
			io.WriteString(w, strings.Repeat("x", 1000))
		}
	})
	tr := newTransport(t, Config{URLs: []string{o.URL}, MaxIdlePerHost: 16})
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 20 {
				if err := useOnce(t, tr, (g+i)%4); err != nil {
					t.Errorf("use %d: %v", (g+i)%4, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(tr.origins[0].idle); n > 16 {
		t.Errorf("%d idle connections", n)
	}
	tr.Close()
	o.Server.Close()
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
	if n := o.open.Load(); n != 0 {
		t.Errorf("%d connections open", n)
	}
}

// useOnce makes a download, an upload, a download closed early or a cancelled
// one.
func useOnce(t *testing.T, tr *Transport, how int) error {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "/", nil)
	if how == 1 {
		req.Method, req.Body, req.ContentLength = "POST", io.NopCloser(io.LimitReader(endless{}, 50_000)), -1
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch how {
	case 2:
		_, err = resp.Body.Read(make([]byte, 10))
		return err
	case 3:
		cancel()
		if _, err = io.Copy(io.Discard, resp.Body); err == nil || errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != 50_000 {
		err = fmt.Errorf("%d bytes", n)
	}
	return err
}

// TestCloseWhileReading ends a Read that waits.
func TestCloseWhileReading(t *testing.T) {
	o := newRawOrigin(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
		r.ReadByte()
	})
	tr := newTransport(t, Config{URLs: []string{o.url}})
	resp, err := tr.RoundTrip(newRequest(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { resp.Body.Close() })
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("Read went on after Close")
	}
}

func TestReaper(t *testing.T) {
	o := newHTTPOrigin(t, func(http.ResponseWriter, *http.Request) {})
	tr := newTransport(t, Config{URLs: []string{o.URL}, IdleTimeout: 60 * time.Millisecond})
	if _, _, err := fetch(tr, newRequest(t, "GET", nil)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); o.open.Load() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("idle connection was not closed")
		}
	}
}
