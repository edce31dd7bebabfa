package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed archive/*.sql
var archiveMigrations embed.FS

const archiveName = "archive.db"

// Keys of meta, in the ledger and in the archive: which two belong together, and the last batch of certificates that was
// moved. The archive is never behind the ledger, since a batch leaves the ledger after it is durable in the archive.
const (
	archiveID    = "archive_id"
	archiveBatch = "archive_batch"
)

// archive is the second database. Its file stands for itself: numbers of CAs and issuers are those of the ledger, and
// what they stand for is copied along.
type archive struct {
	*reader
	db      *sql.DB
	columns []string // of certificates, the ledger's order

	writing sync.Mutex // held by who writes
}

// archivePath is where the archive of a ledger is.
func archivePath(ledger string) string { return filepath.Join(filepath.Dir(ledger), archiveName) }

// archived is the reader of the archive; nil while there is none.
func (s *Store) archived() *reader {
	if a := s.archive.Load(); a != nil {
		return a.reader
	}
	return nil
}

// openArchive opens the archive that the ledger knows of, if it does.
func (s *Store) openArchive(ctx context.Context, log *slog.Logger) error {
	id, _, err := s.Meta(ctx, archiveID)
	if err != nil {
		return err
	}
	batch, err := metaNumber(ctx, s.read, archiveBatch)
	if err != nil {
		return err
	}
	path := archivePath(s.path)
	_, err = os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && batch == 0:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("store: %s is missing: %w: certificates were moved into it; restore it from the backup that %s is of", path, ErrArchive, s.path)
	case err != nil:
		return fmt.Errorf("store: %w", err)
	}
	a, err := newArchive(ctx, path, s.read, log)
	if err != nil {
		return err
	}
	if err := a.belongs(ctx, id, batch); err != nil {
		return errors.Join(err, a.close())
	}
	s.archive.Store(a)
	return nil
}

// belongs compares what archive and ledger say of one another.
func (a *archive) belongs(ctx context.Context, id string, batch int64) error {
	var own string
	err := a.get(ctx, `SELECT value FROM meta WHERE key = ?`, []any{archiveID}, &own)
	if errors.Is(err, sql.ErrNoRows) && batch == 0 {
		return nil // made and not used yet
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if own != id {
		return fmt.Errorf("store: %s: %w: it was made beside another one; move it away, or restore both from one backup", a.path, ErrArchive)
	}
	has, err := metaNumber(ctx, a.reader, archiveBatch)
	if err != nil {
		return err
	}
	if has < batch {
		return fmt.Errorf("store: %s: %w: it ends at batch %d, and the ledger has moved certificates up to batch %d into it; restore a later copy of it",
			a.path, ErrArchive, has, batch)
	}
	return nil
}

func metaNumber(ctx context.Context, r *reader, key string) (n int64, err error) {
	err = r.get(ctx, `SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?`, []any{key}, &n)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return n, err
}

// newArchive opens or makes the file and gives its table the columns that the ledger's has.
func newArchive(ctx context.Context, path string, ledger *reader, log *slog.Logger) (*archive, error) {
	if err := createFile(path); err != nil {
		return nil, err
	}
	db, err := openWriter(path)
	if err != nil {
		return nil, err
	}
	provider, err := newProviderOf(db, archiveMigrations, "archive")
	if err == nil {
		err = migrateWith(ctx, provider, path, log)
	}
	var columns []string
	if err == nil {
		columns, err = alignColumns(ctx, db, ledger)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(explain(path, err), db.Close())
	}
	read, err := openReader(path, 0)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &archive{reader: read, db: db, columns: columns}, nil
}

// column is one of a table, as ALTER TABLE wants it.
type column struct{ name, definition string }

const tableColumns = `SELECT name, type || CASE WHEN "notnull" THEN ' NOT NULL' ELSE '' END ||
	CASE WHEN dflt_value IS NULL THEN '' ELSE ' DEFAULT ' || dflt_value END FROM pragma_table_info('certificates') ORDER BY cid`

func scanColumn(scan scan) (c column, err error) {
	err = scan(&c.name, &c.definition)
	return c, err
}

// alignColumns adds the columns that a migration of the ledger has added, and returns all names.
func alignColumns(ctx context.Context, db *sql.DB, ledger *reader) (names []string, err error) {
	want, err := collect(ctx, ledger, tableColumns, nil, scanColumn)
	if err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, tableColumns)
	if err != nil {
		return nil, err
	}
	var have []string
	err = eachRow(rows, func(scan scan) error {
		c, err := scanColumn(scan)
		have = append(have, c.name)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, c := range want {
		names = append(names, c.name)
		if slices.Contains(have, c.name) {
			continue
		}
		if _, err := db.ExecContext(ctx, `ALTER TABLE certificates ADD COLUMN `+c.name+` `+c.definition); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// insertSQL stores a row of all columns.
func (a *archive) insertSQL() string {
	return `INSERT INTO certificates (` + strings.Join(a.columns, ", ") + `) VALUES (?` + strings.Repeat(", ?", len(a.columns)-1) + `)`
}

// selectSQL reads rows of all columns.
func (a *archive) selectSQL(where string) string {
	return `SELECT ` + strings.Join(a.columns, ", ") + ` FROM certificates c ` + where
}

// wholeRow is a row of certificates with every column, whatever they are.
type wholeRow struct {
	seq, status, crlNumber int64
	der                    []byte
	values                 []any
}

// scanWhole reads a row that selectSQL selected.
func (a *archive) scanWhole(scan scan) (wholeRow, error) {
	r := wholeRow{values: make([]any, len(a.columns))}
	dest := make([]any, len(r.values))
	for i := range dest {
		dest[i] = &r.values[i]
	}
	if err := scan(dest...); err != nil {
		return r, err
	}
	for i, name := range a.columns {
		var ok bool
		switch name {
		case "seq":
			r.seq, ok = r.values[i].(int64)
		case "status":
			r.status, ok = r.values[i].(int64)
		case "crl_number":
			r.crlNumber, ok = r.values[i].(int64)
		case "der":
			r.der, ok = r.values[i].([]byte)
		default:
			continue
		}
		if !ok {
			return r, fmt.Errorf("store: column %s of a certificate is %T", name, r.values[i])
		}
	}
	return r, nil
}

// inTx runs fn in one durable transaction of the archive.
func (a *archive) inTx(ctx context.Context, fn func(*sql.Tx) error) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return explain(a.path, err)
	}
	if err := fn(tx); err != nil {
		return errors.Join(explain(a.path, err), ignoreDone(tx.Rollback()))
	}
	return explain(a.path, tx.Commit())
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// add stores rows as a batch with a number, each in place of an older copy of itself, and what their numbers stand for.
func (a *archive) add(ctx context.Context, id string, batch int64, rows []wholeRow, known refs) error {
	return a.inTx(ctx, func(tx *sql.Tx) error {
		for _, m := range [][2]string{{archiveID, id}, {archiveBatch, strconv.FormatInt(batch, 10)}} {
			_, err := tx.ExecContext(ctx, `INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, m[0], m[1])
			if err != nil {
				return err
			}
		}
		if err := known.copyTo(ctx, tx); err != nil {
			return err
		}
		insert := a.insertSQL()
		for _, r := range rows {
			if err := remove(ctx, tx, r); err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, insert, r.values...); err != nil {
				return err
			}
			for _, name := range namesOf(r.der) {
				if _, err := tx.ExecContext(ctx, `INSERT INTO certificate_names (name, seq) VALUES (?, ?)`, name, r.seq); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// remove takes rows out of the archive that came back to the ledger. One that has changed there and was archived again
// meanwhile is nowhere else, and stays.
func (a *archive) remove(ctx context.Context, rows []wholeRow) error {
	return a.inTx(ctx, func(tx *sql.Tx) error {
		for _, r := range rows {
			var same bool
			err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM certificates WHERE seq = ? AND status = ? AND crl_number = ?)`,
				r.seq, r.status, r.crlNumber).Scan(&same)
			if err == nil && same {
				err = remove(ctx, tx, r)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func remove(ctx context.Context, tx *sql.Tx, r wholeRow) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM certificates WHERE seq = ?`, r.seq); err != nil {
		return err
	}
	for _, name := range namesOf(r.der) {
		if _, err := tx.ExecContext(ctx, `DELETE FROM certificate_names WHERE name = ? AND seq = ?`, name, r.seq); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) closeArchive() error {
	if a := s.archive.Load(); a != nil {
		return a.close()
	}
	return nil
}

func (a *archive) close() error { return errors.Join(a.reader.close(), a.db.Close()) }

// copyTo stores what the small integers in rows stand for.
func (r refs) copyTo(ctx context.Context, tx *sql.Tx) error {
	for ref, id := range r.cas {
		if _, err := tx.ExecContext(ctx, `INSERT INTO cas (ref, id) VALUES (?, ?) ON CONFLICT (ref) DO UPDATE SET id = excluded.id`, ref, id); err != nil {
			return err
		}
	}
	for ref, key := range r.issuers {
		if _, err := tx.ExecContext(ctx, `INSERT INTO issuers (ref, key) VALUES (?, ?) ON CONFLICT (ref) DO UPDATE SET key = excluded.key`, ref, key); err != nil {
			return err
		}
	}
	return nil
}
