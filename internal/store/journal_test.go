package store_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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

// journaled is the configuration of a store in dir with a journal below it.
func journaled(dir string) store.Config {
	return store.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Journal: store.JournalConfig{
		Dir: filepath.Join(dir, "journal"),
		Key: func() (crypto.Signer, error) { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), nil },
	}}
}

func openJournaled(t testing.TB, dir string) *testStore {
	t.Helper()
	return openConfig(t, journaled(dir))
}

// TestConformanceWithJournal is the suite on a store that keeps a journal, which fits the ledger after each test.
func TestConformanceWithJournal(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Interface {
		dir := t.TempDir()
		t.Cleanup(func() { wantVerified(t, dir) }) // after the store's own, which closes it
		return openJournaled(t, dir)
	})
}

// wantVerified demands that journal and ledger of a closed store agree.
func wantVerified(t testing.TB, dir string) store.Report {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // it is over in a cleanup
	report, err := store.Verify(ctx, journaled(dir), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		t.Errorf("%s: %s", f.Where, f.What)
	}
	return report
}

// dump is everything that a restore must not take back.
type dump struct {
	Certificates []string
	Blocked      []string
	Number       int64
	CAs          []string
}

func dumpOf(t testing.TB, s *store.Store) (d dump) {
	t.Helper()
	rows, _, err := s.Certificates(t.Context(), ca.Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range rows {
		d.Certificates = append(d.Certificates, fmt.Sprintln(c.ID, c.Serial, c.Status, c.Reason, c.RevokedAt, c.InvalidityDate, c.CRLNumber, c.NotAfter, c.CommonName))
		blocked, err := s.KeyBlocked(t.Context(), c.KeyHash)
		if err != nil {
			t.Fatal(err)
		}
		if blocked {
			d.Blocked = append(d.Blocked, c.ID)
		}
	}
	cas, err := s.CAs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range cas {
		d.CAs = append(d.CAs, fmt.Sprintf("%+v", r))
	}
	if len(cas) > 0 {
		number, rows, err := s.Revoked(t.Context(), storetest.CAID, -1, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		d.Number = number
		for range rows {
			break // ends the view
		}
	}
	return d
}

func mustIssue(t testing.TB, s *store.Store, n int) ca.Certificate {
	t.Helper()
	c := storetest.Certificate(n)
	if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
		t.Fatal(err)
	}
	return c
}

func apply(s *store.Store, t testing.TB, n int, to ca.Status, reason pkix.Reason) error {
	id := storetest.Certificate(n).ID
	step := ca.Transition{ID: id, To: to, Reason: reason, At: time.Date(2026, 4, 1, 12, 0, n, 0, time.UTC), Block: reason == pkix.KeyCompromise}
	if reason == pkix.KeyCompromise {
		step.InvalidityDate = time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC)
	}
	_, _, err := s.Apply(t.Context(), step, storetest.Entry("certificate.step", id))
	return err
}

func mustApply(t testing.TB, s *store.Store, n int, to ca.Status, reason pkix.Reason) {
	t.Helper()
	if err := apply(s, t, n, to, reason); err != nil {
		t.Fatal(err)
	}
}

func closeStore(t testing.TB, s *testStore) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// restore puts the database of another directory in the place of dir's, as an administrator does with a backup.
func restore(t testing.TB, from, dir string) {
	t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, "sekisho.db"+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := copyFile(from, dir, "sekisho.db"); err != nil {
		t.Fatal(err)
	}
}

// backup copies the database of a closed store.
func backup(t testing.TB, dir string) (copied string) {
	t.Helper()
	copied = t.TempDir()
	if err := copyFile(dir, copied, "sekisho.db"); err != nil {
		t.Fatal(err)
	}
	return copied
}

