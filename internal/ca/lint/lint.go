// Package lint examines a certificate before it is signed and refuses the ones that break RFC 5280 and its kin.
//
// The lints are zlint's from the sources RFC 5280, RFC 3279, RFC 5480 and RFC 8813. Those of the public web (CA/Browser
// Forum, root programs) are left out on purpose: most private certificates break them, and rightly so.
//
// What is examined is what is signed: [Linter.Check] takes the to-be-signed bytes and gives them back in a [Linted],
// which can be opened once. A signing function that takes only a Linted cannot sign anything else:
//
//	linted, err := linter.Check(tbs, algorithm)
//	if err != nil {
//		return err // *lint.Error names the lints that failed
//	}
//	tbs, algorithm, err := linted.Take()
package lint

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/rfc" // registers the lints that New selects
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Linter holds the selected lints. It is safe for concurrent use; make one and keep it, the selection is the slow part.
type Linter struct {
	lints  []*zlint.CertificateLint
	config zlint.Configuration
}

// New selects the lints.
func New() (*Linter, error) {
	registry, err := zlint.GlobalRegistry().Filter(zlint.FilterOptions{
		IncludeSources: zlint.SourceList{zlint.RFC5280, zlint.RFC8813, zlint.RFC3279, zlint.RFC5480},
	})
	if err != nil {
		return nil, fmt.Errorf("select the certificate lints: %w", err)
	}
	l := &Linter{lints: registry.CertificateLints().Lints(), config: registry.GetConfiguration()}
	if len(l.lints) == 0 {
		return nil, errors.New("select the certificate lints: none is left")
	}
	return l, nil
}

// Finding is a lint that did not pass.
type Finding struct {
	Lint     string // zlint's name, e_ for an error, w_ for a warning
	Severity string // warn, error or fatal
	Details  string // what was found, may be empty
}

// Error says which lints a certificate failed. It is never returned without a finding.
type Error struct {
	Findings []Finding // sorted by name
}

// Error lists the lints by name.
func (e *Error) Error() string {
	texts := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		texts[i] = f.Lint
		if f.Details != "" {
			texts[i] += " (" + f.Details + ")"
		}
	}
	return "the certificate would break " + strings.Join(texts, ", ")
}

// Linted is a to-be-signed certificate that passed every lint. Only [Linter.Check] makes one, and it opens once.
type Linted struct {
	tbs, algorithm []byte
}

// Take returns the TBSCertificate and the AlgorithmIdentifier to sign it with, both DER. The second call is an error,
// so that one check allows one signature.
func (l *Linted) Take() (tbs, algorithm []byte, err error) {
	if l == nil || l.tbs == nil {
		return nil, nil, errors.New("a linted certificate can be signed once only")
	}
	tbs, algorithm = l.tbs, l.algorithm
	l.tbs, l.algorithm = nil, nil
	return tbs, algorithm, nil
}

// Check runs the lints over a TBSCertificate (DER) under a signature that is none. Warnings count as errors. The error
// is an [*Error], or says why the bytes are no certificate.
func (l *Linter) Check(tbs, algorithm []byte) (*Linted, error) {
	der, err := dummySigned(tbs, algorithm)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("lint: the certificate does not parse: %w", err)
	}
	var findings []Finding
	for _, lint := range l.lints {
		r := lint.Execute(cert, l.config)
		if r.Status == zlint.Warn || r.Status == zlint.Error || r.Status == zlint.Fatal {
			findings = append(findings, Finding{Lint: lint.Name, Severity: r.Status.String(), Details: r.Details})
		}
	}
	if len(findings) > 0 {
		slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Lint, b.Lint) })
		return nil, &Error{Findings: findings}
	}
	return &Linted{tbs: tbs, algorithm: algorithm}, nil
}

// dummySigned wraps a TBSCertificate into a certificate with a signature of zeros.
func dummySigned(tbs, algorithm []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+128))
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(make([]byte, 64))
	})
	return b.Bytes()
}
