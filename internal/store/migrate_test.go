package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/ca"
	"sekisho/internal/store/storetest"
)

// TestSearchAfterUpgrade brings a ledger of schema 8 up to date, in which names and totals were kept otherwise: the totals
// are right at once, and the names once they are indexed.
func TestSearchAfterUpgrade(t *testing.T) {
	dir := t.TempDir()
	db := raw(t, dir)
	for n := 1; n <= 8; n++ {
		files, err := filepath.Glob(fmt.Sprintf("migrations/%05d_*.sql", n))
		if err != nil || len(files) != 1 {
			t.Fatal(n, files, err)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		up := strings.ReplaceAll(strings.ReplaceAll(string(text), "-- +goose StatementBegin", ""), "-- +goose StatementEnd", "")
		if _, err := db.ExecContext(t.Context(), up); err != nil {
			t.Fatalf("%s: %v", files[0], err)
		}
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatalf("%.60s: %v", query, err)
		}
	}
	exec(`CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))`)
	exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1)`)
	exec(`INSERT INTO cas (id, name, parent, key_name, der, created_on, shards) VALUES (?, 'issuing', '', 'issuing', x'00', 0, 4)`, storetest.CAID)
	exec(`INSERT INTO issuers (key) VALUES (zeroblob(32))`)
	const n = 100
	for i := range n {
		c := named(t, i, []string{fmt.Sprintf("device-%d.example.com", i)}, nil, nil, nil)
		exec(`INSERT INTO certificates (id, zone_id, ca, profile, issuer, serial, shard, key_hash, common_name, not_before, not_after, issued_on,
			valid_days, status, reason, revoked_at, crl_number, fingerprint, der) VALUES (?, 'z', 1, 'client', 1, ?, 0, ?, ?, 0, 0, ?, 1, ?, 4, 0, 0, ?, ?)`,
			c.ID, c.Serial.Bytes(), c.KeyHash[:], c.CommonName, i, flagOf(i%4 == 0), c.Fingerprint[:], c.DER)
		exec(`INSERT INTO certificate_names (name, seq) VALUES (?, ?)`, fmt.Sprintf("device-%d.example.com", i), i+1)
	}
	db.Close()
	s := open(t, dir)
	if got := total(t, s, ca.Filter{ZoneID: "z", Status: ca.Revoked}); got != n/4 {
		t.Errorf("%d revoked, want %d", got, n/4)
	}
	if got := total(t, s, ca.Filter{CAID: storetest.CAID}); got != n {
		t.Errorf("%d of the CA, want %d", got, n)
	}
	if err := s.IndexNames(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{".example.com": n, "device-7.example.com": 1, "device-100.example.com": 0} {
		if got := total(t, s, ca.Filter{ZoneID: "z", Name: name}); got != want {
			t.Errorf("%s: %d found, want %d", name, got, want)
		}
	}
}

func flagOf(b bool) int {
	if b {
		return 1
	}
	return 0
}
