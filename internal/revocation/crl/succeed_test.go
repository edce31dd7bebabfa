package crl

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// askAgain makes an attempt at every slot now.
func askAgain(t *testing.T, k *Keeper) {
	t.Helper()
	for _, s := range k.slots {
		s.base.next = time.Time{}
		f, err := k.begin(t.Context(), s, false)
		if err != nil {
			t.Fatal(err)
		}
		<-f.done
	}
}

// withoutEnd takes the nextUpdate out of a list, which is only for others to do: our own encoder refuses it.
func withoutEnd(t *testing.T, ca *testpki.CA, der []byte) []byte {
	t.Helper()
	whole := cryptobyte.String(der)
	var list, tbs, element cryptobyte.String
	if !whole.ReadASN1(&list, asn1.SEQUENCE) || !list.ReadASN1(&tbs, asn1.SEQUENCE) {
		t.Fatal("not a list")
	}
	var inner []byte
	var algorithm cryptobyte.String
	for i := 0; !tbs.Empty(); i++ { // version, signature, issuer, thisUpdate, nextUpdate, ...
		if !tbs.ReadAnyASN1Element(&element, nil) {
			t.Fatal("malformed")
		}
		if i == 1 {
			algorithm = element
		}
		if i != 4 {
			inner = append(inner, element...)
		}
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(inner) })
	signed := b.BytesOrPanic()
	digest := sha256.Sum256(signed)
	signature, err := ca.Key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	var out cryptobyte.Builder
	out.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(signed)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
	return out.BytesOrPanic()
}

// TestInvariant01ListOfAnotherCADoesNotReplace: whoever sits between us and an http URL serves lists that the CA, or
// another one above it, has truly signed. None of them makes us forget who is revoked: not by another CA, not a delta, not
// an older one by way of another key of the same name, also when the list in force has run out or says no end.
func TestInvariant01ListOfAnotherCADoesNotReplace(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("root"))
	ca, rolled := root.Intermediate("issuing"), root.Intermediate("issuing") // one name, two keys
	revoked := pkix.CRLEntry{Serial: serialOf(1)}
	for _, endless := range []bool{false, true} {
		c := newClock()
		dir := t.TempDir()
		good := sign(t, ca, template(ca, 5), revoked)
		if endless {
			good = withoutEnd(t, ca, good)
		}
		o := newOrigin(t, serve(good))
		k := newKeeper(t, KeeperConfig{Now: c.now, Dir: dir})
		places := []Place{place(o.URL, root, ca, rolled)}
		k.SetPlaces("ca", places)
		if err := k.LoadAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		later := func(by *testpki.CA, number int64) pkix.CRLTemplate {
			c := template(by, number)
			c.NextUpdate = c.NextUpdate.Add(24 * time.Hour)
			return c
		}
		delta := later(ca, 7)
		delta.BaseNumber = big.NewInt(5)
		for _, hours := range []int{0, 2} {
			c.advance(time.Duration(hours) * time.Hour)
			for name, der := range map[string][]byte{
				"another CA's": sign(t, root, later(root, 100)), "a delta": sign(t, ca, delta), "an older one": sign(t, ca, later(ca, 4)),
			} {
				o.set(serve(der))
				askAgain(t, k)
				h := k.Lists("ca")[0]
				if _, found := h.List.Lookup(ca.Cert.RawSubject, revoked.Serial); !found || h.Err == nil {
					t.Errorf("%s, after %d h, endless %v: still revoked %v, %v", name, hours, endless, found, h.Err)
				}
			}
		}
		// The CA has a new key, its list is taken, and what comes after is not one of the old key's from before.
		o.set(serve(sign(t, rolled, later(rolled, 1), revoked)))
		askAgain(t, k)
		o.set(serve(sign(t, ca, later(ca, 4))))
		askAgain(t, k)
		h := k.Lists("ca")[0]
		if _, found := h.List.Lookup(ca.Cert.RawSubject, revoked.Serial); !found || !errors.Is(h.Err, ErrOlder) {
			t.Errorf("after the other key's list: still revoked %v, %v", found, h.Err)
		}
		// Who means another CA's list takes the place out and adds it again: nothing is left of the one before.
		o.set(serve(sign(t, root, later(root, 100))))
		k.SetPlaces("ca", nil)
		if left, err := filepath.Glob(filepath.Join(dir, "*"+copySuffix)); err != nil || len(left) > 0 {
			t.Errorf("copies are left: %v %v", left, err)
		}
		k.SetPlaces("ca", places)
		if err := k.LoadAll(t.Context()); err != nil || k.Lists("ca")[0].List.Issuer() != root.Cert {
			t.Errorf("named anew: %v", err)
		}
	}
}

