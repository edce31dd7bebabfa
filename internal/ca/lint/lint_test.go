package lint_test

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/ca/lint"
	"sekisho/internal/testpki"
)

func newLinter(t testing.TB) *lint.Linter {
	t.Helper()
	l, err := lint.New()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// parts splits a certificate into what was signed and how.
func parts(t testing.TB, cert *x509.Certificate) (tbs, algorithm []byte) {
	t.Helper()
	input := cryptobyte.String(cert.Raw)
	var outer, first, second cryptobyte.String
	if !input.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.ReadASN1Element(&first, cbasn1.SEQUENCE) ||
		!outer.ReadASN1Element(&second, cbasn1.SEQUENCE) {
		t.Fatal("the certificate does not split")
	}
	return first, second
}

// TestCheck: a sound certificate passes; each broken one is refused by the name of its lint.
func TestCheck(t *testing.T) {
	l := newLinter(t)
	ca := testpki.NewCA(t)
	for _, c := range []struct {
		name string
		edit func(*x509.Certificate)
		want string // a lint; empty: passes
	}{
		{"sound", func(*x509.Certificate) {}, ""},
		{"long common name", func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("x", 65) }, "e_subject_common_name_max_length"},
		{"certSign without CA", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "e_ext_key_usage_cert_sign_without_ca"},
		{"e-mail only in the subject", func(c *x509.Certificate) {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, c.Subject.ToRDNSequence()[0][0])
			c.Subject.ExtraNames[0].Type = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
			c.Subject.ExtraNames[0].Value = "a@example.com"
		}, "e_subj_email_not_in_san"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tbs, algorithm := parts(t, ca.Client("client", testpki.Edit(c.edit)).Cert)
			linted, err := l.Check(tbs, algorithm)
			if c.want == "" {
				if err != nil || linted == nil {
					t.Fatal(err)
				}
				return
			}
			found, ok := errors.AsType[*lint.Error](err)
			if !ok || linted != nil {
				t.Fatalf("error %v, want a *lint.Error", err)
			}
			if !slices.ContainsFunc(found.Findings, func(f lint.Finding) bool { return f.Lint == c.want }) {
				t.Errorf("found %v, want %s", found, c.want)
			}
		})
	}
	if _, err := l.Check([]byte{0x30, 0}, []byte{0x30, 0}); err == nil {
		t.Error("what is no certificate passed")
	}
}

// TestLintedOpensOnce: one check allows one signature.
func TestLintedOpensOnce(t *testing.T) {
	tbs, algorithm := parts(t, testpki.NewCA(t).Client("client").Cert)
	linted, err := newLinter(t).Check(tbs, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := linted.Take(); err != nil || string(got) != string(tbs) {
		t.Errorf("first Take: %v", err)
	}
	if got, _, err := linted.Take(); err == nil || got != nil {
		t.Error("a second Take gave it again")
	}
	if _, _, err := new(lint.Linted).Take(); err == nil {
		t.Error("a Linted that no Check made opens")
	}
}

// TestCost: a lint takes some 100 µs; 4 ms would mean that the lints of the public web have come in.
func TestCost(t *testing.T) {
	l := newLinter(t)
	tbs, algorithm := parts(t, testpki.NewCA(t).Client("client").Cert)
	best := time.Hour
	for range 50 {
		start := time.Now()
		if _, err := l.Check(tbs, algorithm); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	t.Logf("best of 50: %v a certificate", best)
	if best > 2*time.Millisecond {
		t.Errorf("%v a certificate", best)
	}
}

func BenchmarkCheck(b *testing.B) {
	l := newLinter(b)
	tbs, algorithm := parts(b, testpki.NewCA(b).Client("client").Cert)
	for b.Loop() {
		if _, err := l.Check(tbs, algorithm); err != nil {
			b.Fatal(err)
		}
	}
}
