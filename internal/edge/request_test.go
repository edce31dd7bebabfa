package edge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

func TestInvariant05Misdirected(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	open := frontHost(ca, "open.example", site.Off, "")
	open.Names = []string{"127.0.0.1", "::1"}
	wild := frontHost(ca, "*.wild.example", site.Require, "")
	f := newFront(t, ca,
		frontHost(ca, "a.example", site.Require, ""), frontHost(ca, "b.example", site.Require, ""),
		frontHost(other, "c.example", site.Require, ""), frontHost(ca, "r.example", site.Request, ""), open, wild)
	for _, tt := range []struct {
		sni, host string
		status    int
	}{
		{"a.example", "a.example", 200},
		{"a.example", "a.example:8443", 200},
		{"a.example", "A.EXAMPLE", 200},
		{"a.example", "a.example.", 200},
		{"a.example", "a.example.:8443", 200},
		{"a.example", "b.example", 200}, // the same mode and CAs
		{"a.example", "B.example.", 200},
		{"a.example", "x.wild.example", 200},
		{"a.example", "c.example", 421}, // other CAs
		{"a.example", "C.EXAMPLE", 421},
		{"a.example", "c.example.", 421},
		{"a.example", "c.example:443", 421},
		{"a.example", "r.example", 421}, // another mode
		{"a.example", "open.example", 421},
		{"a.example", "127.0.0.1", 421},
		{"a.example", "127.0.0.1:8443", 421},
		{"a.example", "[::1]", 421},
		{"a.example", "[::1]:8443", 421},
		{"a.example", "[0:0:0:0:0:0:0:1]", 421},
		{"a.example", "unknown.example", 421},
		{"a.example", "x.y.wild.example", 421},
		{"a.example", "wild.example", 421},
		{"a.example", "", 421},
		{"a.example", "a.example..", 421},
		{"a.example", "a.example:x", 421},
		{"open.example", "open.example", 200},
		{"open.example", "127.0.0.1", 200},
		{"open.example", "[::1]:1", 200},
		{"open.example", "[0:0::1]", 200},
		{"open.example", "a.example", 421}, // the one that matters: no certificate was ever asked for
		{"open.example", "A.Example.", 421},
		{"open.example", "x.wild.example", 421},
		{"open.example", "X.WILD.EXAMPLE.", 421},
	} {
		request := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\n\r\n", tt.host)
		resp, body := f.raw(tt.sni, &leaf, request)
		if resp.StatusCode != tt.status {
			t.Errorf("SNI %s, Host %q: status %d, want %d: %s", tt.sni, tt.host, resp.StatusCode, tt.status, body)
		}
		if tt.status == 421 && (!resp.Close || !strings.Contains(body, "misdirected")) {
			t.Errorf("SNI %s, Host %q: close %v, body %q", tt.sni, tt.host, resp.Close, body)
		}
	}
	// The target of the request line wins over Host (RFC 9112, Section 3.2.2), for us and for the check.
	resp, _ := f.raw("open.example", nil, "GET https://a.example/ HTTP/1.1\r\nHost: open.example\r\n\r\n")
	if resp.StatusCode != 421 {
		t.Errorf("absolute form: status %d, want 421", resp.StatusCode)
	}
	// HTTP/2: the connection stays.
	c := f.client("open.example", nil, true)
	for range 2 {
		resp, _ := get(t, c, "https://open.example/", func(r *http.Request) { r.Host = "a.example" })
		if resp.StatusCode != 421 || resp.ProtoMajor != 2 || resp.Header.Get("Connection") != "" {
			t.Errorf("HTTP/2: status %d, protocol %s, header %v", resp.StatusCode, resp.Proto, resp.Header)
		}
	}
}

