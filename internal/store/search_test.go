package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

// TestSearchUsesIndexes: what the API offers reads an index from the place where the answer begins, and in its order.
func TestSearchUsesIndexes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	storetest.AddCA(t, s)
	for n := range 8 {
		c := storetest.Certificate(n)
		c.Profile = []string{"client", "server"}[n/4]
		if n%4 > 1 {
			c.Status, c.Reason = ca.Revoked, pkix.CertificateHold
		}
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(err)
		}
	}
	db := raw(t, dir)
	defer db.Close()
	zone, now := storetest.Certificate(1).ZoneID, time.Now()
	const run = " (zone_id=? AND ca=? AND profile=? AND status=?"
	for _, test := range []struct {
		name   string
		filter ca.Filter
		narrow bool
		index  string // and the columns that it is entered by
	}{
		{"everything", ca.Filter{}, false, "certificates_newest" + run + ")"},
		{"zone", ca.Filter{ZoneID: zone}, false, "certificates_newest" + run + ")"},
		{"active", ca.Filter{ZoneID: zone, Status: ca.Active, CAID: storetest.CAID}, false, "certificates_newest" + run + ")"},
		{"issued", ca.Filter{ZoneID: zone, Range: ca.Range{IssuedFrom: now}}, false, "certificates_newest" + run + " AND issued_on>?)"},
		{"in force", ca.Filter{ZoneID: zone, ExpiresFrom: now, Range: ca.Range{Order: ca.Newest}}, false, "certificates_newest" + run + ")"},
		{"soonest", ca.Filter{ZoneID: zone, Range: ca.Range{Order: ca.Soonest}}, false, "certificates_expiry" + run + ")"},
		{"ending", ca.Filter{ZoneID: zone, ExpiresFrom: now, ExpiresBefore: now}, false, "certificates_expiry" + run + " AND not_after>? AND not_after<?)"},
		{"few ending", ca.Filter{ZoneID: zone, ExpiresFrom: now, ExpiresBefore: now, Range: ca.Range{Order: ca.Newest}}, true, "certificates_expiry" + run + " AND not_after>? AND not_after<?)"},
		{"few issued, soonest", ca.Filter{ZoneID: zone, Range: ca.Range{IssuedFrom: now, Order: ca.Soonest}}, true, "certificates_newest" + run + " AND issued_on>?)"},
		{"on hold", ca.Filter{ZoneID: zone, OnHold: true}, false, "certificates_hold (zone_id=? AND ca=? AND profile=?)"},
		{"few on hold, soonest", ca.Filter{ZoneID: zone, OnHold: true, Range: ca.Range{Order: ca.Soonest}}, true, "certificates_hold (zone_id=? AND ca=? AND profile=?)"},
		{"final", ca.Filter{ZoneID: zone, Range: ca.Range{Final: true}}, false, "certificates_newest" + run + ")"},
	} {
		query, args, err := s.ListSQL(t.Context(), test.filter, test.narrow)
		if err != nil {
			t.Fatal(err)
		}
		plan := explain(t, db, query, args...)
		if !strings.Contains(plan, "SEARCH c USING COVERING INDEX "+test.index) || strings.Contains(plan, "SCAN") {
			t.Errorf("%s: want %q:\n%s", test.name, test.index, plan)
		}
		if sorted := strings.Contains(plan, "TEMP B-TREE"); sorted != test.narrow {
			t.Errorf("%s: sorted %v, want %v:\n%s", test.name, sorted, test.narrow, plan)
		}
	}
	serial, print, key := pkix.SerialFromBytes([]byte{7}), pkix.Fingerprint{7}, pkix.KeyID{7}
	for _, test := range []struct {
		filter ca.Filter
		index  string
		sorted bool
	}{
		{ca.Filter{ZoneID: zone, Status: ca.Active, Profile: "client", Serial: &serial}, "certificates_serial (serial=?)", true},
		{ca.Filter{ZoneID: zone, Fingerprint: &print}, "certificates_fingerprint (fingerprint=?)", false},
		{ca.Filter{Key: &key}, "certificates_key (key_hash=?)", false},
		{ca.Filter{ZoneID: zone, Status: ca.Revoked, CommonName: "n"}, "certificates_common_name (common_name=? AND zone_id=?)", false},
		{ca.Filter{ZoneID: zone, Name: ".example.com"}, "SEARCH n USING PRIMARY KEY (name=?)", false},
		{ca.Filter{ZoneID: zone, CommonName: "n", Name: "a.example.com", Range: ca.Range{Order: ca.Soonest}}, "SEARCH n USING PRIMARY KEY (name=?)", true},
		{ca.Filter{Fingerprint: &print, Name: "a"}, "certificates_fingerprint (fingerprint=?)", false},
	} {
		rows, count, args, err := store.NamedSQL(test.filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, query := range []string{rows, count} {
			plan := explain(t, db, query, args...)
			if !strings.Contains(plan, test.index) || strings.Contains(plan, "SCAN c") || strings.Contains(plan, "SCAN n") {
				t.Errorf("%+v: want %q:\n%s", test.filter, test.index, plan)
			}
			if sorted := strings.Contains(plan, "TEMP B-TREE"); sorted && !test.sorted {
				t.Errorf("%+v: sorted:\n%s", test.filter, plan)
			}
		}
	}
}

