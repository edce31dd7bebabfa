package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

// rawOrigin records every byte it is sent, and answers each request with an empty 200 on a connection of its own.
type rawOrigin struct {
	url string
	mu  sync.Mutex
	got [][]byte
}

func newRawOrigin(t *testing.T) *rawOrigin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &rawOrigin{url: "http://" + l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { o.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return o
}

func (o *rawOrigin) serve(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var seen bytes.Buffer
	req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(c, &seen)))
	if err == nil {
		_, _ = io.Copy(io.Discard, req.Body)
	}
	o.mu.Lock()
	o.got = append(o.got, seen.Bytes())
	o.mu.Unlock()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

// take returns what arrived since the last call.
func (o *rawOrigin) take() [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	got := o.got
	o.got = nil
	return got
}

const forged = "FORGED"

// spellings are field names that some server takes for an identity header: dash, underscore, dot, case and mixtures.
func spellings() []string {
	names := []string{
		"Client-Cert", "Client-Cert-Chain", "Cf-Client-Cert-Der-Base64", "Cf-Client-Cert-Sha256", "Cf-Cert-Verified", "Cf-Cert-Subject-Dn",
		"Cf-Access-Jwt-Assertion", "Cf-Access-Authenticated-User-Email", "Cf-Connecting-Ip", "Cf-Connecting-Ipv6", "Cf-Ray", "Cf-Visitor",
		"Cf-Ipcountry", "True-Client-Ip", "X-Forwarded-Client-Cert", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
		"X-Forwarded-Port", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-Forwarded-Ssl", "X-Forwarded-User",
		"Forwarded", "X-Real-Ip", "X-Client-Cert", "X-Ssl-Client-Cert", "X-Ssl-Client-S-Dn", "X-Ssl-Client-Verify", "X-Ssl-Cert", "Ssl-Client-Cert",
		"Ssl-Client-Verify", "Ssl-Client-Subject-Dn", "X-Client-Dn", "X-Client-Verify", "X-Tls-Client-Cert", "X-Arr-Clientcert",
		"X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Subject", "X-Spiffe-Id", "X-Sekisho-Identity", "Remote-User", "X-Remote-User",
		"X-Request-Id", "X-Ms-Client-Principal", "X-Goog-Authenticated-User-Email", "X-Envoy-External-Address", "X-Client-Ip",
		"Proxy", "X-Original-Url", "X-Original-Uri", "X-Rewrite-Url", "X-Consumer-Username", "X-Authentik-Username", "Tailscale-User-Login",
	}
	var all []string
	for _, name := range names {
		all = append(all, name, strings.ToLower(name), strings.ToUpper(name),
			strings.ReplaceAll(name, "-", "_"), strings.ToUpper(strings.ReplaceAll(name, "-", "_")),
			strings.ReplaceAll(name, "-", "."), strings.Replace(name, "-", "_", 1), strings.ReplaceAll(name, "-", "--"),
			strings.ReplaceAll(name, "-", "~"), name+"-", "_"+name)
	}
	return all
}

// wantNothingForged fails when a recorded request has the mark anywhere but in the value of X-Innocent, or an identity
// header of which there is more than one copy.
func wantNothingForged(t *testing.T, what string, requests [][]byte) {
	t.Helper()
	m := newNameMatcher(forgeables())
	for _, raw := range requests {
		head, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		seen := make(map[string]bool)
		for _, line := range strings.Split(string(head), "\r\n")[1:] {
			name, value, _ := strings.Cut(line, ":")
			if strings.Contains(line, forged) && name != "X-Innocent" {
				t.Errorf("%s: the origin got %.120q", what, line)
			}
			if m.match(name) {
				if seen[name] || value == "" {
					t.Errorf("%s: the origin got %q twice or empty", what, name)
				}
				seen[name] = true
			}
		}
		if bytes.Contains(body, []byte(forged)) {
			t.Errorf("%s: the origin got %.200q after the header", what, body)
		}
		if !seen["Client-Cert"] {
			t.Errorf("%s: the origin got no Client-Cert of ours: %.300q", what, head)
		}
	}
}

func TestInvariant04HeaderSpoofing(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	origin := newRawOrigin(t)
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, origin.url))
	names := spellings()
	if len(names) < 200 {
		t.Fatalf("%d spellings, want at least 200", len(names))
	}

	t.Run("HTTP/1.1", func(t *testing.T) {
		for part := range 10 { // several on one request, each twice
			var b strings.Builder
			b.WriteString("GET / HTTP/1.1\r\nHost: a.example\r\nX-Innocent: " + forged + "\r\nConnection: close\r\n")
			for i := part; i < len(names); i += 10 {
				fmt.Fprintf(&b, "%s: %s\r\n%s:%s-again\r\n", names[i], forged, names[i], forged)
			}
			resp, _ := f.raw("a.example", &leaf, b.String()+"\r\n")
			got := origin.take()
			if resp.StatusCode != http.StatusOK || len(got) != 1 {
				t.Fatalf("status %d, %d requests at the origin, want 200 and 1", resp.StatusCode, len(got))
			}
			wantNothingForged(t, "HTTP/1.1", got)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		for part := range 10 {
			var fields []hpack.HeaderField
			for i := part; i < len(names); i += 10 {
				name := strings.ToLower(names[i])
				fields = append(fields, hpack.HeaderField{Name: name, Value: forged}, hpack.HeaderField{Name: name, Value: forged + "-again"})
			}
			fields = append(fields, hpack.HeaderField{Name: "x-innocent", Value: forged})
			if status := f.http2(t, &leaf, fields, nil); status != "200" {
				t.Fatalf("status %s, want 200", status)
			}
			got := origin.take()
			if len(got) != 1 {
				t.Fatalf("%d requests at the origin, want 1", len(got))
			}
			wantNothingForged(t, "HTTP/2", got)
		}
	})
	t.Run("HTTP/2 trailers", func(t *testing.T) {
		trailers := []hpack.HeaderField{{Name: "client-cert", Value: forged}, {Name: "x-other", Value: forged}}
		f.http2(t, &leaf, []hpack.HeaderField{{Name: "trailer", Value: "client-cert, x-other"}}, trailers)
		wantNothingForged(t, "trailers", origin.take())
	})
	t.Run("smuggled", func(t *testing.T) { testSmuggledHeaders(t, f, &leaf, origin) })
}

