package verify

import (
	"cmp"
	"crypto/x509"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation"
	"sekisho/internal/trust"
)

// Explanation says how certificates were judged: the path that was found, the CA and its policy, and every source that
// was asked about each certificate of the path. The JSON form is that of the API and of `sekisho explain`.
type Explanation struct {
	RequestID   string              `json:"request_id,omitempty"` // of a refused request
	Host        string              `json:"host,omitempty"`
	Mode        string              `json:"mode,omitempty"`   // of the host: off, request or require
	Remote      string              `json:"remote,omitempty"` // the client's address
	At          time.Time           `json:"at"`
	Decision    string              `json:"decision"` // valid, refused, or pending: it is made when the sources were asked
	Reason      identity.Reason     `json:"reason"`   // empty when valid
	Text        string              `json:"text"`     // the reason in words
	Revocation  string              `json:"revocation,omitempty"`
	Certificate *CertificateFacts   `json:"certificate"` // the leaf; null when none was presented
	Presented   int                 `json:"presented"`   // certificates that the client sent
	Path        []CertificateFacts  `json:"path"`        // leaf first, trust anchor last; empty when none was found
	CA          *CAFacts            `json:"ca"`          // whose anchor the path ends in
	TrustSet    []CAFacts           `json:"trust_set"`   // the CAs that clients of the host may be of
	Sources     []revocation.Report `json:"revocation_reports"`
}

// CertificateFacts name a certificate.
type CertificateFacts struct {
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	Serial      string    `json:"serial_number"`
	Fingerprint string    `json:"fingerprint_sha256"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
}

// CAFacts name a CA that a host trusts, and how its clients are judged.
type CAFacts struct {
	ID     string       `json:"id"`
	Name   string       `json:"name"`
	Policy trust.Policy `json:"policy"`
}

// Explain judges certificates like [Verifier.Check] and says how. It reads memory only and allocates freely: it is for
// people, and for refusals.
func (v *Verifier) Explain(set *trust.Set, presented []*x509.Certificate) Explanation {
	return v.ExplainIdentity(set, v.Check(set, presented))
}

// ExplainIdentity explains an identity that was judged under set.
func (v *Verifier) ExplainIdentity(set *trust.Set, id identity.Identity) Explanation {
	now := v.now()
	e := Explanation{
		At: now.UTC(), Decision: "valid", Reason: id.Reason(), Revocation: id.Revocation(), Presented: len(id.Chain()),
		Path: []CertificateFacts{}, TrustSet: []CAFacts{}, Sources: []revocation.Report{},
	}
	switch {
	case id.Reason() == identity.RevocationPending:
		e.Decision = "pending"
	case !id.Verified():
		e.Decision = "refused"
	}
	switch err := id.Err(); {
	case err != nil:
		e.Text = clip(err.Error())
	case !id.Presented():
		e.Text = "no certificate was presented"
	}
	for _, ca := range set.CAs() {
		e.TrustSet = append(e.TrustSet, caFacts(&ca))
	}
	if leaf := id.Leaf(); leaf != nil {
		facts := factsOf(leaf)
		e.Certificate = &facts
	}
	for _, c := range id.Path() {
		e.Path = append(e.Path, factsOf(c))
	}
	if ca := caOf(set, id); ca != nil {
		facts := caFacts(ca)
		e.CA = &facts
		_, e.Sources = v.checker.Explain(id.Path(), ca, now)
	}
	return e
}

// caFacts name a CA. That of the house has no id of its own.
func caFacts(ca *trust.CA) CAFacts { return CAFacts{cmp.Or(ca.ID, ca.Name), ca.Name, ca.Policy} }

// clip bounds a text that a stranger may have written: explanations of refusals are kept.
func clip(text string) string { return text[:min(len(text), 1024)] }

func factsOf(c *x509.Certificate) CertificateFacts {
	return CertificateFacts{
		Subject: clip(pkix.DNString(c.RawSubject)), Issuer: clip(pkix.DNString(c.RawIssuer)), Serial: pkix.SerialOf(c.SerialNumber).String(),
		Fingerprint: pkix.FingerprintOf(c.Raw).String(), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
	}
}
