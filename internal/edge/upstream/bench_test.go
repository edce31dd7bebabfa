package upstream

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"testing"
)

// benchOrigin answers every request with the same 1 KiB response, at next to no
// cost of its own, so that the client's cost shows.
func benchOrigin(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 1024\r\nCache-Control: no-cache\r\n\r\n")
	answer = append(answer, bytes.Repeat([]byte("x"), 1024)...)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) > 2 {
						continue
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// BenchmarkFloor is the same exchange by one Write and one Read: what the
// system calls and the origin cost, to be taken off the other rows.
func BenchmarkFloor(b *testing.B) {
	c, err := net.Dial("tcp", benchOrigin(b))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	req := []byte("GET /a/path?and=query HTTP/1.1\r\nHost: h\r\nUser-Agent: bench\r\nAccept: */*\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
	buf := make([]byte, 4096)
	for b.Loop() {
		if _, err := c.Write(req); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoundTrip is a keep-alive GET of 1 KiB with a cancellable context,
// by this package and by net/http.
func BenchmarkRoundTrip(b *testing.B) {
	addr := benchOrigin(b)
	ours, err := New(Config{URLs: []string{"http://" + addr}})
	if err != nil {
		b.Fatal(err)
	}
	defer ours.Close()
	std := &http.Transport{DisableCompression: true}
	defer std.CloseIdleConnections()
	for _, bb := range []struct {
		name string
		rt   http.RoundTripper
	}{{"upstream", ours}, {"nethttp", std}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+addr+"/a/path?and=query", nil)
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("User-Agent", "bench")
			req.Header.Set("Accept", "*/*")
			req.Header.Set("X-Forwarded-For", "192.0.2.1")
			buf := make([]byte, 4096)
			for b.Loop() {
				resp, err := bb.rt.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for err == nil {
					var m int
					m, err = resp.Body.Read(buf)
					n += m
				}
				resp.Body.Close()
				if !isEOF(err) || n != 1024 {
					b.Fatal(n, err)
				}
			}
		})
	}
}
