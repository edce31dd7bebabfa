package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// walkPKI is what the certificates of the walk name. The test goes to the port that the listener has now.
	walkPKI = "http://pki.example.com"
	// walkShards is how many lists the certificates of a CA are spread over.
	walkShards = 4
)

// TestInvariant01And08RandomWalk changes certificates at random, restarts, kills and restores the server, and rotates its
// CA. After each step openssl verify (by the newest list and by an old one with the newest delta), openssl ocsp, ocsptool,
// the edge and the API must say of the certificate that was touched, and of another one, what a model of a few lines says.
// Numbers of lists never fall. It prints its seed; SEKISHO_SEED repeats the steps, with other keys and serial numbers.
// SEKISHO_LONG=1 takes 10,000 steps.
func TestInvariant01And08RandomWalk(t *testing.T) {
	steps, rest := 150, 50
	if long() {
		steps, rest = 10_000, 500
	}
	w := newWalker(t)
	begin := time.Now()
	for w.step = 1; w.step <= steps; w.step++ {
		touched := w.deal()
		if other := w.pick(func(*walked) bool { return true }); other != nil {
			touched = append(touched, other)
		}
		for _, c := range touched {
			w.judge(c)
		}
		if w.step%rest == 0 || w.step == steps {
			w.judgeAll()
		}
	}
	w.stop()
	t.Logf("seed %d: %d steps in %v with %d certificates of %d CAs: %s; %d judgements, the slowest list %v after the answer; bases of deltas moved on %d times",
		w.seed, steps, time.Since(begin).Round(time.Second), len(w.certs), len(w.cas), w.played(), w.judgements, w.slowest.Round(time.Millisecond), w.moved)
	for _, c := range w.cards {
		if w.count[c.name] == 0 {
			t.Errorf("no step of the walk was %q", c.name)
		}
	}
}

// walker is the server, the model of it and the dice.
type walker struct {
	t      *testing.T
	p      *process
	config string // file
	data   string // directory
	dir    string // what is kept when the walk fails: the data directory, certificates and lists
	seed   uint64
	dice   *rand.Rand // decides on steps, and on nothing that depends on time, so that the seed repeats them
	chance *rand.Rand // decides on how the judges are asked
	step   int

	cards  []card
	deck   []card
	count  map[string]int // steps by name
	lists  map[string]*listHistory
	cas    []walkCA
	certs  []*walked
	copies []walkCopy // of the database

	judgements int
	slowest    time.Duration
	moved      int // bases of deltas
}

// walked is a certificate in the model.
type walked struct {
	id, serial string
	pair       tls.Certificate
	csr        string
	file       string // PEM
	list       string // path of its CRL on the pki listener
	issuer     string // PEM file
	reason     string // why it is revoked; empty: active
	lost       bool   // the ledger does not know it: issued after the copy that was put back, and untouched since
	changed    bool   // there was a transition, which the journal has
	shortLived bool
	history    []string
	conn       *keptConn // nil: none
	sessions   tls.ClientSessionCache
}

func (c *walked) cert() *x509.Certificate { return c.pair.Leaf }

// onHold, final and active are the states of the model.
func (c *walked) onHold() bool { return c.reason == "certificateHold" }
func (c *walked) active() bool { return c.reason == "" }
func (c *walked) final() bool  { return !c.active() && !c.onHold() }

// walkCA is an issuing CA as the judges need it.
type walkCA struct {
	view caView
	cert *x509.Certificate
	file string // PEM
}

// walkCopy is a copy of the database.
type walkCopy struct {
	path  string
	knows map[string]bool // ids of certificates
}

func newWalker(t *testing.T) *walker {
	seed := rand.Uint64()
	if text := os.Getenv("SEKISHO_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SEKISHO_SEED: %v", err)
		}
	}
	dir, err := os.MkdirTemp("", "sekisho-walk-")
	if err != nil {
		t.Fatal(err)
	}
	w := &walker{
		t: t, dir: dir, data: filepath.Join(dir, "data"), config: filepath.Join(dir, "sekisho.yaml"), seed: seed,
		dice: rand.New(rand.NewPCG(seed, 0)), chance: rand.New(rand.NewPCG(seed, 1)), count: make(map[string]int), lists: make(map[string]*listHistory),
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.explainFailure()
			return
		}
		_ = os.RemoveAll(dir)
	})
	config := fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
log: {access: "off"}
limits: {handshakes_per_ip: 5000, idle_timeout: 1h}
pki: {url: %q, shards: %d, crl_lifetime: 10m, crl_overlap: 9m} # a walk of many minutes sees bases move
hosts:
  - {name: localhost, names: ["127.0.0.1"], default: true, echo: true, client_auth: {mode: require}}
