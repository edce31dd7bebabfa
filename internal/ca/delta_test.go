package ca_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// parsed is a list as our own reader has it, with its entries by serial number.
type parsed struct {
	*pkix.CRL
	entries map[pkix.Serial]pkix.CRLRecord
}

// read parses a list of the issuing CA, whose signature it checks. No serial number is in it twice.
func (f *fixture) read(der []byte) parsed {
	f.t.Helper()
	crl, err := pkix.ParseCRLHeader(der)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := crl.CheckSignature(f.Issuing().PublicKey); err != nil {
		f.t.Fatal(err)
	}
	p := parsed{crl, map[pkix.Serial]pkix.CRLRecord{}}
	err = crl.Walk(func(e pkix.CRLRecord) error {
		serial := pkix.SerialFromBytes(e.Serial)
		if _, twice := p.entries[serial]; twice {
			f.t.Errorf("serial %s is in list %v twice", serial, crl.Number)
		}
		e.Serial, e.Offset = nil, 0
		p.entries[serial] = e
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fixture) full(shard int) parsed {
	f.t.Helper()
	return f.read(f.must(f.CRL(f.t.Context(), f.issuingID(), shard)).DER)
}

func (f *fixture) delta(shard int) parsed {
	f.t.Helper()
	return f.read(f.must(f.DeltaCRL(f.t.Context(), f.issuingID(), shard)).DER)
}

func (f *fixture) all() parsed {
	f.t.Helper()
	return f.read(f.must(f.FullCRL(f.t.Context(), f.issuingID())).DER)
}

func (f *fixture) must(crl ca.CRL, err error) ca.CRL {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	return crl
}

// plus is the full list that a relying party has after a delta (RFC 5280, Section 5.2.4).
func (p parsed) plus(t testing.TB, delta parsed) map[pkix.Serial]pkix.CRLRecord {
	t.Helper()
	if p.Number.Cmp(delta.BaseNumber) < 0 || p.Number.Cmp(delta.Number) > 0 {
		t.Fatalf("list %v cannot be used with delta %v of base %v", p.Number, delta.Number, delta.BaseNumber)
	}
	sum := map[pkix.Serial]pkix.CRLRecord{}
	for serial, e := range p.entries {
		sum[serial] = e
	}
	for serial, e := range delta.entries {
		if e.Reason == pkix.RemoveFromCRL {
			delete(sum, serial)
		} else {
			sum[serial] = e
		}
	}
	return sum
}

// wantSame compares what two lists say.
func wantSame(t testing.TB, what string, got, want map[pkix.Serial]pkix.CRLRecord) {
	t.Helper()
	for serial, w := range want {
		if g, ok := got[serial]; !ok || g.Reason != w.Reason || !g.At.Equal(w.At) || !g.InvalidityDate.Equal(w.InvalidityDate) {
			t.Errorf("%s: serial %s: %+v, %v; want %+v", what, serial, g, ok, w)
		}
	}
	for serial := range got {
		if _, ok := want[serial]; !ok {
			t.Errorf("%s: serial %s is listed", what, serial)
		}
	}
}

// TestInvariant08DeltasReachEveryValidList: over racing transitions in four shards, renewals and restarts, each newest delta brings each full list that
// is still valid to the newest full list; numbers grow; the list of all shards is theirs together.
func TestInvariant08DeltasReachEveryValidList(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, shards(4))
	rows := make([]ca.Certificate, 24)
	for i := range rows {
		rows[i] = f.issue(fmt.Sprint("c", i))
	}
	old := make([][]parsed, 4) // every full list there was, by shard
	numbers := make([]int64, 4)
	whole := f.all()
	for round := range 18 {
		var group sync.WaitGroup
		for w := range 4 {
			group.Go(func() {
				for i := w; i < len(rows); i += 4 { // each of its own certificates
					if rand.IntN(3) == 0 {
						f.randomStep(rows[i].ID)
					}
				}
			})
		}
		for range 3 { // lists are signed while that goes on
			f.checkShards(old, numbers)
		}
		group.Wait()
		f.checkShards(old, numbers)
		whole = f.checkWhole(whole)
		switch round % 6 {
		case 2:
			f.clock.Add(int64(5 * time.Hour))
		case 4:
			f.clock.Add(int64(13 * time.Hour)) // a renewal is due
		case 5:
			if err := f.store.Close(); err != nil {
				t.Fatal(err)
			}
			f.open()
		}
	}
}

// randomStep holds, reactivates or revokes a certificate, whichever can be done.
func (f *fixture) randomStep(id string) {
	request := ca.ChangeRequest{ID: id, Actor: "test"}
	var err error
	switch rand.IntN(8) {
	case 0:
		_, err = f.Revoke(f.t.Context(), ca.RevokeRequest{ID: id, Actor: "test", Reason: pkix.Superseded, InvalidityDate: time.Now().AddDate(-1, 0, 0)})
	case 1, 2, 3:
		_, err = f.Hold(f.t.Context(), request)
	default:
		_, err = f.Reactivate(f.t.Context(), request)
	}
	_ = err // whatever state it is in, some steps are refused
}

// checkShards signs what is due and compares the newest lists of each shard with all that are still valid.
func (f *fixture) checkShards(old [][]parsed, numbers []int64) {
	f.t.Helper()
	for shard := range old {
		// The two are fetched one after the other, so the delta may be of a later number; then it must cover this list too.
		full, delta := f.full(shard), f.delta(shard)
		if n := full.Number.Int64(); n < numbers[shard] {
			f.t.Fatalf("shard %d: number %d after %d", shard, n, numbers[shard])
		} else if n > numbers[shard] {
			old[shard] = append(old[shard], full)
			numbers[shard] = n
		}
		if len(full.IDP.FullName) != len(delta.IDP.FullName) || full.IDP.FullName[0].URI != delta.IDP.FullName[0].URI {
			f.t.Errorf("shard %d: list and delta are of different scopes", shard)
		}
		newest := full.plus(f.t, delta)
		if delta.Number.Cmp(full.Number) == 0 {
			wantSame(f.t, fmt.Sprintf("shard %d, list %v and its own delta", shard, full.Number), newest, full.entries)
		}
		for _, o := range old[shard] {
			if o.NextUpdate.After(f.cfg.Now()) {
				wantSame(f.t, fmt.Sprintf("shard %d, list %v and delta %v of base %v", shard, o.Number, delta.Number, delta.BaseNumber), o.plus(f.t, delta), newest)
			}
		}
	}
}

// checkWhole compares the list of all shards with the shards, when nothing changes.
func (f *fixture) checkWhole(before parsed) parsed {
	f.t.Helper()
	whole := f.read(f.must(f.FullCRLNow(f.t.Context(), f.issuingID())).DER)
	if whole.IDP != nil || whole.BaseNumber != nil || whole.FreshestCRL != nil {
		f.t.Errorf("the list of all shards has a scope or a delta")
	}
	if whole.Number.Cmp(before.Number) < 0 {
		f.t.Fatalf("list of all shards %v after %v", whole.Number, before.Number)
	}
	together := map[pkix.Serial]pkix.CRLRecord{}
	for shard := range 4 {
		for serial, e := range f.full(shard).entries {
			together[serial] = e
		}
	}
	wantSame(f.t, fmt.Sprintf("list %v of all shards", whole.Number), whole.entries, together)
	return whole
}

// TestDeltasByOpenSSL: openssl finds what was revoked after an old full list by the newest delta, takes back a hold that
// ended, and judges by the list of all shards alone. The CA has moved in between, so the certificate names one address of
// several in the lists.
func TestDeltasByOpenSSL(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, shards(3))
	rows := f.sameShard(3)
	revoked, held, good := rows[0], rows[1], rows[2]
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	old := f.cfg.PKIURL
	f.cfg.PKIURL = "http://pki.example.com"
	f.open()
	f.hold(held.ID)
	crl := func(name string, der []byte) string {
		path := f.file(name, nil)
		wants(t, nil, "openssl", "crl", "-inform", "DER", "-in", f.file(name+".der", der), "-out", path)
		return path
	}
	full := f.must(f.CRL(t.Context(), f.issuingID(), held.Shard))
	base := crl("base.pem", full.DER)
	text := wants(t, []string{"X509v3 Freshest CRL", "Issuing Distribution Point: critical", "Only User Certificates"}, "openssl", "crl", "-in", base, "-noout", "-text")
	for _, url := range []string{f.CRLURL(f.issuingID(), held.Shard), strings.Replace(f.CRLURL(f.issuingID(), held.Shard), f.cfg.PKIURL, old, 1)} {
		if !strings.Contains(text, "URI:"+url) {
			t.Errorf("the list does not name %s:\n%s", url, text)
		}
	}
	f.reactivate(held.ID)
	f.revoke(revoked.ID, pkix.Superseded)
	delta := crl("delta.pem", f.must(f.DeltaCRL(t.Context(), f.issuingID(), held.Shard)).DER)
	wants(t, []string{"Delta CRL Indicator: critical", "Remove From CRL"}, "openssl", "crl", "-in", delta, "-noout", "-text")
	whole := crl("whole.pem", f.must(f.FullCRLNow(t.Context(), f.issuingID())).DER)
	for _, test := range []struct {
		name   string
		row    ca.Certificate
		before string // by the old list alone
		after  string // with the delta
	}{
		{"good", good, "OK", "OK"},
		{"revoked after the list", revoked, "OK", "certificate revoked"},
		{"hold that ended", held, "certificate revoked", "OK"},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := newJudges(f, test.row)
			verify := func(want string, args ...string) {
				t.Helper()
				out, _ := tool(t, "openssl", append(append([]string{
					"verify", "-CAfile", j.root, "-untrusted", j.issuing, "-crl_check",
				}, args...), j.leaf)...)
				if !strings.Contains(out, want) {
					t.Errorf("%q: no %q in\n%s", args, want, out)
				}
			}
			verify(test.before, "-CRLfile", base)
			verify(test.after, "-extended_crl", "-use_deltas", "-CRLfile", base, "-CRLfile", delta)
			verify(test.after, "-CRLfile", whole)
		})
	}
}

