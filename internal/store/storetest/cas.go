package storetest

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// testChangeCAs: a change is stored whole or not at all, and reads back as it was.
func testChangeCAs(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	at := epoch().Truncate(time.Microsecond)
	full := ca.CARecord{
		ID: "f", Name: "full", KeyName: "k", DER: []byte{1}, CreatedOn: at, Shards: 2, Role: ca.RoleIssuing, Imported: true, Untrusted: true, Extra: []byte{2, 3},
		Signer: ca.Signer{DER: []byte{4}, KeyName: "s"}, List: ca.List{Number: "77", ThisUpdate: at},
	}
	row := Certificate(1)
	row.CAID, row.Status, row.Reason, row.RevokedAt, row.CRLNumber = "f", ca.Revoked, pkix.Superseded, at, 77
	change := ca.CAChange{Add: []ca.CARecord{full}, Floor: 77, Certificates: []ca.Certificate{row}}
	for _, broken := range []ca.CAChange{
		{Add: []ca.CARecord{full, full}},
		{Add: []ca.CARecord{full}, Update: []ca.CARecord{{ID: "nobody"}}},
		{Add: []ca.CARecord{full}, Certificates: []ca.Certificate{row, row}},
	} {
		err := s.ChangeCAs(ctx, broken, Entry("ca.import", "f"))
		if !errors.Is(err, ca.ErrConflict) && !errors.Is(err, ca.ErrNotFound) && !errors.Is(err, ca.ErrSerialTaken) {
			t.Errorf("a broken change: %v", err)
		}
	}
	audits := auditCount(t, s)
	if err := s.ChangeCAs(ctx, change, Entry("ca.import", "f")); err != nil {
		t.Fatal(err)
	}
	if n := auditCount(t, s); n != audits+1 {
		t.Errorf("%d audit records for a change", n-audits)
	}
	for shard := range 2 {
		if n, err := s.RaiseCRLNumber(ctx, "f", shard, epoch()); err != nil || n != 78 {
			t.Errorf("shard %d: number %d, %v; want 78", shard, n, err)
		}
	}
	full.Retired, full.Untrusted, full.Extra, full.Signer = true, false, nil, ca.Signer{}
	for _, floor := range []int64{0, 50, 90} {
		if err := s.ChangeCAs(ctx, ca.CAChange{Update: []ca.CARecord{full}, Floor: floor}, Entry("ca.rotate", "f")); err != nil {
			t.Fatal(err)
		}
		if n, err := s.RaiseCRLNumber(ctx, "f", 1, epoch()); err != nil || n != map[int64]int64{0: 79, 50: 80, 90: 91}[floor] {
			t.Errorf("floor %d: number %d, %v", floor, n, err)
		}
	}
	all, err := s.CAs(ctx)
	if err != nil || len(all) != 2 {
		t.Fatalf("%d CAs, %v", len(all), err)
	}
	if diff := cmp.Diff(full, all[1]); diff != "" {
		t.Error(diff)
	}
	record(t, s, Certificate(2))
	counts, err := s.CACounts(ctx)
	if want := map[string]ca.CACount{"f": {Revoked: 1}, CAID: {Active: 1}}; err != nil || !cmp.Equal(want, counts) {
		t.Errorf("counts %v, %v; want %v", counts, err, want)
	}
	revoke(t, s, Certificate(2).ID, pkix.Superseded)
	if counts, err := s.CACounts(ctx); err != nil || counts[CAID] != (ca.CACount{Revoked: 1}) {
		t.Errorf("counts after a revocation: %v, %v", counts, err)
	}
}

// unknown is the row of a certificate that is not known itself.
func unknown(n int, reason pkix.Reason) ca.Certificate {
	c := Certificate(n)
	c.DER, c.Profile, c.Status, c.Reason, c.RevokedAt = nil, "unknown", ca.Revoked, reason, epoch().Truncate(time.Microsecond)
	return c
}

