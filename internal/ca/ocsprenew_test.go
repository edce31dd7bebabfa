package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

func shortOCSP(c *ca.Config) { c.OCSPLifetime = time.Minute } // the responder looks for what is due every 250 ms

// until waits for a condition, 30 s at most.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("after 30 s: %s", what)
		}
	}
}

// TestOCSPRenewedInTheBackground: an answer that was asked for is signed anew at half its life before anybody asks again,
// and once only unless somebody does.
func TestOCSPRenewedInTheBackground(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, config(shortOCSP))
	f.run()
	row := f.issue("x")
	first := f.ask(row)
	f.clock.Add(int64(31 * time.Second))
	until(t, "not renewed", func() bool { return f.Metrics().OCSPRenewed == 1 })
	second := f.ask(row)
	if bytes.Equal(first.DER, second.DER) || !second.ThisUpdate.After(first.ThisUpdate) || second.NextUpdate.Sub(second.ThisUpdate) != time.Minute {
		t.Errorf("signed at %v, then at %v", first.ThisUpdate, second.ThisUpdate)
	}
	if m := f.Metrics(); m.OCSPSigned != 1 || m.OCSPCached != 1 {
		t.Errorf("a client waited for a signature: %+v", m)
	}
	f.clock.Add(int64(31 * time.Second)) // asked since: again
	until(t, "not renewed again", func() bool { return f.Metrics().OCSPRenewed == 2 })
	f.clock.Add(int64(31 * time.Second)) // not asked since
	time.Sleep(600 * time.Millisecond)
	if m := f.Metrics(); m.OCSPRenewed != 2 {
		t.Errorf("renewed %d times, though nobody asked", m.OCSPRenewed)
	}
}

// TestInvariant07OCSPWithoutLedger: while the ledger cannot be read nothing can change in it, so what is known is
// answered, and what is not known is an error.
func TestInvariant07OCSPWithoutLedger(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	known, other := f.issue("known"), f.issue("other")
	f.askGood(known)
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f.clock.Add(int64(2 * time.Hour)) // past the answer in memory
	f.askGood(known)
	answer, err := f.AnswerOCSP(t.Context(), request(crypto.SHA256, f.Issuing(), nil, other.Serial))
	if err == nil || answer.Status != "internalError" {
		t.Errorf("%s, %v", answer.Status, err)
	}
}

// TestOCSPRaceWithRenewal: certificates change while the responder signs their answers anew all the time; once Hold has
// returned no answer says good, with a nonce or without.
func TestOCSPRaceWithRenewal(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, config(shortOCSP))
	f.run()
	row := f.issue("x")
	plain := request(crypto.SHA256, f.Issuing(), nil, row.Serial)
	nonced := request(crypto.SHA1, f.Issuing(), []byte("0123456789abcdef"), row.Serial)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for ctx.Err() == nil {
				_, _ = f.AnswerOCSP(t.Context(), [][]byte{plain, nonced}[i%2])
			}
		})
	}
	for round := 0; round < 150 || f.Metrics().OCSPRenewed == 0 && round < 2000; round++ {
		want := "revoked"
		if f.hold(row.ID); round%2 == 1 {
			want = "good"
			f.reactivate(row.ID)
		}
		for name, der := range map[string][]byte{"plain": plain, "nonce": nonced} {
			if got := f.answer(der).Status; got != want {
				t.Errorf("round %d, %s: %s, want %s", round, name, got, want)
			}
		}
		if want == "revoked" {
			f.reactivate(row.ID)
		}
		f.clock.Add(int64(31 * time.Second)) // what is in memory is due
	}
	stop()
	group.Wait()
	if f.Metrics().OCSPRenewed == 0 {
		t.Error("nothing was renewed, so this test shows nothing")
	}
}

// judge reads an answer as a strict client does: signed for the issuer, by a certificate that outlives it, and of now.
func (f *fixture) judge(der []byte, serial pkix.Serial, earliest time.Time) error {
	r, err := pkix.ParseOCSPResponse(der)
	if err != nil {
		return err
	}
	latest := f.cfg.Now()
	signer, err := r.CheckResponder(f.Issuing(), earliest, func(string) bool { return true })
	if err != nil {
		return err
	}
	single, ok := r.Single(f.Issuing(), serial)
	switch {
	case !ok || single.Status != pkix.OCSPGood:
		return fmt.Errorf("about the certificate: %v, %v", ok, single.Status)
	case single.ThisUpdate.After(latest) || single.NextUpdate.Before(earliest):
		return fmt.Errorf("from %v to %v at %v to %v", single.ThisUpdate, single.NextUpdate, earliest, latest)
	case single.NextUpdate.After(signer.NotAfter):
		return fmt.Errorf("nextUpdate %v is after the signer's end %v", single.NextUpdate, signer.NotAfter)
	case signer.Equal(f.Issuing()) || !pkix.HasOCSPNoCheck(signer):
		return errors.New("not by a delegate with nocheck")
	}
	return nil
}

