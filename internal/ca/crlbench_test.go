package ca_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// crowdedLedger adds revoked rows to each shard of the ledger: n of them, of serial numbers that look random.
type crowdedLedger struct {
	ca.Ledger
	key pkix.KeyID
	n   int
}

func (l crowdedLedger) Revoked(ctx context.Context, caID string, shard int, since time.Time) (int64, iter.Seq2[ca.RevokedRow, error], error) {
	number, rows, err := l.Ledger.Revoked(ctx, caID, shard, since)
	return number, func(yield func(ca.RevokedRow, error) bool) {
		at := time.Now()
		var serial [20]byte
		for i := range l.n {
			binary.BigEndian.PutUint64(serial[0:], 0x4000000000000000|uint64(shard)<<32|uint64(i))
			binary.BigEndian.PutUint64(serial[8:], uint64(i)*0x9e3779b97f4a7c15)
			row := ca.RevokedRow{ID: pkix.CertID{Issuer: l.key, Serial: pkix.SerialFromBytes(serial[:])}, Reason: pkix.Superseded, At: at, NotAfter: at.AddDate(1, 0, 0)}
			if !yield(row, nil) {
				return
			}
		}
		rows(yield)
	}, err
}

// crowd is a CA of 16 shards with n revoked certificates in each, and one certificate that is not.
func crowd(t testing.TB, n int) (*fixture, ca.Certificate) {
	t.Helper()
	f := newCA(t, pkix.ECDSAP256, shards(16))
	row := f.issue("x")
	cfg := f.cfg
	cfg.Ledger = crowdedLedger{f.store, pkix.KeyIDOf(f.Issuing()), n}
	authority, err := ca.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.Authority = authority
	return f, row
}

// BenchmarkPublishShard is a transition and the signatures of its shard's list and delta, with few and many entries: the
// millionth revocation beside the first. Ledger alone is the transition without the lists.
func BenchmarkPublishShard(b *testing.B) {
	for _, n := range []int{0, 1_000_000 / 16} {
		b.Run(fmt.Sprintf("entries=%d", 16*n), func(b *testing.B) {
			f, row := crowd(b, n)
			id := f.issuingID()
			f.must(f.CRL(b.Context(), id, row.Shard))
			for b.Loop() {
				if f.must(f.CRL(b.Context(), id, row.Shard)).DER == nil {
					b.Fatal("no list")
				}
				if _, err := f.Hold(b.Context(), ca.ChangeRequest{ID: row.ID}); err != nil {
					f.reactivate(row.ID)
				}
			}
			b.ReportMetric(float64(len(f.must(f.CRL(b.Context(), id, row.Shard)).DER)), "list-bytes")
		})
	}
	b.Run("ledger alone", func(b *testing.B) {
		f, row := crowd(b, 0)
		for b.Loop() {
			if _, err := f.Hold(b.Context(), ca.ChangeRequest{ID: row.ID}); err != nil {
				f.reactivate(row.ID)
			}
		}
	})
}

// TestMillionInShards: with a million entries in 16 shards a revocation shows within a fraction of a second, costs about
// what the first did, and the lists are in memory once each.
func TestMillionInShards(t *testing.T) {
	if os.Getenv("SEKISHO_LONG") == "" {
		t.Skip("a million entries take some seconds; SEKISHO_LONG=1 runs this")
	}
	before := resident(t)
	f, row := crowd(t, 1_000_000/16)
	id := f.issuingID()
	start := time.Now()
	for shard := range 16 {
		f.must(f.CRL(t.Context(), id, shard))
	}
	t.Logf("16 lists and deltas signed from the ledger's rows in %v", time.Since(start))
	f.run()
	f.shard = row.Shard
	for i, step := range []func() ca.Certificate{
		func() ca.Certificate { return f.hold(row.ID) }, func() ca.Certificate { return f.reactivate(row.ID) },
		func() ca.Certificate { return f.revoke(row.ID, pkix.Superseded) },
	} {
		start := time.Now()
		after := step()
		for f.must(f.CRL(t.Context(), id, row.Shard)).Number.Int64() < after.CRLNumber {
			time.Sleep(time.Millisecond)
		}
		took := time.Since(start)
		t.Logf("step %d is in its shard's list and delta after %v", i, took)
		if took > 250*time.Millisecond {
			t.Errorf("step %d: %v", i, took)
		}
	}
	runtime.GC()
	t.Logf("resident: %d MiB before, %d MiB with the shards' lists", before>>20, resident(t)>>20)
	start = time.Now()
	whole := f.must(f.FullCRLNow(t.Context(), id))
	t.Logf("the list of all shards, %d octets, is signed in %v; resident %d MiB", len(whole.DER), time.Since(start), resident(t)>>20)
	if got := f.read(whole.DER); len(got.entries) != 1_000_001 {
		t.Errorf("%d entries", len(got.entries))
	}
}

// resident is the memory of this process, in octets.
func resident(t testing.TB) int {
	t.Helper()
	runtime.GC()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
