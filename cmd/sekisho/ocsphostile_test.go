package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// ocspAsker is an honest OCSP client of a server's pki listener.
type ocspAsker struct {
	t      *testing.T
	p      *process
	url    string // of the responder
	issuer *x509.Certificate
	serial pkix.Serial
	client *http.Client
}

func newOCSPAsker(t *testing.T, p *process) *ocspAsker {
	t.Helper()
	pair, _ := p.issue("asked about")
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	a := &ocspAsker{t: t, p: p, url: leaf.OCSPServer[0], serial: pkix.SerialOf(leaf.SerialNumber), client: &http.Client{Timeout: 30 * time.Second}}
	resp, err := a.client.Get(leaf.IssuingCertificateURL[0])
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if a.issuer, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// request asks about n certificates: the one there is, and others.
func (a *ocspAsker) request(n int, nonce string) []byte {
	r := pkix.OCSPRequest{Nonce: []byte(nonce)}
	for i := range n {
		serial := a.serial
		if i > 0 {
			serial = pkix.SerialFromBytes([]byte{1, byte(i >> 16), byte(i >> 8), byte(i)})
		}
		r.Certs = append(r.Certs, pkix.NewOCSPCertID(crypto.SHA1, a.issuer, serial))
	}
	return r.Marshal()
}

// post sends a request and returns the answer and how long it took.
func (a *ocspAsker) post(body []byte) ([]byte, time.Duration) {
	a.t.Helper()
	begin := time.Now()
	resp, err := a.client.Post(a.url, "application/ocsp-request", bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		a.t.Fatal(resp.Status, err)
	}
	return got, time.Since(begin)
}

// ordinary asks as an honest client does, some times; it returns the slowest.
func (a *ocspAsker) ordinary(times int) (slowest time.Duration) {
	a.t.Helper()
	for i := range times {
		got, took := a.post(a.request(1, fmt.Sprintf("nonce %d", i)))
		r, err := pkix.ParseOCSPResponse(got)
		if err != nil || len(r.Singles) != 1 || r.Singles[0].Status != pkix.OCSPGood {
			a.t.Fatalf("an honest client gets %x, %v", got, err)
		}
		slowest = max(slowest, took)
	}
	return slowest
}

// dial opens a connection to the responder and sends a text.
func (a *ocspAsker) dial(text string) net.Conn {
	a.t.Helper()
	u, err := url.Parse(a.url)
	if err != nil {
		a.t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		a.t.Fatal(err)
	}
	return conn
}

const postHead = "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Type: application/ocsp-request\r\n"

// TestInvariant13HostileOCSP: clients that connect and leave, that are silent, or that stop in the middle of a request
// disturb nobody, and lose their connection in time.
func TestInvariant13HostileOCSP(t *testing.T) {
	o := newOrigin(t)
	p, _ := badServer(t, o.url)
	a := newOCSPAsker(t, p)
	a.ordinary(20)
	var held []net.Conn
	for range 200 {
		a.dial("").Close()
		a.dial(postHead).Close()
		for _, text := range []string{
			"", "GET /ocsp/MEUw", postHead, postHead + "Content-Length: 100\r\n\r\n", postHead + "Transfer-Encoding: chunked\r\n\r\n1\r\n0",
		} {
			held = append(held, a.dial(text))
		}
	}
	t.Logf("beside %d connections that hang the slowest of 200 honest answers took %v", len(held), a.ordinary(200))
	begin := time.Now()
	for i, conn := range held {
		if i%5 > 2 {
			continue // in the middle of its body, which has a minute
		}
		_ = conn.SetReadDeadline(begin.Add(30 * time.Second))
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d is open after 30 s; a header has 10 s", i)
		}
	}
	t.Logf("those without a whole header are closed after %v", time.Since(begin))
	a.ordinary(20)
	for _, conn := range held { // or the server would wait for the rest of them
		conn.Close()
	}
	p.stop()
}

// TestInvariant13LongOCSPRequests: too many certificates and too many octets are malformedRequest in HTTP 200, at once:
// what is too long is not read.
func TestInvariant13LongOCSPRequests(t *testing.T) {
	o := newOrigin(t)
	p, _ := badServer(t, o.url)
	a := newOCSPAsker(t, p)
	a.ordinary(20)
	malformed := pkix.OCSPErrorResponse(pkix.OCSPMalformedRequest)
	most := a.request(pkix.MaxOCSPRequests, "n")
	got, took := a.post(most)
	if r, err := pkix.ParseOCSPResponse(got); err != nil || len(r.Singles) != pkix.MaxOCSPRequests {
		t.Errorf("%d certificates: %v", pkix.MaxOCSPRequests, err)
	}
	t.Logf("%d certificates, %d octets: answered in %v", pkix.MaxOCSPRequests, len(most), took)
	fits := a.request(900, "")
	for name, body := range map[string][]byte{"101 certificates": a.request(101, ""), "900 certificates": fits, "64 KiB of zeros": make([]byte, 64<<10)} {
		got, took := a.post(body)
		if !bytes.Equal(got, malformed) {
			t.Errorf("%s: %x", name, got)
		}
		t.Logf("%s, %d octets: refused in %v", name, len(body), took)
	}
	for name, length := range map[string]int{"10,000 certificates": len(a.request(10_000, "")), "1 MB": 1 << 20, "1 TB": 1 << 40} {
		begin := time.Now()
		conn := a.dial(fmt.Sprintf("%sContent-Length: %d\r\n\r\n0", postHead, length)) // and one octet of it
		_ = conn.SetReadDeadline(begin.Add(20 * time.Second))                          // its body would have a minute
		answer, err := io.ReadAll(conn)
		if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) || !bytes.HasSuffix(answer, malformed) {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
		t.Logf("%s, %d octets: refused and closed in %v, after 1 octet", name, length, time.Since(begin))
	}
	endless := a.dial(postHead + "Transfer-Encoding: chunked\r\n\r\n")
	sent := 0
	for chunk := []byte("1000\r\n" + strings.Repeat("0", 4096) + "\r\n"); sent < 64<<20; sent += len(chunk) {
		_ = endless.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := endless.Write(chunk); err != nil {
			break
		}
	}
	if sent > 8<<20 { // what the sockets' buffers hold
		t.Errorf("%d octets of a body without end were taken", sent)
	}
	dearest(t, a, p, fits)
	a.ordinary(20)
	p.stop()
}