// named is a row whose certificate has names.
func named(tb testing.TB, n int, dns []string, emails, ips, uris []string) ca.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	t := x509.Certificate{SerialNumber: big.NewInt(int64(n + 1)), DNSNames: dns, EmailAddresses: emails}
	for _, ip := range ips {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(ip))
	}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			tb.Fatal(err)
		}
		t.URIs = append(t.URIs, u)
	}
	c := storetest.Certificate(n)
	if c.DER, err = x509.CreateCertificate(rand.Reader, &t, &t, key.Public(), key); err != nil {
		tb.Fatal(err)
	}
	c.Fingerprint = pkix.FingerprintOf(c.DER)
	c.ZoneID = "z"
	return c
}

// fillNames records certificates with names.
func fillNames(t *testing.T, s *testStore) {
	t.Helper()
	storetest.AddCA(t, s)
	for n, c := range []ca.Certificate{
		named(t, 0, []string{"api.example.com", "API.example.com"}, nil, nil, nil),
		named(t, 1, []string{"*.fleet.example.com", "deep.a.b.c.example.com"}, []string{"Ops@Example.com"}, nil, nil),
		named(t, 2, []string{"notexample.com", "localhost"}, nil, []string{"192.0.2.7", "2001:db8::1"}, nil),
		named(t, 3, nil, nil, nil, []string{"spiffe://example.org/NS/prod", "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8"}),
		named(t, 4, nil, nil, nil, nil),
	} {
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(n, err)
		}
	}
}

// checkNames looks for names among what fillNames has recorded.
func checkNames(t *testing.T, s *testStore) {
	t.Helper()
	for san, want := range map[string][]int{
		"api.example.com": {0}, "API.EXAMPLE.COM.": {0}, ".example.com": {1, 0}, "example.com": nil, ".fleet.example.com": {1},
		"*.fleet.example.com": {1}, ".b.c.example.com": {1}, "deep.a.b.c.example.com": {1}, "ops@EXAMPLE.com": {1},
		"notexample.com": {2}, "localhost": {2}, "192.0.2.7": {2}, "2001:DB8:0::1": {2}, "::ffff:192.0.2.7": {2}, "192.0.2.8": nil,
		"spiffe://example.org/NS/prod": {3}, "spiffe://example.org/ns/prod": nil, "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8": {3}, "%": nil,
	} {
		found, err := s.Search(t.Context(), ca.Filter{ZoneID: "z", Name: san})
		if err != nil {
			t.Errorf("%q: %v", san, err)
			continue
		}
		var got []int
		for _, c := range found.Rows {
			n := 0
			if _, err := fmt.Sscanf(c.ID[len(c.ID)-12:], "%x", &n); err != nil {
				t.Fatal(err)
			}
			got = append(got, n)
		}
		if !slices.Equal(got, want) || found.Total != len(want) || found.AtLeast {
			t.Errorf("%q finds %v (total %d), want %v", san, got, found.Total, want)
		}
	}
}

func TestSearchByName(t *testing.T) {
	s := open(t, t.TempDir())
	fillNames(t, s)
	checkNames(t, s)
}