func TestRefusalForms(t *testing.T) {
	ca := testpki.NewCA(t)
	expired := ca.Client("Iwa Te", testpki.NotAfter(time.Now().Add(-time.Hour)), testpki.NotBefore(time.Now().Add(-2*time.Hour)))
	future := ca.Client("Iwa Te", testpki.NotBefore(time.Now().Add(time.Hour)))
	foreign := testpki.NewCA(t).Client("Iwa Te")
	wrong := ca.Client("Iwa Te", testpki.WrongEKU())
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, ""))
	for _, tt := range []struct {
		name string
		leaf *testpki.Leaf
		text string
	}{
		{"no_certificate", nil, "client certificate required"},
		{"expired", &expired, "client certificate has expired"},
		{"not_yet_valid", &future, "client certificate is not yet valid"},
		{"untrusted", &foreign, "client certificate is not from a trusted CA"},
		{"wrong_usage", &wrong, "client certificate is not meant for client authentication"},
	} {
		for accept, contentType := range map[string]string{
			"": "text/plain; charset=utf-8", "*/*": "text/plain; charset=utf-8", "application/json": "application/json",
			"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8": "text/html; charset=utf-8",
		} {
			resp, body := f.raw("a.example", tt.leaf, "GET / HTTP/1.1\r\nHost: a.example\r\nAccept: "+accept+"\r\n\r\n")
			id := resp.Header.Get("X-Request-Id")
			if resp.StatusCode != 403 || resp.Header.Get("Cache-Control") != "no-store" || id == "" || resp.Header.Get("Content-Type") != contentType {
				t.Errorf("%s, %q: status %d, header %v", tt.name, accept, resp.StatusCode, resp.Header)
			}
			switch contentType {
			case "application/json":
				var got struct {
					Success bool
					Errors  []struct {
						Code    int
						Message string
					}
					Reason string
				}
				if err := json.Unmarshal([]byte(body), &got); err != nil {
					t.Fatalf("%s: %v: %s", tt.name, err, body)
				}
				if got.Success || got.Reason != tt.name || len(got.Errors) != 1 || got.Errors[0].Message != tt.text || got.Errors[0].Code == 0 {
					t.Errorf("%s: %s", tt.name, body)
				}
			case "text/html; charset=utf-8":
				if !strings.Contains(body, heading(tt.text)) || !strings.Contains(body, id) || regexp.MustCompile(`(?i)<script|<link|src=|url\(|https?://`).MatchString(body) {
					t.Errorf("%s: %s", tt.name, body)
				}
			default:
				if body != tt.text+"\n" {
					t.Errorf("%s, %q: %q, want %q", tt.name, accept, body, tt.text+"\n")
				}
			}
			if line := f.logLine(id); line["decision"] != "refuse" || line["reason"] != tt.name || line["status"] != 403.0 {
				t.Errorf("%s: access log has %v", tt.name, line)
			}
		}
	}
	if text := refusalFor(identity.Revoked).text; text != "client certificate was revoked" {
		t.Errorf("revoked: %q", text)
	}
}

// logLine is the record of the access log with a request id; it may be written after the answer was read.
func (f *front) logLine(id string) map[string]any {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for line := range strings.Lines(f.log.String()) {
			var record map[string]any
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				f.t.Fatalf("log line %q: %v", line, err)
			}
			if record["msg"] == "request" && record["request_id"] == id {
				return record
			}
		}
	}
	f.t.Errorf("no access log record of request %q in:\n%s", id, f.log.String())
	return nil
}

func TestEchoShowsWhatAnUpstreamGets(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, ""))
	for _, h2 := range []bool{false, true} {
		c := f.client("a.example", &leaf, h2)
		resp, body := get(t, c, "https://a.example/path?secret=1", func(r *http.Request) {
			r.Header["X-Two"] = []string{"one", "two"}
			r.Header.Set("client_cert", forged)
		})
		var got struct {
			Method, Path string
			Headers      map[string]string
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		_, port, _ := strings.Cut(f.addr, ":")
		want := map[string]string{
			"Client-Cert": byteSequence(leaf.Cert.Raw), "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https",
			"X-Forwarded-Host": "a.example", "X-Forwarded-Port": port, "X-Two": "one, two", "Host": "a.example",
		}
		for name, value := range want {
			if got.Headers[name] != value {
				t.Errorf("HTTP/2 %v: %s is %q, want %q", h2, name, got.Headers[name], value)
			}
		}
		if got.Method != "GET" || got.Path != "/path" || strings.Contains(body, forged) {
			t.Errorf("HTTP/2 %v: %s", h2, body)
		}
		line := f.logLine(resp.Header.Get("X-Request-Id"))
		for key, value := range map[string]any{
			"host": "a.example", "listener": "edge", "remote": "127.0.0.1", "method": "GET", "path": "/path", "status": 200.0,
			"bytes": float64(len(body)), "tls": "TLS 1.3", "resumed": false, "decision": "allow", "reason": "", "subject": "CN=Iwa Te",
		} {
			if line[key] != value {
				t.Errorf("HTTP/2 %v: log has %s=%v, want %v", h2, key, line[key], value)
			}
		}
		if serial, _ := line["serial"].(string); serial == "" || serial != strings.ToUpper(serial) || len(serial)%2 != 0 {
			t.Errorf("HTTP/2 %v: serial %q", h2, serial)
		}
		if _, hello := get(t, c, "https://a.example/hello", nil); hello != "Hello World\n" {
			t.Errorf("/hello: %q", hello)
		}
	}
	if strings.Contains(f.log.String(), "secret") {
		t.Error("the log has the query")
	}
}

