package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// publisher is a CA of somebody else whose lists stay as they are, byte for byte, until it publishes anew; see
// [outside], whose responder answers here too.
type publisher struct {
	*outside
	dir  string // of its files
	site string // its URL

	serving sync.Mutex
	pages   map[string][]byte
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	pub := &publisher{outside: newOutside(t), dir: t.TempDir(), pages: make(map[string][]byte)}
	server := httptest.NewServer(pub)
	t.Cleanup(server.Close)
	pub.site = server.URL
	return pub
}

// ServeHTTP answers with what was published last; OCSP requests are answered as of now.
func (pub *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pub.serving.Lock()
	page, found := pub.pages[r.URL.Path]
	pub.serving.Unlock()
	if !found {
		pub.outside.ServeHTTP(w, r)
		return
	}
	pub.requests.Add(1)
	_, _ = w.Write(page)
}

func (pub *publisher) serve(path string, page []byte) {
	pub.serving.Lock()
	defer pub.serving.Unlock()
	pub.pages[path] = page
}

func (pub *publisher) file(name string) string { return filepath.Join(pub.dir, name) }

// base is a list without entries, number 1, which names where its delta is.
func (pub *publisher) base(freshest ...string) []byte {
	return pub.sign(pkix.CRLTemplate{Number: big.NewInt(1), FreshestCRL: freshest}, nil)
}

// delta says what was revoked since base.
func (pub *publisher) delta() []byte {
	pub.mu.Lock()
	pub.number++
	number, revoked := pub.number, slices.Clone(pub.revoked)
	pub.mu.Unlock()
	return pub.sign(pkix.CRLTemplate{Number: big.NewInt(number), BaseNumber: big.NewInt(1)}, revoked)
}

func (pub *publisher) sign(t pkix.CRLTemplate, revoked []pkix.Serial) []byte {
	pub.t.Helper()
	var entries []byte
	for _, s := range revoked {
		entries = pkix.AppendCRLEntry(entries, pkix.CRLEntry{Serial: s, At: time.Now(), Reason: pkix.KeyCompromise})
	}
	t.Issuer, t.ThisUpdate, t.NextUpdate = pub.Cert, time.Now().Add(-time.Second), time.Now().Add(time.Hour)
	der, err := pkix.SignCRL(t, entries, pub.Key)
	if err != nil {
		pub.t.Fatal(err)
	}
	return der
}

