package outbound_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/outbound"
	"sekisho/internal/testpki"
)

// loopback is what tests allow: their servers.
func loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// serve starts an HTTP server on 127.0.0.1 and returns its URL.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return s.URL
}

// serveRaw starts a TCP server on addr that hands each connection to f.
func serveRaw(t *testing.T, addr string, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("cannot listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				f(conn)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func newClient(t *testing.T, config outbound.Config) *outbound.Client {
	t.Helper()
	c := outbound.New(config)
	t.Cleanup(c.Close)
	return c
}

// get is the whole body of a request.
func get(t *testing.T, c *outbound.Client, req outbound.Request) (*outbound.Response, string, error) {
	t.Helper()
	resp, err := c.Do(t.Context(), req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func wantIs(t *testing.T, name string, err, want error, texts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v; want %v", name, err, want)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q; want %q in it", name, err, text)
		}
	}
}

func TestGetAndPost(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	t.Setenv("ALL_PROXY", "http://127.0.0.1:1")
	var header http.Header
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("ETag", `"one"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2023 03:04:05 GMT")
		w.Header().Set("Set-Cookie", "a=b")
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
	})
	c := newClient(t, outbound.Config{Allow: loopback(), UserAgent: "sekisho/1"})
	resp, body, err := get(t, c, outbound.Request{URL: base + "/a?b=c#fragment", Accept: "application/pkix-crl"})
	if err != nil || body != "GET /a?b=c " {
		t.Fatalf("%q, %v", body, err)
	}
	got := *resp
	got.Body = nil
	want := outbound.Response{Status: 200, ETag: `"one"`, LastModified: "Mon, 02 Jan 2023 03:04:05 GMT"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wantHeader := http.Header{"User-Agent": {"sekisho/1"}, "Accept": {"application/pkix-crl"}, "Accept-Encoding": {"identity"}, "Connection": {"close"}}
	if diff := cmp.Diff(wantHeader, header); diff != "" {
		t.Error(diff)
	}
	_, body, err = get(t, c, outbound.Request{Method: "POST", URL: base + "/ocsp", Body: []byte("body"), ContentType: "application/ocsp-request"})
	if err != nil || body != "POST /ocsp body" || header.Get("Content-Type") != "application/ocsp-request" || header.Get("Cookie") != "" {
		t.Errorf("%q, %v, %v", body, err, header)
	}
	if got := c.Metrics(); got != (outbound.Metrics{OK: 2}) {
		t.Errorf("%+v", got)
	}
}

func TestConditionalGet(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"one"` || r.Header.Get("If-Modified-Since") != "" {
			w.Header().Set("ETag", `"one"`)
		}
		w.WriteHeader(http.StatusNotModified)
	})
	c := newClient(t, outbound.Config{Allow: loopback()})
	for _, req := range []outbound.Request{{URL: base, ETag: `"one"`}, {URL: base, LastModified: "Mon, 02 Jan 2023 03:04:05 GMT"}} {
		resp, body, err := get(t, c, req)
		if err != nil || !resp.NotModified || resp.Status != 304 || body != "" || resp.ETag != `"one"` {
			t.Errorf("%+v, %q, %v", resp, body, err)
		}
	}
	_, _, err := get(t, c, outbound.Request{URL: base})
	wantIs(t, "a 304 that was not asked for", err, outbound.ErrStatus, "304")
	if got := c.Metrics(); got != (outbound.Metrics{NotModified: 2, Status: 1}) {
		t.Errorf("%+v", got)
	}
}

// TestInvariant13RedirectLosesTrust: what an operator wrote down may be on loopback; where that redirects to, another
// server, may be only if a certificate could have named it.
func TestInvariant13RedirectLosesTrust(t *testing.T) {
	var reached atomic.Int64
	inner := serve(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, inner+"/latest/meta-data", http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/there", http.StatusFound)
		default:
			_, _ = io.WriteString(w, "list")
		}
	})
	c := newClient(t, outbound.Config{})
	_, body, err := get(t, c, outbound.Request{URL: base + "/here", Origin: outbound.FromOperator})
	if err != nil || body != "list" {
		t.Errorf("to the same server: %q, %v", body, err)
	}
	_, _, err = get(t, c, outbound.Request{URL: base + "/away", Origin: outbound.FromOperator})
	wantIs(t, "to another server", err, outbound.ErrAddress, "loopback")
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests reached the other server", n)
	}
}

