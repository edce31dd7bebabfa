package storetest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// epoch is the time at which the fixtures happen. It has a fraction finer than a store keeps.
func epoch() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC) }

// CAID is the id of the CA that [AddCA] makes.
const CAID = "0123456789abcdef0123456789abcdef"

// AddCA stores the CA that [Certificate]'s rows belong to.
func AddCA(t testing.TB, s Interface) {
	t.Helper()
	r := ca.CARecord{ID: CAID, Name: "issuing", KeyName: "issuing", DER: []byte("ca"), CreatedOn: epoch(), Shards: 4}
	if err := s.AddCA(t.Context(), r, Entry("ca.create", CAID)); err != nil {
		t.Fatal(err)
	}
}

// Certificate is a row that differs from that of every other n in all that must differ. Its serial has a leading zero
// octet's worth of trouble for even n (high bit set), its shard is 0.
func Certificate(n int) ca.Certificate {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("serial"), uint64(n)))
	serial := sum[:16]
	serial[0] |= byte(0x80 * (1 - n%2))
	der := fmt.Appendf(nil, "certificate %d", n)
	return ca.Certificate{
		ID: fmt.Sprintf("00000000-0000-4000-8000-%012x", n), ZoneID: fmt.Sprintf("%032x", n%2+1), CAID: CAID, Profile: "client",
		IssuerKey: sha256.Sum256([]byte("issuer")), Serial: pkix.SerialFromBytes(serial), DER: der,
		KeyHash: sha256.Sum256(binary.BigEndian.AppendUint64([]byte("key"), uint64(n))), CommonName: fmt.Sprintf("device-%d", n),
		NotBefore: epoch().Add(-time.Hour).Truncate(time.Second), NotAfter: epoch().AddDate(1, 0, 0).Truncate(time.Second),
		IssuedOn: epoch().Add(time.Duration(n) * time.Second).Truncate(time.Microsecond), ValidDays: 365, Status: ca.Active,
		Fingerprint: pkix.FingerprintOf(der),
	}
}

// Entry is an audit entry.
func Entry(action, object string) auditlog.Entry {
	return auditlog.Entry{
		At: epoch(), Actor: "test", Action: action, Object: object, Outcome: "done",
		Detail: map[string]string{"because": "the conformance suite says so"},
	}
}

func record(t testing.TB, s Interface, c ca.Certificate) ca.Certificate {
	t.Helper()
	if err := s.RecordCertificate(t.Context(), c, Entry("certificate.issue", c.ID)); err != nil {
		t.Fatal(err)
	}
	return c
}

func revoke(t testing.TB, s Interface, id string, reason pkix.Reason) ca.Certificate {
	t.Helper()
	c, _, err := s.Apply(t.Context(), ca.Transition{ID: id, To: ca.Revoked, Reason: reason, At: epoch()}, Entry("certificate.revoke", id))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func auditCount(t testing.TB, s Interface) int {
	t.Helper()
	records, err := s.AuditRecords(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(records)
}
