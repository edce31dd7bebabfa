package edge

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

// h2Origin is an HTTP/2 origin without TLS that answers each request with header blocks as given, the last of which
// ends the stream, and then with a body when it has one.
func h2Origin(t *testing.T, body string, blocks ...[]hpack.HeaderField) string {
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
			go serveBlocks(c, body, blocks)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return "h2c://" + l.Addr().String()
}

func serveBlocks(c net.Conn, body string, blocks [][]hpack.HeaderField) {
	defer c.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := c.Read(preface); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings()
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			return
		}
		request, ok := frame.(*http2.HeadersFrame)
		if !ok {
			continue
		}
		for i, block := range blocks {
			b.Reset()
			for _, f := range block {
				_ = enc.WriteField(f)
			}
			_ = fr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: request.StreamID, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: body == "" && i == len(blocks)-1,
			})
		}
		if body != "" {
			_ = fr.WriteData(request.StreamID, true, []byte(body))
		}
	}
}

func block(pairs ...string) []hpack.HeaderField {
	var fields []hpack.HeaderField
	for i := 0; i < len(pairs); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return fields
}

// What net/http takes from an HTTP/2 origin and would pass on to the client's connection.
func TestUpstreamHTTP2Oddities(t *testing.T) {
	ca := testpki.NewCA(t)
	var flood [][]hpack.HeaderField
	for range 100 {
		flood = append(flood, block(":status", "103", "link", "</a.css>"))
	}
	fine := block(":status", "200", "content-length", "4")
	for _, tt := range []struct {
		name   string
		body   string
		blocks [][]hpack.HeaderField
		status int
	}{
		{"101 as an interim answer", "done", [][]hpack.HeaderField{block(":status", "101"), fine}, 502},
		{"a flood of interim answers", "done", append(flood, fine), 502},
		{"a few interim answers", "done", [][]hpack.HeaderField{flood[0], flood[1], fine}, 200},
		{"status too low", "", [][]hpack.HeaderField{block(":status", "42")}, 502},
		{"status too high", "", [][]hpack.HeaderField{block(":status", "1000")}, 502},
		{"two lengths", "done", [][]hpack.HeaderField{block(":status", "200", "content-length", "2", "content-length", "4")}, 200},
	} {
		f := newFront(t, ca, frontHost(ca, "a.example", site.Off, h2Origin(t, tt.body, tt.blocks...)))
		for _, h2 := range []bool{false, true} {
			resp, body := get(t, f.client("a.example", nil, h2), "https://a.example/", nil)
			if resp.StatusCode != tt.status || tt.status == 200 && body != tt.body {
				t.Errorf("%s, HTTP/2 %v: status %d, body %q, want %d", tt.name, h2, resp.StatusCode, body, tt.status)
			}
			if n := len(resp.Header["Content-Length"]); n > 1 {
				t.Errorf("%s, HTTP/2 %v: %d lengths", tt.name, h2, n)
			}
		}
	}
}

// An interim answer that comes after RoundTrip has returned must touch nothing.
func TestUpstreamLateInterim(t *testing.T) {
	ca := testpki.NewCA(t)
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, ""))
	w := httptest.NewRecorder()
	x := &exchange{p: f.p, w: w, r: httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), host: f.snapshot().Hosts()[0]}
	late := make(chan error, 1)
	x.interims.end()
	go func() { late <- x.interim(http.StatusEarlyHints, textproto.MIMEHeader{"Link": {"late"}}) }()
	x.fail(errors.New("no answer"))
	if err := <-late; err != nil || w.Code != http.StatusBadGateway || w.Header().Get("Link") != "" {
		t.Errorf("%v, status %d, header %v", err, w.Code, w.Header())
	}
}

// What no origin could be asked for is the client's mistake, and no origin hears of it.
func TestRefusesTargets(t *testing.T) {
	ca := testpki.NewCA(t)
	o := newRawOrigin(t)
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, o.url))
	for request, status := range map[string]int{
		"GET https:opaque":       400,
		"GET *":                  400,
		"POST *":                 400,
		"OPTIONS *":              200,
		"GET //b.example/x":      200,
		"GET /a#b":               200,
		"GET https://a.example":  200,
		"GET https:///x":         200,
		"GET http://x@a.example": 200,
	} {
		resp, body := f.raw("a.example", nil, request+" HTTP/1.1\r\nHost: a.example\r\n\r\n")
		if resp.StatusCode != status || status == 400 && (!resp.Close || !strings.Contains(body, "malformed request")) {
			t.Errorf("%s: status %d, close %v, %q", request, resp.StatusCode, resp.Close, body)
		}
		got := o.take()
		if (len(got) == 1) != (status == 200) {
			t.Errorf("%s: %d requests at the origin", request, len(got))
		}
		for _, raw := range got {
			if line, _, _ := strings.Cut(string(raw), "\r\n"); strings.Count(line, " ") != 2 || strings.Contains(line, "#") || strings.Contains(line, "://") {
				t.Errorf("%s arrives as %q", request, line)
			}
		}
	}
	for _, method := range []string{"GET / HTTP/1.1", "G\tT", "GET(", "é"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.example/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Method = method
		w := httptest.NewRecorder()
		x := &exchange{p: f.p, w: w, r: req}
		x.serve()
		if w.Code != http.StatusBadRequest || x.reason != "target" {
			t.Errorf("method %q: status %d, reason %q", method, w.Code, x.reason)
		}
	}
}

// A switch of protocols may come before the end of a body, whose rest would be read by two at once.
func TestWebSocketUpgradeWithBody(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, webSocketOrigin(t, func(net.Conn, *bufio.ReadWriter) {})))
	for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
		resp, _ := f.raw("a.example", &leaf, "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+body)
		if resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("%.20q: status %d, want 426", body, resp.StatusCode)
		}
	}
}