func TestRequestModePassesOnlyVerifiedIdentities(t *testing.T) {
	ca := testpki.NewCA(t)
	good, bad := ca.Client("good"), testpki.NewCA(t).Client("bad")
	f := newFront(t, ca, frontHost(ca, "a.example", site.Request, ""))
	for _, tt := range []struct {
		leaf   *testpki.Leaf
		passed bool
		reason string
	}{{nil, false, "no_certificate"}, {&good, true, ""}, {&bad, false, "untrusted"}} {
		resp, body := get(t, f.client("a.example", tt.leaf, false), "https://a.example/", nil)
		if resp.StatusCode != 200 || strings.Contains(body, "Client-Cert") != tt.passed {
			t.Errorf("%s: status %d, %s", tt.reason, resp.StatusCode, body)
		}
		if line := f.logLine(resp.Header.Get("X-Request-Id")); line["reason"] != tt.reason || line["decision"] != "allow" {
			t.Errorf("%s: log has %v", tt.reason, line)
		}
	}
}

func TestCrossOriginGuardAndMethods(t *testing.T) {
	ca := testpki.NewCA(t)
	h := frontHost(ca, "a.example", site.Off, "")
	h.CrossOriginGuard, h.AllowedOrigins = true, []string{"https://friend.example"}
	f := newFront(t, ca, h)
	for _, tt := range []struct {
		method, header string
		status         int
	}{
		{"POST", "Sec-Fetch-Site: cross-site", 403},
		{"POST", "Origin: https://evil.example", 403},
		{"DELETE", "Sec-Fetch-Site: same-site\r\nOrigin: https://b.example", 403},
		{"POST", "Sec-Fetch-Site: same-origin", 200},
		{"POST", "Sec-Fetch-Site: cross-site\r\nOrigin: https://friend.example", 200},
		{"POST", "X-Any: thing", 200}, // no browser
		{"GET", "Sec-Fetch-Site: cross-site", 200},
		{"GET", "Sec-Fetch-Site: cross-site\r\nConnection: Upgrade\r\nUpgrade: websocket", 403},
		{"GET", "Sec-Fetch-Site: same-origin\r\nConnection: Upgrade\r\nUpgrade: websocket", 200},
		{"TRACE", "X-Any: thing", 405},
	} {
		resp, _ := f.raw("a.example", nil, tt.method+" / HTTP/1.1\r\nHost: a.example\r\n"+tt.header+"\r\n\r\n")
		if resp.StatusCode != tt.status {
			t.Errorf("%s with %q: status %d, want %d", tt.method, tt.header, resp.StatusCode, tt.status)
		}
	}
	resp, _ := f.raw("a.example", nil, "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
	if resp.StatusCode != 405 {
		t.Errorf("CONNECT: status %d, want 405", resp.StatusCode)
	}
	if m := f.server.RequestMetrics(); m.Refused["cross_origin"] != 4 || m.Refused["method"] != 2 || m.ByClass[2] != 5 {
		t.Errorf("metrics %+v", m)
	}
}

func TestIdentityIsEncodedOnceAndWarnedOfOnce(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	f := newFrontWith(t, ca, Config{Limits: Limits{MaxIdentityHeaders: 200}}, frontHost(ca, "a.example", site.Require, ""))
	c := f.client("a.example", &leaf, false)
	for range 3 {
		_, body := get(t, c, "https://a.example/", nil)
		if strings.Contains(body, `"Client-Cert"`) || !strings.Contains(body, "Cf-Client-Cert-Sha256") {
			t.Errorf("upstream got %s", body)
		}
	}
	if n := strings.Count(f.log.String(), "identity headers are too large"); n != 1 {
		t.Errorf("warned %d times, want once", n)
	}
	for _, c := range f.server.live.all() {
		if first := c.current.Load().headers.Load(); first == nil || first.next != nil {
			t.Errorf("identity headers were made more than once: %+v", first)
		}
	}
}
