package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/testpki"
)

// trap is somebody's server that counts what those who come to it take.
type trap struct {
	address string
	conns   atomic.Int64 // accepted
	open    atomic.Int64
	bytes   atomic.Int64 // written; what sockets hold and nobody read is among them
}

// trapConn counts what is written.
type trapConn struct {
	net.Conn
	trap *trap
}

func (c trapConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.trap.bytes.Add(int64(n))
	return n, err
}

// newTrap serves each connection on an address of this machine ("127.0.0.2") until the test ends.
func newTrap(t *testing.T, host string, serve func(net.Conn)) *trap {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{address: ln.Addr().String()}
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	var work sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	work.Go(func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[raw] = true
			mu.Unlock()
			tr.conns.Add(1)
			tr.open.Add(1)
			work.Go(func() {
				serve(trapConn{raw, tr})
				raw.Close()
				tr.open.Add(-1)
			})
		}
	})
	return tr
}

func (tr *trap) url(path string) string { return "http://" + tr.address + path }

// swallow takes connections and requests, and never answers.
func swallow(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// pours answers each request with text and then, for as long as the peer reads, a block again and again.
func pours(text, block string, pause time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, err := io.WriteString(c, text)
		for err == nil && block != "" {
			time.Sleep(pause)
			_, err = io.WriteString(c, block)
		}
	}
}

// redirectTo answers with 302 to where next says.
func redirectTo(next func(target string) string) func(net.Conn) {
	return func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", next(r.URL.RequestURI()))
	}
}

// siege is a server that trusts a hostile CA, its own, and that of o, which keeps a list.
type siege struct {
	*process
	hostile *testpki.CA
	o       *outside
	friend  tls.Certificate // of our own CA: judged from memory
}

