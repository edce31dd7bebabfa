package store_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

// write is one change that the matrix of faults makes.
type write struct {
	name string
	do   func(t *testing.T, s *store.Store) error
}

func writes() []write {
	step := func(n int, to ca.Status, reason pkix.Reason) func(*testing.T, *store.Store) error {
		return func(t *testing.T, s *store.Store) error { return apply(s, t, n, to, reason) }
	}
	return []write{
		{"revoke", step(0, ca.Revoked, pkix.Superseded)},
		{"hold", step(0, ca.Revoked, pkix.CertificateHold)},
		{"reactivate", step(2, ca.Active, 0)},
		{"compromise", step(3, ca.Revoked, pkix.KeyCompromise)},
		{"issue", func(t *testing.T, s *store.Store) error {
			c := storetest.Certificate(50)
			return s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID))
		}},
		{"number", func(t *testing.T, s *store.Store) error {
			_, err := raise(t, s, 0)
			return err
		}},
		{"CA", func(t *testing.T, s *store.Store) error {
			r := ca.CARecord{ID: strings.Repeat("c", 32), Name: "third", KeyName: "third", DER: []byte("third"), Shards: 1}
			return s.AddCA(t.Context(), r, storetest.Entry("ca.create", r.ID))
		}},
	}
}

// faultPoint is where a write fails: at each of points, with err.
type faultPoint struct {
	name   string
	points []string
	err    error
	stored bool // the database has it all the same
}

func faultPoints() []faultPoint {
	return []faultPoint{
		{"before-journal", []string{"before-journal"}, errFault, false},
		{"after-journal", []string{"after-journal"}, errFault, false},
		{"before-commit", []string{"before-commit"}, errFault, false},
		{"after-commit", []string{"after-commit"}, errFault, true},
		{"disk full in the journal", []string{"journal-write"}, syscall.ENOSPC, false},
		{"sync of the journal", []string{"journal-sync"}, syscall.EIO, false},
		{"disk full and no truncation", []string{"journal-write", "journal-truncate"}, syscall.ENOSPC, false},
		{"before-commit and no truncation", []string{"before-commit", "journal-truncate"}, syscall.EIO, false},
		{"after-journal and no sync", []string{"after-journal", "journal-sync"}, syscall.EIO, false},
	}
}

var errFault = errors.New("fault on demand")

// prepared makes a store with three certificates of one key, and number 2 on hold.
func prepared(t *testing.T) *testStore {
	t.Helper()
	s := openJournaled(t, t.TempDir())
	storetest.AddCA(t, s)
	for n := range 6 {
		c := storetest.Certificate(n)
		if n >= 3 {
			c.KeyHash = pkix.KeyID{3}
		}
		must(t, s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)))
	}
	mustApply(t, s.Store, 2, ca.Revoked, pkix.CertificateHold)
	return s
}

// TestInvariant08JournalFaults: whatever fails, what was acknowledged is there, what was not is there wholly or not at
// all, journal and ledger agree, no CRL number is given twice, and the store works on or after the next start.
func TestInvariant08JournalFaults(t *testing.T) {
	forward := 0
	for _, w := range writes() {
		twin := prepared(t)
		before := dumpOf(t, twin.Store)
		must(t, w.do(t, twin.Store))
		after := dumpOf(t, twin.Store)
		for _, f := range faultPoints() {
			for _, how := range []string{"go on", "reopen", "kill"} {
				t.Run(w.name+"/"+f.name+"/"+how, func(t *testing.T) {
					if got := tryFault(t, w, f, how, before, after); !f.stored && cmp.Diff(after, got) == "" {
						forward++
					}
				})
			}
		}
	}
	// Two faults keep a whole block in the journal, which the next start brings forward, in one of its two ways or both.
	t.Logf("%d changes that failed came forward with the next start", forward)
	if forward < 2*6 {
		t.Errorf("%d changes that failed came forward", forward)
	}
}

func tryFault(t *testing.T, w write, f faultPoint, how string, before, after dump) dump {
	s := prepared(t)
	hit := failingAt(s, f)
	err := w.do(t, s.Store)
	switch {
	case *hit == 0 && err == nil && w.name == "issue": // it does not touch the journal
		before = after
	case *hit == 0 || !errors.Is(err, f.err):
		t.Fatalf("%v after %d faults, want %v", err, *hit, f.err)
	case errors.Is(f.err, syscall.ENOSPC) && !errors.Is(err, store.ErrDiskFull):
		t.Errorf("%v, want ErrDiskFull", err)
	case f.stored:
		before = after
	default:
		after = either(how, f, before, after)
	}
	dir := s.dir
	switch how {
	case "kill":
		dir = t.TempDir()
		must(t, s.copyTo(dir)) // with the fault in force: nothing can be mended before
		s = openJournaled(t, dir)
	case "reopen":
		closeStore(t, s)
		s = openJournaled(t, dir)
	default:
		s.SetFault(nil)
	}
	got := dumpOf(t, s.Store)
	if cmp.Diff(before, got) != "" && cmp.Diff(after, got) != "" {
		t.Errorf("neither as before nor as after: %s", cmp.Diff(before, got))
	}
	number, err := raise(t, s.Store, 0)
	if err != nil || number != got.Number+1 {
		t.Errorf("the next CRL number is %d, %v; want %d", number, err, got.Number+1)
	}
	mustApply(t, s.Store, 1, ca.Revoked, pkix.Superseded)
	closeStore(t, s)
	wantVerified(t, dir)
	return got
}

