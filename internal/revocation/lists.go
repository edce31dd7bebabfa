package revocation

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"sync"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation/crl"
	"sekisho/internal/trust"
)

// maxPoints bounds the distribution points of one certificate that are followed.
const maxPoints = 8

// lists asks the CRLs: those configured for the CA, and those that the certificate's distribution points name. Several
// may each cover some reasons only; together they must cover all of them (RFC 5280, Section 6.3.3).
func (c *Checker) lists(s *subject) answer {
	if c.cfg.Lists == nil || !s.policy.Asks(trust.CRL) {
		return answer{}
	}
	all := answer{source: string(trust.CRL)}
	if s.pointsErr != nil {
		// What cannot be read may name a list: as good as one that cannot be had.
		all.state = Unknown
		s.reported(SourceReport{Source: trust.CRL, Origin: fromCertificate, Error: s.pointsErr.Error()}, all)
	}
	lists := c.cfg.Lists.Lists(s.ca.ID)
	for _, held := range lists {
		all.add(c.list(s, held, configured))
	}
	if len(lists) == 0 && len(s.policy.CRLs) > 0 {
		all.state = Unknown // the keeper does not know of them: none that were read may pass for none that are named
		s.reported(SourceReport{Source: trust.CRL, Origin: configured, Error: "the lists of the policy are not loaded"}, all)
	}
	for _, url := range c.pointURLs(s) {
		held := c.cfg.Lists.HeldFor(url, s.issuer)
		if held == nil {
			all.add(c.unheld(s, url))
			continue
		}
		all.add(c.list(s, held, fromCertificate))
	}
	if all.state == "" && len(s.points) > 0 && !s.policy.IgnoreCDP && len(c.pointURLs(s)) == 0 {
		// It names a list, in a way that nothing can be fetched by (LDAP, a name): not the same as naming none.
		all.state = Unknown
		s.reported(SourceReport{Source: trust.CRL, Origin: fromCertificate, Error: "no address that can be fetched"}, all)
	}
	if all.any == pkix.AllReasons && all.state != Revoked {
		all.state, all.due = Good, false
	}
	return all
}

// Where an address comes from, for reports.
const (
	configured      = "configured"
	fromCertificate = "certificate"
)

func originText(o outbound.Trust) string {
	if o == outbound.FromCertificate {
		return fromCertificate
	}
	return configured
}

// owners are the CAs whose places the keeper of lists knows.
type owners struct {
	mu     sync.Mutex
	wanted map[string][]crl.Place // by the latest SetCAs
	gone   map[string]bool        // of an earlier one, and not forgotten yet
}

// replace sets what is wanted, and returns what was before.
func (o *owners) replace(wanted map[string][]crl.Place) (before map[string][]crl.Place) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before = o.wanted
	if o.gone == nil {
		o.gone = make(map[string]bool)
	}
	for id := range before {
		o.gone[id] = true
	}
	o.wanted = wanted
	return before
}

// settle returns what is wanted, and which CAs are so no more.
func (o *owners) settle() (wanted map[string][]crl.Place, gone []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.gone {
		if _, ok := o.wanted[id]; !ok {
			gone = append(gone, id)
		}
	}
	o.gone = nil
	return o.wanted, gone
}

// ids are the CAs that have places.
func (o *owners) ids() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.wanted))
}

// add joins what another list says.
func (a *answer) add(b answer) {
	switch {
	case a.state == Revoked || b.state == "":
		return
	case b.state == Revoked:
		*a = b
		return
	case b.state == Good:
		a.any |= b.any
		a.until = earlier(a.until, b.until)
		a.source = b.source
		if a.state == "" {
			a.state = Unknown // until all reasons are covered
		}
		return
	}
	a.state, a.due = Unknown, a.due || b.due
}

// unheld is the answer of a distribution point that nobody fetched yet.
func (c *Checker) unheld(s *subject, url string) answer {
	began := c.cfg.Lists.Fetching(url, s.issuer)
	a := answer{state: Unknown, due: !c.slow(began, s.now), source: "crl " + url}
	why := "not fetched yet"
	if !began.IsZero() {
		why = notAnswered
	}
	s.reported(SourceReport{Source: trust.CRL, Address: url, Origin: fromCertificate, Error: why}, a)
	return a
}

