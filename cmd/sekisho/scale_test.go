package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// scale is a server with a long history, and the certificates that are there to be revoked.
type scale struct {
	t       *testing.T
	dir     string
	args    []string
	bulk    history
	crowded float64
	ca      string // id of the issuing CA
	shards  int

	unused        []issued
	revoked, good tls.Certificate
	count         int // revoked certificates in all
}

// issued is a certificate that the API issued.
type issued struct {
	id     string
	serial *big.Int
}

func (c issued) shard(shards int) int {
	return int(new(big.Int).And(c.serial, big.NewInt(0xffff)).Int64()) % shards
}

// TestScale measures what a server costs that has revoked 1,000,000 of 5,000,000 certificates, beside one that has none
// (SEKISHO_LONG=1, and 15 GB below TMPDIR; 2,000 of 10,000 otherwise): a revocation and the lists that tell of it, the
// start after a stop and after kill -9, memory, disk.
func TestScale(t *testing.T) {
	s := &scale{t: t, dir: t.TempDir(), bulk: history{issued: 10_000, revoked: 2_000}, shards: 16}
	compared, one, many, streamed := 10, 200, 10, 20
	if long() {
		s.bulk = history{issued: 5_000_000, revoked: 1_000_000}
		compared, one, many, streamed = 200, 1000, 250, 100
	}
	s.args = scaleArgs(t, s.dir)
	s.prepare(compared + one + 4*many + 2*streamed + 20)
	p := s.first()
	p.stop()

	p = s.start("after an ordinary stop", true)
	s.compare(p, compared)
	s.revoke(p, "one client", 1, one)
	s.revoke(p, "four clients", 4, many)
	s.disk(p)
	p.kill()

	p = s.start("after kill -9", false)
	s.whole(p)
	s.stream(p, streamed)
	p.stop()
	s.verify()
}

