package responder_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sekisho/internal/ca"
	"sekisho/internal/ca/responder"
	"sekisho/internal/keystore"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
)

// world is a responder on a real socket over a real CA and store.
type world struct {
	*ca.Authority
	t   testing.TB
	url string
	id  string // of the issuing CA
	row ca.Certificate
}

// newWorld is newWorldOf one shard.
func newWorld(t testing.TB, maxAge time.Duration) *world {
	t.Helper()
	return newWorldOf(t, maxAge, 1)
}

func newWorldOf(t testing.TB, maxAge time.Duration, shards int) *world {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	ledger, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	keys, err := keystore.Open(keystore.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	w := &world{t: t, url: "http://" + server.Listener.Addr().String()}
	w.Authority, err = ca.Open(t.Context(), ca.Config{Ledger: ledger, Keys: keys, PKIURL: w.url, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = responder.New(responder.Config{Authority: w.Authority, Logger: logger, MaxAge: maxAge})
	server.Start()
	t.Cleanup(server.Close)
	if got := w.get("/ca.pem", nil).status; got != http.StatusServiceUnavailable {
		t.Errorf("/ca.pem without a CA: %d", got)
	}
	if err := w.Init(t.Context(), "test", ca.InitRequest{Shards: shards}); err != nil {
		t.Fatal(err)
	}
	records, err := w.CAs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.id = records[1].ID
	w.row, _, err = w.IssueWithKey(t.Context(), ca.IssueRequest{Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 1}, pkix.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (w *world) do(method, path string, header http.Header, body io.Reader) reply {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirect
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, got}
}

func (w *world) get(path string, header http.Header) reply {
	w.t.Helper()
	return w.do(http.MethodGet, path, header, nil)
}

// request asks about the certificate; a nonce makes it longer.
func (w *world) request(hash crypto.Hash, nonce []byte) []byte {
	return pkix.OCSPRequest{Certs: []pkix.OCSPCertID{pkix.NewOCSPCertID(hash, w.Issuing(), w.row.Serial)}, Nonce: nonce}.Marshal()
}

// status is what an OCSPResponse says of the certificate.
func (w *world) status(body []byte) string {
	w.t.Helper()
	parsed, err := ocsp.ParseResponse(body, w.Issuing())
	if err != nil {
		return err.Error()
	}
	return []string{"good", "revoked", "unknown"}[parsed.Status]
}

// TestCRL: type, headers, HEAD, conditional requests, and the change after a revocation.
func TestCRL(t *testing.T) {
	w := newWorld(t, 0)
	path := "/crl/" + w.id + "/0.crl"
	first := w.get(path, nil)
	etag := first.header.Get("ETag")
	if first.status != 200 || first.header.Get("Content-Type") != "application/pkix-crl" || etag == "" ||
		first.header.Get("Last-Modified") == "" || !strings.Contains(first.header.Get("Cache-Control"), "no-cache") {
		t.Errorf("%d %v", first.status, first.header)
	}
	if _, err := x509.ParseRevocationList(first.body); err != nil {
		t.Error(err)
	}
	if short := w.get("/crl/"+w.id+".crl", nil); !bytes.Equal(short.body, first.body) {
		t.Error("/crl/{ca}.crl is another list")
	}
	if head := w.do(http.MethodHead, path, nil, nil); len(head.body) != 0 || head.header.Get("Content-Length") != fmt.Sprint(len(first.body)) {
		t.Errorf("HEAD: %d bytes, %v", len(head.body), head.header)
	}
	for _, tag := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		if got := w.get(path, http.Header{"If-None-Match": {tag}}); got.status != http.StatusNotModified || len(got.body) != 0 {
			t.Errorf("If-None-Match %s: %d", tag, got.status)
		}
	}
	if _, err := w.Revoke(t.Context(), ca.RevokeRequest{ID: w.row.ID, Reason: pkix.Superseded}); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		// In the same second as the first list: Last-Modified must not decide.
		header := http.Header{"If-None-Match": {etag}, "If-Modified-Since": {first.header.Get("Last-Modified")}}
		if got := w.get(path, header); got.status == 200 {
			if list, err := x509.ParseRevocationList(got.body); err != nil || len(list.RevokedCertificateEntries) != 1 {
				t.Errorf("after the revocation: %v", err)
			}
			break
		}
		if time.Since(start) > time.Second {
			t.Fatal("a second after the revocation the old list is still served")
		}
	}
}

// TestPaths: what is there and what is not.
func TestPaths(t *testing.T) {
	w := newWorld(t, 0)
	for path, want := range map[string]int{
		"/ca/" + w.id + ".cer": 200, "/ca.pem": 200, "/ca/none.cer": 404, "/ca/" + w.id: 404, "/ca/" + w.id + ".pem": 404,
		"/crl/none/0.crl": 404, "/crl/" + w.id + "/1.crl": 404, "/crl/" + w.id + "/-1.crl": 404, "/crl/" + w.id + "/00.crl": 404,
		"/crl/" + w.id + "/0": 404, "/crl/" + w.id + "/0.crl/x": 404, "/": 404, "/ocsp": 400, "/ocspx": 404,
	} {
		if got := w.get(path, nil); got.status != want {
			t.Errorf("GET %s: %d, want %d", path, got.status, want)
		}
	}
	cer := w.get("/ca/"+w.id+".cer", nil)
	if cer.header.Get("Content-Type") != "application/pkix-cert" || !bytes.Equal(cer.body, w.Issuing().Raw) {
		t.Errorf("the issuer's certificate: %v", cer.header)
	}
	if got := w.do(http.MethodPost, "/ca.pem", nil, nil).status; got != http.StatusMethodNotAllowed {
		t.Errorf("POST /ca.pem: %d", got)
	}
}

// TestOCSPGet: the base64 in every way that clients write it into a path.
func TestOCSPGet(t *testing.T) {
	w := newWorld(t, 0)
	var seen string
	for _, nonce := range [][]byte{nil, []byte("\xff\xff\xff\xff\xff\xff\xff\xff"), []byte("\xfb\xef\xbe\xfb\xef\xbe\xfb\xef\xbe")} {
		std := base64.StdEncoding.EncodeToString(w.request(crypto.SHA1, nonce))
		seen += std
		for how, path := range map[string]string{
			"bare": std, "escaped": url.QueryEscape(std), "path escaped": url.PathEscape(std), "without =": strings.TrimRight(std, "="),
			"blank for +": strings.ReplaceAll(std, "+", "%20"), "URL alphabet": strings.NewReplacer("+", "-", "/", "_").Replace(std),
		} {
			got := w.get("/ocsp/"+path, nil)
			if got.status != 200 || got.header.Get("Content-Type") != "application/ocsp-response" || w.status(got.body) != "good" {
				t.Errorf("%s: %d, %s", how, got.status, w.status(got.body))
			}
			if noStore := got.header.Get("Cache-Control") == "no-store"; noStore != (nonce != nil) {
				t.Errorf("%s with nonce %x: Cache-Control %s", how, nonce, got.header.Get("Cache-Control"))
			}
		}
	}
	if !strings.Contains(seen, "//") || !strings.Contains(seen, "+") {
		t.Error("the requests have no // and no +, so this test shows nothing")
	}
}

// TestOCSPPost: the same by POST, and what is refused.
func TestOCSPPost(t *testing.T) {
	w := newWorld(t, 0)
	typed := http.Header{"Content-Type": {"application/ocsp-request"}}
	post := func(header http.Header, body []byte) reply {
		return w.do(http.MethodPost, "/ocsp", header, bytes.NewReader(body))
	}
	if got := post(typed, w.request(crypto.SHA256, nil)); got.status != 200 || w.status(got.body) != "good" {
		t.Errorf("%d %s", got.status, w.status(got.body))
	}
	malformed := string(pkix.OCSPErrorResponse(pkix.OCSPMalformedRequest))
	for name, body := range map[string][]byte{"empty": nil, "garbage": []byte("hello"), "huge": make([]byte, 1<<20)} {
		got := post(typed, body)
		if got.status != 200 || string(got.body) != malformed || got.header.Get("Content-Type") != "application/ocsp-response" {
			t.Errorf("%s: %d %x", name, got.status, got.body)
		}
	}
	if got := w.get("/ocsp/!!!", nil); got.status != 200 || string(got.body) != malformed {
		t.Errorf("no base64: %d %x", got.status, got.body)
	}
	if got := w.get("/ocsp/"+strings.Repeat("A", 90<<10), nil); got.status != 200 || string(got.body) != malformed {
		t.Errorf("90 KiB in the path: %d", got.status)
	}
	for _, header := range []http.Header{{"Content-Type": {"text/plain"}}, nil} {
		if got := post(header, w.request(crypto.SHA256, nil)); got.status != http.StatusUnsupportedMediaType {
			t.Errorf("content type %v: %d", header, got.status)
		}
	}
	if got := w.do(http.MethodPut, "/ocsp", typed, nil); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") == "" {
		t.Errorf("PUT: %d", got.status)
	}
}

// TestOCSPCaching: RFC 5019's headers; a cache that asks again learns of a revocation at once.
func TestOCSPCaching(t *testing.T) {
	w := newWorld(t, 0)
	path := "/ocsp/" + url.PathEscape(base64.StdEncoding.EncodeToString(w.request(crypto.SHA1, nil)))
	first := w.get(path, nil)
	for _, name := range []string{"ETag", "Last-Modified", "Expires", "Date", "Cache-Control", "Content-Length"} {
		if first.header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
	again := http.Header{"If-None-Match": {first.header.Get("ETag")}}
	if got := w.get(path, again); got.status != http.StatusNotModified {
		t.Errorf("asked again: %d", got.status)
	}
	if _, err := w.Hold(t.Context(), ca.ChangeRequest{ID: w.row.ID}); err != nil {
		t.Fatal(err)
	}
	if got := w.get(path, again); got.status != 200 || w.status(got.body) != "revoked" {
		t.Errorf("right after the hold: %d %s", got.status, w.status(got.body))
	}
}

// TestMaxAge: an operator may let caches keep answers, never past nextUpdate.
func TestMaxAge(t *testing.T) {
	for maxAge, want := range map[time.Duration]string{10 * time.Second: "max-age=10", 48 * time.Hour: "max-age=863"} {
		w := newWorld(t, maxAge)
		if got := w.get("/crl/"+w.id+".crl", nil).header.Get("Cache-Control"); !strings.Contains(got, want) {
			t.Errorf("CRL: Cache-Control %s, want %s", got, want)
		}
	}
}
