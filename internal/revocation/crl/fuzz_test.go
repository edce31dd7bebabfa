package crl

import (
	"bytes"
	"testing"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// FuzzIndex builds the index of whatever can be walked through, and compares it with a map of what the walk saw.
func FuzzIndex(f *testing.F) {
	ca, other := testpki.NewCA(f), testpki.NewCA(f, testpki.Name("other"))
	f.Add([]byte{})
	f.Add(sign(f, ca, template(ca, 1)))
	f.Add(sign(f, ca, template(ca, 1), pkix.CRLEntry{Serial: serialOf(1)}, pkix.CRLEntry{Serial: serialOf(2), Reason: pkix.Superseded}, pkix.CRLEntry{Serial: serialOf(1)}))
	f.Add(many(f, ca, template(ca, 1), 100))
	indirect := template(ca, 1)
	indirect.Indirect = true
	f.Add(sign(f, ca, indirect, pkix.CRLEntry{Serial: serialOf(1)}, pkix.CRLEntry{Serial: serialOf(1), Issuer: other.Cert.RawSubject}, pkix.CRLEntry{Serial: serialOf(2)}))
	f.Fuzz(func(t *testing.T, der []byte) {
		if _, err := Load(bytes.NewReader(der), Options{Issuer: ca.Cert, MaxBytes: 1 << 20}); err == nil {
			_, err = Load(bytes.NewReader(der), Options{Issuer: other.Cert})
			if err == nil {
				t.Fatal("two CAs have signed one list")
			}
		}
		c, err := pkix.ParseCRLHeader(der)
		if err != nil {
			return
		}
		c.SkipNegative = true
		p := &part{body: &body{der: der}, crl: c}
		p.describe()
		if p.build() != nil {
			return
		}
		type certificate struct{ issuer, serial string }
		seen := make(map[certificate]bool)
		entries := 0
		if err := c.Walk(func(e pkix.CRLRecord) error {
			entries++
			if e.Issuer == nil {
				e.Issuer = p.name
			}
			seen[certificate{string(e.Issuer), string(e.Serial)}] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		l := &List{base: p}
		for s := range seen {
			if _, found := l.Lookup([]byte(s.issuer), pkix.SerialFromBytes([]byte(s.serial))); !found {
				t.Errorf("serial %x of %x is not found", s.serial, s.issuer)
			}
		}
		if !p.indirect() && l.Len() != len(seen) || l.Len() > len(seen) || l.Len()+l.Duplicates() != entries {
			t.Errorf("%d entries and %d duplicates of %d, %d of them different", l.Len(), l.Duplicates(), entries, len(seen))
		}
		if size := p.index.size; size > len(der)/smallestEntry*2+2*group {
			t.Errorf("%d slots for %d bytes", size, len(der))
		}
	})
}