// trusted starts a server whose host localhost, in front of an upstream, lets in the clients of the CA by a policy in
// the words of the configuration file.
func (pub *publisher) trusted(policy, upstream string) *process {
	pub.t.Helper()
	inPlace(pub.t, pub.file("ca.pem"), pub.PEM)
	config := fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
outbound: {allow: [127.0.0.0/8]}
log: {access: "off"}
limits: {handshakes_per_ip: 5000}
trust:
  - {name: outside, certs: %q, %s}
hosts:
  - name: localhost
    names: ["127.0.0.1"]
    default: true
    upstreams: [%q]
    client_auth: {mode: require, ca: [outside]}
`, pub.file("ca.pem"), policy, upstream)
	inPlace(pub.t, pub.file("sekisho.yaml"), []byte(config))
	dir := pub.t.TempDir()
	return start(pub.t, dir, "--config", pub.file("sekisho.yaml"), "--data", dir)
}

// sourceKind is a way by which a CA says who is revoked.
type sourceKind struct {
	name    string
	policy  func(pub *publisher) string
	leaf    func(pub *publisher, c *x509.Certificate) // what its certificates name; nil: nothing
	begin   func(pub *publisher)                      // before the server starts; nil: publish
	publish func(pub *publisher)                      // what was revoked since; nil: the responder answers as of now
}

// sourceKinds are all of them. Where a source is fetched the policy has it asked again every second; files are looked at
// every second in any case.
func sourceKinds() []sourceKind {
	point := func(pub *publisher, c *x509.Certificate) { c.CRLDistributionPoints = []string{pub.site + "/list.crl"} }
	page := func(pub *publisher) { pub.serve("/list.crl", pub.crl()) }
	return []sourceKind{
		{
			name:    "CRL file",
			policy:  func(pub *publisher) string { return fmt.Sprintf("sources: [crl], crls: [%q]", pub.file("list.crl")) },
			publish: func(pub *publisher) { inPlace(pub.t, pub.file("list.crl"), pub.crl()) },
		},
		{
			name: "CRL by URL",
			policy: func(pub *publisher) string {
				return fmt.Sprintf("sources: [crl], refresh: 1s, crls: [%q]", pub.site+"/list.crl")
			},
			publish: page,
		},
		{
			name:    "distribution point",
			policy:  func(*publisher) string { return "sources: [crl], refresh: 1s" },
			leaf:    point,
			publish: page,
		},
		{
			name: "delta file",
			policy: func(pub *publisher) string {
				return fmt.Sprintf("sources: [crl], crls: [%q, %q]", pub.file("base.crl"), pub.file("delta.crl"))
			},
			begin: func(pub *publisher) {
				inPlace(pub.t, pub.file("base.crl"), pub.base())
				inPlace(pub.t, pub.file("delta.crl"), pub.delta())
			},
			publish: func(pub *publisher) { inPlace(pub.t, pub.file("delta.crl"), pub.delta()) },
		},
		{
			name:   "freshest CRL of a distribution point",
			policy: func(*publisher) string { return "sources: [crl], refresh: 1s" },
			leaf:   point,
			begin: func(pub *publisher) {
				pub.serve("/list.crl", pub.base(pub.site+"/delta.crl"))
				pub.serve("/delta.crl", pub.delta())
			},
			publish: func(pub *publisher) { pub.serve("/delta.crl", pub.delta()) },
		},
		{
			name:    "CRLSet",
			policy:  func(pub *publisher) string { return fmt.Sprintf("sources: [crlset], crlsets: [%q]", pub.file("set")) },
			publish: func(pub *publisher) { inPlace(pub.t, pub.file("set"), pub.set()) },
		},
		{
			name:   "OCSP",
			policy: func(*publisher) string { return "sources: [ocsp], refresh: 1s" },
			leaf:   func(pub *publisher, c *x509.Certificate) { c.OCSPServer = []string{pub.site + "/ocsp"} },
		},
	}
}

// fleet is many connected clients of one CA, each with a certificate of its own.
type fleet struct {
	*process
	kind    sourceKind
	pub     *publisher
	leaves  []testpki.Leaf
	conns   []*liveConn
	revoked []int // by index
}

// fleetKinds are the kinds of connections of a fleet: those whose end shows at once, without reading on at full speed.
func fleetKinds() []kind { return []kind{"idle", "upload", "http2", "http2-stream", "websocket"} }

// newFleet starts a server and connects n clients.
func newFleet(t *testing.T, k sourceKind, n int) *fleet {
	t.Helper()
	f := &fleet{kind: k, pub: newPublisher(t), conns: make([]*liveConn, n)}
	switch {
	case k.begin != nil:
		k.begin(f.pub)
	case k.publish != nil:
		k.publish(f.pub)
	}
	f.process = f.pub.trusted(k.policy(f.pub), newOrigin(t).url)
	var group errgroup.Group
	group.SetLimit(16)
	kinds := fleetKinds()
	for i := range n {
		leaf := f.pub.Client(fmt.Sprintf("client-%d", i), testpki.Edit(func(c *x509.Certificate) {
			if k.leaf != nil {
				k.leaf(f.pub, c)
			}
		}))
		f.leaves = append(f.leaves, leaf)
		group.Go(func() (err error) {
			if f.conns[i], err = dialLive(f.process, f.tlsConfig(leaf.TLS()), kinds[i%len(kinds)]); err != nil {
				err = fmt.Errorf("client %d: %w", i, err)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, f.log)
	}
	return f
}

// TestInvariant01And02SourcesCutLiveConnections: of many connected clients three become revoked by each kind of source.
// Exactly their connections are cut, soon, and they do not come in again. SEKISHO_LONG=1 takes 1,000 connections of as
// many certificates, and five rounds.
func TestInvariant01And02SourcesCutLiveConnections(t *testing.T) {
	n, rounds, limit := 60, 1, 30*time.Second // the other packages' tests run beside this one
	if long() {
		n, rounds, limit = 1000, 5, 10*time.Second
	}
	needDescriptors(t, uint64(4*n+500))
	for _, k := range sourceKinds() {
		t.Run(k.name, func(t *testing.T) {
			if !long() {
				t.Parallel() // most of the time is waiting; the long form measures
			}
			f := newFleet(t, k, n)
			var first, last []time.Duration
			for round := range rounds {
				took := f.round(t, round)
				first, last = append(first, slices.Min(took)), append(last, slices.Max(took))
			}
			t.Logf("%d connections, %d times 3 newly revoked: first cut after %v, last after %v; %d requests to the source",
				n, rounds, rounded(first), rounded(last), f.pub.requests.Load())
			if slowest := slices.Max(last); slowest > limit && !raceEnabled {
				t.Errorf("a connection was cut %v after the source changed, want within %v", slowest, limit)
			}
			for _, c := range f.conns {
				c.conn.Close() // the server would wait for their requests
			}
			f.stop()
		})
	}
}

func rounded(times []time.Duration) []time.Duration {
	out := slices.Clone(times)
	for i := range out {
		out[i] = out[i].Round(time.Millisecond)
	}
	return out
}

// needDescriptors ends the test with the reason where the machine does not give the test program enough files.
func needDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < n {
		t.Fatalf("%d file descriptors are allowed and %d needed: raise ulimit -n", limit.Cur, n)
	}
}

// round revokes three clients and returns how long after the source's change each one's connection ended.
func (f *fleet) round(t *testing.T, round int) (took []time.Duration) {
	t.Helper()
	n := len(f.conns)
	victims := []int{1 + 7*round, n/2 + 7*round, n - 2 - 7*round} // of different kinds
	bystanders := []int{victims[0] + 1, victims[1] + 1, victims[2] + 1}
	sessions := make(map[int]*tls.Config)
	for _, i := range slices.Concat(victims, bystanders) {
		sessions[i] = f.session(t, i)
	}
	waitUntil(t, "only the fleet is connected", func() bool { return f.metric("sekisho_connections") == fmt.Sprint(n-len(f.revoked)) })
	time.Sleep(rand.N(time.Second)) // a change comes at any moment of the beat
	f.othersLive(t)
	change := time.Now()
	for _, i := range victims {
		f.pub.revoke(f.leaves[i])
	}
	if f.kind.publish != nil {
		f.kind.publish(f.pub)
	}
	f.revoked = append(f.revoked, victims...)
	for _, i := range victims {
		select {
		case <-f.conns[i].done:
		case <-time.After(60 * time.Second):
			t.Fatalf("the %s connection of the revoked client %d is open after 60 s\n%s", f.conns[i].kind, i, f.log)
		}
		took = append(took, time.Unix(0, f.conns[i].closed.Load()).Sub(change))
	}
	time.Sleep(2200 * time.Millisecond) // the sources are asked twice more
	f.othersLive(t)
	if cut := f.metric(`sekisho_connections_cut_total{reason="revoked"}`); cut != fmt.Sprint(len(f.revoked)) {
		t.Errorf("the server counts %s connections that were cut since their certificate is revoked, want %d", cut, len(f.revoked))
	}
	for _, i := range victims {
		f.keptOut(t, i, sessions[i])
	}
	for _, i := range bystanders {
		f.letIn(t, i, sessions[i])
	}
	return took
}

// othersLive demands that every connection lives but those of the revoked.
func (f *fleet) othersLive(t *testing.T) {
	t.Helper()
	for i, c := range f.conns {
		if !c.alive() && !slices.Contains(f.revoked, i) {
			t.Errorf("the %s connection of client %d, which is not revoked, was cut", c.kind, i)
		}
	}
}

// session makes a session that can be resumed: it has been once.
func (f *fleet) session(t *testing.T, client int) *tls.Config {
	t.Helper()
	config := f.tlsConfig(f.leaves[client].TLS())
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for _, want := range []bool{false, true} {
		if resumed, status := handshake(t, f.process, config); resumed != want || status != http.StatusOK {
			t.Fatalf("client %d before the change: resumed %v, want %v, answered %d", client, resumed, want, status)
		}
	}
	return config
}

// keptOut demands that a client does not come in, neither with its session nor without one.
func (f *fleet) keptOut(t *testing.T, client int, session *tls.Config) {
	t.Helper()
	for range 2 {
		if resumed, status := handshake(t, f.process, session); status != http.StatusForbidden {
			t.Errorf("the revoked client %d is answered %d with its session (resumed %v)", client, status, resumed)
		}
	}
	full := f.client(f.leaves[client].TLS())
	defer full.CloseIdleConnections()
	if status, body := f.get(full, "/hello"); status != http.StatusForbidden || !strings.Contains(body, "revoked") {
		t.Errorf("the revoked client %d is answered %d %s", client, status, body)
	}
}

// letIn demands that a client comes in, with its session and without.
func (f *fleet) letIn(t *testing.T, client int, session *tls.Config) {
	t.Helper()
	if resumed, status := handshake(t, f.process, session); !resumed || status != http.StatusOK {
		t.Errorf("client %d, which is not revoked: resumed %v, answered %d", client, resumed, status)
	}
	full := f.client(f.leaves[client].TLS())
	defer full.CloseIdleConnections()
	if status, body := f.get(full, "/hello"); status != http.StatusOK {
		t.Errorf("client %d, which is not revoked, is answered %d %s", client, status, body)
	}
}
