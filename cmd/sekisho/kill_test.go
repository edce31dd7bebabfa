package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestInvariant08KillNineLosesNothingAcknowledged ends the server with kill -9 at random moments while clients issue,
// revoke, hold and reactivate, and compares what the next start has with what the clients were told.
// SEKISHO_LONG=1 kills 100 times.
func TestInvariant08KillNineLosesNothingAcknowledged(t *testing.T) {
	kills := 6
	if long() {
		kills = 100
	}
	dir := t.TempDir()
	j := &journal{certs: make(map[string]*entry), audit: newAuditTrail()}
	slowest := time.Duration(0)
	for n := range kills {
		begin := time.Now()
		p := startDev(t, dir)
		slowest = max(slowest, time.Since(begin))
		j.compare(t, p)
		changes := j.changes
		load := j.load(p)
		waitUntil(t, "a change is acknowledged", func() (more bool) { // or there is nothing to lose yet, on a busy machine
			j.note(func() { more = j.changes > changes })
			return more
		})
		time.Sleep(rand.N(230 * time.Millisecond))
		p.kill()
		load.Wait()
		if stdout, stderr, code := sekisho(t, "", "store", "verify", "--data", dir); code != exitOK {
			t.Errorf("store verify after kill %d: exit %d\n%s%s", n, code, stdout, stderr)
		}
		if n%5 == 4 {
			killDuringStart(t, dir)
		}
	}
	p := startDev(t, dir)
	j.compare(t, p)
	p.kill() // with nothing to do
	stdout, stderr, code := sekisho(t, "", "store", "verify", "--data", dir)
	if code != exitOK {
		t.Errorf("store verify: exit %d\n%s%s", code, stdout, stderr)
	}
	t.Logf("%d kills: %d issues and %d other changes acknowledged, %d calls without an answer; CRL number %d, %d audit records, slowest start %v",
		kills, len(j.certs), j.changes, j.unanswered, j.crlNumber.Load(), j.audit.last.Seq, slowest.Round(time.Millisecond))
	if len(j.certs) == 0 || j.changes == 0 || j.unanswered == 0 {
		t.Error("the load did not do what it should")
	}
}

// journal is what the clients were told.
type journal struct {
	crlNumber atomic.Int64 // the highest ever seen
	audit     *auditTrail

	mu         sync.Mutex
	certs      map[string]*entry // by id
	changes    int
	unanswered int
}

// entry is one acknowledged certificate.
type entry struct {
	der    string
	serial string
	states []string // what it may be in: more than one when a change had no answer
}

// states of a certificate, as status and reason of the API.
const (
	stateActive  = "active"
	stateHeld    = "revoked certificateHold"
	stateRevoked = "revoked superseded"
)

// load has clients change certificates until the server is gone.
func (j *journal) load(p *process) *sync.WaitGroup {
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
			defer client.CloseIdleConnections()
			csr, _, err := makeCSR(issueFlags{subject: "CN=load", keyType: "ecdsa-p256"})
			if err != nil {
				p.t.Error(err)
				return
			}
			own := []string{}
			for j.step(p, client, string(csr), &own) {
			}
		})
	}
	wait.Go(func() {
		for {
			if _, err := j.readCRL(p); err != nil {
				return
			}
		}
	})
	return &wait
}

// step is one call and its note in the journal; false when the server did not answer.
func (j *journal) step(p *process, client *http.Client, csr string, own *[]string) bool {
	if len(*own) == 0 || rand.N(5) < 2 {
		status, env, err := p.tryAPI(client, "POST", p.certificates(), map[string]any{"csr": csr, "validity_days": 30})
		if err != nil {
			j.note(func() { j.unanswered++ })
			return false
		}
		var c clientCertificate
		if err := json.Unmarshal(env.Result, &c); err != nil || status != http.StatusOK {
			p.t.Errorf("issue: %d %+v %v", status, env.Errors, err)
			return false
		}
		*own = append(*own, c.ID)
		j.note(func() { j.certs[c.ID] = &entry{der: c.Certificate, serial: c.Serial, states: []string{stateActive}} })
		return true
	}
	i := rand.N(len(*own))
	id := (*own)[i]
	var e *entry
	j.note(func() { e = j.certs[id] })
	method, path, to, body := "PATCH", p.certificates()+"/"+id, stateActive, any(map[string]bool{"reactivate": true})
	if e.states[0] == stateActive {
		method, to, body = "DELETE", stateHeld, nil
		if rand.N(2) == 0 {
			path, to = path+"?reason=superseded", stateRevoked
		}
	}
	status, env, err := p.tryAPI(client, method, path, body)
	switch {
	case err != nil:
		j.note(func() { e.states = append(e.states, to); j.unanswered++ })
		return false
	case status != http.StatusOK:
		p.t.Errorf("%s %s: %d %+v", method, path, status, env.Errors)
		return false
	}
	if to == stateRevoked { // nothing leads on from here
		*own = append((*own)[:i], (*own)[i+1:]...)
	}
	j.note(func() { e.states = []string{to}; j.changes++ })
	return true
}

