// Package ocsp asks OCSP responders whether certificates are revoked, and remembers what they said (RFC 6960).
//
// What it knows is asked for from memory ([Client.Cached]); [Client.Ask] fetches, with one question in flight per
// certificate however many wait for it, and [Client.Offer] takes an answer that the client stapled. An answer counts
// when it is about the certificate, signed by the issuer or by a responder that the issuer delegated to, inside its
// times, and repeats the nonce if one was demanded. It refuses everything else with a reason that is remembered, so
// that a responder that fails is not asked again by each handshake: a certificate waits, and after some failures in
// a row the responder as a whole does.
//
//	answer := client.Ask(ctx, ocsp.Query{Cert: leaf, Issuer: issuer, Responders: leaf.OCSPServer, Allows: policy.Allows})
//	if answer.Err == nil && answer.Status == pkix.OCSPRevoked { … }
package ocsp

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
)

// Config is what a Client needs. Zero fields take the default given.
type Config struct {
	HTTP       *outbound.Client // nil: nothing is fetched, and every question fails
	Now        func() time.Time // time.Now
	Skew       time.Duration    // 5 minutes: how far the responder's clock may be from ours
	MaxEntries int              // 200,000 certificates; the ones that were asked about longest ago go first
	Budget     time.Duration    // 8 s for all attempts at one question
	Logger     *slog.Logger     // slog.Default()
	// Revoked reports, from memory, whether a delegated responder's own certificate is known to be revoked. It is asked
	// of delegates without id-pkix-ocsp-nocheck (RFC 6960, Section 4.2.2.2.1); nil: none is.
	Revoked func(delegate, issuer *x509.Certificate) bool
}

// Query is a question about one certificate.
type Query struct {
	Cert, Issuer *x509.Certificate
	Responders   []string // URLs, tried in turn
	Origin       outbound.Trust
	Nonce        bool                        // send a nonce and demand it back
	SHA256       bool                        // name the issuer by SHA-256; default SHA-1, which every responder knows
	Grace        time.Duration               // how long after nextUpdate an answer is taken still
	Refresh      time.Duration               // how long an answer without nextUpdate counts; 0: 5 minutes
	Allows       func(algorithm string) bool // signature algorithms of answers
}

// Stapled is what [Answer.Responder] says of an answer that the client itself brought.
const Stapled = "stapled by the client"

// Answer is what is known about one certificate. It is immutable. With Err set and Checked false there has been no
// usable answer; with Err set and Checked true the answer is an earlier one, and the latest attempt failed.
type Answer struct {
	Checked    bool // the fields down to Algorithm are of a verified answer
	Status     pkix.OCSPStatus
	Reason     pkix.Reason
	RevokedAt  time.Time
	ProducedAt time.Time
	ThisUpdate time.Time
	NextUpdate time.Time // zero: the responder gave none
	Expires    time.Time // when the answer stops counting, grace not included
	Responder  string    // URL, or Stapled
	Signer     string    // subject of the certificate that signed
	Algorithm  string
	Nonced     bool // it repeats a nonce that we sent

	Err     error     // why the latest attempt failed; nil when it did not
	Asked   time.Time // the latest attempt
	RetryAt time.Time // with Err: not before this
	Fails   int       // attempts that failed in a row
}

// Fresh reports whether the answer counts at now: good for nothing else than being believed when it says "good".
func (a *Answer) Fresh(now time.Time, grace time.Duration) bool {
	return a != nil && a.Checked && !now.After(a.Expires.Add(grace))
}

// Due reports whether a fetch may be tried now: nothing was asked yet, or the wait after a failure is over.
func (a *Answer) Due(now time.Time) bool { return a == nil || a.Err == nil || !now.Before(a.RetryAt) }

// The errors that answers are refused with; what is wrapped says more.
var (
	ErrNotSuccessful = errors.New("the responder did not answer")                   // tryLater, unauthorized, ...
	ErrOtherCert     = errors.New("the answer is not about this certificate")       //
	ErrTimes         = errors.New("the answer is outside its times")                // expired, or of the future
	ErrNonce         = errors.New("the answer does not repeat the nonce")           //
	ErrResponder     = errors.New("the answer is not signed by who may answer")     //
	ErrBreaker       = errors.New("the responder failed often and is left alone")   //
	ErrOlder         = errors.New("the answer is older than what is known already") //
	ErrForgotten     = errors.New("the responder does not know what it said was revoked")
)

