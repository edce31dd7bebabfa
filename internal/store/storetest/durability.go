package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

var errFault = errors.New("fault on demand")

func testAudit(t *testing.T, s Interface) {
	ctx := t.Context()
	odd := auditlog.Entry{
		At: epoch().In(time.FixedZone("east", 3600)), Actor: "a\x00b", Action: "x\xff", Object: "é'\"\n", Outcome: "refused",
		Detail: map[string]string{"k\x00": "v\xfe", "": ""},
	}
	for _, e := range []auditlog.Entry{odd, Entry("a", "1"), {}, {Detail: map[string]string{}}} {
		if err := s.AppendAudit(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	AddCA(t, s)
	record(t, s, Certificate(1))
	revoke(t, s, Certificate(1).ID, pkix.KeyCompromise)
	records, err := s.AuditRecords(ctx, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, r := range records {
		actions = append(actions, r.Action)
	}
	if diff := cmp.Diff([]string{"x\uFFFD", "a", "", "", "ca.create", "certificate.issue", "certificate.revoke"}, actions); diff != "" {
		t.Error(diff)
	}
	if err := s.VerifyAudit(ctx); err != nil {
		t.Error(err)
	}
	page, err := s.AuditRecords(ctx, 3, 2)
	if diff := cmp.Diff(records[2:4], page); diff != "" || err != nil {
		t.Errorf("a page: %v %s", err, diff)
	}
}

func testCancelled(t *testing.T, s Interface) {
	AddCA(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := Certificate(1)
	if err := s.RecordCertificate(ctx, c, Entry("certificate.issue", c.ID)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it began: %v, want context.Canceled", err)
	}
	if _, err := s.Certificate(t.Context(), "", c.ID); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("it was stored all the same: %v", err)
	}
}

// testConcurrent: 100 writers at once issue, hold, and reactivate or revoke, while others read.
func testConcurrent(t *testing.T, s Interface) {
	AddCA(t, s)
	const writers = 100
	var mu sync.Mutex
	var numbers []int64
	note := func(c ca.Certificate, _ []ca.Certificate, err error) error {
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			numbers = append(numbers, c.CRLNumber)
		}
		return err
	}
	errs := make([]error, writers)
	var group sync.WaitGroup
	for n := range writers {
		group.Go(func() {
			ctx, c := t.Context(), Certificate(n)
			last := ca.Transition{ID: c.ID, To: ca.Revoked, Reason: pkix.Superseded, At: epoch()}
			if n%2 == 0 {
				last.To = ca.Active
			}
			err := s.RecordCertificate(ctx, c, Entry("certificate.issue", c.ID))
			if err == nil {
				err = note(s.Apply(ctx, ca.Transition{ID: c.ID, To: ca.Revoked, Reason: pkix.CertificateHold, At: epoch()}, Entry("hold", c.ID)))
			}
			if err == nil {
				err = note(s.Apply(ctx, last, Entry("last", c.ID)))
			}
			if _, readErr := s.CertificateByID(ctx, c.CertID()); readErr != nil {
				err = errors.Join(err, fmt.Errorf("acknowledged and not there: %w", readErr))
			}
			errs[n] = err
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	slices.Sort(numbers)
	want := make([]int64, 2*writers)
	for i := range want {
		want[i] = int64(i) + 1
	}
	if diff := cmp.Diff(want, numbers); diff != "" {
		t.Errorf("CRL numbers: %s", diff)
	}
	if number, all := revoked(t, s, CAID, 0, epoch()); number != 2*writers || len(all) != writers/2 {
		t.Errorf("number %d with %d revoked, want %d with %d", number, len(all), 2*writers, writers/2)
	}
	if n := auditCount(t, s); n != 1+3*writers {
		t.Errorf("%d audit records, want %d", n, 1+3*writers)
	}
	if err := s.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
}

// hold makes the store wait at its next commit until release is called; meanwhile writes gather for the commit after.
func hold(s Faulty) (waiting <-chan struct{}, release func()) {
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.SetFault(func(point string) error {
		if point == "before-commit" {
			once.Do(func() {
				close(in)
				<-out
			})
		}
		return nil
	})
	return in, sync.OnceFunc(func() { close(out) })
}

// testGroup: of writes that share a commit, the one that is refused leaves nothing and disturbs nobody.
func testGroup(t *testing.T, s Interface) {
	f, ok := s.(Faulty)
	if !ok {
		t.Skip("this store cannot be made to fail")
	}
	AddCA(t, s)
	waiting, release := hold(f)
	defer release()
	first := make(chan error, 1)
	go func() { first <- s.SetMeta(t.Context(), "first", "") }()
	<-waiting
	const n = 20
	errs := make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			c := Certificate(i)
			if i%4 == 3 {
				c.ID = Certificate(i - i%4).ID // taken, found only after the serial was looked up and the row was tried
			}
			errs[i] = s.RecordCertificate(t.Context(), c, Entry("certificate.issue", c.ID))
		})
	}
	time.Sleep(50 * time.Millisecond) // for the writers to be in the queue; the test holds without it too
	release()
	group.Wait()
	f.SetFault(nil)
	stored := 0
	for i, err := range errs {
		switch {
		case err == nil:
			stored++
		case i%4 != 3 && i%4 != 0 || !errors.Is(err, ca.ErrConflict):
			t.Errorf("write %d: %v", i, err)
		}
	}
	_, total, err := s.Certificates(t.Context(), ca.Filter{})
	if audits := auditCount(t, s); err != nil || stored != n*3/4 || total != stored || audits != 1+stored {
		t.Errorf("%d acknowledged, %d stored, %d audit records, %v; want %d of each and one record more", stored, total, audits, err, n*3/4)
	}
	if err := errors.Join(<-first, s.VerifyAudit(t.Context())); err != nil {
		t.Error(err)
	}
}

// failAt makes every commit fail at one point.
func failAt(f Faulty, at string) {
	f.SetFault(func(point string) error {
		if point == at {
			return errFault
		}
		return nil
	})
}

func testFailedCommit(t *testing.T, s Interface) {
	f, ok := s.(Faulty)
	if !ok {
		t.Skip("this store cannot be made to fail")
	}
	AddCA(t, s)
	held := record(t, s, Certificate(1))
	audits := auditCount(t, s)
	failAt(f, "before-commit")
	c := Certificate(2)
	if err := s.RecordCertificate(t.Context(), c, Entry("certificate.issue", c.ID)); !errors.Is(err, errFault) {
		t.Errorf("record: %v", err)
	}
	if _, _, err := s.Apply(t.Context(), ca.Transition{ID: held.ID, To: ca.Revoked, At: epoch()}, Entry("revoke", held.ID)); !errors.Is(err, errFault) {
		t.Errorf("revoke: %v", err)
	}
	f.SetFault(nil)
	if _, total, err := s.Certificates(t.Context(), ca.Filter{Status: ca.Active}); err != nil || total != 1 {
		t.Errorf("%d active, %v; want the one from before", total, err)
	}
	if n := auditCount(t, s); n != audits {
		t.Errorf("%d audit records, want %d", n, audits)
	}
	record(t, s, c)
	if got := revoke(t, s, held.ID, pkix.Superseded); got.CRLNumber != 1 {
		t.Errorf("CRL number %d, want 1", got.CRLNumber)
	}
}

// testFailedButPersisted: the answer was an error and the write is there; trying again is refused, not done twice.
func testFailedButPersisted(t *testing.T, s Interface) {
	f, ok := s.(Faulty)
	if !ok {
		t.Skip("this store cannot be made to fail")
	}
	AddCA(t, s)
	c := Certificate(1)
	failAt(f, "after-commit")
	if err := s.RecordCertificate(t.Context(), c, Entry("certificate.issue", c.ID)); !errors.Is(err, errFault) {
		t.Errorf("record: %v", err)
	}
	step := ca.Transition{ID: c.ID, To: ca.Revoked, Reason: pkix.Superseded, At: epoch()}
	if _, _, err := s.Apply(t.Context(), step, Entry("revoke", c.ID)); !errors.Is(err, errFault) {
		t.Errorf("revoke: %v", err)
	}
	f.SetFault(nil)
	if err := s.RecordCertificate(t.Context(), c, Entry("certificate.issue", c.ID)); !errors.Is(err, ca.ErrSerialTaken) {
		t.Errorf("again: %v, want ErrSerialTaken", err)
	}
	got, _, err := s.Apply(t.Context(), step, Entry("revoke", c.ID))
	if !errors.Is(err, ca.ErrConflict) || got.Status != ca.Revoked || got.CRLNumber != 1 {
		t.Errorf("again: %s with number %d, %v; want ErrConflict and the row as it is", got.Status, got.CRLNumber, err)
	}
	if err := s.VerifyAudit(t.Context()); err != nil || auditCount(t, s) != 3 {
		t.Errorf("%d audit records, %v; want 3", auditCount(t, s), err)
	}
}

// testUncleanEnd kills the store again and again while it is written to: what was acknowledged is there afterwards, CRL
// numbers have not fallen, and every revocation has its audit record.
func testUncleanEnd(t *testing.T, s Interface) {
	crasher, ok := s.(Crasher)
	if !ok {
		t.Skip("this store cannot be killed inside a test")
	}
	AddCA(t, s)
	var mu sync.Mutex
	acked := map[string]int64{} // certificate to CRL number, 0 when only issued
	stop := make(chan struct{})
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for n := w * 100_000; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				c := Certificate(n)
				if err := s.RecordCertificate(t.Context(), c, Entry("certificate.issue", c.ID)); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[c.ID] = 0
				mu.Unlock()
				got, _, err := s.Apply(t.Context(), ca.Transition{ID: c.ID, To: ca.Revoked, Reason: pkix.Superseded, At: epoch()}, Entry("revoke", c.ID))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[c.ID] = got.CRLNumber
				mu.Unlock()
			}
		})
	}
	for range 5 {
		time.Sleep(20 * time.Millisecond)
		mu.Lock()
		want := make(map[string]int64, len(acked))
		for id, n := range acked {
			want[id] = n
		}
		mu.Unlock()
		checkSurvivors(t, crasher.Crash(t), want)
	}
	close(stop)
	group.Wait()
}