// busyDay does everything that a journal tells of, to certificates of before (0 to 9) and of after the backup (10 to 14).
func busyDay(t testing.TB, s *store.Store) {
	t.Helper()
	mustApply(t, s, 0, ca.Revoked, pkix.Superseded)
	mustApply(t, s, 1, ca.Revoked, pkix.CertificateHold)
	mustApply(t, s, 2, ca.Active, 0) // was on hold
	mustApply(t, s, 3, ca.Revoked, pkix.KeyCompromise)
	mustApply(t, s, 4, ca.Revoked, pkix.CertificateHold)
	mustApply(t, s, 4, ca.Revoked, pkix.CessationOfOperation)
	for n := 10; n < 13; n++ {
		mustIssue(t, s, n)
		mustApply(t, s, n, ca.Revoked, pkix.CertificateHold)
	}
	mustApply(t, s, 11, ca.Active, 0)
	second := ca.CARecord{ID: strings.Repeat("b", 32), Name: "second", Parent: storetest.CAID, KeyName: "second", DER: []byte("second"), CreatedOn: time.Unix(1, 0).UTC(), Shards: 2}
	if err := s.AddCA(t.Context(), second, storetest.Entry("ca.create", second.ID)); err != nil {
		t.Fatal(err)
	}
	c := storetest.Certificate(14)
	c.CAID, c.IssuerKey, c.Shard = second.ID, pkix.KeyID{7}, 1
	if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, 14, ca.Revoked, pkix.AffiliationChanged)
	for range 3 {
		if _, err := raise(t, s, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// dayBefore makes a store with ten certificates, of which number 2 is on hold and number 9 revoked.
func dayBefore(t testing.TB, dir string) *testStore {
	t.Helper()
	s := openJournaled(t, dir)
	storetest.AddCA(t, s)
	for n := range 10 {
		mustIssue(t, s.Store, n)
	}
	mustApply(t, s.Store, 2, ca.Revoked, pkix.CertificateHold)
	mustApply(t, s.Store, 9, ca.Revoked, pkix.Superseded)
	return s
}

// TestInvariant01RestoreDoesNotUnrevoke: a database of yesterday is brought forward to what the journal has, once.
func TestInvariant01RestoreDoesNotUnrevoke(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	yesterday := backup(t, dir)
	s := openJournaled(t, dir)
	busyDay(t, s.Store)
	want := dumpOf(t, s.Store)
	closeStore(t, s)
	wantVerified(t, dir)
	for range 2 {
		restore(t, yesterday, dir)
		if report, err := store.Verify(t.Context(), journaled(dir), ""); err != nil || len(report.Findings) > 0 || report.Pending == 0 {
			t.Errorf("the old database beside the journal: %+v, %v; want no finding and what is pending", report, err)
		}
		s = openJournaled(t, dir)
		if diff := cmp.Diff(want, dumpOf(t, s.Store)); diff != "" {
			t.Errorf("after the restore: %s", diff)
		}
		records, err := s.AuditRecords(t.Context(), 0, 0)
		if last := records[len(records)-1]; err != nil || last.Action != "store.replay" || last.Detail["of_them_unknown"] != "4" {
			t.Errorf("the last audit record: %+v, %v", last, err)
		}
		got, err := s.Certificate(t.Context(), "", storetest.Certificate(14).ID)
		if err != nil || len(got.DER) != 0 || got.Shard != 1 || got.ZoneID != storetest.Certificate(14).ZoneID {
			t.Errorf("a certificate of after the backup: %+v, %v", got, err)
		}
		number, err := raise(t, s.Store, 0)
		if err != nil || number != want.Number+1 {
			t.Errorf("the next CRL number is %d, %v; want %d", number, err, want.Number+1)
		}
		want.Number = number
		closeStore(t, s)
		wantVerified(t, dir)
	}
}

// TestInvariant01RestoreFromBeforeTheJournal: a database that is older than the journal's beginning, from before there
// was one or from before a new one, gets the whole of it.
func TestInvariant01RestoreFromBeforeTheJournal(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir) // without a journal
	storetest.AddCA(t, s)
	for n := range 10 {
		mustIssue(t, s.Store, n)
	}
	mustApply(t, s.Store, 2, ca.Revoked, pkix.CertificateHold)
	closeStore(t, s)
	old := []string{backup(t, dir)}
	s = open(t, dir)
	mustApply(t, s.Store, 8, ca.Revoked, pkix.Superseded)
	mustApply(t, s.Store, 2, ca.Active, 0)
	mustApply(t, s.Store, 2, ca.Revoked, pkix.CertificateHold)
	closeStore(t, s)
	s = openJournaled(t, dir)
	closeStore(t, s)
	old = append(old, backup(t, dir))
	must(t, os.Remove(store.JournalPath(filepath.Join(dir, "journal"))))
	must(t, store.RenewJournal(t.Context(), journaled(dir), "test", storetest.Entry("store.new-journal", "journal")))
	s = openJournaled(t, dir)
	busyDay(t, s.Store)
	want := dumpOf(t, s.Store)
	closeStore(t, s)
	for i, from := range old {
		restore(t, from, dir)
		s = openJournaled(t, dir)
		if diff := cmp.Diff(want, dumpOf(t, s.Store)); diff != "" {
			t.Errorf("database %d: %s", i, diff)
		}
		closeStore(t, s)
		wantVerified(t, dir)
	}
}

// TestInvariant08ReplayGoesOn: a replay that is cut off between two of its transactions goes on at the next start.
func TestInvariant08ReplayGoesOn(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	yesterday := backup(t, dir)
	s := openJournaled(t, dir)
	for range 9000 / 64 {
		errs := make(chan error, 64)
		for shard := range cap(errs) {
			go func() {
				_, err := raise(t, s.Store, shard)
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		for n := range 10 {
			if err := apply(s.Store, t, n, ca.Revoked, pkix.CertificateHold); err != nil && !errors.Is(err, ca.ErrConflict) {
				t.Fatal(err)
			}
			if err := apply(s.Store, t, n, ca.Active, 0); err != nil && !errors.Is(err, ca.ErrConflict) {
				t.Fatal(err)
			}
		}
	}
	want := dumpOf(t, s.Store)
	closeStore(t, s)
	restore(t, yesterday, dir)
	// The journal cut in the middle of the replay's way is what an interrupted one has seen.
	file := store.JournalPath(filepath.Join(dir, "journal"))
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	closeStore(t, openJournaled(t, dir))
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openJournaled(t, dir)
	if diff := cmp.Diff(want, dumpOf(t, s.Store)); diff != "" {
		t.Error(diff)
	}
	closeStore(t, s)
	wantVerified(t, dir)
}

// TestInvariant08JournalThatDoesNotFit: whatever does not belong together is refused, in words that name the file, and
// RenewJournal is the way out: it raises every CRL number far beyond.
func TestInvariant08JournalThatDoesNotFit(t *testing.T) {
	otherKey := ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))
	for name, spoil := range map[string]func(t *testing.T, dir, file string){
		"missing":        func(t *testing.T, _, file string) { must(t, os.Remove(file)) },
		"cut off":        func(t *testing.T, _, file string) { must(t, os.Truncate(file, 1000)) },
		"empty":          func(t *testing.T, _, file string) { must(t, os.Truncate(file, 0)) },
		"changed at end": func(t *testing.T, _, file string) { flip(t, file, -10) },
		"garbage behind": func(t *testing.T, _, file string) { appendTo(t, file, "garbage") },
		"of another": func(t *testing.T, _, file string) {
			other := t.TempDir()
			closeStore(t, dayBefore(t, other))
			must(t, copyFile(filepath.Join(other, "journal"), filepath.Dir(file), filepath.Base(file)))
		},
		"older than the database": func(t *testing.T, dir, file string) {
			old, err := os.ReadFile(file)
			must(t, err)
			s := openJournaled(t, dir)
			mustApply(t, s.Store, 5, ca.Revoked, pkix.Superseded)
			closeStore(t, s)
			must(t, os.WriteFile(file, old, 0o600))
		},
		"database of another house": func(t *testing.T, dir, _ string) {
			must(t, os.Remove(filepath.Join(dir, "sekisho.db")))
			s := open(t, dir)
			must(t, s.AddCA(t.Context(), ca.CARecord{ID: storetest.CAID, Name: "issuing", KeyName: "issuing", DER: []byte("other"), Shards: 4}, storetest.Entry("ca.create", "x")))
			for n := range 10 {
				mustIssue(t, s.Store, n)
			}
			closeStore(t, s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			closeStore(t, dayBefore(t, dir))
			file := store.JournalPath(filepath.Join(dir, "journal"))
			spoil(t, dir, file)
			_, err := store.Open(t.Context(), journaled(dir))
			if !errors.Is(err, store.ErrJournal) || !strings.Contains(err.Error(), file) {
				t.Fatalf("%v; want ErrJournal with the file", err)
			}
			if store.Held(dir) {
				t.Error("the refused directory is still locked")
			}
			if report, err := store.Verify(t.Context(), journaled(dir), ""); err != nil || len(report.Findings) == 0 {
				t.Errorf("verify: %+v, %v; want a finding", report, err)
			}
			if err := store.RenewJournal(t.Context(), journaled(dir), "test", storetest.Entry("store.new-journal", "journal")); err != nil {
				t.Fatal(err)
			}
			wantRenewed(t, dir)
		})
	}
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	if err := store.RenewJournal(t.Context(), journaled(dir), "test", storetest.Entry("store.new-journal", "journal")); !errors.Is(err, store.ErrJournalFits) {
		t.Errorf("a journal that fits was given up: %v", err)
	}
	cfg := journaled(dir)
	cfg.Journal.Key = func() (crypto.Signer, error) { return otherKey, nil }
	if _, err := store.Open(t.Context(), cfg); !errors.Is(err, store.ErrJournal) {
		t.Errorf("another key: %v", err)
	}
}

func wantRenewed(t *testing.T, dir string) {
	t.Helper()
	report := wantVerified(t, dir)
	if report.Epoch < 1 {
		t.Errorf("epoch %d", report.Epoch)
	}
	s := openJournaled(t, dir)
	defer closeStore(t, s)
	for shard := -1; shard < 4; shard++ {
		if number, err := raise(t, s.Store, shard); err != nil || number <= 1_000_000 {
			t.Errorf("shard %d: the next CRL number is %d, %v", shard, number, err)
		}
	}
	mustApply(t, s.Store, 6, ca.Revoked, pkix.Superseded)
	records, err := s.AuditRecords(t.Context(), 0, 0)
	var renewal map[string]string
	for _, r := range records {
		if r.Action == "store.new-journal" {
			renewal = r.Detail
		}
	}
	if err != nil || renewal["crl_numbers_raised_by"] != "1000000" || renewal["epoch"] == "" {
		t.Errorf("the audit record: %v, %v", renewal, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flip changes the octet at an offset from the end.
func flip(t testing.TB, file string, at int) {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	data[len(data)+at] ^= 1
	must(t, os.WriteFile(file, data, 0o600))
}

func appendTo(t testing.TB, file, text string) {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append(data, text...), 0o600))
}

// TestJournalOfABusyHouse: a database of before the journal gets one that has its whole state, and one that has a
// journal revokes nothing without it.
func TestJournalOfABusyHouse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir) // without a journal
	storetest.AddCA(t, s)
	for n := range 10 {
		mustIssue(t, s.Store, n)
	}
	mustApply(t, s.Store, 2, ca.Revoked, pkix.CertificateHold)
	busyDay(t, s.Store)
	want := dumpOf(t, s.Store)
	closeStore(t, s)
	s = openJournaled(t, dir)
	if diff := cmp.Diff(want, dumpOf(t, s.Store)); diff != "" {
		t.Error(diff)
	}
	closeStore(t, s)
	if report := wantVerified(t, dir); report.Certificates != 9 || report.Epoch != 1 {
		t.Errorf("%+v; want 9 certificates, 7 of them revoked", report)
	}
	s = open(t, dir)
	if err := apply(s.Store, t, 7, ca.Revoked, pkix.Superseded); !errors.Is(err, store.ErrJournal) {
		t.Errorf("revoked without the journal: %v, want ErrJournal", err)
	}
	mustIssue(t, s.Store, 20) // which the journal does not tell of
	closeStore(t, s)
	wantVerified(t, dir)
}

