package edge

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

// BenchmarkPipeline is a kept connection's GET through the edge, with identity headers, beside the same through a
// bare httputil.ReverseProxy and http.Transport. The time is of client, proxy and origin together.
func BenchmarkPipeline(b *testing.B) {
	ca := testpki.NewCA(b)
	leaf := ca.Client("Iwa Te")
	o := origin(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	for _, h2 := range []bool{false, true} {
		name := map[bool]string{false: "http1", true: "http2"}[h2]
		b.Run("edge/"+name, func(b *testing.B) {
			f := newFront(b, ca, frontHost(ca, "a.example", site.Require, o.URL))
			f.p.access = nil
			run(b, f.client("a.example", &leaf, h2), "https://a.example/")
		})
		b.Run("bare/"+name, func(b *testing.B) {
			target, err := url.Parse(o.URL)
			if err != nil {
				b.Fatal(err)
			}
			s := httptest.NewUnstartedServer(&httputil.ReverseProxy{
				Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target); r.SetXForwarded() },
				Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
			})
			s.EnableHTTP2 = h2
			s.TLS = &tls.Config{
				Certificates: []tls.Certificate{ca.Server("a.example").TLS()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
			}
			s.StartTLS()
			b.Cleanup(s.Close)
			f := &front{t: b, ca: ca, addr: s.Listener.Addr().String()}
			run(b, f.client("a.example", &leaf, h2), "https://a.example/")
		})
	}
}

func run(b *testing.B, c *http.Client, url string) {
	b.ReportAllocs()
	for b.Loop() {
		resp, err := c.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status, err)
		}
		_ = resp.Body.Close()
	}
}

// discard is a ResponseWriter that keeps nothing.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Flush()                      {}

// BenchmarkHandler is the pipeline and the upstream half alone, without net/http's server and TLS.
func BenchmarkHandler(b *testing.B) {
	ca := testpki.NewCA(b)
	leaf := ca.Client("Iwa Te")
	o := origin(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	f := newFront(b, ca, frontHost(ca, "a.example", site.Require, o.URL))
	f.p.access = nil
	get(b, f.client("a.example", &leaf, false), "https://a.example/", nil)
	ctx := f.server.live.all()[0].link.http.BaseContext(nil)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "https://a.example/", nil)
		f.p.ServeHTTP(&discard{make(http.Header)}, r)
	}
}
