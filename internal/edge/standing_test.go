package edge

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

// publish makes the hosts the current snapshot and tells the server.
func (c *checkpoint) publish(hosts ...*site.Host) int {
	c.use(hosts...)
	return c.s.SnapshotChanged()
}

// A client whose CA the host came to trust while the connection was open is cut like any other when its certificate is
// revoked or ends, in the middle of a download as well.
func TestInvariant01ClientKnownLaterIsCut(t *testing.T) {
	other := testpki.NewCA(t)
	end := time.Now().Add(time.Hour)
	for name, cut := range map[string]func(*checkpoint, testpki.Leaf){
		"revoked": func(c *checkpoint, leaf testpki.Leaf) {
			if n := c.revoke(leaf); n != 1 {
				c.t.Errorf("%d connections cut, want 1", n)
			}
		},
		"expired": func(c *checkpoint, _ testpki.Leaf) { c.clock.advance(time.Until(end) + time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCheckpoint(t, func(c *checkpoint) []*site.Host { return []*site.Host{c.host("a.example", site.Request, other)} })
			leaf := c.ca.Client("client", testpki.NotAfter(end))
			conn := c.mustDial(c.config(&leaf, nil))
			if _, body := c.mustAsk(conn, "/"); body != "hello untrusted resumed=false\n" {
				t.Fatalf("before: %q", body)
			}
			if n := c.publish(c.host("a.example", site.Require)); n != 0 {
				t.Fatalf("%d connections cut", n)
			}
			fmt.Fprintf(conn, "GET /hang HTTP/1.1\r\nHost: a.example\r\n\r\n")
			c.begun()
			cut(c, leaf)
			if !closed(conn, 10*time.Second) {
				t.Error("the connection lives on")
			}
			if got := c.s.ConnectionMetrics().Cut[name]; got != 1 {
				t.Errorf("cut: %v", c.s.ConnectionMetrics().Cut)
			}
			eventually(t, "nothing left in the table", func() bool {
				return len(c.s.live.of(c.id(leaf))) == 0 && c.s.Live() == 0
			})
		})
	}
}

// A connection is found under the path that its identity has now, and under no other.
func TestLiveTableFollowsThePath(t *testing.T) {
	c := newCheckpoint(t, require)
	leaf := c.ca.Client("client")
	conn := c.mustDial(c.config(&leaf, nil))
	c.mustAsk(conn, "/")
	if n := c.publish(c.host("a.example", site.Off)); n != 0 || len(c.s.live.of(c.id(leaf))) != 0 {
		t.Errorf("%d cut; %d found where nobody is asked", n, len(c.s.live.of(c.id(leaf))))
	}
	if n := c.publish(c.host("a.example", site.Require)); n != 0 || len(c.s.live.of(c.id(leaf))) != 1 || len(c.s.live.expiry.items) != 1 {
		t.Errorf("%d cut; %d found, %d in the expiry queue", n, len(c.s.live.of(c.id(leaf))), len(c.s.live.expiry.items))
	}
	c.mustAsk(conn, "/")
	_ = conn.Close()
	eventually(t, "gone", func() bool { return c.s.Live() == 0 })
	if len(c.s.live.of(c.id(leaf))) != 0 || len(c.s.live.expiry.items) != 0 {
		t.Error("a closed connection is in the table")
	}
}

// A request that came by another host's connection does not outlive what its own host allows.
func TestInvariant01RequestOnAnotherHostsConnection(t *testing.T) {
	other := testpki.NewCA(t)
	for _, tc := range []struct {
		name string
		b    func(c *checkpoint) []*site.Host
		cut  string
	}{
		{"unchanged", func(c *checkpoint) []*site.Host { return []*site.Host{c.host("b.example", site.Require)} }, ""},
		{"other CA", func(c *checkpoint) []*site.Host { return []*site.Host{c.host("b.example", site.Require, other)} }, "policy"},
		{"gone", func(*checkpoint) []*site.Host { return nil }, "host_gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCheckpoint(t, func(c *checkpoint) []*site.Host {
				return []*site.Host{c.host("a.example", site.Require), c.host("b.example", site.Require)}
			})
			leaf := c.ca.Client("client")
			conn, bystander := c.mustDial(c.config(&leaf, nil)), c.mustDial(c.config(&leaf, nil))
			c.mustAsk(bystander, "/")
			fmt.Fprintf(conn, "GET /hang HTTP/1.1\r\nHost: B.example:443\r\n\r\n")
			c.begun()
			want := 0
			if tc.cut != "" {
				want = 1
			}
			patience := 100 * time.Millisecond
			if want == 1 {
				patience = 10 * time.Second
			}
			if n := c.publish(append(tc.b(c), c.host("a.example", site.Require))...); n != want || c.s.ConnectionMetrics().Cut[tc.cut] != uint64(want) {
				t.Errorf("%d cut, %v; want %d %s", n, c.s.ConnectionMetrics().Cut, want, tc.cut)
			}
			if closed(conn, patience) != (want == 1) {
				t.Error("the request was cut and should not have been, or the reverse")
			}
			c.mustAsk(bystander, "/")
		})
	}
}

