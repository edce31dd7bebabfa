package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store/storetest"
)

// revokedHouse is a store with two CAs, whose shards have revoked, active, ended and held certificates, more of the first
// than one batch has.
func revokedHouse(t *testing.T) *testStore {
	t.Helper()
	s := open(t, t.TempDir())
	storetest.AddCA(t, s)
	other := ca.CARecord{ID: "ffffffffffffffffffffffffffffffff", Name: "other", KeyName: "other", DER: []byte("other"), Shards: 2}
	if err := s.AddCA(t.Context(), other, storetest.Entry("ca.create", other.ID)); err != nil {
		t.Fatal(err)
	}
	for n := range 40 {
		c := storetest.Certificate(n)
		c.Shard = n % 4
		if n%3 == 0 {
			c.CAID, c.IssuerKey, c.Shard = other.ID, sha256.Sum256([]byte("other")), 1_000_000*(n%2) // whatever the CA says of its shards
		}
		if n%7 == 0 {
			c.NotAfter = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(err)
		}
		switch {
		case n%5 == 4:
		case n%5 == 3:
			mustApply(t, s.Store, n, ca.Revoked, pkix.CertificateHold)
		default:
			mustApply(t, s.Store, n, ca.Revoked, pkix.Superseded)
		}
	}
	return s
}

func TestAllRevokedIsWhatRevokedYields(t *testing.T) {
	s := revokedHouse(t)
	for _, since := range []time.Time{{}, time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)} {
		_, rows, err := s.Revoked(t.Context(), "", -1, since)
		if err != nil {
			t.Fatal(err)
		}
		want, got := map[ca.RevokedRow]int{}, map[ca.RevokedRow]int{}
		for row, err := range rows {
			if err != nil {
				t.Fatal(err)
			}
			row.At, row.NotAfter, row.InvalidityDate = row.At.Truncate(time.Second), time.Time{}, time.Time{}
			want[row]++
		}
		for row, err := range s.AllRevoked(t.Context(), since) {
			if err != nil {
				t.Fatal(err)
			}
			got[row]++
		}
		if len(want) < 20 || !maps.Equal(got, want) {
			t.Errorf("since %v: %d rows, want %d:\n%v\n%v", since, len(got), len(want), got, want)
		}
	}
}

func TestAllRevokedOfManyBatches(t *testing.T) {
	dir := t.TempDir()
	const n = 100_001
	fill(t, dir, n)
	s := open(t, dir)
	seen := map[pkix.CertID]bool{}
	for row, err := range s.AllRevoked(t.Context(), time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		seen[row.ID] = true
	}
	if len(seen) != n {
		t.Errorf("%d different rows, want %d", len(seen), n)
	}
	for range s.AllRevoked(t.Context(), time.Time{}) {
		break // the readers end, or closing the store would wait for good
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rows, last := 0, error(nil)
	for _, err := range s.AllRevoked(ctx, time.Time{}) {
		rows, last = rows+1, err
		cancel()
	}
	if !errors.Is(last, context.Canceled) || rows >= n {
		t.Errorf("after %d rows of a sequence whose context has ended: %v", rows, last)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range s.AllRevoked(t.Context(), time.Time{}) {
		if last = err; err == nil {
			t.Error("a closed store yields a row")
		}
	}
	if last == nil {
		t.Error("a closed store yields no error")
	}
}

// TestAllRevokedRefusesRowsOfNoIssuer: one that is left out would be let in.
func TestAllRevokedRefusesRowsOfNoIssuer(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 10)
	db := raw(t, dir)
	if _, err := db.Exec(`UPDATE certificates SET issuer = 99 WHERE seq = 5`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var last error
	s := open(t, dir)
	for _, err := range s.AllRevoked(t.Context(), time.Time{}) {
		last = err
	}
	if last == nil {
		t.Error("no error tells of it")
	}
}
