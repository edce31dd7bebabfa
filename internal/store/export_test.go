package store

import (
	"context"
	"fmt"
	"strings"

	"sekisho/internal/ca"
)

// LimitPages lets the database grow to that many pages and no further.
func (s *Store) LimitPages(ctx context.Context, pages int) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		var now int
		return t.get(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages), nil, &now)
	})
}

// NamedSQL is what a search by a name asks the database: the rows in their order without limit, and the count.
func NamedSQL(f ca.Filter) (rows, count string, args []any, err error) {
	page, count, source, err := namedSQL(f)
	inner, _, _ := strings.Cut(strings.TrimPrefix(page, selectPrefix+"("), " LIMIT ? OFFSET ?")
	return inner, count, source.conds.args, err
}

// ListSQL is what a list asks the database: the rows in their order without limit; with narrow, read by the index that
// is chosen when few match.
func (s *Store) ListSQL(ctx context.Context, f ca.Filter, narrow bool) (rows string, args []any, err error) {
	view, err := s.read.db.BeginTx(ctx, nil)
	if err != nil {
		return "", nil, err
	}
	defer view.Rollback()
	runs, err := readRuns(ctx, view, f)
	if err != nil {
		return "", nil, err
	}
	key, direction, err := orderOf(f)
	if err != nil {
		return "", nil, err
	}
	l := listSource{filter: f, runs: runs, index: indexOf(key, f), key: key}
	if narrow {
		l = l.other()
	}
	rows, args = l.sql()
	return rows + " ORDER BY k" + direction + ", s" + direction, args, nil
}

// Synchronous returns PRAGMA synchronous of the connection that writes: 2 is FULL, every commit is fsynced.
func (s *Store) Synchronous(ctx context.Context) (int, error) {
	var level int
	err := s.write.do(ctx, func(ctx context.Context, t *tx) error {
		return t.get(ctx, "PRAGMA synchronous", nil, &level)
	})
	return level, err
}

// ArchivedCopy is the copy of a certificate that is in the archive, as a transition recalls it.
func (s *Store) ArchivedCopy(ctx context.Context, id string) ([]wholeRow, error) {
	a := s.archive.Load()
	return collect(ctx, a.reader, a.selectSQL(`WHERE c.id = ?`), []any{id}, a.scanWhole)
}

// Recalled is what a transition does after its commit.
func (s *Store) Recalled(ctx context.Context, back []wholeRow) { s.recalled(ctx, back) }
