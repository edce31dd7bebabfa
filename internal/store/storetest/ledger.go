package storetest

import (
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// equateSerials compares serial numbers, whose fields are unexported, as the numbers they are.
func equateSerials() cmp.Option {
	return cmp.Comparer(func(a, b pkix.Serial) bool { return a == b })
}

func testCAs(t *testing.T, s Interface) {
	ctx := t.Context()
	want := []ca.CARecord{
		{ID: "r", Name: "root", KeyName: "root", DER: []byte{1}, CreatedOn: epoch().Truncate(time.Microsecond), Shards: 1},
		{ID: "i", Name: "issuing", Parent: "r", KeyName: "issuing", DER: []byte{2}, CreatedOn: epoch().Truncate(time.Microsecond), Shards: 3},
	}
	// The child first: CAs gives parents first all the same.
	for _, r := range []ca.CARecord{want[1], want[0]} {
		if err := s.AddCA(ctx, r, Entry("ca.create", r.ID)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.CAs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	again := ca.CARecord{ID: "x", Name: "root", DER: []byte{3}, Shards: 1}
	if err := s.AddCA(ctx, again, Entry("ca.create", "x")); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("a second CA named root: %v, want ErrConflict", err)
	}
	if n := auditCount(t, s); n != 2 {
		t.Errorf("%d audit records, want 2: the refused one leaves none", n)
	}
}

func testRecord(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	want := Certificate(1)
	want.CSR, want.Shard = []byte("-----BEGIN"), 2
	record(t, s, want)
	record(t, s, Certificate(2))

	got, err := s.Certificate(ctx, want.ZoneID, want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equateSerials()); diff != "" {
		t.Errorf("by id: %s", diff)
	}
	if got, err = s.Certificate(ctx, "", want.ID); err != nil || got.ID != want.ID {
		t.Errorf("without a zone: %v, %v", got.ID, err)
	}
	got, err = s.CertificateByID(ctx, want.CertID())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equateSerials()); diff != "" {
		t.Errorf("by issuer and serial: %s", diff)
	}
	other := want.CertID()
	other.Issuer[0] ^= 1
	for what, err := range map[string]error{
		"another zone":   errOf(s.Certificate(ctx, "ffff", want.ID)),
		"no such id":     errOf(s.Certificate(ctx, "", "nobody")),
		"another issuer": errOf(s.CertificateByID(ctx, other)),
		"another serial": errOf(s.CertificateByID(ctx, Certificate(3).CertID())),
	} {
		if !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", what, err)
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

func testRecordRefuses(t *testing.T, s Interface) {
	ctx := t.Context()
	AddCA(t, s)
	first := record(t, s, Certificate(1))
	audits := auditCount(t, s)
	for _, test := range []struct {
		name   string
		change func(*ca.Certificate)
		want   error
	}{
		{"serial of the same issuer", func(c *ca.Certificate) { c.Serial = first.Serial }, ca.ErrSerialTaken},
		{"id", func(c *ca.Certificate) { c.ID = first.ID }, ca.ErrConflict},
		{"unknown CA", func(c *ca.Certificate) { c.CAID = "nobody" }, ca.ErrNotFound},
	} {
		c := Certificate(2)
		test.change(&c)
		if err := s.RecordCertificate(ctx, c, Entry("certificate.issue", c.ID)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	if _, total, err := s.Certificates(ctx, ca.Filter{}); err != nil || total != 1 {
		t.Errorf("%d rows after the refusals, %v; want 1", total, err)
	}
	if n := auditCount(t, s); n != audits {
		t.Errorf("%d audit records after the refusals, want %d", n, audits)
	}
	c := Certificate(2)
	c.Serial, c.IssuerKey = first.Serial, sha256.Sum256([]byte("another issuer"))
	record(t, s, c)
}

func testSearch(t *testing.T, s Interface) {
	AddCA(t, s)
	var all []ca.Certificate
	for n := range 60 {
		c := Certificate(n)
		if n%10 == 0 {
			c.Profile = "server"
		}
		c.NotAfter = c.NotAfter.AddDate(0, 0, n)
		all = append(all, record(t, s, c))
	}
	all[7] = revoke(t, s, all[7].ID, pkix.Superseded)
	all[9] = revoke(t, s, all[9].ID, pkix.CertificateHold)
	revoke(t, s, all[11].ID, pkix.CertificateHold)
	back, _, err := s.Apply(t.Context(), ca.Transition{ID: all[11].ID, To: ca.Active, At: epoch()}, Entry("certificate.reactivate", all[11].ID))
	if err != nil {
		t.Fatal(err)
	}
	all[11] = back
	slices.Reverse(all) // newest first
	match := func(keep func(ca.Certificate) bool) []ca.Certificate {
		return slices.DeleteFunc(slices.Clone(all), func(c ca.Certificate) bool { return !keep(c) })
	}
	zone, device := Certificate(1).ZoneID, Certificate(7)
	for _, test := range []struct {
		name   string
		filter ca.Filter
		want   []ca.Certificate
	}{
		{"all", ca.Filter{}, all},
		{"zone", ca.Filter{ZoneID: zone}, match(func(c ca.Certificate) bool { return c.ZoneID == zone })},
		{"status", ca.Filter{Status: ca.Revoked}, match(func(c ca.Certificate) bool { return c.Status == ca.Revoked })},
		{"zone, status", ca.Filter{ZoneID: zone, Status: ca.Active}, match(func(c ca.Certificate) bool { return c.ZoneID == zone && c.Status == ca.Active })},
		{"profile", ca.Filter{Profile: "server"}, match(func(c ca.Certificate) bool { return c.Profile == "server" })},
		{"serial", ca.Filter{Serial: &device.Serial}, match(func(c ca.Certificate) bool { return c.Serial == device.Serial })},
		{"fingerprint", ca.Filter{Fingerprint: &device.Fingerprint, ZoneID: zone}, match(func(c ca.Certificate) bool { return c.ID == device.ID })},
		{"common name", ca.Filter{CommonName: "device-7"}, match(func(c ca.Certificate) bool { return c.ID == device.ID })},
		{"common name of another zone", ca.Filter{CommonName: "device-7", ZoneID: "ffff"}, nil},
		{"key", ca.Filter{Key: &device.KeyHash}, match(func(c ca.Certificate) bool { return c.ID == device.ID })},
		{"everything at once", ca.Filter{
			ZoneID: zone, Status: ca.Revoked, Profile: "client", Serial: &device.Serial, Key: &device.KeyHash,
			Fingerprint: &device.Fingerprint, CommonName: "device-7",
		}, match(func(c ca.Certificate) bool { return c.ID == device.ID })},
		{"hold", ca.Filter{OnHold: true}, match(ca.Certificate.OnHold)},
		{"hold of a zone", ca.Filter{OnHold: true, ZoneID: zone, CAID: CAID}, match(func(c ca.Certificate) bool { return c.OnHold() && c.ZoneID == zone })},
		{"CA", ca.Filter{CAID: CAID}, all},
		{"CA, zone, status", ca.Filter{CAID: CAID, ZoneID: zone, Status: ca.Revoked}, match(func(c ca.Certificate) bool { return c.ZoneID == zone && c.Status == ca.Revoked })},
		{"another CA", ca.Filter{CAID: "ffff"}, nil},
		{"ends before", ca.Filter{ExpiresBefore: ends(20), ZoneID: zone}, soonest(match(func(c ca.Certificate) bool { return c.ZoneID == zone && c.NotAfter.Before(ends(20)) }))},
		{"ends from, before, status, CA", ca.Filter{ExpiresFrom: ends(5), ExpiresBefore: ends(20), Status: ca.Active, CAID: CAID}, soonest(match(func(c ca.Certificate) bool {
			return !c.NotAfter.Before(ends(5)) && c.NotAfter.Before(ends(20)) && c.Status == ca.Active
		}))},
		{"common name, ends before", ca.Filter{CommonName: "device-7", ExpiresBefore: ends(7)}, nil},
		{"soonest", ca.Filter{Range: ca.Range{Order: ca.Soonest}}, soonest(slices.Clone(all))},
		{"ends before, newest", ca.Filter{ExpiresBefore: ends(20), Range: ca.Range{Order: ca.Newest}}, match(func(c ca.Certificate) bool { return c.NotAfter.Before(ends(20)) })},
		{"issued", ca.Filter{ZoneID: zone, Range: ca.Range{IssuedFrom: Certificate(5).IssuedOn, IssuedBefore: Certificate(20).IssuedOn}}, match(func(c ca.Certificate) bool {
			return c.ZoneID == zone && !c.IssuedOn.Before(Certificate(5).IssuedOn) && c.IssuedOn.Before(Certificate(20).IssuedOn)
		})},
		{"issued, soonest, profile", ca.Filter{Profile: "server", Range: ca.Range{IssuedFrom: Certificate(5).IssuedOn, Order: ca.Soonest}}, soonest(match(func(c ca.Certificate) bool {
			return c.Profile == "server" && !c.IssuedOn.Before(Certificate(5).IssuedOn)
		}))},
		{"for good", ca.Filter{Range: ca.Range{Final: true}}, match(func(c ca.Certificate) bool { return c.Status == ca.Revoked && !c.OnHold() })},
		{"hold, soonest", ca.Filter{OnHold: true, Range: ca.Range{Order: ca.Soonest}}, match(ca.Certificate.OnHold)},
		{"archived", ca.Filter{Range: ca.Range{Archived: true}}, nil}, // nothing was
		{"name", ca.Filter{Name: "device-7"}, nil},                    // the fixtures are no certificates and have none
		{"nothing like it", ca.Filter{CommonName: "device-"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) { checkPages(t, s, test.filter, test.want) })
	}
}

// ends is when the n-th certificate of testSearch ends.
func ends(n int) time.Time { return Certificate(n).NotAfter.AddDate(0, 0, n) }

// soonest is the order of a search by the end.
func soonest(all []ca.Certificate) []ca.Certificate {
	slices.SortStableFunc(all, func(a, b ca.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return all
}

// checkPages reads a search whole and in small pages.
func checkPages(t *testing.T, s Interface, f ca.Filter, want []ca.Certificate) {
	t.Helper()
	f.Limit = 1000
	got, total, err := s.Certificates(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equateSerials()); diff != "" || total != len(want) {
		t.Errorf("total %d, want %d; %s", total, len(want), diff)
	}
	f.Limit = 7
	var paged []ca.Certificate
	for f.Offset = 0; f.Offset <= len(want); f.Offset += f.Limit {
		page, total, err := s.Certificates(t.Context(), f)
		if err != nil || total != len(want) || len(page) > f.Limit {
			t.Fatalf("page at %d: %d rows of %d, %v", f.Offset, len(page), total, err)
		}
		paged = append(paged, page...)
	}
	if diff := cmp.Diff(want, paged, equateSerials()); diff != "" {
		t.Errorf("in pages: %s", diff)
	}
	f.Limit, f.Offset = 0, 0
	if page, _, err := s.Certificates(t.Context(), f); err != nil || len(page) != min(50, len(want)) {
		t.Errorf("without a limit: %d rows, %v; want %d", len(page), err, min(50, len(want)))
	}
}
