package crl

import (
	"math/big"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// TestFileWithoutEndCounts: a file without nextUpdate that is there and unchanged counts as long as it is there.
func TestFileWithoutEndCounts(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	file := filepath.Join(t.TempDir(), "l.crl")
	write(t, file, withoutEnd(t, ca, sign(t, ca, template(ca, 1))))
	k := newKeeper(t, KeeperConfig{Now: c.now})
	k.SetPlaces("ca", []Place{place(file, ca)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	runKeeper(t, k)
	c.advance(25 * time.Hour)
	eventually(t, "a file that is there and unchanged counts after a day", func() bool { return k.Lists("ca")[0].Current(c.now(), 0) })
}

// TestShorterRefreshIsAsked: and the source is asked by it.
func TestShorterRefreshIsAsked(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	o := newOrigin(t, serve(sign(t, ca, template(ca, 1))))
	k := newKeeper(t, KeeperConfig{Now: c.now})
	p := place(o.URL, ca)
	k.SetPlaces("ca", []Place{p})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	runKeeper(t, k)
	p.Refresh = time.Minute
	k.SetPlaces("ca", []Place{p})
	before := o.asked.Load()
	c.advance(20 * time.Minute)
	eventually(t, "asked again", func() bool { return o.asked.Load() != before })
}

// TestRefusedListIsFetchedWhole: a list that was refused is not "not modified" later, when it may be taken.
func TestRefusedListIsFetchedWhole(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	tagged := func(tag string, der []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			_, _ = w.Write(der)
		}
	}
	o := newOrigin(t, tagged(`"1"`, sign(t, ca, template(ca, 1))))
	k := newKeeper(t, KeeperConfig{Now: c.now})
	k.SetPlaces("ca", []Place{place(o.URL, ca)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	scoped := template(ca, 2)
	scoped.NextUpdate = scoped.NextUpdate.Add(48 * time.Hour)
	scoped.DistributionPoints = []string{o.URL}
	o.set(tagged(`"2"`, sign(t, ca, scoped, pkix.CRLEntry{Serial: serialOf(1)})))
	for i := range 4 {
		askAgain(t, k)
		if i == 1 {
			c.advance(2 * time.Hour) // list 1 has run out
		}
	}
	if number(k.Lists("ca")[0]) != 2 {
		t.Error("the new list is never taken")
	}
}

// TestDeltaAfterKeyRollover: the copy on disk of the old key's delta does not keep that of the new key from being fetched.
func TestDeltaAfterKeyRollover(t *testing.T) {
	c := newClock()
	root := testpki.NewCA(t, testpki.Name("root"))
	a, b := root.Intermediate("issuing"), root.Intermediate("issuing")
	o := newOrigin(t, nil)
	d := newOrigin(t, nil)
	tmpl := func(ca *testpki.CA, n int64) pkix.CRLTemplate {
		x := template(ca, n)
		x.NextUpdate = x.NextUpdate.Add(48 * time.Hour)
		x.FreshestCRL = []string{d.URL}
		return x
	}
	delta := func(ca *testpki.CA, n, base int64, e ...pkix.CRLEntry) []byte {
		x := template(ca, n)
		x.NextUpdate = x.NextUpdate.Add(24 * time.Hour)
		x.BaseNumber = big.NewInt(base)
		return sign(t, ca, x, e...)
	}
	o.set(serve(sign(t, a, tmpl(a, 5))))
	d.set(serve(delta(a, 6, 5)))
	dir := t.TempDir()
	k := newKeeper(t, KeeperConfig{Now: c.now, Dir: dir})
	k.SetPlaces("ca", []Place{place(o.URL, root, a, b)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	// new key
	o.set(serve(sign(t, b, tmpl(b, 1))))
	d.set(serve(delta(b, 2, 1, pkix.CRLEntry{Serial: serialOf(1)})))
	for range 60 {
		c.advance(time.Minute)
		askAgain(t, k)
	}
	h := k.Lists("ca")[0]
	_, found := h.List.Lookup(nil, serialOf(1))
	if !found {
		t.Error("the new delta is not in force")
	}
}

// TestNewCandidatesInheritTheDelta: the delta that a list names stays with it.
func TestNewCandidatesInheritTheDelta(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("root"))
	sub := root.Intermediate("sub")
	o := newOrigin(t, nil)
	d := newOrigin(t, nil)
	x := template(root, 5)
	x.FreshestCRL = []string{d.URL}
	o.set(serve(sign(t, root, x)))
	y := template(root, 6)
	y.BaseNumber = big.NewInt(5)
	d.set(serve(sign(t, root, y, pkix.CRLEntry{Serial: serialOf(1)})))
	k := newKeeper(t, KeeperConfig{})
	k.SetPlaces("ca", []Place{place(o.URL, root)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.set(status(503))
	o.set(status(503))
	k.SetPlaces("ca", []Place{place(o.URL, root, sub)})
	for range 2 {
		h := k.Lists("ca")[0]
		_, found := h.List.Lookup(nil, serialOf(1))
		if !found {
			t.Error("revoked in the delta is forgotten")
		}
		askAgain(t, k)
	}
}

// TestNewCandidatesInheritTheConfiguredDelta: and so does one that is configured beside it.
func TestNewCandidatesInheritTheConfiguredDelta(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("root"))
	sub := root.Intermediate("sub")
	o := newOrigin(t, nil)
	d := newOrigin(t, nil)
	o.set(serve(sign(t, root, template(root, 5))))
	y := template(root, 6)
	y.BaseNumber = big.NewInt(5)
	d.set(serve(sign(t, root, y, pkix.CRLEntry{Serial: serialOf(1)})))
	k := newKeeper(t, KeeperConfig{})
	k.SetPlaces("ca", []Place{place(o.URL, root), place(d.URL, root)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.set(status(503))
	k.SetPlaces("ca", []Place{place(o.URL, root, sub), place(d.URL, root, sub)})
	_, found := k.Lists("ca")[0].List.Lookup(nil, serialOf(1))
	if !found {
		t.Error("revoked in the configured delta is forgotten")
	}
}

// TestSweepProlongsNothing: to want a copy is not to have seen its source.
func TestSweepProlongsNothing(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	dir := t.TempDir()
	o := newOrigin(t, serve(withoutEnd(t, ca, sign(t, ca, template(ca, 1)))))
	k := newKeeper(t, KeeperConfig{Now: c.now, Dir: dir})
	k.SetPlaces("ca", []Place{place(o.URL, ca)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.set(status(503))
	c.advance(72 * time.Hour)
	k.sweepCopies(t.Context(), c.now())
	k.Close()
	k = newKeeper(t, KeeperConfig{Now: c.now, Dir: dir})
	k.SetPlaces("ca", []Place{place(o.URL, ca)})
	_ = k.LoadAll(t.Context()) // it is down
	if h := k.Lists("ca")[0]; h.Current(c.now(), 0) {
		t.Error("current again after a restart, though its source was last seen 3 days ago")
	}
}

// TestInvariant01OtherKeysListDoesNotReplace: a CA that has two keys of one name has a list for each. That of the other
// key, served at the distribution point of the first one's certificates, is not taken while the first one's counts.
func TestInvariant01OtherKeysListDoesNotReplace(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("root"))
	first, second := root.Intermediate("issuing"), root.Intermediate("issuing")
	c := newClock()
	o := newOrigin(t, serve(sign(t, first, template(first, 5), pkix.CRLEntry{Serial: serialOf(1)})))
	k := newKeeper(t, KeeperConfig{Now: c.now})
	if _, err := k.Demand(t.Context(), point(o.URL, first, second, root)); err != nil {
		t.Fatal(err)
	}
	other := template(second, 100)
	other.NextUpdate = other.NextUpdate.Add(24 * time.Hour)
	o.set(serve(sign(t, second, other)))
	askAgain(t, k)
	h := k.HeldFor(o.URL, first.Cert)
	if _, found := h.List.Lookup(nil, serialOf(1)); !found || h.Err == nil {
		t.Errorf("while it counts: still revoked %v, %v", found, h.Err)
	}
	c.advance(2 * time.Hour) // the CA has rolled its key over, and signs with the new one alone
	askAgain(t, k)
	if h := k.HeldFor(o.URL, first.Cert); number(h) != 100 || h.Err != nil {
		t.Errorf("after its end: %v", h.Err)
	}
}
