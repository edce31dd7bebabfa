package certpath

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// Purpose is what the leaf's key is going to be used for.
type Purpose int

// The purposes.
const (
	Client      Purpose = iota // clientAuth; digitalSignature or keyAgreement where there is a key usage
	Server                     // serverAuth; digitalSignature, keyEncipherment or keyAgreement
	OCSPSigning                // OCSPSigning, which must be named (RFC 6960, Section 4.2.2.2); digitalSignature or nonRepudiation
	AnyPurpose                 // usage extensions of the leaf, and extended ones of its issuers, do not matter
)

// Defaults and bounds.
const (
	DefaultMaxDepth   = 10      // certificates of a path
	DefaultBudget     = 100     // signature checks
	DefaultNameBudget = 250_000 // comparisons of a name with a constraint

	maxPresented      = 128
	maxPresentedBytes = 512 << 10
	maxSteps          = 20_000 // extensions of a path, tried in one search
	maxPaths          = 8      // paths returned
)

// Options say what a path must be. At and Anchors have no default: without them nothing is valid or trusted.
type Options struct {
	Anchors       []*x509.Certificate // a path ends in one of these
	Intermediates []*x509.Certificate // known beside those presented
	At            time.Time           // the moment for which validity is judged
	Purpose       Purpose
	Host          string // what the leaf's subject alternative names must match; "": not asked

	MaxDepth   int // certificates of a path, leaf and anchor included; 0: DefaultMaxDepth
	Budget     int // signature checks; 0: DefaultBudget
	NameBudget int // comparisons of names with constraints; 0: DefaultNameBudget

	// Inputs of RFC 5280, Section 6.1.1 (c), (e), (f), (g). Policies alone demand nothing unless a CA of the path, or
	// RequireExplicitPolicy, does.
	Policies              []x509.OID // user-initial-policy-set; empty: any
	RequireExplicitPolicy bool
	InhibitPolicyMapping  bool
	InhibitAnyPolicy      bool

	EKU            string                      // trust.EKUDemand (also ""): extended key usages count where they are; trust.EKUIgnore
	Allows         func(algorithm string) bool // nil: the default of trust.Policy
	IgnoreValidity bool                        // take paths outside their validity too; Build returns them only when there is no other
}

// Path is a certification path: the leaf, its issuer, and so on to the anchor.
type Path []*x509.Certificate

// Reason says in one word why there is no path. The set is closed.
type Reason string

// The reasons.
const (
	Untrusted       Reason = "untrusted"        // no anchor issued it, by name
	BadSignature    Reason = "bad_signature"    // the names lead to an anchor, the signatures do not
	WeakSignature   Reason = "weak_signature"   // an algorithm or key that is not taken
	Expired         Reason = "expired"          // past notAfter
	NotYetValid     Reason = "not_yet_valid"    // before notBefore
	WrongUsage      Reason = "wrong_usage"      // extended or plain key usage does not allow the purpose
	WrongHost       Reason = "wrong_host"       // no subject alternative name for Options.Host
	NotACA          Reason = "not_a_ca"         // an issuer may not issue certificates
	PathTooLong     Reason = "path_too_long"    // more CAs below one than its pathLenConstraint allows
	NameConstraints Reason = "name_constraints" // a name outside what a CA above may name
	Policy          Reason = "policy"           // no acceptable certificate policy
	Malformed       Reason = "malformed"        // unknown critical extension, or one that cannot be read
	TooComplex      Reason = "too_complex"      // more work than the budgets allow
)

// Error is why there is no path, or why one is not valid.
type Error struct {
	Reason Reason
	Cert   *x509.Certificate // the certificate that is at fault
	Index  int               // of Cert in the path, 0 for the leaf; -1 without one
	Err    error
}

// Error names the certificate and what is wrong with it.
func (e *Error) Error() string {
	if e.Cert == nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("certificate %.200q: %v", pkix.DNString(e.Cert.RawSubject), e.Err)
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Build looks for paths from the leaf to an anchor, among the certificates that were presented with it (in any order;
// the leaf may be one of them) and Options.Intermediates. It returns at least one and at most eight valid paths, the
// preferred ones first: issuers whose key identifier fits, that are valid, and nearest to an anchor. The error is an
// [*Error]: of the preferred path whose signatures are good, or why there is none of these.
func Build(leaf *x509.Certificate, presented []*x509.Certificate, o Options) ([]Path, error) {
	if err := bounded(leaf, presented); err != nil {
		return nil, err
	}
	s := newSearch(leaf, presented, o)
	if isIn(leaf, o.Anchors) {
		if err := s.judge([]step{{node: s.leaf}}); err != nil {
			return nil, err
		}
		return []Path{{leaf}}, nil
	}
	if err := s.run(); err != nil {
		return nil, err
	}
	return s.paths, nil
}

// Validate judges one path, which must end in one of Options.Anchors. The error is an [*Error].
func Validate(path Path, o Options) error {
	if len(path) == 0 {
		return &Error{Reason: Untrusted, Index: -1, Err: errEmptyPath}
	}
	if err := bounded(path[0], path[1:]); err != nil {
		return err
	}
	s := newSearch(path[0], nil, o)
	steps := []step{{node: s.leaf}}
	for i, c := range path[1:] {
		if !pkix.SameName(path[i].RawIssuer, c.RawSubject) {
			return &Error{Untrusted, path[i], i, errNameChain}
		}
		steps = append(steps, step{newNode(c), &edge{}})
	}
	last := len(path) - 1
	steps[last].node.anchor = true
	switch {
	case !isIn(path[last], o.Anchors):
		return &Error{Untrusted, path[last], last, errNoAnchor}
	case len(path) > s.o.MaxDepth:
		return &Error{TooComplex, path[0], 0, fmt.Errorf("its path has %d certificates; at most %d are taken", len(path), s.o.MaxDepth)}
	case !s.signed(steps):
		return firstOf(s.spent, s.unsigned)
	}
	if err := s.judge(steps); err != nil {
		return err
	}
	return nil
}

// bounded refuses input that is too much to look at, and certificates that were not parsed.
func bounded(leaf *x509.Certificate, presented []*x509.Certificate) error {
	if leaf == nil || len(leaf.Raw) == 0 {
		return &Error{Reason: Malformed, Index: -1, Err: errNotParsed}
	}
	if len(presented) > maxPresented {
		return &Error{TooComplex, leaf, 0, fmt.Errorf("%d certificates came with it; at most %d are looked at", len(presented), maxPresented)}
	}
	size := len(leaf.Raw)
	for _, c := range presented {
		if c == nil || len(c.Raw) == 0 {
			return &Error{Reason: Malformed, Index: -1, Err: errNotParsed}
		}
		size += len(c.Raw)
	}
	if size > maxPresentedBytes {
		return &Error{TooComplex, leaf, 0, fmt.Errorf("%d bytes of certificates; at most %d are looked at", size, maxPresentedBytes)}
	}
	return nil
}

// isIn reports whether the very certificate is in the list.
func isIn(c *x509.Certificate, list []*x509.Certificate) bool {
	for _, other := range list {
		if c == other || bytes.Equal(c.Raw, other.Raw) {
			return true
		}
	}
	return false
}

// withDefaults fills in what zero values stand for.
func (o Options) withDefaults() Options {
	if o.MaxDepth <= 0 {
		o.MaxDepth = DefaultMaxDepth
	}
	if o.Budget <= 0 {
		o.Budget = DefaultBudget
	}
	if o.NameBudget <= 0 {
		o.NameBudget = DefaultNameBudget
	}
	if o.Allows == nil {
		o.Allows = trust.Policy{}.Allows
	}
	return o
}
