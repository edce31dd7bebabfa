package ca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestTransitions: from every state every step, with the state's name in a refusal.
func TestTransitions(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	steps := map[string]func(id string) (ca.Certificate, error){
		"revoke": func(id string) (ca.Certificate, error) {
			return f.Revoke(t.Context(), ca.RevokeRequest{ID: id, ZoneID: zone, Reason: pkix.Superseded})
		},
		"compromise": func(id string) (ca.Certificate, error) {
			return f.Revoke(t.Context(), ca.RevokeRequest{ID: id, ZoneID: zone, Reason: pkix.KeyCompromise})
		},
		"hold": func(id string) (ca.Certificate, error) {
			return f.Hold(t.Context(), ca.ChangeRequest{ID: id, ZoneID: zone})
		},
		"reactivate": func(id string) (ca.Certificate, error) {
			return f.Reactivate(t.Context(), ca.ChangeRequest{ID: id, ZoneID: zone})
		},
	}
	for _, c := range []struct {
		before, step string
		want         string // status and reason after, or what the refusal says
		refused      bool
	}{
		{"", "revoke", "revoked superseded", false},
		{"", "hold", "revoked certificateHold", false},
		{"", "reactivate", "is active", true},
		{"hold", "revoke", "revoked superseded", false},
		{"hold", "hold", "is already on hold since 2", true},
		{"hold", "reactivate", "active unspecified", false},
		{"revoke", "revoke", "is already revoked (superseded) since 2", true},
		{"hold", "compromise", "revoked keyCompromise", false},
		{"revoke", "compromise", "revoked keyCompromise", false},
		{"compromise", "compromise", "is already revoked (keyCompromise) since 2", true},
		{"compromise", "revoke", "is already revoked (keyCompromise) since 2", true},
		{"revoke", "hold", "is already revoked (superseded) since 2", true},
		{"revoke", "reactivate", "only a hold can be undone", true},
	} {
		t.Run(c.before+" then "+c.step, func(t *testing.T) {
			row := f.issue("x")
			if c.before != "" {
				if _, err := steps[c.before](row.ID); err != nil {
					t.Fatal(err)
				}
			}
			after, err := steps[c.step](row.ID)
			if c.refused {
				if !errors.Is(err, ca.ErrConflict) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want a conflict with %q", err, c.want)
				}
				return
			}
			if got := fmt.Sprint(after.Status, " ", after.Reason); err != nil || got != c.want {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
		})
	}
}

// TestTransitionRefusals: reasons that are none, and certificates that are somebody else's.
func TestTransitionRefusals(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	for _, reason := range []pkix.Reason{pkix.CertificateHold, pkix.RemoveFromCRL, 7, 11, -1} {
		_, err := f.Revoke(t.Context(), ca.RevokeRequest{ID: row.ID, ZoneID: zone, Reason: reason})
		if bad, ok := errors.AsType[*ca.RequestError](err); !ok || bad.Field != "reason" {
			t.Errorf("reason %d: %v, want a RequestError", reason, err)
		}
	}
	for _, req := range []ca.RevokeRequest{
		{ID: row.ID, ZoneID: strings.Repeat("f", 32)}, {ID: "11111111-1111-4111-8111-111111111111", ZoneID: zone}, {ID: "", ZoneID: zone},
	} {
		if _, err := f.Revoke(t.Context(), req); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("id %q in zone %s: %v, want ErrNotFound", req.ID, req.ZoneID, err)
		}
	}
	if stored, err := f.Certificate(t.Context(), zone, row.ID); err != nil || stored.Status != ca.Active {
		t.Errorf("status %s, %v after refusals only", stored.Status, err)
	}
}

