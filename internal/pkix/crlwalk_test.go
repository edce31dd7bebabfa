package pkix_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// bigCRL is a CRL with n entries of 16-octet serials, 35 octets each as on the public web; every third with a reason if
// withReasons.
func bigCRL(tb testing.TB, n int, withReasons bool) []byte {
	tb.Helper()
	ca := testpki.NewCA(tb)
	var entries []byte
	raw := make([]byte, 16)
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		binary.BigEndian.PutUint64(raw[8:], uint64(i)*0x9e3779b97f4a7c15)
		raw[0], raw[1] = 0x05, byte(i)
		e := pkix.CRLEntry{Serial: pkix.SerialFromBytes(raw), At: start.Add(time.Duration(i) * 7 * time.Second)}
		if withReasons && i%3 == 0 {
			e.Reason = pkix.Superseded
		}
		entries = pkix.AppendCRLEntry(entries, e)
	}
	der, err := pkix.SignCRL(template(ca), entries, ca.Key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func parseHeader(tb testing.TB, der []byte) *pkix.CRL {
	tb.Helper()
	c, err := pkix.ParseCRLHeader(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestWalkAllocates(t *testing.T) {
	indirect := testpki.NewCA(t)
	tmpl := template(indirect)
	tmpl.Indirect = true
	var entries []byte
	for i := range 100 {
		e := pkix.CRLEntry{Serial: pkix.SerialOf(big.NewInt(int64(100 * i))), At: at(2000 + i), Reason: pkix.Reasons()[i%7], InvalidityDate: at(1990)}
		if i%10 == 5 {
			e.Issuer = testName(strings.Repeat("x", i*10))
		}
		entries = pkix.AppendCRLEntry(entries, e)
	}
	odd, err := pkix.SignCRL(tmpl, entries, indirect.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{"plain": bigCRL(t, 1000, false), "reasons": bigCRL(t, 1000, true), "all extensions": odd} {
		c := parseHeader(t, der)
		var count, octets, offset int
		n := testing.AllocsPerRun(20, func() {
			count = 0
			if err := c.Walk(func(e pkix.CRLRecord) error {
				count++
				octets += len(e.Serial) + len(e.Issuer)
				offset = e.Offset
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
		if n > 0 || count < 100 || octets == 0 {
			t.Errorf("%s: %v allocations for %d entries", name, n, count)
		}
		if n := testing.AllocsPerRun(20, func() {
			if _, err := c.RecordAt(offset); err != nil {
				t.Error(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations for one entry", name, n)
		}
	}
}

func TestWalkStops(t *testing.T) {
	c := parseHeader(t, bigCRL(t, 10, true))
	stop := errors.New("enough")
	var n int
	err := c.Walk(func(pkix.CRLRecord) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if n != 3 || !errors.Is(err, stop) {
		t.Errorf("%d entries, %v", n, err)
	}
}

// TestRecordAtAnywhere: no offset makes RecordAt read beyond the entries or panic, and those of Walk alone hit the serial numbers.
func TestRecordAtAnywhere(t *testing.T) {
	c := parseHeader(t, bigCRL(t, 20, true))
	want := make(map[int][]byte)
	for _, e := range records(t, c) {
		want[e.Offset] = e.Serial
	}
	for offset := -5; offset < len(c.Raw)+5; offset++ {
		e, err := c.RecordAt(offset)
		if serial, ok := want[offset]; ok != (err == nil) || !bytes.Equal(serial, e.Serial) {
			t.Errorf("offset %d: %x, %v", offset, e.Serial, err)
		}
	}
}

func TestWalkNegativeSerials(t *testing.T) {
	negative := goodEntry()
	negative.serial = tlv(0x02, []byte{0xff})
	other := goodEntry()
	other.serial = tlv(0x02, []byte{0, 0xff})
	zero := goodEntry()
	zero.serial = tlv(0x02, []byte{0})
	der := edited(func(p *crlParts) { p.entries = slices.Concat(zero.der(), negative.der(), other.der()) })
	c := parseHeader(t, der)
	wantError(t, c.Walk(func(pkix.CRLRecord) error { return nil }), "the serial number is negative")
	c.SkipNegative = true
	got := records(t, c)
	if len(got) != 2 || !bytes.Equal(got[0].Serial, []byte{0}) || !bytes.Equal(got[1].Serial, []byte{0xff}) {
		t.Errorf("%+v", got)
	}
	_, err := c.RecordAt(got[0].Offset + len(zero.der()))
	wantError(t, err, "the serial number is negative")
}

// TestWalkIssuers: certificateIssuer holds until the next one (RFC 5280, Section 5.3.3), also where the entry that has it
// is passed over.
func TestWalkIssuers(t *testing.T) {
	a, b := testName("a"), testName("b")
	issuer := func(name []byte, more ...[]byte) []byte {
		return tlv(0x30, extension(ce(29), true, tlv(0x30, slices.Concat(tlv(0x86, []byte("u")), tlv(0xa4, name), bytes.Join(more, nil)))))
	}
	e := make([]entryParts, 6)
	for i := range e {
		e[i] = goodEntry()
	}
	e[1].extensions, e[3].extensions, e[5].extensions = issuer(a), issuer(b, tlv(0x82, []byte("dns"))), issuer(a)
	e[3].serial = tlv(0x02, []byte{0xff})
	p := goodCRL()
	p.entries = nil
	for _, e := range e {
		p.entries = append(p.entries, e.der()...)
	}
	p.extensions = crlExtensions(extension(ce(28), true, tlv(0x30, tlv(0x84, []byte{0xff}))))
	c := parseHeader(t, p.der())
	c.SkipNegative = true
	want := [][]byte{nil, a, a, b, a}
	for i, got := range records(t, c) {
		if !bytes.Equal(got.Issuer, want[i]) || (got.Issuer == nil) != (want[i] == nil) {
			t.Errorf("entry %d is of %s, want %s", i, pkix.DNString(got.Issuer), pkix.DNString(want[i]))
		}
	}
}

// TestWalkSpeed: a million entries in well under the time that hashing them takes twice.
func TestWalkSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("a million entries take two seconds to write; run without -short")
	}
	c := parseHeader(t, bigCRL(t, 1_000_000, false))
	best := time.Hour
	for range 10 {
		n, begin := 0, time.Now()
		if err := c.Walk(func(pkix.CRLRecord) error { n++; return nil }); err != nil || n != 1_000_000 {
			t.Fatal(n, err)
		}
		best = min(best, time.Since(begin))
	}
	t.Logf("%d bytes in %v", len(c.Raw), best)
	if raceEnabled {
		t.Log("the time is not judged: the race detector looks at every octet that is read")
		return
	}
	if best > 200*time.Millisecond { // 23 ms on an idle machine; neighbours cost
		t.Errorf("a million entries take %v", best)
	}
}

func BenchmarkWalk(b *testing.B) {
	for name, reasons := range map[string]bool{"plain": false, "reasons": true} {
		c := parseHeader(b, bigCRL(b, 1_000_000, reasons))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(c.Raw)))
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				if err := c.Walk(func(pkix.CRLRecord) error { n++; return nil }); err != nil || n != 1_000_000 {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// TestSignCRLOf: a list in parts is the list in one, and its entries are found again where they were put.
func TestSignCRLOf(t *testing.T) {
	ca := testpki.NewCA(t, testpki.KeyType(pkix.Ed25519)) // its signatures are the same each time
	tmpl := template(ca)
	for _, sizes := range [][]int{{}, {0}, {1}, {3, 0, 2}, {700, 1}, {0, 2000, 3000}} {
		var all []byte
		var parts [][]byte
		n := int64(0)
		for _, size := range sizes {
			var part []byte
			for range size {
				n++
				part = pkix.AppendCRLEntry(part, pkix.CRLEntry{Serial: pkix.SerialOf(big.NewInt(n)), At: at(2026), Reason: pkix.Superseded})
			}
			all, parts = append(all, part...), append(parts, part)
		}
		whole, err := pkix.SignCRL(tmpl, all, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := pkix.SignCRLOf(tmpl, ca.Key, parts...)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(whole, pieces) {
			t.Errorf("%v: another list", sizes)
		}
		c := parseHeader(t, pieces)
		if !bytes.Equal(c.Entries(), all) || c.EntriesSize() != len(all) {
			t.Errorf("%v: %d octets of entries, want %d", sizes, len(c.Entries()), len(all))
		}
		if err := c.CheckSignature(ca.Cert.PublicKey); err != nil {
			t.Errorf("%v: %v", sizes, err)
		}
	}
}
