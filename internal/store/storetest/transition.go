package storetest

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

func testTransitions(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	c := record(t, s, Certificate(1))
	number := int64(0)
	now := epoch()
	for _, step := range []struct {
		to     ca.Status
		reason pkix.Reason
		ok     bool
	}{
		{ca.Active, 0, false},
		{ca.Revoked, pkix.CertificateHold, true},
		{ca.Revoked, pkix.CertificateHold, false},
		{ca.Active, 0, true},
		{ca.Active, 0, false},
		{ca.Revoked, pkix.CertificateHold, true},
		{ca.Revoked, pkix.Superseded, true},
		{ca.Revoked, pkix.Superseded, false},
		{ca.Revoked, pkix.CertificateHold, false},
		{ca.Active, 0, false},
		{ca.Revoked, pkix.KeyCompromise, true},
		{ca.Revoked, pkix.KeyCompromise, false},
		{ca.Revoked, pkix.Superseded, false},
		{ca.Revoked, pkix.CertificateHold, false},
		{ca.Active, 0, false},
	} {
		audits := auditCount(t, s)
		now = now.Add(time.Hour)
		got, sameKey, err := s.Apply(ctx, ca.Transition{ID: c.ID, ZoneID: c.ZoneID, To: step.to, Reason: step.reason, At: now}, Entry("t", c.ID))
		if step.ok {
			number++
			switch {
			case step.to == ca.Active:
				c.RevokedAt = time.Time{}
			case c.Status == ca.Active: // a hold that becomes final keeps its date, and so does what was final before
				c.RevokedAt = now.Truncate(time.Microsecond)
			}
			c.Status, c.Reason, c.CRLNumber = step.to, step.reason, number
			audits++
		}
		if len(sameKey) != 0 {
			t.Errorf("to %s %s changed %d others", step.to, step.reason, len(sameKey))
		}
		if step.ok != (err == nil) || !step.ok && !errors.Is(err, ca.ErrConflict) {
			t.Errorf("to %s %s: %v", step.to, step.reason, err)
		}
		stored, err := s.Certificate(ctx, "", c.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]ca.Certificate{c, c}, []ca.Certificate{got, stored}, equateSerials()); diff != "" {
			t.Errorf("to %s %s: answered and stored: %s", step.to, step.reason, diff)
		}
		if n := auditCount(t, s); n != audits {
			t.Errorf("to %s %s: %d audit records, want %d", step.to, step.reason, n, audits)
		}
	}
	for what, step := range map[string]ca.Transition{
		"another zone": {ID: c.ID, ZoneID: "ffff", To: ca.Revoked, At: epoch()},
		"no such id":   {ID: "nobody", To: ca.Revoked, At: epoch()},
	} {
		if _, _, err := s.Apply(ctx, step, Entry("t", "")); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
	if _, _, err := s.Apply(ctx, ca.Transition{ID: c.ID, To: "pending", At: epoch()}, Entry("t", c.ID)); err == nil {
		t.Error("an unknown status was taken")
	}
}

