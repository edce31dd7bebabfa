package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// avoidFor is how long an origin that could not be dialled is passed over.
const avoidFor = 3 * time.Second

// maxOrigins bounds Config.URLs; a request keeps the tried ones in a word.
const maxOrigins = 64

// copyBufferSize is the size of the pooled buffers that bodies go through.
const copyBufferSize = 32 << 10

// Transport sends requests to the origins of one host. It is an
// [http.RoundTripper], safe for concurrent use. Make one with [New].
type Transport struct {
	cfg       Config
	origins   []*origin // fixed
	h2        bool      // all origins speak HTTP/2
	next      atomic.Uint32
	closed    atomic.Bool
	exchanges sync.Pool // *exchange
	copies    sync.Pool // *[]byte of copyBufferSize
}

// New returns a Transport for cfg. It dials nothing. Errors name the URL or the
// field and what is wrong with it.
func New(cfg Config) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	switch n := len(cfg.URLs); {
	case n == 0:
		return nil, errors.New("upstream: no URL; name at least one origin, such as http://127.0.0.1:8080")
	case n > maxOrigins:
		return nil, fmt.Errorf("upstream: %d URLs; at most %d are allowed", n, maxOrigins)
	}
	t := &Transport{cfg: cfg}
	t.exchanges.New = func() any { return &exchange{wire: make([]byte, 0, 4<<10)} }
	t.copies.New = func() any { b := make([]byte, copyBufferSize); return &b }
	for i, raw := range cfg.URLs {
		target, err := parseTarget(raw)
		if err != nil {
			return nil, err
		}
		if i > 0 && target.h2 != t.h2 {
			return nil, fmt.Errorf("upstream URL %q: HTTP/2 and HTTP/1.1 origins cannot be mixed (%q)", raw, cfg.URLs[0])
		}
		t.h2 = target.h2
		t.origins = append(t.origins, newOrigin(t, target))
	}
	return t, nil
}

// RoundTrip sends req to an origin and returns its response. Only the path and
// query of req.URL are used; Host is req.Host. The body is read by the caller's
// goroutine when it is at most 4 KiB of known length, before a connection is
// taken, and otherwise by a goroutine that ends before the response body is
// closed or RoundTrip fails; one whose Read does not return within 100 ms then
// is left to end with that Read. (The body of an HTTP/1 server request cannot be
// closed while it is read: a handler that gives up sets a read deadline by
// [http.ResponseController] first.)
//
// A request is sent again in two cases only: the origin could not be dialled
// and nothing of a streamed body was read; or a reused idle connection failed
// before any byte of the response, and either no byte of the request was
// written or the request is a GET, HEAD, OPTIONS or TRACE without a body.
//
// Errors are of type *[Error], except for requests that no origin could be sent.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.check(req); err != nil {
		closeBody(req)
		return nil, err
	}
	if t.h2 || len(req.Header["Upgrade"]) > 0 {
		return t.delegate(req)
	}
	x, err := t.newExchange(req)
	if err != nil {
		return nil, err
	}
	resp, err := t.failover(req, func(o *origin) (*http.Response, error) { return o.exchange(x) })
	x.release(t, err)
	return resp, err
}

// failover calls send with one origin after the other, until one could be
// reached.
func (t *Transport) failover(req *http.Request, send func(*origin) (*http.Response, error)) (*http.Response, error) {
	var tried uint64
	var last error
	start := int((t.next.Add(1) - 1) % uint32(len(t.origins)))
	for range t.origins {
		i := t.pick(start, tried)
		tried |= 1 << i
		o := t.origins[i]
		resp, err := send(o)
		if err == nil {
			return resp, nil
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || !e.unreached || req.Context().Err() != nil {
			return nil, err
		}
		if !errors.Is(err, errBusy) {
			o.avoidUntil.Store(time.Now().Add(avoidFor).UnixNano())
		}
		last = err
	}
	return nil, last
}

// pick returns the index of the origin to try next: the first one from start on
// that was not tried and has not failed lately, else the first not tried.
func (t *Transport) pick(start int, tried uint64) int {
	n := len(t.origins)
	if n == 1 {
		return 0
	}
	now := time.Now().UnixNano()
	last := -1
	for k := range n {
		i := (start + k) % n
		if tried&(1<<i) != 0 {
			continue
		}
		if t.origins[i].avoidUntil.Load() <= now {
			return i
		}
		if last < 0 {
			last = i
		}
	}
	return last
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
	case req.Method != "" && !httpguts.ValidHeaderFieldName(req.Method):
		return fmt.Errorf("upstream: method %.40q is not a token", req.Method)
	}
	if err := req.Context().Err(); err != nil {
		return fmt.Errorf("upstream: request not sent: %w", err)
	}
	return nil
}

// CloseIdleConnections closes the connections that carry no request now.
func (t *Transport) CloseIdleConnections() {
	for _, o := range t.origins {
		o.closeIdle()
	}
}

// Close closes idle connections and refuses new requests. Responses in flight
// go on, and their connections are closed when they end. It returns nil.
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
