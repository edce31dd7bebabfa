package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
)

// maxFindings bounds the findings that are kept; the rest are counted.
const maxFindings = 100

// Finding is one thing that does not fit.
type Finding struct {
	Where string `json:"where"` // journal, ledger, audit, or the file of a CRL
	What  string `json:"what"`
}

// Report is what [Verify] saw.
type Report struct {
	Journal      string    `json:"journal"` // its file
	JournalID    string    `json:"journal_id"`
	Epoch        uint64    `json:"epoch"`
	Blocks       int       `json:"blocks"`
	Records      uint64    `json:"records"`
	Pending      int       `json:"pending"`      // records that the database has not yet: the next start brings them forward
	Torn         bool      `json:"torn"`         // the journal ends in a block half-written, which the next start cuts off
	Certificates int       `json:"certificates"` // of the journal's that were compared with their rows
	Gone         int       `json:"gone"`         // records of certificates that ended and have no row any more
	AuditRecords int64     `json:"audit_records"`
	CRLs         int       `json:"crls"`        // published lists
	CRLsBehind   int       `json:"crls_behind"` // of them, how many have a lower number than the ledger
	Entries      int       `json:"crl_entries"`
	Findings     []Finding `json:"findings"`
	More         int       `json:"more_findings"` // beyond those
}

func (r *Report) found(where, format string, args ...any) {
	if len(r.Findings) == maxFindings {
		r.More++
		return
	}
	r.Findings = append(r.Findings, Finding{where, fmt.Sprintf(format, args...)})
}

// verifier compares what there is. It changes nothing.
type verifier struct {
	cfg     Config
	path    string
	read    *reader
	conn    *sql.Conn // one view is enough: nobody else has the database open
	archive *archive  // nil: there is none
	report  Report
}

// Verify compares journal, ledger, audit log and, unless lists is empty, the CRLs that were published in that directory
// (CA/SHARD.crl, CA/SHARD-delta.crl, CA.crl). It holds the lock of the data directory and writes nothing. What does not
// fit is in the report; the error is for what could not be looked at.
func Verify(ctx context.Context, cfg Config, lists string) (report Report, err error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return Report{}, fmt.Errorf("store: %w", err)
	}
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); err != nil {
		return Report{}, fmt.Errorf("store: %w", err)
	}
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	db, err := openWriter(path) // the WAL of a process that was killed needs a connection that may write
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := wantSchema(ctx, db, path); err != nil {
		return Report{}, err
	}
	v := &verifier{cfg: cfg, path: path}
	if v.read, err = openReader(path, cfg.Readers); err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, v.read.close()) }()
	if v.conn, err = v.read.streams.Conn(ctx); err != nil {
		return Report{}, explain(path, err)
	}
	defer func() { err = errors.Join(err, v.conn.Close()) }()
	if _, err := v.conn.ExecContext(ctx, `PRAGMA cache_size = -65536`); err != nil { // 64 MiB: a million rows are looked up
		return Report{}, explain(path, err)
	}
	v.report.Findings = []Finding{}
	if err := v.openArchive(ctx); err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, v.closeArchive()) }()
	err = v.all(ctx, lists)
	return v.report, err
}

func (v *verifier) all(ctx context.Context, lists string) error {
	if err := v.verifyAudit(ctx); err != nil {
		return err
	}
	if err := v.verifyJournal(ctx); err != nil || lists == "" {
		return err
	}
	return v.verifyLists(ctx, lists)
}

// wantSchema refuses a database of another version: only a start may bring it up to date.
func wantSchema(ctx context.Context, db *sql.DB, path string) error {
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	have, want, err := provider.GetVersions(ctx)
	if err != nil {
		return explain(path, err)
	}
	if have != want {
		return fmt.Errorf("store: %s has schema number %d, this program verifies %d; start the server of this version once", path, have, want)
	}
	return nil
}

func (v *verifier) verifyAudit(ctx context.Context) error {
	s := &Store{path: v.path, read: v.read}
	err := auditlog.Verify(func(yield func(auditlog.Record, error) bool) {
		for r, err := range s.audit(ctx) {
			v.report.AuditRecords = max(v.report.AuditRecords, r.Seq)
			if !yield(r, err) {
				return
			}
		}
	})
	if broken, ok := errors.AsType[*auditlog.BreakError](err); ok {
		v.report.found("audit", "%v", broken)
		return nil
	}
	return err
}

// each calls fn for each row of query on the verifier's connection.
func (v *verifier) each(ctx context.Context, query string, args []any, fn func(scan) error) error {
	rows, err := v.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return explain(v.path, err)
	}
	return explain(v.path, eachRow(rows, fn))
}

// nameOf is a row's certificate for people.
func (v *verifier) nameOf(ctx context.Context, seq int64) (string, error) {
	var id string
	var serial []byte
	err := v.conn.QueryRowContext(ctx, `SELECT id, serial FROM certificates WHERE seq = ?`, seq).Scan(&id, &serial)
	if errors.Is(err, sql.ErrNoRows) && v.archive != nil {
		return v.archivedName(ctx, seq)
	}
	return fmt.Sprintf("certificate %s, serial %s", id, pkix.SerialFromBytes(serial)), explain(v.path, err)
}

// bitmap is a set of rows, a bit each.
type bitmap []uint64

func (b *bitmap) set(n int64) {
	for int(n/64) >= len(*b) {
		*b = append(*b, make([]uint64, len(*b)/2+1024)...)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (b *bitmap) drop(n int64) {
	if int(n/64) < len(*b) {
		(*b)[n/64] &^= 1 << (n % 64)
	}
}

func (b *bitmap) has(n int64) bool { return int(n/64) < len(*b) && (*b)[n/64]&(1<<(n%64)) != 0 }