// TestUnfinishedJournal: a crash while a journal is made leaves nothing that the next start cannot deal with.
func TestUnfinishedJournal(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	file := store.JournalPath(filepath.Join(dir, "journal"))
	// Before the database committed to it.
	must(t, os.WriteFile(file+".new", []byte("half of a"), 0o600))
	closeStore(t, openJournaled(t, dir))
	if _, err := os.Stat(file + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unfinished file is still there: %v", err)
	}
	// After that, before it had its name; something else has it, or nothing.
	for _, other := range []bool{true, false} {
		must(t, os.Rename(file, file+".new"))
		if other {
			must(t, os.WriteFile(file, []byte("an old one"), 0o600))
		}
		closeStore(t, openJournaled(t, dir))
		wantVerified(t, dir)
	}
	if old, err := os.ReadFile(file + ".old-1"); err != nil || string(old) != "an old one" {
		t.Errorf("the file that was there before: %q, %v", old, err)
	}
}

// TestVerifyFinds changes the ledger behind the journal's back.
func TestVerifyFinds(t *testing.T) {
	for name, test := range map[string]struct{ sql, want string }{
		"un-revoked":     {`UPDATE certificates SET status = 0 WHERE common_name = 'device-9'`, "its row is not what record"},
		"another reason": {`UPDATE certificates SET reason = 1 WHERE common_name = 'device-9'`, "its row is not what record"},
		"revoked":        {`UPDATE certificates SET status = 1, reason = 4 WHERE common_name = 'device-5'`, "it is revoked, and the journal does not know"},
		"number":         {`UPDATE crl_numbers SET number = number + 1`, "the journal says"},
		"lost":           {`DELETE FROM certificates WHERE common_name = 'device-9'`, "has no row"},
		"CA":             {`UPDATE cas SET der = x'00'`, "not the one of the journal"},
		"unblocked":      {`DELETE FROM blocked_keys`, "its row is not what record"},
		"trusted CA":     {`UPDATE cas SET untrusted = 1`, "not the one of the journal"},
		"signer of a CA": {`UPDATE cas SET signer = x'00'`, "not the one of the journal"},
		"new CA":         {`INSERT INTO cas (id, name, parent, key_name, der, created_on, shards) VALUES ('x', 'x', '', 'x', x'00', 0, 1)`, "the journal does not know it"},
		"audit":          {`DROP TRIGGER audit_no_update; UPDATE audit SET actor = 'x' WHERE seq = 3`, "record 3"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := dayBefore(t, dir)
			mustApply(t, s.Store, 8, ca.Revoked, pkix.KeyCompromise)
			closeStore(t, s)
			wantVerified(t, dir)
			db := raw(t, dir)
			_, err := db.ExecContext(t.Context(), `DROP TRIGGER certificates_stay; UPDATE certificates SET not_after = 4000000000000000`)
			must(t, err)
			_, err = db.ExecContext(t.Context(), test.sql)
			must(t, errors.Join(err, db.Close()))
			report, err := store.Verify(t.Context(), journaled(dir), "")
			if err != nil || len(report.Findings) != 1 || !strings.Contains(report.Findings[0].What, test.want) {
				t.Errorf("%+v, %v; want one finding with %q", report.Findings, err, test.want)
			}
		})
	}
}