// either is the state that a failed write may also have led to: only one whose block could not be taken out of the
// journal comes forward at the next start.
func either(how string, f faultPoint, before, after dump) dump {
	if how == "go on" || len(f.points) < 2 {
		return before
	}
	return after
}

// failingAt makes the store fail at the points, and counts how often it did.
func failingAt(s *testStore, f faultPoint) *int {
	hit := new(int)
	s.SetFault(func(point string) error {
		for _, p := range f.points {
			if p == point {
				*hit++
				return f.err
			}
		}
		return nil
	})
	return hit
}

// TestInvariant08RefusesUntilInStep: as long as a block of a failed write is in the journal nothing else is written, also
// what the journal does not tell of; as soon as it can be cut off, the store works again by itself.
func TestInvariant08RefusesUntilInStep(t *testing.T) {
	s := dayBefore(t, t.TempDir())
	hit := failingAt(s, faultPoint{points: []string{"before-commit", "journal-truncate"}, err: errFault})
	if err := apply(s.Store, t, 0, ca.Revoked, pkix.Superseded); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	failed := *hit
	failingAt(s, faultPoint{points: []string{"journal-truncate"}, err: errFault})
	c := storetest.Certificate(40)
	err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID))
	if !errors.Is(err, errFault) || !strings.Contains(err.Error(), "nothing is written until") || failed != 2 {
		t.Errorf("a write behind a block that could not be cut off: %v after %d faults", err, failed)
	}
	s.SetFault(nil)
	mustIssue(t, s.Store, 40)
	mustApply(t, s.Store, 0, ca.Revoked, pkix.Superseded)
	closeStore(t, s)
	wantVerified(t, s.dir)
}

// TestInvariant08DatabaseFullWithJournal: a COMMIT that finds no space takes its block out of the journal again, and
// the store works when there is space.
func TestInvariant08DatabaseFullWithJournal(t *testing.T) {
	dir := t.TempDir()
	s := openJournaled(t, dir)
	storetest.AddCA(t, s)
	for n := range 300 {
		mustIssue(t, s.Store, n)
	}
	var pages int
	db := raw(t, dir)
	must(t, errors.Join(db.QueryRowContext(t.Context(), `PRAGMA page_count`).Scan(&pages), db.Close()))
	must(t, s.LimitPages(t.Context(), pages))
	revoked, refused := 0, 0
	for n := range 300 {
		switch err := apply(s.Store, t, n, ca.Revoked, pkix.Superseded); {
		case err == nil:
			revoked++
		case errors.Is(err, store.ErrDiskFull):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if revoked == 0 || refused == 0 {
		t.Fatalf("%d revoked, %d refused; want some of both", revoked, refused)
	}
	must(t, s.LimitPages(t.Context(), 1<<30))
	for n := range 300 {
		if err := apply(s.Store, t, n, ca.Revoked, pkix.Superseded); err != nil && !errors.Is(err, ca.ErrConflict) {
			t.Errorf("with space again: %v", err)
		}
	}
	if got := dumpOf(t, s.Store); got.Number != 300 {
		t.Errorf("CRL number %d, want 300", got.Number)
	}
	closeStore(t, s)
	if report := wantVerified(t, dir); report.Certificates != 300 {
		t.Errorf("%d certificates in the journal, want 300", report.Certificates)
	}
}

// TestInvariant08GroupWithJournal: of changes that share a block, one that is refused leaves nothing in it.
func TestInvariant08GroupWithJournal(t *testing.T) {
	dir := t.TempDir()
	s := openJournaled(t, dir)
	storetest.AddCA(t, s)
	const n = 40
	for i := range n {
		mustIssue(t, s.Store, i)
	}
	errs := make(chan error, 2*n)
	for i := range 2 * n { // each twice: the second of a pair is refused
		go func() { errs <- apply(s.Store, t, i%n, ca.Revoked, pkix.Superseded) }()
	}
	conflicts := 0
	for range 2 * n {
		if err := <-errs; errors.Is(err, ca.ErrConflict) {
			conflicts++
		} else if err != nil {
			t.Error(err)
		}
	}
	closeStore(t, s)
	report := wantVerified(t, dir)
	if conflicts != n || report.Certificates != n || report.Records != 2+n {
		t.Errorf("%d conflicts, %d certificates in %d records; want %d, %d in %d", conflicts, report.Certificates, report.Records, n, n, 2+n)
	}
}

// TestJournalIsPrivate: the file says who had which certificate.
func TestJournalIsPrivate(t *testing.T) {
	dir := t.TempDir()
	openJournaled(t, dir)
	for name, want := range map[string]string{"journal": "drwx------", "journal/revocations.log": "-rw-------"} {
		if got := fmt.Sprint(stat(t, filepath.Join(dir, name)).Mode()); got != want {
			t.Errorf("%s has mode %s, want %s", name, got, want)
		}
	}
}