// dueAgain reports whether a list that is missing or out of date may be fetched now.
func (c *Checker) dueAgain(s *subject, held *crl.Held, origin string) bool {
	return origin == fromCertificate && !s.now.Before(held.NextAttempt) && !c.slow(c.cfg.Lists.Fetching(held.Address, s.issuer), s.now)
}

// list is the answer of one place of lists.
func (c *Checker) list(s *subject, held *crl.Held, origin string) answer {
	a := answer{source: "crl " + held.Address}
	why := ""
	switch list := held.List; {
	case list == nil:
		// Nobody knows whose list this is going to be, so it counts against every certificate of the CA.
		a.state = Unknown
		a.due = c.dueAgain(s, held, origin)
	case !s.sameName(list) && !list.Indirect():
		why = "it is of another CA, " + pkix.DNString(list.IssuerName())
		if a.state = s.unanswered(origin); errors.Is(held.Err, crl.ErrSuccessor) {
			a.state = Unknown
		}
	default:
		may, due := c.mayIssue(s, list.Issuer())
		if !may {
			why = "it is signed by a key that is not of this CA, or not known to be good"
			if a.state = s.unanswered(origin); s.sameName(list) {
				a.state = Unknown // a list under the CA's name that does not count must not pass for no list
			}
			a.due = due
			break
		}
		a, why = s.judgeList(list, origin, a)
		if a.state == Good && !list.Taken(s.policy.Allows) {
			a.state, a.any, why = Unknown, 0, "its signature algorithm, "+list.SignatureAlgorithm()+", is not taken"
		}
		if a.state == Good && !held.Current(s.now, s.policy.Grace) {
			a.state, a.any, why = Unknown, 0, "it has no nextUpdate, and was seen at its source too long ago"
		}
		if a.state == Unknown {
			a.due = c.dueAgain(s, held, origin)
		}
	}
	if s.report != nil {
		s.reported(listReport(held, origin, why, s), a)
	}
	return a
}

// judgeList is the answer of a list that may speak of the certificate.
func (s *subject) judgeList(list *crl.List, origin string, a answer) (answer, string) {
	reasons, covers := list.Covers(s.cert, s.points, s.cert.BasicConstraintsValid && s.cert.IsCA)
	if !covers {
		if a.state = s.unanswered(origin); s.sameName(list) {
			// A list of the certificate's own CA that leaves it out must not pass for a list that has nothing on it.
			a.state = Unknown
		}
		return a, "its issuing distribution point leaves this certificate out"
	}
	if e, ok := list.Lookup(s.cert.RawIssuer, pkix.SerialOf(s.cert.SerialNumber)); ok {
		a.state, a.entry = Revoked, Entry{ID: s.id, Reason: e.Reason, At: e.At}
		return a, ""
	}
	if !list.Fresh(s.now, s.policy.Grace) {
		a.state = Unknown
		switch {
		case !list.Readable():
			return a, "its copy on disk cannot be read any more"
		case list.ThisUpdate().After(s.now):
			return a, "its thisUpdate is in the future"
		}
		return a, "its nextUpdate has passed"
	}
	a.state, a.any = Good, reasons
	if next := list.NextUpdate(); !next.IsZero() {
		a.until = next.Add(s.policy.Grace)
	}
	return a, ""
}

// unanswered is what a list of somebody else means: nothing among those configured for a CA, but that the list which the
// certificate names is still missing where it was found in that one's place.
func (s *subject) unanswered(origin string) State {
	if origin == fromCertificate {
		return Unknown
	}
	return ""
}

// sameName reports whether the list's issuer has the name of the certificate's.
func (s *subject) sameName(list *crl.List) bool {
	return pkix.SameName(list.IssuerName(), s.cert.RawIssuer)
}

// maxDepth bounds how far the question goes on whether the signer of a list is itself revoked.
const maxDepth = 3

// mayIssue reports whether a certificate whose key signed a list may speak for the CA of the certificate that is judged
// (RFC 5280, Section 6.3.3 (f)): it is the issuer's key, one of the path above it, or one that is itself valid, and not
// revoked, under the same trust anchor. due: sources about the signer are to be asked first.
func (c *Checker) mayIssue(s *subject, signer *x509.Certificate) (may, due bool) {
	same := func(c *x509.Certificate) bool {
		return bytes.Equal(c.RawSubjectPublicKeyInfo, signer.RawSubjectPublicKeyInfo)
	}
	if same(s.issuer) || slices.ContainsFunc(s.path[1:], same) {
		return true, false
	}
	if s.depth >= maxDepth {
		return false, false
	}
	path := c.signers.path(s, signer)
	for i := range len(path) - 1 {
		if v := c.judgeOne(path, i, s.ca, s.now, s.depth+1); !v.Allows() {
			return false, v.Pending
		}
	}
	return len(path) > 0, false
}

