package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

var archiveEntry = auditlog.Entry{Actor: "test", Action: "ledger.archive", Object: "certificates", Outcome: "done"}

// ended is a certificate that ended in 2020, in zone z, with a name; every third is revoked and every third on hold.
func ended(tb testing.TB, n int) ca.Certificate {
	tb.Helper()
	c := named(tb, n, []string{fmt.Sprintf("device-%d.example.com", n)}, nil, nil, nil)
	c.NotAfter = time.Date(2020, 1, 1, 0, 0, n, 0, time.UTC)
	switch n % 3 {
	case 1:
		c.Status, c.Reason, c.RevokedAt = ca.Revoked, pkix.Superseded, c.NotAfter.Add(-time.Hour)
	case 2:
		c.Status, c.Reason, c.RevokedAt = ca.Revoked, pkix.CertificateHold, c.NotAfter.Add(-time.Hour)
	}
	return c
}

// fillEnded records n certificates that ended, and one that did not.
func fillEnded(t *testing.T, s *testStore, n int) (all []ca.Certificate) {
	t.Helper()
	storetest.AddCA(t, s)
	for i := range n {
		all = append(all, ended(t, i))
	}
	all = append(all, storetest.Certificate(n))
	for _, c := range all {
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// archiveAll archives until nothing is left to.
func archiveAll(t *testing.T, s *testStore) (moved int) {
	t.Helper()
	for {
		n, err := s.Archive(t.Context(), time.Now().Add(-store.MinArchiveAge), archiveEntry)
		if err != nil {
			t.Fatal(err)
		}
		if moved += n; n == 0 {
			return moved
		}
	}
}

// checkAll looks for every certificate by id and by serial number.
func checkAll(t *testing.T, s *testStore, want []ca.Certificate) {
	t.Helper()
	serials := cmp.Comparer(func(a, b pkix.Serial) bool { return a == b })
	for _, c := range want {
		got, err := s.Certificate(t.Context(), c.ZoneID, c.ID)
		c.RevokedAt, c.CRLNumber, got.CRLNumber = c.RevokedAt.UTC(), 0, 0
		if diff := cmp.Diff(c, got, serials); diff != "" || err != nil {
			t.Errorf("%s: %v %s", c.ID, err, diff)
		}
		if again, err := s.CertificateByID(t.Context(), c.CertID()); err != nil || again.ID != c.ID || again.Status != c.Status || again.Reason != c.Reason {
			t.Errorf("%s by its serial number: %s %s, %v", c.ID, again.Status, again.Reason, err)
		}
	}
}

func total(t *testing.T, s *testStore, f ca.Filter) int {
	t.Helper()
	found, err := s.Search(t.Context(), f)
	if err != nil || found.Total < len(found.Rows) || found.AtLeast {
		t.Fatalf("%+v: %d of %d, %v", f, len(found.Rows), found.Total, err)
	}
	return found.Total
}

func TestArchive(t *testing.T) {
	const n = 1200 // several batches
	dir := t.TempDir()
	s := open(t, dir)
	all := fillEnded(t, s, n)
	if moved := archiveAll(t, s); moved != n {
		t.Fatalf("%d moved, want %d", moved, n)
	}
	check := func(s *testStore) {
		t.Helper()
		checkAll(t, s, all)
		in := ca.Range{Archived: true}
		for name, c := range map[string]struct {
			filter ca.Filter
			want   int
		}{
			"ledger":              {ca.Filter{}, 1},
			"zone":                {ca.Filter{ZoneID: "z"}, 0},
			"archive":             {ca.Filter{Range: in}, n},
			"archive, zone":       {ca.Filter{ZoneID: "z", Status: ca.Revoked, CAID: storetest.CAID, Range: in}, n / 3 * 2},
			"archive, hold":       {ca.Filter{ZoneID: "z", OnHold: true, Range: ca.Range{Archived: true, Order: ca.Soonest}}, n / 3},
			"archive, name":       {ca.Filter{ZoneID: "z", Name: "device-7.example.com", Range: in}, 1},
			"archive, domain":     {ca.Filter{ZoneID: "z", Name: ".example.com", Range: in}, n},
			"name":                {ca.Filter{ZoneID: "z", Name: "device-7.example.com"}, 0},
			"serial":              {ca.Filter{ZoneID: "z", Serial: &all[7].Serial}, 1},
			"fingerprint":         {ca.Filter{Fingerprint: &all[7].Fingerprint}, 1},
			"serial, other zone":  {ca.Filter{ZoneID: "y", Serial: &all[7].Serial}, 0},
			"fingerprint, status": {ca.Filter{Fingerprint: &all[7].Fingerprint, Status: ca.Active}, 0},
		} {
			if got := total(t, s, c.filter); got != c.want {
				t.Errorf("%s: %d found, want %d", name, got, c.want)
			}
		}
		if err := s.VerifyAudit(t.Context()); err != nil {
			t.Error(err)
		}
	}
	check(s)
	again := all[7]
	again.ID = storetest.Certificate(n + 1).ID
	if err := s.RecordCertificate(t.Context(), again, archiveEntry); !errors.Is(err, ca.ErrSerialTaken) {
		t.Errorf("a serial number of the archive again: %v, want ErrSerialTaken", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir))
}

// TestArchiveTransition: what changes after all comes back, with every certificate of its key when that is compromised.
func TestArchiveTransition(t *testing.T) {
	s := open(t, t.TempDir())
	storetest.AddCA(t, s)
	var all []ca.Certificate
	for n := range 7 {
		c := ended(t, n)
		if n < 3 {
			c.KeyHash = pkix.KeyID{1}
		}
		all = append(all, c)
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(err)
		}
	}
	blocked := ended(t, 7)
	blocked.KeyHash = pkix.KeyID{2}
	if err := s.RecordCertificate(t.Context(), blocked, archiveEntry); err != nil {
		t.Fatal(err)
	}
	step := ca.Transition{ID: blocked.ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: time.Now(), Block: true}
	if _, _, err := s.Apply(t.Context(), step, archiveEntry); err != nil {
		t.Fatal(err)
	}
	last := storetest.Certificate(8)
	if err := s.RecordCertificate(t.Context(), last, archiveEntry); err != nil {
		t.Fatal(err)
	}
	archiveAll(t, s)
	if held, err := s.KeyBlocked(t.Context(), pkix.KeyID{2}); !held || err != nil {
		t.Errorf("the key of an archived certificate is blocked no more: %v", err)
	}
	if _, _, err := s.Apply(t.Context(), ca.Transition{ID: all[4].ID, To: ca.Active}, archiveEntry); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("an archived revocation undone: %v, want ErrConflict", err)
	}
	if got := total(t, s, ca.Filter{}); got != 1 {
		t.Errorf("%d in the ledger after a step that was refused", got)
	}
	row, same, err := s.Apply(t.Context(), ca.Transition{ID: all[0].ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: time.Now(), Block: true}, archiveEntry)
	if err != nil || row.Reason != pkix.KeyCompromise || len(same) != 1 || same[0].ID != all[2].ID {
		t.Fatalf("%+v, %d of the same key: %v", row, len(same), err)
	}
	if got, _ := s.Certificate(t.Context(), "", all[2].ID); got.Reason != pkix.KeyCompromise {
		t.Errorf("the other certificate of the key: %s", got.Reason)
	}
	if in, out := total(t, s, ca.Filter{Range: ca.Range{Archived: true}}), total(t, s, ca.Filter{}); in != 6 || out != 3 {
		t.Errorf("%d in the archive, %d in the ledger; want 6 and 3", in, out)
	}
	if got := total(t, s, ca.Filter{Name: "device-0.example.com"}); got != 1 {
		t.Errorf("what came back is found %d times by its name", got)
	}
	if moved := archiveAll(t, s); moved != 2 {
		t.Errorf("%d moved again, want 2", moved)
	}
	if got, err := s.CertificateByID(t.Context(), all[2].CertID()); err != nil || got.Reason != pkix.KeyCompromise {
		t.Errorf("archived again it is %s, %v", got.Reason, err)
	}
}

