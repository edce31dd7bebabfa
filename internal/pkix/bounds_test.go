package pkix_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// TestInvariant13HostileInputHasABudget: every parser refuses 64 MiB by its
// size alone, before it reads any of it.
func TestInvariant13HostileInputHasABudget(t *testing.T) {
	const size = 64 << 20
	for _, filler := range []string{"0", "/CN=a", "CN=a,", "-----BEGIN CERTIFICATE-----\n", "\x30\x84\x00"} {
		raw := bytes.Repeat([]byte(filler), size/len(filler))
		text := string(raw)
		for name, parse := range map[string]func() error{
			"serial":       func() error { _, err := pkix.ParseSerial(text); return err },
			"fingerprint":  func() error { _, err := pkix.ParseFingerprint(text); return err },
			"name":         func() error { _, err := pkix.ParseDN(text); return err },
			"certificate":  func() error { _, err := pkix.ParseCertificate(raw); return err },
			"bundle":       func() error { _, err := pkix.ParseCertificates(raw); return err },
			"CSR":          func() error { _, err := pkix.ParseCSR(raw); return err },
			"private key":  func() error { _, err := pkix.ParsePrivateKey(raw); return err },
			"OCSP request": func() error { _, err := pkix.ParseOCSPRequest(raw); return err },
		} {
			begin := time.Now()
			err := parse()
			if err == nil {
				t.Errorf("%s of %d bytes was taken", name, len(raw))
			} else if len(err.Error()) > 1000 {
				t.Errorf("%s: an error of %d characters", name, len(err.Error()))
			}
			if took := time.Since(begin); took > time.Second && !raceEnabled {
				t.Errorf("%s of %d bytes took %v", name, len(raw), took)
			}
		}
	}
}

// TestInvariant13BundleWork: a bundle just under the bound, made of as many
// blocks as fit, is still read or refused in a second.
func TestInvariant13BundleWork(t *testing.T) {
	for _, unit := range []string{
		"-----BEGIN CERTIFICATE-----\n",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"-----BEGIN A-----\n-----END B-----\n",
		"-----BEGIN ", "-----END ", "-----",
	} {
		text := strings.Repeat(unit, pkix.MaxBundleBytes/len(unit))
		begin := time.Now()
		if _, err := pkix.ParseCertificates([]byte(text)); err == nil {
			t.Errorf("%d times %q was taken", pkix.MaxBundleBytes/len(unit), unit)
		}
		if took := time.Since(begin); took > time.Second && !raceEnabled {
			t.Errorf("%q repeated to %d bytes took %v", unit, len(text), took)
		}
	}
}
