package responder

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"sekisho/internal/pkix"
)

// FuzzRequestInPath: what was encoded comes out again; anything else ends in an error, never in a panic, and what is
// decoded is what net/url and encoding/base64 make of it.
func FuzzRequestInPath(f *testing.F) {
	f.Add([]byte{0x30, 0xff, 0xfe, 0xfb, 0xef}, "/ocsp/MEUw+//%2B=")
	f.Add([]byte{}, "/ocsp/")
	f.Add([]byte("x"), "/ocsp/%zz")
	f.Add([]byte{0xfb, 0xff}, "/ocsp/%2b%2f-_%20==")
	f.Add([]byte("xy"), "/ocsp/AA%0aAA")
	f.Fuzz(func(t *testing.T, der []byte, path string) {
		got, err := decodePath(path)
		if want, ok := slowly(path); (err == nil) != ok || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%q: %x, %v; net/url and encoding/base64: %x, %v", path, got, err, want, ok)
		}
		text := base64.StdEncoding.EncodeToString(der)
		for _, written := range []string{text, url.PathEscape(text), url.QueryEscape(text)} {
			req := httptest.NewRequest(http.MethodGet, "http://localhost/ocsp/"+written, nil)
			for _, path := range []string{requestPath(req), req.URL.EscapedPath()} {
				if got, err := decodePath(path); !isOCSP(path) || err != nil && len(der) <= pkix.MaxOCSPRequestBytes || err == nil && !bytes.Equal(got, der) {
					t.Errorf("%q: %x, %v; want %x", path, got, err, der)
				}
			}
		}
	})
}

// slowly is decodePath by the standard library.
func slowly(path string) ([]byte, bool) {
	text, err := url.PathUnescape(strings.TrimPrefix(strings.TrimPrefix(path, ocspPath), "/"))
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	text = strings.NewReplacer(" ", "+", "-", "+", "_", "/").Replace(text)
	der, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	return der, err == nil && len(der) <= pkix.MaxOCSPRequestBytes
}
