package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// reapEvery is how often idle connections are looked over.
const reapEvery = 5 * time.Second

// origin is one origin server and the connections to it.
type origin struct {
	t          *Transport
	target     target
	dialer     net.Dialer
	tlsConfig  *tls.Config     // nil without TLS
	upgrade    *http.Transport // for requests with an Upgrade header
	h2         *http.Transport // nil for HTTP/1.1 origins
	avoidUntil atomic.Int64    // Unix nanoseconds

	mu      sync.Mutex
	idle    []*conn      // the last used one is last
	open    int          // connections, and dials under way; kept only with MaxConns
	waiters []chan *conn // first come, first served; nil is the right to dial
	reaper  *time.Timer  // nil when nothing is idle
}

func newOrigin(t *Transport, target target) *origin {
	o := &origin{t: t, target: target, tlsConfig: t.cfg.tlsConfig(target, "http/1.1")}
	o.upgrade = newDelegate(&t.cfg, o, false)
	if target.h2 {
		o.h2 = newDelegate(&t.cfg, o, true)
	}
	return o
}

// take returns an idle connection, or a new one; with fresh, always a new one.
// The kernel is asked about each idle one (0.2 us): one that the origin has
// closed is of no use, and what an origin sends before it is asked must not
// become the answer to the next request.
func (o *origin) take(ctx context.Context, fresh bool) (*conn, error) {
	for !fresh {
		c := o.pop()
		if c == nil {
			break
		}
		if time.Since(c.idleSince) < o.t.cfg.IdleTimeout && !c.stale() {
			return c, nil
		}
		c.close()
	}
	if o.t.cfg.MaxConns > 0 {
		c, err := o.slot(ctx)
		if c != nil || err != nil {
			return c, err
		}
	}
	c, err := o.dial(ctx)
	if err != nil {
		o.release()
		return nil, err
	}
	return c, nil
}

func (o *origin) pop() *conn {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.idle)
	if n == 0 {
		return nil
	}
	c := o.idle[n-1]
	o.idle[n-1] = nil
	o.idle = o.idle[:n-1]
	return c
}

// slot waits for the right to dial (nil, nil) or for a connection that another
// request has done with.
func (o *origin) slot(ctx context.Context) (*conn, error) {
	o.mu.Lock()
	if o.open < o.t.cfg.MaxConns {
		o.open++
		o.mu.Unlock()
		return nil, nil
	}
	if n := len(o.idle); n > 0 { // a fresh one is wanted: it takes the place of an idle one
		c := o.idle[0]
		o.idle = slices.Delete(o.idle, 0, 1)
		o.mu.Unlock()
		c.nc.Close()
		return nil, nil
	}
	ch := make(chan *conn, 1)
	o.waiters = append(o.waiters, ch)
	o.mu.Unlock()

	timer := time.NewTimer(o.t.cfg.DialTimeout)
	defer timer.Stop()
	var err error
	select {
	case c := <-ch:
		return c, nil
	case <-timer.C:
		err = errBusy
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	o.leave(ch)
	return nil, &Error{Op: OpTimeout, Addr: o.target.name, Err: err, unreached: true}
}

// leave takes a waiter off the list; what it was handed meanwhile goes on to
// the next.
func (o *origin) leave(ch chan *conn) {
	o.mu.Lock()
	i := slices.Index(o.waiters, ch)
	if i >= 0 {
		o.waiters = slices.Delete(o.waiters, i, i+1)
	}
	o.mu.Unlock()
	if i >= 0 {
		return
	}
	if c := <-ch; c != nil {
		o.put(c)
		return
	}
	o.release()
}

// put takes back a connection that the next request may use.
func (o *origin) put(c *conn) {
	c.idleSince = time.Now()
	c.reused = true
	c.shrink()
	o.mu.Lock()
	if len(o.waiters) > 0 {
		ch := o.waiters[0]
		o.waiters = slices.Delete(o.waiters, 0, 1)
		o.mu.Unlock()
		if c.stale() { // as in take; its place is the right to dial
			c.nc.Close()
			c = nil
		}
		ch <- c
		return
	}
	// Close sets closed before it takes the lock to empty the list.
	if o.t.closed.Load() || len(o.idle) >= o.t.cfg.MaxIdlePerHost {
		o.mu.Unlock()
		c.close()
		return
	}
	o.idle = append(o.idle, c)
	if o.reaper == nil {
		o.reaper = time.AfterFunc(o.reapInterval(), o.reap)
	}
	o.mu.Unlock()
}

// release gives back the right to one connection.
func (o *origin) release() {
	if o.t.cfg.MaxConns == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiters) == 0 {
		o.open--
		return
	}
	ch := o.waiters[0]
	o.waiters = slices.Delete(o.waiters, 0, 1)
	ch <- nil
}

func (o *origin) reapInterval() time.Duration {
	return max(min(o.t.cfg.IdleTimeout/2, reapEvery), 10*time.Millisecond)
}

// reap closes idle connections that are too old or that the origin has closed.
func (o *origin) reap() {
	var dead []*conn
	o.mu.Lock()
	if o.reaper == nil { // closeIdle came first
		o.mu.Unlock()
		return
	}
	now := time.Now()
	o.idle = slices.DeleteFunc(o.idle, func(c *conn) bool {
		gone := now.Sub(c.idleSince) >= o.t.cfg.IdleTimeout || c.stale()
		if gone {
			dead = append(dead, c)
		}
		return gone
	})
	if len(o.idle) > 0 {
		o.reaper.Reset(o.reapInterval())
	} else {
		o.reaper = nil
	}
	o.mu.Unlock()
	for _, c := range dead {
		c.close()
	}
}

func (o *origin) closeIdle() {
	o.mu.Lock()
	idle := o.idle
	o.idle = nil
	if o.reaper != nil {
		o.reaper.Stop()
		o.reaper = nil
	}
	o.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	o.upgrade.CloseIdleConnections()
	if o.h2 != nil {
		o.h2.CloseIdleConnections()
	}
}