func TestStatus(t *testing.T) {
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var code int
		fmt.Sscanf(r.URL.Path, "/%d", &code)
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(code)
	})
	c := newClient(t, outbound.Config{Allow: loopback()})
	for _, code := range []int{201, 204, 206, 300, 305, 400, 404, 410, 429, 500, 503} {
		_, _, err := get(t, c, outbound.Request{URL: fmt.Sprintf("%s/%d", base, code)})
		status, ok := errors.AsType[*outbound.StatusError](err)
		if !ok || status.Code != code || status.RetryAfter != 2*time.Minute || !errors.Is(err, outbound.ErrStatus) {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// TestInvariant13AddressAtDial: the address is judged where it is dialled, under every spelling of it.
func TestInvariant13AddressAtDial(t *testing.T) {
	var reached atomic.Int64
	base := serve(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	v6 := serveRaw(t, "[::1]:0", func(net.Conn) { reached.Add(1) })
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	port := u.Port()
	c := newClient(t, outbound.Config{})
	refused := []string{base, v6, "http://localhost:" + port, "http://LOCALHOST:" + port, "http://[::ffff:127.0.0.1]:" + port, "http://127.0.0.2:" + port}
	for _, target := range append(refused, "http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "http://[fe80::1%25lo]:"+port) {
		_, _, err := get(t, c, outbound.Request{URL: target})
		wantIs(t, target, err, outbound.ErrAddress)
	}
	// Spellings that inet_aton knows are names here, and no name of any zone.
	for _, host := range []string{"2130706433", "0x7f000001", "127.1", "0177.0.0.1"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := c.Do(ctx, outbound.Request{URL: "http://" + host + ":" + port}); err == nil {
			t.Errorf("%s: taken", host)
		}
		cancel()
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the server was reached %d times", n)
	}
	if got, want := c.Metrics().RefusedAddress, uint64(len(refused)+3); got != want {
		t.Errorf("%d refused, want %d", got, want)
	}
	for _, origin := range []string{base, "http://localhost:" + port} {
		if _, _, err := get(t, c, outbound.Request{URL: origin, Origin: outbound.FromOperator}); err != nil {
			t.Errorf("the operator's: %v", err)
		}
	}
	self := newClient(t, outbound.Config{Self: func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:" + port)} }})
	_, _, err = get(t, self, outbound.Request{URL: base, Origin: outbound.FromOperator})
	wantIs(t, "own listener", err, outbound.ErrAddress, "our own listener")
	denied := newClient(t, outbound.Config{Allow: loopback(), Deny: loopback()})
	_, _, err = get(t, denied, outbound.Request{URL: base, Origin: outbound.FromOperator})
	wantIs(t, "denied", err, outbound.ErrAddress, "denied by the configuration")
}

func TestRequestsRefused(t *testing.T) {
	c := newClient(t, outbound.Config{Allow: loopback()})
	for name, req := range map[string]outbound.Request{
		"empty":       {},
		"scheme":      {URL: "ftp://127.0.0.1/"},
		"file":        {URL: "file:///etc/passwd"},
		"ldap":        {URL: "ldap://127.0.0.1/cn=x"},
		"no host":     {URL: "http:///x"},
		"opaque":      {URL: "http:127.0.0.1"},
		"user":        {URL: "http://user@127.0.0.1/"},
		"password":    {URL: "http://user:pass@127.0.0.1/"},
		"port 0":      {URL: "http://127.0.0.1:0/"},
		"port 65536":  {URL: "http://127.0.0.1:65536/"},
		"line break":  {URL: "http://127.0.0.1/\r\nHost: x"},
		"long":        {URL: "http://127.0.0.1/" + strings.Repeat("a", 4096)},
		"method":      {URL: "http://127.0.0.1/", Method: "DELETE"},
		"GET, body":   {URL: "http://127.0.0.1/", Body: []byte("x")},
		"relative":    {URL: "/x"},
		"not a URL":   {URL: "http://[::1"},
		"escaped NUL": {URL: "http://127.0.0.1%00.example/"},
	} {
		_, _, err := get(t, c, req)
		wantIs(t, name, err, outbound.ErrRequest)
	}
}

func TestRedirects(t *testing.T) {
	ca := testpki.NewCA(t)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
	}))
	secure.TLS = tlsConfig(ca.Server("127.0.0.1"))
	secure.StartTLS()
	defer secure.Close()
	var hops atomic.Int64
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" || r.Header.Get("Referer") != "" {
			t.Errorf("%v", r.Header)
		}
		var n int
		body, _ := io.ReadAll(r.Body)
		if _, err := fmt.Sscanf(r.URL.Path, "/count/%d", &n); err == nil && n > 0 {
			hops.Add(1)
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set("Location", fmt.Sprintf("%d", n-1)) // relative
			w.WriteHeader(http.StatusMovedPermanently)
			io.WriteString(w, strings.Repeat("not read", 1<<20))
			return
		}
		if to := r.URL.Query().Get("to"); to != "" {
			var code int
			fmt.Sscanf(r.URL.Path, "/%d", &code)
			w.Header().Set("Location", to)
			w.WriteHeader(code)
			return
		}
		switch r.URL.Path {
		case "/self":
			w.Header().Set("Location", "self#again")
			fallthrough
		case "/nowhere":
			w.WriteHeader(http.StatusFound)
			return
		}
		fmt.Fprintf(w, "%s %s", r.Method, body)
	})
	c := newClient(t, outbound.Config{Allow: loopback(), RootCAs: ca.Pool()})
	none := newClient(t, outbound.Config{Allow: loopback(), MaxRedirects: -1})
	to := func(code int, target string) string {
		return fmt.Sprintf("%s/%d?to=%s", base, code, url.QueryEscape(target))
	}
	for _, tt := range []struct {
		name   string
		client *outbound.Client
		req    outbound.Request
		body   string
		err    error
		text   string
	}{
		{"3 relative", c, outbound.Request{URL: base + "/count/3"}, "GET ", nil, ""},
		{"4", c, outbound.Request{URL: base + "/count/4"}, "", outbound.ErrRedirect, "more than 3"},
		{"none allowed", none, outbound.Request{URL: base + "/count/1"}, "", outbound.ErrRedirect, "more than 0"},
		{"none made", none, outbound.Request{URL: base}, "GET ", nil, ""},
		{"http to http", c, outbound.Request{URL: to(302, base)}, "GET ", nil, ""},
		{"308", c, outbound.Request{URL: to(308, base)}, "GET ", nil, ""},
		{"http to https to http", c, outbound.Request{URL: to(302, secure.URL+"/?to="+url.QueryEscape(base))}, "", outbound.ErrRedirect, "from https to http"},
		{"POST by 307", c, outbound.Request{Method: "POST", Body: []byte("x"), URL: to(307, base)}, "POST x", nil, ""},
		{"POST by 308", c, outbound.Request{Method: "POST", Body: []byte("x"), URL: to(308, base)}, "POST x", nil, ""},
		{"POST by 302", c, outbound.Request{Method: "POST", Body: []byte("x"), URL: to(302, base)}, "", outbound.ErrRedirect, "into a GET"},
		{"POST by 303", c, outbound.Request{Method: "POST", Body: []byte("x"), URL: to(303, base)}, "", outbound.ErrRedirect, "into a GET"},
		{"to itself", c, outbound.Request{URL: base + "/self"}, "", outbound.ErrRedirect, "circle"},
		{"metadata", c, outbound.Request{URL: to(302, "http://169.254.169.254/latest")}, "", outbound.ErrAddress, "link-local"},
		{"file", c, outbound.Request{URL: to(302, "file:///etc/passwd")}, "", outbound.ErrRedirect, "scheme"},
		{"ftp", c, outbound.Request{URL: to(302, "ftp://127.0.0.1/")}, "", outbound.ErrRedirect, "scheme"},
		{"user", c, outbound.Request{URL: to(302, "http://a:b@127.0.0.1/")}, "", outbound.ErrRedirect, "user name"},
		{"nonsense", c, outbound.Request{URL: to(302, "http://[::1")}, "", outbound.ErrRedirect, "not a URL"},
		{"no Location", c, outbound.Request{URL: base + "/nowhere"}, "", outbound.ErrRedirect, "Location"},
		{"long Location", c, outbound.Request{URL: to(302, "/"+strings.Repeat("a", 3900))}, "GET ", nil, ""},
	} {
		_, body, err := get(t, tt.client, tt.req)
		if tt.err == nil && (err != nil || body != tt.body) {
			t.Errorf("%s: %q, %v", tt.name, body, err)
		} else if tt.err != nil {
			wantIs(t, tt.name, err, tt.err, tt.text)
		}
	}
	// A loop of two.
	var other string
	one := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) })
	other = serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, one, http.StatusFound) })
	_, _, err := get(t, newClient(t, outbound.Config{Allow: loopback(), MaxRedirects: 100}), outbound.Request{URL: one})
	wantIs(t, "loop of two", err, outbound.ErrRedirect, "circle")
	if n := hops.Load(); n > 3+4+1 {
		t.Errorf("%d hops", n)
	}
}

