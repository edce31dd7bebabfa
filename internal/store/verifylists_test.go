package store_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	crlpkix "crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

// lists makes CRLs that are checked against a store with two shards.
type lists struct {
	t      *testing.T
	dir    string // of the lists
	cert   *x509.Certificate
	signer crypto.Signer
	at     time.Time
}

// listEntry is an entry of a list: the certificate with that number, and why.
type listEntry struct {
	n      int
	reason int
}

// houseWithLists has a real CA with two shards; certificates 0 to 5 in shard 0, 6 and 7 in shard 1. Of shard 0, number 1
// to 4 were the revocations of 0, 1, 2, then 2 came back; number 5 was that of 3. 6 is revoked.
func houseWithLists(t *testing.T) (dir string, l *lists) {
	t.Helper()
	dir = t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: crlpkix.Name{CommonName: "issuing"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
		SubjectKeyId: []byte{1, 2, 3, 4},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	s := openJournaled(t, dir)
	must(t, s.AddCA(t.Context(), ca.CARecord{ID: storetest.CAID, Name: "issuing", KeyName: "issuing", DER: der, Shards: 2}, storetest.Entry("ca.create", "x")))
	for n := range 8 {
		c := storetest.Certificate(n)
		c.IssuerKey, c.Shard, c.NotAfter = pkix.KeyIDOf(cert), n/6, time.Now().AddDate(1, 0, 0)
		must(t, s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)))
	}
	mustApply(t, s.Store, 0, ca.Revoked, pkix.Superseded)
	mustApply(t, s.Store, 1, ca.Revoked, pkix.CertificateHold)
	mustApply(t, s.Store, 2, ca.Revoked, pkix.CertificateHold)
	mustApply(t, s.Store, 2, ca.Active, 0)
	mustApply(t, s.Store, 3, ca.Revoked, pkix.Superseded)
	mustApply(t, s.Store, 6, ca.Revoked, pkix.Superseded)
	if _, err := raise(t, s.Store, -1); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	return dir, &lists{t: t, dir: filepath.Join(dir, "crl"), cert: cert, signer: key, at: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
}

// put publishes a list with crypto/x509; base above 0 makes it a delta.
func (l *lists) put(name string, number, base int64, entries ...listEntry) {
	l.t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: l.at, NextUpdate: l.at.AddDate(1, 0, 0)}
	for _, e := range entries {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: storetest.Certificate(e.n).Serial.Big(), RevocationTime: l.at, ReasonCode: e.reason,
		})
	}
	if base > 0 {
		value, err := asn1.Marshal(big.NewInt(base))
		must(l.t, err)
		template.ExtraExtensions = []crlpkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: value}}
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, l.cert, l.signer)
	must(l.t, err)
	path := filepath.Join(l.dir, name)
	must(l.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(l.t, os.WriteFile(path, der, 0o600))
}

