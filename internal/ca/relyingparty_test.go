package ca_test

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/ca/responder"
	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation/crl"
)

// stale serves what a responder does, but a page that was frozen as it was.
type stale struct {
	next   http.Handler
	mu     sync.Mutex
	frozen map[string][]byte
}

func (s *stale) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	page, ok := s.frozen[r.URL.Path]
	s.mu.Unlock()
	if ok {
		_, _ = w.Write(page)
		return
	}
	s.next.ServeHTTP(w, r)
}

// TestKeeperTakesDeltas: our own keeper, which has an old list, follows it to the newest delta: what was revoked since is
// revoked, a hold that ended is none, and the scope is the certificates'.
func TestKeeperTakesDeltas(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	url := "http://" + server.Listener.Addr().String()
	f := newCA(t, pkix.ECDSAP256, shards(3), config(func(c *ca.Config) { c.PKIURL = url }))
	site := &stale{next: responder.New(responder.Config{Authority: f.Authority, Logger: f.cfg.Logger}), frozen: map[string][]byte{}}
	server.Config.Handler = site
	server.Start()
	t.Cleanup(server.Close)

	rows := f.sameShard(3)
	revoked, held, good := rows[0], rows[1], rows[2]
	f.hold(held.ID)
	f.run()
	leaf := parse(t, good)
	address := leaf.CRLDistributionPoints[0]
	f.shard = good.Shard
	f.waitCRL(func(list *x509.RevocationList) bool { return entry(t, list, held) != nil })
	site.frozen[address[len(url):]] = f.must(f.CRL(t.Context(), f.issuingID(), good.Shard)).DER

	client := outbound.New(outbound.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, UserAgent: "test"})
	t.Cleanup(client.Close)
	keeper := crl.NewKeeper(crl.KeeperConfig{Dir: t.TempDir(), Client: client, Logger: f.cfg.Logger})
	t.Cleanup(keeper.Close)
	held1, err := keeper.Demand(t.Context(), crl.Place{Address: address, Issuers: []*x509.Certificate{f.Issuing()}})
	if err != nil {
		t.Fatal(err)
	}
	points, _, err := pkix.CertificateDistributionPoints(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if reasons, ok := held1.List.Covers(leaf, points, false); !ok || reasons != pkix.AllReasons {
		t.Errorf("the list covers %v of the certificate, %v", reasons, ok)
	}
	f.reactivate(held.ID)
	f.revoke(revoked.ID, pkix.KeyCompromise)
	f.waitCRL(func(list *x509.RevocationList) bool {
		return entry(t, list, revoked) != nil && entry(t, list, held) == nil
	})

	fresh := crl.NewKeeper(crl.KeeperConfig{Dir: filepath.Join(t.TempDir(), "copies"), Client: client, Logger: f.cfg.Logger})
	t.Cleanup(fresh.Close)
	now, err := fresh.Demand(t.Context(), crl.Place{Address: address, Issuers: []*x509.Certificate{f.Issuing()}})
	if err != nil {
		t.Fatal(err)
	}
	if now.List.Number().Cmp(held1.List.Number()) != 0 || now.List.DeltaNumber() == nil {
		t.Fatalf("list %v with delta %v; the old list and a delta are wanted", now.List.Number(), now.List.DeltaNumber())
	}
	for _, test := range []struct {
		row  ca.Certificate
		want bool
	}{{revoked, true}, {held, false}, {good, false}} {
		e, listed := now.List.Lookup(f.Issuing().RawSubject, test.row.Serial)
		if listed != test.want || listed && !e.Delta {
			t.Errorf("%s: listed %v %+v, want %v by the delta", test.row.CommonName, listed, e, test.want)
		}
	}
}

// TestWholeCRLPace: however many ask, the list of all shards is made about once a second, each answer is at most a second
// and a signature old, and who wants to wait has everything that was revoked before.
func TestWholeCRLPace(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, shards(4))
	f.run()
	const n = 60
	rows := make([]ca.Certificate, n)
	for i := range rows {
		rows[i] = f.issue("x")
	}
	var mu sync.Mutex
	revokedAt := map[pkix.Serial]time.Time{} // when the call had returned
	numbers := map[string]bool{}
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(5 * time.Millisecond):
				}
				asked := time.Now()
				list, err := f.FullCRL(t.Context(), f.issuingID())
				if err != nil {
					t.Error(err)
					return
				}
				got := f.read(list.DER)
				mu.Lock()
				numbers[list.Number.String()] = true
				for serial, at := range revokedAt {
					if _, ok := got.entries[serial]; !ok && asked.Sub(at) > 1500*time.Millisecond {
						t.Errorf("list %v lacks what was revoked %v before it was asked for", list.Number, asked.Sub(at))
					}
				}
				mu.Unlock()
			}
		})
	}
	start := time.Now()
	for _, row := range rows {
		f.revoke(row.ID, pkix.Superseded)
		mu.Lock()
		revokedAt[row.Serial] = time.Now()
		mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
	close(done)
	group.Wait()
	if most := int(time.Since(start)/time.Second) + 2; len(numbers) > most || len(numbers) < 3 {
		t.Errorf("%d lists in %v", len(numbers), time.Since(start))
	}
	if got := f.read(f.must(f.FullCRLNow(t.Context(), f.issuingID())).DER); len(got.entries) != n {
		t.Errorf("%d entries, want %d", len(got.entries), n)
	}
}

