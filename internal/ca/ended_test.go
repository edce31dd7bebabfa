package ca_test

import (
	"crypto"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestOCSPOfEndedCA: nobody can answer for a CA that has ended or not begun, and asking stores nothing.
func TestOCSPOfEndedCA(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	f.run()
	row := f.issue("x")
	id := pkix.NewOCSPCertID(crypto.SHA256, f.Issuing(), row.Serial)
	question := pkix.OCSPRequest{Certs: []pkix.OCSPCertID{id}}.Marshal()
	for name, at := range map[string]time.Time{
		"a second after its end": f.Issuing().NotAfter.Add(time.Second), // certificates begin in the past
		"an hour after its end":  f.Issuing().NotAfter.Add(time.Hour),
		"before it began":        f.Issuing().NotBefore.Add(-time.Hour), // the clock was set back
	} {
		f.clock.Store(int64(time.Until(at)))
		before, _, err := f.Certificates(t.Context(), ca.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if answer, err := f.AnswerOCSP(t.Context(), question); err == nil || answer.Status != "internalError" {
				t.Errorf("%s: %s, %v", name, answer.Status, err)
			}
		}
		if now, _, err := f.Certificates(t.Context(), ca.Filter{}); err != nil || len(now) != len(before) {
			t.Errorf("%s: %d certificates, %d before, %v", name, len(now), len(before), err)
		}
	}
}

// TestOCSPSignerFails: while no OCSP signer can be stored, not every question tries it.
func TestOCSPSignerFails(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	id := pkix.NewOCSPCertID(crypto.SHA256, f.Issuing(), row.Serial)
	question := pkix.OCSPRequest{Certs: []pkix.OCSPCertID{id}}.Marshal()
	var tries atomic.Int64
	fault := func(point string) error {
		if point != "before-commit" {
			return nil
		}
		tries.Add(1)
		return syscall.EIO
	}
	f.fault.Store(&fault)
	start := time.Now()
	for range 50 {
		if answer, err := f.AnswerOCSP(t.Context(), question); !errors.Is(err, syscall.EIO) || answer.Status != "internalError" {
			t.Fatalf("%s, %v", answer.Status, err)
		}
	}
	if most := 1 + int64(time.Since(start)/time.Second); tries.Load() > most {
		t.Errorf("%d tries, want %d at most", tries.Load(), most)
	}
	f.fault.Store(nil)
	until(t, "no new signer was tried for", func() bool {
		answer, err := f.AnswerOCSP(t.Context(), question)
		return err == nil && answer.Status == "good"
	})
}

// TestCRLFailsForAll: of those who wait for a list that cannot be made, not everybody tries it anew.
func TestCRLFailsForAll(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	id := f.issuingID()
	release := make(chan struct{})
	var tries atomic.Int64
	fault := func(point string) error {
		if point == "before-commit" {
			tries.Add(1)
			<-release
		}
		return syscall.EIO
	}
	f.fault.Store(&fault)
	f.run()
	var group sync.WaitGroup
	for range 30 {
		group.Go(func() {
			if _, err := f.CRL(t.Context(), id, 0); !errors.Is(err, syscall.EIO) {
				t.Errorf("no error of the disk: %v", err)
			}
		})
	}
	until(t, "nobody tries", func() bool { return tries.Load() > 0 })
	time.Sleep(200 * time.Millisecond) // the others wait for the first
	start := time.Now()
	close(release)
	group.Wait()
	// One for each of the two CAs, and one a second.
	if most := 2 + 2*int64(1+time.Since(start)/time.Second); tries.Load() > most {
		t.Errorf("%d tries, want %d at most", tries.Load(), most)
	}
}
