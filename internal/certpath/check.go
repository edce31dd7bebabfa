package certpath

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// Errors without a detail.
var (
	errNotCA      = errors.New("it is no CA: basicConstraints with CA:TRUE are missing")
	errNoCertSign = errors.New("its key usage does not allow it to sign certificates")
	errPathLen    = errors.New("more CAs are below it than its pathLenConstraint allows")
	errNegative   = errors.New("a number in an extension is negative")
	errEmptyUsage = errors.New("its extended key usage is empty")
	errEKU        = errors.New("its extended key usage does not name the purpose")
)

// facts are what the extensions of a certificate say beyond what crypto/x509 makes of them.
type facts struct {
	err         error // it is malformed
	hasUsage    bool  // keyUsage, be it without a bit
	hasEKU      bool
	hasPolicies bool
	san         []byte // nil: absent
	policies    []byte
	mappings    []byte
	constraints *constraints // nil: absent
}

// The last arcs of extensions under id-ce, 2.5.29.
const (
	idKeyUsage         = 15
	idSubjectAltName   = 17
	idNameConstraints  = 30
	idPolicies         = 32
	idPolicyMappings   = 33
	idExtKeyUsage      = 37
	idFreshestCRL      = 46
	idCRLDistribution  = 31
	idCELength         = 4
	idCE0, idCE1, idCE = 2, 5, 29
)

// arcOf is the last arc of an extension under id-ce, or -1.
func arcOf(id asn1.ObjectIdentifier) int {
	if len(id) == idCELength && id[0] == idCE0 && id[1] == idCE1 && id[2] == idCE {
		return id[3]
	}
	return -1
}

// factsOf reads the extensions.
func factsOf(c *x509.Certificate) facts {
	var f facts
	for i := range c.Extensions {
		value := c.Extensions[i].Value
		switch arcOf(c.Extensions[i].Id) {
		case idKeyUsage:
			f.hasUsage = true
		case idExtKeyUsage:
			f.hasEKU = true
			if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
				f.err = errEmptyUsage // RFC 5280, Section 4.2.1.12: SIZE (1..MAX)
			}
		case idSubjectAltName:
			f.san = value
		case idPolicies:
			f.hasPolicies, f.policies = true, value
		case idPolicyMappings:
			f.mappings = value
		case idNameConstraints:
			parsed, err := parseConstraints(value)
			if err != nil {
				f.err = err
			}
			f.constraints = parsed
		}
	}
	if c.MaxPathLen < -1 || c.RequireExplicitPolicy < 0 || c.InhibitPolicyMapping < 0 || c.InhibitAnyPolicy < 0 {
		f.err = errNegative
	}
	for _, id := range c.UnhandledCriticalExtensions {
		if !f.handles(arcOf(id)) {
			f.err = fmt.Errorf("critical extension %v is not known", id)
		}
	}
	return f
}

// handles reports whether a critical extension that crypto/x509 left alone is read after all: name constraints here,
// distribution points by those who ask for revocation. crypto/x509 leaves a subjectAltName alone when none of its forms
// is known; a directory name is known here.
func (f facts) handles(arc int) bool {
	switch arc {
	case idNameConstraints, idCRLDistribution, idFreshestCRL:
		return true
	case idSubjectAltName:
		names, err := appendAltNames(nil, f.san)
		return err == nil && slices.ContainsFunc(names, func(n name) bool { return n.form == formDirectory })
	}
	return false
}

// judge checks a whole path but for its signatures and the chain of names.
func (s *search) judge(path []step) *Error {
	if err := s.checkLeaf(path[0].node); err != nil {
		return err
	}
	for i := 1; i < len(path); i++ {
		if err := s.admit(path[:i], path[i].node); err != nil {
			return err
		}
		if err := s.checkNames(path[:i], path[i].node); err != nil {
			return err
		}
	}
	return s.checkPolicies(path)
}

// checkLeaf checks what concerns the leaf alone.
func (s *search) checkLeaf(leaf *node) *Error {
	c := leaf.cert
	if leaf.facts.err != nil {
		return &Error{Malformed, c, 0, leaf.facts.err}
	}
	if err := s.checkValidity(c, 0); err != nil {
		return err
	}
	if err := checkKey(c); err != nil {
		return &Error{WeakSignature, c, 0, fmt.Errorf("its key: %w", err)}
	}
	if err := s.checkUsage(leaf); err != nil {
		return &Error{WrongUsage, c, 0, err}
	}
	if s.o.Host != "" {
		if err := c.VerifyHostname(s.o.Host); err != nil {
			return &Error{WrongHost, c, 0, err}
		}
	}
	return nil
}

