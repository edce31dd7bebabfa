package ocsp

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// responder is an OCSP responder whose answers a test bends.
type responder struct {
	t        *testing.T
	ca       *testpki.CA
	requests atomic.Int64
	last     atomic.Value // method of the latest request
	bend     func(*pkix.OCSPTemplate)
	raw      func() []byte // instead of an answer
}

func (r *responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.requests.Add(1)
	r.last.Store(req.Method)
	if r.raw != nil {
		_, _ = w.Write(r.raw())
		return
	}
	der, err := io.ReadAll(req.Body)
	if req.Method == http.MethodGet {
		der, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(req.URL.Path, "/"))
	}
	if err != nil {
		r.t.Error(err)
		return
	}
	asked, err := pkix.ParseOCSPRequest(der)
	if err != nil {
		r.t.Errorf("%s %s: %v", req.Method, req.URL, err)
		return
	}
	now := time.Now()
	answer := pkix.OCSPTemplate{Responder: r.ca.Cert, ProducedAt: now, Nonce: asked.Nonce, Responses: []pkix.OCSPSingle{{
		ID: asked.Certs[0], Status: pkix.OCSPGood, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
	}}}
	if r.bend != nil {
		r.bend(&answer)
	}
	signed, err := pkix.SignOCSP(answer, r.ca.Key)
	if err != nil {
		r.t.Error(err)
	}
	_, _ = w.Write(signed)
}

func newResponder(t *testing.T) (*responder, Query, *Client) {
	ca := testpki.NewCA(t)
	r := &responder{t: t, ca: ca}
	server := httptest.NewServer(r)
	http := outbound.New(outbound.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	client := New(Config{HTTP: http})
	t.Cleanup(func() { client.Wait(); http.Close(); server.Close() })
	q := Query{Cert: ca.Client("x").Cert, Issuer: ca.Cert, Responders: []string{server.URL}, Allows: trust.Policy{}.Allows}
	return r, q, client
}

func TestAsk(t *testing.T) {
	other := testpki.NewCA(t, testpki.Name("other"))
	single := func(f func(*pkix.OCSPSingle)) func(*pkix.OCSPTemplate) {
		return func(a *pkix.OCSPTemplate) { f(&a.Responses[0]) }
	}
	cases := []struct {
		name   string
		query  func(*Query)
		bend   func(*pkix.OCSPTemplate)
		raw    func() []byte
		signer *testpki.CA
		err    error
		status pkix.OCSPStatus
	}{
		{name: "good", status: pkix.OCSPGood},
		{name: "good, SHA-256 and nonce", query: func(q *Query) { q.SHA256, q.Nonce = true, true }, status: pkix.OCSPGood},
		{name: "revoked", bend: single(func(s *pkix.OCSPSingle) { s.Status, s.RevokedAt = pkix.OCSPRevoked, time.Now() }), status: pkix.OCSPRevoked},
		{name: "unknown", bend: single(func(s *pkix.OCSPSingle) { s.Status = pkix.OCSPUnknown }), status: pkix.OCSPUnknown},
		{name: "without nextUpdate", bend: single(func(s *pkix.OCSPSingle) { s.NextUpdate = time.Time{} }), status: pkix.OCSPGood},
		{name: "expired", bend: single(func(s *pkix.OCSPSingle) {
			s.ThisUpdate, s.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), err: ErrTimes},
		{
			name: "expired within the grace", query: func(q *Query) { q.Grace = 2 * time.Hour },
			bend: single(func(s *pkix.OCSPSingle) {
				s.ThisUpdate, s.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			}), status: pkix.OCSPGood,
		},
		{name: "of the future", bend: single(func(s *pkix.OCSPSingle) { s.ThisUpdate = time.Now().Add(30 * time.Minute) }), err: ErrTimes},
		{name: "old and without nextUpdate", bend: single(func(s *pkix.OCSPSingle) {
			s.ThisUpdate, s.NextUpdate = time.Now().Add(-time.Hour), time.Time{}
		}), err: ErrTimes},
		{name: "nonce left out", query: func(q *Query) { q.Nonce = true }, bend: func(a *pkix.OCSPTemplate) { a.Nonce = nil }, err: ErrNonce},
		{name: "wrong nonce", query: func(q *Query) { q.Nonce = true }, bend: func(a *pkix.OCSPTemplate) { a.Nonce = []byte("other") }, err: ErrNonce},
		{name: "signed by another CA", signer: other, err: ErrResponder},
		{name: "algorithm not taken", query: func(q *Query) { q.Allows = func(string) bool { return false } }, err: ErrResponder},
		{name: "another serial", bend: single(func(s *pkix.OCSPSingle) {
			s.ID = pkix.NewOCSPCertID(s.ID.Hash, other.Cert, pkix.SerialFromBytes([]byte{9}))
		}), err: ErrOtherCert},
		{name: "tryLater", raw: func() []byte { return pkix.OCSPErrorResponse(3) }, err: ErrNotSuccessful},
		{name: "unauthorized", raw: func() []byte { return pkix.OCSPErrorResponse(6) }, err: ErrNotSuccessful},
		{name: "too large", raw: func() []byte { return make([]byte, maxAnswer+1) }, err: outbound.ErrTooLarge},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r, q, client := newResponder(t)
			r.bend, r.raw = tc.bend, tc.raw
			if tc.signer != nil {
				r.ca = tc.signer
			}
			if tc.query != nil {
				tc.query(&q)
			}
			a := client.Ask(t.Context(), q)
			if !errors.Is(a.Err, tc.err) || (tc.err == nil) != a.Checked || a.Checked && a.Status != tc.status {
				t.Fatalf("%+v, want error %v, status %v", a, tc.err, tc.status)
			}
			if fresh := a.Fresh(time.Now(), q.Grace); fresh != (tc.err == nil) {
				t.Errorf("fresh %v", fresh)
			}
			if tc.err != nil && a.Due(time.Now()) {
				t.Error("due again at once after a failure")
			}
			if known := client.Cached(pkix.CertIDOf(q.Cert, q.Issuer)); known != a {
				t.Errorf("remembered %+v", known)
			}
		})
	}
}

