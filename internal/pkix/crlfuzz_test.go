package pkix_test

import (
	"bytes"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// FuzzParseCRL: header, Walk and RecordAt agree with one another and with crypto/x509, whatever they are given, and read
// nothing beyond the CRL.
func FuzzParseCRL(f *testing.F) {
	f.Add(goodCRL().der())
	for _, broken := range []map[string]brokenCRL{brokenHeaders(), brokenEntries()} {
		for _, b := range broken {
			if len(b.der) < 1<<16 {
				f.Add(b.der)
			}
		}
	}
	f.Add(bigCRL(f, 5, true))
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := pkix.ParseCRLHeader(der[:len(der):len(der)])
		if err != nil {
			if c != nil || !errors.Is(err, pkix.ErrCRLMalformed) && !errors.Is(err, pkix.ErrCRLCritical) {
				t.Fatal(c, err)
			}
			return
		}
		if c.Version != 1 && c.Version != 2 || len(c.Raw) != len(der) || c.ThisUpdate.IsZero() && c.ThisUpdate.Year() != 1 || c.EntriesSize() > len(der) {
			t.Fatalf("%+v", c)
		}
		before := 0
		err = c.Walk(func(e pkix.CRLRecord) error {
			if e.Offset <= before || len(e.Serial) == 0 || len(e.Serial) > 1 && e.Serial[0] == 0 || e.Reason < 0 || e.Reason > 127 ||
				!bytes.Contains(der[e.Offset:], e.Serial) || e.Issuer != nil && (c.IDP == nil || !c.IDP.Indirect) {
				t.Fatalf("%+v after %d", e, before)
			}
			before = e.Offset
			again, err := c.RecordAt(e.Offset)
			if err != nil || !bytes.Equal(again.Serial, e.Serial) || again.At != e.At || again.Reason != e.Reason || again.InvalidityDate != e.InvalidityDate {
				t.Fatalf("RecordAt: %v, %+v, Walk: %+v", err, again, e)
			}
			return nil
		})
		if err != nil && !errors.Is(err, pkix.ErrCRLMalformed) && !errors.Is(err, pkix.ErrCRLCritical) {
			t.Fatal(err)
		}
		for offset := range len(der) {
			_, _ = c.RecordAt(offset)
		}
		compareWithX509(t, "fuzzed", der)
	})
}

// FuzzCRLRoundTrip: what SignCRL writes, ParseCRLHeader and Walk read; what it refuses is a contradiction.
func FuzzCRLRoundTrip(f *testing.F) {
	f.Add([]byte{0x80}, int64(0), 1, uint16(0), byte(0))
	f.Add([]byte{0x7f, 1}, int64(-1<<40), 8, uint16(6), byte(0x31))
	f.Add([]byte{}, int64(1<<37), 10, uint16(0x1fe), byte(0x0f))
	ca := testpki.NewCA(f)
	f.Fuzz(func(t *testing.T, raw []byte, sec int64, reason int, flags uint16, switches byte) {
		on := func(bit int) bool { return switches&(1<<bit) != 0 }
		moment := time.Unix(sec%(1<<37), 0).UTC()
		if moment.Year() < 0 || moment.Year() > 9999 || len(raw) > pkix.MaxSerialBytes || reason < 0 || !pkix.Reason(reason).Known() {
			return
		}
		tmpl := template(ca)
		tmpl.OnlyUserCerts, tmpl.OnlyCACerts, tmpl.OnlyAttributeCerts, tmpl.Indirect = on(0), on(1), on(2), on(3)
		tmpl.OnlySomeReasons = pkix.ReasonFlags(flags)
		if on(4) {
			tmpl.BaseNumber = big.NewInt(1)
		}
		e := pkix.CRLEntry{Serial: pkix.SerialFromBytes(raw), At: moment, Reason: pkix.Reason(reason)}
		if on(5) {
			e.Issuer = testName("other")
		}
		if on(6) {
			e.InvalidityDate = moment
		}
		der, err := pkix.SignCRL(tmpl, pkix.AppendCRLEntry(nil, e), ca.Key)
		kinds := 0
		for _, one := range []bool{on(0), on(1), on(2)} {
			if one {
				kinds++
			}
		}
		flag := pkix.ReasonFlag(e.Reason)
		contradiction := kinds > 1 || tmpl.OnlySomeReasons&^pkix.AllReasons != 0 || e.Issuer != nil && !tmpl.Indirect ||
			e.Reason == pkix.RemoveFromCRL && tmpl.BaseNumber == nil || flags != 0 && flag&^tmpl.OnlySomeReasons != 0
		if contradiction || err != nil {
			if !contradiction || err == nil {
				t.Fatalf("contradiction %v, %v", contradiction, err)
			}
			return
		}
		c := parseHeader(t, der)
		got := records(t, c)
		invalidity := e.InvalidityDate
		if len(got) != 1 || !bytes.Equal(got[0].Serial, e.Serial.Bytes()) || !got[0].At.Equal(moment) || got[0].Reason != e.Reason ||
			!bytes.Equal(got[0].Issuer, e.Issuer) || !got[0].InvalidityDate.Equal(invalidity) {
			t.Fatalf("%+v, want %+v", got, e)
		}
		idp := pkix.IssuingDistributionPoint{}
		if c.IDP != nil {
			idp = *c.IDP
		}
		if !slices.Equal([]bool{idp.OnlyUser, idp.OnlyCA, idp.OnlyAttribute, idp.Indirect}, []bool{on(0), on(1), on(2), on(3)}) || idp.OnlySomeReasons != tmpl.OnlySomeReasons {
			t.Fatalf("%+v, want %+v", idp, tmpl)
		}
		compareWithX509(t, "written", der)
	})
}