func testBlock(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	c := record(t, s, Certificate(1))
	blocked := func() bool {
		b, err := s.KeyBlocked(ctx, c.KeyHash)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if blocked() {
		t.Error("blocked before any revocation")
	}
	revoke(t, s, c.ID, pkix.CertificateHold)
	if blocked() {
		t.Error("blocked by a hold")
	}
	step := ca.Transition{ID: c.ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: epoch(), Block: true}
	if _, _, err := s.Apply(ctx, step, Entry("certificate.revoke", c.ID)); err != nil {
		t.Fatal(err)
	}
	if !blocked() {
		t.Error("not blocked by keyCompromise")
	}
	again := Certificate(2)
	again.KeyHash = c.KeyHash
	if err := s.RecordCertificate(ctx, again, Entry("certificate.issue", again.ID)); !errors.Is(err, ca.ErrKeyBlocked) {
		t.Errorf("another certificate for the key: %v, want ErrKeyBlocked", err)
	}
	// What was revoked for another reason can still have its key blocked.
	late := record(t, s, Certificate(3))
	revoke(t, s, late.ID, pkix.Superseded)
	step.ID = late.ID
	if _, _, err := s.Apply(ctx, step, Entry("certificate.revoke", late.ID)); err != nil {
		t.Errorf("superseded, then keyCompromise: %v", err)
	}
	if b, err := s.KeyBlocked(ctx, late.KeyHash); !b || err != nil {
		t.Errorf("its key is blocked: %v, %v", b, err)
	}
}

// testSameKey: keyCompromise takes along every certificate of the key that is not revoked for good, in any zone and
// shard, each with a CRL number and an audit record of its own; and no certificate of another key.
func testSameKey(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	key := Certificate(1).KeyHash
	certs := make([]ca.Certificate, 6)
	for n := range certs {
		certs[n] = Certificate(n + 1)
		certs[n].Shard = n % 2
		if n != 5 {
			certs[n].KeyHash = key
		}
		record(t, s, certs[n])
	}
	held := revoke(t, s, certs[2].ID, pkix.CertificateHold) // shard 0, number 1
	final := revoke(t, s, certs[3].ID, pkix.Superseded)     // shard 1, number 1
	audits := auditCount(t, s)
	now := epoch().Add(time.Hour)
	step := ca.Transition{ID: certs[0].ID, ZoneID: certs[0].ZoneID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: now, Block: true}
	row, others, err := s.Apply(ctx, step, Entry("certificate.revoke", certs[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	want := []ca.Certificate{certs[0], certs[1], held, certs[4]}
	for i, number := range []int64{2, 2, 3, 4} { // shards 0, 1, 0, 0
		want[i].CRLNumber = number
		if want[i].Status == ca.Active {
			want[i].RevokedAt = now.Truncate(time.Microsecond)
		}
		want[i].Status, want[i].Reason = ca.Revoked, pkix.KeyCompromise
	}
	var stored []ca.Certificate
	for _, c := range want {
		c, err := s.Certificate(ctx, "", c.ID)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, c)
	}
	answered := append([]ca.Certificate{row}, others...)
	if diff := cmp.Diff([][]ca.Certificate{want, want}, [][]ca.Certificate{answered, stored}, equateSerials()); diff != "" {
		t.Errorf("answered and stored: %s", diff)
	}
	for _, c := range []ca.Certificate{final, certs[5]} {
		if got, err := s.Certificate(ctx, "", c.ID); err != nil || got.Status != c.Status || got.Reason != c.Reason || got.CRLNumber != c.CRLNumber {
			t.Errorf("%s %s became %s %s, %v", c.Status, c.Reason, got.Status, got.Reason, err)
		}
	}
	records, err := s.AuditRecords(ctx, int64(audits)+1, 0)
	if err != nil || len(records) != len(want) {
		t.Fatalf("%d audit records, %v; want one a certificate", len(records), err)
	}
	for i, r := range records {
		if r.Object != want[i].ID || (r.Detail["same_key_as"] == certs[0].ID) != (i > 0) || r.Detail["because"] == "" {
			t.Errorf("audit record %d: %s, %v", i, r.Object, r.Detail)
		}
	}
	if err := s.VerifyAudit(ctx); err != nil {
		t.Error(err)
	}
	if _, others, err := s.Apply(ctx, step, Entry("certificate.revoke", certs[0].ID)); !errors.Is(err, ca.ErrConflict) || len(others) != 0 {
		t.Errorf("again: %v with %d others, want ErrConflict", err, len(others))
	}
}

func testCRLNumbers(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	raise := func(shard int, want int64) {
		t.Helper()
		if n, err := s.RaiseCRLNumber(ctx, CAID, shard, time.Time{}); err != nil || n != want {
			t.Errorf("shard %d: number %d, %v; want %d", shard, n, err, want)
		}
	}
	raise(0, 1)
	raise(0, 2)
	raise(1, 1)
	c := record(t, s, Certificate(1))
	if got := revoke(t, s, c.ID, pkix.CertificateHold); got.CRLNumber != 3 {
		t.Errorf("number of the revocation: %d, want 3", got.CRLNumber)
	}
	raise(0, 4)
	raise(1, 2)
	if _, err := s.RaiseCRLNumber(ctx, "nobody", 0, time.Time{}); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("unknown CA: %v, want ErrNotFound", err)
	}
}

func testRevoked(t *testing.T, s Interface) {
	AddCA(t, s)
	want := map[pkix.CertID]ca.RevokedRow{}
	byShard := map[int]map[pkix.CertID]ca.RevokedRow{0: {}, 1: {}}
	for n := range 20 {
		c := Certificate(n)
		c.Shard = n % 2
		c.NotAfter = epoch().Add(time.Duration(n) * time.Hour).Truncate(time.Second)
		record(t, s, c)
		if n%5 == 0 {
			continue
		}
		got := revoke(t, s, c.ID, pkix.Reason(1+n%6))
		if n%6+1 == int(pkix.CertificateHold) {
			if _, _, err := s.Apply(t.Context(), ca.Transition{ID: c.ID, To: ca.Active, At: epoch()}, Entry("t", c.ID)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if n >= 4 {
			row := ca.RevokedRow{ID: c.CertID(), Reason: got.Reason, At: got.RevokedAt, NotAfter: c.NotAfter}
			want[c.CertID()], byShard[c.Shard][c.CertID()] = row, row
		}
	}
	since := epoch().Add(4 * time.Hour).Truncate(time.Second) // equal to the notAfter of number 4, which still counts
	numbers := map[int]int64{}
	for shard := range 2 {
		n, err := s.RaiseCRLNumber(t.Context(), CAID, shard, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		numbers[shard] = n
	}
	for _, test := range []struct {
		name   string
		caID   string
		shard  int
		number int64
		want   map[pkix.CertID]ca.RevokedRow
	}{
		{"every CA", "", -1, 0, want},
		{"one CA", CAID, -1, max(numbers[0], numbers[1]), want},
		{"shard 0", CAID, 0, numbers[0], byShard[0]},
		{"shard 1", CAID, 1, numbers[1], byShard[1]},
		{"empty shard", CAID, 3, 0, map[pkix.CertID]ca.RevokedRow{}},
	} {
		number, got := revoked(t, s, test.caID, test.shard, since)
		if diff := cmp.Diff(test.want, got, equateSerials()); diff != "" || number != test.number {
			t.Errorf("%s: number %d, want %d; %s", test.name, number, test.number, diff)
		}
	}
	if _, _, err := s.Revoked(t.Context(), "nobody", 0, since); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("unknown CA: %v, want ErrNotFound", err)
	}
}

func revoked(t *testing.T, s Interface, caID string, shard int, since time.Time) (int64, map[pkix.CertID]ca.RevokedRow) {
	t.Helper()
	number, rows, err := s.Revoked(t.Context(), caID, shard, since)
	if err != nil {
		t.Fatal(err)
	}
	got := map[pkix.CertID]ca.RevokedRow{}
	for row, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		got[row.ID] = row
	}
	for _, err := range rows {
		if err == nil {
			t.Error("the sequence gave rows a second time, from a view that has ended")
		}
	}
	return number, got
}

// testRevokedView: what is revoked after the call is not in the sequence, and the number says so.
func testRevokedView(t *testing.T, s Interface) {
	AddCA(t, s)
	for n := range 3 {
		record(t, s, Certificate(n))
	}
	revoke(t, s, Certificate(0).ID, pkix.Superseded)
	number, rows, err := s.Revoked(t.Context(), CAID, 0, epoch())
	if err != nil {
		t.Fatal(err)
	}
	revoke(t, s, Certificate(1).ID, pkix.Superseded)
	got := map[pkix.CertID]bool{}
	for row, err := range rows {
		if err != nil {
			t.Fatal(err)
		}
		got[row.ID] = true
		revoke(t, s, Certificate(2).ID, pkix.Superseded) // a writer is not held up by a reader
	}
	if want := map[pkix.CertID]bool{Certificate(0).CertID(): true}; number != 1 || !maps.Equal(got, want) {
		t.Errorf("number %d with %d rows, want 1 with 1", number, len(got))
	}
	if number, all := revoked(t, s, CAID, 0, epoch()); number != 3 || len(all) != 3 {
		t.Errorf("afterwards number %d with %d rows, want 3 with 3", number, len(all))
	}
}
