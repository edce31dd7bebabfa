package store

import (
	"errors"
	"fmt"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors of the store, to branch on.
var (
	// ErrLocked: another process holds the data directory.
	ErrLocked = errors.New("data directory is in use by another process")
	// ErrDiskFull: there was no space to write; nothing was stored. The store works again when there is space.
	ErrDiskFull = errors.New("no space left on the device")
	// ErrNewerSchema: a newer sekisho has written the database.
	ErrNewerSchema = errors.New("database was written by a newer version of sekisho")
	// ErrJournal: database and revocation journal do not belong together, or the journal cannot be read. What was revoked
	// might be forgotten, so the store does not open; see [RenewJournal].
	ErrJournal = errors.New("the database does not go with its revocation journal")
	// ErrJournalFits: there is no reason to begin another journal.
	ErrJournalFits = errors.New("the revocation journal goes with this database")
	// ErrArchive: the archive is missing, older than the ledger, or another ledger's.
	ErrArchive = errors.New("the archive does not belong to the ledger")
	// ErrClosed: the store was closed before the write began; nothing was stored.
	ErrClosed = errors.New("store is closed")
)

// lowSpace is how little free space makes an I/O error a full disk: SQLite reports a shared-memory file or a journal
// that cannot grow as an I/O error, not as SQLITE_FULL.
const lowSpace = 256 << 10

// explain turns what SQLite says into an error that names the file and the remedy. It leaves other errors as they are.
func explain(path string, err error) error {
	serr, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch code := serr.Code() & 0xff; {
	case code == sqlite3.SQLITE_FULL, (code == sqlite3.SQLITE_IOERR || code == sqlite3.SQLITE_CANTOPEN) && spaceIsLow(path):
		return fmt.Errorf("store: %s: %w: free some, nothing was stored (%w)", path, ErrDiskFull, err)
	case code == sqlite3.SQLITE_NOTADB, code == sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("store: %s is damaged or no SQLite database: restore it from a backup: %w", path, err)
	}
	return fmt.Errorf("store: %s: %w", path, err)
}

// isUnique reports whether err is the violation of a UNIQUE or PRIMARY KEY constraint.
func isUnique(err error) bool {
	serr, ok := errors.AsType[*sqlite.Error](err)
	return ok && (serr.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || serr.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

func spaceIsLow(path string) bool {
	var fs syscall.Statfs_t
	if syscall.Statfs(path, &fs) != nil {
		return false
	}
	return fs.Bavail*uint64(fs.Bsize) < lowSpace
}