// Client asks and remembers. It is safe for concurrent use. The zero Client is not usable: see [New].
type Client struct {
	cfg      Config
	breakers breakers
	metrics  counters

	changed func(pkix.CertID)

	mu      sync.RWMutex
	answers map[pkix.CertID]*Answer

	work    sync.WaitGroup // questions in progress
	asking  sync.Mutex
	flights map[flightKey]*flight
}

// flightKey tells questions apart that must not share an answer.
type flightKey struct {
	id    pkix.CertID
	nonce bool
}

type counters struct{ good, revoked, unknown, failed, stapled, stapledRefused atomic.Uint64 }

// Metrics counts questions by how they ended.
type Metrics struct {
	Good, Revoked, Unknown, Failed, Stapled, StapledRefused uint64
	Answers                                                 int // remembered
}

// flight is a question in progress.
type flight struct {
	began  time.Time
	done   chan struct{} // closed when answer is set
	answer *Answer
}

// New returns a client that has asked nothing yet.
func New(c Config) *Client {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Skew = cmp.Or(c.Skew, 5*time.Minute)
	c.MaxEntries = cmp.Or(c.MaxEntries, 200_000)
	c.Budget = cmp.Or(c.Budget, 8*time.Second)
	return &Client{cfg: c, changed: func(pkix.CertID) {}, answers: make(map[pkix.CertID]*Answer), flights: make(map[flightKey]*flight)}
}

// OnChange has f called after what is known of a certificate changed in a way that ends or begins a right: it is or is no
// longer revoked, or no longer good. It must be called before the first question.
func (c *Client) OnChange(f func(id pkix.CertID)) { c.changed = f }

// Metrics returns the counters of now.
func (c *Client) Metrics() Metrics {
	c.mu.RLock()
	n := len(c.answers)
	c.mu.RUnlock()
	m := &c.metrics
	return Metrics{
		Good: m.good.Load(), Revoked: m.revoked.Load(), Unknown: m.unknown.Load(), Failed: m.failed.Load(),
		Stapled: m.stapled.Load(), StapledRefused: m.stapledRefused.Load(), Answers: n,
	}
}

// Wait returns when the questions in progress have ended, which their budget bounds. Nobody may call Ask any more.
func (c *Client) Wait() { c.work.Wait() }

// Cached returns what is known of a certificate, nil when nothing is. Memory only.
func (c *Client) Cached(id pkix.CertID) *Answer {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.answers[id]
}

// Asking is when the question about a certificate that is in progress began; zero: there is none.
func (c *Client) Asking(id pkix.CertID) time.Time {
	c.asking.Lock()
	defer c.asking.Unlock()
	if f := cmp.Or(c.flights[flightKey{id, false}], c.flights[flightKey{id, true}]); f != nil {
		return f.began
	}
	return time.Time{}
}

// Ask asks the query's responders in turn until one gives an answer that counts, and returns what is then known. Callers
// that ask about the same certificate at the same time share one question; it goes on when one of them gives up, until
// its budget is used up. The answer's Err says what failed; ctx ending gives an answer with ctx's error that is not
// remembered.
func (c *Client) Ask(ctx context.Context, q Query) *Answer {
	key := flightKey{pkix.CertIDOf(q.Cert, q.Issuer), q.Nonce}
	c.asking.Lock()
	f := c.flights[key]
	if f == nil {
		f = &flight{began: c.cfg.Now(), done: make(chan struct{})}
		c.flights[key] = f
		c.work.Go(func() { c.fly(ctx, key, q, f) })
	}
	c.asking.Unlock()
	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
		return &Answer{Err: ctx.Err(), Asked: c.cfg.Now()}
	}
}

// fly performs the question. It has a budget of its own: the first caller's patience must not decide for those that
// joined it.
func (c *Client) fly(ctx context.Context, key flightKey, q Query, f *flight) {
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Budget)
	defer cancel()
	fresh, err := c.question(asking, q)
	f.answer = c.remember(key.id, fresh, err)
	c.asking.Lock()
	delete(c.flights, key)
	c.asking.Unlock()
	close(f.done)
}

// Offer takes an answer that the client stapled to its certificate (RFC 8446, Section 4.4.2.1), if it counts and is not
// older than what is known. It must be called only once the client has proved that it holds the key.
func (c *Client) Offer(q Query, der []byte) (*Answer, error) {
	id := pkix.CertIDOf(q.Cert, q.Issuer)
	q.Nonce = false // what is stapled was not asked by us
	a, err := c.check(q, der, nil)
	if err == nil {
		a.Responder = Stapled
		err = a.endStapled(q, c.cfg.Now())
	}
	if known := c.Cached(id); err == nil && known != nil {
		if known.Checked && a.Status == known.Status && a.ThisUpdate.Equal(known.ThisUpdate) && a.ProducedAt.Equal(known.ProducedAt) {
			c.metrics.stapled.Add(1)
			return known, nil // nothing new; to bring it again does not prolong it, nor is it asked for later because of that
		}
		err = a.supersedes(known)
	}
	if err != nil {
		c.metrics.stapledRefused.Add(1)
		return nil, err
	}
	c.metrics.stapled.Add(1)
	return c.remember(id, a, nil), nil
}

