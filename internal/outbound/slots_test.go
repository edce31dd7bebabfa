package outbound_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/outbound"
)

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// gauge counts what is under way now and the most there ever was.
type gauge struct{ now, most atomic.Int64 }

func (g *gauge) enter() {
	n := g.now.Add(1)
	for {
		most := g.most.Load()
		if n <= most || g.most.CompareAndSwap(most, n) {
			return
		}
	}
}

// waitFor waits until the gauge shows n.
func (g *gauge) waitFor(t *testing.T, n int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); g.now.Load() != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d under way, want %d", g.now.Load(), n)
		}
	}
}

// TestInvariant13Slots: however many are asked, 4 exchanges with one host, 24 for certificates and 32 in all are under
// way; the operator's get through while strangers' wait; whoever waits, waits no longer than its context.
func TestInvariant13Slots(t *testing.T) {
	const hosts, each = 10, 8
	var all gauge
	var per [hosts]gauge
	open := make(chan struct{})
	var urls [hosts]string
	for i := range hosts {
		urls[i] = serveRaw(t, fmt.Sprintf("127.0.0.%d:0", i+1), func(conn net.Conn) {
			readHeader(conn)
			all.enter()
			per[i].enter()
			<-open
			per[i].now.Add(-1)
			all.now.Add(-1)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})
	}
	c := newClient(t, outbound.Config{Allow: loopback(), Timeout: time.Minute})
	var group sync.WaitGroup
	ask := func(ctx context.Context, i int, origin outbound.Trust) error {
		resp, err := c.Do(ctx, outbound.Request{URL: urls[i], Origin: origin})
		if err != nil {
			return err
		}
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		return err
	}
	flood := func(origin outbound.Trust, from, to int) {
		for i := from; i < to; i++ {
			for range each {
				group.Go(func() {
					if err := ask(t.Context(), i, origin); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
	flood(outbound.FromCertificate, 0, 1)
	all.waitFor(t, 4)
	flood(outbound.FromCertificate, 1, 8)
	all.waitFor(t, 24)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantIs(t, "waiting", ask(ctx, 9, outbound.FromCertificate), outbound.ErrTimeout)
	flood(outbound.FromOperator, 8, hosts)
	all.waitFor(t, 32)
	time.Sleep(50 * time.Millisecond)
	close(open)
	group.Wait()
	if most := all.most.Load(); most != 32 {
		t.Errorf("%d under way at once", most)
	}
	for i := range per {
		if most := per[i].most.Load(); most > 4 {
			t.Errorf("host %d: %d under way at once", i, most)
		}
	}
	if m := c.Metrics(); m.OK != hosts*each || m.Timeout != 1 {
		t.Errorf("%+v", m)
	}
}

// TestSlotsOfRedirects: hosts that redirect to one another while all slots are taken do not wait for one another for ever.
func TestSlotsOfRedirects(t *testing.T) {
	var urls [2]string
	for i := range urls {
		urls[i] = serveRaw(t, fmt.Sprintf("127.0.0.%d:0", i+1), func(conn net.Conn) {
			b := make([]byte, 6)
			io.ReadFull(conn, b)
			readHeader(conn)
			time.Sleep(2 * time.Millisecond)
			if string(b) == "GET /x" {
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				return
			}
			fmt.Fprintf(conn, "HTTP/1.1 302 Found\r\nLocation: %s/x\r\n\r\n", urls[1-i])
		})
	}
	c := newClient(t, outbound.Config{Allow: loopback(), Timeout: 20 * time.Second})
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			if _, _, err := get(t, c, outbound.Request{URL: urls[i%2]}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
