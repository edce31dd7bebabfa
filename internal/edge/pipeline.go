package edge

import (
	"encoding/hex"
	"html/template"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"sekisho/internal/identity"
	"sekisho/internal/site"
)

// pipeline serves the requests of all connections. For each one, in this order: strip what a client could forge; find
// the host and refuse a misdirected request; judge the connection's identity as of now; guard against cross-origin
// requests; tell the upstream who the client is; proxy; record the decision.
type pipeline struct {
	snapshot    func() *site.Snapshot
	now         func() time.Time
	logger      *slog.Logger
	access      *slog.Logger // nil: none
	maxIdentity int          // bytes
	names       *nameMatcher
	page        *template.Template
	buffers     sync.Pool // of *[]byte, for bodies
	counters    requestCounters

	routes  atomic.Pointer[routeTable]
	routing sync.Mutex // held while routes is replaced
}

// newPipeline returns the handler of a server's requests. It fails when the upstream of a host makes no sense.
func newPipeline(s *Server) (http.Handler, error) {
	return newRequestPipeline(s.cfg)
}

const defaultMaxIdentityHeaders = 16 << 10

func newRequestPipeline(cfg Config) (*pipeline, error) {
	p := &pipeline{
		snapshot: cfg.Snapshot, now: cfg.Now, logger: cfg.Logger, access: cfg.AccessLog,
		maxIdentity: cfg.Limits.MaxIdentityHeaders,
		names:       newNameMatcher(forgeables()),
		page:        newPage(),
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.logger == nil {
		p.logger = slog.Default()
	}
	if p.maxIdentity <= 0 {
		p.maxIdentity = defaultMaxIdentityHeaders
	}
	p.buffers.New = func() any {
		b := make([]byte, 32<<10)
		return &b
	}
	table, err := newRouteTable(p.snapshot(), nil)
	if err != nil {
		table.close()
		return nil, err
	}
	p.routes.Store(table)
	return p, nil
}

// exchange is one request on its way through the pipeline. It belongs to the goroutine of the handler.
type exchange struct {
	p     *pipeline
	c     *conn
	w     http.ResponseWriter
	r     *http.Request // its Header is changed in place: it becomes what the upstream gets
	start time.Time
	id    string
	name  string // the Host header without its port

	standing *standing
	host     *site.Host // nil: misdirected
	route    *route
	told     *identityHeaders
	reason   string // why refused, or why the client counts as anonymous; empty when verified or not asked
	refused  bool
	failure  string // what went wrong after the decision, in one word

	status   int
	bytes    int64
	released bool // no longer counted in c.inflight

	trace     httptrace.ClientTrace
	interims  interims
	body      *clientBody // what the origin reads; nil: nothing
	idValue   [1]string   // values of header fields, here to save allocations
	hostValue [1]string
}

// ServeHTTP serves one request of a connection that the edge accepted.
func (p *pipeline) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := connOf(r.Context())
	if c == nil {
		panic("sekisho/edge: a request whose context carries no connection")
	}
	x := &exchange{p: p, c: c, w: w, r: r, start: p.now(), id: newRequestID(), name: r.Host}
	x.idValue[0], x.hostValue[0] = x.id, r.Host
	c.inflight.Add(1)
	defer x.end() //nolint:contextcheck // an exchange carries its request, and with it the context
	x.serve()     //nolint:contextcheck // as above
}

// serve decides about the request and answers it.
func (x *exchange) serve() {
	if x.r.Method == http.MethodTrace || x.r.Method == http.MethodConnect {
		x.refuse(refusalMethod())
		return
	}
	if !plainTarget(x.r) {
		x.refuse(refusalTarget())
		return
	}
	x.p.names.strip(x.r.Header)
	x.find()
	if x.host == nil {
		x.refuse(refusalMisdirected())
		return
	}
	if refusal, ok := x.judge(); !ok {
		x.refuse(refusal)
		return
	}
	upgrade := upgradeOf(x.r)
	x.prepare(upgrade)
	switch {
	case x.host.Echo:
		x.echo()
	case x.route.err != nil:
		x.fail(x.route.err)
	default:
		x.proxy(upgrade)
	}
}

// plainTarget reports whether an origin can be asked for this: a path or, for OPTIONS, the server as a whole (RFC 9112,
// Section 3.2). Over HTTP/2 net/http takes any text for a method.
func plainTarget(r *http.Request) bool {
	if r.URL.Opaque != "" || !httpguts.ValidHeaderFieldName(r.Method) {
		return false
	}
	return r.URL.Path == "" || r.URL.Path[0] == '/' || r.URL.Path == "*" && r.Method == http.MethodOptions
}