// signerSubjects are the certificates of those that signed lists about a certificate without being above it.
func (c *Checker) signerSubjects(s *subject) []subject {
	if c.cfg.Lists == nil || s.depth >= maxDepth || !s.policy.Asks(trust.CRL) {
		return nil
	}
	held := slices.Clone(c.cfg.Lists.Lists(s.ca.ID))
	for _, url := range c.pointURLs(s) {
		held = append(held, c.cfg.Lists.HeldFor(url, s.issuer))
	}
	var subjects []subject
	for _, h := range held {
		if h == nil || h.List == nil || !s.sameName(h.List) && !h.List.Indirect() || slices.ContainsFunc(s.path[1:], func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubjectPublicKeyInfo, h.List.Issuer().RawSubjectPublicKeyInfo)
		}) {
			continue
		}
		path := c.signers.path(s, h.List.Issuer())
		for i := range len(path) - 1 { // each, as mayIssue judges them
			next := c.subject(path, i, s.ca, s.now)
			next.depth = s.depth + 1
			subjects = append(subjects, next)
		}
	}
	return subjects
}

// KnownRevoked reports whether a certificate is known, from memory and under no policy, to be revoked by its issuer's own
// ledger, or by a list of that very key. It is for the certificates of OCSP responders.
func (c *Checker) KnownRevoked(cert, issuer *x509.Certificate) bool {
	if _, ok := c.cfg.Index.Lookup(pkix.CertIDOf(cert, issuer)); ok {
		return true
	}
	if c.cfg.Lists == nil {
		return false
	}
	points, _, _ := pkix.CertificateDistributionPoints(cert) // those that cannot be read name no list that is held
	var held []*crl.Held
	for _, p := range points[:min(len(points), maxPoints)] {
		for _, url := range p.URLs() {
			held = append(held, c.cfg.Lists.HeldFor(url, issuer))
		}
	}
	for _, id := range c.owners.ids() {
		held = append(held, c.cfg.Lists.Lists(id)...)
	}
	return slices.ContainsFunc(held, func(h *crl.Held) bool {
		if h == nil || h.List == nil || !bytes.Equal(h.List.Issuer().RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo) {
			return false
		}
		if _, covers := h.List.Covers(cert, points, cert.BasicConstraintsValid && cert.IsCA); !covers {
			return false
		}
		_, revoked := h.List.Lookup(cert.RawIssuer, pkix.SerialOf(cert.SerialNumber))
		return revoked
	})
}

// pointURLs are the addresses of lists in the certificate that are not configured as well.
func (c *Checker) pointURLs(s *subject) []string {
	if s.policy.IgnoreCDP {
		return nil
	}
	var urls []string
	for _, p := range s.points {
		for _, url := range p.URLs() {
			if len(urls) < maxPoints && !slices.Contains(urls, url) && !slices.Contains(s.policy.CRLs, url) {
				urls = append(urls, url)
			}
		}
	}
	return urls
}

// place is how the keeper of lists is told of a distribution point.
func (s *subject) place(url string) crl.Place {
	issuers := []*x509.Certificate{s.issuer}
	for _, c := range slices.Concat(s.path[1:], s.ca.Anchors, s.ca.Intermediates) {
		if !slices.Contains(issuers, c) {
			issuers = append(issuers, c)
		}
	}
	return crl.Place{Address: url, Origin: outbound.FromCertificate, Issuers: issuers, Allows: s.policy.Allows, Refresh: s.policy.Refresh}
}

