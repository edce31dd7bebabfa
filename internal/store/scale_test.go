package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/store/storetest"
)

// scaleRows is how many certificates the long tests of this file make: SEKISHO_ROWS, or what is given.
func scaleRows(t *testing.T, rows int) int {
	t.Helper()
	if os.Getenv("SEKISHO_LONG") == "" {
		return 20_000
	}
	if text := os.Getenv("SEKISHO_ROWS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1000 {
			t.Fatalf("SEKISHO_ROWS=%s: want a number, at least 1000", text)
		}
		return n
	}
	return rows
}

// generate fills a new store with n certificates of zone z by SQL: issued over two years up to now and valid for one, so
// that half of them have ended; every fifth revoked and every thousandth of those on hold; every hundredth a server's;
// every tenth with one common name; each with a host name of its own below fleet.example.com. There are no signatures:
// the certificates are 600 octets of zero.
func generate(t *testing.T, dir string, n int) {
	t.Helper()
	s := open(t, dir)
	storetest.AddCA(t, s)
	first := storetest.Certificate(0)
	if err := s.RecordCertificate(t.Context(), first, storetest.Entry("certificate.issue", first.ID)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db := raw(t, dir)
	defer db.Close()
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatalf("%.80s: %v", query, err)
		}
	}
	exec(`PRAGMA synchronous = OFF`)
	exec(`PRAGMA journal_mode = OFF`)
	exec(`PRAGMA cache_size = -1500000`)
	// Sorting each index once is much faster than random insertions, and counting once than by trigger.
	later := texts(t, dir, `SELECT sql FROM sqlite_master WHERE tbl_name = 'certificates' AND sql IS NOT NULL AND
		(type = 'index' OR name = 'certificates_count') ORDER BY type`)
	for _, drop := range texts(t, dir, `SELECT 'DROP ' || type || ' ' || name FROM sqlite_master WHERE tbl_name = 'certificates' AND sql IS NOT NULL AND
		(type = 'index' OR name = 'certificates_count')`) {
		exec(drop)
	}
	step := (2 * 365 * 24 * time.Hour / time.Duration(n)).Microseconds()
	exec(fmt.Sprintf(`INSERT INTO certificates (id, zone_id, ca, profile, issuer, serial, shard, key_hash, common_name, not_before,
			not_after, issued_on, valid_days, status, reason, revoked_at, crl_number, fingerprint, der)
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %[1]d)
		SELECT printf('%%08x-0000-4000-8000-%%012x', i, i), 'z', 1, iif(i %% 100 = 0, 'server', 'client'), 1, CAST(x'5a' || randomblob(15) AS BLOB),
			i %% 4, randomblob(32), iif(i %% 10 = 0, 'Cloudflare', 'device-' || i), 0, %[2]d + i * %[3]d + 31536000000000, %[2]d + i * %[3]d, 365,
			i %% 5 = 0, iif(i %% 5 = 0, iif(i %% 5000 = 0, 6, 4), 0), iif(i %% 5 = 0, %[2]d + i * %[3]d + 1000000, -62135596800000000),
			iif(i %% 5 = 0, i, 0), randomblob(32), zeroblob(600) FROM n`,
		n, time.Now().AddDate(-2, 0, 0).UnixMicro(), step))
	for _, query := range later {
		exec(query)
	}
	exec(`INSERT INTO certificate_names SELECT '.example.com', seq FROM certificates WHERE zone_id = 'z' ORDER BY seq`)
	exec(`INSERT INTO certificate_names SELECT '.fleet.example.com', seq FROM certificates WHERE zone_id = 'z' ORDER BY seq`)
	exec(`INSERT INTO certificate_names SELECT printf('device-%09d.fleet.example.com', seq), seq FROM certificates WHERE zone_id = 'z' ORDER BY seq`)
	exec(`INSERT INTO certificate_counts SELECT zone_id, ca, profile, status, count(*) FROM certificates WHERE zone_id = 'z' GROUP BY 1, 2, 3, 4`)
	exec(`INSERT INTO crl_numbers (ca, shard, number) SELECT 1, column1, ? FROM (VALUES (0), (1), (2), (3))`, n+1)
	exec(`PRAGMA journal_mode = WAL`)
}

