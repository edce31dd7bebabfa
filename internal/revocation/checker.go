package revocation

import (
	"cmp"
	"context"
	"crypto/x509"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation/crl"
	"sekisho/internal/revocation/ocsp"
	"sekisho/internal/trust"
)

// CheckerConfig is what a [Checker] asks. Zero fields take the default given.
type CheckerConfig struct {
	Index *Index       // our own CA's ledger; required
	Lists *crl.Keeper  // nil: no lists
	OCSP  *ocsp.Client // nil: no responders, and nothing stapled
	Sets  *SetKeeper   // nil: no CRLSets
	Now   func() time.Time
	// Budget bounds how long a client that has proved its key waits for the sources; 5 s.
	Budget time.Duration
	// OnChange is called after the sources changed what they say of certificates of these issuers: live connections are
	// to be judged again. It may be nil, and is called from several goroutines.
	OnChange func(issuers []pkix.KeyID)
	Logger   *slog.Logger
}

// Checker makes one verdict of every source, by the policy of the CA. [Checker.Judge] answers from memory alone;
// [Checker.Resolve] fetches what the policy demands; [Checker.Run] keeps the answers about certificates in use current.
// It is safe for concurrent use.
type Checker struct {
	cfg     CheckerConfig
	use     inUse
	owners  owners
	signers signers
	work    sync.WaitGroup // fetches that outlive who began them
	slots   chan struct{}  // bounds the fetches of Run
	closing sync.Mutex     // held to begin a fetch, and by Run's end
	closed  bool
}

// maxRefreshers is how many sources are asked at once for certificates in use.
const maxRefreshers = 16

// NewChecker returns a checker. It starts nothing: see [Checker.Run].
func NewChecker(c CheckerConfig) *Checker {
	if c.Index == nil {
		c.Index = NewIndex()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.OnChange == nil {
		c.OnChange = func([]pkix.KeyID) {}
	}
	c.Budget = cmp.Or(c.Budget, 5*time.Second)
	checker := &Checker{cfg: c, slots: make(chan struct{}, maxRefreshers)}
	if c.OCSP != nil {
		c.OCSP.OnChange(func(id pkix.CertID) { checker.Changed([]pkix.KeyID{id.Issuer}) })
	}
	return checker
}

// Epoch counts the changes of every source; see [Index.Epoch].
func (c *Checker) Epoch() uint64 { return c.cfg.Index.Epoch() }

// Changed says that a source changed what it says of certificates of these issuers. The keepers of lists and sets call
// it after their swap.
func (c *Checker) Changed(issuers []pkix.KeyID) {
	c.cfg.Index.raise()
	c.cfg.OnChange(issuers)
}

// subject is one certificate of a path, as the sources need it.
type subject struct {
	cert, issuer *x509.Certificate
	path         []*x509.Certificate
	id           pkix.CertID
	ca           *trust.CA
	policy       *trust.Policy
	now          time.Time
	points       []pkix.DistributionPoint
	pointsErr    error
	report       *Report // nil: nobody wants to know
	depth        int     // 0; more for the signers of lists
}

func (c *Checker) subject(path []*x509.Certificate, i int, ca *trust.CA, now time.Time) subject {
	s := subject{cert: path[i], issuer: path[i+1], path: path, id: pkix.CertIDOf(path[i], path[i+1]), ca: ca, policy: &ca.Policy, now: now}
	if s.policy.Asks(trust.CRL) {
		s.points, _, s.pointsErr = pkix.CertificateDistributionPoints(s.cert)
	}
	return s
}

// RevokedNow reports whether a certificate is known to be revoked by our ledger: one look-up. Session tickets ask it
// before the certificates of the session are at hand.
func (c *Checker) RevokedNow(id pkix.CertID) bool {
	_, revoked := c.cfg.Index.Lookup(id)
	return revoked
}

// Judge says what is known now of a path, leaf first and trust anchor last, that was verified under ca. It reads memory
// only, fetches nothing, and remembers nothing about the certificates.
func (c *Checker) Judge(path []*x509.Certificate, ca *trust.CA, now time.Time) Verdict {
	worst := Verdict{State: Good}
	if len(path) < 2 {
		return Verdict{State: Unchecked} // the leaf is the trust anchor: nobody above could revoke it
	}
	for i := range len(path) - 1 {
		v := c.judgeOne(path, i, ca, now, 0)
		worst = worse(worst, v)
		if worst.State == Revoked {
			return worst
		}
	}
	if worst.State == Unknown {
		worst.Until = now.Add(unknownFor)
	}
	return worst
}

// unknownFor is how long it may stay unnoticed that an unknown certificate has become known.
const unknownFor = time.Second

// judgeOne judges the certificate at index i; one that the policy leaves out is looked up in the ledger all the same.
// depth counts how many signers of lists led here.
func (c *Checker) judgeOne(path []*x509.Certificate, i int, ca *trust.CA, now time.Time, depth int) Verdict {
	if i > 0 && ca.Policy.Scope == trust.Leaf {
		id := pkix.CertIDOf(path[i], path[i+1])
		if e, ok := c.cfg.Index.Lookup(id); ok {
			return Verdict{State: Revoked, Index: i, Entry: e, Source: string(trust.Ledger)}
		}
		return Verdict{State: Good, Index: i}
	}
	s := c.subject(path, i, ca, now)
	s.depth = depth
	v := combine(s.policy, c.answers(&s))
	v.Index = i
	return v
}

// answers asks each source that the policy names, and the ledger in any case.
func (c *Checker) answers(s *subject) [4]answer {
	return [4]answer{c.ledger(s), c.lists(s), c.responders(s), c.sets(s)}
}

// combine makes a verdict of the answers: revoked from any is revoked; then as many fresh good ones as the policy wants.
func combine(p *trust.Policy, answers [4]answer) Verdict {
	var good, unknown int
	var v Verdict
	for _, a := range answers {
		switch a.state {
		case Revoked:
			return Verdict{State: Revoked, Entry: a.entry, Source: a.source}
		case Good:
			if good++; good == 1 || p.Require == trust.RequireAll {
				v.Source = joined(v.Source, a.source)
				v.Until = earlier(v.Until, a.until)
			} else {
				v.Until = later(v.Until, a.until)
			}
		case Unknown:
			unknown++
			v.Pending = v.Pending || a.due
		case Unchecked:
		}
	}
	switch {
	case good+unknown == 0:
		v.State = Unchecked
	case good == 0 || p.Require == trust.RequireAll && unknown > 0:
		return Verdict{State: Unknown, Pending: v.Pending, Soft: p.OnFailure == trust.Soft}
	default:
		v.State, v.Pending = Good, false
	}
	return v
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// earlier and later treat the zero time as the end of time.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.IsZero() || b.IsZero() {
		return time.Time{}
	}
	if b.After(a) {
		return b
	}
	return a
}

