package store

import (
	"context"
	"database/sql"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// MinArchiveAge is how long ago a certificate must have ended to be archived: those that ended later are loaded at each
// start, since a clock may have been ahead.
const MinArchiveAge = 366 * 24 * time.Hour

// archivedRevoked yields the revoked certificates of the archive that, by the clock as it is now, have not ended as long
// ago as what is archived has: they were moved while the clock was ahead, and count as if they had stayed. There are
// none otherwise.
func (s *Store) archivedRevoked(ctx context.Context, view *sql.Tx, q revokedSelection, yield func(ca.RevokedRow, error) bool) {
	db := s.archived()
	if db == nil {
		return
	}
	since := max(micros(q.since), micros(time.Now().Add(-MinArchiveAge)))
	found, err := db.streams.QueryContext(ctx, `SELECT c.issuer, i.key, c.serial, c.reason, c.revoked_at, c.not_after, c.invalidity
		FROM certificates c INDEXED BY certificates_revoked JOIN issuers i ON i.ref = c.issuer JOIN cas a ON a.ref = c.ca
		WHERE c.status = 1 AND c.not_after >= ?1 AND (?2 = '' OR a.id = ?2) AND (?3 < 0 OR c.shard = ?3)`, since, q.caID, q.shard)
	if err != nil {
		yield(ca.RevokedRow{}, explain(db.path, err))
		return
	}
	defer found.Close()
	for found.Next() {
		var issuer, reason, at, after, invalidity int64
		var key, serial []byte
		if err := found.Scan(&issuer, &key, &serial, &reason, &at, &after, &invalidity); err != nil {
			yield(ca.RevokedRow{}, explain(db.path, err))
			return
		}
		var here bool // it changed and came back, so the ledger has the word
		if err := view.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM certificates WHERE serial = ? AND issuer = ?)`, serial, issuer).Scan(&here); err != nil {
			yield(ca.RevokedRow{}, explain(s.path, err))
			return
		}
		row := ca.RevokedRow{
			ID:     pkix.CertID{Issuer: pkix.KeyID(key), Serial: pkix.SerialFromBytes(serial)},
			Reason: pkix.Reason(reason), At: fromMicros(at), NotAfter: fromMicros(after), InvalidityDate: fromMicros(invalidity),
		}
		if !here && !yield(row, nil) {
			return
		}
	}
	if err := found.Err(); err != nil {
		yield(ca.RevokedRow{}, explain(db.path, err))
		return
	}
}

// revokedSelection is what Revoked was asked for.
type revokedSelection struct {
	caID  string
	shard int
	since time.Time
}
