package edge

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

func TestTransportsOutliveSnapshots(t *testing.T) {
	ca := testpki.NewCA(t)
	o := origin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	other := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "other") })
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, o.URL))
	c := f.client("a.example", nil, false)
	get(t, c, "https://a.example/", nil)
	first := f.p.current().routes[f.snapshot().Hosts()[0]].origin
	f.use(frontHost(ca, "a.example", site.Off, o.URL), frontHost(ca, "b.example", site.Off, o.URL))
	get(t, c, "https://a.example/", nil)
	for _, h := range f.snapshot().Hosts() {
		if got := f.p.current().routes[h].origin; got != first {
			t.Errorf("%s has a transport of its own", h.Name)
		}
	}
	f.use(frontHost(ca, "a.example", site.Off, other.URL))
	if _, body := get(t, c, "https://a.example/", nil); body != "other" {
		t.Errorf("after the swap: %q", body)
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
	if resp, err := first.transport.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		t.Error("the transport that nobody wants is still open")
	}
	bad := frontHost(ca, "a.example", site.Off, "gopher://x")
	f.use(bad)
	if resp, body := get(t, c, "https://a.example/", nil); resp.StatusCode != 502 || strings.Contains(body, "gopher") {
		t.Errorf("bad upstream: status %d, %q", resp.StatusCode, body)
	}
	if _, err := New(Config{Snapshot: f.snapshot, Verifier: f.server.cfg.Verifier}); err == nil || !strings.Contains(err.Error(), "gopher") {
		t.Errorf("New with a bad upstream: %v", err)
	}
}

func TestUpstreamOverTLSWithClientCertificate(t *testing.T) {
	ca, originCA := testpki.NewCA(t), testpki.NewCA(t)
	edgeLeaf := originCA.Client("edge")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{originCA.Server("origin.example").TLS()}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: originCA.Pool(),
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	h := frontHost(ca, "a.example", site.Off, s.URL)
	h.Upstream.Roots, h.Upstream.ServerName = originCA.PEM, "origin.example"
	h.Upstream.CertPEM, h.Upstream.KeyPEM = edgeLeaf.CertPEM, edgeLeaf.KeyPEM
	f := newFront(t, ca, h)
	if resp, body := get(t, f.client("a.example", nil, false), "https://a.example/", nil); body != "edge" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

// Snapshots are swapped under load between two upstreams: every request is answered by one of them, and none by an
// error of the swap.
func TestSwapsUnderLoad(t *testing.T) {
	ca := testpki.NewCA(t)
	one := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "one") })
	two := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "two") })
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, one.URL))
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			c := f.client("a.example", nil, false)
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := c.Get("https://a.example/")
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if s := string(body); resp.StatusCode != 200 || s != "one" && s != "two" {
					t.Errorf("status %d, %q", resp.StatusCode, body)
				}
			}
		})
	}
	for i := range 100 {
		f.use(frontHost(ca, "a.example", site.Off, []string{one.URL, two.URL}[i%2]))
		time.Sleep(2 * time.Millisecond)
	}
	close(stop)
	clients.Wait()
}

// Every field of an upstream that a transport is made of tells two transports apart.
func TestUpstreamKeys(t *testing.T) {
	seen := map[[32]byte]int{}
	for i, u := range []site.Upstream{
		{},
		{URLs: []string{"http://a"}},
		{URLs: []string{"http://a", "http://b"}},
		{URLs: []string{"http://ahttp://b"}},
		{ServerName: "a"},
		{Roots: []byte("a")},
		{CertPEM: []byte("a")},
		{KeyPEM: []byte("a")},
		{DialTimeout: 1},
		{HeaderTimeout: 1},
	} {
		key := upstreamKey(u)
		if j, ok := seen[key]; ok {
			t.Errorf("upstreams %d and %d have the same key", i, j)
		}
		seen[key] = i
	}
}
