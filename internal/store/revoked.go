package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// errSequenceUsed: the sequence belongs to one view of the database, which ended with the first loop.
var errSequenceUsed = errors.New("store: this sequence of revoked certificates was read already; call Revoked again")

// Revoked implements ca.Ledger. With every shard (-1) of one CA, number is the highest of them. The sequence may be
// ranged over once; it holds its view of the database until then, or until ctx ends.
func (s *Store) Revoked(ctx context.Context, caID string, shard int, since time.Time) (number int64, rows iter.Seq2[ca.RevokedRow, error], err error) {
	return s.stream(ctx, func(view *sql.Tx) (string, []any, int64, error) {
		query, args, number, err := revokedQuery(ctx, view, caID, shard)
		return query, append(args, micros(since)), number, err
	}, func(view *sql.Tx, yield func(ca.RevokedRow, error) bool) {
		s.archivedRevoked(ctx, view, revokedSelection{caID, shard, since}, yield)
	})
}

// Changed implements ca.Ledger. The sequence is as that of Revoked.
func (s *Store) Changed(ctx context.Context, caID string, shard int, base int64) (number int64, rows iter.Seq2[ca.RevokedRow, error], err error) {
	return s.stream(ctx, func(view *sql.Tx) (string, []any, int64, error) {
		// Reading the number fixes the view.
		var ref, number int64
		err := view.QueryRowContext(ctx, `SELECT a.ref, coalesce(n.number, 0) FROM cas a
			LEFT JOIN crl_numbers n ON n.ca = a.ref AND n.shard = ? WHERE a.id = ?`, shard, caID).Scan(&ref, &number)
		if err != nil {
			return "", nil, 0, notFound(err, fmt.Errorf("store: CA %q: %w", caID, ca.ErrNotFound))
		}
		// The condition on 0 is the one of the index.
		return `SELECT issuer, serial, CASE status WHEN 1 THEN reason ELSE ? END, revoked_at, not_after, invalidity
			FROM certificates INDEXED BY certificates_changed
			WHERE ca = ? AND shard = ? AND crl_number > 0 AND crl_number > ?`,
			[]any{int64(pkix.RemoveFromCRL), ref, shard, base}, number, nil
	}, nil)
}

// stream yields the rows of the query that prepare makes of a view, with the number that it read there, and then what
// more yields; nil: nothing.
func (s *Store) stream(ctx context.Context, prepare func(*sql.Tx) (query string, args []any, number int64, err error),
	more func(*sql.Tx, func(ca.RevokedRow, error) bool),
) (number int64, rows iter.Seq2[ca.RevokedRow, error], err error) {
	view, err := s.read.streams.BeginTx(ctx, nil)
	if err != nil {
		return 0, nil, explain(s.path, err)
	}
	query, args, number, err := prepare(view)
	if err != nil {
		return 0, nil, errors.Join(explain(s.path, err), view.Rollback())
	}
	issuers, err := readIssuers(ctx, view)
	if err != nil {
		return 0, nil, errors.Join(explain(s.path, err), view.Rollback())
	}
	used := false
	return number, func(yield func(ca.RevokedRow, error) bool) {
		if used {
			yield(ca.RevokedRow{}, errSequenceUsed)
			return
		}
		used = true
		defer view.Rollback()
		found, err := view.QueryContext(ctx, query, args...)
		if err != nil {
			yield(ca.RevokedRow{}, explain(s.path, err))
			return
		}
		if yieldRevoked(found, issuers, s.path, yield) && more != nil {
			more(view, yield)
		}
	}, nil
}

// revokedQuery is the query whose last argument is since, and the CRL number. Reading the number fixes the view.
func revokedQuery(ctx context.Context, view *sql.Tx, caID string, shard int) (query string, args []any, number int64, err error) {
	query = `SELECT issuer, serial, reason, revoked_at, not_after, invalidity FROM certificates INDEXED BY certificates_revoked WHERE status = 1`
	var ref int64
	if caID != "" {
		err = view.QueryRowContext(ctx, `SELECT ref FROM cas WHERE id = ?`, caID).Scan(&ref)
		if err != nil {
			return "", nil, 0, notFound(err, fmt.Errorf("store: CA %q: %w", caID, ca.ErrNotFound))
		}
		query, args = query+` AND ca = ?`, append(args, ref)
	}
	if shard >= 0 {
		query, args = query+` AND shard = ?`, append(args, shard)
	}
	if caID != "" {
		err = view.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM crl_numbers WHERE ca = ? AND (shard = ? OR ? < 0 AND shard >= 0)`,
			ref, shard, shard).Scan(&number)
	}
	return query + ` AND not_after >= ?`, args, number, err
}

// readIssuers is the table of issuer keys: one per CA key, so small.
func readIssuers(ctx context.Context, view *sql.Tx) (map[int64]pkix.KeyID, error) {
	found, err := view.QueryContext(ctx, `SELECT ref, key FROM issuers`)
	if err != nil {
		return nil, err
	}
	issuers := map[int64]pkix.KeyID{}
	err = eachRow(found, func(scan scan) error {
		var ref int64
		var key []byte
		err := scan(&ref, &key)
		issuers[ref] = pkix.KeyID(key)
		return err
	})
	return issuers, err
}

// yieldRevoked returns false when nothing more is wanted.
func yieldRevoked(found *sql.Rows, issuers map[int64]pkix.KeyID, path string, yield func(ca.RevokedRow, error) bool) bool {
	defer found.Close()
	var issuer, reason, at, after, invalidity int64
	var serial sql.RawBytes
	dest := []any{&issuer, &serial, &reason, &at, &after, &invalidity}
	for found.Next() {
		if err := found.Scan(dest...); err != nil {
			yield(ca.RevokedRow{}, explain(path, err))
			return false
		}
		row := ca.RevokedRow{
			ID:     pkix.CertID{Issuer: issuers[issuer], Serial: pkix.SerialFromBytes(serial)},
			Reason: pkix.Reason(reason), At: fromMicros(at), NotAfter: fromMicros(after), InvalidityDate: fromMicros(invalidity),
		}
		if !yield(row, nil) {
			return false
		}
	}
	if err := found.Err(); err != nil {
		yield(ca.RevokedRow{}, explain(path, err))
		return false
	}
	return true
}