// besiege starts the server; allow is that of outbound. The sources of the hostile CA's certificates are those of the
// default policy.
func besiege(t *testing.T, allow string, environment ...string) *siege {
	t.Helper()
	s := &siege{hostile: testpki.NewCA(t, testpki.Name("Hostile CA")), o: newOutside(t)}
	dir := t.TempDir()
	for name, pem := range map[string][]byte{"hostile.pem": s.hostile.PEM, "other.pem": s.o.PEM} {
		if err := os.WriteFile(filepath.Join(dir, name), pem, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
outbound: {allow: [%s]}
log: {access: "off"}
trust:
  - {name: hostile, certs: %q}
  - {name: other, certs: %q}
hosts:
  - name: localhost
    names: ["127.0.0.1"]
    default: true
    echo: true
    client_auth: {mode: require, ca: [managed, hostile, other]}
`, allow, filepath.Join(dir, "hostile.pem"), filepath.Join(dir, "other.pem"))
	file := filepath.Join(dir, "sekisho.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.process = startProgram(t, filepath.Join(dir, "data"), binary, environment, "--config", file, "--data", filepath.Join(dir, "data"))
	s.friend, _ = s.issue("friend")
	return s
}

// naming is a certificate that names these lists and these responders.
func naming(lists, responders []string) testpki.Option {
	return testpki.Edit(func(c *x509.Certificate) { c.CRLDistributionPoints, c.OCSPServer = lists, responders })
}

// outcome is how a request on a connection of its own went.
type outcome struct {
	status int
	body   string
	took   time.Duration // handshake included
	err    error
}

// ask makes a request on a connection of its own, from a local address if one is given.
func (p *process) ask(from string, config *tls.Config) (a outcome) {
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	client := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		TLSClientConfig: config, DialContext: dialer.DialContext, DisableKeepAlives: true,
	}}
	begin := time.Now()
	defer func() { a.took = time.Since(begin) }()
	resp, err := client.Get("https://" + p.edgeAddress() + "/hello")
	if err != nil {
		return outcome{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return outcome{status: resp.StatusCode, body: string(body), err: err}
}

// refused reports whether the answer is the one for a client whose revocation nobody could tell.
func (a outcome) refused() bool {
	return a.err == nil && a.status == http.StatusForbidden && strings.Contains(a.body, "could not be checked for revocation")
}

// proc reads a number of a file of the process in /proc: "status" VmRSS (KiB), "io" rchar (bytes read from anywhere).
func (p *process) proc(file, field string) int64 {
	p.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, field+":"); ok {
			var n int64
			if _, err := fmt.Sscan(text, &n); err != nil {
				p.t.Fatal(err)
			}
			return n
		}
	}
	p.t.Fatalf("/proc/%d/%s has no %s", p.cmd.Process.Pid, file, field)
	return 0
}

// toll is what an attack cost.
type toll struct {
	answers      []outcome
	slowest      time.Duration // until an attacker had its answer
	over         time.Duration // until the last connection to a trap was closed
	conns, peak  int64         // to the traps: in all, at once
	read         int64         // bytes that the process read from anywhere meanwhile
	memory       int64         // bytes by which the resident set grew at most
	friend, cold []time.Duration
	turnedAway   int // cold clients that were refused
	left         []string
	crowded      float64 // before; times are judged by it
}

// assault has clients of the hostile CA come at once, from an address of their own, and measures until nothing is open
// to the traps any more. Meanwhile one client of our own CA after another comes, and one of o's, each with a certificate
// and a distribution point that nobody has seen.
func (s *siege) assault(traps []*trap, leaves ...testpki.Leaf) *toll {
	s.t.Helper()
	colds := make([]testpki.Leaf, 64)
	for i := range colds {
		colds[i] = s.o.Client("cold", naming([]string{fmt.Sprintf("%s/ca.crl?%d", s.o.url, i)}, nil))
	}
	s.ask("", s.tlsConfig(s.friend)) // whatever is made at first use
	before, read := s.proc("status", "VmRSS"), s.proc("io", "rchar")
	// "5" makes VmHWM, the highest VmRSS so far, begin anew: proc(5).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	x := &toll{answers: make([]outcome, len(leaves)), crowded: crowding(s.t)}
	begin := time.Now()
	var attackers, bystanders sync.WaitGroup
	for i, leaf := range leaves {
		config := s.tlsConfig(leaf.TLS())
		attackers.Go(func() { x.answers[i] = s.ask("127.0.0.5", config) })
	}
	stop := make(chan struct{})
	bystanders.Go(func() { s.bystanders(x, colds, stop) })
	answeredAll := make(chan struct{})
	go func() { attackers.Wait(); close(answeredAll) }()
	x.watch(traps, answeredAll)
	x.over = time.Since(begin)
	close(stop)
	bystanders.Wait()
	for _, tr := range traps {
		x.conns += tr.conns.Load()
	}
	for _, a := range x.answers {
		x.slowest = max(x.slowest, a.took)
	}
	x.read, x.memory = s.proc("io", "rchar")-read, (s.proc("status", "VmHWM")-before)<<10
	x.left, _ = filepath.Glob(filepath.Join(s.dir, "revocation", ".*"))
	return x
}

// watch looks at the traps until every attacker has its answer and nothing is open, for 40 seconds at most.
func (x *toll) watch(traps []*trap, answered <-chan struct{}) {
	deadline := time.After(40 * time.Second)
	over := false
	for {
		var open int64
		for _, tr := range traps {
			open += tr.open.Load()
		}
		if x.peak = max(x.peak, open); over && open == 0 {
			return
		}
		select {
		case <-answered:
			over, answered = true, nil
		case <-deadline:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// bystanders has other clients come, one after another.
func (s *siege) bystanders(x *toll, colds []testpki.Leaf, stop chan struct{}) {
	for i := 0; ; i++ {
		if a := s.ask("", s.tlsConfig(s.friend)); a.status != http.StatusOK {
			s.t.Errorf("a client of our own CA is answered %d %s %v", a.status, a.body, a.err)
		} else {
			x.friend = append(x.friend, a.took)
		}
		if i%4 == 0 && i/4 < len(colds) {
			if a := s.ask("", s.tlsConfig(colds[i/4].TLS())); a.status == http.StatusOK {
				x.cold = append(x.cold, a.took)
			} else {
				x.turnedAway++
			}
		}
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// said is what the sources of a certificate have to say by now, by `sekisho explain`.
func (p *process) said(leaf testpki.Leaf) string {
	p.t.Helper()
	status, answer := p.api("POST", "/sekisho/explain", map[string]string{"certificate": string(leaf.CertPEM), "host": "localhost"})
	var x struct {
		Reports []struct {
			Sources []struct{ Source, Answer, Address, Error string } `json:"sources"`
		} `json:"revocation_reports"`
	}
	if err := json.Unmarshal(answer.Result, &x); err != nil || status != http.StatusOK || len(x.Reports) == 0 {
		p.t.Fatalf("explain: %d %v %s", status, err, answer.Result)
	}
	var out []string
	for _, s := range x.Reports[0].Sources {
		if s.Source != "ledger" {
			out = append(out, s.Source+" "+s.Answer+" "+s.Address+": "+s.Error)
		}
	}
	return strings.Join(out, "\n")
}

// badPlace is an address that a certificate names, and what becomes of it.
type badPlace struct {
	url  string // %s is the port of the listeners
	says string // the reason in words
}

// alsoOnSix counts the connections to the port of [::1]; nil where that cannot be.
func alsoOnSix(t *testing.T, port string) *trap {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp6", "[::1]:"+port)
	if err != nil {
		t.Logf("nothing listens on [::1]:%s, so a connection to it would not be seen: %v", port, err)
		return nil
	}
	six := &trap{address: ln.Addr().String()}
	var work sync.WaitGroup
	work.Go(func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			six.conns.Add(1)
			c.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); work.Wait() })
	return six
}

func badPlaces() []badPlace {
	const refused, unreadable = "address refused by policy", ""
	return []badPlace{
		{"http://127.0.0.1:%s/", refused},
		{"http://127.8.9.1:%s/", refused},
		{"http://localhost:%s/", refused},
		{"http://LocalHost.:%s/", unreadable},
		{"http://x.localhost:%s/", unreadable},
		{"http://[::1]:%s/", refused},
		{"http://[::ffff:127.0.0.1]:%s/", refused},
		{"http://[::ffff:7f00:1]:%s/", refused},
		{"http://[::127.0.0.1]:%s/", refused},
		{"http://[64:ff9b::7f00:1]:%s/", refused},
		{"http://[2002:7f00:1::1]:%s/", refused},
		{"http://0.0.0.0:%s/", refused},
		{"http://[::]:%s/", refused},
		{"http://2130706433:%s/", unreadable},
		{"http://0x7f000001:%s/", unreadable},
		{"http://0x7f.1:%s/", unreadable},
		{"http://0177.0.0.1:%s/", unreadable},
		{"http://127.1:%s/", unreadable},
		{"http://127.0.0.1.:%s/", unreadable},
		{"http://0:%s/", unreadable},
		{"http://user@127.0.0.1:%s/", unreadable},
		{"http://127.0.0.1:%s@192.0.2.1/", unreadable},
		{"http://127.0.0.1%%2f:%s/", unreadable},
		{"http://169.254.169.254/latest/meta-data/#%s", "link-local"},
		{"http://[::ffff:169.254.169.254]/#%s", "link-local"},
		{"http://[fd00:ec2::254]/#%s", "metadata"},
		{"http://[fe80::1%%25lo]:%s/", "link-local"},
		{"http://255.255.255.255:%s/", refused},
		{"http://239.1.2.3:%s/", refused},
		{"file:///etc/passwd#%s", unreadable},
		{"ldap://127.0.0.1:%s/cn=ca?certificateRevocationList", unreadable},
		{"ftp://127.0.0.1:%s/ca.crl", unreadable},
		{"gopher://127.0.0.1:%s/", unreadable},
		{"//127.0.0.1:%s/", unreadable},
	}
}

// TestInvariant13CertificateNamesOurOwnMachine: a client with certificate and key whose list or responder is at an address
// of this machine, of the local link or of a cloud's metadata, in any spelling, makes no connection there.
func TestInvariant13CertificateNamesOurOwnMachine(t *testing.T) {
	four := newTrap(t, "127.0.0.1", swallow)
	_, port, err := net.SplitHostPort(four.address)
	if err != nil {
		t.Fatal(err)
	}
	traps := []*trap{four}
	if six := alsoOnSix(t, port); six != nil {
		traps = append(traps, six)
	}
	places := badPlaces()
	s := besiege(t, "")
	leaves := make([]testpki.Leaf, len(places))
	for i, pl := range places {
		url := fmt.Sprintf(pl.url, port)
		leaves[i] = s.hostile.Client("client", naming([]string{url}, []string{url + "ocsp"}))
	}
	x := s.assault(traps, leaves...)
	for i, pl := range places {
		said, a := s.said(leaves[i]), x.answers[i]
		list, _, _ := strings.Cut(said, "\n")
		t.Logf("%v %s", a.took.Round(time.Millisecond), list)
		if !a.refused() {
			t.Errorf("%s: %d %q %v after %v", pl.url, a.status, a.body, a.err, a.took)
		}
		if strings.Count(said, pl.says) < 2 && pl.says != "" {
			t.Errorf("%s: not refused as %q by list and responder: %s", pl.url, pl.says, said)
		}
	}
	within(t, "every answer", x.slowest, patience, x.crowded)
	x.report(t, "addresses of our own")
	if x.conns != 0 {
		t.Errorf("%d connections to this machine", x.conns)
	}
	s.stop()
}

// TestInvariant13CertificateNamesOurListeners: what certificates name is never fetched from this server itself, also where
// the addresses of loopback are allowed for others.
func TestInvariant13CertificateNamesOurListeners(t *testing.T) {
	s := besiege(t, "127.0.0.0/8")
	var leaves []testpki.Leaf
	for _, own := range []string{s.ready.Edge, s.ready.Admin, s.ready.PKI, s.ready.Metrics} {
		_, address, _ := strings.Cut(own, "://")
		address, _, _ = strings.Cut(address, "/")
		for _, scheme := range []string{"http://", "https://"} {
			url := scheme + strings.Replace(address, "localhost", "127.0.0.1", 1) + "/"
			leaves = append(leaves, s.hostile.Client("client", naming([]string{url}, []string{url})))
		}
	}
	x := s.assault(nil, leaves...)
	x.report(t, "our own listeners")
	for _, leaf := range leaves {
		if said := s.said(leaf); strings.Count(said, "our own listener") != 2 {
			t.Errorf("%s: %s", leaf.Cert.OCSPServer[0], said)
		}
	}
	s.stop()
}

// TestInvariant13RedirectFromHTTPS: who is asked over https cannot send on to http, where anybody may answer.
func TestInvariant13RedirectFromHTTPS(t *testing.T) {
	web := testpki.NewCA(t, testpki.Name("Web CA"))
	roots := filepath.Join(t.TempDir(), "web.pem")
	if err := os.WriteFile(roots, web.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	s := besiege(t, "127.0.0.0/16", "SSL_CERT_FILE="+roots)
	forward := redirectTo(func(target string) string { return s.o.url + target })
	config := &tls.Config{Certificates: []tls.Certificate{web.Server("127.0.0.2").TLS()}}
	tr := newTrap(t, "127.0.0.2", func(c net.Conn) { forward(tls.Server(c, config)) })
	leaf := s.o.Client("client", naming([]string{"https://" + tr.address + "/ca.crl"}, nil))
	a := s.ask("", s.tlsConfig(leaf.TLS()))
	said := s.said(leaf)
	t.Logf("answered %d after %v: %s", a.status, a.took.Round(time.Millisecond), said)
	if !a.refused() || tr.conns.Load() != 1 || s.o.requests.Load() != 0 || !strings.Contains(said, "from https to http") {
		t.Errorf("%d %q %v; %d connections, then %d requests: %s", a.status, a.body, a.err, tr.conns.Load(), s.o.requests.Load(), said)
	}
	s.stop()
}

// report logs the figures, and demands what holds for every attack: other clients are served as ever, and nothing is left.
func (x *toll) report(t *testing.T, name string) {
	t.Helper()
	cold := "none"
	if len(x.cold) > 0 {
		cold = fmt.Sprintf("median %v, worst %v", percentile(x.cold, 50).Round(time.Millisecond), percentile(x.cold, 100).Round(time.Millisecond))
	}
	t.Logf("figures: %s: answered after %v; %d connections, %d at once, the last closed after %v; %d KiB read; %d KiB more memory; "+
		"others: %d, median %v, worst %v; others with a list to fetch: %d, %s, %d refused",
		name, x.slowest.Round(time.Millisecond), x.conns, x.peak, x.over.Round(time.Millisecond), x.read>>10, x.memory>>10,
		len(x.friend), percentile(x.friend, 50).Round(time.Millisecond), percentile(x.friend, 100).Round(time.Millisecond),
		len(x.cold), cold, x.turnedAway)
	for _, a := range x.answers {
		if !a.refused() {
			t.Errorf("%s: answered %d %q %v, want 403 and the reason", name, a.status, a.body, a.err)
		}
	}
	if len(x.left) > 0 {
		t.Errorf("%s: left behind: %q", name, x.left)
	}
	within(t, name+": the slowest client of our own CA", percentile(x.friend, 100), 4*time.Second, x.crowded) // the clients of the test take the processor, too
	if len(x.friend) > 20 {
		within(t, name+": the median client of our own CA", percentile(x.friend, 50), 250*time.Millisecond, x.crowded)
	}
}

// attack is a hostile source and what it may cost at most.
type attack struct {
	name   string
	serve  func(net.Conn)
	conns  int64         // connections, of list and of responder alike
	read   int64         // bytes, with what the other clients of the test take (a few hundred KiB)
	took   time.Duration // until the client has its answer
	memory int64         // bytes
	list   string        // what explain says of the list
	ocsp   string        // of the responder
}

// patience is how long a client waits at most whose sources hang: its 5 s, and some for the rest.
const patience = 7 * time.Second

// attacks are those that one certificate with one list and one responder makes. A fetch has 10 s and 4 exchanges, a list
// 64 MiB and 8 MiB in PEM, an answer of OCSP 64 KiB.
func attacks(victim string) []attack {
	const ok = "HTTP/1.1 200 OK\r\n"
	zeros := strings.Repeat("\x00", 64<<10)
	text := strings.Repeat(strings.Repeat("A", 64)+"\n", 1000)
	const quick, patient = 3 * time.Second, patience
	const few, much, small = 2 << 20, 70 << 20, 32 << 20
	return []attack{
		{"10 GB declared", pours(ok+"Content-Length: 10000000000\r\n\r\n", zeros, 0), 2, few, quick, small, "larger than allowed", "too large"},
		{"endless list in DER", pours(ok+"\r\n\x30\x84\x7f\xff\xff\xff", zeros, 0), 2, much, patient, small, "larger than allowed", "too large"},
		{"endless list in PEM", pours(ok+"\r\n-----BEGIN X509 CRL-----\n", text, 0), 2, much, patient, 64 << 20, "larger than allowed", "too large"},
		{"endless chunks", pours(ok+"Transfer-Encoding: chunked\r\n\r\n", "10000\r\n"+zeros+"\r\n", 0), 2, much, patient, 64 << 20, "larger than allowed", "too large"},
		{"endless header", pours(ok, "X-A: "+zeros+"\r\n", 0), 2, few, quick, small, "header of more than", "header of more than"},
		{"endless interim responses", pours("", "HTTP/1.1 100 Continue\r\n\r\n", 0), 2, few, quick, small, "interim", "interim"},
		{"gzip bomb", pours(ok+"Content-Encoding: gzip\r\n\r\n", zeros, 0), 2, few, quick, small, "content encoding", "content encoding"},
		{"redirect in a circle", redirectTo(func(target string) string { return target }), 2, few, quick, small, "circle", "circle"},
		{"redirects without end", redirectTo(func(target string) string { return target + "x" }), 8, few, quick, small, "more than 3", "more than 3"},
		{"redirect to a refused address", redirectTo(func(string) string { return victim }), 2, few, quick, small, "refused by policy", "refused by policy"},
		{"redirect to a file", redirectTo(func(string) string { return "file:///etc/passwd" }), 2, few, quick, small, "scheme", "scheme"},
		{"drips its header", pours("HTTP/1.1 200 OK\r\nX-A: ", "a", 100*time.Millisecond), 2, few, patient, small, "", ""},
		{"drips its body", pours(ok+"Content-Length: 10000\r\n\r\n\x30\x82", "\x00", 100*time.Millisecond), 2, few, patient, small, "", ""},
		{"never answers", swallow, 2, few, patient, small, "", ""},
	}
}

// TestInvariant13HostileSources: a client with certificate and key of a trusted CA names a list and a responder that do
// their worst. It is refused in time, by a cost that is bounded, others are served meanwhile, and nothing is left.
func TestInvariant13HostileSources(t *testing.T) {
	victim := newTrap(t, "127.9.9.9", swallow) // not allowed
	for _, a := range attacks(victim.url("/")) {
		t.Run(a.name, func(t *testing.T) {
			if a.took == patience && a.list == "" && a.name != "drips its body" && !long() {
				t.Skip("takes 10 s, and another of its kind runs: SEKISHO_LONG=1")
			}
			tr := newTrap(t, "127.0.0.2", a.serve)
			s := besiege(t, "127.0.0.0/16")
			leaf := s.hostile.Client("client", naming([]string{tr.url("/ca.crl")}, []string{tr.url("/ocsp")}))
			x := s.assault([]*trap{tr}, leaf)
			x.report(t, a.name)
			said := s.said(leaf)
			t.Log(said)
			list, ocsp, _ := strings.Cut(said, "\n")
			if !strings.Contains(list, a.list) || !strings.Contains(ocsp, a.ocsp) {
				t.Errorf("want %q of the list and %q of the responder", a.list, a.ocsp)
			}
			x.within(t, a, 0)
			s.stop()
		})
	}
	if n := victim.conns.Load(); n != 0 {
		t.Errorf("%d connections to an address that is not allowed", n)
	}
}

// within holds the figures of an attack against its bounds; away is how many other clients with a list to fetch may be
// refused.
func (x *toll) within(t *testing.T, a attack, away int) {
	t.Helper()
	if slots := int64(24 + 8); x.peak > slots { // the trap sees some a little longer
		t.Errorf("%d connections at once, want 24", x.peak)
	}
	if x.conns > a.conns || x.conns == 0 {
		t.Errorf("%d connections, want 1 to %d", x.conns, a.conns)
	}
	if x.read > a.read {
		t.Errorf("%d bytes read, want %d at most", x.read, a.read)
	}
	within(t, "the slowest answer", x.slowest, a.took, x.crowded)
	within(t, "the end of the last connection", x.over, 10*time.Second+a.took, x.crowded)
	if x.memory > a.memory && !raceEnabled { // whose shadow memory is another matter
		t.Errorf("%d bytes more memory, want %d at most", x.memory, a.memory)
	}
	if x.turnedAway > away {
		t.Errorf("%d clients of another CA were refused", x.turnedAway)
	}
}

// TestInvariant13HostileCertificates: one certificate names more than is looked at, or many certificates come at once.
func TestInvariant13HostileCertificates(t *testing.T) {
	const mib = 1 << 20
	t.Run("200 distribution points", func(t *testing.T) {
		tr := newTrap(t, "127.0.0.2", swallow)
		s := besiege(t, "127.0.0.0/16")
		leaf := s.hostile.Client("client", naming(numbered(tr, 200), numbered(tr, 200)))
		x := s.assault([]*trap{tr}, leaf)
		x.report(t, "200 distribution points and 200 responders")
		t.Log(s.said(leaf))
		x.within(t, attack{conns: 12, read: 2 * mib, took: patience, memory: 32 * mib}, 0)
		s.stop()
	})
	t.Run("many distribution points on as many hosts, endless", func(t *testing.T) {
		var traps []*trap
		var urls []string
		text := strings.Repeat(strings.Repeat("A", 64)+"\n", 1000)
		for i := range 30 {
			tr := newTrap(t, fmt.Sprintf("127.0.1.%d", i+1), pours("HTTP/1.1 200 OK\r\n\r\n-----BEGIN X509 CRL-----\n", text, 0))
			traps, urls = append(traps, tr), append(urls, tr.url("/ca.crl"))
		}
		s := besiege(t, "127.0.0.0/16")
		x := s.assault(traps, s.hostile.Client("client", naming(urls, nil)))
		x.report(t, "30 endless lists in PEM on 30 hosts")
		x.within(t, attack{conns: 8, read: 8 * 66 * mib, took: patience, memory: 256 * mib}, 0)
		s.stop()
	})
	for _, m := range []struct {
		what        string
		hosts, away int // hosts that hang, and other clients with a list to fetch that may be refused
	}{{"list", 1, 0}, {"list", 100, 6}, {"responder", 1, 0}, {"responder", 100, 6}} {
		name := fmt.Sprintf("200 certificates, each with a %s on %d hosts that never answer", m.what, m.hosts)
		t.Run(name, func(t *testing.T) {
			if m.what == "responder" && !long() {
				t.Skip("takes 17 s, and lists are tried: SEKISHO_LONG=1")
			}
			x := manyCertificates(t, m.what, m.hosts)
			x.report(t, name)
			// 200 handshakes at once take some seconds themselves.
			x.within(t, attack{conns: 400, read: 4 * mib, took: patience + 5*time.Second, memory: 128 * mib}, m.away)
		})
	}
}

// numbered is many URLs of one server.
func numbered(tr *trap, n int) []string {
	urls := make([]string, n)
	for i := range urls {
		urls[i] = tr.url(fmt.Sprintf("/%d", i))
	}
	return urls
}

// manyCertificates has 200 clients come at once. Of all connections 24 are for certificates, and 4 for one host: with one
// host that hangs other lists come as ever, with many they wait until the fetches end.
func manyCertificates(t *testing.T, what string, hosts int) *toll {
	t.Helper()
	var traps []*trap
	for i := range hosts {
		traps = append(traps, newTrap(t, fmt.Sprintf("127.0.1.%d", i+1), swallow))
	}
	s := besiege(t, "127.0.0.0/16")
	leaves := make([]testpki.Leaf, 200)
	for i := range leaves {
		url := []string{traps[i%hosts].url(fmt.Sprintf("/%d", i))}
		if what == "list" {
			leaves[i] = s.hostile.Client("client", naming(url, nil))
		} else {
			leaves[i] = s.hostile.Client("client", naming(nil, url))
		}
	}
	x := s.assault(traps, leaves...)
	after := s.ask("", s.tlsConfig(s.o.Client("after", naming([]string{s.o.url + "/ca.crl?after"}, nil)).TLS()))
	t.Logf("a client with a list to fetch that comes then: %d after %v", after.status, after.took.Round(time.Millisecond))
	if after.status != http.StatusOK {
		t.Errorf("then: %d %q %v after %v", after.status, after.body, after.err, after.took)
	}
	within(t, "the answer then", after.took, 2*time.Second, x.crowded)
	s.stop()
	return x
}
