package crl

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// places runs a test with the list in memory and in a mapped file.
func places(t *testing.T, f func(t *testing.T, dir string)) {
	t.Run("heap", func(t *testing.T) { f(t, "") })
	t.Run("mapped", func(t *testing.T) { f(t, t.TempDir()) })
}

func TestLookup(t *testing.T) {
	ca := testpki.NewCA(t)
	at := moment().Add(-time.Hour)
	long := pkix.SerialFromBytes(bytes.Repeat([]byte{0x7f}, 40))
	longest := pkix.SerialFromBytes(bytes.Repeat([]byte{0xfe}, 254)) // lengths of two octets
	entries := []pkix.CRLEntry{
		{Serial: pkix.SerialFromBytes([]byte{1}), At: at},
		{Serial: pkix.SerialFromBytes([]byte{0}), At: at, Reason: pkix.Superseded},
		{Serial: pkix.SerialFromBytes([]byte{0x80}), At: at, Reason: pkix.KeyCompromise, InvalidityDate: at.Add(-time.Hour)},
		{Serial: long, At: at, Reason: pkix.CertificateHold},
		{Serial: longest, At: at},
		{Serial: pkix.SerialFromBytes([]byte{1}), At: at.Add(time.Second), Reason: pkix.CACompromise}, // again
	}
	der := sign(t, ca, template(ca, 7), entries...)
	places(t, func(t *testing.T, dir string) {
		l := load(t, der, Options{Issuer: ca.Cert, Dir: dir})
		for _, e := range entries[:5] {
			got, found := l.Lookup(nil, e.Serial)
			want := Entry{Reason: e.Reason, At: e.At, InvalidityDate: e.InvalidityDate}
			if diff := cmp.Diff(want, got); !found || diff != "" {
				t.Errorf("serial %s: found %v\n%s", e.Serial, found, diff)
			}
		}
		for _, absent := range [][]byte{{2}, {0x80, 0}, {1, 0}, {0x7f}} {
			if _, found := l.Lookup(nil, pkix.SerialFromBytes(absent)); found {
				t.Errorf("serial %x is found", absent)
			}
		}
		if l.Len() != 5 || l.Duplicates() != 1 || l.Number().Int64() != 7 || l.SignatureAlgorithm() != "sha256-ecdsa" || l.Size() != int64(len(der)) {
			t.Errorf("%d entries, %d duplicates, number %v, %s, %d bytes", l.Len(), l.Duplicates(), l.Number(), l.SignatureAlgorithm(), l.Size())
		}
	})
}

// TestLookupLarge finds every entry of a list large enough for long runs of slots, and nothing else.
func TestLookupLarge(t *testing.T) {
	ca := testpki.NewCA(t)
	const n = 50_000
	l := load(t, many(t, ca, template(ca, 1), n), Options{Issuer: ca.Cert, Dir: t.TempDir()})
	for i := range 2 * n {
		if _, found := l.Lookup(nil, serialOf(i)); found != (i < n) {
			t.Fatalf("serial %d of %d: found %v", i, n, found)
		}
	}
	if l.Len() != n || l.Duplicates() != 0 {
		t.Errorf("%d entries, %d duplicates", l.Len(), l.Duplicates())
	}
	serial, absent := serialOf(5), serialOf(n+5)
	if a := testing.AllocsPerRun(100, func() { l.Lookup(nil, serial); l.Lookup(nil, absent) }); a != 0 {
		t.Errorf("a look-up allocates %v times", a)
	}
}

func TestEmptyList(t *testing.T) {
	ca := testpki.NewCA(t)
	l := load(t, sign(t, ca, template(ca, 1)), Options{Issuer: ca.Cert, Dir: t.TempDir()})
	if _, found := l.Lookup(nil, serialOf(1)); found || l.Len() != 0 {
		t.Error("an empty list has an entry")
	}
}

