package responder

import (
	"bytes"
	"encoding/base64"
	"net/url"
	"testing"
)

// FuzzRequestInPath: what was encoded comes out again; anything else ends in an error, never in a panic.
func FuzzRequestInPath(f *testing.F) {
	f.Add([]byte{0x30, 0xff, 0xfe, 0xfb, 0xef}, "/ocsp/MEUw+//%2B=")
	f.Add([]byte{}, "/ocsp/")
	f.Add([]byte("x"), "/ocsp/%zz")
	f.Fuzz(func(t *testing.T, der []byte, path string) {
		if u, err := url.Parse("http://localhost" + path); err == nil {
			_, _ = requestInPath(u)
		}
		text := base64.StdEncoding.EncodeToString(der)
		for _, written := range []string{text, url.PathEscape(text), url.QueryEscape(text)} {
			u, err := url.Parse("http://localhost/ocsp/" + written)
			if err != nil {
				t.Fatal(err)
			}
			got, err := requestInPath(u)
			if err != nil || !bytes.Equal(got, der) {
				t.Errorf("%q: %x, %v; want %x", written, got, err, der)
			}
		}
	})
}