// worse returns the verdict that speaks more against a path.
func worse(a, b Verdict) Verdict {
	rank := func(v Verdict) int {
		switch {
		case v.State == Revoked:
			return 4
		case v.State == Unknown && !v.Soft:
			return 3
		case v.State == Unknown:
			return 2
		case v.State == Unchecked:
			return 1
		}
		return 0
	}
	pending := a.State == Unknown && a.Pending || b.State == Unknown && b.Pending
	until := earlier(a.Until, b.Until)
	if rank(b) > rank(a) || a.Source == "" && rank(b) == rank(a) {
		a = b
	}
	a.Pending, a.Until = pending && a.State == Unknown, until
	return a
}

// ledger asks the index. Only for our own CA does its silence mean good.
func (c *Checker) ledger(s *subject) answer {
	a := answer{source: string(trust.Ledger)}
	if e, ok := c.cfg.Index.Lookup(s.id); ok {
		a.state, a.entry = Revoked, e
	} else if s.policy.Asks(trust.Ledger) {
		a.state = Good
	}
	s.reported(SourceReport{Source: trust.Ledger, Fresh: true}, a)
	return a
}

// responders says what OCSP has answered so far.
func (c *Checker) responders(s *subject) answer {
	if c.cfg.OCSP == nil || !s.policy.Asks(trust.OCSP) {
		return answer{}
	}
	known := c.cfg.OCSP.Cached(s.id)
	urls, origin := responders(s)
	stapled := known != nil && known.Responder == ocsp.Stapled
	if len(urls) == 0 && (!stapled || s.policy.IgnoreStaple) {
		return answer{}
	}
	a := answer{state: Unknown, source: "ocsp"}
	fresh := known.Fresh(s.now, s.policy.Grace)
	if known != nil && known.Checked {
		a.source = "ocsp " + known.Responder
	}
	switch {
	case known != nil && known.Checked && known.Status == pkix.OCSPRevoked:
		a.state, a.entry = Revoked, Entry{ID: s.id, Reason: known.Reason, At: known.RevokedAt}
	case fresh && known.Status == pkix.OCSPGood && s.accepts(known):
		a.state, a.until = Good, known.Expires.Add(s.policy.Grace)
	case fresh && known.Status == pkix.OCSPUnknown: // an answer, and asking again soon would get the same
		a.due = known.Due(s.now) && s.now.Sub(known.Asked) > unknownRetry
	default:
		a.due = len(urls) > 0 && known.Due(s.now)
	}
	began := time.Time{}
	if a.due || s.report != nil {
		began = c.cfg.OCSP.Asking(s.id)
		a.due = a.due && !c.slow(began, s.now)
	}
	if s.report != nil {
		r := ocspReport(known, urls, originText(origin), fresh)
		if known == nil && !began.IsZero() {
			r.Error = notAnswered
		}
		s.reported(r, a)
	}
	return a
}

