package ca_test

import (
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sekisho/internal/pkix"
)

// TestClockSetBack: a clock that ran years ahead and is set right must not cost a revoked certificate its entry, nor leave
// relying parties with a CRL or an OCSP signer of the future.
func TestClockSetBack(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x") // 30 days
	f.revoke(row.ID, pkix.KeyCompromise)
	f.ask(row)
	for range 3 { // the CRL is renewed in the wrong time too, until the entry has left
		f.clock.Add(int64(365 * 24 * time.Hour))
		f.ask(row)
		if f.crl(); f.Metrics().CRLNumber == 0 {
			t.Fatal("no CRL")
		}
	}
	ahead := f.crl()
	if entry(t, ahead, row) != nil {
		t.Fatal("the entry did not leave, so the test tests nothing")
	}
	f.clock.Store(0)
	now := time.Now()
	list := f.crl()
	if list.ThisUpdate.After(now) {
		t.Errorf("thisUpdate %v is in the future", list.ThisUpdate)
	}
	if list.Number.Cmp(ahead.Number) <= 0 {
		t.Errorf("CRL number %v after %v", list.Number, ahead.Number)
	}
	if entry(t, list, row) == nil {
		t.Error("a revoked certificate that is valid until next month is not in the CRL")
	}
	parsed, err := ocsp.ParseResponse(f.ask(row).DER, f.Issuing())
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Status != ocsp.Revoked || parsed.ThisUpdate.After(now) || parsed.Certificate.NotBefore.After(now) {
		t.Errorf("status %d at %v by a signer valid from %v", parsed.Status, parsed.ThisUpdate, parsed.Certificate.NotBefore)
	}
}