func TestLoadRefuses(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("other"))
	namesake := testpki.NewCA(t)
	noSign := testpki.NewCA(t, testpki.Edit(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }))
	good := sign(t, ca, template(ca, 1), pkix.CRLEntry{Serial: serialOf(1)}, pkix.CRLEntry{Serial: serialOf(2)})
	flip := func(at int) []byte {
		der := bytes.Clone(good)
		der[at] ^= 0x20
		return der
	}
	tests := []struct {
		name string
		der  []byte
		o    Options
		want error
	}{
		{"other CA", good, Options{Issuer: other.Cert}, ErrIssuer},
		{"other key of the name", good, Options{Issuer: namesake.Cert}, ErrSignature},
		{"no cRLSign", sign(t, noSign, template(noSign, 1)), Options{Issuer: noSign.Cert}, ErrKeyUsage},
		{"algorithm", good, Options{Issuer: ca.Cert, Allows: func(string) bool { return false }}, ErrAlgorithm},
		{"too large", good, Options{Issuer: ca.Cert, MaxBytes: int64(len(good)) - 1}, ErrTooLarge},
		{"signature", flip(len(good) - 3), Options{Issuer: ca.Cert}, ErrSignature},
		{"an entry changed", flip(bytes.Index(good, serialOf(2).Bytes()) + 3), Options{Issuer: ca.Cert}, ErrSignature},
		{"cut off", good[:len(good)-1], Options{Issuer: ca.Cert}, pkix.ErrCRLMalformed},
		{"bytes after", append(bytes.Clone(good), 0), Options{Issuer: ca.Cert}, pkix.ErrCRLMalformed},
		{"empty", nil, Options{Issuer: ca.Cert}, pkix.ErrCRLMalformed},
		{"text", []byte("<html>not found</html>"), Options{Issuer: ca.Cert}, pkix.ErrCRLMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			places(t, func(t *testing.T, dir string) {
				test.o.Dir = dir
				if _, err := Load(bytes.NewReader(test.der), test.o); !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if dir != "" {
					left, err := os.ReadDir(dir)
					if err != nil || len(left) > 0 {
						t.Errorf("left behind: %v %v", left, err)
					}
				}
			})
		})
	}
	if _, err := Load(bytes.NewReader(good), Options{}); err == nil {
		t.Error("a list is taken without a candidate")
	}
	exact := Options{Issuer: ca.Cert, MaxBytes: int64(len(good))}
	load(t, good, exact)
	for _, failing := range []error{io.ErrUnexpectedEOF, io.ErrClosedPipe} {
		r := io.MultiReader(bytes.NewReader(good[:100]), errorReader{failing})
		if _, err := Load(r, Options{Issuer: ca.Cert, Dir: t.TempDir()}); !errors.Is(err, failing) {
			t.Errorf("got %v, want %v", err, failing)
		}
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// TestLoadChoosesIssuer gives the right CA among others, some of its name.
func TestLoadChoosesIssuer(t *testing.T) {
	ca, other, namesake := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("other")), testpki.NewCA(t)
	der := sign(t, ca, template(ca, 1))
	for _, candidates := range [][]*x509.Certificate{
		{other.Cert, namesake.Cert, ca.Cert}, {ca.Cert, namesake.Cert}, {namesake.Cert, ca.Cert, ca.Cert, other.Cert},
	} {
		if l := load(t, der, Options{Issuers: candidates}); l.Issuer() != ca.Cert {
			t.Errorf("issuer %v", l.Issuer().SerialNumber)
		}
	}
}

func TestLoadPEM(t *testing.T) {
	ca := testpki.NewCA(t)
	der := sign(t, ca, template(ca, 1), pkix.CRLEntry{Serial: serialOf(1)})
	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	places(t, func(t *testing.T, dir string) {
		l := load(t, append([]byte("Certificate Revocation List (CRL):\n"), text...), Options{Issuer: ca.Cert, Dir: dir})
		if _, found := l.Lookup(nil, serialOf(1)); !found || l.Size() != int64(len(der)) {
			t.Errorf("found %v, %d bytes", found, l.Size())
		}
		two := append(bytes.Clone(text), text...)
		if _, err := Load(bytes.NewReader(two), Options{Issuer: ca.Cert, Dir: dir}); !errors.Is(err, pkix.ErrCRLMalformed) {
			t.Errorf("two lists in one file: %v", err)
		}
	})
}