// texts reads a column of the raw database.
func texts(t *testing.T, dir, query string) (out []string) {
	t.Helper()
	db := raw(t, dir)
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		out = append(out, text)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSearchTenMillion: every search of the API is answered in milliseconds among ten million certificates (20,000 without
// SEKISHO_LONG; SEKISHO_ROWS says otherwise). Ten million take some 14 GB of disk and minutes to generate.
func TestSearchTenMillion(t *testing.T) {
	n := scaleRows(t, 10_000_000)
	dir := t.TempDir()
	begin := time.Now()
	generate(t, dir, n)
	t.Logf("%d certificates generated in %v", n, time.Since(begin).Round(time.Second))
	begin = time.Now()
	s := open(t, dir)
	t.Logf("opened in %v", time.Since(begin).Round(time.Millisecond))
	now := time.Now()
	middle, err := s.Certificate(t.Context(), "z", fmt.Sprintf("%08x-0000-4000-8000-%012x", n/2, n/2))
	if err != nil {
		t.Fatal(err)
	}
	newest, soonest := ca.Range{Order: ca.Newest}, ca.Range{Order: ca.Soonest}
	for _, test := range []struct {
		name   string
		filter ca.Filter
		rows   int
	}{
		{"zone, newest", ca.Filter{}, 50},
		{"zone, soonest to end", ca.Filter{Range: soonest}, 50},
		{"active", ca.Filter{Status: ca.Active}, 50},
		{"revoked", ca.Filter{Status: ca.Revoked}, 50},
		{"profile server", ca.Filter{Profile: "server"}, 50},
		{"CA, revoked", ca.Filter{CAID: storetest.CAID, Status: ca.Revoked}, 50},
		{"another CA", ca.Filter{CAID: "ffff"}, 0},
		{"on hold", ca.Filter{OnHold: true}, min(50, n/5000)},
		{"on hold, soonest", ca.Filter{OnHold: true, Range: soonest}, min(50, n/5000)},
		{"revoked for good", ca.Filter{Range: ca.Range{Final: true}}, 50},
		{"in force, newest", ca.Filter{Status: ca.Active, ExpiresFrom: now, Range: newest}, 50},
		{"expired", ca.Filter{ExpiresBefore: now}, 50},
		{"ends within 30 days", ca.Filter{Status: ca.Active, ExpiresFrom: now, ExpiresBefore: now.AddDate(0, 0, 30)}, 50},
		{"ends within an hour, newest", ca.Filter{ExpiresFrom: now, ExpiresBefore: now.Add(time.Hour), Range: newest}, min(50, n/17520)},
		{"issued in a week", ca.Filter{Range: ca.Range{IssuedFrom: now.AddDate(0, 0, -97), IssuedBefore: now.AddDate(0, 0, -90)}}, 50},
		{"issued in a week, soonest", ca.Filter{Range: ca.Range{IssuedFrom: now.AddDate(0, 0, -97), IssuedBefore: now.AddDate(0, 0, -90), Order: ca.Soonest}}, 50},
		{"serial number", ca.Filter{Serial: &middle.Serial}, 1},
		{"fingerprint", ca.Filter{Fingerprint: &middle.Fingerprint}, 1},
		{"key", ca.Filter{Key: &middle.KeyHash}, 1},
		{"common name", ca.Filter{CommonName: "device-777"}, 1},
		{"common name of a tenth", ca.Filter{CommonName: "Cloudflare"}, 50},
		{"host name", ca.Filter{Name: "device-000000777.fleet.example.com"}, 1},
		{"hosts below a domain", ca.Filter{Name: ".fleet.example.com"}, 50},
		{"no such host", ca.Filter{Name: "nobody.example.com"}, 0},
		{"page 100 of 1000", ca.Filter{Limit: 1000, Offset: min(99_000, n/2)}, 1000},
	} {
		test.filter.ZoneID = "z"
		measureSearch(t, s, test.name, test.filter, test.rows)
	}
	// The one kind of list that no index has and that is too long to sort: it ends by its time at the latest.
	begin = time.Now()
	found, err := s.Search(t.Context(), ca.Filter{ZoneID: "z", ExpiresBefore: now, Range: newest})
	if took := time.Since(begin); took > 6*time.Second || err != nil && !errors.Is(err, ca.ErrTooWide) {
		t.Errorf("expired, newest: %v, %v", took, err)
	} else {
		t.Logf("expired, newest: %d rows in %v, %v", len(found.Rows), took.Round(time.Millisecond), err)
	}
	info, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d certificates: %d MB, %d bytes each (600 of them the certificate's own)", n, info.Size()>>20, info.Size()/int64(n))
}

// measureSearch times a search: the first, and the best of five.
func measureSearch(t *testing.T, s *testStore, name string, f ca.Filter, want int) {
	t.Helper()
	var took []time.Duration
	var found ca.Found
	for range 5 {
		begin := time.Now()
		var err error
		found, err = s.Search(t.Context(), f)
		took = append(took, time.Since(begin))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
	}
	if len(found.Rows) < want || f.Limit == 0 && len(found.Rows) > 50 {
		t.Errorf("%s: %d rows, want %d", name, len(found.Rows), want)
	}
	mark := ""
	if found.AtLeast {
		mark = "+"
	}
	t.Logf("%-28s %9.2f ms first, %8.2f ms best; %d of %d%s", name, ms(took[0]), ms(slices.Min(took)), len(found.Rows), found.Total, mark)
	if slices.Min(took) > 100*time.Millisecond && !raceEnabled {
		t.Errorf("%s: %v, want milliseconds", name, slices.Min(took))
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// TestArchiveMillion archives what has ended of a million certificates under a writer that never stops, and shows what the
// files do. Without SEKISHO_LONG of 20,000.
func TestArchiveMillion(t *testing.T) {
	n := scaleRows(t, 1_000_000)
	dir := t.TempDir()
	generate(t, dir, n)
	s := open(t, dir)
	before := time.Now().AddDate(0, -6, 0) // a quarter of all
	size := func(name string) int64 {
		info, err := os.Stat(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size() >> 20
	}
	alone := writeWhile(t, s, n, time.Second, nil)
	ledger, begin, moved := size("sekisho.db"), time.Now(), 0
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	waits := writeWhile(t, s, 2*n, 10*time.Minute, func() error {
		for {
			got, err := s.Archive(ctx, before, archiveEntry)
			moved += got
			if got == 0 || errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	took := time.Since(begin)
	t.Logf("%d of %d archived in %v, %.0f a second; ledger %d MB before, %d MB after, archive %d MB", moved, n, took.Round(time.Second),
		float64(moved)/took.Seconds(), ledger, size("sekisho.db"), size("archive.db"))
	t.Logf("a writer beside it: median %v, p99 %v, worst %v of %d; alone median %v, p99 %v", waits[len(waits)/2], waits[len(waits)*99/100],
		waits[len(waits)-1], len(waits), alone[len(alone)/2], alone[len(alone)*99/100])
	if moved == 0 {
		t.Error("nothing was archived")
	}
	found, err := s.Search(t.Context(), ca.Filter{Range: ca.Range{Archived: true, Order: ca.Soonest}})
	if err != nil || found.Total < moved || found.Total >= moved+1024 { // the last batch may be in both: its time was over
		t.Errorf("%d in the archive, %v; want %d", found.Total, err, moved)
	}
	if len(found.Rows) > 0 && found.Rows[0].NotAfter.After(before) {
		t.Errorf("the archive has one that ended at %v", found.Rows[0].NotAfter)
	}
}

// writeWhile records certificates one after another until fn returns, or for a time, and returns how long each took, sorted.
func writeWhile(t *testing.T, s *testStore, from int, most time.Duration, fn func() error) (waits []time.Duration) {
	t.Helper()
	done := make(chan error, 1)
	if fn != nil {
		go func() { done <- fn() }()
	}
	for end, n := time.Now().Add(most), from; time.Now().Before(end); n++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(waits)
			return waits
		default:
		}
		c := storetest.Certificate(n)
		begin := time.Now()
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(err)
		}
		waits = append(waits, time.Since(begin))
	}
	slices.Sort(waits)
	return waits
}