// dueLists are the fetches of distribution points that nobody holds or whose list is out of date.
func (c *Checker) dueLists(s *subject) []func(context.Context) {
	if c.cfg.Lists == nil || !s.policy.Asks(trust.CRL) {
		return nil
	}
	var fetches []func(context.Context)
	for _, url := range c.pointURLs(s) {
		held := c.cfg.Lists.HeldFor(url, s.issuer)
		switch {
		case held == nil, held.List == nil && !s.now.Before(held.NextAttempt),
			held.List != nil && !held.Current(s.now, s.policy.Grace) && !s.now.Before(held.NextAttempt),
			s.policy.Refresh > 0 && s.now.Sub(held.LastAttempt) > s.policy.Refresh && s.now.Before(held.NextAttempt): // it learns of the interval
			place := s.place(url)
			fetches = append(fetches, func(ctx context.Context) {
				if _, err := c.cfg.Lists.Demand(ctx, place); err != nil && ctx.Err() == nil {
					c.cfg.Logger.WarnContext(ctx, "CRL", "url", url, "error", err)
				}
			})
		}
	}
	return fetches
}

// SetCAs tells the keepers which places are configured, by the CAs that are about to be in force. What is new is loaded
// before it returns, as far as ctx lets it: problems are logged, held against the certificates they are about, and tried
// again by the keepers' Run. Places of the CAs before stay, since certificates are still judged by them, until
// [Checker.ForgetCAs]. Calls of the two must not overlap.
func (c *Checker) SetCAs(ctx context.Context, cas []trust.CA) {
	if c.cfg.Sets != nil {
		c.cfg.Sets.SetPlaces(ctx, cas)
		defer c.cfg.Sets.Load(ctx) // URLs last: nothing that hangs there keeps a list from being loaded
	}
	if c.cfg.Lists == nil {
		return
	}
	wanted := make(map[string][]crl.Place)
	for _, ca := range cas {
		wanted[ca.ID] = configuredPlaces(ca)
	}
	before := c.owners.replace(wanted)
	for id, places := range wanted {
		c.cfg.Lists.SetPlaces(id, append(slices.Clip(places), missing(before[id], places)...))
	}
	if err := c.cfg.Lists.LoadAll(ctx); err != nil {
		c.cfg.Logger.ErrorContext(ctx, "lists of revoked certificates could not be loaded: certificates that they are about are judged as the policy says", "error", err)
	}
}

// ForgetCAs has the keepers forget the places that the latest [Checker.SetCAs] did not name. It is called once nobody
// judges by the CAs before any more.
func (c *Checker) ForgetCAs() {
	if c.cfg.Sets != nil {
		c.cfg.Sets.Forget()
	}
	if c.cfg.Lists == nil {
		return
	}
	wanted, gone := c.owners.settle()
	for id, places := range wanted {
		c.cfg.Lists.SetPlaces(id, places)
	}
	for _, id := range gone {
		c.cfg.Lists.SetPlaces(id, nil)
	}
}

// configuredPlaces are the lists that the policy of a CA names.
func configuredPlaces(ca trust.CA) []crl.Place {
	places := make([]crl.Place, 0, len(ca.Policy.CRLs))
	for _, address := range ca.Policy.CRLs {
		places = append(places, crl.Place{
			Address: address, Origin: outbound.FromOperator, Issuers: slices.Concat(ca.Anchors, ca.Intermediates),
			Allows: ca.Policy.Allows, Refresh: ca.Policy.Refresh,
		})
	}
	return places
}

// missing are the places of a whose address b does not have.
func missing(a, b []crl.Place) []crl.Place {
	return slices.DeleteFunc(slices.Clone(a), func(p crl.Place) bool {
		return slices.ContainsFunc(b, func(q crl.Place) bool { return q.Address == p.Address })
	})
}

// listReport is the part of a report about a list.
func listReport(held *crl.Held, origin, why string, s *subject) SourceReport {
	r := SourceReport{
		Source: trust.CRL, Address: held.Address, Origin: origin,
		LastAttempt: reported(held.LastAttempt), NextAttempt: reported(held.NextAttempt), Error: why,
	}
	if held.Err != nil {
		r.Error = joined(r.Error, held.Err.Error())
	}
	list := held.List
	if list == nil {
		return r
	}
	r.Fresh = held.Current(s.now, s.policy.Grace)
	r.ThisUpdate, r.NextUpdate = reported(list.ThisUpdate()), reported(list.NextUpdate())
	if n := list.Number(); n != nil {
		r.Number = n.String()
	}
	if n := list.DeltaNumber(); n != nil {
		r.DeltaNumber = n.String()
	}
	r.Signature, r.Signer = list.SignatureAlgorithm(), pkix.DNString(list.Issuer().RawSubject)
	return r
}