// TestOnChange: it is called after the ledger has the change and before the caller has its answer, once a transition.
func TestOnChange(t *testing.T) {
	var told []ca.Certificate
	var f *fixture
	f = newCA(t, pkix.ECDSAP256, config(func(c *ca.Config) {
		c.OnChange = func(row ca.Certificate) {
			stored, err := f.Certificate(t.Context(), zone, row.ID)
			if err != nil || stored.Status != row.Status {
				t.Errorf("OnChange says %s, the ledger %s, %v", row.Status, stored.Status, err)
			}
			told = append(told, row)
		}
	}))
	row := f.issue("x")
	for i, step := range []func() ca.Certificate{
		func() ca.Certificate { return f.hold(row.ID) },
		func() ca.Certificate { return f.reactivate(row.ID) },
		func() ca.Certificate { return f.revoke(row.ID, pkix.KeyCompromise) },
	} {
		after := step()
		if len(told) != i+1 || told[i].CRLNumber != after.CRLNumber {
			t.Fatalf("after transition %d OnChange was called %d times", i+1, len(told))
		}
	}
	if _, err := f.Hold(t.Context(), ca.ChangeRequest{ID: row.ID, ZoneID: zone}); err == nil || len(told) != 3 {
		t.Errorf("a refusal called OnChange (%d calls), %v", len(told), err)
	}
}

// TestOnChangeOrder: racing transitions of one certificate are told in the order of the ledger.
func TestOnChangeOrder(t *testing.T) {
	var mu sync.Mutex
	last := map[string]int64{}
	f := newCA(t, pkix.ECDSAP256, config(func(c *ca.Config) {
		c.OnChange = func(row ca.Certificate) {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			mu.Lock()
			defer mu.Unlock()
			if row.CRLNumber <= last[row.ID] {
				t.Errorf("certificate %s: transition %d told after %d", row.ID, row.CRLNumber, last[row.ID])
			}
			last[row.ID] = row.CRLNumber
		}
	}))
	row := f.issue("x")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				_, _ = f.Hold(t.Context(), ca.ChangeRequest{ID: row.ID})
				_, _ = f.Reactivate(t.Context(), ca.ChangeRequest{ID: row.ID})
			}
		})
	}
	group.Wait()
}

// TestFailedCommit: when nothing was stored nothing happens; when it was stored although the commit reported an error,
// it takes effect everywhere.
func TestFailedCommit(t *testing.T) {
	for point, want := range map[string]ca.Status{"before-commit": ca.Active, "after-commit": ca.Revoked} {
		t.Run(point, func(t *testing.T) {
			var told ca.Status
			f := newCA(t, pkix.ECDSAP256, config(func(c *ca.Config) {
				c.OnChange = func(row ca.Certificate) { told = row.Status }
			}))
			row := f.issue("x")
			f.askGood(row)
			ctx, gone := context.WithCancel(t.Context())
			full := func(p string) error {
				if p == point {
					gone() // the caller hangs up meanwhile, which changes nothing
					return syscall.ENOSPC
				}
				return nil
			}
			f.fault.Store(&full)
			_, err := f.Revoke(ctx, ca.RevokeRequest{ID: row.ID, Reason: pkix.Superseded})
			f.fault.Store(nil)
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v, want no space", err)
			}
			if told != want {
				t.Errorf("OnChange was told %q, want %q", told, want)
			}
			if revoked := f.ask(row).Status == "revoked"; revoked != (want == ca.Revoked) {
				t.Errorf("OCSP says revoked: %v; the ledger has it %s", revoked, want)
			}
			if found := entry(t, f.crl(), row) != nil; found != (want == ca.Revoked) {
				t.Errorf("in the CRL: %v; the ledger has it %s", found, want)
			}
		})
	}
}

// sameKey issues n certificates for one new key.
func (f *fixture) sameKey(n int) []ca.Certificate {
	f.t.Helper()
	request := csr(f.t, newKey(f.t, pkix.ECDSAP256), named("same key"))
	rows := make([]ca.Certificate, n)
	for i := range rows {
		var err error
		rows[i], err = f.Issue(f.t.Context(), ca.IssueRequest{ZoneID: zone, Profile: ca.ProfileClient, CSR: request, ValidDays: 30, Actor: "test"})
		if err != nil {
			f.t.Fatal(err)
		}
	}
	return rows
}

