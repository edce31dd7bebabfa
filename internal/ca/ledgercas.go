package ca

import "time"

// CAChange is what happens to the CAs in one transaction: a rotation, an import.
type CAChange struct {
	Add []CARecord
	// Update replaces what may change of CAs that are there, by their ids: Retired, Untrusted, Extra, Signer and List.
	Update []CARecord
	// Floor is what the CRL numbers of every shard of the added CAs go on above; 0: they begin at 1.
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
}

// ListImport is a CRL of another system, read.
type ListImport struct {
	CAID string
	List List
	// Rows are the entries as rows that are stored where their serial number is not known. Where it is, status, reason and
	// dates are those of Rows, as far as a transition leads there; a revocation that is final here stays.
	Rows []Certificate
	// Reactivate: certificates on hold that are not in Rows become active.
	Reactivate bool
	At         time.Time
}
