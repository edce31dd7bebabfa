package main

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// Go's client sends tls.Certificate.OCSPStaple with its certificate in TLS 1.3, since crypto/tls's server asks for it in
// each CertificateRequest (RFC 8446, Section 4.4.2.1). TLS 1.2 has no place for it in the client's Certificate, and neither
// openssl s_client nor gnutls-cli has an option for it: Go is the only client here.

// staple is an answer about a certificate of o, signed by signer, which is o where it is nil. edit may change it.
func (o *outside) staple(leaf testpki.Leaf, signer *testpki.CA, edit func(*pkix.OCSPTemplate)) []byte {
	o.t.Helper()
	if signer == nil {
		signer = o.CA
	}
	now := time.Now()
	template := pkix.OCSPTemplate{Responder: signer.Cert, ProducedAt: now, Responses: []pkix.OCSPSingle{{
		ID:     pkix.NewOCSPCertID(crypto.SHA256, o.Cert, pkix.SerialOf(leaf.Cert.SerialNumber)),
		Status: pkix.OCSPGood, ThisUpdate: now.Add(-time.Second), NextUpdate: now.Add(time.Hour),
	}}}
	if edit != nil {
		edit(&template)
	}
	der, err := pkix.SignOCSP(template, signer.Key)
	if err != nil {
		o.t.Fatal(err)
	}
	return der
}

// stapling is the certificate with an answer to send along.
func stapling(leaf testpki.Leaf, answer []byte) tls.Certificate {
	c := leaf.TLS()
	c.OCSPStaple = answer
	return c
}