// GET is for short questions without a nonce, POST for the others.
func TestMethod(t *testing.T) {
	r, q, client := newResponder(t)
	for _, want := range []string{http.MethodGet, http.MethodPost} {
		client.Ask(t.Context(), q)
		if got := r.last.Load(); got != want {
			t.Errorf("nonce %v: %v, want %s", q.Nonce, got, want)
		}
		q.Nonce = true
	}
}

// A hundred who ask at once share one question.
func TestSingleFlight(t *testing.T) {
	r, q, client := newResponder(t)
	gate := make(chan struct{})
	r.bend = func(*pkix.OCSPTemplate) { <-gate }
	var work sync.WaitGroup
	var asking atomic.Int64
	for range 100 {
		work.Go(func() {
			asking.Add(1)
			if a := client.Ask(t.Context(), q); a.Err != nil {
				t.Error(a.Err)
			}
		})
	}
	for end := time.Now().Add(20 * time.Second); (asking.Load() < 100 || r.requests.Load() == 0) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	close(gate)
	work.Wait()
	if n := r.requests.Load(); n > 2 { // one that comes after the first has ended asks again
		t.Errorf("%d requests", n)
	}
}

// A responder that fails is not asked about further certificates for a while.
func TestBreaker(t *testing.T) {
	r, q, client := newResponder(t)
	r.raw = func() []byte { return []byte("no answer") }
	var last *Answer
	for range tripAfter + 3 {
		q.Cert = r.ca.Client("x").Cert
		last = client.Ask(t.Context(), q)
	}
	if n := r.requests.Load(); n != tripAfter || !errors.Is(last.Err, ErrBreaker) {
		t.Errorf("%d requests, %v", n, last.Err)
	}
}

