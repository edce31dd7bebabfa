package outbound_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/testpki"
)

func tlsConfig(leaf testpki.Leaf) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}}
}

// TestTLS: the server must prove the name in the URL, under the CAs of the client.
func TestTLS(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t)
	for _, tt := range []struct {
		name  string
		leaf  testpki.Leaf
		roots *x509.CertPool
		host  string
		want  string
	}{
		{"by address", ca.Server("127.0.0.1"), ca.Pool(), "127.0.0.1", ""},
		{"by name", ca.Server("localhost"), ca.Pool(), "localhost", ""},
		{"under an intermediate", ca.Intermediate("below").Server("127.0.0.1"), ca.Pool(), "127.0.0.1", ""},
		{"private CA, system roots", ca.Server("127.0.0.1"), nil, "127.0.0.1", "unknown authority"},
		{"another CA", ca.Server("127.0.0.1"), other.Pool(), "127.0.0.1", "unknown authority"},
		{"another name", ca.Server("example.com"), ca.Pool(), "localhost", "example.com, not localhost"},
		{"expired", ca.ServerWith([]string{"127.0.0.1"}, testpki.NotAfter(time.Now().Add(-time.Hour))), ca.Pool(), "127.0.0.1", "expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var version string
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				version = r.Proto
				io.WriteString(w, "secure")
			}))
			s.TLS = tlsConfig(tt.leaf)
			s.EnableHTTP2 = true
			s.Config.ErrorLog = discard()
			s.StartTLS()
			defer s.Close()
			c := newClient(t, outbound.Config{Allow: loopback(), RootCAs: tt.roots})
			_, body, err := get(t, c, outbound.Request{URL: strings.Replace(s.URL, "127.0.0.1", tt.host, 1)})
			switch {
			case tt.want == "" && (err != nil || body != "secure" || version != "HTTP/1.1"):
				t.Errorf("%q %s, %v", body, version, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v; want %q", err, tt.want)
			}
			if m := c.Metrics(); (m.OK == 1) != (tt.want == "") || m.OK+m.Error != 1 {
				t.Errorf("%+v", m)
			}
		})
	}
}
