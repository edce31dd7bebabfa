package ca_test

import (
	"errors"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestInvalidityDateBeforeYearZero: a date that no list can write is refused, for with it the shard's list could not be
// signed any more.
func TestInvalidityDateBeforeYearZero(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("laptop")
	since, err := time.Parse(time.RFC3339, "0000-01-01T00:00:00+01:00") // in UTC it is in the year before
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Revoke(t.Context(), ca.RevokeRequest{ID: row.ID, Actor: "test", Reason: pkix.KeyCompromise, InvalidityDate: since})
	if _, invalid := errors.AsType[*ca.RequestError](err); !invalid {
		t.Errorf("%v, want a RequestError", err)
	}
	if _, err := f.CRL(t.Context(), f.issuingID(), row.Shard); err != nil {
		t.Error(err)
	}
}