// testSmuggledHeaders tries ways round the table of names: whatever the edge answers, nothing forged may arrive.
func testSmuggledHeaders(t *testing.T, f *front, leaf *testpki.Leaf, origin *rawOrigin) {
	const get, host = "GET / HTTP/1.1\r\n", "Host: a.example\r\n"
	const post = "POST / HTTP/1.1\r\n" + host + "Connection: close\r\n"
	for _, tt := range []struct {
		name, request string
		status        int // 0: any
	}{
		{"named in Connection", get + host + "Connection: close, Client-Cert, X-Forwarded-For\r\nClient-Cert: FORGED\r\n\r\n", 200},
		{"kept in Connection", get + host + "Connection: keep-alive, client_cert\r\nclient_cert: FORGED\r\n\r\n", 200},
		{"folded value", get + host + "Connection: close\r\nX-Innocent: a\r\n Client-Cert: FORGED\r\n\r\n", 0},
		{"folded with tab", get + host + "Connection: close\r\nX-Innocent: a\r\n\tClient-Cert: FORGED\r\n\r\n", 0},
		{"folded first line", get + " Client-Cert: FORGED\r\n" + host + "\r\n", 400},
		{"blank before the colon", get + host + "Client-Cert : FORGED\r\n\r\n", 400},
		{"tab before the colon", get + host + "Client-Cert\t: FORGED\r\n\r\n", 400},
		{"blank before the name", get + host + "X-Innocent: b\r\n  Client-Cert:FORGED\r\nConnection: close\r\n\r\n", 0},
		{"NUL in the name", get + host + "Client\x00Cert: FORGED\r\n\r\n", 400},
		{"high byte in the name", get + host + "Client\xadCert: FORGED\r\n\r\n", 400},
		{"bare CR", get + host + "X-Innocent: a\rClient-Cert: FORGED\r\n\r\n", 0},
		{"bare LF", get + host + "Connection: close\r\nX-A: b\nClient-Cert: FORGED\r\n\r\n", 0},
		{"declared trailer", post + "Transfer-Encoding: chunked\r\nTrailer: Client-Cert\r\n\r\n1\r\nx\r\n0\r\nClient-Cert: FORGED\r\n\r\n", 200},
		{"undeclared trailer", post + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nClient_Cert: FORGED\r\nX-Any: FORGED\r\n\r\n", 200},
		{"two framings", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nClient-Cert: FORGED\r\n\r\n", 0},
		{"switch to h2c", get + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nClient-Cert: FORGED\r\n\r\n", 200},
		{"switch to HTTP/1.1", get + host + "Connection: Upgrade\r\nUpgrade: HTTP/1.1\r\nClient-Cert: FORGED\r\n\r\n", 200},
	} {
		c := f.dial("a.example", leaf, "http/1.1")
		if _, err := io.WriteString(c, tt.request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		switch {
		case err != nil && tt.status != 0:
			t.Errorf("%s: %v", tt.name, err)
		case err == nil && tt.status != 0 && resp.StatusCode != tt.status:
			t.Errorf("%s: status %d, want %d", tt.name, resp.StatusCode, tt.status)
		}
		_ = c.Close()
		got := origin.take()
		wantNothingForged(t, tt.name, got)
		for _, raw := range got {
			if bytes.Contains(bytes.ToLower(raw), []byte("upgrade")) || bytes.Contains(bytes.ToLower(raw), []byte("trailer")) {
				t.Errorf("%s: the origin got %.300q", tt.name, raw)
			}
		}
	}
}

// http2 sends one request frame by frame, so that no client library mends the names, and returns the status.
func (f *front) http2(t *testing.T, leaf *testpki.Leaf, fields, trailers []hpack.HeaderField) string {
	t.Helper()
	c := f.dial("a.example", leaf, "h2")
	defer c.Close()
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	send := func(fields []hpack.HeaderField, end bool) {
		block.Reset()
		for _, field := range fields {
			if err := enc.WriteField(field); err != nil {
				t.Fatal(err)
			}
		}
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
			t.Fatal(err)
		}
	}
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	pseudo := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "a.example"}, {Name: ":path", Value: "/"},
	}
	send(append(pseudo, fields...), trailers == nil)
	if trailers != nil {
		if err := fr.WriteData(1, false, []byte("body")); err != nil {
			t.Fatal(err)
		}
		send(trailers, true)
	}
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			t.Fatalf("stream was reset: %v", frame.ErrCode)
		case *http2.GoAwayFrame:
			t.Fatalf("connection ends: %v", frame.ErrCode)
		}
	}
}
