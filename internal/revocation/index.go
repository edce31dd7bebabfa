// Package revocation answers one question: is this certificate revoked now, and says who.
//
// The [Index] is memory only: a question costs an atomic load when nothing changed since the asker last looked
// ([Index.Epoch]) and one look-up when something did. Nothing here fetches or blocks. Sources put what they know into
// it with [Index.Load] and [Index.Apply]; today the source is our own CA's ledger.
package revocation

import (
	"time"

	"sekisho/internal/pkix"
)

// Entry is one revoked certificate.
type Entry struct {
	ID     pkix.CertID
	Reason pkix.Reason
	At     time.Time
}

// Change is one step in the life of a certificate: Revoked true when it was revoked or put on hold, false when it was
// reactivated.
type Change struct {
	Entry
	Revoked bool
}