// testImportCertificates: all or none, and totals that stay right when a row gets its certificate.
func testImportCertificates(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	known := record(t, s, Certificate(1))
	record(t, s, unknown(2, pkix.KeyCompromise))
	record(t, s, unknown(3, pkix.CertificateHold))
	entries := func(n int) []auditlog.Entry {
		list := make([]auditlog.Entry, n)
		for i := range list {
			list[i] = Entry("certificate.import", "x")
		}
		return list
	}
	clash := Certificate(5)
	clash.Serial = known.Serial
	if _, err := s.ImportCertificates(ctx, []ca.Certificate{Certificate(4), clash}, entries(2)); !errors.Is(err, ca.ErrSerialTaken) {
		t.Errorf("a serial of another certificate: %v", err)
	}
	if _, err := s.Certificate(ctx, "", Certificate(4).ID); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("the one before it was stored: %v", err)
	}
	sameKey := Certificate(6)
	sameKey.KeyHash = Certificate(2).KeyHash
	// Two that were thought to be good have the key of one that only a CRL called compromised: one that is there already, and
	// one that comes before it in the same import.
	there, before := Certificate(7), Certificate(8)
	there.KeyHash, before.KeyHash = Certificate(2).KeyHash, Certificate(2).KeyHash
	record(t, s, there)
	fresh := []ca.Certificate{Certificate(1), before, Certificate(2), Certificate(3), Certificate(4), sameKey}
	for i := range fresh {
		fresh[i].ID = Certificate(100 + i).ID // an import does not know the ids of rows
	}
	done, err := s.ImportCertificates(ctx, fresh, entries(6))
	if err != nil {
		t.Fatal(err)
	}
	var outcomes []ca.ImportOutcome
	for i, d := range done {
		outcomes = append(outcomes, d.Outcome)
		got, err := s.CertificateByID(ctx, fresh[i].CertID())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d.Row, got, equateSerials()); diff != "" {
			t.Errorf("row %d: %s", i+1, diff)
		}
	}
	if want := []ca.ImportOutcome{ca.ImportKnown, ca.ImportStored, ca.ImportCompleted, ca.ImportCompleted, ca.ImportStored, ca.ImportBlocked}; !cmp.Equal(want, outcomes) {
		t.Errorf("%v, want %v", outcomes, want)
	}
	if done[2].Row.ID != Certificate(2).ID || done[2].Row.Status != ca.Revoked || !done[3].Row.OnHold() || done[5].Row.Reason != pkix.KeyCompromise {
		t.Errorf("rows: %+v", done)
	}
	if got, err := s.Certificate(ctx, "", there.ID); err != nil || got.Reason != pkix.KeyCompromise || done[1].Row.Reason != pkix.KeyCompromise || len(done[2].SameKey) != 2 {
		t.Errorf("others of the compromised key: %s %s, %d taken along, %v", got.Reason, done[1].Row.Reason, len(done[2].SameKey), err)
	}
	for profile, want := range map[string]int{"client": 7, "unknown": 0} {
		if _, total, err := s.Certificates(ctx, ca.Filter{Profile: profile}); err != nil || total != want {
			t.Errorf("%d rows of profile %s, %v; want %d", total, profile, err, want)
		}
	}
}

// testCompleteBlocked: a row of which only a CRL had told is revoked for good when its certificate turns out to have a
// blocked key, whatever the CRL had said.
func testCompleteBlocked(t *testing.T, s Interface) {
	AddCA(t, s)
	cause := record(t, s, Certificate(1))
	step := ca.Transition{ID: cause.ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: epoch(), Block: true}
	if _, _, err := s.Apply(t.Context(), step, Entry("certificate.revoke", cause.ID)); err != nil {
		t.Fatal(err)
	}
	for n, status := range map[int]ca.Status{2: ca.Active, 3: ca.Revoked} {
		row := record(t, s, unknown(n, pkix.CertificateHold))
		if status == ca.Active {
			if _, _, err := s.Apply(t.Context(), ca.Transition{ID: row.ID, To: ca.Active, At: epoch()}, Entry("certificate.reactivate", row.ID)); err != nil {
				t.Fatal(err)
			}
		}
		c := Certificate(n)
		c.KeyHash = cause.KeyHash
		done, err := s.ImportCertificates(t.Context(), []ca.Certificate{c}, []auditlog.Entry{Entry("certificate.import", "x")})
		if err != nil || done[0].Outcome != ca.ImportBlocked || done[0].Row.Reason != pkix.KeyCompromise {
			t.Errorf("%s: %+v, %v", status, done, err)
		}
		got, err := s.CertificateByID(t.Context(), row.CertID())
		if err != nil || got.Status != ca.Revoked || got.Reason != pkix.KeyCompromise || len(got.DER) == 0 {
			t.Errorf("%s: it is %s (%s), %v", status, got.Status, got.Reason, err)
		}
	}
}

