// Package upstream is the origin behind every server that is measured: it answers each HTTP/1.1 request with the same
// 1 KiB, as cheaply as Go can, so that it takes little of the core that it shares with the load generator. It is no
// HTTP server: requests must have no body.
//
//	err := upstream.Serve(listener)
package upstream

import (
	"bytes"
	"fmt"
	"net"
)

// BodySize is the length of each answer's body in bytes.
const BodySize = 1024

// Serve answers on every connection of the listener until it is closed.
func Serve(l net.Listener) error {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
		BodySize, bytes.Repeat([]byte("0123456789abcde\n"), BodySize/16))
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(c, answer)
	}
}

// serve answers each header block that ends in an empty line. Its goroutine ends with the connection.
func serve(c net.Conn, answer []byte) {
	defer c.Close()
	end := []byte("\r\n\r\n")
	buf := make([]byte, 64<<10)
	n := 0
	for {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		for {
			i := bytes.Index(buf[:n], end)
			if i < 0 {
				break
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
			n = copy(buf, buf[i+len(end):n])
		}
		if n == len(buf) {
			return // a header block of 64 KiB
		}
	}
}
