package storetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/principal"
	"sekisho/internal/site"
)

func testZones(t *testing.T, s Interface) {
	ctx := t.Context()
	ensure := func(z site.Zone) site.Zone {
		t.Helper()
		stored, err := s.EnsureZone(ctx, z)
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	created := epoch().Truncate(time.Microsecond)
	b := ensure(site.Zone{ID: "2", Name: "b.example", AccountID: "acc", CreatedOn: epoch(), ReadOnly: true})
	a := ensure(site.Zone{ID: "1", Name: "a.example", AccountID: "acc", CreatedOn: epoch()})
	again := ensure(site.Zone{ID: "3", Name: "b.example", AccountID: "other", CreatedOn: epoch().AddDate(1, 0, 0), ReadOnly: true})
	if diff := cmp.Diff(b, again); diff != "" {
		t.Errorf("the zone that exists is not what came back: %s", diff)
	}
	got, err := s.Zones(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []site.Zone{
		{ID: "1", Name: "a.example", AccountID: "acc", CreatedOn: created},
		{ID: "2", Name: "b.example", AccountID: "acc", CreatedOn: created, ReadOnly: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, []site.Zone{a, b}); diff != "" {
		t.Errorf("as answered: %s", diff)
	}
	clear(got) // what was answered belongs to the caller
	ensure(site.Zone{Name: "b.example"})
	ensure(site.Zone{ID: "4", Name: "c.example", AccountID: "acc", CreatedOn: epoch()})
	want[1].ReadOnly = false
	want = append(want, site.Zone{ID: "4", Name: "c.example", AccountID: "acc", CreatedOn: created})
	got, err = s.Zones(ctx)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("after changes: %v %s", err, diff)
	}
}

func testAssociations(t *testing.T, s Interface) {
	ctx := t.Context()
	replace := func(zone, ca string, names ...string) {
		t.Helper()
		if err := s.ReplaceAssociations(ctx, zone, ca, names, Entry("associations.replace", zone)); err != nil {
			t.Fatal(err)
		}
	}
	AddTrustedCA(t, s, TrustedCA("ca"))
	replace("z1", "", "b.example", "a.example", "b.example")
	replace("z1", "ca", "c.example")
	replace("z2", "", "x.example", "y.example")
	replace("z2", "", "y.example")
	replace("z3", "", "gone.example")
	replace("z3", "")
	got, err := s.Associations(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []site.Association{
		{ZoneID: "z1", Hostname: "b.example"},
		{ZoneID: "z1", Hostname: "a.example"},
		{ZoneID: "z1", CAID: "ca", Hostname: "c.example"},
		{ZoneID: "z2", Hostname: "y.example"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := s.ReplaceAssociations(ctx, "z1", "nobody", []string{"d.example"}, Entry("associations.replace", "z1")); !errors.Is(err, site.ErrNoTrustedCA) {
		t.Errorf("tied to a CA that is not there: %v, want ErrNoTrustedCA", err)
	}
	if n := auditCount(t, s); n != 7 {
		t.Errorf("%d audit records, want 7", n)
	}
}

func testSettings(t *testing.T, s Interface) {
	ctx := t.Context()
	for _, put := range [][]site.Settings{
		{{ZoneID: "z", Hostname: "a.example", ClientCertificateForwarding: true}, {ZoneID: "z", Hostname: "b.example", ChinaNetwork: true}},
		{{ZoneID: "z", Hostname: "a.example"}},
		{},
	} {
		if err := s.PutSettings(ctx, "z", put, Entry("settings.put", "z")); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.AllSettings(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []site.Settings{{ZoneID: "z", Hostname: "a.example"}, {ZoneID: "z", Hostname: "b.example", ChinaNetwork: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func testTokens(t *testing.T, s Interface) {
	ctx := t.Context()
	first := principal.Token{
		ID: "2", Name: "first", Email: "Me@example.com", Role: principal.Edit, Hash: sha256.Sum256([]byte("a")),
		CreatedOn: epoch().Truncate(time.Microsecond),
	}
	second := principal.Token{
		ID: "1", Name: "second", Role: principal.Read, Hash: sha256.Sum256([]byte("b")),
		CreatedOn: first.CreatedOn.Add(time.Second), ExpiresOn: first.CreatedOn.Add(time.Hour),
	}
	for _, v := range []principal.Token{second, first} {
		if err := s.AddToken(ctx, v, Entry("token.create", v.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if n := auditCount(t, s); n != 2 {
		t.Errorf("%d audit records, want one a token", n)
	}
	got, err := s.ListTokens(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]principal.Token{first, second}, got); diff != "" {
		t.Error(diff)
	}
	if v, err := s.TokenByHash(ctx, second.Hash); err != nil || v != second {
		t.Errorf("by hash: %+v, %v", v, err)
	}
	if _, err := s.TokenByHash(ctx, [32]byte{1}); !errors.Is(err, principal.ErrUnauthenticated) {
		t.Errorf("unknown hash: %v, want ErrUnauthenticated", err)
	}
	if v, err := s.TokenByHash(ctx, first.Hash); err != nil || v != first {
		t.Errorf("the other by hash: %+v, %v", v, err)
	}
	twin := first
	twin.ID = "3"
	if err := s.AddToken(ctx, twin, Entry("token.create", twin.ID)); err == nil {
		t.Error("two tokens with one secret")
	}
	if n := auditCount(t, s); n != 2 {
		t.Errorf("%d audit records after a token that was refused, want 2", n)
	}
}

// testDeleteToken: a token that was removed is unknown at once; the last that can change anything stays.
func testDeleteToken(t *testing.T, s Interface) {
	ctx := t.Context()
	token := func(id string, role principal.Role, expires time.Time) principal.Token {
		v := principal.Token{ID: id, Name: id, Role: role, Hash: sha256.Sum256([]byte(id)), CreatedOn: epoch(), ExpiresOn: expires}
		if err := s.AddToken(ctx, v, Entry("token.create", id)); err != nil {
			t.Fatal(err)
		}
		return v
	}
	all := map[string]principal.Token{
		"read": token("read", principal.Read, time.Time{}), "old": token("old", principal.Edit, epoch()),
		"soon": token("soon", principal.Edit, epoch().Add(time.Hour)), "edit": token("edit", principal.Edit, time.Time{}),
	}
	audits := auditCount(t, s)
	for _, step := range []struct {
		id   string
		want error
	}{
		{"nobody", principal.ErrNoToken},
		{"soon", nil},
		{"soon", principal.ErrNoToken},
		{"edit", principal.ErrLastEditToken}, // one that has expired is no other
		{"read", nil},
		{"old", nil},
		{"edit", principal.ErrLastEditToken},
	} {
		// Whoever remembers tokens has met this one.
		if v, ok := all[step.id]; ok && step.want == nil {
			if got, err := s.TokenByHash(ctx, v.Hash); err != nil || got.ID != v.ID {
				t.Errorf("%s before it is removed: %+v, %v", step.id, got, err)
			}
		}
		if err := s.DeleteToken(ctx, step.id, Entry("token.revoke", step.id)); !errors.Is(err, step.want) || (err == nil) != (step.want == nil) {
			t.Errorf("%s: %v, want %v", step.id, err, step.want)
		}
		if step.want == nil {
			audits++
			if _, err := s.TokenByHash(ctx, all[step.id].Hash); !errors.Is(err, principal.ErrUnauthenticated) {
				t.Errorf("%s was removed and is known: %v", step.id, err)
			}
		}
		if n := auditCount(t, s); n != audits {
			t.Errorf("%s: %d audit records, want %d", step.id, n, audits)
		}
	}
	if left, err := s.ListTokens(ctx); err != nil || len(left) != 1 || left[0].ID != "edit" {
		t.Errorf("left: %+v, %v", left, err)
	}
}

func testTickets(t *testing.T, s Interface) {
	ctx := t.Context()
	for n, want := range []string{"k0", "k1", "k2"} {
		for _, offered := range []string{want, "too late"} {
			if got, err := s.AddTicketKey(ctx, int64(n), []byte(offered)); err != nil || string(got) != want {
				t.Errorf("epoch %d: %q, %v; want %q", n, got, err, want)
			}
		}
	}
	if err := s.DropTicketKeys(ctx, 1); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[int64]map[int64][]byte{
		0: {1: []byte("k1"), 2: []byte("k2")},
		2: {2: []byte("k2")},
		3: {},
	} {
		got, err := s.TicketKeys(ctx, from)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("from %d: %v %s", from, err, diff)
		}
	}
	if got, err := s.AddTicketKey(ctx, 0, []byte("new")); err != nil || !bytes.Equal(got, []byte("new")) {
		t.Errorf("an epoch whose key was dropped: %q, %v", got, err)
	}
}

func testMeta(t *testing.T, s Interface) {
	ctx := t.Context()
	if v, ok, err := s.Meta(ctx, "account"); v != "" || ok || err != nil {
		t.Errorf("absent: %q, %v, %v", v, ok, err)
	}
	for _, want := range []string{"one", "", "two"} {
		if err := s.SetMeta(ctx, "account", want); err != nil {
			t.Fatal(err)
		}
		if v, ok, err := s.Meta(ctx, "account"); v != want || !ok || err != nil {
			t.Errorf("%q: %q, %v, %v", want, v, ok, err)
		}
	}
}
