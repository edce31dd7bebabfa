// Package journal is a signed, append-only file that tells of every revocation, beside the database that has them too.
// A database that was restored from a backup is older than the journal; what is missing is read from here, so that
// nothing that was revoked comes back and no CRL number is given twice.
//
//	header │ magic, version, journal id (16), epoch (8), Ed25519 public key (32), signature (64)
//	block  │ magic, length (4), number of its first record (8), count (4), SHA-256 of what comes before (32), CRC-32 of these (4), records, signature (64)
//	block  │ …
//
// A block is one commit of the database: all of its records count or none. Each signature covers the journal's id, so
// that a block fits into one journal only, and each block names the hash of the block before it, the first one that of
// the header. A record's number is one more than that of the record before it. Times decide nothing.
//
// The file is written by one goroutine. It refuses whatever does not verify, with the file, the offset and the number
// where reading stopped; only a block that a crash left half-written, at the very end, is told apart ([ErrTorn]).
//
//	f, err := journal.Open(journal.Config{Path: path, Signer: key})
//	if err != nil {
//		return err
//	}
//	p, err := f.Prepare(records)
//	…
//	err = f.Write(p) // on disk; f.Undo() takes it back
package journal

import "errors"

// Errors of the journal, to branch on.
var (
	// ErrMissing: there is no file.
	ErrMissing = errors.New("the revocation journal is missing")
	// ErrDamaged: something in the file does not verify.
	ErrDamaged = errors.New("the revocation journal is damaged")
	// ErrForeign: the file is another journal than the one that is wanted, or was signed by another key.
	ErrForeign = errors.New("this is another revocation journal")
	// ErrBehind: the file ends before the place that is known to have been written.
	ErrBehind = errors.New("the revocation journal is older than the database")
	// ErrTorn: the file ends in a block that was not written to its end.
	ErrTorn = errors.New("the last block is not whole")
	// ErrTooLarge: the records of one commit do not fit into a block.
	ErrTooLarge = errors.New("too many changes in one commit")
)

// Bounds of what is written and read.
const (
	MaxBlockBytes  = 64 << 20
	MaxRecordBytes = 256 << 10
	MaxTextBytes   = 4096 // of one text of a record
)