// TestIndexNames: certificates from before the search by names get theirs, also when that is interrupted, and until then
// a search by name is refused and not answered with half of them.
func TestIndexNames(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	fillNames(t, s)
	for n := 5; n < 100; n++ {
		c := storetest.Certificate(n)
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db := raw(t, dir)
	for _, q := range []string{`DELETE FROM certificate_names`, `INSERT INTO meta SELECT 'names_left', max(seq) FROM certificates`} { // what the migration leaves
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	s = open(t, dir)
	refused := func() {
		t.Helper()
		if _, err := s.Search(t.Context(), ca.Filter{Name: "localhost"}); !errors.Is(err, ca.ErrNamesPending) {
			t.Errorf("before all names are there: %v, want ErrNamesPending", err)
		}
	}
	refused()
	fault := errors.New("fault")
	s.SetFault(func(string) error { // the third batch is the last but one
		if names, _, _ := s.Meta(t.Context(), "names_left"); names < "50" {
			return fault
		}
		return nil
	})
	if err := s.IndexNames(t.Context()); !errors.Is(err, fault) {
		t.Errorf("interrupted: %v", err)
	}
	refused()
	s.SetFault(nil)
	for range 2 {
		if err := s.IndexNames(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkNames(t, s)
	}
}

// TestSearchBounds: beyond ten thousand a total is a bound that a pager can go by, and what would have to be sorted is
// refused with advice.
func TestSearchBounds(t *testing.T) {
	const n = 10_100
	dir := t.TempDir()
	fill(t, dir, n) // and one more
	db := raw(t, dir)
	if _, err := db.ExecContext(t.Context(), `UPDATE certificates SET common_name = 'same', issued_on = seq, not_after = 4000000000000000 + seq`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	s := open(t, dir)
	for name, f := range map[string]ca.Filter{
		"common name": {ZoneID: "z", CommonName: "same"},
		"dates":       {ZoneID: "z", ExpiresFrom: time.Unix(0, 0)},
		"newest":      {ZoneID: "z", ExpiresFrom: time.Unix(0, 0), Range: ca.Range{Order: ca.Newest}},
	} {
		f.Limit = 1000
		seen := map[string]bool{}
		for f.Offset = 0; ; f.Offset += f.Limit {
			found, err := s.Search(t.Context(), f)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, c := range found.Rows {
				seen[c.ID] = true
			}
			if found.AtLeast != (len(found.Rows) == f.Limit) || found.AtLeast && found.Total <= f.Offset+len(found.Rows) {
				t.Fatalf("%s: at %d: %d rows, total %d, at least %v", name, f.Offset, len(found.Rows), found.Total, found.AtLeast)
			}
			if f.Offset+len(found.Rows) >= found.Total {
				break
			}
		}
		if len(seen) != n {
			t.Errorf("%s: %d certificates in pages, want %d", name, len(seen), n)
		}
	}
	_, err := s.Search(t.Context(), ca.Filter{ZoneID: "z", CommonName: "same", Range: ca.Range{Order: ca.Soonest}})
	if !errors.Is(err, ca.ErrTooWide) || !strings.Contains(err.Error(), "narrow it") {
		t.Errorf("ten thousand to sort: %v, want ErrTooWide", err)
	}
	if _, err := s.Search(t.Context(), ca.Filter{Range: ca.Range{Order: "size"}}); err == nil {
		t.Error("an order that there is not is taken")
	}
}

// TestSearchManyRuns: a list over two hundred zones is merged of as many runs; over more it is refused with advice.
func TestSearchManyRuns(t *testing.T) {
	s := open(t, t.TempDir())
	storetest.AddCA(t, s)
	record := func(n int) {
		c := storetest.Certificate(n)
		c.ZoneID = fmt.Sprintf("zone-%d", n%211)
		if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 200 {
		record(n)
	}
	for order, first := range map[ca.Order]int{ca.Newest: 199, ca.Soonest: 0} {
		begin := time.Now()
		found, err := s.Search(t.Context(), ca.Filter{Range: ca.Range{Order: order}})
		if err != nil || len(found.Rows) != 50 || found.Total != 200 || found.Rows[0].ID != storetest.Certificate(first).ID {
			t.Errorf("%s: %d of %d, %v", order, len(found.Rows), found.Total, err)
		}
		t.Logf("%s: %v", order, time.Since(begin))
	}
	record(200)
	if _, err := s.Search(t.Context(), ca.Filter{}); !errors.Is(err, ca.ErrTooWide) || !strings.Contains(err.Error(), "zone") {
		t.Errorf("201 zones: %v, want ErrTooWide", err)
	}
}
