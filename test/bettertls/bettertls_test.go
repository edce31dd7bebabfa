// Package bettertls runs Netflix's BetterTLS suites against the product's path validation. Unlike its parent it reaches
// into the product: no listener answers 9,572 handshakes with certificates of somebody else's making in a quarter of a minute.
package bettertls

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	testcase "github.com/Netflix/bettertls/test-suites/test-case"
	executor "github.com/Netflix/bettertls/test-suites/test-executor"

	"sekisho/internal/certpath"
)

// score counts how often a verifier agrees with the suite. A soft expectation is what the suite recommends without
// demanding it.
type score struct{ right, hard, soft, allSoft int }

// TestBetterTLS runs Netflix's BetterTLS: every path building case must come out as the suite says, and every name
// constraints case, soft ones included. crypto/x509 judges the same certificates beside it.
func TestBetterTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("9,572 cases with 28,000 fresh certificates: a quarter of a minute")
	}
	suites, err := executor.BuildTestSuites()
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]int{"pathbuilding": 81, "nameconstraints": 9491}
	for _, name := range suites.GetProviderNames() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider := suites.GetProvider(name)
			count, err := provider.GetTestCaseCount()
			if err != nil {
				t.Fatal(err)
			}
			if int(count) != cases[name] {
				t.Errorf("the suite has %d cases, not %d", count, cases[name])
			}
			var ours, std score
			for i := range count {
				tc, err := provider.GetTestCase(i)
				if err != nil {
					t.Fatal(err)
				}
				certs := parseCase(t, suites, tc)
				root, host := suites.GetRootCert(), tc.GetHostname()
				if !ours.add(tc, byCertpath(root, certs, host)) {
					t.Errorf("case %d: expected %s, got %v", i, tc.ExpectedResult(), byCertpath(root, certs, host))
				}
				std.add(tc, byX509(root, certs, host))
			}
			t.Logf("of %d cases (%d with a soft expectation) certpath decides %d as the suite says, missing %d hard and %d soft ones; crypto/x509 %d, missing %d and %d",
				count, ours.allSoft, ours.right, ours.hard, ours.soft, std.right, std.hard, std.soft)
		})
	}
}

// parseCase makes the certificates of a case, leaf first; nil when crypto/x509 cannot read them.
func parseCase(t *testing.T, suites *executor.TestSuites, tc testcase.TestCase) []*x509.Certificate {
	t.Helper()
	made, err := suites.GetTestCaseCertificates(tc)
	if err != nil {
		t.Fatal(err)
	}
	var certs []*x509.Certificate
	for _, der := range made.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil
		}
		certs = append(certs, c)
	}
	return certs
}

// errUnreadable refuses what crypto/x509 does not parse.
var errUnreadable = errors.New("a certificate cannot be read")

func byCertpath(root *x509.Certificate, certs []*x509.Certificate, host string) error {
	if certs == nil {
		return errUnreadable
	}
	_, err := certpath.Build(certs[0], certs[1:], certpath.Options{
		Anchors: []*x509.Certificate{root}, At: time.Now(), Purpose: certpath.Server, Host: host,
	})
	return err
}

func byX509(root *x509.Certificate, certs []*x509.Certificate, host string) error {
	if certs == nil {
		return errUnreadable
	}
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range certs[1:] {
		others.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: host})
	return err
}

// add counts a decision and reports whether it is the one expected.
func (s *score) add(tc testcase.TestCase, err error) bool {
	accepted, soft := false, false
	switch tc.ExpectedResult() {
	case testcase.EXPECTED_RESULT_PASS:
		accepted = true
	case testcase.EXPECTED_RESULT_SOFT_PASS:
		accepted, soft = true, true
	case testcase.EXPECTED_RESULT_SOFT_FAIL:
		soft = true
	}
	if soft {
		s.allSoft++
	}
	switch {
	case (err == nil) == accepted:
		s.right++
		return true
	case soft:
		s.soft++
	default:
		s.hard++
	}
	return false
}