// checkValidity checks the validity period, unless it does not matter in this pass.
func (s *search) checkValidity(c *x509.Certificate, index int) *Error {
	if s.mode == undated || s.mode == diagnose && s.o.IgnoreValidity {
		return nil
	}
	switch {
	case s.o.At.After(c.NotAfter):
		return &Error{Expired, c, index, fmt.Errorf("expired at %s", c.NotAfter.UTC().Format(time.RFC3339))}
	case s.o.At.Before(c.NotBefore):
		return &Error{NotYetValid, c, index, fmt.Errorf("not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))}
	}
	return nil
}

// checkUsage checks the leaf's usage extensions. RFC 5280, Section 4.2.1.12: both are to be obeyed, and says which bits
// of the key usage are consistent with a purpose.
func (s *search) checkUsage(leaf *node) error {
	var bits x509.KeyUsage
	var names string
	switch s.o.Purpose {
	case Client:
		bits, names = x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement, "digitalSignature nor keyAgreement"
	case Server:
		bits = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement
		names = "digitalSignature, keyEncipherment nor keyAgreement"
	case OCSPSigning:
		bits, names = x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment, "digitalSignature nor nonRepudiation"
		if !leaf.facts.hasEKU && s.o.EKU != trust.EKUIgnore {
			return errEKU
		}
	case AnyPurpose:
		return nil
	}
	if leaf.facts.hasUsage && leaf.cert.KeyUsage&bits == 0 {
		return errors.New("its key usage has neither " + names)
	}
	return s.checkExtendedUsage(leaf)
}

// checkExtendedUsage checks that an extended key usage, where there is one, names the purpose or any. For issuers the
// RFC leaves it open; crypto/x509, OpenSSL and others take theirs as a limit on what they issue.
func (s *search) checkExtendedUsage(n *node) error {
	if !n.facts.hasEKU || s.o.EKU == trust.EKUIgnore {
		return nil
	}
	var want x509.ExtKeyUsage
	switch s.o.Purpose {
	case Client:
		want = x509.ExtKeyUsageClientAuth
	case Server:
		want = x509.ExtKeyUsageServerAuth
	case OCSPSigning:
		want = x509.ExtKeyUsageOCSPSigning
	case AnyPurpose:
		return nil
	}
	for _, usage := range n.cert.ExtKeyUsage {
		if usage == want || usage == x509.ExtKeyUsageAny {
			return nil
		}
	}
	return errEKU
}

// admit checks that issuer may be the issuer of the last certificate of the path below it, but for its name constraints.
func (s *search) admit(below []step, issuer *node) *Error {
	c, index := issuer.cert, len(below)
	if issuer.facts.err != nil {
		return &Error{Malformed, c, index, issuer.facts.err}
	}
	if err := s.checkValidity(c, index); err != nil {
		return err
	}
	// An anchor is a CA because it was configured as one, unless it denies it: X.509 v1 has no extension to say so.
	if issuer.anchor && c.BasicConstraintsValid && !c.IsCA || !issuer.anchor && (c.Version != 3 || !c.BasicConstraintsValid || !c.IsCA) {
		return &Error{NotACA, c, index, errNotCA}
	}
	if issuer.facts.hasUsage && c.KeyUsage&x509.KeyUsageCertSign == 0 { // RFC 5280, Section 6.1.4 (n)
		return &Error{NotACA, c, index, errNoCertSign}
	}
	if err := s.checkExtendedUsage(issuer); err != nil {
		return &Error{WrongUsage, c, index, err}
	}
	if c.BasicConstraintsValid && c.MaxPathLen >= 0 { // RFC 5280, Section 6.1.4 (l), (m)
		cas := 0
		for _, p := range below[1:] {
			if !selfIssued(p.node.cert) {
				cas++
			}
		}
		if cas > c.MaxPathLen {
			return &Error{PathTooLong, c, index, errPathLen}
		}
	}
	return nil
}

// checkNames checks the names of the certificates below a CA against its constraints (RFC 5280, Section 6.1.3 (b) and
// (c)): all but the leaf's are exempt when self-issued. To meet the intersection of all CAs' permitted subtrees is to
// meet each CA's.
func (s *search) checkNames(below []step, issuer *node) *Error {
	if issuer.facts.constraints == nil {
		return nil
	}
	for i, p := range below {
		n := p.node
		if i > 0 && selfIssued(n.cert) || slices.Contains(n.passed, issuer) {
			continue
		}
		if !n.named {
			names, err := namesOf(n.cert, n.facts.san)
			if err != nil {
				return &Error{Malformed, n.cert, i, err}
			}
			n.names, n.named = names, true
		}
		err := issuer.facts.constraints.check(n.names, &s.names)
		if errors.Is(err, errNameBudget) {
			s.spent = &Error{TooComplex, issuer.cert, len(below), err}
			return s.spent
		}
		if err != nil {
			return &Error{NameConstraints, n.cert, i, err}
		}
		n.passed = append(n.passed, issuer)
	}
	return nil
}

// selfIssued reports whether issuer and subject are the same name.
func selfIssued(c *x509.Certificate) bool { return pkix.SameName(c.RawIssuer, c.RawSubject) }