// TestOCSPSignerRotation: the delegate is replaced while four clients ask in a loop; every answer of the old and of the
// new one is good, and what the old one signed serves on.
func TestOCSPSignerRotation(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, config(shortOCSP))
	f.run()
	row := f.issue("x")
	requests := [][]byte{
		request(crypto.SHA1, f.Issuing(), nil, row.Serial), request(crypto.SHA256, f.Issuing(), []byte("nonce"), row.Serial),
	}
	f.ask(row)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var asked atomic.Int64
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for ctx.Err() == nil {
				now := f.cfg.Now().Add(-time.Minute) // the clock may jump meanwhile by what the test says below
				answer, err := f.AnswerOCSP(context.WithoutCancel(ctx), requests[i%2])
				if err == nil {
					err = f.judge(answer.DER, row.Serial, now.Truncate(time.Second))
				}
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	delegates := func() int {
		_, n, err := f.Certificates(t.Context(), ca.Filter{Profile: "ocsp"})
		if err != nil {
			t.Error(err)
		}
		return n
	}
	parsed, err := x509.ParseCertificate(f.delegate(row).Raw)
	if err != nil {
		t.Fatal(err)
	}
	// To half a minute before the renewal is due, then on in steps shorter than an answer's life.
	f.clock.Add(int64(parsed.NotAfter.Add(-10*24*time.Hour - 30*time.Second).Sub(f.cfg.Now())))
	for range 3 {
		before := asked.Load()
		until(t, "nobody asks", func() bool { return asked.Load() > before+200 || t.Failed() })
		f.clock.Add(int64(20 * time.Second))
	}
	until(t, "no second delegate", func() bool { return delegates() == 2 || t.Failed() })
	before := asked.Load()
	until(t, "nobody asks", func() bool { return asked.Load() > before+200 || t.Failed() })
	stop()
	group.Wait()
	f.clock.Add(int64(31 * time.Second))
	until(t, "the old delegate still signs", func() bool { f.ask(row); return !f.delegate(row).Equal(parsed) })
	t.Logf("%d answers", asked.Load())
}

// delegate is who signed an answer about a certificate.
func (f *fixture) delegate(row ca.Certificate) *x509.Certificate {
	f.t.Helper()
	r, err := pkix.ParseOCSPResponse(f.answer(request(crypto.SHA256, f.Issuing(), []byte("who"), row.Serial)).DER)
	if err != nil || len(r.Certificates) != 1 {
		f.t.Fatalf("%v, or no delegate", err)
	}
	return r.Certificates[0]
}

// TestOCSPNeverOutlivesItsSigner: when no new delegate can be had, the old one serves to its end, and no answer of it is
// good for longer.
func TestOCSPNeverOutlivesItsSigner(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	f.ask(row)
	end := f.delegate(row).NotAfter
	broken := func(string) error { return errors.New("the disk is full") }
	f.fault.Store(&broken)
	f.clock.Add(int64(end.Add(-10 * time.Minute).Sub(f.cfg.Now())))
	answer := f.ask(row)
	if answer.Status != "good" || !answer.NextUpdate.Equal(end) {
		t.Errorf("%s until %v; the signer ends at %v", answer.Status, answer.NextUpdate, end)
	}
	if err := f.judge(answer.DER, row.Serial, f.cfg.Now()); err != nil {
		t.Error(err)
	}
	f.clock.Add(int64(11 * time.Minute))
	if got, err := f.AnswerOCSP(t.Context(), request(crypto.SHA256, f.Issuing(), nil, row.Serial)); err == nil || got.Status != "internalError" {
		t.Errorf("after the signer's end: %s, %v", got.Status, err)
	}
	f.fault.Store(nil)
	until(t, "no new signer was tried for", func() bool {
		got, err := f.AnswerOCSP(t.Context(), request(crypto.SHA256, f.Issuing(), nil, row.Serial))
		return err == nil && got.Status == "good"
	})
	f.askGood(row)
}