func stat(t testing.TB, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info
}

// raise gives a shard its next CRL number.
func raise(t testing.TB, s *store.Store, shard int) (int64, error) {
	return s.RaiseCRLNumber(t.Context(), storetest.CAID, shard, time.Now())
}

// TestInvariant01DamageIsNoEnd: a sector lost in the middle of what is to be replayed refuses the start, and nothing is cut off.
func TestInvariant01DamageIsNoEnd(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	yesterday := backup(t, dir)
	file := store.JournalPath(filepath.Join(dir, "journal"))
	at := (stat(t, file).Size() + 511) / 512 * 512
	s := openJournaled(t, dir)
	for range 60 {
		_, err := raise(t, s.Store, 0)
		must(t, err)
	}
	closeStore(t, s)
	whole, err := os.ReadFile(file)
	must(t, err)
	for ; at+1024 < int64(len(whole)); at += 512 {
		holed := append([]byte(nil), whole...)
		clear(holed[at : at+512])
		must(t, os.WriteFile(file, holed, 0o600))
		restore(t, yesterday, dir)
		if s, err := store.Open(t.Context(), journaled(dir)); !errors.Is(err, store.ErrJournal) {
			t.Errorf("a hole at %d of %d: %v; want ErrJournal", at, len(whole), err)
			must(t, s.Close())
		}
		if size := stat(t, file).Size(); size != int64(len(whole)) {
			t.Errorf("a hole at %d: %d of %d octets are left of the journal", at, size, len(whole))
		}
	}
}

