package store_test

import (
	"database/sql"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/store/storetest"
)

// BenchmarkRecordCertificate: one durable row with its audit record, by 1 and by 16 writers at once.
func BenchmarkRecordCertificate(b *testing.B) {
	for name, writers := range map[string]int{"writers=1": 1, "writers=16": 16} {
		b.Run(name, func(b *testing.B) {
			s := open(b, b.TempDir())
			storetest.AddCA(b, s)
			var next atomic.Int64
			der := make([]byte, 700)
			record := func() {
				c := storetest.Certificate(int(next.Add(1)))
				c.DER = der
				if err := s.RecordCertificate(b.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
					b.Error(err)
				}
			}
			if writers == 1 {
				for b.Loop() {
					record()
				}
				return
			}
			b.SetParallelism(writers / 2) // times GOMAXPROCS, which is 2 where this is measured
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					record()
				}
			})
		})
	}
}

// BenchmarkRevoked1M: the load of a million revoked certificates, in one view and with all that lists need.
func BenchmarkRevoked1M(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 1_000_000)
	s := open(b, dir)
	b.ResetTimer()
	for b.Loop() {
		_, rows, err := s.Revoked(b.Context(), "", -1, time.Time{})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for _, err := range rows {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 1_000_000 {
			b.Fatalf("%d rows", n)
		}
	}
}

// BenchmarkAllRevoked1M is the same by the way that the start takes.
func BenchmarkAllRevoked1M(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 1_000_000)
	s := open(b, dir)
	b.ResetTimer()
	for b.Loop() {
		n := 0
		for _, err := range s.AllRevoked(b.Context(), time.Time{}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 1_000_000 {
			b.Fatalf("%d rows", n)
		}
	}
}

// BenchmarkSearch1M: the first page of a zone, and one serial, among a million.
func BenchmarkSearch1M(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 1_000_000)
	s := open(b, dir)
	serial := storetest.Certificate(7).Serial
	for name, f := range map[string]ca.Filter{
		"all":    {},
		"zone":   {ZoneID: "z", Profile: "client"},
		"serial": {ZoneID: "z", Serial: &serial},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := s.Certificates(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// fill makes a store with n revoked and one active certificates, by SQL: a million through the store is minutes.
func fill(tb testing.TB, dir string, n int) {
	tb.Helper()
	s := open(tb, dir)
	storetest.AddCA(tb, s)
	c := storetest.Certificate(0)
	if err := s.RecordCertificate(tb.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
		tb.Fatal(err)
	}
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
	db := raw(tb, dir)
	defer db.Close()
	for _, q := range []string{
		`PRAGMA synchronous = OFF`,
		`PRAGMA cache_size = -400000`,
		`INSERT INTO certificates (id, zone_id, ca, profile, issuer, serial, shard, key_hash, common_name, not_before,
			not_after, issued_on, valid_days, status, reason, revoked_at, crl_number, fingerprint, der)
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		SELECT hex(randomblob(16)), 'z', 1, 'client', 1, randomblob(16), i % 16, randomblob(32), 'device-' || i, 0, 4000000000000000, 0, 365,
			1, 4, 1772366400000000 + i, i, randomblob(32), zeroblob(700) FROM n`,
		`INSERT INTO crl_numbers (ca, shard, number) VALUES (1, 0, ?)`,
	} {
		args := []any{}
		if q[0] == 'I' {
			args = append(args, n)
		}
		if _, err := db.ExecContext(tb.Context(), q, args...); err != nil {
			tb.Fatal(err)
		}
	}
}

// raw opens the database past the store, as an administrator with a shell would.
func raw(tb testing.TB, dir string) *sql.DB {
	tb.Helper()
	return rawFile(tb, filepath.Join(dir, "sekisho.db"))
}

// rawFile is raw for another file than the ledger's.
func rawFile(tb testing.TB, path string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		tb.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}