// stapleServer trusts o with a policy, and writes an access log to the file that it returns.
func stapleServer(o *outside, policy string) (p *process, access string) {
	o.t.Helper()
	dir := o.t.TempDir()
	certs, file := filepath.Join(dir, "outside.pem"), filepath.Join(dir, "sekisho.yaml")
	access = filepath.Join(dir, "access.log")
	config := fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
outbound: {allow: [127.0.0.0/8]}
log: {access: %q, format: json}
trust:
  - {name: outside, certs: %q, %s}
hosts:
  - name: localhost
    names: ["127.0.0.1"]
    default: true
    upstreams: [%q]
    client_auth: {mode: require, ca: [outside]}
`, access, certs, policy, newOrigin(o.t).url)
	for path, data := range map[string][]byte{certs: o.PEM, file: []byte(config)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			o.t.Fatal(err)
		}
	}
	return start(o.t, dir, "--config", file, "--data", filepath.Join(dir, "data")), access
}

// stapled is what the metrics count of answers that clients stapled.
func (p *process) stapled() string {
	const name = "sekisho_ocsp_questions_total"
	return p.metric(name+`{result="stapled"}`) + " used, " + p.metric(name+`{result="stapled_refused"}`) + " refused"
}

// stapleCase is an answer that a client staples, and what becomes of it.
type stapleCase struct {
	name   string
	policy string
	up     bool // the responder answers
	signer *testpki.CA
	edit   func(*pkix.OCSPTemplate)
	mangle func([]byte) []byte
	tls12  bool
	status int
	state  string // in explain, and in the access log of those let in
	counts string
}

func stapleCases(o *outside, other testpki.Leaf, stranger *testpki.CA) []stapleCase {
	const hard, soft, used, refused, unseen = "sources: [ocsp]", "sources: [ocsp], on_failure: soft", "1 used, 0 refused", "0 used, 1 refused", "0 used, 0 refused"
	const in, out = http.StatusOK, http.StatusForbidden
	single := func(f func(*pkix.OCSPSingle)) func(*pkix.OCSPTemplate) {
		return func(a *pkix.OCSPTemplate) { f(&a.Responses[0]) }
	}
	ended := func(ago time.Duration) func(*pkix.OCSPTemplate) {
		return single(func(s *pkix.OCSPSingle) {
			s.ThisUpdate, s.NextUpdate = time.Now().Add(-ago-time.Hour), time.Now().Add(-ago)
		})
	}
	revoked := single(func(s *pkix.OCSPSingle) {
		s.Status, s.RevokedAt, s.Reason = pkix.OCSPRevoked, time.Now().Add(-time.Minute), pkix.KeyCompromise
	})
	otherSerial := single(func(s *pkix.OCSPSingle) {
		s.ID = pkix.NewOCSPCertID(crypto.SHA256, o.Cert, pkix.SerialOf(other.Cert.SerialNumber))
	})
	flip := func(der []byte) []byte { der[len(der)-1] ^= 1; return der }
	return []stapleCase{
		{name: "good", policy: hard, status: in, state: "good", counts: used},
		{name: "revoked", policy: hard, edit: revoked, status: out, state: "revoked", counts: used},
		{name: "revoked, soft", policy: soft, edit: revoked, status: out, state: "revoked", counts: used},
		{name: "ended an hour ago", policy: hard, edit: ended(time.Hour), status: out, state: "unknown", counts: refused},
		{name: "ended a minute ago", policy: hard, edit: ended(time.Minute), status: out, state: "unknown", counts: refused},
		{name: "ended a minute ago, grace", policy: hard + ", grace: 1h", edit: ended(time.Minute), status: in, state: "good", counts: used},
		{name: "ended a minute ago, soft", policy: soft, edit: ended(time.Minute), status: in, state: "unknown", counts: refused},
		{name: "ended, the responder answers", policy: hard, up: true, edit: ended(time.Hour), status: in, state: "good", counts: refused},
		{name: "without an end, old", policy: hard, edit: single(func(s *pkix.OCSPSingle) {
			s.ThisUpdate, s.NextUpdate = time.Now().Add(-6*time.Minute), time.Time{}
		}), status: out, state: "unknown", counts: refused},
		{name: "for another serial", policy: hard, edit: otherSerial, status: out, state: "unknown", counts: refused},
		{name: "signature broken", policy: hard, mangle: flip, status: out, state: "unknown", counts: refused},
		{name: "signed by a stranger", policy: hard, signer: stranger, status: out, state: "unknown", counts: refused},
		{name: "garbage", policy: hard, mangle: func([]byte) []byte { return []byte("garbage") }, status: out, state: "unknown", counts: refused},
		{name: "garbage, soft", policy: soft, mangle: func([]byte) []byte { return []byte("garbage") }, status: in, state: "unknown", counts: refused},
		{name: "garbage, the responder answers", policy: hard, up: true, mangle: func([]byte) []byte { return []byte("garbage") }, status: in, state: "good", counts: refused},
		{name: "60 KB of zeros", policy: hard, mangle: func([]byte) []byte { return make([]byte, 60<<10) }, status: out, state: "unknown", counts: refused},
		{name: "good, ignored", policy: hard + ", ignore_staple: true", status: out, state: "unknown", counts: unseen},
		{name: "revoked, ignored", policy: hard + ", ignore_staple: true", up: true, edit: revoked, status: in, state: "good", counts: unseen},
		{name: "good, but a nonce is wanted", policy: hard + ", ocsp_nonce: true", status: out, state: "unknown", counts: unseen},
		{name: "good, but only lists count", policy: "sources: [crl]", status: in, state: "unchecked", counts: unseen},
		{name: "good, over TLS 1.2", policy: hard, tls12: true, status: out, state: "unknown", counts: unseen},
	}
}

// TestStapledAnswers: an answer that the client sends along decides where it counts, and where it does not the policy does.
func TestStapledAnswers(t *testing.T) {
	o, stranger := newOutside(t), testpki.NewCA(t, testpki.Name("Outside Root"))
	other := o.Client("other")
	for _, tc := range stapleCases(o, other, stranger) {
		t.Run(tc.name, func(t *testing.T) {
			o.t = t
			o.down.Store(!tc.up)
			p, access := stapleServer(o, tc.policy)
			leaf := o.Client("client", naming(nil, []string{o.url + "/ocsp"}))
			answer := o.staple(leaf, tc.signer, tc.edit)
			if tc.mangle != nil {
				answer = tc.mangle(answer)
			}
			config := p.tlsConfig(stapling(leaf, answer))
			if tc.tls12 {
				config.MaxVersion = tls.VersionTLS12
			}
			a := p.ask("", config)
			if a.status != tc.status || tc.state == "revoked" && !strings.Contains(a.body, "revoked") {
				t.Errorf("answered %d %q %v, want %d", a.status, a.body, a.err, tc.status)
			}
			if got := p.stapled(); got != tc.counts {
				t.Errorf("%s, want %s", got, tc.counts)
			}
			said := p.said(leaf)
			t.Logf("%v %d; %s; %s", a.took.Round(time.Millisecond), a.status, p.stapled(), said)
			byStaple := tc.counts == "1 used, 0 refused"
			if byStaple != strings.Contains(said, "ocsp "+tc.state+" stapled by the client: ") {
				t.Errorf("explain: %s", said)
			}
			p.stop()
			log, err := os.ReadFile(access)
			word := `"revocation":"` + tc.state + `"`
			if tc.status == http.StatusForbidden {
				word = `"decision":"refuse","reason":"` + map[string]string{"revoked": "revoked", "unknown": "revocation_unknown"}[tc.state] + `"`
			}
			if err != nil || !bytes.Contains(log, []byte(word)) {
				t.Errorf("access log: %v %s", err, log)
			}
		})
	}
}

// TestStapledAnswerEnds: who lives by a stapled answer does so until its nextUpdate. Then a live connection is cut, and a
// session that is resumed, which brings the old answer along, is refused, while the responder is down.
func TestStapledAnswerEnds(t *testing.T) {
	o := newOutside(t)
	o.down.Store(true)
	p, _ := stapleServer(o, "sources: [ocsp], refresh: 1h")
	leaf := o.Client("client", naming(nil, []string{o.url + "/ocsp"}))
	// A whole second, which is all that GeneralizedTime has, and time enough for a busy machine to make the connections.
	end := time.Now().Truncate(time.Second).Add(10 * time.Second)
	config := p.tlsConfig(stapling(leaf, o.staple(leaf, nil, func(a *pkix.OCSPTemplate) { a.Responses[0].NextUpdate = end })))
	config.ClientSessionCache = sameKey{tls.NewLRUClientSessionCache(4)}
	if resumed, status := handshake(t, p, config); resumed || status != http.StatusOK {
		t.Fatalf("resumed %v, %d\n%s", resumed, status, p.log)
	}
	if resumed, status := handshake(t, p, config); !resumed || status != http.StatusOK {
		t.Fatalf("before the end: resumed %v, %d\n%s", resumed, status, p.log)
	}
	conns := make([]*liveConn, 0, len(kinds))
	for _, k := range kinds {
		c, err := dialLive(p, p.tlsConfig(config.Certificates...), k)
		if err != nil {
			t.Fatalf("%v\n%s", err, p.log)
		}
		defer c.conn.Close()
		conns = append(conns, c)
	}
	for _, c := range conns {
		select {
		case <-c.done:
		case <-time.After(time.Until(end)):
			close(c.drain)
		}
	}
	for _, c := range conns {
		select {
		case <-c.done:
			after := time.Unix(0, c.closed.Load()).Sub(end)
			t.Logf("%s: over %v after nextUpdate", c.kind, after.Round(time.Millisecond))
			if after < 0 {
				t.Errorf("%s: cut before the answer ended", c.kind)
			}
		case <-time.After(time.Until(end.Add(8 * time.Second))):
			t.Errorf("%s: open 8 s after the answer's nextUpdate", c.kind)
		}
	}
	resumed, status := handshake(t, p, config)
	t.Logf("after the end: resumed %v, status %d; %s; %s", resumed, status, p.stapled(), p.said(leaf))
	if !resumed || status != http.StatusForbidden {
		t.Errorf("after the end: resumed %v, %d, want a resumed session and 403", resumed, status)
	}
	o.down.Store(false)
	waitUntil(t, "the responder is asked again", func() bool {
		_, status := handshake(t, p, config)
		return status == http.StatusOK
	})
	p.stop()
}

// TestStapledAnswerUnasked: what a client staples counts also where no source is waited for: while the responder is left
// alone after a failure, and for a certificate that names no responder. "Revoked" is remembered.
func TestStapledAnswerUnasked(t *testing.T) {
	o := newOutside(t)
	o.down.Store(true)
	p, _ := stapleServer(o, "sources: [ocsp]")
	leaf := o.Client("client", naming(nil, []string{o.url + "/ocsp"}))
	if a := p.ask("", p.tlsConfig(leaf.TLS())); a.status != http.StatusForbidden {
		t.Errorf("responder down: %d %s", a.status, a.body)
	}
	if a := p.ask("", p.tlsConfig(stapling(leaf, o.staple(leaf, nil, nil)))); a.status != http.StatusOK {
		t.Errorf("responder left alone, stapled good: %d %s", a.status, a.body)
	}
	silent := o.Client("silent")
	if a := p.ask("", p.tlsConfig(silent.TLS())); a.status != http.StatusOK {
		t.Errorf("no responder: %d %s", a.status, a.body)
	}
	revoked := o.staple(silent, nil, func(a *pkix.OCSPTemplate) {
		a.Responses[0].Status, a.Responses[0].RevokedAt = pkix.OCSPRevoked, time.Now().Add(-time.Minute)
	})
	for _, c := range []tls.Certificate{stapling(silent, revoked), silent.TLS()} {
		if a := p.ask("", p.tlsConfig(c)); a.status != http.StatusForbidden || !strings.Contains(a.body, "revoked") {
			t.Errorf("no responder, stapled revoked (%d bytes): %d %s", len(c.OCSPStaple), a.status, a.body)
		}
	}
	p.stop()
}