// TestInvariant01CompromisedKey: when a key is compromised, every certificate of it is revoked everywhere before the
// caller has its answer, also after a commit that reported an error; certificates of other keys stay.
func TestInvariant01CompromisedKey(t *testing.T) {
	for _, point := range []string{"", "after-commit", "before-commit"} {
		t.Run("fault "+point, func(t *testing.T) {
			told := map[string]ca.Certificate{}
			f := newCA(t, pkix.ECDSAP256, config(func(c *ca.Config) {
				c.OnChange = func(row ca.Certificate) { told[row.ID] = row }
			}))
			f.run()
			rows, bystander := f.sameKey(4), f.issue("bystander")
			f.hold(rows[2].ID)
			f.revoke(rows[3].ID, pkix.Superseded)
			for _, row := range append(rows[:2:2], bystander) {
				f.askGood(row)
			}
			clear(told)
			before := f.Metrics().Revoked
			if point != "" {
				full := func(p string) error {
					if p == point {
						return syscall.ENOSPC
					}
					return nil
				}
				f.fault.Store(&full)
			}
			_, err := f.Revoke(t.Context(), ca.RevokeRequest{ID: rows[0].ID, Actor: "test", Reason: pkix.KeyCompromise})
			f.fault.Store(nil)
			if (err != nil) != (point != "") {
				t.Fatal(err)
			}
			stored := point != "before-commit"
			for _, row := range rows[:3] {
				if got := told[row.ID]; stored && (got.Status != ca.Revoked || got.Reason != pkix.KeyCompromise) {
					t.Errorf("OnChange was told %q %s of %s", got.Status, got.Reason, row.ID)
				}
			}
			for _, row := range rows[:2] {
				if status := f.ask(row).Status; (status == "revoked") != stored {
					t.Errorf("OCSP says %s", status)
				}
				if stored {
					f.waitCRL(func(list *x509.RevocationList) bool {
						e := entry(t, list, row)
						return e != nil && e.ReasonCode == int(pkix.KeyCompromise)
					})
				}
			}
			if status := f.ask(bystander).Status; status != "good" {
				t.Errorf("OCSP says %s of a certificate with another key", status)
			}
			if n := f.Metrics().Revoked - before; point == "" && n != 3 {
				t.Errorf("%d revocations counted, want 3", n)
			}
			if last, err := f.Certificate(t.Context(), zone, rows[3].ID); err != nil || last.Reason != pkix.Superseded {
				t.Errorf("what was revoked for good: %s, %v", last.Reason, err)
			}
		})
	}
}

// TestCompromiseRace: holds and reactivations of certificates of one key race with its compromise; whatever the order,
// the last that is told of each is that it is revoked.
func TestCompromiseRace(t *testing.T) {
	var mu sync.Mutex
	last := map[string]ca.Certificate{}
	f := newCA(t, pkix.ECDSAP256, config(func(c *ca.Config) {
		c.OnChange = func(row ca.Certificate) {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			mu.Lock()
			defer mu.Unlock()
			last[row.ID] = row
		}
	}))
	for range 5 {
		rows := f.sameKey(6)
		var group sync.WaitGroup
		for _, row := range rows[1:] {
			group.Go(func() {
				for range 5 {
					_, _ = f.Hold(t.Context(), ca.ChangeRequest{ID: row.ID})
					_, _ = f.Reactivate(t.Context(), ca.ChangeRequest{ID: row.ID})
				}
			})
		}
		group.Go(func() {
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
			f.revoke(rows[0].ID, pkix.KeyCompromise)
		})
		group.Wait()
		for _, row := range rows {
			if got := last[row.ID]; got.Status != ca.Revoked || got.Reason != pkix.KeyCompromise {
				t.Errorf("told last: %q %s", got.Status, got.Reason)
			}
		}
	}
}
