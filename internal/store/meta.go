package store

import (
	"context"
	"database/sql"
	"errors"
)

// Meta returns a value that was stored under key, and whether there is one. Keys are the caller's business: account id,
// when the root was made, and the like.
func (s *Store) Meta(ctx context.Context, key string) (value string, ok bool, err error) {
	err = s.read.get(ctx, `SELECT value FROM meta WHERE key = ?`, []any{key}, &value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return value, err == nil, err
}

// SetMeta stores value under key durably, in place of what was there.
func (s *Store) SetMeta(ctx context.Context, key, value string) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		return t.setMeta(ctx, key, value)
	})
}

func (t *tx) setMeta(ctx context.Context, key, value string) error {
	return t.exec(ctx, `INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
}