// testUnknownKey: a compromised key that is not known takes nobody along.
func testUnknownKey(t *testing.T, s Interface) {
	AddCA(t, s)
	first, second := unknown(1, pkix.CertificateHold), unknown(2, pkix.CertificateHold)
	second.KeyHash = first.KeyHash
	record(t, s, first)
	record(t, s, second)
	step := ca.Transition{ID: first.ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: epoch(), Block: true}
	_, sameKey, err := s.Apply(t.Context(), step, Entry("certificate.revoke", first.ID))
	if err != nil || len(sameKey) != 0 {
		t.Errorf("%d others, %v", len(sameKey), err)
	}
	if blocked, err := s.KeyBlocked(t.Context(), first.KeyHash); err != nil || blocked {
		t.Errorf("blocked %t, %v", blocked, err)
	}
}

// testImportList: what a list says, in one transaction, of lists that grow newer.
func testImportList(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	active, held, final := record(t, s, Certificate(1)), record(t, s, Certificate(2)), record(t, s, Certificate(3))
	revoke(t, s, held.ID, pkix.CertificateHold)
	revoke(t, s, final.ID, pkix.Superseded)
	sameKey := Certificate(5)
	sameKey.KeyHash = active.KeyHash
	record(t, s, sameKey)
	list := func(number string, rows ...ca.Certificate) ca.ListImport {
		step := ca.ListImport{CAID: CAID, List: ca.List{Number: number, ThisUpdate: epoch()}, Rows: rows, Listed: map[pkix.Serial]bool{}, At: epoch()}
		for _, row := range rows {
			step.Listed[row.Serial] = true
		}
		return step
	}
	step := list("100000000000000000000", unknown(1, pkix.KeyCompromise), unknown(4, pkix.Unspecified), unknown(3, pkix.CertificateHold))
	if f, ok := s.(Faulty); ok {
		f.SetFault(func(point string) error {
			if point == "before-commit" {
				return syscall.EIO
			}
			return nil
		})
		if _, err := s.ImportList(ctx, step, Entry("ca.import_crl", CAID)); !errors.Is(err, syscall.EIO) {
			t.Errorf("a commit that fails: %v", err)
		}
		f.SetFault(nil)
	}
	changed, err := s.ImportList(ctx, step, Entry("ca.import_crl", CAID))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]ca.Status{}
	for _, c := range changed {
		got[c.ID] = c.Status
	}
	want := map[string]ca.Status{active.ID: ca.Revoked, sameKey.ID: ca.Revoked, Certificate(4).ID: ca.Revoked, held.ID: ca.Active}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changed: %s", diff)
	}
	if c, err := s.Certificate(ctx, "", final.ID); err != nil || c.Reason != pkix.Superseded {
		t.Errorf("what is final: %v %v", c.Reason, err)
	}
	for _, number := range []string{"100000000000000000000", "99999999999999999999", ""} {
		if _, err := s.ImportList(ctx, list(number), Entry("ca.import_crl", CAID)); !errors.Is(err, ca.ErrConflict) {
			t.Errorf("number %q is not newer: %v", number, err)
		}
	}
	part := ca.ListImport{CAID: CAID, Rows: []ca.Certificate{unknown(9, pkix.Superseded)}, At: epoch()}
	if changed, err := s.ImportList(ctx, part, Entry("ca.import_crl", CAID)); err != nil || len(changed) != 1 {
		t.Errorf("a part of a list: %d changes, %v", len(changed), err)
	}
	next := list("100000000000000000001")
	next.Listed = nil
	if changed, err := s.ImportList(ctx, next, Entry("ca.import_crl", CAID)); err != nil || len(changed) != 0 {
		t.Errorf("an empty list: %d changes, %v", len(changed), err)
	}
	if _, err := s.ImportList(ctx, ca.ListImport{CAID: "nobody", List: ca.List{Number: "1"}}, Entry("ca.import_crl", "x")); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a CA that is none: %v", err)
	}
}