// TestInvariant01NewerDatabaseStays: a journal that was begun from a backup does not take back what the database of after
// the backup has, when that turns up again; and brings to it what was revoked since.
func TestInvariant01NewerDatabaseStays(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	s := openJournaled(t, dir)
	mustApply(t, s.Store, 2, ca.Active, 0)
	mustApply(t, s.Store, 4, ca.Revoked, pkix.CertificateHold)
	mustApply(t, s.Store, 7, ca.Revoked, pkix.CertificateHold)
	mustApply(t, s.Store, 7, ca.Active, 0)
	closeStore(t, s)
	yesterday := backup(t, dir)
	s = openJournaled(t, dir)
	mustApply(t, s.Store, 2, ca.Revoked, pkix.KeyCompromise)
	mustApply(t, s.Store, 4, ca.Revoked, pkix.Superseded)
	mustApply(t, s.Store, 7, ca.Revoked, pkix.CertificateHold)
	closeStore(t, s)
	found := backup(t, dir)
	must(t, os.Remove(store.JournalPath(filepath.Join(dir, "journal"))))
	restore(t, yesterday, dir)
	must(t, renew(t, dir))
	s = openJournaled(t, dir)
	mustApply(t, s.Store, 4, ca.Active, 0) // nobody knows any more that it was revoked for good
	mustApply(t, s.Store, 6, ca.Revoked, pkix.Superseded)
	closeStore(t, s)
	restore(t, found, dir)
	s = openJournaled(t, dir)
	for n, want := range map[int]pkix.Reason{2: pkix.KeyCompromise, 4: pkix.Superseded, 6: pkix.Superseded, 7: pkix.CertificateHold} {
		c, err := s.Certificate(t.Context(), "", storetest.Certificate(n).ID)
		if err != nil || c.Status != ca.Revoked || c.Reason != want {
			t.Errorf("certificate %d is %s (%s), %v; want it revoked (%s)", n, c.Status, c.Reason, err, want)
		}
	}
	records, err := s.AuditRecords(t.Context(), 0, 0)
	if last := records[len(records)-1]; err != nil || last.Detail["kept"] == "0" {
		t.Errorf("the last audit record: %+v, %v; want how many were kept", last, err)
	}
	closeStore(t, s)
	if report, err := store.Verify(t.Context(), journaled(dir), ""); err != nil || len(report.Findings) != 3 {
		t.Errorf("%+v, %v; want a finding for each that the journal does not tell of", report.Findings, err)
	}
}

