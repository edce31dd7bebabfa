package edge

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"sekisho/internal/edge/upstream"
	"sekisho/internal/site"
)

// routeTable says for each host of one snapshot how its requests leave. It is immutable.
type routeTable struct {
	snapshot *site.Snapshot
	routes   map[*site.Host]*route
	origins  map[[32]byte]*originPool
}

// route is what one host needs beside its own fields.
type route struct {
	origin *originPool                 // nil with Echo, or with err
	guard  *http.CrossOriginProtection // nil: not guarded
	err    error                       // why there is no origin
}

// originPool is a transport with the number of its users: hosts with equal upstreams share one, it outlives the
// snapshot it was made for as long as a newer one has an equal upstream, and is closed when the last request is done.
type originPool struct {
	transport *upstream.Transport
	users     atomic.Int64
	retired   atomic.Bool
}

// acquire counts a user in; false when the pool is retired and a newer table must be asked.
func (o *originPool) acquire() bool {
	o.users.Add(1)
	if o.retired.Load() {
		o.release()
		return false
	}
	return true
}

func (o *originPool) release() {
	if o.users.Add(-1) == 0 && o.retired.Load() {
		_ = o.transport.Close() // it has no error to report
	}
}

func (o *originPool) retire() {
	o.users.Add(1)
	o.retired.Store(true)
	o.release()
}

// current returns the table of the current snapshot, made by the first request that sees the snapshot.
func (p *pipeline) current() *routeTable {
	if t := p.routes.Load(); t.snapshot == p.snapshot() {
		return t
	}
	p.routing.Lock()
	defer p.routing.Unlock()
	old, now := p.routes.Load(), p.snapshot()
	if old.snapshot == now {
		return old
	}
	table, err := newRouteTable(now, old)
	if err != nil { // those hosts answer 502, the others are served
		p.logger.Error("upstreams of the new configuration", "error", err)
	}
	p.routes.Store(table)
	for key, o := range old.origins {
		if table.origins[key] != o {
			o.retire()
		}
	}
	return table
}

// newRouteTable makes the routes of a snapshot; old, when not nil, lends the transports that are still wanted. The
// table is complete also when the error is not nil: a route without a transport says why.
func newRouteTable(s *site.Snapshot, old *routeTable) (*routeTable, error) {
	t := &routeTable{snapshot: s, routes: make(map[*site.Host]*route), origins: make(map[[32]byte]*originPool)}
	var errs []error
	for _, h := range s.Hosts() {
		r := &route{}
		t.routes[h] = r
		if h.CrossOriginGuard {
			r.guard = http.NewCrossOriginProtection()
			for _, origin := range h.AllowedOrigins {
				if err := r.guard.AddTrustedOrigin(origin); err != nil {
					errs = append(errs, fmt.Errorf("edge: host %q: allowed origin: %w", h.Name, err))
				}
			}
		}
		if h.Echo {
			continue
		}
		if r.origin, r.err = t.origin(h, old); r.err != nil {
			errs = append(errs, r.err)
		}
	}
	return t, errors.Join(errs...)
}

// origin returns the pool for a host's upstream: this table's, the old table's, or a new one.
func (t *routeTable) origin(h *site.Host, old *routeTable) (*originPool, error) {
	key := upstreamKey(h.Upstream)
	if o := t.origins[key]; o != nil {
		return o, nil
	}
	if old != nil && old.origins[key] != nil {
		t.origins[key] = old.origins[key]
		return t.origins[key], nil
	}
	transport, err := newTransport(h.Upstream)
	if err != nil {
		return nil, fmt.Errorf("edge: host %q: %w", h.Name, err)
	}
	t.origins[key] = &originPool{transport: transport}
	return t.origins[key], nil
}

func (t *routeTable) close() {
	for _, o := range t.origins {
		o.retire()
	}
}

// close lets go of every upstream connection once its request is done.
func (p *pipeline) close() { p.routes.Load().close() }

// CheckUpstream says what is wrong with an upstream before a host is given it: its URLs, files or their content.
func CheckUpstream(u site.Upstream) error {
	t, err := newTransport(u)
	if err != nil {
		return err
	}
	return t.Close()
}

func newTransport(u site.Upstream) (*upstream.Transport, error) {
	cfg := upstream.Config{
		URLs: u.URLs, ServerName: u.ServerName, DialTimeout: u.DialTimeout, ResponseHeaderTimeout: u.HeaderTimeout,
	}
	if len(u.Roots) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(u.Roots) {
			return nil, fmt.Errorf("upstream CA file %q: no certificate in it", u.CAFile)
		}
	}
	if len(u.CertPEM) > 0 || len(u.KeyPEM) > 0 {
		pair, err := tls.X509KeyPair(u.CertPEM, u.KeyPEM)
		if err != nil {
			return nil, fmt.Errorf("upstream client certificate %q with key %q: %w", u.CertFile, u.KeyFile, err)
		}
		cfg.ClientCertificates = []tls.Certificate{pair}
	}
	return upstream.New(cfg)
}

// upstreamKey is the same for two upstreams exactly when one transport can serve both.
func upstreamKey(u site.Upstream) (key [32]byte) {
	h := sha256.New()
	write := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, b := range [][]byte{[]byte(u.ServerName), u.Roots, u.CertPEM, u.KeyPEM} {
		write(b)
	}
	for _, raw := range u.URLs {
		write([]byte(raw))
	}
	write(binary.BigEndian.AppendUint64(nil, uint64(u.DialTimeout)))
	write(binary.BigEndian.AppendUint64(nil, uint64(u.HeaderTimeout)))
	h.Sum(key[:0])
	return key
}