func (j *journal) note(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
}

// compare demands that the server has everything in the journal, and that what it has fits together.
func (j *journal) compare(t *testing.T, p *process) {
	t.Helper()
	revoked, active, seen := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	for _, c := range everyCertificate(t, p) {
		cert := parsePEM(t, c.Certificate)
		if got := fmt.Sprintf("%x", cert.SerialNumber); strings.TrimLeft(c.Serial, "0") != got {
			t.Errorf("certificate %s: serial %s in the ledger, %s in the certificate", c.ID, c.Serial, got)
		}
		seen[c.ID] = true
		state := strings.TrimSpace(c.Status + " " + c.Reason)
		(map[bool]map[string]bool{true: active, false: revoked})[state == stateActive][cert.SerialNumber.String()] = true
		e := j.certs[c.ID]
		if e == nil {
			continue // made, but the answer did not arrive; or the house's own
		}
		if e.der != c.Certificate || e.serial != c.Serial {
			t.Errorf("certificate %s is not the one that was handed out", c.ID)
		}
		if !strings.Contains(strings.Join(e.states, "|"), state) {
			t.Errorf("certificate %s is %q after the restart, acknowledged was %q", c.ID, state, e.states)
		}
		e.states = []string{state}
	}
	for id := range j.certs {
		if !seen[id] {
			t.Errorf("certificate %s was acknowledged and is not in the ledger", id)
		}
	}
	crl, err := j.readCRL(p)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	for _, e := range crl.RevokedCertificateEntries {
		if active[e.SerialNumber.String()] {
			t.Errorf("the CRL lists %x, which is active", e.SerialNumber)
		}
		delete(revoked, e.SerialNumber.String())
	}
	if len(revoked) > 0 {
		t.Errorf("the CRL number %v lacks %d revoked certificates", crl.Number, len(revoked))
	}
	j.audit.read(t, p, j.certs)
}

// ledgerRow is a certificate with the reason of its revocation.
type ledgerRow struct {
	ID          string `json:"id"`
	Certificate string `json:"certificate"`
	Serial      string `json:"serial_number"`
	Status      string `json:"status"`
	Reason      string `json:"revocation_reason"`
}

func everyCertificate(t *testing.T, p *process) (all []ledgerRow) {
	t.Helper()
	for page := 1; ; page++ {
		status, env := p.api("GET", fmt.Sprintf("%s?status=all&per_page=1000&page=%d", p.certificates(), page), nil)
		var rows []ledgerRow
		if err := json.Unmarshal(env.Result, &rows); err != nil || status != http.StatusOK {
			t.Fatalf("list: %d %+v %v", status, env.Errors, err)
		}
		all = append(all, rows...)
		if page >= env.ResultInfo.TotalPages {
			return all
		}
	}
}

// readCRL fetches the issuing CA's CRL from the pki listener, and demands that its number never falls.
func (j *journal) readCRL(p *process) (*x509.RevocationList, error) {
	before := j.crlNumber.Load()
	der, err := fetchCRL(p)
	if err != nil {
		return nil, err
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		p.t.Error(err)
		return nil, err
	}
	number := crl.Number.Int64()
	if number < before {
		p.t.Errorf("the CRL number fell from %d to %d", before, number)
	}
	for seen := j.crlNumber.Load(); number > seen && !j.crlNumber.CompareAndSwap(seen, number); seen = j.crlNumber.Load() {
	}
	return crl, nil
}

// fetchCRL gets the CRL of the issuing CA as the certificates name it, on the port the listener has now.
func fetchCRL(p *process) ([]byte, error) {
	_, env, err := p.tryAPI(http.DefaultClient, "GET", "/sekisho/ca", nil)
	if err != nil {
		return nil, err
	}
	var cas []caView
	if err := json.Unmarshal(env.Result, &cas); err != nil {
		return nil, err
	}
	for _, c := range cas {
		if c.Name != "issuing" {
			continue
		}
		u, err := url.Parse(c.CRL)
		if err != nil {
			return nil, err
		}
		resp, err := http.Get(p.ready.PKI + u.Path)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, errors.New(resp.Status)
		}
		return io.ReadAll(resp.Body)
	}
	return nil, errors.New("no issuing CA")
}
