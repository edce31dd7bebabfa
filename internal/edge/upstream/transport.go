package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// avoidFor is how long an origin that could not be dialled is passed over.
const avoidFor = 3 * time.Second

// Transport sends requests to the origins of one host. It is an
// [http.RoundTripper], safe for concurrent use. Make one with [New].
type Transport struct {
	cfg     Config
	origins []*origin
	next    atomic.Uint32
	closed  atomic.Bool
}

// origin is one origin server.
type origin struct {
	name       string
	target     target
	dialer     net.Dialer
	avoidUntil atomic.Int64 // Unix nanoseconds
	upgrade    *http.Transport
	h2         *http.Transport // nil for HTTP/1.1 origins
}

// New returns a Transport for cfg. It dials nothing. Errors name the URL or the
// field and what is wrong with it.
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if len(cfg.URLs) == 0 {
		return nil, errors.New("upstream: no URL; name at least one origin, such as http://127.0.0.1:8080")
	}
	t := &Transport{cfg: cfg}
	for _, raw := range cfg.URLs {
		target, err := parseTarget(raw)
		if err != nil {
			return nil, err
		}
		t.origins = append(t.origins, t.newOrigin(target))
	}
	return t, nil
}

func (t *Transport) newOrigin(target target) *origin {
	o := &origin{name: target.name, target: target, dialer: net.Dialer{Timeout: t.cfg.DialTimeout}}
	o.upgrade = newDelegate(&t.cfg, o, false)
	if target.h2 {
		o.h2 = newDelegate(&t.cfg, o, true)
	}
	return o
}

// RoundTrip sends req to an origin and returns its response; only the path and
// query of req.URL are used, Host is req.Host. Errors are of type *[Error],
// except for requests that no origin could be sent.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	held := &heldBody{body: req.Body}
	out := req
	if req.Body != nil && req.Body != http.NoBody {
		out = req.WithContext(req.Context())
		out.Body = held
	}
	start := int(t.next.Add(1) - 1)
	for i := 0; ; i++ {
		o := t.pick(start, i)
		tr := o.upgrade
		if o.h2 != nil && len(req.Header["Upgrade"]) == 0 {
			tr = o.h2
		}
		resp, reached, err := o.delegate(tr, out, tr == o.h2)
		if err == nil {
			resp.Request = req
			return resp, nil
		}
		if !reached {
			o.avoidUntil.Store(time.Now().Add(avoidFor).UnixNano())
		}
		if reached || held.touched.Load() || i+1 >= len(t.origins) || req.Context().Err() != nil {
			if !held.touched.Load() {
				closeBody(req)
			}
			return nil, err
		}
	}
}

// check refuses a request that no origin could be sent.
func (t *Transport) check(req *http.Request) error {
	switch {
	case t.closed.Load():
		return errClosed
	case req.URL == nil:
		return errors.New("upstream: request without a URL")
	case req.Method == http.MethodConnect:
		return errors.New("upstream: CONNECT is not carried to origins")
	}
	if err := req.Context().Err(); err != nil {
		return fmt.Errorf("upstream: request not sent: %w", err)
	}
	return nil
}

// pick returns the i-th choice for a request that starts its round at start:
// origins that failed lately come last.
func (t *Transport) pick(start, i int) *origin {
	n := len(t.origins)
	if n == 1 {
		return t.origins[0]
	}
	now := time.Now().UnixNano()
	for _, avoided := range [2]bool{false, true} {
		for k := range n {
			o := t.origins[(start+k)%n]
			if (o.avoidUntil.Load() > now) != avoided {
				continue
			}
			if i == 0 {
				return o
			}
			i--
		}
	}
	return t.origins[start%n]
}

// CloseIdleConnections closes the connections that carry no request now.
func (t *Transport) CloseIdleConnections() {
	for _, o := range t.origins {
		o.upgrade.CloseIdleConnections()
		if o.h2 != nil {
			o.h2.CloseIdleConnections()
		}
	}
}

// Close closes idle connections and refuses new requests. Responses in flight
// go on, and their connections are closed when they end.
func (t *Transport) Close() error {
	t.closed.Store(true)
	t.CloseIdleConnections()
	return nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