func renew(t *testing.T, dir string) error {
	t.Helper()
	return store.RenewJournal(t.Context(), journaled(dir), "test", storetest.Entry("store.new-journal", "journal"))
}

// TestInvariant01RenewalKeepsNewerJournal: a journal that a start would bring forward is not given up, also when it was
// begun after the database was written.
func TestInvariant01RenewalKeepsNewerJournal(t *testing.T) {
	dir := t.TempDir()
	before := open(t, dir) // without a journal
	storetest.AddCA(t, before)
	for n := range 10 {
		mustIssue(t, before.Store, n)
	}
	closeStore(t, before)
	withoutJournal := backup(t, dir)
	closeStore(t, openJournaled(t, dir))
	firstJournal := backup(t, dir)
	must(t, os.Remove(store.JournalPath(filepath.Join(dir, "journal"))))
	must(t, renew(t, dir))
	s := openJournaled(t, dir)
	mustApply(t, s.Store, 6, ca.Revoked, pkix.Superseded)
	closeStore(t, s)
	for _, old := range []string{withoutJournal, firstJournal} {
		restore(t, old, dir)
		if err := renew(t, dir); !errors.Is(err, store.ErrJournalFits) {
			t.Errorf("the journal was given up: %v", err)
		}
		s := openJournaled(t, dir)
		if c, err := s.Certificate(t.Context(), "", storetest.Certificate(6).ID); err != nil || c.Status != ca.Revoked {
			t.Errorf("certificate 6 is %s, %v", c.Status, err)
		}
		closeStore(t, s)
	}
}