// slow reports whether a fetch that began then has taken so long that nobody is to wait for it any more: its source counts
// as one that does not answer until it does. A client that waited for it must not wait once more for its first request.
func (c *Checker) slow(began, now time.Time) bool {
	return !began.IsZero() && now.Sub(began) >= c.cfg.Budget*9/10
}

// notAnswered is what is reported of a source that was asked for the first time and is silent so far.
const notAnswered = "asked, and it has not answered so far"

// accepts reports whether the policy takes a good answer that another CA's policy may have had asked for.
func (s *subject) accepts(a *ocsp.Answer) bool {
	switch {
	case a.Responder == ocsp.Stapled && s.policy.IgnoreStaple, s.policy.OCSPNonce && !a.Nonced:
		return false
	}
	return s.policy.Allows(a.Algorithm)
}

// unknownRetry is how soon a responder is asked again about a certificate that it said "unknown" of.
const unknownRetry = 30 * time.Second

// responders are the URLs to ask about a certificate, and who wrote them.
func responders(s *subject) ([]string, outbound.Trust) {
	switch {
	case len(s.policy.OCSPResponders) > 0:
		return s.policy.OCSPResponders, outbound.FromOperator
	case s.policy.IgnoreAIA:
		return nil, outbound.FromCertificate
	}
	return s.cert.OCSPServer, outbound.FromCertificate
}

func (c *Checker) query(s *subject) ocsp.Query {
	urls, origin := responders(s)
	return ocsp.Query{
		Cert: s.cert, Issuer: s.issuer, Responders: urls, Origin: origin, Nonce: s.policy.OCSPNonce, SHA256: s.policy.OCSPSHA256,
		Grace: s.policy.Grace, Refresh: s.policy.Refresh, Allows: s.policy.Allows,
	}
}

// sets asks the CRLSets of the CA.
func (c *Checker) sets(s *subject) answer {
	if c.cfg.Sets == nil || !s.policy.Asks(trust.CRLSet) || len(s.policy.CRLSets) == 0 {
		return answer{}
	}
	all := answer{source: string(trust.CRLSet)}
	for _, place := range s.policy.CRLSets {
		held := c.cfg.Sets.at(place)
		a := held.judge(s)
		a.source = string(trust.CRLSet) + " " + place
		s.reported(held.report(place), a)
		switch {
		case a.state == Revoked:
			return a
		case a.state == Good, a.state == Unknown && all.state == "":
			all = a
		}
	}
	return all
}

// Offer takes the OCSP answer that a client stapled to its certificate. The client must have proved its key.
func (c *Checker) Offer(path []*x509.Certificate, ca *trust.CA, der []byte) error {
	if c.cfg.OCSP == nil || len(path) < 2 || len(der) == 0 || !ca.Policy.Asks(trust.OCSP) || ca.Policy.IgnoreStaple || ca.Policy.OCSPNonce {
		return nil
	}
	s := c.subject(path, 0, ca, c.cfg.Now())
	_, err := c.cfg.OCSP.Offer(c.query(&s), der)
	return err
}

