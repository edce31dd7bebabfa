package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// kind is what a live connection is doing while its certificate is revoked.
type kind string

// kinds of connections, spread evenly over the certificates.
var kinds = []kind{"idle", "download", "upload", "http2", "http2-stream", "websocket"}

// liveConn is one connection of the cut test and what its reader saw.
type liveConn struct {
	kind  kind
	conn  *tls.Conn
	drain chan struct{} // closed when a slow reader shall read on at full speed

	closed atomic.Int64 // when the read side ended, Unix nanoseconds; 0 while it lives
	after  atomic.Int64 // octets read after drain
	goaway atomic.Bool  // HTTP/2: a GOAWAY came
	code   atomic.Int64 // WebSocket: status code of the close frame
	done   chan struct{}
}

// dialLive opens a connection of a kind and leaves a goroutine reading it.
func dialLive(p *process, config *tls.Config, k kind) (*liveConn, error) {
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	if k == "http2" || k == "http2-stream" {
		config.NextProtos = []string{"h2"}
	}
	conn, err := tls.Dial("tcp", p.edgeAddress(), config)
	if err != nil {
		return nil, err
	}
	c := &liveConn{kind: k, conn: conn, drain: make(chan struct{}), done: make(chan struct{})}
	r := bufio.NewReader(conn)
	switch k {
	case "http2", "http2-stream":
		err = c.startHTTP2(r)
	default:
		err = c.startHTTP1(r)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	return c, nil
}

func (c *liveConn) startHTTP1(r *bufio.Reader) error {
	const host = "Host: localhost\r\n"
	requests := map[kind]string{
		"idle":      "GET /hello HTTP/1.1\r\n" + host + "\r\n",
		"download":  "GET /download HTTP/1.1\r\n" + host + "\r\n",
		"upload":    "POST /upload HTTP/1.1\r\n" + host + "Content-Length: 1000000000\r\n\r\n",
		"websocket": "GET /ws HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
	}
	if _, err := io.WriteString(c.conn, requests[c.kind]); err != nil {
		return err
	}
	if c.kind == "upload" {
		go c.write()
		go c.read(func() error { _, err := r.ReadByte(); return err })
		return nil
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	switch c.kind {
	case "idle":
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "Hello World\n" {
			return fmt.Errorf("answer %q: %w", body, err)
		}
		go c.read(func() error { _, err := r.ReadByte(); return err })
	case "download":
		go c.readSlowly(r)
	case "websocket":
		if resp.StatusCode != http.StatusSwitchingProtocols {
			return errors.New(resp.Status)
		}
		go c.read(func() error {
			opcode, payload, err := readFrame(r)
			if opcode == 8 && len(payload) >= 2 {
				c.code.Store(int64(payload[0])<<8 | int64(payload[1]))
			}
			return err
		})
	}
	return nil
}

// startHTTP2 makes one request by hand: a short one, or a download whose window is never opened.
func (c *liveConn) startHTTP2(r *bufio.Reader) error {
	if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
		return err
	}
	framer := http2.NewFramer(c.conn, r)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	path := "/hello"
	if c.kind == "http2-stream" {
		path = "/download"
	}
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", path}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	err := errors.Join(framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}))
	if err != nil {
		return err
	}
	answered := make(chan error, 1)
	go c.read(func() error {
		frame, err := framer.ReadFrame()
		if err != nil {
			select {
			case answered <- err:
			default:
			}
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				return framer.WriteSettingsAck()
			}
		case *http2.DataFrame:
			select {
			case answered <- nil:
			default:
			}
		case *http2.GoAwayFrame:
			c.goaway.Store(true)
		}
		return nil
	})
	select {
	case err := <-answered:
		return err
	case <-time.After(30 * time.Second):
		return errors.New("no answer within 30 s")
	}
}

// read calls step until it fails and notes when that was.
func (c *liveConn) read(step func() error) {
	defer close(c.done)
	for step() == nil {
	}
	c.closed.Store(time.Now().UnixNano())
}

func (c *liveConn) readSlowly(r *bufio.Reader) {
	buf := make([]byte, 1024)
	draining := false
	c.read(func() error {
		if !draining {
			select {
			case <-c.drain:
				draining, buf = true, make([]byte, 64<<10)
			case <-time.After(50 * time.Millisecond):
			}
		}
		n, err := r.Read(buf)
		if draining {
			c.after.Add(int64(n))
		}
		return err
	})
}

func (c *liveConn) write() {
	buf := make([]byte, 1024)
	for {
		select {
		case <-c.done:
			return
		case <-time.After(50 * time.Millisecond):
			if _, err := c.conn.Write(buf); err != nil {
				return
			}
		}
	}
}

// alive reports whether the connection has not been closed.
func (c *liveConn) alive() bool { return c.closed.Load() == 0 }