func TestFresh(t *testing.T) {
	ca := testpki.NewCA(t)
	c := template(ca, 1)
	l := load(t, sign(t, ca, c), Options{Issuer: ca.Cert})
	d := c
	d.Number, d.BaseNumber, d.NextUpdate = big.NewInt(2), big.NewInt(1), c.NextUpdate.Add(time.Hour)
	combined, err := l.WithDelta(load(t, sign(t, ca, d), Options{Issuer: ca.Cert}))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		list  *List
		at    time.Time
		grace time.Duration
		want  bool
	}{
		{"now", l, moment(), 0, true},
		{"at nextUpdate", l, c.NextUpdate, 0, true},
		{"after nextUpdate", l, c.NextUpdate.Add(time.Second), 0, false},
		{"in grace", l, c.NextUpdate.Add(time.Minute), time.Minute, true},
		{"after grace", l, c.NextUpdate.Add(61 * time.Second), time.Minute, false},
		{"clock behind", l, c.ThisUpdate.Add(-skew), 0, true},
		{"of the future", l, c.ThisUpdate.Add(-skew - time.Second), 0, false},
		{"base old, delta current", combined, c.NextUpdate.Add(time.Second), 0, true},
		{"both old", combined, d.NextUpdate.Add(time.Second), 0, false},
	} {
		if got := test.list.Fresh(test.at, test.grace); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
	if !combined.NextUpdate().Equal(d.NextUpdate) || !l.NextUpdate().Equal(c.NextUpdate) {
		t.Errorf("next update %v", combined.NextUpdate())
	}
}

// TestIndirect has one serial number of three CAs on one list.
func TestIndirect(t *testing.T) {
	ca, x, y, z := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("x")), testpki.NewCA(t, testpki.Name("y")), testpki.NewCA(t, testpki.Name("z"))
	c := template(ca, 1)
	c.Indirect = true
	der := sign(t, ca, c,
		pkix.CRLEntry{Serial: serialOf(1), Reason: pkix.Superseded},
		pkix.CRLEntry{Serial: serialOf(1), Reason: pkix.KeyCompromise, Issuer: x.Cert.RawSubject},
		pkix.CRLEntry{Serial: serialOf(2)}, // of x still: RFC 5280, Section 5.3.3
		pkix.CRLEntry{Serial: serialOf(1), Reason: pkix.CACompromise, Issuer: y.Cert.RawSubject},
		pkix.CRLEntry{Serial: serialOf(3), Issuer: x.Cert.RawSubject},
		pkix.CRLEntry{Serial: serialOf(3), Issuer: x.Cert.RawSubject},
		pkix.CRLEntry{Serial: serialOf(4), Issuer: ca.Cert.RawSubject},
	)
	places(t, func(t *testing.T, dir string) {
		l := load(t, der, Options{Issuer: ca.Cert, Dir: dir})
		for _, test := range []struct {
			issuer *testpki.CA
			serial int
			reason pkix.Reason
			want   bool
		}{
			{ca, 1, pkix.Superseded, true},
			{x, 1, pkix.KeyCompromise, true},
			{y, 1, pkix.CACompromise, true},
			{z, 1, 0, false},
			{ca, 2, 0, false},
			{x, 2, 0, true},
			{y, 2, 0, false},
			{x, 3, 0, true},
			{y, 3, 0, false},
			{ca, 4, 0, true},
			{x, 4, 0, false},
		} {
			e, found := l.Lookup(test.issuer.Cert.RawSubject, serialOf(test.serial))
			if found != test.want || e.Reason != test.reason {
				t.Errorf("%s %d: %v %v", pkix.DNString(test.issuer.Cert.RawSubject), test.serial, found, e.Reason)
			}
		}
		if l.Len() != 6 || l.Duplicates() != 1 || !l.Indirect() {
			t.Errorf("%d entries, %d duplicates", l.Len(), l.Duplicates())
		}
	})
}

