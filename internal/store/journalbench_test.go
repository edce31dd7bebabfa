package store_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

// BenchmarkRevoke: one durable revocation after the other, with and without a journal.
func BenchmarkRevoke(b *testing.B) {
	for name, open := range map[string]func(testing.TB, string) *testStore{"journal=no": open, "journal=yes": openJournaled} {
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir())
			storetest.AddCA(b, s)
			mustIssue(b, s.Store, 0)
			var took []time.Duration
			to := ca.Revoked
			for b.Loop() {
				begin := time.Now()
				mustApply(b, s.Store, 0, to, pkix.CertificateHold)
				took = append(took, time.Since(begin))
				to = map[ca.Status]ca.Status{ca.Revoked: ca.Active, ca.Active: ca.Revoked}[to]
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkJournal1M: with a million revoked certificates, beginning a journal, opening the store with it, and
// verifying it.
func BenchmarkJournal1M(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 1_000_000)
	for b.Loop() {
		begin := time.Now()
		s := openJournaled(b, dir)
		b.ReportMetric(time.Since(begin).Seconds(), "begin-s")
		closeStore(b, s)
		begin = time.Now()
		s = openJournaled(b, dir)
		b.ReportMetric(time.Since(begin).Seconds(), "open-s")
		closeStore(b, s)
		begin = time.Now()
		report, err := store.Verify(b.Context(), journaled(dir), "")
		if err != nil || len(report.Findings) > 0 || report.Certificates != 1_000_000 {
			b.Fatalf("%d certificates, %d findings, %v", report.Certificates, len(report.Findings)+report.More, err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "verify-s")
		b.ReportMetric(float64(stat(b, store.JournalPath(filepath.Join(dir, "journal"))).Size())/1e6, "B/record")
	}
}