// scaleArgs are the arguments of a server on a fixed pki port, which stands in its lists.
func scaleArgs(t *testing.T, dir string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sekisho.yaml")
	config := fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:%s", metrics: "127.0.0.1:0"}
log: {access: "off"}
hosts:
  - {name: localhost, names: ["127.0.0.1"], default: true, echo: true, client_auth: {mode: require}}
`, freePort(t))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", file, "--data", dir}
}

// prepare has certificates issued and makes the history.
func (s *scale) prepare(n int) {
	s.t.Helper()
	p := start(s.t, s.dir, s.args...)
	s.ca = issuingCA(s.t, p)
	var id string
	s.revoked, id = p.issue("revoked")
	s.good, _ = p.issue("good")
	if status, env := p.api("DELETE", p.certificates()+"/"+id+"?reason=superseded", nil); status != http.StatusOK {
		s.t.Fatalf("revoke: %d %+v", status, env.Errors)
	}
	s.unused = issueMany(s.t, p, n)
	p.stop()
	begin := time.Now()
	before := sizes(s.t, s.dir)
	fillLedger(s.t, s.dir, s.bulk)
	s.count = s.bulk.revoked + 1
	after := sizes(s.t, s.dir)
	s.t.Logf("%d certificates, %d of them revoked, written in %v; a row with its indexes has %d bytes, a revocation in the journal %d (16 a commit)",
		s.bulk.issued, s.bulk.revoked, time.Since(begin).Round(time.Second),
		(after["database"]-before["database"])/int64(s.bulk.issued), (after["journal"]-before["journal"])/int64(s.bulk.revoked))
}

func issuingCA(t *testing.T, p *process) string {
	t.Helper()
	_, env := p.api("GET", "/sekisho/ca", nil)
	var cas []caView
	if err := json.Unmarshal(env.Result, &cas); err != nil {
		t.Fatal(err)
	}
	for _, c := range cas {
		if c.Name == "issuing" {
			return c.ID
		}
	}
	t.Fatalf("there is no issuing CA: %s", env.Result)
	return ""
}

// issueMany has certificates issued by several clients at once.
func issueMany(t *testing.T, p *process, n int) []issued {
	t.Helper()
	csr, _, err := makeCSR(issueFlags{subject: "CN=device", keyType: "ecdsa-p256"})
	if err != nil {
		t.Fatal(err)
	}
	out := make([]issued, n)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var group errgroup.Group
	group.SetLimit(8)
	for i := range out {
		group.Go(func() error {
			status, env, err := p.tryAPI(client, "POST", p.certificates(), map[string]any{"csr": string(csr), "validity_days": 30})
			if err != nil || status != http.StatusOK {
				return fmt.Errorf("issue: %d %+v: %w", status, env.Errors, err)
			}
			var c clientCertificate
			if err := json.Unmarshal(env.Result, &c); err != nil {
				return err
			}
			serial, ok := new(big.Int).SetString(c.Serial, 16)
			if !ok {
				return fmt.Errorf("serial number %q", c.Serial)
			}
			out[i] = issued{c.ID, serial}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return out
}

// take takes certificates that nobody has revoked.
func (s *scale) take(n int) []issued {
	s.t.Helper()
	if n > len(s.unused) {
		s.t.Fatalf("%d certificates are left, %d are wanted", len(s.unused), n)
	}
	taken := s.unused[:n]
	s.unused = s.unused[n:]
	return taken
}

// first is the start that finds a directory of other lists and makes all of them anew.
func (s *scale) first() *process {
	s.t.Helper()
	s.crowded = crowding(s.t)
	begin := time.Now()
	p := start(s.t, s.dir, s.args...)
	s.t.Logf("first start: ready after %v, %v", time.Since(begin).Round(time.Millisecond), p.usage())
	s.published(p)
	s.t.Logf("first start: every list made and written after %v, %v", time.Since(begin).Round(time.Millisecond), p.usage())
	return p
}

// start starts the server and demands that it is ready soon and forgets nobody. The lists are those of before: with same
// set, nothing is signed.
func (s *scale) start(how string, same bool) *process {
	s.t.Helper()
	s.crowded = crowding(s.t)
	begin := time.Now()
	p := start(s.t, s.dir, s.args...)
	ready, used := time.Since(begin), p.usage()
	expectAnswer(s.t, p, p.tlsConfig(s.revoked), http.StatusForbidden, "client certificate was revoked")
	expectAnswer(s.t, p, p.tlsConfig(s.good), http.StatusOK, "Hello World")
	if got := p.metric("sekisho_revoked_certificates"); got != metricOf(s.count) {
		s.t.Errorf("%s: %s revoked certificates are known, want %d", how, got, s.count)
	}
	s.t.Logf("%s: ready after %v on a machine crowded %.1f-fold, %v", how, ready.Round(time.Millisecond), s.crowded, used)
	within(s.t, how+": ready", ready, 2*time.Second, s.crowded)
	s.published(p)
	s.t.Logf("%s: every list is there %v after exec, %v", how, time.Since(begin).Round(time.Millisecond), p.usage())
	if signed := strings.Count(p.log.String(), `msg="CRL published" ca=issuing`); same && signed > 0 {
		s.t.Errorf("%s: %d lists were signed although nothing had changed\n%s", how, signed, p.log)
	}
	return p
}

// metricOf is a number as Prometheus writes it.
func metricOf(n int) string { return strconv.FormatFloat(float64(n), 'g', -1, 64) }

// published waits until every list of the issuing CA is served and on disk.
func (s *scale) published(p *process) {
	s.t.Helper()
	names := []string{s.ca + ".crl"}
	for n := range s.shards {
		names = append(names, fmt.Sprintf("%s/%d.crl", s.ca, n), fmt.Sprintf("%s/%d-delta.crl", s.ca, n))
	}
	deadline := time.Now().Add(2 * time.Minute)
	for _, name := range names {
		for !s.onDisk(p, name) {
			if time.Now().After(deadline) {
				s.t.Fatalf("%s is not on disk as it is served after two minutes\n%s", name, p.log)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (s *scale) onDisk(p *process, name string) bool {
	tag, length, err := headCRL(p, name)
	if err != nil || tag == "" {
		return false
	}
	info, err := os.Stat(filepath.Join(s.dir, "crl", name))
	return err == nil && info.Size() == length
}

// headCRL asks for the tag and the length of a list.
func headCRL(p *process, name string) (tag string, length int64, err error) {
	resp, err := http.Head(p.ready.PKI + "/crl/" + name)
	if err != nil {
		return "", 0, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", 0, errors.New(resp.Status)
	}
	return resp.Header.Get("ETag"), resp.ContentLength, nil
}

// getCRL fetches a list as it is, not compressed.
func getCRL(ctx context.Context, p *process, name string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", p.ready.PKI+"/crl/"+name, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return body, err
}

// revokeOne revokes by the API and returns how long the answer took.
func revokeOne(p *process, client *http.Client, id string) (time.Duration, error) {
	begin := time.Now()
	status, env, err := p.tryAPI(client, "DELETE", p.certificates()+"/"+id+"?reason=superseded", nil)
	took := time.Since(begin)
	if err != nil || status != http.StatusOK {
		return took, fmt.Errorf("revoke %s: %d %+v: %w", id, status, env.Errors, err)
	}
	return took, nil
}

// revoke has clients revoke n certificates each, one after another.
func (s *scale) revoke(p *process, how string, clients, n int) {
	s.t.Helper()
	s.crowded = crowding(s.t)
	before := p.usage()
	begin := time.Now()
	var mu sync.Mutex
	var all sample
	var group errgroup.Group
	for range clients {
		batch := s.take(n)
		group.Go(func() error {
			client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
			defer client.CloseIdleConnections()
			for _, c := range batch {
				took, err := revokeOne(p, client, c.id)
				if err != nil {
					return err
				}
				mu.Lock()
				all = append(all, took)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		s.t.Fatalf("%v\n%s", err, p.log)
	}
	took := time.Since(begin)
	s.count += clients * n
	used := p.usage().cpu - before.cpu
	s.t.Logf("revoke, %s: %v; %.0f a second, %v CPU each with the lists; crowded %.1f-fold", how, all,
		float64(len(all))/took.Seconds(), (used / time.Duration(len(all))).Round(10*time.Microsecond), s.crowded)
	if clients > 1 {
		return
	}
	if now := max(s.crowded, crowding(s.t)); now > 1.3 {
		s.t.Logf("revoke, p99: not judged, because others use this machine (crowded %.1f-fold): who waits for a processor waits for whole slices", now)
		return
	}
	within(s.t, "revoke, p99", all.percentile(99), 20*time.Millisecond, s.crowded)
}

// compare revokes alternately on a server without a history and on this one, so that both have the same machine.
func (s *scale) compare(p *process, n int) {
	s.t.Helper()
	dir := s.t.TempDir()
	empty := start(s.t, dir, scaleArgs(s.t, dir)...)
	defer empty.stop()
	sides := [2]struct {
		p       *process
		ca      string
		batch   []issued
		answers sample // of the API
		full    sample // until the shard's list tells
		delta   sample
	}{{p: empty, ca: issuingCA(s.t, empty), batch: issueMany(s.t, empty, n)}, {p: p, ca: s.ca, batch: s.take(n)}}
	for i := range n {
		for side := range sides {
			x := &sides[side]
			answer, full, delta := s.revokeAndLook(x.p, x.ca, x.batch[i])
			x.answers, x.full, x.delta = append(x.answers, answer), append(x.full, full), append(x.delta, delta)
		}
	}
	s.count += n
	for side, name := range []string{"empty store", "full store"} {
		x := sides[side]
		s.t.Logf("%s: answer %v\n  in the shard's list %v\n  in its delta %v", name, x.answers, x.full, x.delta)
	}
	small, large := sides[0].answers, sides[1].answers
	ratio := float64(large.percentile(50)) / float64(small.percentile(50))
	s.t.Logf("the median answer of the full store takes %.2f times as long, the p99 %.2f times", ratio,
		float64(large.percentile(99))/float64(small.percentile(99)))
	if ratio > 1.5 && n >= 100 && !raceEnabled {
		s.t.Errorf("a revocation on the full store takes %.2f times as long as on an empty one, want at most 1.5 times", ratio)
	}
}

// revokeAndLook revokes and returns when the answer came, and when list and delta of the shard told of it.
func (s *scale) revokeAndLook(p *process, caID string, c issued) (answer, full, delta time.Duration) {
	s.t.Helper()
	name := fmt.Sprintf("%s/%d", caID, c.shard(s.shards))
	before, _, err := headCRL(p, name+".crl")
	if err != nil {
		s.t.Fatalf("%v\n%s", err, p.log)
	}
	entry, err := asn1.Marshal(c.serial)
	if err != nil {
		s.t.Fatal(err)
	}
	begin := time.Now()
	if answer, err = revokeOne(p, http.DefaultClient, c.id); err != nil {
		s.t.Fatalf("%v\n%s", err, p.log)
	}
	for full == 0 || delta == 0 {
		tag, _, err := headCRL(p, name+".crl")
		if err != nil {
			s.t.Fatal(err)
		}
		seen := time.Since(begin)
		if seen > 30*time.Second {
			s.t.Fatalf("no list tells of serial %x after 30 s\n%s", c.serial, p.log)
		}
		if tag == before {
			time.Sleep(time.Millisecond)
			continue
		}
		before = tag // another shard's change, when it is not in there
		if list, err := getCRL(s.t.Context(), p, name+".crl"); err != nil {
			s.t.Fatal(err)
		} else if full == 0 && bytes.Contains(list, entry) {
			full = seen
		}
		seen = time.Since(begin)
		if list, err := getCRL(s.t.Context(), p, name+"-delta.crl"); err != nil {
			s.t.Fatal(err)
		} else if delta == 0 && bytes.Contains(list, entry) {
			delta = seen
		}
	}
	return answer, full, delta
}