`, walkPKI, walkShards)
	w.write(w.config, config)
	for _, sub := range []string{"certs", "lists", "copies"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.cards = walkCards()
	w.start()
	return w
}

// explainFailure says how to come back to what went wrong.
func (w *walker) explainFailure() {
	log := filepath.Join(w.dir, "server.log")
	if w.p != nil { // else it never started, and has said why
		_ = os.WriteFile(log, []byte(w.p.log.String()), 0o600)
	}
	w.t.Logf("SEKISHO_SEED=%d, step %d; everything is in %s, the log of the server in %s", w.seed, w.step, w.dir, log)
}

// fail ends the walk over a certificate.
func (w *walker) fail(c *walked, format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d, step %d, certificate %s (serial %s, %s, %s):\n%s\nits steps:\n  %s",
		w.seed, w.step, c.id, c.serial, c.file, c.list, fmt.Sprintf(format, args...), strings.Join(c.history, "\n  "))
}

// note writes a step into the history of a certificate.
func (w *walker) note(c *walked, format string, args ...any) {
	c.history = append(c.history, fmt.Sprintf("%5d %s ", w.step, time.Now().Format("15:04:05.000"))+fmt.Sprintf(format, args...))
}

// start starts the server and learns what CAs it has.
func (w *walker) start() {
	w.t.Helper()
	w.p = start(w.t, w.data, "--config", w.config, "--data", w.data)
	w.learnCAs()
}

// end ends the server, with SIGTERM or with kill -9, and with it every connection.
func (w *walker) end(kill bool) {
	w.t.Helper()
	for _, c := range w.certs {
		c.drop()
	}
	if kill {
		w.p.kill()
	} else {
		w.p.stop()
	}
}

func (w *walker) stop() { w.end(false) }

// learnCAs writes roots.pem and between.pem, the CAs that are trusted and the others, and one file for each.
func (w *walker) learnCAs() {
	w.t.Helper()
	w.cas = nil
	var roots, between, names strings.Builder
	for _, view := range w.p.authorities() {
		ca := walkCA{view: view, cert: parsePEM(w.t, view.Certificate), file: filepath.Join(w.dir, "ca-"+view.ID+".pem")}
		w.write(ca.file, view.Certificate)
		names.WriteString(view.Certificate)
		if string(ca.cert.RawIssuer) == string(ca.cert.RawSubject) {
			roots.WriteString(view.Certificate)
			continue
		}
		between.WriteString(view.Certificate)
		w.cas = append(w.cas, ca)
	}
	w.write(w.roots(), roots.String())
	w.write(w.between(), between.String())
	w.write(w.everyCA(), names.String())
	// An old list of every shard is wanted later.
	slices.SortFunc(w.cas, func(a, b walkCA) int { return strings.Compare(a.view.ID, b.view.ID) })
	for _, ca := range w.cas {
		for shard := range walkShards {
			w.newest(ca.list(shard))
		}
		if _, err := fetch(w.p.ready.PKI + ca.list(walkShards)); err == nil {
			w.t.Fatalf("seed %d, step %d: the CA %s has more than %d lists", w.seed, w.step, ca.view.Name, walkShards)
		}
	}
}

// list is the path of a shard's list.
func (c walkCA) list(shard int) string { return fmt.Sprintf("/crl/%s/%d.crl", c.view.ID, shard) }

func (w *walker) roots() string   { return filepath.Join(w.dir, "roots.pem") }
func (w *walker) between() string { return filepath.Join(w.dir, "between.pem") }
func (w *walker) everyCA() string { return filepath.Join(w.dir, "cas.pem") }

func (w *walker) write(path, text string) {
	w.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// pick takes one of the certificates that fit, nil when none does.
func (w *walker) pick(fits func(*walked) bool) *walked {
	var all []*walked
	for _, c := range w.certs {
		if fits(c) {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[w.dice.IntN(len(all))]
}

// known is pick among the certificates that the ledger has.
func (w *walker) known(fits func(*walked) bool) *walked {
	return w.pick(func(c *walked) bool { return !c.lost && fits(c) })
}

// adopt makes a certificate that was issued one of the model.
func (w *walker) adopt(row clientCertificate, pair tls.Certificate, csr string) *walked {
	w.t.Helper()
	leaf := parsePEM(w.t, row.Certificate)
	pair.Leaf = leaf
	path, ok := strings.CutPrefix(leaf.CRLDistributionPoints[0], walkPKI)
	if !ok {
		w.t.Fatalf("certificate %s names %s", row.ID, leaf.CRLDistributionPoints[0])
	}
	c := &walked{
		id: row.ID, serial: row.Serial, pair: pair, csr: csr, file: filepath.Join(w.dir, "certs", row.ID+".pem"), list: path,
		sessions: sameKey{tls.NewLRUClientSessionCache(1)},
	}
	for _, ca := range w.cas {
		if string(ca.cert.SubjectKeyId) == string(leaf.AuthorityKeyId) {
			c.issuer = ca.file
		}
	}
	if c.issuer == "" {
		w.t.Fatalf("seed %d, step %d: certificate %s is of no CA that is known", w.seed, w.step, row.ID)
	}
	w.write(c.file, row.Certificate)
	w.certs = append(w.certs, c)
	return c
}

// call is a call of the API that must be answered with a status.
func (w *walker) call(c *walked, want int, method, path string, body any) envelope {
	w.t.Helper()
	status, env := w.p.api(method, path, body)
	if status != want {
		w.fail(c, "%s %s: %d %+v, want %d", method, path, status, env.Errors, want)
	}
	if want != http.StatusOK && len(env.Errors) == 0 {
		w.fail(c, "%s %s: %d without a word of why", method, path, status)
	}
	return env
}

// played is how often each step was made.
func (w *walker) played() string {
	var said []string
	for _, c := range w.cards {
		said = append(said, fmt.Sprintf("%d %s", w.count[c.name], c.name))
	}
	return strings.Join(said, ", ")
}