// TestDeltaFirstLocksNothingOut: where a complete list belongs, one that comes after a delta is taken, and behind a
// certificate's distribution point the delta is not, nor another CA's list.
func TestDeltaFirstLocksNothingOut(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("root"))
	ca := root.Intermediate("issuing")
	delta := template(ca, 7)
	delta.BaseNumber = big.NewInt(5)
	for name, wrong := range map[string][]byte{"delta": sign(t, ca, delta), "root": sign(t, root, template(root, 9))} {
		o := newOrigin(t, serve(wrong))
		k := newKeeper(t, KeeperConfig{})
		if h, err := k.Demand(t.Context(), point(o.URL, ca, root)); err == nil || h.List != nil {
			t.Errorf("%s: %v %v", name, h, err)
		}
		if name == "delta" {
			k.SetPlaces("ca", []Place{place(o.URL, ca, root)})
			if err := k.LoadAll(t.Context()); err != nil || k.Lists("ca")[0].waiting == nil {
				t.Errorf("configured: %v", err)
			}
		}
		o.set(serve(sign(t, ca, template(ca, 6))))
		askAgain(t, k)
		if h := k.HeldFor(o.URL, ca.Cert); number(h) != 6 || h.Err != nil {
			t.Errorf("%s, then the complete list: %v", name, h.Err)
		}
		if name == "delta" {
			if h := k.Lists("ca")[0]; number(h) != 6 {
				t.Errorf("configured, then the complete list: %v", h.Err)
			}
		}
	}
}