func TestWithDelta(t *testing.T) {
	ca, other, namesake := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("other")), testpki.NewCA(t)
	hold := pkix.CRLEntry{Serial: serialOf(1), Reason: pkix.CertificateHold}
	base := load(t, sign(t, ca, template(ca, 10), hold, pkix.CRLEntry{Serial: serialOf(2)}), Options{Issuer: ca.Cert})
	delta := func(by *testpki.CA, number, on int64, edit func(*pkix.CRLTemplate), entries ...pkix.CRLEntry) *List {
		t.Helper()
		c := template(by, number)
		c.BaseNumber = big.NewInt(on)
		if edit != nil {
			edit(&c)
		}
		return load(t, sign(t, by, c, entries...), Options{Issuer: by.Cert})
	}
	d := delta(ca, 12, 9, nil,
		pkix.CRLEntry{Serial: serialOf(1), Reason: pkix.RemoveFromCRL},
		pkix.CRLEntry{Serial: serialOf(3), Reason: pkix.KeyCompromise},
		pkix.CRLEntry{Serial: serialOf(4), Reason: pkix.RemoveFromCRL},
		pkix.CRLEntry{Serial: serialOf(4), Reason: pkix.Superseded}) // both said: revoked
	l, err := base.WithDelta(d)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ found, byDelta bool }{{}, {false, true}, {true, false}, {true, true}, {true, true}, {}} {
		if e, found := l.Lookup(nil, serialOf(i)); found != want.found || e.Delta != want.byDelta {
			t.Errorf("serial %d: %v %+v", i, found, e)
		}
	}
	if _, found := base.Lookup(nil, serialOf(1)); !found {
		t.Error("the base itself has changed")
	}
	if l.DeltaNumber().Int64() != 12 || l.Number().Int64() != 10 || l.IsDelta() || !d.IsDelta() {
		t.Errorf("numbers %v and %v", l.Number(), l.DeltaNumber())
	}
	if _, ok := d.Covers(ca.Client("c").Cert, nil, false); ok {
		t.Error("a delta alone covers a certificate")
	}

	scope := func(c *pkix.CRLTemplate) { c.DistributionPoints, c.OnlyUserCerts = []string{"http://ca/1"}, true }
	shardTemplate := template(ca, 10)
	scope(&shardTemplate)
	shard := load(t, sign(t, ca, shardTemplate), Options{Issuer: ca.Cert})
	if idp := shard.IDP(); idp == nil || !idp.OnlyUser || idp.FullName[0].URI != "http://ca/1" {
		t.Errorf("issuing distribution point %+v", idp)
	}
	for _, test := range []struct {
		name string
		base *List
		d    *List
		want error
	}{
		{"equal numbers", base, delta(ca, 10, 10, nil), nil},
		{"in place of another", l, delta(ca, 13, 10, nil), nil},
		{"same shard", shard, delta(ca, 11, 10, scope), nil},
		{"no scope", shard, delta(ca, 11, 10, nil), ErrScope},
		{"base too old", base, delta(ca, 12, 11, nil), ErrBase},
		{"delta too old", base, delta(ca, 9, 8, nil), ErrOlder},
		{"no delta", base, base, ErrBase},
		{"no base", d, d, ErrBase},
		{"other issuer", base, delta(other, 12, 9, nil), ErrIssuer},
		{"other key", base, delta(namesake, 12, 9, nil), ErrIssuer},
		{"other scope", base, delta(ca, 12, 9, func(c *pkix.CRLTemplate) { c.OnlyUserCerts = true }), ErrScope},
		{"other shard", base, delta(ca, 12, 9, func(c *pkix.CRLTemplate) { c.DistributionPoints = []string{"http://ca/2"} }), ErrScope},
	} {
		if _, err := test.base.WithDelta(test.d); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
}

// TestReal loads the lists of a public CA and finds the certificate that it revoked for everybody to try.
func TestReal(t *testing.T) {
	dir := filepath.Join(dataDir(t), "crl", "amazon")
	read := func(name string) *x509.Certificate {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	issuers := []*x509.Certificate{read("rootca1.cer"), read("r2m01.cer"), read("r2m02.cer"), read("e2m02.cer"), read("r4m01.cer")}
	revoked := read("revoked.rootca1.demo.amazontrust.com.cer")
	hits := 0
	lists, err := filepath.Glob(filepath.Join(dir, "*.crl"))
	if err != nil || len(lists) < 4 {
		t.Fatal(lists, err)
	}
	for _, name := range lists {
		l := loadFile(t, name, Options{Issuers: issuers, Dir: t.TempDir()})
		points, _, err := pkix.CertificateDistributionPoints(revoked)
		if err != nil {
			t.Fatal(err)
		}
		reasons, covered := l.Covers(revoked, points, false)
		_, found := l.Lookup(nil, pkix.SerialOf(revoked.SerialNumber))
		t.Logf("%s: %d entries of %s, covers %v %v", filepath.Base(name), l.Len(), pkix.DNString(l.IssuerName()), covered, reasons)
		if strings.HasSuffix(name, "r2m02.crl") && l.Len() != 14102 {
			t.Errorf("%d entries", l.Len())
		}
		if covered != found {
			t.Errorf("%s: covers %v, found %v", name, covered, found)
		}
		if found {
			hits++
		}
	}
	if hits != 1 {
		t.Errorf("%d lists name the revoked certificate", hits)
	}
}

// dataDir is where public data for tests is.
func dataDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SEKISHO_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no public data to read at %s; set SEKISHO_DATA", dir)
	}
	return dir
}