// endStapled has an answer that a client kept end at its nextUpdate, or when its thisUpdate is too old: it was not made just
// now by a clock that may differ from ours, and bringing it again must not prolong it.
func (a *Answer) endStapled(q Query, now time.Time) error {
	if a.Status == pkix.OCSPRevoked {
		return nil
	}
	a.Expires = a.NextUpdate
	if a.Expires.IsZero() {
		a.Expires = a.ThisUpdate.Add(cmp.Or(q.Refresh, 5*time.Minute))
	}
	if !a.Fresh(now, q.Grace) {
		return fmt.Errorf("%w: stapled, it ended at %s", ErrTimes, stamp(a.Expires))
	}
	return nil
}

// supersedes says why a verified answer does not take the place of the one that is known, nil when it does. Responders
// round thisUpdate, so that of two answers with the same one the later made counts, and "revoked" where even that does not
// tell. "Unknown" takes nothing back.
func (a *Answer) supersedes(known *Answer) error {
	if known == nil || !known.Checked {
		return nil
	}
	older := a.ThisUpdate.Before(known.ThisUpdate) || a.ThisUpdate.Equal(known.ThisUpdate) && a.ProducedAt.Before(known.ProducedAt)
	if known.Status == pkix.OCSPRevoked && a.Status != pkix.OCSPRevoked {
		older = older || a.ThisUpdate.Equal(known.ThisUpdate) && !a.ProducedAt.After(known.ProducedAt)
		if !older && a.Status == pkix.OCSPUnknown {
			return ErrForgotten
		}
	}
	if older {
		return fmt.Errorf("%w: of %s, made at %s; known is %s, made at %s", ErrOlder, stamp(a.ThisUpdate), stamp(a.ProducedAt), stamp(known.ThisUpdate), stamp(known.ProducedAt))
	}
	return nil
}

// remember stores a new answer, or that there was none, and returns what is known from now on. An answer never gives
// way to one that was made before it.
func (c *Client) remember(id pkix.CertID, fresh *Answer, err error) *Answer {
	known, next := c.replace(id, fresh, err)
	revoked := func(a *Answer) bool { return a != nil && a.Checked && a.Status == pkix.OCSPRevoked }
	good := func(a *Answer) bool { return a != nil && a.Checked && a.Status == pkix.OCSPGood }
	if revoked(known) != revoked(next) || good(known) && !good(next) {
		c.changed(id)
	}
	return next
}

// replace is remember without telling: it returns what was known before, too.
func (c *Client) replace(id pkix.CertID, fresh *Answer, err error) (known, next *Answer) {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	known = c.answers[id]
	if err == nil {
		err = fresh.supersedes(known)
	}
	next = &Answer{}
	if err == nil {
		*next = *fresh
		if next.Asked = now; fresh.Responder == Stapled && known != nil {
			next.Asked = known.Asked // of the responder: what clients bring does not put that off
		}
	} else {
		if known != nil {
			*next = *known
		}
		next.Err, next.Asked, next.Fails = err, now, next.Fails+1
		next.RetryAt = now.Add(backoff(next.Fails))
	}
	if known == nil && len(c.answers) >= c.cfg.MaxEntries {
		c.evictLocked()
	}
	c.answers[id] = next
	return known, next
}

// evictLocked makes room: of a handful of entries, as the map gives them, the one asked about longest ago goes, and one
// that says "revoked" only where all of them do.
func (c *Client) evictLocked() {
	const look = 16
	var oldest pkix.CertID
	var at time.Time
	n := 0
	for id, a := range c.answers {
		asked := a.Asked
		if a.Checked && a.Status == pkix.OCSPRevoked {
			asked = asked.AddDate(100, 0, 0)
		}
		if n == 0 || asked.Before(at) {
			oldest, at = id, asked
		}
		if n++; n == look {
			break
		}
	}
	delete(c.answers, oldest)
}

// backoff is the wait after the n-th failure in a row: 5 s, doubled each time, at most 5 minutes.
func backoff(n int) time.Duration {
	return min(5*time.Second<<min(n-1, 10), 5*time.Minute)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