func checkSurvivors(t *testing.T, s Interface, want map[string]int64) {
	t.Helper()
	top := int64(0)
	for id, number := range want {
		c, err := s.Certificate(t.Context(), "", id)
		if err != nil {
			t.Errorf("acknowledged and lost: %v", err)
			continue
		}
		if number > 0 && (c.Status != ca.Revoked || c.CRLNumber != number) {
			t.Errorf("%s: acknowledged as revoked in CRL %d, is %s in %d", id, number, c.Status, c.CRLNumber)
		}
		top = max(top, number)
	}
	if n, err := s.RaiseCRLNumber(t.Context(), CAID, 0, time.Time{}); err != nil || n <= top {
		t.Errorf("the next CRL number is %d, %v; %d was acknowledged", n, err, top)
	}
	_, issued, err := s.Certificates(t.Context(), ca.Filter{Limit: 1})
	_, active, err2 := s.Certificates(t.Context(), ca.Filter{Limit: 1, Status: ca.Active})
	if n := auditCount(t, s); n != 1+issued+(issued-active) {
		t.Errorf("%d audit records for %d issued and %d revoked", n, issued, issued-active)
	}
	if err := errors.Join(err, err2, s.VerifyAudit(t.Context())); err != nil {
		t.Error(err)
	}
}
