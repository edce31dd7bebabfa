package edge

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

// chatty is an origin that accepts any WebSocket and says "hi" every 20 ms until its connection ends.
func chatty(t *testing.T) *httptest.Server {
	var work sync.WaitGroup
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		work.Go(func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() })
		for {
			if _, err := conn.Write([]byte{0x81, 2, 'h', 'i'}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); work.Wait() })
	return srv
}

// A revocation reaches an open WebSocket as close frame 1008, through the whole edge, and no other one.
func TestInvariant02WebSocketReads1008(t *testing.T) {
	origin := chatty(t)
	c := newCheckpoint(t, func(c *checkpoint) []*site.Host {
		h := c.host("a.example", site.Require)
		h.Echo, h.Upstream.URLs = false, []string{origin.URL}
		return []*site.Host{h}
	})
	handler, err := newPipeline(c.s)
	if err != nil {
		t.Fatal(err)
	}
	c.s.handler = handler
	bad, good := c.ca.Client("bad"), c.ca.Client("good")
	open := func(leaf *testpki.Leaf) (net.Conn, *bufio.Reader) {
		conn := c.mustDial(c.config(leaf, nil))
		_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%v %v", resp, err)
		}
		return conn, r
	}
	var cut []*bufio.Reader
	for range 5 {
		_, r := open(&bad)
		cut = append(cut, r)
	}
	_, kept := open(&good)
	if n := c.revoke(bad); n != 5 {
		t.Errorf("%d cut, want 5", n)
	}
	for _, r := range cut {
		if code := closeCode(r); code != 1008 {
			t.Errorf("close code %d", code)
		}
	}
	eventually(t, "one left", func() bool { return c.s.Live() == 1 })
	if _, err := io.CopyN(io.Discard, kept, 40); err != nil {
		t.Errorf("the other certificate's WebSocket: %v", err)
	}
}

// What ends a WebSocket is in its close frame: 1001 at a shutdown, 1008 with the reason when the client may not go on.
func TestWebSocketReadsWhyItWasCut(t *testing.T) {
	origin := chatty(t)
	proxied := func(c *checkpoint, cas ...*testpki.CA) []*site.Host {
		h := c.host("a.example", site.Require, cas...)
		h.Echo, h.Upstream.URLs = false, []string{origin.URL}
		return []*site.Host{h}
	}
	end := time.Now().Add(time.Hour)
	for want, cut := range map[string]func(*checkpoint, testpki.Leaf){
		"1008 certificate revoked":     func(c *checkpoint, leaf testpki.Leaf) { c.revoke(leaf) },
		"1008 certificate expired":     func(c *checkpoint, _ testpki.Leaf) { c.clock.advance(time.Until(end) + time.Second) },
		"1008 certificate not trusted": func(c *checkpoint, _ testpki.Leaf) { c.publish(proxied(c, testpki.NewCA(c.t))...) },
		"1001 server is shutting down": func(c *checkpoint, _ testpki.Leaf) {
			if err := c.stop(); err != nil {
				c.t.Error(err)
			}
		},
	} {
		t.Run(want, func(t *testing.T) {
			c := newCheckpoint(t, func(c *checkpoint) []*site.Host { return proxied(c) }, func(cfg *Config) { cfg.Limits.DrainTimeout = 50 * time.Millisecond })
			handler, err := newPipeline(c.s)
			if err != nil {
				t.Fatal(err)
			}
			c.s.handler = handler
			leaf := c.ca.Client("client", testpki.NotAfter(end))
			conn := c.mustDial(c.config(&leaf, nil))
			_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v %v", resp, err)
			}
			cut(c, leaf)
			if code, text := closeFrameOf(r); fmt.Sprint(code, " ", text) != want {
				t.Errorf("close frame %d %q", code, text)
			}
		})
	}
}

// closeCode reads frames up to a close frame and returns its code, 0 when there is none.
func closeCode(r *bufio.Reader) int {
	code, _ := closeFrameOf(r)
	return code
}

func closeFrameOf(r *bufio.Reader) (code int, text string) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return 0, ""
		}
		payload := make([]byte, head[1]&0x7f)
		if _, err := io.ReadFull(r, payload); err != nil {
			return 0, ""
		}
		if head[0]&0x0f == 8 && len(payload) >= 2 {
			return int(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
	}
}

// cutTimes revokes and returns how long after that each of the connections, which are those of the leaves, ended, sorted.
func (c *checkpoint) cutTimes(leaves []testpki.Leaf, conns []net.Conn) []time.Duration {
	ends := make([]time.Time, len(conns))
	var work sync.WaitGroup
	ready := make(chan struct{}, len(conns))
	for i, conn := range conns {
		work.Go(func() {
			ready <- struct{}{}
			_, _ = io.Copy(io.Discard, conn)
			ends[i] = time.Now()
		})
	}
	for range conns {
		<-ready
	}
	began := time.Now()
	c.revoke(leaves...)
	work.Wait()
	took := make([]time.Duration, len(ends))
	for i, end := range ends {
		took[i] = end.Sub(began)
	}
	slices.Sort(took)
	return took
}

// With many connections of many certificates, the time from the revocation to each close stays small.
func TestCutLatency(t *testing.T) {
	c := newCheckpoint(t, require)
	const certificates, each, revoked = 20, 20, 5
	var leaves []testpki.Leaf
	for range certificates {
		leaves = append(leaves, c.ca.Client("client"))
	}
	conns := make([][]net.Conn, certificates)
	for i := range leaves {
		for range each {
			conn := c.mustDial(c.config(&leaves[i], nil))
			c.mustAsk(conn, "/")
			conns[i] = append(conns[i], conn)
		}
	}
	best := time.Hour // of the rounds: others may use the machine
	for round := 1; round <= 3 && best > 500*time.Millisecond; round++ {
		from, to := (round-1)*revoked, round*revoked
		took := c.cutTimes(leaves[from:to], slices.Concat(conns[from:to]...))
		best = min(best, took[len(took)*99/100])
		t.Logf("%d of %d connections cut: p50 %v, p99 %v", revoked*each, certificates*each, took[len(took)/2], took[len(took)*99/100])
		eventually(t, "the others, and only they, live", func() bool { return c.s.Live() == (certificates-to)*each })
	}
	if best > 500*time.Millisecond {
		t.Errorf("p99 %v", best)
	}
	if s := strings.Count(c.log.String(), "panic"); s > 0 {
		t.Error(c.log.String())
	}
}
