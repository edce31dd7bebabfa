package edge

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

// webSocketOrigin accepts any Upgrade and hands the connection to serve.
func webSocketOrigin(t *testing.T, serve func(net.Conn, *bufio.ReadWriter)) string {
	t.Helper()
	return origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			http.Error(w, "upgrade required", http.StatusUpgradeRequired)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+
			"\r\nSec-Websocket-Accept: yes\r\nX-Client-Seen: "+r.Header.Get("Client-Cert")[:10]+"\r\n\r\n")
		serve(c, rw)
	}).URL
}

// upgrade opens a connection and switches it to a protocol.
func (f *front) upgrade(leaf *testpki.Leaf, protocol string) (net.Conn, *bufio.Reader) {
	f.t.Helper()
	c := f.dial("a.example", leaf, "http/1.1")
	_, err := io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: "+protocol+
		"\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\nClient-Cert: FORGED\r\n\r\n")
	if err != nil {
		f.t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if resp.StatusCode != 101 || !strings.EqualFold(resp.Header.Get("Upgrade"), protocol) || resp.Header.Get("X-Client-Seen") == "FORGED" {
		f.t.Fatalf("status %d, header %v", resp.StatusCode, resp.Header)
	}
	return c, r
}

// readFrame reads an unmasked frame.
func readFrame(r io.Reader) (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1])
	switch length {
	case 126:
		var n [2]byte
		_, err = io.ReadFull(r, n[:])
		length = uint64(binary.BigEndian.Uint16(n[:]))
	case 127:
		var n [8]byte
		_, err = io.ReadFull(r, n[:])
		length = binary.BigEndian.Uint64(n[:])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(r, payload)
	return head[0] & 0x0f, payload, err
}

// wantPolicyViolation reads frames until the close frame 1008 and then the end of the connection.
func wantPolicyViolation(t *testing.T, r io.Reader) {
	t.Helper()
	for {
		opcode, payload, err := readFrame(r)
		if err != nil {
			t.Fatalf("no close frame: %v", err)
		}
		if opcode != 8 {
			continue
		}
		if len(payload) < 2 || binary.BigEndian.Uint16(payload) != 1008 || string(payload[2:]) != "certificate revoked" {
			t.Fatalf("close frame %q", payload)
		}
		if _, err := io.ReadFull(r, make([]byte, 1)); err == nil {
			t.Error("more after the close frame")
		}
		return
	}
}

func TestWebSocketEchoAndCut(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	gone := make(chan struct{}, 1)
	url := webSocketOrigin(t, func(c net.Conn, rw *bufio.ReadWriter) {
		_, _ = io.Copy(c, rw) // client frames unmasked by the test, so an echo is a server's frame
		gone <- struct{}{}
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, url))
	c, r := f.upgrade(&leaf, "websocket")
	for _, size := range []int{1, 126, 70000} {
		sent := bytes.Repeat([]byte("x"), size)
		if _, err := c.Write(appendFrame(nil, 1, false, sent)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := readFrame(r); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("echo of %d bytes: %d bytes, %v", size, len(got), err)
		}
	}
	start := time.Now()
	f.revoke(leaf)
	wantPolicyViolation(t, r)
	if took := time.Since(start); took > time.Second {
		t.Errorf("cut took %v", took)
	}
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("the origin's connection is still open")
	}
	for deadline := time.Now().Add(20 * time.Second); f.server.Live() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := f.server.Live(); n != 0 {
		t.Errorf("%d connections are still live", n)
	}
	if m := f.server.RequestMetrics(); m.Upgraded != 1 {
		t.Errorf("metrics %+v", m)
	}
}

// A client that answers the close frame is hung up on at once.
func TestWebSocketCutIsAnswered(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	url := webSocketOrigin(t, func(_ net.Conn, rw *bufio.ReadWriter) { _, _ = io.Copy(io.Discard, rw) })
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, url))
	c, r := f.upgrade(&leaf, "websocket")
	_, _ = c.Write(appendFrame(nil, 1, true, []byte("chatter")))
	done := make(chan time.Duration, 1)
	go func() {
		start := time.Now()
		f.revoke(leaf)
		done <- time.Since(start)
	}()
	if opcode, _, err := readFrame(r); err != nil || opcode != 8 {
		t.Fatalf("opcode %d, %v", opcode, err)
	}
	_, _ = c.Write(appendFrame(nil, 8, true, []byte{0x03, 0xf0}))
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("after the close handshake %q, %v", rest, err)
	}
	t.Logf("cut in %v", <-done)
}

// While frames stream, the close frame comes between two of them.
func TestWebSocketCutInAStream(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	url := webSocketOrigin(t, func(c net.Conn, _ *bufio.ReadWriter) {
		frame := appendFrame(nil, 2, false, bytes.Repeat([]byte{0x88}, 5000))
		for {
			if _, err := c.Write(frame); err != nil {
				return
			}
			time.Sleep(50 * time.Microsecond) // a client that cannot keep up is always in mid-frame
		}
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, url))
	_, r := f.upgrade(&leaf, "websocket")
	for range 10 {
		if _, _, err := readFrame(r); err != nil {
			t.Fatal(err)
		}
	}
	go f.revoke(leaf)
	wantPolicyViolation(t, r)
}

// In the middle of a frame that does not end, the connection is closed without a word.
func TestWebSocketCutInMidFrame(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	url := webSocketOrigin(t, func(c net.Conn, rw *bufio.ReadWriter) {
		_, _ = c.Write(appendFrame(nil, 2, false, make([]byte, 1000))[:500])
		_, _ = io.Copy(io.Discard, rw)
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, url))
	_, r := f.upgrade(&leaf, "websocket")
	if _, err := io.ReadFull(r, make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	f.revoke(leaf)
	if rest, err := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("in mid-frame came %q, %v", rest, err)
	}
}

func TestOtherUpgrades(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("Iwa Te")
	url := webSocketOrigin(t, func(c net.Conn, rw *bufio.ReadWriter) {
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(c, strings.ToUpper(line))
		_, _ = io.Copy(io.Discard, rw)
	})
	f := newFront(t, ca, frontHost(ca, "a.example", site.Require, url))
	c, r := f.upgrade(&leaf, "chat/1")
	_, _ = io.WriteString(c, "hello\n")
	if line, err := r.ReadString('\n'); line != "HELLO\n" {
		t.Fatalf("%q, %v", line, err)
	}
	f.revoke(leaf)
	if rest, err := io.ReadAll(r); len(rest) > 0 || errors.Is(err, io.ErrNoProgress) {
		t.Errorf("after the cut %q, %v", rest, err)
	}
	again := ca.Client("Iwa Te again")
	for _, protocol := range []string{"h2c", "H2C", "HTTP/2.0", "TLS/1.0", "websocket, h2c"} {
		resp, _ := f.raw("a.example", &again, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
		if resp.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("Upgrade: %s reached the origin: status %d", protocol, resp.StatusCode)
		}
	}
}

// An origin that refuses to switch answers as usual, and the connection stays HTTP.
func TestWebSocketRefusedByOrigin(t *testing.T) {
	ca := testpki.NewCA(t)
	o := origin(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	f := newFront(t, ca, frontHost(ca, "a.example", site.Off, o.URL))
	c := f.dial("a.example", nil, "http/1.1")
	r := bufio.NewReader(c)
	for range 2 {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusForbidden {
			t.Fatalf("%v, %v", resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
}