// WithBudget returns a context that ends when a client has waited for the sources as long as it may.
func (c *Checker) WithBudget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.cfg.Budget)
}

// Resolve fetches what the policy demands for a path whose verdict is pending, waits until it is no more or the budget
// is used up, and returns the verdict. Sources that are slower than the first good answer go on by themselves. It must
// be called only for clients that have proved their key.
func (c *Checker) Resolve(ctx context.Context, path []*x509.Certificate, ca *trust.CA) Verdict {
	v := c.Judge(path, ca, c.cfg.Now())
	if v.State != Unknown || !v.Pending {
		return v
	}
	ctx, cancel := c.WithBudget(ctx)
	defer cancel()
	for range maxDepth + 1 { // what was fetched may name somebody to ask about in turn: who signed a list
		v = c.resolveOnce(ctx, path, ca)
		if v.State != Unknown || !v.Pending || ctx.Err() != nil {
			break
		}
	}
	v.Pending = false // as much was done as may be
	return v
}

// resolveOnce makes the fetches that are due, and returns the verdict once it is known, or all of them have ended.
func (c *Checker) resolveOnce(ctx context.Context, path []*x509.Certificate, ca *trust.CA) Verdict {
	fetches := c.due(path, ca)
	done := make(chan struct{}, len(fetches))
	for _, fetch := range fetches {
		if !c.begin(func() { fetch(ctx); done <- struct{}{} }) {
			done <- struct{}{}
		}
	}
	v := c.Judge(path, ca, c.cfg.Now())
	for range fetches {
		select {
		case <-done:
		case <-ctx.Done():
		}
		v = c.Judge(path, ca, c.cfg.Now())
		if v.State != Unknown || ctx.Err() != nil {
			break
		}
	}
	return v
}

// begin runs a fetch on a goroutine that Run waits for; false when it is too late for that.
func (c *Checker) begin(fetch func()) bool {
	c.closing.Lock()
	defer c.closing.Unlock()
	if c.closed {
		return false
	}
	c.work.Go(fetch)
	return true
}

// due returns the fetches that may change the verdict of a path now.
func (c *Checker) due(path []*x509.Certificate, ca *trust.CA) []func(context.Context) {
	var fetches []func(context.Context)
	now := c.cfg.Now()
	for i := range judged(path, ca) {
		s := c.subject(path, i, ca, now)
		fetches = slices.Concat(fetches, c.dueOf(&s, func(a *ocsp.Answer) bool { return a.Due(now) }))
	}
	return fetches
}

// dueOf returns the fetches about one certificate, and about those that signed lists about it.
func (c *Checker) dueOf(s *subject, isDue func(*ocsp.Answer) bool) []func(context.Context) {
	fetches := slices.Concat(c.dueLists(s), c.dueResponders(s, isDue))
	for _, signer := range c.signerSubjects(s) {
		fetches = slices.Concat(fetches, c.dueOf(&signer, isDue))
	}
	return fetches
}

// judged is how many certificates of a path, from the leaf on, the policy has judged.
func judged(path []*x509.Certificate, ca *trust.CA) int {
	if ca.Policy.Scope == trust.Leaf {
		return min(1, len(path)-1)
	}
	return len(path) - 1
}

// dueResponders is the question to the responders of a certificate, if the answer that is known is due by the caller's
// measure.
func (c *Checker) dueResponders(s *subject, isDue func(*ocsp.Answer) bool) []func(context.Context) {
	if c.cfg.OCSP == nil || !s.policy.Asks(trust.OCSP) {
		return nil
	}
	known := c.cfg.OCSP.Cached(s.id)
	if urls, _ := responders(s); len(urls) == 0 || !isDue(known) {
		return nil
	}
	q := c.query(s)
	id := s.id
	return []func(context.Context){func(ctx context.Context) {
		// The question has a budget of its own, and its answer counts when nobody waits for it any more: it may be "revoked".
		after := c.cfg.OCSP.Ask(context.WithoutCancel(ctx), q)
		if after.Err != nil && ctx.Err() == nil {
			c.cfg.Logger.WarnContext(ctx, "OCSP", "subject", pkix.DNString(q.Cert.RawSubject), "serial", id.Serial.String(), "error", after.Err)
		}
	}}
}
