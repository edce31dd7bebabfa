package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/site"
	"sekisho/internal/trust"
)

// TrustedCA is a CA of somebody else's that has every field set.
func TrustedCA(id string) site.TrustedCA {
	at := epoch().Truncate(time.Microsecond)
	return site.TrustedCA{
		ID: id, Product: site.MTLS, ZoneID: "zone", Name: "name of " + id, PEM: "-----BEGIN CERTIFICATE-----\n", UploadedOn: at, UpdatedOn: at,
		Policy: trust.Policy{
			Sources: []trust.Source{trust.CRL, trust.OCSP, trust.CRLSet}, Require: trust.RequireAll, OnFailure: trust.Soft, Scope: trust.Leaf, Grace: time.Hour,
			CRLs: []string{"/etc/a.crl", "http://crl.example/b"}, CRLSets: []string{"/var/set"}, OCSPResponders: []string{"http://ocsp.example"},
			IgnoreCDP: true, IgnoreAIA: true, OCSPNonce: true, OCSPSHA256: true, IgnoreStaple: true, EKU: trust.EKUIgnore,
			AllowAlgorithms: []string{"sha1-rsa"}, DenyAlgorithms: []string{"ed25519"}, AllowedPolicies: []string{"1.2.3"},
		},
	}
}

// AddTrustedCA stores a CA with the hostnames tied to it.
func AddTrustedCA(t testing.TB, s Interface, ca site.TrustedCA, ties ...site.Association) {
	t.Helper()
	if err := s.AddTrustedCA(t.Context(), ca, ties, Entry("trust.add", ca.ID)); err != nil {
		t.Fatal(err)
	}
}

func wantTrustedCAs(t *testing.T, s Interface, want ...site.TrustedCA) {
	t.Helper()
	got, err := s.TrustedCAs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

// testTrustedCAs: what was stored comes back whole and in order; an update changes name, policy and its date alone.
func testTrustedCAs(t *testing.T, s Interface) {
	wantTrustedCAs(t, s)
	second, first := TrustedCA("2"), site.TrustedCA{ID: "1", Product: site.Access, UploadedOn: epoch().Truncate(time.Microsecond), UpdatedOn: epoch().Truncate(time.Microsecond)}
	AddTrustedCA(t, s, second)
	AddTrustedCA(t, s, first)
	wantTrustedCAs(t, s, second, first)
	if err := s.AddTrustedCA(t.Context(), second, nil, Entry("trust.add", "2")); err == nil {
		t.Error("one id twice")
	}
	changed := first
	changed.Name, changed.Policy = "new", trust.Policy{OnFailure: trust.Soft}
	changed.UpdatedOn = changed.UpdatedOn.Add(time.Second)
	sent := changed
	sent.Product, sent.PEM, sent.ZoneID, sent.UploadedOn = site.MTLS, "other", "other", time.Time{}
	if err := s.UpdateTrustedCA(t.Context(), sent, nil, Entry("trust.update", "1")); err != nil {
		t.Fatal(err)
	}
	wantTrustedCAs(t, s, second, changed)
	if err := s.DeleteTrustedCA(t.Context(), "2", Entry("trust.remove", "2")); err != nil {
		t.Fatal(err)
	}
	wantTrustedCAs(t, s, changed)
	for what, err := range map[string]error{
		"update": s.UpdateTrustedCA(t.Context(), second, nil, Entry("trust.update", "2")),
		"delete": s.DeleteTrustedCA(t.Context(), "2", Entry("trust.remove", "2")),
	} {
		if !errors.Is(err, site.ErrNoTrustedCA) {
			t.Errorf("%s one that is gone: %v, want ErrNoTrustedCA", what, err)
		}
	}
	if n := auditCount(t, s); n != 4 {
		t.Errorf("%d audit records, want 4", n)
	}
}

// testTrustedCATies: hostnames are stored with their CA, replaced in every zone at once or left alone, and hold it.
func testTrustedCATies(t *testing.T, s Interface) {
	tie := func(zone, ca, name string) site.Association {
		return site.Association{ZoneID: zone, CAID: ca, Hostname: name}
	}
	want := func(step string, ties ...site.Association) {
		t.Helper()
		got, err := s.Associations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ties, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	ca, other := TrustedCA("ca"), TrustedCA("other")
	AddTrustedCA(t, s, ca, tie("z1", "whatever", "a.example"), tie("z2", "", "b.example"), tie("z1", "ca", "a.example"))
	AddTrustedCA(t, s, other, tie("z1", "other", "a.example"))
	want("added", tie("z1", "ca", "a.example"), tie("z1", "other", "a.example"), tie("z2", "ca", "b.example"))
	update := func(ties []site.Association) {
		t.Helper()
		if err := s.UpdateTrustedCA(t.Context(), ca, ties, Entry("trust.update", "ca")); err != nil {
			t.Fatal(err)
		}
	}
	update(nil)
	want("left alone", tie("z1", "ca", "a.example"), tie("z1", "other", "a.example"), tie("z2", "ca", "b.example"))
	update([]site.Association{tie("z2", "ca", "c.example")})
	want("replaced", tie("z1", "other", "a.example"), tie("z2", "ca", "c.example"))
	audits := auditCount(t, s)
	if err := s.DeleteTrustedCA(t.Context(), "ca", Entry("trust.remove", "ca")); !errors.Is(err, site.ErrTied) {
		t.Errorf("a CA with a hostname was deleted: %v, want ErrTied", err)
	}
	if n := auditCount(t, s); n != audits {
		t.Errorf("a refusal left %d audit records", n-audits)
	}
	update([]site.Association{})
	want("cleared", tie("z1", "other", "a.example"))
	if err := s.DeleteTrustedCA(t.Context(), "ca", Entry("trust.remove", "ca")); err != nil {
		t.Error(err)
	}
	wantTrustedCAs(t, s, other)
}

// testTrustedCAFault: a commit that fails leaves neither CA nor hostname nor audit record.
func testTrustedCAFault(t *testing.T, s Interface) {
	f, ok := s.(Faulty)
	if !ok {
		t.Skip("this store cannot be made to fail")
	}
	ca := TrustedCA("ca")
	ties := []site.Association{{ZoneID: "z", Hostname: "a.example"}}
	failAt(f, "before-commit")
	if err := s.AddTrustedCA(t.Context(), ca, ties, Entry("trust.add", "ca")); !errors.Is(err, errFault) {
		t.Errorf("add: %v", err)
	}
	f.SetFault(nil)
	wantTrustedCAs(t, s)
	AddTrustedCA(t, s, ca, ties...)
	failAt(f, "before-commit")
	changed := ca
	changed.Name = "changed"
	if err := s.UpdateTrustedCA(t.Context(), changed, []site.Association{}, Entry("trust.update", "ca")); !errors.Is(err, errFault) {
		t.Errorf("update: %v", err)
	}
	f.SetFault(nil)
	wantTrustedCAs(t, s, ca)
	if all, err := s.Associations(t.Context()); err != nil || len(all) != 1 || auditCount(t, s) != 1 {
		t.Errorf("%d associations, %d audit records, %v; want one of each", len(all), auditCount(t, s), err)
	}
}
