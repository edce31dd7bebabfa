package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	endian "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	randv2 "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// bulk is the entries of revoked certificates that nobody has, of which lists take a part.
type bulk struct {
	serials []pkix.Serial
	entries []byte // of a CRL
	ends    []int  // of each in entries
	whole   bool   // lists take all of them, so that one footprint compares with another
}

func newBulk(n int) *bulk {
	b := &bulk{}
	at := time.Now().Add(-time.Hour)
	for range n {
		serial := make([]byte, 16)
		_, _ = rand.Read(serial) // never fails
		serial[0] = 0x5a         // positive, and of the same length
		s := pkix.SerialFromBytes(serial)
		b.serials = append(b.serials, s)
		b.entries = pkix.AppendCRLEntry(b.entries, pkix.CRLEntry{Serial: s, At: at})
		b.ends = append(b.ends, len(b.entries))
	}
	return b
}

// some is how many entries the next list takes: between a quarter and all.
func (b *bulk) some() int {
	if b.whole {
		return len(b.ends) - 1
	}
	return len(b.ends)/4 + randv2.IntN(len(b.ends)*3/4)
}

// crl is a list of a CA with some of the bulk before the leaves.
func (b *bulk) crl(t *testing.T, ca *testpki.CA, number int, leaves ...testpki.Leaf) []byte {
	t.Helper()
	entries := append([]byte{}, b.entries[:b.ends[b.some()]]...)
	for _, l := range leaves {
		entries = pkix.AppendCRLEntry(entries, pkix.CRLEntry{Serial: pkix.SerialOf(l.Cert.SerialNumber), At: time.Now(), Reason: pkix.KeyCompromise})
	}
	der, err := pkix.SignCRL(pkix.CRLTemplate{
		Issuer: ca.Cert, Number: big.NewInt(int64(number)), ThisUpdate: time.Now().Add(-time.Second), NextUpdate: time.Now().Add(24 * time.Hour),
	}, entries, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// set is a CRLSet that covers a CA, with some of the bulk and the leaves.
func (b *bulk) set(ca *testpki.CA, sequence int, leaves ...testpki.Leaf) []byte {
	header := fmt.Sprintf(`{"Version":0,"ContentType":"CRLSet","Sequence":%d,"DeltaFrom":0,"NumParents":1,"BlockedSPKIs":[%q]}`,
		sequence, base64.StdEncoding.EncodeToString(make([]byte, sha256.Size)))
	raw := endian.LittleEndian.AppendUint16(nil, uint16(len(header)))
	raw = append(raw, header...)
	issuer := pkix.KeyIDOf(ca.Cert)
	raw = append(raw, issuer[:]...)
	serials := append([]pkix.Serial{}, b.serials[:b.some()]...)
	for _, l := range leaves {
		serials = append(serials, pkix.SerialOf(l.Cert.SerialNumber))
	}
	raw = endian.LittleEndian.AppendUint32(raw, uint32(len(serials)))
	for _, s := range serials {
		raw = append(append(raw, byte(len(s.Bytes()))), s.Bytes()...)
	}
	return raw
}

// partner is a CA of somebody else with a client that is good all the time, one that is revoked all the time, and one
// that turns from one to the other.
type partner struct {
	*testpki.CA
	name                   string
	good, revoked, turning testpki.Leaf
}

func newPartner(t *testing.T, dir, name string) *partner {
	t.Helper()
	c := &partner{CA: testpki.NewCA(t, testpki.Name(name+" Root")), name: name}
	c.good, c.revoked, c.turning = c.Client(name+" good"), c.Client(name+" revoked"), c.Client(name+" turning")
	inPlace(t, filepath.Join(dir, name+".pem"), c.PEM)
	return c
}

// turnover is a server whose trust and lists change all the time. Its host steady.localhost trusts watched, whose CRL
// file is replaced, and sets, whose CRLSet is. Its host localhost trusts turned, whose policy and list are others after
// each reload of the configuration; extra, which the configuration names now and then; and visiting, which comes and goes
// by the API.
type turnover struct {
	*process
	dir                                    string
	bulk                                   *bulk
	watched, sets, turned, extra, visiting *partner
	visitingID                             string
	hasExtra, turningRevoked               bool // as the last reload had it
	maps                                   int  // the most mappings that were seen
	anonymous                              int  // the most anonymous memory, in KiB
	control                                *http.Client
}

// steadyHost is the name of the host whose own configuration never changes.
const steadyHost = "steady.localhost"

func newTurnover(t *testing.T) *turnover {
	t.Helper()
	w := &turnover{dir: t.TempDir(), bulk: newBulk(30_000)}
	for name, c := range map[string]**partner{"watched": &w.watched, "sets": &w.sets, "turned": &w.turned, "extra": &w.extra, "visiting": &w.visiting} {
		*c = newPartner(t, w.dir, name)
	}
	w.prepare(t, 0)
	data := t.TempDir()
	socket := filepath.Join(data, "control.sock")
	w.control = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	w.process = startProgram(t, data, os.Args[0], []string{controlVariable + "=" + socket}, "--config", w.file("sekisho.yaml"), "--data", data)
	return w
}

func (w *turnover) file(name string) string { return filepath.Join(w.dir, name) }

// prepare writes the files of a turn. What is watched is in force within a second; the rest at the next reload.
func (w *turnover) prepare(t *testing.T, turn int) {
	t.Helper()
	w.hasExtra, w.turningRevoked = turn%4 < 2, turn%2 == 1
	inPlace(t, w.file("watched.crl"), w.bulk.crl(t, w.watched.CA, turn, w.watched.revoked))
	inPlace(t, w.file("sets.raw"), w.bulk.set(w.sets.CA, turn, w.sets.revoked))
	listed := []testpki.Leaf{w.turned.revoked}
	if w.turningRevoked {
		listed = append(listed, w.turned.turning)
	}
	list := w.file(fmt.Sprintf("turned-%d.crl", turn))
	inPlace(t, list, w.bulk.crl(t, w.turned.CA, turn, listed...))
	inPlace(t, w.file("sekisho.yaml"), []byte(w.config(turn, list)))
}

func (w *turnover) config(turn int, list string) string {
	extra, cas := "", "[turned]"
	if w.hasExtra {
		extra, cas = fmt.Sprintf("  - {name: extra, certs: %q}\n", w.file("extra.pem")), "[turned, extra]"
	}
	return fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
log: {access: "off"}
limits: {handshakes_per_ip: 5000}
trust:
  - {name: watched, certs: %q, sources: [crl], crls: [%q]}
  - {name: sets, certs: %q, sources: [crlset], crlsets: [%q]}
  - {name: turned, certs: %q, sources: [crl], crls: [%q], require: %s, scope: %s, grace: %dm}
%shosts:
  - {name: localhost, names: ["127.0.0.1"], default: true, echo: true, client_auth: {mode: require, ca: %s}}
  - {name: %s, echo: true, client_auth: {mode: require, ca: [watched, sets]}}
`, w.file("watched.pem"), w.file("watched.crl"), w.file("sets.pem"), w.file("sets.raw"), w.file("turned.pem"), list,
		[]string{"any", "all"}[turn%2], []string{"chain", "leaf"}[turn/2%2], turn, extra, cas, steadyHost)
}

// reloaded is how many reloads the log tells of.
func (w *turnover) reloaded() int { return strings.Count(w.log.String(), "configuration reloaded") }

// turn changes everything once, and demands that it is in force.
func (w *turnover) turn(t *testing.T, turn int) {
	t.Helper()
	w.prepare(t, turn)
	if turn%2 == 0 {
		if status, answer := w.api("POST", "/sekisho/config/reload", nil); status != http.StatusOK {
			t.Fatalf("turn %d: reload: %d %+v\n%s", turn, status, answer.Errors, w.log)
		}
	} else {
		before := w.reloaded()
		if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "the log tells of the reload by SIGHUP", func() bool { return w.reloaded() > before })
	}
	if err := os.Remove(w.file(fmt.Sprintf("turned-%d.crl", turn-1))); err != nil {
		t.Fatal(err)
	}
	w.expectReloaded(t, turn)
	w.visit(t, turn)
	if turn%20 == 10 {
		w.breakConfig(t, turn)
	}
	if turn%100 == 30 {
		w.breakList(t, turn)
	}
	w.look(t)
}

func (w *turnover) expectReloaded(t *testing.T, turn int) {
	t.Helper()
	w.expect(t, turn, w.turned.turning, !w.turningRevoked)
	w.expect(t, turn, w.extra.good, w.hasExtra)
}

// expect demands that a new client of the host localhost is let in, or refused.
func (w *turnover) expect(t *testing.T, turn int, leaf testpki.Leaf, in bool) {
	t.Helper()
	want := http.StatusForbidden
	if in {
		want = http.StatusOK
	}
	config := w.tlsConfig(leaf.TLS())
	if a, err := exchangeOnce(w.edgeAddress(), config); err != nil || a.status != want {
		t.Fatalf("turn %d: %s is answered %d %v, want %d\n%s", turn, leaf.Cert.Subject.CommonName, a.status, err, want, w.log)
	}
}

// visit has the CA visiting come, turn against its client, think better of it, and go.
func (w *turnover) visit(t *testing.T, turn int) {
	t.Helper()
	mild, strict := w.file("visiting-mild.crl"), w.file("visiting-strict.crl")
	call := func(method, path string, body any) []byte {
		t.Helper()
		status, answer := w.api(method, "/sekisho/trust"+path, body)
		if status != http.StatusOK {
			t.Fatalf("turn %d: %s %s: %d %+v", turn, method, path, status, answer.Errors)
		}
		return answer.Result
	}
	policy := func(list string) map[string]any {
		return map[string]any{"sources": []string{"crl"}, "crls": []string{list}}
	}
	if w.visitingID == "" {
		inPlace(t, mild, w.bulk.crl(t, w.visiting.CA, 2*turn, w.visiting.revoked))
		inPlace(t, strict, w.bulk.crl(t, w.visiting.CA, 2*turn+1, w.visiting.revoked, w.visiting.turning))
		var made trustedCA
		result := call("POST", "", map[string]any{
			"name": "visiting", "certificates": string(w.visiting.PEM), "policy": policy(mild), "hostnames": []string{"localhost"},
		})
		if err := json.Unmarshal(result, &made); err != nil {
			t.Fatal(err)
		}
		w.visitingID = made.ID
	}
	id := "/" + w.visitingID
	switch turn % 4 {
	case 1:
		call("PATCH", id+"/policy", policy(strict))
	case 2:
		call("PATCH", id+"/policy", policy(mild))
	case 3:
		call("PUT", id+"/hostnames", map[string]any{"hostnames": []string{}})
		call("DELETE", id, nil)
		w.visitingID = ""
	}
	w.expect(t, turn, w.visiting.revoked, false)
	w.expect(t, turn, w.visiting.good, turn%4 != 3)
	w.expect(t, turn, w.visiting.turning, turn%4 == 0 || turn%4 == 2)
}

// breakConfig has the server read a configuration that is wrong: it says so, and nothing changes.
func (w *turnover) breakConfig(t *testing.T, turn int) {
	t.Helper()
	good, err := os.ReadFile(w.file("sekisho.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\nnonsense: true\n", "  - {name: other.localhost, echo: true, client_auth: {mode: require, ca: [nobody.pem]}}\n"} {
		inPlace(t, w.file("sekisho.yaml"), append(append([]byte{}, good...), bad...))
		if status, _ := w.api("POST", "/sekisho/config/reload", nil); status == http.StatusOK {
			t.Fatalf("turn %d: a configuration with %q was taken", turn, bad)
		}
		w.expectReloaded(t, turn)
	}
	inPlace(t, w.file("sekisho.yaml"), good)
}

// breakList writes over the file that is watched, as a careless tool does, and leaves it half written for a while. The
// list before stays in force.
func (w *turnover) breakList(t *testing.T, turn int) {
	t.Helper()
	whole := w.bulk.crl(t, w.watched.CA, turn, w.watched.revoked)
	if err := os.WriteFile(w.file("watched.crl"), whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
}

// look notes the most that the process has used.
func (w *turnover) look(t *testing.T) {
	t.Helper()
	w.maps = max(w.maps, len(w.proc(t, "maps")))
	w.anonymous = max(w.anonymous, w.anonymousKiB(t))
}

// proc returns the lines of a file of the process.
func (w *turnover) proc(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", w.cmd.Process.Pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func (w *turnover) anonymousKiB(t *testing.T) (kib int) {
	t.Helper()
	for _, line := range w.proc(t, "status") {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			if _, err := fmt.Sscan(value, &kib); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kib
}

// footprint is what the process holds when nothing happens.
type footprint struct {
	held
	Mappings, Lists int // mappings in all, and of lists
	Anonymous       int // KiB
	Copies          int // files in the folder of lists
}

func (w *turnover) footprint(t *testing.T) (f footprint) {
	t.Helper()
	waitUntil(t, "every connection is over", func() bool { return w.metric("sekisho_connections") == "0" })
	for range 3 { // a collection finds what nobody uses; what is behind it goes after that
		time.Sleep(time.Second)
		resp, err := w.control.Get("http://control/")
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(resp.Body).Decode(&f.held)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	folder := filepath.Join(w.process.dir, "revocation")
	for _, line := range w.proc(t, "maps") {
		f.Mappings++
		if strings.Contains(line, folder) {
			f.Lists++
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	f.Anonymous, f.Copies = w.anonymousKiB(t), len(files)
	return f
}

// compare demands that a process has not grown.
func (before footprint) compare(t *testing.T, after footprint) {
	t.Helper()
	grew := func(what string, before, after, margin int) {
		t.Helper()
		if after > before+margin {
			t.Errorf("%s: %d after the first turns, %d after all of them; want at most %d more", what, before, after, margin)
		}
	}
	grew("goroutines", before.Goroutines, after.Goroutines, 4)
	grew("descriptors", before.Descriptors, after.Descriptors, 8)
	grew("mappings of lists", before.Lists, after.Lists, 0)
	grew("files in the folder of lists", before.Copies, after.Copies, 0)
	// The latest 1,024 refusals are remembered, a few KiB each, and 16,384 verified paths, 0.1 KiB each, of trust that was, too.
	grew("live heap, KiB", int(before.Heap>>10), int(after.Heap>>10), 6<<10)
	if !raceEnabled { // its shadow memory is mapped, and kept
		grew("mappings", before.Mappings, after.Mappings, 16)
		grew("RSS, KiB", int(before.RSS>>10), int(after.RSS>>10), 24<<10)
		grew("anonymous memory, KiB", before.Anonymous, after.Anonymous, 24<<10)
	}
}

// answered is what came of one connection with one request.
type answered struct {
	status  int // 0: the connection was closed in due form before an answer
	resumed bool
}

// exchangeOnce makes a connection and one request on it.
func exchangeOnce(address string, config *tls.Config) (answered, error) {
	raw, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return answered{}, err
	}
	conn := tls.Client(raw, config)
	defer conn.Close()
	if err := raw.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return answered{}, err
	}
	if _, err := fmt.Fprintf(conn, "GET /hello HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", config.ServerName); err != nil {
		return answered{}, err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return answered{}, fmt.Errorf("after %d octets: %w", len(answer), err)
	}
	a := answered{resumed: conn.ConnectionState().DidResume}
	if len(answer) == 0 {
		return a, nil
	}
	_, err = fmt.Sscanf(string(answer), "HTTP/1.1 %d", &a.status)
	return a, err
}

// crowd is clients that come without pause.
type crowd struct {
	w                             *turnover
	wait                          sync.WaitGroup
	full, resumed, kept           atomic.Int64 // answers 200 to good clients
	refused, cut, through         atomic.Int64 // answers 403 to revoked ones, their connections that were cut first, answers 200
	mu                            sync.Mutex
	failures                      []string // the first ones
	failed                        int
	goodSessions, revokedSessions map[string]*tls.Config
}

func newCrowd(w *turnover) *crowd {
	c := &crowd{w: w, goodSessions: map[string]*tls.Config{}, revokedSessions: map[string]*tls.Config{}}
	for _, p := range []*partner{w.watched, w.sets, w.turned} {
		c.goodSessions[p.name], c.revokedSessions[p.name] = c.config(p, p.good), c.config(p, p.revoked)
		c.goodSessions[p.name].ClientSessionCache = tls.NewLRUClientSessionCache(4)
		c.revokedSessions[p.name].ClientSessionCache = tls.NewLRUClientSessionCache(4)
	}
	return c
}

func (c *crowd) config(p *partner, leaf testpki.Leaf) *tls.Config {
	config := c.w.tlsConfig(leaf.TLS())
	config.NextProtos = []string{"http/1.1"}
	if p != c.w.turned {
		config.ServerName = steadyHost
	}
	return config
}

func (c *crowd) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed++; len(c.failures) < 10 {
		c.failures = append(c.failures, fmt.Sprintf(format, args...))
	}
}

// begin has nine good clients and two revoked ones come until ctx ends; wait is for them to be gone.
func (c *crowd) begin(ctx context.Context) {
	for _, p := range []*partner{c.w.watched, c.w.sets, c.w.turned} {
		c.wait.Go(func() { c.good(ctx, p.name+" in full", c.config(p, p.good)) })
		c.wait.Go(func() { c.good(ctx, p.name+" with a session", c.goodSessions[p.name]) })
		c.wait.Go(func() { c.stay(ctx, p) })
	}
	c.wait.Go(func() {
		full := make(map[string]*tls.Config)
		for _, p := range []*partner{c.w.watched, c.w.sets, c.w.turned} {
			full[p.name] = c.config(p, p.revoked)
		}
		c.revoked(ctx, full)
	})
	c.wait.Go(func() { c.revoked(ctx, c.revokedSessions) })
}

// good makes connections that must be answered 200.
func (c *crowd) good(ctx context.Context, who string, config *tls.Config) {
	for ctx.Err() == nil {
		switch a, err := exchangeOnce(c.w.edgeAddress(), config); {
		case err != nil || a.status != http.StatusOK:
			c.fail("a good client of %s: %d %v", who, a.status, err)
		case a.resumed:
			c.resumed.Add(1)
		default:
			c.full.Add(1)
		}
	}
}

// stay makes requests on one connection, which must not be closed.
func (c *crowd) stay(ctx context.Context, p *partner) {
	config := c.config(p, p.good)
	conn, err := tls.Dial("tcp", c.w.edgeAddress(), config)
	if err != nil {
		c.fail("%s on a kept connection: %v", p.name, err)
		return
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for n := 0; ctx.Err() == nil; n++ {
		if err := requestOn(conn, r, config.ServerName); err != nil {
			c.fail("%s on a kept connection after %d requests: %v", p.name, n, err)
			return
		}
		c.kept.Add(1)
		time.Sleep(time.Millisecond) // leave the processors to those that make handshakes
	}
}

// requestOn makes one request on a connection that stays open.
func requestOn(conn net.Conn, r *bufio.Reader, host string) error {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET /hello HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || resp.Close {
		return fmt.Errorf("%s, close %v", resp.Status, resp.Close)
	}
	return nil
}

// revoked makes connections that must be answered 403, or cut by the reload before they are.
func (c *crowd) revoked(ctx context.Context, configs map[string]*tls.Config) {
	for ctx.Err() == nil {
		for name, config := range configs {
			switch a, err := exchangeOnce(c.w.edgeAddress(), config); {
			case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE): // as a cut ends a connection that is being answered, or asked
				c.cut.Add(1)
			case err != nil:
				c.fail("the revoked client of %s: %v", name, err)
			case a.status == http.StatusOK:
				c.through.Add(1)
			case a.status == http.StatusForbidden:
				c.refused.Add(1)
			case a.status == 0:
				c.cut.Add(1)
			default:
				c.fail("the revoked client of %s: %d", name, a.status)
			}
		}
	}
}

// TestInvariant01And06ReloadsUnderLoad reloads trust and lists again and again while clients come without pause: no good
// one is refused or cut, no revoked one gets in, what is broken changes nothing, and the process does not grow.
// SEKISHO_LONG=1 takes 1,000 reloads.
func TestInvariant01And06ReloadsUnderLoad(t *testing.T) {
	first, turns := 8, 40 // by four: visiting is there whenever a footprint is taken
	if long() {
		first, turns = 52, 1000
	}
	w := newTurnover(t)
	c := newCrowd(w)
	under := func(from, to int) time.Duration {
		ctx, cancel := context.WithCancel(t.Context())
		defer c.wait.Wait() // also when a turn ends the test
		defer cancel()
		c.begin(ctx)
		begin := time.Now()
		for turn := from; turn < to; turn++ {
			w.bulk.whole = turn == to-1
			w.turn(t, turn)
		}
		return time.Since(begin)
	}
	under(1, first+1)
	before := w.footprint(t)
	took := under(first+1, turns/2+1)
	between := w.footprint(t)
	took += under(turns/2+1, turns+1)
	after := w.footprint(t)
	t.Logf("%d reloads, %.1f a second; %d lists of 7,500 to 30,000 entries came into force; good clients: %d full handshakes, %d resumed, %d requests on 3 kept connections, %d failed; "+
		"revoked clients: %d refused, %d cut, %d through", turns, float64(turns-first)/took.Seconds(), strings.Count(w.log.String(), "CRL in force"),
		c.full.Load(), c.resumed.Load(), c.kept.Load(), c.failed, c.refused.Load(), c.cut.Load(), c.through.Load())
	t.Logf("after %d reloads %+v, after %d %+v, after %d %+v; under load at most %d mappings, %d KiB anonymous",
		first, before, turns/2, between, turns, after, w.maps, w.anonymous)
	t.Logf("connections cut: %s", strings.Join(w.metricLines(t, "sekisho_connections_cut_total"), ", "))
	if c.failed > 0 {
		t.Errorf("%d failures, of which\n%s", c.failed, strings.Join(c.failures, "\n"))
	}
	if n := c.through.Load(); n > 0 {
		t.Errorf("a revoked client got through %d times", n)
	}
	if c.full.Load() == 0 || c.resumed.Load() == 0 || c.kept.Load() == 0 || c.refused.Load() == 0 {
		t.Error("a kind of client never came")
	}
	before.compare(t, after)
	w.stillWatches(t, turns+1)
	w.stop()
	for _, word := range []string{"panic", "fatal error", "SIGBUS", "unexpected fault address", "DATA RACE"} {
		if strings.Contains(w.log.String(), word) {
			t.Errorf("the log tells of a %q\n%s", word, w.log)
		}
	}
}

// metricLines are the metrics of a name with their labels.
func (w *turnover) metricLines(t *testing.T, name string) (lines []string) {
	t.Helper()
	resp, err := http.Get(w.ready.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if strings.HasPrefix(line, name+"{") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// stillWatches demands that the files are watched still: who is good until now is refused soon after they say so.
func (w *turnover) stillWatches(t *testing.T, number int) {
	t.Helper()
	inPlace(t, w.file("watched.crl"), w.bulk.crl(t, w.watched.CA, number, w.watched.good))
	inPlace(t, w.file("sets.raw"), w.bulk.set(w.sets.CA, number, w.sets.good))
	for _, p := range []*partner{w.watched, w.sets} {
		config := w.tlsConfig(p.good.TLS())
		config.ServerName = steadyHost
		waitUntil(t, "what "+p.name+" says at last is in force", func() bool {
			a, err := exchangeOnce(w.edgeAddress(), config)
			return err == nil && a.status == http.StatusForbidden
		})
	}
}