// TestWholeCRLExpiry: RFC 5280, Section 3.3, for the list of all shards: an entry has left its shard, but leaves this list
// only after it was in one that was made after the certificate's end.
func TestWholeCRLExpiry(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, shards(2))
	row, _, err := f.IssueWithKey(t.Context(), ca.IssueRequest{
		ZoneID: zone, Profile: ca.ProfileClient, Subject: "CN=x", NotAfter: time.Now().Add(6 * time.Hour),
	}, pkix.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	f.revoke(row.ID, pkix.Superseded)
	other := f.sameShard(1)[0]
	for _, step := range []struct {
		after        time.Duration
		whole        bool // asked for
		shard, there bool
	}{
		{0, false, true, true},
		{5 * time.Hour, true, true, true}, // before the end
		{13 * time.Hour, false, true, true},
		{26 * time.Hour, true, false, true}, // has left its shard; told once more here
		{27 * time.Hour, true, false, false},
		{39 * time.Hour, true, false, false},
	} {
		f.clock.Store(int64(step.after))
		if other.Status == ca.Active { // a reason for another list of all shards
			other = f.hold(other.ID)
		} else {
			other = f.reactivate(other.ID)
		}
		if _, ok := f.full(row.Shard).entries[row.Serial]; ok != step.shard {
			t.Errorf("after %v: in its shard's list %v", step.after, ok)
		}
		if !step.whole {
			continue
		}
		if _, ok := f.read(f.must(f.FullCRLNow(t.Context(), f.issuingID())).DER).entries[row.Serial]; ok != step.there {
			t.Errorf("after %v: in the list of all shards %v", step.after, ok)
		}
	}
}

// TestClockSetBackLists is TestClockSetBack for deltas and the list of all shards.
func TestClockSetBackLists(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, shards(2))
	rows := f.sameShard(3)
	gone, held, later := rows[0], rows[1], rows[2]
	shard := gone.Shard
	f.revoke(gone.ID, pkix.KeyCompromise)
	f.hold(held.ID)
	valid := f.full(shard) // somebody has it, and will all day
	f.all()
	for range 3 { // years ahead, until the entry has left both lists
		f.clock.Add(int64(365 * 24 * time.Hour))
		f.full(shard)
		f.must(f.FullCRLNow(t.Context(), f.issuingID()))
	}
	f.reactivate(held.ID)
	ahead, whole := f.full(shard), f.read(f.must(f.FullCRLNow(t.Context(), f.issuingID())).DER)
	if _, ok := ahead.entries[gone.Serial]; ok {
		t.Fatal("the entry did not leave, so the test tests nothing")
	}
	f.clock.Store(0)
	if list := f.must(f.FullCRLNow(t.Context(), f.issuingID())); list.ThisUpdate.After(f.cfg.Now()) {
		t.Errorf("all shards: a list of %v, nothing having changed", list.ThisUpdate)
	}
	f.revoke(later.ID, pkix.Superseded)
	full, delta := f.full(shard), f.delta(shard)
	now := f.read(f.must(f.FullCRLNow(t.Context(), f.issuingID())).DER)
	for name, l := range map[string]struct{ list, before parsed }{"full": {full, ahead}, "delta": {delta, ahead}, "all shards": {now, whole}} {
		if l.list.ThisUpdate.After(f.cfg.Now()) || l.list.Number.Cmp(l.before.Number) <= 0 {
			t.Errorf("%s: number %v of %v, after %v", name, l.list.Number, l.list.ThisUpdate, l.before.Number)
		}
	}
	for name, entries := range map[string]map[pkix.Serial]pkix.CRLRecord{"full": full.entries, "all shards": now.entries, "old list and delta": valid.plus(t, delta)} {
		_, hasGone := entries[gone.Serial]
		_, hasLater := entries[later.Serial]
		if _, hasHeld := entries[held.Serial]; !hasGone || !hasLater || hasHeld {
			t.Errorf("%s: revoked before %v, revoked now %v, hold that ended %v", name, hasGone, hasLater, hasHeld)
		}
	}
}