// TestNewCandidatesInheritTheList: a CA bundle with one more certificate keeps the list of the one before while its source
// is down, and before it is asked.
func TestNewCandidatesInheritTheList(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("root"))
	sub, other := root.Intermediate("issuing"), testpki.NewCA(t, testpki.Name("other"))
	o := newOrigin(t, serve(sign(t, root, template(root, 5), pkix.CRLEntry{Serial: serialOf(1)})))
	file := filepath.Join(t.TempDir(), "list")
	write(t, file, sign(t, root, template(root, 5), pkix.CRLEntry{Serial: serialOf(1)}))
	k := newKeeper(t, KeeperConfig{})
	k.SetPlaces("ca", []Place{place(o.URL, root), place(file, root)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.set(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	k.SetPlaces("ca", []Place{place(o.URL, root, sub), place(file, root, sub)})
	for range 2 {
		for _, h := range k.Lists("ca") {
			if h.List == nil {
				t.Fatalf("%s: the list is gone: %v", h.Address, h.Err)
			}
			if _, found := h.List.Lookup(nil, serialOf(1)); !found {
				t.Errorf("%s: not revoked any more", h.Address)
			}
		}
		askAgain(t, k)
	}
	k.SetPlaces("ca", []Place{place(o.URL, other)})
	if h := k.Lists("ca")[0]; h.List != nil {
		t.Error("a list is shown whose signer is no candidate")
	}
}

// TestRolledKeyIsTold: the certificates that the old key of a CA issued are told of when a list by its new key changes.
func TestRolledKeyIsTold(t *testing.T) {
	before, after := testpki.NewCA(t), testpki.NewCA(t) // one name
	stranger := testpki.NewCA(t, testpki.Name("stranger"))
	var mu sync.Mutex
	var told []pkix.KeyID
	o := newOrigin(t, serve(sign(t, after, template(after, 1))))
	k := newKeeper(t, KeeperConfig{OnChange: func(issuers []pkix.KeyID) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, issuers...)
	}})
	k.SetPlaces("ca", []Place{place(o.URL, before, after, stranger)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for ca, want := range map[*testpki.CA]bool{before: true, after: true, stranger: false} {
		if slices.Contains(told, pkix.KeyIDOf(ca.Cert)) != want {
			t.Errorf("%s told: want %v", ca.Cert.Subject, want)
		}
	}
}

// TestInvariant13DemandedListsAreBounded: certificates name more lists than may be kept, on a server that never answers,
// and lists that are larger together than may be kept.
func TestInvariant13DemandedListsAreBounded(t *testing.T) {
	ca := testpki.NewCA(t)
	hanging := newOrigin(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	k := newKeeper(t, KeeperConfig{MaxPlaces: 3})
	full := 0
	var demands sync.WaitGroup
	var mu sync.Mutex
	for i := range 50 {
		demands.Go(func() {
			if _, err := k.Demand(t.Context(), point(fmt.Sprintf("%s/%d", hanging.URL, i), ca)); errors.Is(err, ErrFull) {
				mu.Lock()
				defer mu.Unlock()
				full++
			}
		})
	}
	demands.Wait()
	if n := k.Metrics().Places; n > 3 || full < 40 {
		t.Errorf("%d places of 3, %d of 50 were refused", n, full)
	}

	dir := t.TempDir()
	der := many(t, ca, template(ca, 1), 1000)
	o := newOrigin(t, serve(der))
	k = newKeeper(t, KeeperConfig{Dir: dir, MaxBytesDemanded: int64(3 * len(der))})
	for i := range 10 {
		if _, err := k.Demand(t.Context(), point(fmt.Sprintf("%s/%d", o.URL, i), ca)); err != nil {
			t.Fatal(err)
		}
	}
	copies, err := filepath.Glob(filepath.Join(dir, "*"+copySuffix))
	if m := k.Metrics(); m.Bytes > int64(3*len(der)) || len(copies) != m.Lists || err != nil {
		t.Errorf("%d lists of %d bytes, %d copies (%v); want %d bytes at most", m.Lists, m.Bytes, len(copies), err, 3*len(der))
	}
}

// TestListWithoutEnd: a list without nextUpdate counts for a day after its source was reached last.
func TestListWithoutEnd(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	o := newOrigin(t, serve(withoutEnd(t, ca, sign(t, ca, template(ca, 1)))))
	k := newKeeper(t, KeeperConfig{Now: c.now})
	h, err := k.Demand(t.Context(), point(o.URL, ca))
	if err != nil || !h.Current(c.now().Add(23*time.Hour), 0) || h.Current(c.now().Add(25*time.Hour), 0) || !h.Current(c.now().Add(25*time.Hour), 2*time.Hour) {
		t.Errorf("%v; current after 23 h %v, after 25 h %v", err, h.Current(c.now().Add(23*time.Hour), 0), h.Current(c.now().Add(25*time.Hour), 0))
	}
}

// TestShorterRefresh: a policy that wants to know sooner than the one before need not wait for what that had fixed.
func TestShorterRefresh(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	o := newOrigin(t, serve(sign(t, ca, template(ca, 1))))
	k := newKeeper(t, KeeperConfig{Now: c.now})
	configured, demanded := place(o.URL+"/a", ca), point(o.URL+"/b", ca)
	k.SetPlaces("ca", []Place{configured})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Demand(t.Context(), demanded); err != nil {
		t.Fatal(err)
	}
	c.advance(2 * time.Minute)
	if due := k.due(c.now()); len(due) != 0 {
		t.Errorf("%d places are due without a reason", len(due))
	}
	configured.Refresh, demanded.Refresh = time.Minute, time.Minute
	k.SetPlaces("ca", []Place{configured})
	if _, err := k.Demand(t.Context(), demanded); err != nil {
		t.Fatal(err)
	}
	if due := k.due(c.now()); len(due) != 2 {
		t.Errorf("%d of 2 places are due", len(due))
	}
}
