package store

import (
	"context"
	"fmt"
	"time"

	"sekisho/internal/ca"
)

// RaiseCRLNumber implements ca.Ledger.
func (s *Store) RaiseCRLNumber(ctx context.Context, caID string, shard int, keep time.Time) (int64, error) {
	var number int64
	err := s.write.do(ctx, func(ctx context.Context, t *tx) error {
		ref, err := t.caRef(ctx, caID)
		if err != nil {
			return err
		}
		if number, err = t.raiseCRLNumber(ctx, ref, shard); err != nil || keep.IsZero() {
			return err
		}
		err = t.exec(ctx, `INSERT INTO crl_bases (ca, shard, number, at) VALUES (?, ?, ?, ?)`, ref, shard, number, micros(keep))
		if err != nil {
			return err
		}
		return t.exec(ctx, `DELETE FROM crl_bases WHERE ca = ?1 AND shard = ?2 AND number NOT IN
			(SELECT number FROM crl_bases WHERE ca = ?1 AND shard = ?2 ORDER BY number DESC LIMIT ?3)`, ref, shard, ca.CRLBasesKept)
	})
	if err != nil {
		return 0, err
	}
	return number, nil
}

// CRLBases implements ca.Ledger.
func (s *Store) CRLBases(ctx context.Context, caID string, shard int) (number int64, kept []ca.CRLBase, err error) {
	// One statement, so that number and bases are of one view: a number of 0 stands before the kept ones.
	rows, err := collect(ctx, s.read, `SELECT 0, coalesce(n.number, 0), 0 FROM cas a
			LEFT JOIN crl_numbers n ON n.ca = a.ref AND n.shard = ?1 WHERE a.id = ?2
		UNION ALL SELECT 1, b.number, b.at FROM cas a JOIN crl_bases b ON b.ca = a.ref AND b.shard = ?1 WHERE a.id = ?2
		ORDER BY 1, 2`, []any{shard, caID},
		func(scan scan) (b ca.CRLBase, err error) {
			var kind, at int64
			err = scan(&kind, &b.Number, &at)
			b.At = fromMicros(at)
			return b, err
		})
	switch {
	case err != nil:
		return 0, nil, err
	case len(rows) == 0:
		return 0, nil, fmt.Errorf("store: CA %q: %w", caID, ca.ErrNotFound)
	}
	return rows[0].Number, rows[1:], nil
}

// UsePKIURL implements ca.Ledger.
func (s *Store) UsePKIURL(ctx context.Context, url string) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		return t.exec(ctx, `INSERT INTO pki_urls (seq, url) VALUES ((SELECT coalesce(max(seq), 0) + 1 FROM pki_urls), ?)
			ON CONFLICT (url) DO UPDATE SET seq = excluded.seq`, url)
	})
}

// PKIURLs implements ca.Ledger.
func (s *Store) PKIURLs(ctx context.Context) ([]string, error) {
	return collect(ctx, s.read, `SELECT url FROM pki_urls ORDER BY seq DESC`, nil,
		func(scan scan) (url string, err error) {
			err = scan(&url)
			return url, err
		})
}
