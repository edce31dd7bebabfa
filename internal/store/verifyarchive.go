package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"sekisho/internal/pkix"
)

// selectLedgerRows and selectArchivedRows are the columns of a ledgerRow behind the id; the argument is a JSON list of ids.
// Blocked keys are in the ledger, whose own rows are asked about them.
const (
	ledgerColumns    = `SELECT id, seq, status, reason, revoked_at, crl_number, invalidity, serial, shard, key_hash, `
	ledgerRows       = ` FROM certificates WHERE id IN (SELECT value FROM json_each(?))`
	selectLedgerRows = ledgerColumns + `EXISTS (SELECT 1 FROM blocked_keys b WHERE b.key_hash = certificates.key_hash)` + ledgerRows

	selectArchivedRows = ledgerColumns + `TRUE` + ledgerRows
)

// openArchive opens the archive for the comparison, when there is one, and says so when it does not belong to the ledger.
func (v *verifier) openArchive(ctx context.Context) error {
	var id sql.NullString
	var batch int64
	err := v.conn.QueryRowContext(ctx, `SELECT (SELECT value FROM meta WHERE key = ?), coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?), 0)`,
		archiveID, archiveBatch).Scan(&id, &batch)
	if err != nil {
		return explain(v.path, err)
	}
	path := archivePath(v.path)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if batch > 0 {
			v.report.found("archive", "%s is missing, and certificates were moved into it", path)
		}
		return nil
	}
	db, err := openWriter(path) // as for the ledger: the WAL of a process that was killed
	if err != nil {
		return err
	}
	read, err := openReader(path, 0)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	v.archive = &archive{reader: read, db: db}
	if err := v.archive.belongs(ctx, id.String, batch); errors.Is(err, ErrArchive) {
		v.report.found("archive", "%v", err)
	} else if err != nil {
		return errors.Join(err, v.closeArchive())
	}
	return nil
}

func (v *verifier) closeArchive() error {
	if v.archive == nil {
		return nil
	}
	return v.archive.close()
}

// lookUpArchived adds the rows of certificates that the ledger has not; numbers of rows are the same in both.
func (v *verifier) lookUpArchived(ctx context.Context, list string, rows map[string]ledgerRow) error {
	if v.archive == nil {
		return nil
	}
	return v.archive.each(ctx, selectArchivedRows, []any{list}, func(scan scan) error {
		id, row, err := scanLedgerRow(scan)
		if _, known := rows[id]; !known && err == nil {
			rows[id] = row
		}
		return err
	})
}

func scanLedgerRow(scan scan) (id string, row ledgerRow, err error) {
	var serial, key sql.RawBytes
	err = scan(&id, &row.seq, &row.status, &row.reason, &row.revoked, &row.crl, &row.invalidity, &serial, &row.shard, &key, &row.blocked)
	row.serial = pkix.SerialFromBytes(serial)
	copy(row.key[:], key)
	return id, row, err
}

// archivedName is nameOf for a certificate of the archive.
func (v *verifier) archivedName(ctx context.Context, seq int64) (string, error) {
	var id string
	var serial []byte
	err := v.archive.get(ctx, `SELECT id, serial FROM certificates WHERE seq = ?`, []any{seq}, &id, &serial)
	return fmt.Sprintf("archived certificate %s, serial %s", id, pkix.SerialFromBytes(serial)), err
}
