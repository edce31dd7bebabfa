package ca_test

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// hourly makes a change every so often over three lifetimes of a list, and compares each newest delta with every full
// list that is still valid, and with how old its base may be. more is done after each step.
func (f *fixture) hourly(step time.Duration, more func()) {
	f.t.Helper()
	row := f.issue("x")
	var old []parsed
	type moment struct {
		at     time.Duration
		number int64
	}
	var history []moment
	for at := time.Duration(0); at <= 72*time.Hour; at += step {
		f.clock.Store(int64(at))
		if row.Status == ca.Active {
			row = f.hold(row.ID)
		} else {
			row = f.reactivate(row.ID)
		}
		full, delta := f.full(0), f.delta(0)
		old, history = append(old, full), append(history, moment{at, full.Number.Int64()})
		for _, o := range old {
			if o.NextUpdate.After(f.cfg.Now()) {
				wantSame(f.t, fmt.Sprintf("after %v: list %v and delta %v", at, o.Number, delta.Number), o.plus(f.t, delta), full.entries)
			}
		}
		for _, m := range history { // a lifetime, and the half of one between renewals, and a step before each is noticed
			if m.at < at-36*time.Hour-2*step && delta.BaseNumber.Int64() < m.number {
				f.t.Fatalf("after %v: the base is still %v, the number after %v was %d", at, delta.BaseNumber, m.at, m.number)
			}
		}
		more()
	}
}

// TestDeltaBase: the base is never above a list that is valid, and moves on however often changes renew the lists.
func TestDeltaBase(t *testing.T) {
	newCA(t, pkix.ECDSAP256).hourly(time.Hour, func() {})
}

// TestDeltaBaseRestarts is the same with a start after each change: starts sign new lists, and must not push the bases of
// older ones out.
func TestDeltaBaseRestarts(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	f.hourly(40*time.Minute, func() {
		if err := f.store.Close(); err != nil {
			t.Fatal(err)
		}
		f.open()
	})
}

// racedLedger has a transition come between its two views.
type racedLedger struct {
	ca.Ledger
	between func()
}

func (l racedLedger) Changed(ctx context.Context, caID string, shard int, base int64) (int64, iter.Seq2[ca.RevokedRow, error], error) {
	l.between()
	return l.Ledger.Changed(ctx, caID, shard, base)
}

// TestChangeBetweenViews: list and delta are of one number although they are read one after the other, and something is
// revoked and something reactivated in between.
func TestChangeBetweenViews(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	gone, held := f.issue("gone"), f.issue("held")
	f.hold(held.ID)
	cfg, store, once := f.cfg, f.store, false
	cfg.Ledger = racedLedger{f.store, func() {
		if once {
			return
		}
		once = true
		for _, step := range []ca.Transition{
			{ID: gone.ID, To: ca.Revoked, Reason: pkix.Superseded, At: time.Now()}, {ID: held.ID, To: ca.Active, At: time.Now()},
		} {
			if _, _, err := store.Apply(t.Context(), step, auditlog.Entry{At: time.Now(), Actor: "test", Action: "x", Object: step.ID, Outcome: "done"}); err != nil {
				t.Error(err)
			}
		}
	}}
	authority, err := ca.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.Authority = authority
	full, delta := f.full(0), f.delta(0)
	_, hasGone := full.entries[gone.Serial]
	_, hasHeld := full.entries[held.Serial]
	if !once || !hasGone || hasHeld || full.Number.Cmp(delta.Number) != 0 {
		t.Errorf("list %v, delta %v: revoked in between %v, reactivated in between %v", full.Number, delta.Number, hasGone, hasHeld)
	}
	wantSame(t, "the list and its own delta", full.plus(t, delta), full.entries)
}