// sameShard issues certificates until n are of one shard.
func (f *fixture) sameShard(n int) []ca.Certificate {
	f.t.Helper()
	byShard := map[int][]ca.Certificate{}
	for i := range 100 {
		row := f.issue(fmt.Sprint("c", i))
		same := append(byShard[row.Shard], row)
		if byShard[row.Shard] = same; len(same) == n {
			return same
		}
	}
	f.t.Fatal("a hundred certificates, and no shard has enough")
	return nil
}

// TestCertificateNamesItsList: the address in a certificate is one of its list's.
func TestCertificateNamesItsList(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, shards(5))
	for i := range 12 {
		row := f.issue(fmt.Sprint("c", i))
		url := parse(t, row).CRLDistributionPoints
		if len(url) != 1 || url[0] != f.CRLURL(row.CAID, row.Shard) {
			t.Fatalf("%q, want %s", url, f.CRLURL(row.CAID, row.Shard))
		}
		if points := f.full(row.Shard).IDP.FullName; points[0].URI != url[0] {
			t.Errorf("the list names %v, the certificate %s", points, url[0])
		}
	}
	for _, bad := range []int{-1, ca.MaxShards + 1} {
		g := newFixture(t)
		if err := g.Init(t.Context(), "test", ca.InitRequest{Shards: bad}); err == nil || !strings.Contains(err.Error(), "between 1 and 1024") {
			t.Errorf("%d shards: %v", bad, err)
		}
	}
}
