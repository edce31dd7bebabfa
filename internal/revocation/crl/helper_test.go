package crl

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// base is a moment that the tests' lists are made at: whole seconds, as the lists have them.
func moment() time.Time { return time.Now().UTC().Truncate(time.Second) }

// serialOf is the i-th serial number of the tests: 16 octets that look random.
func serialOf(i int) pkix.Serial {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	sum[0] = sum[0]&0x7f | 0x40
	return pkix.SerialFromBytes(sum[:16])
}

// template is a list of the CA that is good for an hour.
func template(ca *testpki.CA, number int64) pkix.CRLTemplate {
	now := moment()
	return pkix.CRLTemplate{
		Issuer: ca.Cert, Number: big.NewInt(number), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
	}
}

func sign(t testing.TB, ca *testpki.CA, c pkix.CRLTemplate, entries ...pkix.CRLEntry) []byte {
	t.Helper()
	var raw []byte
	for _, e := range entries {
		if e.At.IsZero() {
			e.At = moment()
		}
		raw = pkix.AppendCRLEntry(raw, e)
	}
	der, err := pkix.SignCRL(c, raw, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// many signs a list with the serial numbers 0 to n-1 of the tests.
func many(t testing.TB, ca *testpki.CA, c pkix.CRLTemplate, n int) []byte {
	t.Helper()
	raw := make([]byte, 0, 36*n)
	at := moment()
	for i := range n {
		raw = pkix.AppendCRLEntry(raw, pkix.CRLEntry{Serial: serialOf(i), At: at})
	}
	der, err := pkix.SignCRL(c, raw, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func load(t testing.TB, der []byte, o Options) *List {
	t.Helper()
	l, err := Load(bytes.NewReader(der), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
