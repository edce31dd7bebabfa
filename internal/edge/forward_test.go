package edge

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/pkix"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

func headerMap(h *identityHeaders) map[string]string {
	m := make(map[string]string)
	for _, f := range h.fields {
		m[f.name] = strings.Join(f.values, "|")
	}
	return m
}

func TestIdentityHeaderFormats(t *testing.T) {
	ca := testpki.NewCA(t)
	sub := ca.Intermediate("devices")
	spiffe, err := url.Parse("spiffe://example.org/a,b")
	if err != nil {
		t.Fatal(err)
	}
	leaf := sub.Client("Iwa Te", testpki.Edit(func(c *x509.Certificate) {
		c.URIs, c.DNSNames = []*url.URL{spiffe}, []string{"one.example", "two.example"}
	}))
	chain := append([]*x509.Certificate{leaf.Cert}, leaf.Chain...)
	if len(chain) != 2 {
		t.Fatalf("chain of %d certificates, want 2", len(chain))
	}
	b64 := base64.StdEncoding.EncodeToString
	sum := pkix.FingerprintOf(leaf.Cert.Raw).String()
	facts := "Hash=" + sum
	names := `;Subject="` + pkix.DNString(leaf.Cert.RawSubject) + `";URI="spiffe://example.org/a,b";DNS=one.example;DNS=two.example`
	for _, tt := range []struct {
		name    string
		forward site.Forward
		limit   int
		want    map[string]string
	}{
		{"none", site.Forward{}, 1 << 14, map[string]string{}},
		{"RFC 9440", site.Forward{RFC9440: true}, 1 << 14, map[string]string{
			"Client-Cert": ":" + b64(leaf.Cert.Raw) + ":", "Client-Cert-Chain": ":" + b64(leaf.Chain[0].Raw) + ":",
		}},
		{"Cloudflare", site.Forward{DERBase64: true}, 1 << 14, map[string]string{
			"Cf-Client-Cert-Der-Base64": b64(leaf.Cert.Raw), "Cf-Client-Cert-Sha256": sum,
		}},
		{"XFCC", site.Forward{XFCC: true}, 1 << 14, map[string]string{"X-Forwarded-Client-Cert": facts + names}},
		{"too large", site.Forward{RFC9440: true}, 100, map[string]string{"Cf-Client-Cert-Sha256": sum}},
		{"XFCC too large", site.Forward{XFCC: true}, 100, map[string]string{
			"Cf-Client-Cert-Sha256": sum, "X-Forwarded-Client-Cert": "Hash=" + sum,
		}},
	} {
		got := newIdentityHeaders(chain, tt.forward, tt.limit)
		if diff := cmp.Diff(tt.want, headerMap(got)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, diff)
		}
		if got.tooLarge != (tt.limit == 100) {
			t.Errorf("%s: tooLarge = %v", tt.name, got.tooLarge)
		}
	}

	withCert := headerMap(newIdentityHeaders(chain, site.Forward{XFCC: true, XFCCWithCert: true}, 1<<14))["X-Forwarded-Client-Cert"]
	_, rest, _ := strings.Cut(withCert, `;Chain="`)
	encoded, _, _ := strings.Cut(rest, `"`)
	text, err := url.QueryUnescape(encoded)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range chain {
		block, rest := pem.Decode([]byte(text))
		if block == nil || !cmp.Equal(block.Bytes, want.Raw) {
			t.Fatalf("Chain of XFCC lacks a certificate: %q", withCert)
		}
		text = string(rest)
	}
}

// Names in certificates are chosen by those who ask for them; none may end its value and begin another element.
func TestXFCCCannotBeInjected(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`CN=plain`, `CN=plain`},
		{`CN=a\"\;Hash=0`, `CN=a\22\;Hash=0`},
		{`CN=ends in \\`, `CN=ends in \5C`},
		{"CN=line\r\nX: y", `CN=line\0D\0AX: y`},
		{"CN=岩手", `CN=\E5\B2\A9\E6\89\8B`},
	} {
		if got := headerDN(tt.in); got != tt.want {
			t.Errorf("headerDN(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"one.example", "one.example"},
		{`a";DNS="b`, `"a%22;DNS=%22b"`},
		{"a,By=x", `"a,By=x"`},
		{"a\r\nb c\\", "a%0D%0Ab%20c%5C"},
	} {
		if got := xfccValue(tt.in); got != tt.want {
			t.Errorf("xfccValue(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
