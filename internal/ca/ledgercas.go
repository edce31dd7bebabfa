package ca

import (
	"math/big"
	"time"

	"sekisho/internal/pkix"
)

// CAChange is what happens to the CAs in one transaction: a rotation, an import, trust that ends.
type CAChange struct {
	Add []CARecord
	// Update replaces what may change of CAs that are there, by their ids: Retired, Untrusted, Extra, Signer and List.
	Update []CARecord
	// Floor is what the CRL numbers of every shard of these CAs go on above, where they have not passed it; 0: none.
	Floor int64
	// Certificates are stored with the CAs: what a CRL that came with an import says is revoked.
	Certificates []Certificate
}

// CACount is how many certificates of a CA there are. Those that have ended are among the active ones: expiry is no state.
type CACount struct {
	Active, Revoked int
}

// ImportOutcome is what became of a certificate that was imported.
type ImportOutcome string

// The outcomes.
const (
	ImportStored    ImportOutcome = "imported"  // it was not known
	ImportCompleted ImportOutcome = "completed" // its serial number was known, from a CRL or a journal; its state stays
	ImportKnown     ImportOutcome = "known"     // it was there already; nothing changed
	// ImportBlocked: it was not known, and its key is blocked after a compromise, so that it is stored as revoked.
	ImportBlocked ImportOutcome = "revoked"
)

// Imported is the row of a certificate after its import.
type Imported struct {
	Row     Certificate
	Outcome ImportOutcome
	SameKey []Certificate // others that were revoked with it: its key is compromised, and was not known before
}

// ListImport is a CRL of another system, read.
type ListImport struct {
	CAID string
	List List // zero: a part of a list, whose last part comes with it
	// Rows are the entries as rows that are stored where their serial number is not known. Where it is, status, reason and
	// dates are those of Rows, as far as a transition leads there; a revocation that is final here stays.
	Rows []Certificate
	// Listed, when not nil, is every serial number of the list: certificates on hold that are not in it become active.
	Listed map[pkix.Serial]bool
	At     time.Time
}

// NewerThan reports whether a list comes after another. RFC 5280, Section 5.2.3: of two lists the higher number is the newer
// one; lists without numbers are told apart by when they were made. A list without a number after one with is not newer:
// nobody takes numbers away.
func (l List) NewerThan(old List) bool {
	had, ok := new(big.Int).SetString(old.Number, 10)
	if !ok {
		return l.ThisUpdate.After(old.ThisUpdate)
	}
	number, ok := new(big.Int).SetString(l.Number, 10)
	return ok && number.Cmp(had) > 0
}