// TestInvariant13BodyBounds: what the body may cost.
func TestInvariant13BodyBounds(t *testing.T) {
	const limit = 100_000
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	for range 20 {
		zip.Write(make([]byte, 1<<20))
	}
	zip.Close()
	write := func(text string) func(net.Conn) {
		return func(conn net.Conn) { readHeader(conn); io.WriteString(conn, text) }
	}
	endless := func(head, unit string) func(net.Conn) {
		return func(conn net.Conn) {
			readHeader(conn)
			_, err := io.WriteString(conn, head)
			for err == nil {
				_, err = io.WriteString(conn, unit)
			}
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	chunk := "1000\r\n" + strings.Repeat("x", 4096) + "\r\n"
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
		n     int // octets read
		err   error
	}{
		{"exactly the bound", write(fmt.Sprintf(ok+"Content-Length: %d\r\n\r\n%s", limit, strings.Repeat("x", limit))), limit, nil},
		{"exactly the bound, until close", write(ok + "\r\n" + strings.Repeat("x", limit)), limit, nil},
		{"one more", write(fmt.Sprintf(ok+"Content-Length: %d\r\n\r\n%s", limit+1, strings.Repeat("x", limit+1))), 0, outbound.ErrTooLarge},
		{"one more, until close", write(ok + "\r\n" + strings.Repeat("x", limit+1)), limit, outbound.ErrTooLarge},
		{"10 GB announced", write(ok + "Content-Length: 10737418240\r\n\r\nx"), 0, outbound.ErrTooLarge},
		{"endless chunks", endless(ok+"Transfer-Encoding: chunked\r\n\r\n", chunk), limit, outbound.ErrTooLarge},
		{"endless octets", endless(ok+"\r\n", strings.Repeat("x", 4096)), limit, outbound.ErrTooLarge},
		{"endless header", endless(ok, "X-A: "+strings.Repeat("x", 1000)+"\r\n"), 0, outbound.ErrTooLarge},
		{"endless header line", endless(ok+"X-A: ", strings.Repeat("x", 1000)), 0, outbound.ErrTooLarge},
		{"endless status line", endless("HTTP/1.1 200 ", strings.Repeat("x", 1000)), 0, outbound.ErrTooLarge},
		{"endless interim responses", endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"), 0, errAny},
		{"interim response", write("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + "Content-Length: 1\r\n\r\nx"), 1, nil},
		{"switching protocols", write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), 0, outbound.ErrStatus},
		{"chunk of a negative size", write(ok + "Transfer-Encoding: chunked\r\n\r\n-1\r\n"), 0, errAny},
		{"chunk of 2^64", write(ok + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n"), 0, errAny},
		{"endless chunk size", endless(ok+"Transfer-Encoding: chunked\r\n\r\n", "0"), 0, errAny},
		{"endless chunk extensions", endless(ok+"Transfer-Encoding: chunked\r\n\r\n", "1;"+strings.Repeat("x", 2000)+"\r\nx\r\n"), -1, errAny},
		{"endless trailer", endless(ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-A: x\r\n"), 0, errAny},
		{"cut short", write(ok + "Content-Length: 10\r\n\r\n12345"), 5, io.ErrUnexpectedEOF},
		{"chunks cut short", write(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"), 5, io.ErrUnexpectedEOF},
		{"no HTTP", write("SSH-2.0-OpenSSH_9.2\r\n"), 0, errAny},
		{"nothing", func(conn net.Conn) { readHeader(conn) }, 0, errAny},
		{"a bomb by its name", write(fmt.Sprintf(ok+"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", bomb.Len(), bomb.String())), 0, errAny},
		{"a bomb as it is", write(ok + "Content-Type: application/gzip\r\n\r\n" + bomb.String()), bomb.Len(), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bound := int64(limit)
			if tt.name == "a bomb as it is" {
				bound = int64(bomb.Len())
			}
			c := newClient(t, outbound.Config{Allow: loopback(), Timeout: 5 * time.Second})
			_, body, err := get(t, c, outbound.Request{URL: serveRaw(t, "127.0.0.1:0", tt.serve), MaxBytes: bound})
			if tt.n >= 0 && len(body) != tt.n || len(body) > int(bound) || errors.Is(err, outbound.ErrTimeout) {
				t.Errorf("%d octets, %v", len(body), err)
			}
			switch {
			case tt.err == nil && err != nil, tt.err != nil && err == nil:
				t.Errorf("%v; want %v", err, tt.err)
			case tt.err != nil && tt.err != errAny: //nolint:errorlint // a mark of the table
				wantIs(t, tt.name, err, tt.err)
			}
			if m := c.Metrics(); (m.OK == 1) != (tt.err == nil) || (m.TooLarge == 1) != errors.Is(tt.err, outbound.ErrTooLarge) {
				t.Errorf("%+v", m)
			}
		})
	}
}

// errAny marks, in a table, that there is an error without a name.
var errAny = errors.New("any")

// readHeader reads a request up to its empty line.
func readHeader(conn net.Conn) {
	var seen []byte
	b := make([]byte, 1)
	for !bytes.HasSuffix(seen, []byte("\r\n\r\n")) {
		if _, err := conn.Read(b); err != nil {
			return
		}
		seen = append(seen, b...)
	}
}

// TestInvariant13Deadline: a server that says little or nothing holds a request no longer than its deadline, and no goroutine after it.
func TestInvariant13Deadline(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	trickle := func(head, unit string) func(net.Conn) {
		return func(conn net.Conn) {
			io.WriteString(conn, head)
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				if _, err := io.WriteString(conn, unit); err != nil {
					return
				}
			}
		}
	}
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
	for _, tt := range []struct {
		name   string
		scheme string
		serve  func(net.Conn)
	}{
		{"silence", "http", func(net.Conn) { <-stop }},
		{"a header octet by octet", "http", trickle("HTTP/1.1 200 OK\r\nA: ", "x")},
		{"a body octet by octet", "http", trickle(head, "x")},
		{"a body that stops", "http", func(conn net.Conn) { io.WriteString(conn, head+"x"); <-stop }},
		{"no TLS handshake", "https", func(net.Conn) { <-stop }},
		{"a TLS handshake octet by octet", "https", trickle("\x16\x03\x03\x40\x00", "\x02")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base := strings.Replace(serveRaw(t, "127.0.0.1:0", tt.serve), "http", tt.scheme, 1)
			c := newClient(t, outbound.Config{Allow: loopback(), Timeout: 300 * time.Millisecond})
			begin := time.Now()
			_, _, err := get(t, c, outbound.Request{URL: base})
			wantIs(t, tt.name, err, outbound.ErrTimeout)
			wantIs(t, tt.name, err, context.DeadlineExceeded)
			if took := time.Since(begin); took < 250*time.Millisecond || took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if m := c.Metrics(); m != (outbound.Metrics{Timeout: 1}) {
				t.Errorf("%+v", m)
			}
			begin = time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			resp, err := c.Do(ctx, outbound.Request{URL: base, Timeout: time.Minute})
			if err == nil {
				_, err = io.ReadAll(resp.Body)
			}
			wantIs(t, "cancelled", err, context.Canceled)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("cancelled: it took %v", took)
			}
		})
	}
}

// TestInvariant14NothingStays: after requests of every kind no goroutine and no connection of the client is left.
func TestInvariant14NothingStays(t *testing.T) {
	var open atomic.Int64
	base := serveRaw(t, "127.0.0.1:0", func(conn net.Conn) {
		open.Add(1)
		defer open.Add(-1)
		readHeader(conn)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nsome")
		io.Copy(io.Discard, conn)
	})
	time.Sleep(50 * time.Millisecond)
	before := runtime.NumGoroutine()
	c := newClient(t, outbound.Config{Allow: loopback(), Timeout: 10 * time.Second})
	for range 8 {
		if resp, err := c.Do(t.Context(), outbound.Request{URL: base}); err != nil {
			t.Error(err)
		} else {
			resp.Body.Close() // early
			resp.Body.Close()
			if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
				t.Error("a closed body can be read")
			}
		}
	}
	for range 6 { // more than the slots of a host: a body that nobody closes gives its slot back at the deadline
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := c.Do(ctx, outbound.Request{URL: base, Timeout: time.Second}); err != nil && !errors.Is(err, outbound.ErrTimeout) {
			t.Error(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		now, conns := runtime.NumGoroutine(), open.Load()
		if now <= before && conns == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before; %d connections", now, before, conns)
		}
	}
	if m := c.Metrics(); m.OK != 8 || m.Timeout != 6 {
		t.Errorf("%+v", m)
	}
}

func TestClose(t *testing.T) {
	base := serveRaw(t, "127.0.0.1:0", func(conn net.Conn) {
		readHeader(conn)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nsome")
		io.Copy(io.Discard, conn)
	})
	c := outbound.New(outbound.Config{Allow: loopback()})
	resp, err := c.Do(t.Context(), outbound.Request{URL: base})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, c.Close)
	body, err := io.ReadAll(resp.Body)
	if string(body) != "some" {
		t.Errorf("%q", body)
	}
	wantIs(t, "broken off", err, outbound.ErrClosed)
	_, err = c.Do(t.Context(), outbound.Request{URL: base})
	wantIs(t, "closed", err, outbound.ErrClosed)
	c.Close()
}
