package responder_test

import (
	"bufio"
	"crypto"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// BenchmarkOCSP asks over kept connections: GET of an answer in memory, POST with a nonce that is signed live.
func BenchmarkOCSP(b *testing.B) {
	w := newWorld(b, 0)
	get := "GET /ocsp/" + url.PathEscape(base64.StdEncoding.EncodeToString(w.request(crypto.SHA1, nil))) + " HTTP/1.1\r\nHost: x\r\n\r\n"
	nonced := string(w.request(crypto.SHA1, []byte("0123456789abcdef")))
	post := fmt.Sprintf("POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", len(nonced), nonced)
	for name, request := range map[string]string{"get": get, "post": post} {
		b.Run(name, func(b *testing.B) {
			conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", strings.TrimPrefix(w.url, "http://"))
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			r := bufio.NewReader(conn)
			for b.Loop() {
				if _, err := io.WriteString(conn, request); err != nil {
					b.Fatal(err)
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != http.StatusOK {
					b.Fatal(err, resp)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n < 200 {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}
