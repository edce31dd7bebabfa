package revocation

import (
	"context"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/revocation/ocsp"
	"sekisho/internal/trust"
)

// inUse holds the paths of live connections: what Run keeps current.
type inUse struct {
	mu    sync.Mutex
	paths map[useKey]*use
}

// useKey tells paths apart: a certificate under the policy of one CA.
type useKey struct {
	id pkix.CertID
	ca string
}

type use struct {
	path []*x509.Certificate
	ca   *trust.CA
	n    int       // connections
	next time.Time // not looked at before
}

// pace is how often a path in use is looked at: often enough for the shortest interval that its policy asks for.
func (u *use) pace() time.Duration {
	interval := u.ca.Policy.Refresh
	if interval <= 0 {
		interval = defaultRefresh
	}
	return min(max(interval/20, time.Second), 10*time.Second)
}

// Hold says that a connection lives by a path, so that [Checker.Run] asks its sources again and again, until release is
// called, once. A path whose policy asks nothing but our ledger costs nothing, and release is nil.
func (c *Checker) Hold(path []*x509.Certificate, ca *trust.CA) (release func()) {
	if len(path) < 2 || slices.Equal(ca.Policy.Sources, []trust.Source{trust.Ledger}) {
		return nil
	}
	key := useKey{pkix.CertIDOf(path[0], path[1]), ca.ID}
	c.use.mu.Lock()
	defer c.use.mu.Unlock()
	if c.use.paths == nil {
		c.use.paths = make(map[useKey]*use)
	}
	u := c.use.paths[key]
	if u == nil {
		u = &use{}
		c.use.paths[key] = u
	}
	u.path, u.ca = path, ca
	u.n++
	return func() { c.use.release(key) }
}

// release gives one connection's hold back. A path that was not looked at yet stays for one look: a client whose
// connections are all shorter than a beat is in use, too.
func (u *inUse) release(key useKey) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if one := u.paths[key]; one != nil {
		if one.n--; one.n <= 0 && !one.next.IsZero() {
			delete(u.paths, key)
		}
	}
}

// turn returns the paths in use whose turn it is to be looked at.
func (u *inUse) turn(now time.Time) []*use {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []*use
	for key, one := range u.paths {
		if !now.Before(one.next) {
			one.next = now.Add(one.pace())
			out = append(out, &use{path: one.path, ca: one.ca})
		}
		if one.n <= 0 {
			delete(u.paths, key)
		}
	}
	return out
}

// Run asks the sources of certificates in use again before their answers end, and at the interval of the policy. It
// returns when ctx has ended and the last fetch with it.
func (c *Checker) Run(ctx context.Context) error {
	const beat = time.Second
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			c.closing.Lock()
			c.closed = true
			c.closing.Unlock()
			c.work.Wait()
			if c.cfg.OCSP != nil {
				c.cfg.OCSP.Wait()
			}
			return nil
		case <-ticker.C:
			c.refresh(ctx)
		}
	}
}

// refresh begins what is due, and waits for room where many are.
func (c *Checker) refresh(ctx context.Context) {
	now := c.cfg.Now()
	begun := make(map[pkix.CertID]bool) // an intermediate CA is in many paths
	for _, u := range c.use.turn(now) {
		for i := range judged(u.path, u.ca) {
			s := c.subject(u.path, i, u.ca, now)
			if begun[s.id] {
				continue
			}
			begun[s.id] = true
			interval := u.ca.Policy.Refresh
			fetches := c.dueOf(&s, func(a *ocsp.Answer) bool { return staleSoon(a, interval, s.id, now) })
			for _, fetch := range fetches {
				if !c.inBackground(ctx, fetch) {
					return
				}
			}
		}
	}
}

// inBackground runs a fetch once one of the slots is free; false when it is too late.
func (c *Checker) inBackground(ctx context.Context, fetch func(context.Context)) bool {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	began := c.begin(func() {
		defer func() { <-c.slots }()
		bounded, cancel := context.WithTimeout(ctx, 2*c.cfg.Budget)
		defer cancel()
		fetch(bounded)
	})
	if !began {
		<-c.slots
	}
	return began
}

// defaultRefresh is how often responders are asked about certificates in use unless the policy says.
const defaultRefresh = 5 * time.Minute

// staleSoon reports whether an answer is to be renewed: the policy's interval is over, or most of the answer's life. The
// moment is spread over a tenth of the interval, by the certificate, so that a fleet that connected at once does not ask
// at once.
func staleSoon(a *ocsp.Answer, interval time.Duration, id pkix.CertID, now time.Time) bool {
	switch {
	case a == nil:
		return true
	case a.Err != nil:
		return !now.Before(a.RetryAt)
	}
	if interval <= 0 {
		interval = defaultRefresh
	}
	if life := a.Expires.Sub(a.Asked) * 3 / 4; life < interval {
		interval = max(life, time.Second)
	}
	serial := id.Serial.Bytes() // its end is random
	spread := interval / 10 * time.Duration(serial[len(serial)-1]) / 256
	return !now.Before(a.Asked.Add(interval - spread))
}
