package revocation

import (
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// State is what is known of a certificate.
type State string

// The states. Unknown is never good: whether it lets a client in is the policy's to say.
const (
	Good      State = "good"      // as many sources as the policy wants say so, freshly
	Revoked   State = "revoked"   // a source says so, at whatever age
	Unknown   State = "unknown"   // there are sources, and no fresh answer
	Unchecked State = "unchecked" // no source speaks of the certificate: let in, and said so
)

// Verdict is what the sources together say of a path: of the certificate that is worst off. The zero Verdict is not
// one.
type Verdict struct {
	State   State
	Index   int       // of the certificate in the path
	Pending bool      // with Unknown: a fetch may change it and was not tried of late; see [Checker.Resolve]
	Soft    bool      // with Unknown: the policy lets the client in
	Until   time.Time // the verdict holds until a source changes or, when not zero, until then
	Entry   Entry     // with Revoked
	Source  string    // what decided: "ledger", "crl http://…"
}

// Allows reports whether the verdict lets a client in.
func (v Verdict) Allows() bool { return v.State != Revoked && (v.State != Unknown || v.Soft) }

// Report explains how a certificate was judged, source by source. It is made on demand ([Checker.Explain]); judging
// itself makes none.
type Report struct {
	Subject    string         `json:"subject"`
	Serial     string         `json:"serial_number"`
	Issuer     string         `json:"issuer"`
	State      State          `json:"state"`
	DecidedBy  string         `json:"decided_by,omitempty"`
	PolicyLine string         `json:"policy"` // the rule that made the state of the answers
	Reason     string         `json:"reason,omitempty"`
	RevokedAt  *time.Time     `json:"revoked_at,omitempty"`
	Sources    []SourceReport `json:"sources"`
}

// SourceReport is one source of a [Report].
type SourceReport struct {
	Source      trust.Source `json:"source"`
	Address     string       `json:"address,omitempty"`
	Origin      string       `json:"origin,omitempty"` // configured, or certificate: where the address comes from
	Answer      string       `json:"answer"`           // good, revoked, unknown, none, or does not apply
	Fresh       bool         `json:"fresh"`
	Decided     bool         `json:"decided"`
	Number      string       `json:"number,omitempty"` // of a CRL, decimal; of a CRLSet, its sequence
	DeltaNumber string       `json:"delta_number,omitempty"`
	ThisUpdate  *time.Time   `json:"this_update,omitempty"`
	NextUpdate  *time.Time   `json:"next_update,omitempty"`
	Signature   string       `json:"signature,omitempty"` // algorithm
	Signer      string       `json:"signer,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	RevokedAt   *time.Time   `json:"revoked_at,omitempty"`
	LastAttempt *time.Time   `json:"last_attempt,omitempty"`
	NextAttempt *time.Time   `json:"next_attempt,omitempty"`
	Error       string       `json:"error,omitempty"` // of the last attempt, or why the source does not apply
}

// reported is a time for a report; nil when it is zero.
func reported(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// answer is what one source says of one certificate.
type answer struct {
	state  State // Good, Revoked, Unknown; "" when the source has nothing to do with the certificate
	until  time.Time
	due    bool // with Unknown: a fetch may be tried now
	entry  Entry
	source string
	any    pkix.ReasonFlags // of CRLs that cover some reasons only: those covered
}
