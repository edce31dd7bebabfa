package store

import (
	"context"
	"fmt"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/principal"
)

const selectToken = `SELECT id, name, email, role, hash, created_on, expires_on FROM tokens `

func scanToken(scan scan) (t principal.Token, err error) {
	var hash []byte
	var created, expires int64
	if err := scan(&t.ID, &t.Name, &t.Email, &t.Role, &hash, &created, &expires); err != nil {
		return principal.Token{}, err
	}
	copy(t.Hash[:], hash)
	t.CreatedOn, t.ExpiresOn = fromMicros(created), fromMicros(expires)
	return t, nil
}

// TokenByHash implements principal.Tokens.
func (s *Store) TokenByHash(ctx context.Context, hash [32]byte) (principal.Token, error) {
	known, err := s.tokens.get(func() (map[[32]byte]principal.Token, error) {
		all, err := s.ListTokens(ctx)
		byHash := make(map[[32]byte]principal.Token, len(all))
		for _, t := range all {
			byHash[t.Hash] = t
		}
		return byHash, err
	})
	if err != nil {
		return principal.Token{}, err
	}
	t, ok := known[hash]
	if !ok {
		return principal.Token{}, fmt.Errorf("store: token: %w", principal.ErrUnauthenticated)
	}
	return t, nil
}

// AddToken stores a token and records entry in the audit log, both or neither. A token whose id or secret is stored
// already is refused.
func (s *Store) AddToken(ctx context.Context, v principal.Token, entry auditlog.Entry) error {
	defer s.tokens.forget()
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		err := t.exec(ctx, `INSERT INTO tokens (id, name, email, role, hash, created_on, expires_on) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			v.ID, v.Name, v.Email, string(v.Role), v.Hash[:], micros(v.CreatedOn), micros(v.ExpiresOn))
		if isUnique(err) {
			return fmt.Errorf("store: token %q: its id or secret is stored already", v.Name)
		}
		if err != nil {
			return err
		}
		return t.audit(ctx, entry)
	})
}

// DeleteToken removes a token and records entry in the audit log, both or neither; the token works no more when it
// returns. It returns principal.ErrNoToken for an unknown id, and principal.ErrLastEditToken for a token of role edit
// that has not expired by entry.At when there is no other.
func (s *Store) DeleteToken(ctx context.Context, id string, entry auditlog.Entry) error {
	defer s.tokens.forget()
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		v, err := scanToken(t.row(ctx, selectToken+`WHERE id = ?`, id))
		if err != nil {
			return fmt.Errorf("store: token %q: %w", id, notFound(err, principal.ErrNoToken))
		}
		if v.Role == principal.Edit && !v.Expired(entry.At) {
			others, err := t.has(ctx, `SELECT 1 FROM tokens WHERE role = ? AND id <> ? AND (expires_on = ? OR expires_on > ?) LIMIT 1`,
				string(principal.Edit), id, micros(time.Time{}), micros(entry.At))
			if err != nil {
				return err
			}
			if !others {
				return fmt.Errorf("store: token %q: %w", v.Name, principal.ErrLastEditToken)
			}
		}
		if err := t.exec(ctx, `DELETE FROM tokens WHERE id = ?`, id); err != nil {
			return err
		}
		return t.audit(ctx, entry)
	})
}

// ListTokens returns all tokens ordered by creation.
func (s *Store) ListTokens(ctx context.Context) ([]principal.Token, error) {
	return collect(ctx, s.read, selectToken+`ORDER BY created_on, seq`, nil, scanToken)
}
