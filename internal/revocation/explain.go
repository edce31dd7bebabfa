package revocation

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/revocation/ocsp"
	"sekisho/internal/trust"
)

// DoesNotApply is the answer of a source that has nothing to say about a certificate.
const DoesNotApply = "does not apply"

// reported adds what a source said to the subject's report, if somebody wants one.
func (s *subject) reported(r SourceReport, a answer) {
	if s.report == nil {
		return
	}
	switch a.state {
	case Good, Revoked, Unknown:
		r.Answer = string(a.state)
	case Unchecked, "":
		r.Answer = DoesNotApply
	}
	if a.state == Revoked {
		r.Reason, r.RevokedAt = a.entry.Reason.String(), reported(a.entry.At)
	}
	s.report.Sources = append(s.report.Sources, r)
}

// Explain judges like [Checker.Judge], and says how: a report for each certificate below the trust anchor, the leaf's
// first. The sources that decided are marked.
func (c *Checker) Explain(path []*x509.Certificate, ca *trust.CA, now time.Time) (Verdict, []Report) {
	verdict := c.Judge(path, ca, now)
	var reports []Report
	for i := range max(len(path)-1, 0) {
		report := Report{
			Subject: pkix.DNString(path[i].RawSubject), Serial: pkix.SerialOf(path[i].SerialNumber).String(),
			Issuer: pkix.DNString(path[i].RawIssuer), Sources: []SourceReport{},
		}
		s := c.subject(path, i, ca, now)
		s.report = &report
		v := combine(s.policy, c.answers(&s))
		if i > 0 && ca.Policy.Scope == trust.Leaf && v.State != Revoked {
			v = Verdict{State: Unchecked}
			report.PolicyLine = "scope leaf: certificates of CAs are not judged"
		}
		report.fill(v, s.policy)
		reports = append(reports, report)
	}
	return verdict, reports
}

// fill sets what the verdict says.
func (r *Report) fill(v Verdict, p *trust.Policy) {
	r.State, r.DecidedBy = v.State, v.Source
	if r.PolicyLine == "" {
		r.PolicyLine = policyLine(v, p)
	}
	if v.State == Revoked {
		r.Reason, r.RevokedAt = v.Entry.Reason.String(), reported(v.Entry.At)
	}
	for i := range r.Sources {
		s := &r.Sources[i]
		s.Decided = s.Answer == string(v.State) && (v.State == Unknown || decides(s, v.Source))
	}
}

// decides reports whether a source is among those that the verdict names.
func decides(s *SourceReport, named string) bool {
	name := string(s.Source)
	if s.Address != "" {
		name += " " + s.Address
	}
	return slices.Contains(strings.Split(named, ", "), name)
}

// policyLine is the rule by which a state came about, in words.
func policyLine(v Verdict, p *trust.Policy) string {
	switch v.State {
	case Revoked:
		return "revoked from any source is revoked"
	case Unchecked:
		return "no source speaks of this certificate: let in, unchecked"
	case Unknown:
		if v.Soft {
			return "on_failure soft: let in without a fresh answer"
		}
		if p.Require == trust.RequireAll {
			return "require all, on_failure hard: refused without a fresh answer of every source"
		}
		return "require any, on_failure hard: refused without a fresh answer"
	case Good:
	}
	if p.Require == trust.RequireAll {
		return "require all: every source says good, freshly"
	}
	return "require any: one fresh good answer is enough"
}

// ocspReport is the part of a report about OCSP.
func ocspReport(known *ocsp.Answer, urls []string, origin string, fresh bool) SourceReport {
	r := SourceReport{Source: trust.OCSP, Origin: origin, Fresh: fresh}
	if len(urls) > 0 {
		r.Address = urls[0]
	}
	if known == nil {
		r.Error = "not asked yet"
		return r
	}
	r.LastAttempt, r.NextAttempt = reported(known.Asked), reported(known.RetryAt)
	if known.Err != nil {
		r.Error = known.Err.Error()
	}
	if known.Checked {
		r.Address, r.Signer, r.Signature = known.Responder, known.Signer, known.Algorithm
		r.ThisUpdate, r.NextUpdate = reported(known.ThisUpdate), reported(known.NextUpdate)
	}
	return r
}