// TestArchiveClockAhead: what was moved although it has not ended by the clock that is right counts as revoked.
func TestArchiveClockAhead(t *testing.T) {
	s := open(t, t.TempDir())
	all := fillEnded(t, s, 30)
	live := storetest.Certificate(100)
	live.NotAfter, live.Status, live.Reason = time.Now().AddDate(0, 1, 0).Truncate(time.Second), ca.Revoked, pkix.Superseded
	for _, c := range []ca.Certificate{live, storetest.Certificate(101)} {
		if err := s.RecordCertificate(t.Context(), c, archiveEntry); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Archive(t.Context(), time.Now().AddDate(5, 0, 0), archiveEntry); err != nil || n != len(all)+1 {
		t.Fatalf("%d moved, %v", n, err)
	}
	for shard, want := range map[int]int{-1: 1, live.Shard: 1, live.Shard + 1: 0} {
		for _, id := range []string{"", storetest.CAID} {
			_, rows, err := s.Revoked(t.Context(), id, shard, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			var got []pkix.Serial
			for row, err := range rows {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, row.ID.Serial)
			}
			if len(got) != want || want == 1 && got[0] != live.Serial {
				t.Errorf("CA %q, shard %d: %d revoked, want %d", id, shard, len(got), want)
			}
		}
	}
	n := 0
	for row, err := range s.AllRevoked(t.Context(), time.Time{}) {
		if n++; err != nil || row.ID.Serial != live.Serial {
			t.Errorf("at the start: %v, %v", row.ID.Serial, err)
		}
	}
	if n != 1 {
		t.Errorf("at the start: %d revoked, want 1", n)
	}
}

// TestInvariant08ArchiveKilled copies the files at every commit while certificates are moved: what a kill -9 leaves has
// every certificate, with the state it had, and goes on.
func TestInvariant08ArchiveKilled(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	all := fillEnded(t, s, 50)
	var copies []string
	s.SetFault(func(string) error {
		to := t.TempDir()
		for _, name := range []string{"sekisho.db", "sekisho.db-wal", "archive.db", "archive.db-wal"} {
			if err := copyFile(dir, to, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		copies = append(copies, to)
		return nil
	})
	archiveAll(t, s)
	s.SetFault(nil)
	if len(copies) < 8 {
		t.Fatalf("killed at %d places only", len(copies))
	}
	for _, dir := range copies {
		after := open(t, dir)
		checkAll(t, after, all)
		archiveAll(t, after)
		checkAll(t, after, all)
		if in, out := total(t, after, ca.Filter{Range: ca.Range{Archived: true}}), total(t, after, ca.Filter{}); in != 50 || out != 1 {
			t.Errorf("%d in the archive, %d in the ledger; want 50 and 1", in, out)
		}
		if err := errors.Join(after.VerifyAudit(t.Context()), after.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestInvariant08ArchiveRace: a certificate that is revoked between its copy and its leaving is not lost as good.
func TestInvariant08ArchiveRace(t *testing.T) {
	s := open(t, t.TempDir())
	all := fillEnded(t, s, 20)
	fault := errors.New("fault")
	s.SetFault(func(string) error {
		if _, err := os.Stat(filepath.Join(s.dir, "archive.db")); err == nil {
			return fault // the copy is durable, leaving fails
		}
		return nil
	})
	if n, err := s.Archive(t.Context(), time.Now(), archiveEntry); !errors.Is(err, fault) || n != 0 {
		t.Fatalf("%d moved, %v", n, err)
	}
	s.SetFault(nil)
	checkAll(t, s, all)
	if _, _, err := s.Apply(t.Context(), ca.Transition{ID: all[0].ID, To: ca.Revoked, Reason: pkix.CessationOfOperation, At: all[0].NotAfter}, archiveEntry); err != nil {
		t.Fatal(err)
	}
	all[0].Status, all[0].Reason, all[0].RevokedAt = ca.Revoked, pkix.CessationOfOperation, all[0].NotAfter
	checkAll(t, s, all)
	if moved := archiveAll(t, s); moved != 20 {
		t.Errorf("%d moved, want 20", moved)
	}
	checkAll(t, s, all)
	if got := total(t, s, ca.Filter{Range: ca.Range{Archived: true}}); got != 20 {
		t.Errorf("%d in the archive, want 20", got)
	}
}

// TestArchiveRestored: a ledger from a backup is brought forward by the journal also about what is in the archive, and it
// is the certificate that comes back, not a row that only says that it is revoked.
func TestArchiveRestored(t *testing.T) {
	dir, backup := t.TempDir(), t.TempDir()
	s := openJournaled(t, dir)
	all := fillEnded(t, s, 12)
	archiveAll(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(dir, backup, "sekisho.db"); err != nil {
		t.Fatal(err)
	}
	s = openJournaled(t, dir)
	step := ca.Transition{ID: all[0].ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: all[0].NotAfter, Block: true}
	if _, _, err := s.Apply(t.Context(), step, archiveEntry); err != nil {
		t.Fatal(err)
	}
	archiveAll(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantVerified(t, dir)
	if err := copyFile(backup, dir, "sekisho.db"); err != nil {
		t.Fatal(err)
	}
	s = openJournaled(t, dir)
	all[0].Status, all[0].Reason, all[0].RevokedAt = ca.Revoked, pkix.KeyCompromise, all[0].NotAfter
	checkAll(t, s, all)
	if blocked, err := s.KeyBlocked(t.Context(), all[0].KeyHash); !blocked || err != nil {
		t.Errorf("the key is not blocked: %v", err)
	}
	archiveAll(t, s)
	checkAll(t, s, all)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantVerified(t, dir)
}

// TestArchiveMustBelong: a ledger does not open without what it has moved away.
func TestArchiveMustBelong(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fillEnded(t, s, 30)
	if n, err := s.Archive(t.Context(), ended(t, 10).NotAfter, archiveEntry); err != nil || n != 10 {
		t.Fatalf("%d moved, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	older, path := t.TempDir(), filepath.Join(dir, "archive.db")
	if err := copyFile(dir, older, "archive.db"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the archive's mode: %v, %v", info.Mode(), err)
	}
	s = open(t, dir)
	archiveAll(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	other := open(t, foreign)
	fillEnded(t, other, 3)
	archiveAll(t, other)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, say string }{
		"missing": {"", "is missing"}, "older": {older, "batch 1"}, "another ledger's": {foreign, "beside another"},
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if c.from != "" {
			if err := copyFile(c.from, dir, "archive.db"); err != nil {
				t.Fatal(err)
			}
		}
		_, err := store.Open(t.Context(), store.Config{Dir: dir})
		if !errors.Is(err, store.ErrArchive) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want ErrArchive and %q", name, err, c.say)
		}
	}
}

// TestArchiveFollowsColumns: a column that a later migration gives the ledger is carried along.
func TestArchiveFollowsColumns(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	all := fillEnded(t, s, 12)
	if n, err := s.Archive(t.Context(), ended(t, 5).NotAfter, archiveEntry); err != nil || n != 5 {
		t.Fatalf("%d moved, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db := raw(t, dir)
	for _, q := range []string{`ALTER TABLE certificates ADD COLUMN label TEXT NOT NULL DEFAULT 'none'`, `UPDATE certificates SET label = 'l' || seq`} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	s = open(t, dir)
	archiveAll(t, s)
	checkAll(t, s, all)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file := rawFile(t, filepath.Join(dir, "archive.db"))
	defer file.Close()
	var labels string
	err := file.QueryRowContext(t.Context(), `SELECT group_concat(label, ' ' ORDER BY seq) FROM certificates`).Scan(&labels)
	if want := "none none none none none l6 l7 l8 l9 l10 l11 l12"; err != nil || labels != want {
		t.Errorf("%q, %v; want %q", labels, err, want)
	}
}

// TestArchiveLetsWritersIn: while certificates are moved, others are recorded within the time of a few commits.
func TestArchiveLetsWritersIn(t *testing.T) {
	s := open(t, t.TempDir())
	fillEnded(t, s, 800)
	done := make(chan error, 1)
	go func() {
		for {
			n, err := s.Archive(context.WithoutCancel(t.Context()), time.Now(), archiveEntry)
			if err != nil || n == 0 {
				done <- err
				return
			}
		}
	}()
	var waits []time.Duration
	for n := 2000; ; n++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(waits)
			if len(waits) < 20 {
				t.Fatalf("%d certificates were recorded meanwhile", len(waits))
			}
			t.Logf("%d certificates recorded meanwhile: median %v, 99th percentile %v", len(waits), waits[len(waits)/2], waits[len(waits)*99/100])
			return
		default:
		}
		begin := time.Now()
		c := storetest.Certificate(n)
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(err)
		}
		waits = append(waits, time.Since(begin))
	}
}

// TestArchiveDuringImport: a row that gets its certificate between its copy and its leaving stays in the ledger.
func TestArchiveDuringImport(t *testing.T) {
	s := open(t, t.TempDir())
	all := fillEnded(t, s, 8) // more than leave the ledger in one transaction
	whole := ended(t, 100)
	whole.Status, whole.Reason, whole.RevokedAt = ca.Active, 0, time.Time{}
	listed := whole
	listed.DER, listed.Profile, listed.Status, listed.Reason, listed.RevokedAt = nil, ca.ProfileUnknown, ca.Revoked, pkix.Superseded, time.Unix(1, 0).UTC()
	listed.KeyHash, listed.Fingerprint = pkix.KeyID{9}, pkix.Fingerprint{9}
	if _, err := s.ImportList(t.Context(), ca.ListImport{CAID: storetest.CAID, Rows: []ca.Certificate{listed}}, archiveEntry); err != nil {
		t.Fatal(err)
	}
	if err := s.RecordCertificate(t.Context(), storetest.Certificate(101), archiveEntry); err != nil {
		t.Fatal(err)
	}
	imported := make(chan error, 1)
	begun := false
	s.SetFault(func(point string) error {
		if _, err := os.Stat(filepath.Join(s.dir, "archive.db")); point != "after-commit" || err != nil || begun {
			return nil
		}
		begun = true // the first rows have left, the last one is copied
		go func() {
			_, err := s.ImportCertificates(t.Context(), []ca.Certificate{whole}, []auditlog.Entry{archiveEntry})
			imported <- err
		}()
		time.Sleep(50 * time.Millisecond) // it waits for the writer, before the next rows do
		return nil
	})
	archiveAll(t, s)
	if err := <-imported; err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := s.CertificateByID(t.Context(), whole.CertID())
		if err != nil || got.Fingerprint != whole.Fingerprint || len(got.DER) == 0 || got.Status != ca.Revoked {
			t.Errorf("the certificate that was imported meanwhile: %+v, %v", got, err)
		}
		archiveAll(t, s)
	}
	checkAll(t, s, all)
}

// TestArchiveAgainAtOnce: what comes back and is archived again before its older copy is removed stays in the archive.
func TestArchiveAgainAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	all := fillEnded(t, s, 3)
	archiveAll(t, s)
	older, err := s.ArchivedCopy(t.Context(), all[0].ID)
	if err != nil || len(older) != 1 {
		t.Fatalf("%d copies, %v", len(older), err)
	}
	all[0].Status, all[0].Reason, all[0].RevokedAt = ca.Revoked, pkix.CessationOfOperation, all[0].NotAfter
	if _, _, err := s.Apply(t.Context(), ca.Transition{ID: all[0].ID, To: ca.Revoked, Reason: all[0].Reason, At: all[0].NotAfter}, archiveEntry); err != nil {
		t.Fatal(err)
	}
	if moved := archiveAll(t, s); moved != 1 {
		t.Fatalf("%d moved again, want 1", moved)
	}
	s.Recalled(t.Context(), older)
	checkAll(t, s, all)
}