// dearest sends the dearest refusal over and over and says what it costs.
func dearest(t *testing.T, a *ocspAsker, p *process, body []byte) {
	const times = 500
	rss, cpu := p.proc("status", "VmRSS"), processCPU(t, p)
	for range times {
		a.post(body)
	}
	more := p.proc("status", "VmRSS") - rss
	t.Logf("%d requests of %d octets: %v of processor time each, %d KiB more memory", times, len(body), (processCPU(t, p)-cpu)/times, more)
	if more > 64<<10 {
		t.Errorf("%d KiB more memory", more)
	}
}

// processCPU is the processor time of a server so far, to 10 ms.
func processCPU(t *testing.T, p *process) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// TestOCSPMaxAge: pki.ocsp_max_age reaches what curl prints: max-age, and Expires that agrees with it and never is after
// nextUpdate; 304 for who has the answer; without the key, caches ask each time.
func TestOCSPMaxAge(t *testing.T) {
	for _, setting := range []time.Duration{0, 10 * time.Minute, 48 * time.Hour} {
		t.Run(setting.String(), func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "sekisho.yaml")
			config := fmt.Sprintf("listen: {edge: \"127.0.0.1:0\", admin: \"127.0.0.1:0\", pki: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\"}\n"+
				"pki: {ocsp_max_age: %v}\nhosts: [{name: localhost, default: true, echo: true}]\n", setting)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			p := start(t, t.TempDir(), "--config", file, "--data", dir)
			a := newOCSPAsker(t, p)
			body := filepath.Join(dir, "answer.der")
			target := a.url + "/" + url.PathEscape(base64.StdEncoding.EncodeToString(a.request(1, "")))
			first := curlHeaders(t, "-o", body, target)
			age := 0
			if _, err := fmt.Sscanf(after(first["Cache-Control"], "max-age="), "%d", &age); err != nil && setting > 0 {
				t.Fatalf("Cache-Control: %s", first["Cache-Control"])
			}
			if setting == 0 && !strings.Contains(first["Cache-Control"], "no-cache") {
				t.Errorf("Cache-Control: %s", first["Cache-Control"])
			}
			der, err := os.ReadFile(body)
			if err != nil {
				t.Fatal(err)
			}
			r, err := pkix.ParseOCSPResponse(der)
			if err != nil {
				t.Fatal(err)
			}
			date, modified, expires := httpTime(t, first["Date"]), httpTime(t, first["Last-Modified"]), httpTime(t, first["Expires"])
			// The answer may have been made a while ago: what is left of it bounds its age.
			left := r.Singles[0].NextUpdate.Sub(date)
			want := min(setting, left)
			if left < 50*time.Minute || left > time.Hour+time.Second {
				t.Errorf("the answer is good for %v, want an hour", left)
			}
			if off := time.Duration(age)*time.Second - want; off < -time.Second || off > time.Second {
				t.Errorf("max-age=%d, want about %v", age, want)
			}
			if gap := expires.Sub(date) - time.Duration(age)*time.Second; gap < -time.Second || gap > time.Second {
				t.Errorf("Expires is %v after Date, max-age is %d s", expires.Sub(date), age)
			}
			if expires.After(r.Singles[0].NextUpdate) || !modified.Equal(r.Singles[0].ThisUpdate) {
				t.Errorf("Last-Modified %v, Expires %v; the answer is from %v to %v", modified, expires, r.Singles[0].ThisUpdate, r.Singles[0].NextUpdate)
			}
			again := curlHeaders(t, "-o", body+"2", "-H", "If-None-Match: "+first["Etag"], target)
			if again["status"] != "304" || again["Etag"] != first["Etag"] || again["Cache-Control"] == "" || again["Expires"] == "" {
				t.Errorf("asked again: %v", again)
			}
			p.stop()
		})
	}
}

// curlHeaders is what curl prints of an answer's headers, by name; status is its code.
func curlHeaders(t *testing.T, args ...string) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "curl", slices.Concat([]string{"-sS", "-D", "-"}, args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl: %v\n%s", err, out)
	}
	headers := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if fields := strings.Fields(line); !ok && len(fields) > 1 {
			headers["status"] = fields[1]
		}
		headers[name] = value
	}
	return headers
}

func after(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	return rest
}

func httpTime(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := http.ParseTime(text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