// A host that takes TLS 1.3 alone from now on ends the connections that are older.
func TestOldTLSVersionIsCut(t *testing.T) {
	c := newCheckpoint(t, require)
	leaf := c.ca.Client("client")
	old := c.mustDial(c.config(&leaf, func(t *tls.Config) { t.MaxVersion = tls.VersionTLS12 }))
	modern := c.mustDial(c.config(&leaf, nil))
	c.mustAsk(old, "/")
	c.mustAsk(modern, "/")
	h := c.host("a.example", site.Require)
	h.MinVersion = tls.VersionTLS13
	if n := c.publish(h); n != 1 || !closed(old, 10*time.Second) {
		t.Errorf("%d cut", n)
	}
	c.mustAsk(modern, "/")
}

// A client that is refused in the handshake reads the alert, although it sent a request behind its certificate.
func TestRefusedClientReadsTheAlert(t *testing.T) {
	c := newCheckpoint(t, alerting)
	leaf := c.ca.Client("client")
	c.revoke(leaf)
	for range 20 {
		conn := c.mustDial(c.config(&leaf, nil))
		time.Sleep(5 * time.Millisecond) // the refusal has come by now
		_, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 30000\r\n\r\n"+strings.Repeat("x", 30000))
		if err == nil {
			time.Sleep(5 * time.Millisecond)
			_, err = http.ReadResponse(bufio.NewReader(conn), nil)
		}
		if err == nil || !strings.Contains(err.Error(), "bad certificate") {
			t.Fatalf("error %v, want the alert", err)
		}
	}
}

// Who cuts a connection that is being cut waits until that is done.
func TestSecondCutWaits(t *testing.T) {
	c := newCheckpoint(t, require)
	leaf := c.ca.Client("client")
	for range 200 {
		conn := c.mustDial(c.config(&leaf, nil))
		c.mustAsk(conn, "/")
		live := c.s.live.all()[0]
		began := make(chan struct{})
		var done atomic.Int64
		live.closers.register(func(string) { close(began); time.Sleep(closerPatience / 2); done.Store(time.Now().UnixNano()) })
		patience := time.Now().Add(closerPatience)
		before := c.s.ConnectionMetrics().Cut["expired"]
		go live.cutNow("expired") // awaited by the second
		<-began
		live.cutNow("revoked")
		waited := done.Load()
		if got := c.s.ConnectionMetrics().Cut; got["expired"] != before+1 || got["revoked"] != 0 {
			t.Errorf("counted %v", got)
		}
		eventually(t, "the connection is gone", func() bool { return c.s.Live() == 0 })
		eventually(t, "the first is done", func() bool { return done.Load() != 0 })
		if time.Unix(0, done.Load()).After(patience) {
			continue // on a busy machine: the first cut need not have waited for it either
		}
		if waited == 0 {
			t.Error("the second cut returned before the first was done")
		}
		return
	}
	t.Error("in 200 attempts no stream said good-bye within its time")
}

// From the moment of the cut nothing that a client sends over its WebSocket reaches the origin, although the origin's
// frame to the client is still under way and the close frame waits for its end.
func TestInvariant01CutWebSocketSendsNothingMore(t *testing.T) {
	near, client := net.Pipe()
	side, origin := net.Pipe()
	s := &stream{client: near, origin: side, websocket: true, said: make(chan struct{})}
	var work sync.WaitGroup
	work.Go(func() { s.couple(near) })
	if _, err := origin.Write([]byte{0x82, 100, 'h', 'a', 'l', 'f'}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	work.Go(func() { s.end("revoked") })
	eventually(t, "the cut has begun", s.ending.Load)
	work.Go(func() { _, _ = client.Write(appendFrame(nil, 1, true, []byte("too late"))) })
	if got, _ := io.ReadAll(origin); len(got) > 0 {
		t.Errorf("the origin got %q", got)
	}
	_ = client.Close()
	work.Wait()
}

// An answer that is complete for the server, and waits in the kernel for a client that reads slowly, is in flight too.
func TestCutEndsWhatTheKernelStillHolds(t *testing.T) {
	c := newCheckpoint(t, require)
	leaf := c.ca.Client("client")
	raw := c.tcp()
	_ = raw.SetReadBuffer(64 << 10)
	conn := tls.Client(raw, c.config(&leaf, nil))
	fmt.Fprintf(conn, "GET /burst HTTP/1.1\r\nHost: a.example\r\n\r\n")
	c.begun()
	eventually(t, "no request in flight", func() bool { return c.s.live.all()[0].inflight.Load() == 0 })
	c.revoke(leaf)
	n, err := io.Copy(io.Discard, conn)
	if n > 256<<10 || err == nil {
		t.Errorf("%d bytes more after the cut, then %v", n, err)
	}
}
