package ca_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

func (f *fixture) setTrust(ref string, trusted bool) (ca.TrustResult, error) {
	return f.SetTrust(f.t.Context(), ca.TrustRequest{Actor: "test", CA: ref, Trusted: trusted})
}

func (f *fixture) mustSetTrust(ref string, trusted bool) ca.TrustResult {
	f.t.Helper()
	r, err := f.setTrust(ref, trusted)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// wantTrust compares the anchors, by common name, and the audit records of changes of trust, as name=trusted.
func (f *fixture) wantTrust(anchors []string, records ...string) {
	f.t.Helper()
	var have []string
	for _, cert := range f.ClientAnchors() {
		have = append(have, pkix.CommonName(cert.RawSubject))
	}
	if !slices.Equal(have, anchors) {
		f.t.Errorf("the anchors are %q, want %q", have, anchors)
	}
	entries, err := f.store.AuditRecords(f.t.Context(), 0, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		if e.Action == "ca.trust" {
			found = append(found, e.Detail["name"]+"="+e.Detail["trusted"])
		}
	}
	if !slices.Equal(found, records) {
		f.t.Errorf("the records are %q, want %q", found, records)
	}
}

// TestSetTrust: an imported CA and one of our own that was rotated are trusted, or not, as was said last, also after a
// restart; saying it again changes nothing. They go on publishing.
func TestSetTrust(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	req := newElsewhere(t, ecKey(), caExtensions).request()
	req.Name = "partner"
	f.importCA(req)
	const own, second, partner = "sekisho Issuing CA", "sekisho Issuing CA G2", "Old House CA"
	f.wantTrust([]string{own, partner})
	for range 2 {
		if r := f.mustSetTrust("partner", false); !r.CA.Untrusted || len(r.Above) != 0 {
			t.Errorf("untrusted: %+v", r)
		}
	}
	f.wantTrust([]string{own}, "partner=false")
	f.reopen()
	f.wantTrust([]string{own}, "partner=false")
	if r := f.mustSetTrust("partner", true); r.CA.Untrusted || !r.CA.Issues {
		t.Errorf("trusted again: %+v", r)
	}
	f.wantTrust([]string{own, partner}, "partner=false", "partner=true")
	row := f.issue("old")
	f.rotate(ca.RotateRequest{})
	f.mustSetTrust("issuing", false)
	f.wantTrust([]string{second, partner}, "partner=false", "partner=true", "issuing=false")
	f.revoke(row.ID, pkix.Superseded)
	if _, err := f.CRL(t.Context(), row.CAID, row.Shard); err != nil {
		t.Errorf("the CRL of a CA that is not trusted: %v", err)
	}
}

// TestSetTrustRefusals: the CA in force, a root, what is no CA, an import that was broken off, and one that has ended.
func TestSetTrustRefusals(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	req := newElsewhere(t, ecKey(), caExtensions).request()
	req.Name = "partner"
	f.importCA(req)
	refused := func(ref string, trusted bool, kind error, text string) {
		t.Helper()
		if _, err := f.setTrust(ref, trusted); !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s, %v: %v; want one about %q", ref, trusted, err, text)
		}
	}
	refused("active", false, ca.ErrConflict, "sekisho ca rotate")
	refused("issuing", false, ca.ErrConflict, "the CA in force")
	refused("root", false, ca.ErrInvalid, "is a root")
	refused("nobody", false, ca.ErrInvalid, "there is no CA")
	f.mustSetTrust("active", true) // it is, so nothing is done
	f.clock.Store(int64(11 * 365 * 24 * time.Hour))
	refused("partner", true, ca.ErrInvalid, "ended at")
	f.clock.Store(0)
	f.wantTrust([]string{"sekisho Issuing CA", "Old House CA"})
	f.failAt("before-commit")
	if _, err := f.setTrust("partner", false); err == nil {
		t.Error("a commit that failed is no error")
	}
	f.wantTrust([]string{"sekisho Issuing CA", "Old House CA"})
}

// TestSetTrustBelowATrustedCA: whose issuer is trusted is still reached through it, and the answer names that one.
func TestSetTrustBelowATrustedCA(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	req := e.request()
	req.Name = "above"
	f.importCA(req)
	sub := e.sub(newElsewhere(t, ecKey(), caExtensions), "sub", caExtensions).request()
	sub.Name = "sub"
	f.importCA(sub)
	if r := f.mustSetTrust("sub", false); !slices.Equal(r.Above, []string{"above"}) {
		t.Errorf("above it are %q", r.Above)
	}
	f.mustSetTrust("above", false)
	if r := f.mustSetTrust("sub", false); len(r.Above) != 0 {
		t.Errorf("above it are %q, which is not trusted either", r.Above)
	}
}
