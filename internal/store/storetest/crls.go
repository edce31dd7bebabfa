package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// testCRLBases: the numbers that are kept for deltas, by shard, the newest few of them.
func testCRLBases(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	if n, kept, err := s.CRLBases(ctx, CAID, 1); err != nil || n != 0 || len(kept) != 0 {
		t.Errorf("before the first: %d, %v, %v", n, kept, err)
	}
	var want []ca.CRLBase
	at := epoch().Truncate(time.Second)
	for i := range 3 * ca.CRLBasesKept {
		keep := time.Time{}
		if i%2 == 0 {
			keep = at.Add(time.Duration(i) * time.Hour)
		}
		n, err := s.RaiseCRLNumber(ctx, CAID, 1, keep)
		if err != nil {
			t.Fatal(err)
		}
		if !keep.IsZero() {
			want = append(want, ca.CRLBase{Number: n, At: keep})
		}
	}
	if n, err := s.RaiseCRLNumber(ctx, CAID, ca.AllShards, at); err != nil || n != 1 {
		t.Errorf("the list of all shards: number %d, %v; want 1", n, err)
	}
	n, kept, err := s.CRLBases(ctx, CAID, 1)
	if err != nil || n != int64(3*ca.CRLBasesKept) {
		t.Errorf("number %d, %v; want %d", n, err, 3*ca.CRLBasesKept)
	}
	if diff := cmp.Diff(want[len(want)-ca.CRLBasesKept:], kept); diff != "" {
		t.Error(diff)
	}
	if n, kept, err := s.CRLBases(ctx, CAID, 0); err != nil || n != 0 || len(kept) != 0 {
		t.Errorf("another shard: %d, %v, %v", n, kept, err)
	}
	if _, _, err := s.CRLBases(ctx, "nobody", 0); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("unknown CA: %v, want ErrNotFound", err)
	}
	// The number of all shards is none of a shard.
	if n, _, err := s.Revoked(ctx, CAID, ca.AllShards, time.Time{}); err != nil || n != int64(3*ca.CRLBasesKept) {
		t.Errorf("number of the view of every shard: %d, %v", n, err)
	}
}

// testChanged: what changed above a number, each certificate once and as it is now.
func testChanged(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	var rows []ca.Certificate
	for n := range 6 {
		c := Certificate(n)
		c.Shard = 0
		if n == 5 {
			c.Shard = 1
		}
		if n == 1 {
			c.NotAfter = epoch().AddDate(-3, 0, 0).Truncate(time.Second) // expired long ago, and all the same
		}
		rows = append(rows, record(t, s, c))
	}
	step := func(n int, to ca.Status, reason pkix.Reason) {
		t.Helper()
		after, _, err := s.Apply(ctx, ca.Transition{ID: rows[n].ID, To: to, Reason: reason, At: epoch().Add(time.Duration(n) * time.Minute)}, Entry("x", rows[n].ID))
		if err != nil {
			t.Fatal(err)
		}
		rows[n] = after
	}
	step(0, ca.Revoked, pkix.CertificateHold)    // 1
	step(1, ca.Revoked, pkix.Superseded)         // 2
	step(2, ca.Revoked, pkix.CertificateHold)    // 3
	step(0, ca.Active, 0)                        // 4
	step(2, ca.Revoked, pkix.PrivilegeWithdrawn) // 5
	step(5, ca.Revoked, pkix.Superseded)         // of another shard
	for base, want := range map[int64][]int{0: {0, 1, 2}, 1: {0, 1, 2}, 2: {0, 2}, 3: {0, 2}, 4: {2}, 5: nil, 9: nil} {
		number, seq, err := s.Changed(ctx, CAID, 0, base)
		if err != nil || number != 5 {
			t.Fatalf("base %d: number %d, %v; want 5", base, number, err)
		}
		got := map[pkix.CertID]ca.RevokedRow{}
		for row, err := range seq {
			if _, twice := got[row.ID]; err != nil || twice {
				t.Fatalf("base %d: %v, twice %v", base, err, twice)
			}
			got[row.ID] = row
		}
		wanted := map[pkix.CertID]ca.RevokedRow{}
		for _, n := range want {
			c := rows[n]
			row := ca.RevokedRow{ID: c.CertID(), Reason: c.Reason, At: c.RevokedAt, NotAfter: c.NotAfter}
			if c.Status == ca.Active {
				row.Reason = pkix.RemoveFromCRL
			}
			wanted[row.ID] = row
		}
		if diff := cmp.Diff(wanted, got, equateSerials()); diff != "" {
			t.Errorf("base %d: %s", base, diff)
		}
	}
	if _, _, err := s.Changed(ctx, "nobody", 0, 0); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("unknown CA: %v, want ErrNotFound", err)
	}
}

// testPKIURLs: each address once, the one used last first.
func testPKIURLs(t *testing.T, s Interface) {
	for _, url := range []string{"http://a", "http://b", "http://b", "http://c", "http://a"} {
		if err := s.UsePKIURL(t.Context(), url); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.PKIURLs(t.Context()); err != nil || !slices.Equal(got, []string{"http://a", "http://c", "http://b"}) {
		t.Errorf("%q, %v", got, err)
	}
}