// find sets the host that the request is for, and the connection's standing as of now. The host stays nil when there is
// none, or when its clients are treated in another way than those of the host that this connection was made for, whose
// CAs the standing was judged against (RFC 9110, Section 7.4). The origin of a host is held until the request ends.
func (x *exchange) find() {
	name, ok := hostName(x.r.Host)
	x.name = name
	if x.c.check(x.start).identity.Reason() == identity.RevocationPending {
		x.c.resolve(x.r.Context())
	}
	for range 3 { // a snapshot may be replaced in between: all of this must speak of the same one
		table := x.p.current()
		x.standing = x.c.check(x.start)
		if x.standing.snapshot != table.snapshot {
			continue
		}
		if !ok || x.standing.host == nil {
			return
		}
		host := table.snapshot.Host(x.c.listener, name)
		if host == nil || host != x.standing.host && host.Policy() != x.standing.host.Policy() {
			return
		}
		route := table.routes[host]
		if route.origin != nil && !route.origin.acquire() {
			continue
		}
		x.host, x.route, x.told = host, route, x.p.headersFor(x.c, x.standing, host)
		return
	}
}

// hostName is the Host header (RFC 9110, Section 7.2) without its port; ok is false when it is no host name, so that
// nothing but an absent name is the default host's.
func hostName(host string) (name string, ok bool) {
	name = host
	if end := strings.LastIndexByte(host, ':'); end > strings.LastIndexByte(host, ']') {
		for _, c := range []byte(host[end+1:]) {
			if c < '0' || c > '9' {
				return host, false
			}
		}
		name = host[:end]
		if name == "" || strings.IndexByte(name, ':') >= 0 && name[0] != '[' {
			return host, false
		}
	}
	return name, name == "" || site.CanonicalName(name) != ""
}

// judge says whether the request may pass with the identity that the connection has now.
func (x *exchange) judge() (refusal, bool) {
	s := x.standing
	if x.host.Mode != site.Off {
		x.reason = string(s.identity.Reason())
	}
	if x.host.Mode == site.Require && !s.identity.Verified() {
		x.explain()
		return refusalFor(s.identity.Reason()), false
	}
	if x.route.guard != nil && !x.sameOrigin() {
		return refusalCrossOrigin(), false
	}
	return refusal{}, true
}

// sameOrigin asks the host's guard. A switch of protocols is a GET, but what follows it may change anything, and
// browsers let any page open a WebSocket anywhere: it is judged like a POST.
func (x *exchange) sameOrigin() bool {
	r := x.r
	if upgradeOf(r) != "" {
		r = r.WithContext(r.Context())
		r.Method = http.MethodPost
	}
	return x.route.guard.Check(r) == nil
}

// prepare makes the request's header what the upstream gets. Everything a client could have named in Connection is
// gone before anything of ours is added.
func (x *exchange) prepare(upgrade string) {
	h := x.r.Header
	removeHopByHop(h, true)
	delete(h, "Expect") // the server answers 100 itself when the body is read
	delete(h, "Host")   // over HTTP/2 a second one beside :authority, which alone was judged
	if upgrade != "" {
		h["Connection"] = []string{"Upgrade"}
		h["Upgrade"] = []string{upgrade}
	}
	x.told.set(h)
	client := x.told.client
	h["X-Forwarded-For"] = client.forwardedFor
	h["X-Forwarded-Proto"] = client.proto
	h["X-Forwarded-Host"] = x.hostValue[:]
	if client.port != nil {
		h["X-Forwarded-Port"] = client.port
	}
	h["X-Request-Id"] = x.idValue[:]
}

// release takes the request out of the connection's requests in flight.
func (x *exchange) release() {
	if !x.released {
		x.released = true
		x.c.inflight.Add(-1)
	}
}

// end records the request; it runs when the handler returns or panics.
func (x *exchange) end() {
	x.release()
	if x.route != nil && x.route.origin != nil {
		x.route.origin.release()
	}
	took := x.p.now().Sub(x.start)
	x.p.counters.request(x, took)
	if x.p.access != nil {
		x.log(took)
	}
}

// newRequestID returns 24 hex digits that do not repeat. They are no secret.
func newRequestID() string {
	var raw [12]byte
	a, b := rand.Uint64(), rand.Uint32() //nolint:gosec // an id for logs; nothing rests on it being hard to guess
	for i := range 8 {
		raw[i] = byte(a >> (8 * i))
	}
	for i := range 4 {
		raw[8+i] = byte(b >> (8 * i))
	}
	return hex.EncodeToString(raw[:])
}