// TestVerifyPublishedLists: lists that are as the ledger was when they were made are right, whatever came since; each way
// to be wrong is found, and one that is behind is counted.
func TestVerifyPublishedLists(t *testing.T) {
	shard := storetest.CAID + "/0.crl"
	delta := storetest.CAID + "/0-delta.crl"
	all := storetest.CAID + ".crl"
	for _, test := range []struct {
		name   string
		put    func(l *lists)
		want   string // a part of the one finding; empty: none
		behind int
	}{
		{"right", func(l *lists) { l.put(shard, 5, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{3, 4}) }, "", 0},
		{"behind, with a hold that is over", func(l *lists) { l.put(shard, 3, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{2, 6}) }, "", 1},
		{"one is missing", func(l *lists) { l.put(shard, 5, 0, listEntry{0, 4}, listEntry{1, 6}) }, storetest.Certificate(3).ID + ", serial " + storetest.Certificate(3).Serial.String() + " is revoked and not on the list", 0},
		{"one that is active", func(l *lists) {
			l.put(shard, 5, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{3, 4}, listEntry{5, 4})
		}, "says of the serial " + storetest.Certificate(5).Serial.String(), 0},
		{"one that is not known", func(l *lists) {
			l.put(shard, 5, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{3, 4}, listEntry{99, 4})
		}, "does not know", 0},
		{"a number that was not given", func(l *lists) { l.put(shard, 6, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{3, 4}) }, "its number is 6, the ledger's 5", 0},
		{"a delta in the place of a list", func(l *lists) { l.put(shard, 5, 2, listEntry{3, 4}) }, "not that of such a list", 0},
		{"delta", func(l *lists) { l.put(delta, 5, 2, listEntry{3, 4}, listEntry{2, 8}) }, "", 0},
		{"delta without one", func(l *lists) { l.put(delta, 5, 2, listEntry{2, 8}) }, "not on the list", 0},
		{"delta that takes back one that is revoked", func(l *lists) { l.put(delta, 5, 2, listEntry{3, 4}, listEntry{0, 8}) }, "removed from the list true, status revoked", 0},
		{"all shards", func(l *lists) { l.put(all, 1, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{3, 4}, listEntry{6, 4}) }, "", 0},
		{"all shards but one of another shard", func(l *lists) { l.put(all, 1, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{3, 4}) }, "not on the list", 0},
		{"all shards with one that never was revoked", func(l *lists) {
			l.put(all, 1, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{3, 4}, listEntry{6, 4}, listEntry{7, 4})
		}, "status active", 0},
		{"of nobody", func(l *lists) { l.put("x/0.crl", 1, 0) }, "the list of no CA", 0},
		{"of nothing", func(l *lists) { l.put(storetest.CAID+"/-3.crl", 1, 0) }, "the list of no CA", 0},
		{"changed", func(l *lists) {
			l.put(shard, 5, 0, listEntry{0, 4}, listEntry{1, 6}, listEntry{3, 4})
			flip(l.t, filepath.Join(l.dir, shard), -1)
		}, "CRL of CN=issuing", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, l := houseWithLists(t)
			test.put(l)
			report, err := store.Verify(t.Context(), journaled(dir), l.dir)
			if err != nil || report.CRLs != 1 || report.CRLsBehind != test.behind {
				t.Errorf("%d lists, %d behind, %v; want 1, %d", report.CRLs, report.CRLsBehind, err, test.behind)
			}
			found := len(report.Findings)
			if test.want == "" && found != 0 || test.want != "" && (found != 1 || !strings.Contains(report.Findings[0].What, test.want)) {
				t.Errorf("%+v; want one finding with %q", report.Findings, test.want)
			}
		})
	}
}

// TestVerifyListsOfArchived: a list may still have what has left for the archive since; what never was revoked is found there too.
func TestVerifyListsOfArchived(t *testing.T) {
	dir, l := houseWithLists(t)
	s := openJournaled(t, dir)
	last := storetest.Certificate(20)
	last.IssuerKey = pkix.KeyIDOf(l.cert)
	must(t, s.RecordCertificate(t.Context(), last, archiveEntry))
	if n, err := s.Archive(t.Context(), time.Now().AddDate(2, 0, 0), archiveEntry); err != nil || n != 8 {
		t.Fatalf("%d moved, %v", n, err)
	}
	closeStore(t, s)
	shard := storetest.CAID + "/0.crl"
	for want, entries := range map[string][]listEntry{
		"":                         {{0, 4}, {1, 6}, {3, 4}},
		"status active":            {{0, 4}, {1, 6}, {3, 4}, {5, 4}},
		"the ledger does not know": {{0, 4}, {1, 6}, {3, 4}, {99, 4}},
	} {
		l.put(shard, 5, 0, entries...)
		report, err := store.Verify(t.Context(), journaled(dir), l.dir)
		if err != nil {
			t.Fatal(err)
		}
		if found := report.Findings; want == "" && len(found) != 0 || want != "" && (len(found) != 1 || !strings.Contains(found[0].What, want)) {
			t.Errorf("%+v; want one finding with %q", found, want)
		}
	}
}
