package store

import (
	"context"
	"fmt"

	"sekisho/internal/ca"
)

// LimitPages lets the database grow to that many pages and no further.
func (s *Store) LimitPages(ctx context.Context, pages int) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		var now int
		return t.get(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages), nil, &now)
	})
}

// SearchSQL is what Certificates asks the database.
func SearchSQL(f ca.Filter) (count, page string, args []any, err error) { return searchSQL(f) }

// Synchronous returns PRAGMA synchronous of the connection that writes: 2 is FULL, every commit is fsynced.
func (s *Store) Synchronous(ctx context.Context) (int, error) {
	var level int
	err := s.write.do(ctx, func(ctx context.Context, t *tx) error {
		return t.get(ctx, "PRAGMA synchronous", nil, &level)
	})
	return level, err
}