// TestJournalOfLongNames: an imported certificate can be revoked whatever its name is.
func TestJournalOfLongNames(t *testing.T) {
	dir := t.TempDir()
	s := dayBefore(t, dir)
	c := storetest.Certificate(20)
	c.CommonName = strings.Repeat("x", 5000)
	must(t, s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.import", c.ID)))
	mustApply(t, s.Store, 20, ca.Revoked, pkix.Superseded)
	closeStore(t, s)
	must(t, os.Remove(store.JournalPath(filepath.Join(dir, "journal"))))
	must(t, renew(t, dir))
	wantVerified(t, dir)
}

// TestUnreadableNewJournal: a journal that cannot be opened may be the one that the database has committed to.
func TestUnreadableNewJournal(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	unreadable := store.JournalPath(filepath.Join(dir, "journal")) + ".new"
	must(t, os.Symlink(unreadable, unreadable))
	if _, err := store.Open(t.Context(), journaled(dir)); err == nil || !strings.Contains(err.Error(), unreadable) {
		t.Errorf("%v; want an error that names the file", err)
	}
	if _, err := os.Lstat(unreadable); err != nil {
		t.Errorf("it was removed: %v", err)
	}
}

// TestMissingJournalNeedsNoKey: a key that is made for a journal that is missing makes a stranger of it when it is put back.
func TestMissingJournalNeedsNoKey(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	must(t, os.Remove(store.JournalPath(filepath.Join(dir, "journal"))))
	cfg := journaled(dir)
	cfg.Journal.Key = func() (crypto.Signer, error) {
		t.Error("the key was asked for")
		return nil, os.ErrInvalid
	}
	if _, err := store.Open(t.Context(), cfg); !errors.Is(err, store.ErrJournal) {
		t.Errorf("%v; want ErrJournal", err)
	}
	if report, err := store.Verify(t.Context(), cfg, ""); err != nil || len(report.Findings) != 1 {
		t.Errorf("verify: %+v, %v; want one finding", report.Findings, err)
	}
}

// TestInvariant01ReplayCompletes: of a certificate that only a CRL had told of at the backup, key and dates come back, and a
// compromise of its key reaches the others.
func TestInvariant01ReplayCompletes(t *testing.T) {
	dir := t.TempDir()
	s := dayBefore(t, dir)
	whole := storetest.Certificate(30)
	listed := whole
	listed.ZoneID, listed.Profile, listed.CommonName, listed.DER = strings.Repeat("e", 32), ca.ProfileUnknown, "", nil
	listed.KeyHash, listed.Fingerprint = pkix.KeyID{9}, [32]byte{9}
	listed.Status, listed.Reason, listed.RevokedAt = ca.Revoked, pkix.CertificateHold, whole.NotBefore
	_, err := s.ImportList(t.Context(), ca.ListImport{CAID: storetest.CAID, Rows: []ca.Certificate{listed}}, storetest.Entry("ca.import_crl", "x"))
	must(t, err)
	closeStore(t, s)
	yesterday := backup(t, dir)
	s = openJournaled(t, dir)
	_, err = s.ImportCertificates(t.Context(), []ca.Certificate{whole}, []auditlog.Entry{storetest.Entry("certificate.import", whole.ID)})
	must(t, err)
	closeStore(t, s)
	restore(t, yesterday, dir)
	s = openJournaled(t, dir)
	c, err := s.Certificate(t.Context(), whole.ZoneID, whole.ID)
	if err != nil || c.KeyHash != whole.KeyHash || !c.NotAfter.Equal(whole.NotAfter) || !c.OnHold() {
		t.Errorf("%+v, %v", c, err)
	}
	for zone, want := range map[string]int{whole.ZoneID: 6, listed.ZoneID: 0} {
		if _, total, err := s.Certificates(t.Context(), ca.Filter{ZoneID: zone}); err != nil || total != want {
			t.Errorf("zone %s has %d certificates, %v; want %d", zone, total, err, want)
		}
	}
	closeStore(t, s)
	wantVerified(t, dir)
}

// TestInvariant01ListedKeyStaysBlocked: a key that the CRL of another system calls compromised is blocked after a restore too.
func TestInvariant01ListedKeyStaysBlocked(t *testing.T) {
	dir := t.TempDir()
	closeStore(t, dayBefore(t, dir))
	yesterday := backup(t, dir)
	s := openJournaled(t, dir)
	listed := storetest.Certificate(1)
	listed.DER, listed.Profile, listed.Status, listed.Reason, listed.RevokedAt = nil, ca.ProfileUnknown, ca.Revoked, pkix.KeyCompromise, time.Unix(1, 0).UTC()
	_, err := s.ImportList(t.Context(), ca.ListImport{CAID: storetest.CAID, Rows: []ca.Certificate{listed}}, storetest.Entry("ca.import_crl", "x"))
	must(t, err)
	want := dumpOf(t, s.Store)
	if len(want.Blocked) != 1 {
		t.Fatalf("blocked: %v", want.Blocked)
	}
	closeStore(t, s)
	wantVerified(t, dir)
	restore(t, yesterday, dir)
	s = openJournaled(t, dir)
	if diff := cmp.Diff(want, dumpOf(t, s.Store)); diff != "" {
		t.Errorf("after the restore: %s", diff)
	}
}