// The breaker is of a responder and an issuer: certificates of another CA that name the responder of this one do not have
// it left alone.
func TestBreakerIsOfOneIssuer(t *testing.T) {
	r, q, client := newResponder(t)
	other := testpki.NewCA(t, testpki.Name("other"))
	for range tripAfter + 1 {
		foreign := q
		foreign.Issuer, foreign.Cert = other.Cert, other.Client("x").Cert
		if a := client.Ask(t.Context(), foreign); a.Err == nil {
			t.Fatal("the responder answered for another CA")
		}
	}
	if a := client.Ask(t.Context(), q); a.Err != nil || a.Status != pkix.OCSPGood {
		t.Errorf("%+v after %d requests", a, r.requests.Load())
	}
	q.Cert, q.Responders = r.ca.Client("y").Cert, []string{"http://127.0.0.1/" + strings.Repeat("a", maxURL)}
	if a := client.Ask(t.Context(), q); a.Err == nil || len(a.Err.Error()) > 500 {
		t.Errorf("a long URL: %.600v", a.Err)
	}
}

// Which of two verified answers is believed does not depend on which came first, and "revoked" is never taken back by an
// answer that was not made after it.
func TestInvariant01OlderAnswerDoesNotReplaceRevoked(t *testing.T) {
	at := time.Now().Truncate(time.Hour)
	answer := func(status pkix.OCSPStatus, this, produced time.Duration) *Answer {
		return &Answer{Checked: true, Status: status, ThisUpdate: at.Add(this), ProducedAt: at.Add(produced)}
	}
	revoked := answer(pkix.OCSPRevoked, 0, time.Minute)
	for _, tc := range []struct {
		name         string
		known, fresh *Answer
		err          error
	}{
		{"nothing known", nil, answer(pkix.OCSPGood, 0, 0), nil},
		{"nothing usable known", &Answer{Err: ErrTimes}, answer(pkix.OCSPGood, 0, 0), nil},
		{"good after revoked", revoked, answer(pkix.OCSPGood, time.Hour, time.Hour), nil},
		{"good made later, rounded to the same thisUpdate", revoked, answer(pkix.OCSPGood, 0, 2*time.Minute), nil},
		{"good made before, rounded to the same thisUpdate", revoked, answer(pkix.OCSPGood, 0, 0), ErrOlder},
		{"good made at the same time", revoked, answer(pkix.OCSPGood, 0, time.Minute), ErrOlder},
		{"good of an earlier thisUpdate, made later", revoked, answer(pkix.OCSPGood, -time.Hour, time.Hour), ErrOlder},
		{"unknown made later", revoked, answer(pkix.OCSPUnknown, time.Hour, time.Hour), ErrForgotten},
		{"revoked again", revoked, revoked, nil},
		{"revoked made at the same time as good", answer(pkix.OCSPGood, 0, time.Minute), revoked, nil},
		{"good again", answer(pkix.OCSPGood, 0, 0), answer(pkix.OCSPGood, 0, 0), nil},
	} {
		if err := tc.fresh.supersedes(tc.known); !errors.Is(err, tc.err) || err != nil && tc.err == nil {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
		}
	}
}

// What is stapled counts like an answer, unless something newer is known.
func TestOffer(t *testing.T) {
	r, q, client := newResponder(t)
	sign := func(status pkix.OCSPStatus, at time.Time) []byte {
		id := pkix.NewOCSPCertID(5 /* SHA-256 */, r.ca.Cert, pkix.SerialOf(q.Cert.SerialNumber))
		der, err := pkix.SignOCSP(pkix.OCSPTemplate{Responder: r.ca.Cert, ProducedAt: at, Responses: []pkix.OCSPSingle{{
			ID: id, Status: status, RevokedAt: at, ThisUpdate: at, NextUpdate: at.Add(time.Hour),
		}}}, r.ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	now := time.Now()
	if a, err := client.Offer(q, sign(pkix.OCSPRevoked, now)); err != nil || a.Status != pkix.OCSPRevoked || a.Responder != Stapled {
		t.Fatalf("%+v %v", a, err)
	}
	if _, err := client.Offer(q, sign(pkix.OCSPGood, now.Add(-30*time.Minute))); !errors.Is(err, ErrOlder) {
		t.Errorf("an older good answer: %v", err)
	}
	if _, err := client.Offer(q, sign(pkix.OCSPGood, now.Add(-2*time.Hour))); !errors.Is(err, ErrTimes) {
		t.Errorf("an expired staple: %v", err)
	}
	if a := client.Cached(pkix.CertIDOf(q.Cert, q.Issuer)); a.Status != pkix.OCSPRevoked {
		t.Errorf("known is %v", a.Status)
	}
}
