package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// The status column.
const (
	statusActive  = 0
	statusRevoked = 1
)

func statusCode(s ca.Status) (int, error) {
	switch s {
	case ca.Active:
		return statusActive, nil
	case ca.Revoked:
		return statusRevoked, nil
	}
	return 0, fmt.Errorf("store: certificate status %q: it is %q or %q", string(s), ca.Active, ca.Revoked)
}

// RecordCertificate implements ca.Ledger. It returns ca.ErrNotFound when the CA is not in the ledger and
// ca.ErrConflict when the id is taken.
func (s *Store) RecordCertificate(ctx context.Context, c ca.Certificate, entry auditlog.Entry) error {
	if c.Status == "" {
		c.Status = ca.Active
	}
	status, err := statusCode(c.Status)
	if err != nil {
		return err
	}
	names := namesOf(c.DER) // not in the writer's goroutine
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		if err := t.insertCertificate(ctx, &c, status); err != nil {
			return err
		}
		if err := t.addNames(ctx, c.ID, names); err != nil {
			return err
		}
		return t.audit(ctx, entry)
	})
}

func (t *tx) insertCertificate(ctx context.Context, c *ca.Certificate, status int) error {
	caRef, issuer, blocked, err := t.mayInsert(ctx, c)
	if err != nil {
		return err
	}
	if blocked {
		return fmt.Errorf("store: certificate %s: key %s: %w", c.ID, c.KeyHash, ca.ErrKeyBlocked)
	}
	return t.insertNoted(ctx, c, status, caRef, issuer)
}

// insertBlocked is insertCertificate whether or not the key is blocked.
func (t *tx) insertBlocked(ctx context.Context, c *ca.Certificate, status int) error {
	caRef, issuer, _, err := t.mayInsert(ctx, c)
	if err != nil {
		return err
	}
	return t.insertNoted(ctx, c, status, caRef, issuer)
}

func (t *tx) insertNoted(ctx context.Context, c *ca.Certificate, status int, caRef, issuer int64) error {
	err := t.insertRow(ctx, c, caRef, issuer)
	if err == nil && status == statusRevoked {
		t.noteState(*c, ca.Transition{})
	}
	return err
}

// insertRow inserts the row alone.
func (t *tx) insertRow(ctx context.Context, c *ca.Certificate, caRef, issuer int64) error {
	err := t.exec(ctx, `INSERT INTO certificates (id, zone_id, ca, profile, issuer, serial, shard, key_hash, common_name,
			not_before, not_after, issued_on, valid_days, status, reason, revoked_at, crl_number, fingerprint, der, csr, invalidity)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		c.ID, c.ZoneID, caRef, c.Profile, issuer, c.Serial.Bytes(), c.Shard, c.KeyHash[:], c.CommonName,
		micros(c.NotBefore), micros(c.NotAfter), micros(c.IssuedOn), c.ValidDays, revokedFlag(c), int64(c.Reason), micros(c.RevokedAt),
		c.CRLNumber, c.Fingerprint[:], storedDER(c.DER), c.CSR, micros(c.InvalidityDate))
	if isUnique(err) {
		return fmt.Errorf("store: certificate %s: the id is taken: %w", c.ID, ca.ErrConflict)
	}
	return err
}

// mayInsert reports why a certificate may not be stored, or the integers that stand for its CA and its issuer's key, and
// whether its key is blocked. It is one query, since each costs a tenth of the whole write.
func (t *tx) mayInsert(ctx context.Context, c *ca.Certificate) (caRef, issuer int64, blocked bool, err error) {
	var caKnown, issuerKnown sql.NullInt64
	var taken bool
	err = t.get(ctx, `SELECT (SELECT ref FROM cas WHERE id = ?), (SELECT ref FROM issuers WHERE key = ?),
			EXISTS (SELECT 1 FROM blocked_keys WHERE key_hash = ?),
			EXISTS (SELECT 1 FROM certificates WHERE serial = ? AND issuer = (SELECT ref FROM issuers WHERE key = ?))`,
		[]any{c.CAID, c.IssuerKey[:], c.KeyHash[:], c.Serial.Bytes(), c.IssuerKey[:]}, &caKnown, &issuerKnown, &blocked, &taken)
	switch {
	case err != nil:
		return 0, 0, false, err
	case !caKnown.Valid:
		return 0, 0, false, fmt.Errorf("store: CA %q: %w", c.CAID, ca.ErrNotFound)
	case taken:
		return 0, 0, false, fmt.Errorf("store: certificate %s: serial %s: %w", c.ID, c.Serial, ca.ErrSerialTaken)
	}
	if err := t.archivedTaken(ctx, c); err != nil {
		return 0, 0, false, err
	}
	switch {
	case issuerKnown.Valid:
		return caKnown.Int64, issuerKnown.Int64, blocked, nil
	}
	issuer, err = t.issuerRef(ctx, c.IssuerKey)
	return caKnown.Int64, issuer, blocked, err
}

// issuerRef is the small integer that stands for an issuer's key, made at first use.
func (t *tx) issuerRef(ctx context.Context, key pkix.KeyID) (ref int64, err error) {
	err = t.get(ctx, `SELECT ref FROM issuers WHERE key = ?`, []any{key[:]}, &ref)
	if errors.Is(err, sql.ErrNoRows) {
		err = t.get(ctx, `INSERT INTO issuers (key) VALUES (?) RETURNING ref`, []any{key[:]}, &ref)
	}
	return ref, err
}

// certificateColumns are read by scanCertificate from certificates c, cas a and issuers i.
const certificateColumns = `c.id, c.zone_id, a.id, c.profile, i.key, c.serial, c.shard, c.key_hash, c.common_name,
	c.not_before, c.not_after, c.issued_on, c.valid_days, c.status, c.reason, c.revoked_at, c.crl_number, c.fingerprint,
	c.der, c.csr, c.invalidity`

const selectCertificate = `SELECT ` + certificateColumns + `
	FROM certificates c JOIN cas a ON a.ref = c.ca JOIN issuers i ON i.ref = c.issuer `

func scanCertificate(scan scan) (c ca.Certificate, err error) {
	var (
		issuer, serial, key, fingerprint       []byte
		before, after, issued, revoked, reason int64
		invalidity                             int64
		status                                 int
	)
	err = scan(&c.ID, &c.ZoneID, &c.CAID, &c.Profile, &issuer, &serial, &c.Shard, &key, &c.CommonName,
		&before, &after, &issued, &c.ValidDays, &status, &reason, &revoked, &c.CRLNumber, &fingerprint, &c.DER, &c.CSR, &invalidity)
	if err != nil {
		return ca.Certificate{}, err
	}
	copy(c.IssuerKey[:], issuer)
	copy(c.KeyHash[:], key)
	copy(c.Fingerprint[:], fingerprint)
	c.Serial = pkix.SerialFromBytes(serial)
	c.NotBefore, c.NotAfter, c.IssuedOn, c.RevokedAt = fromMicros(before), fromMicros(after), fromMicros(issued), fromMicros(revoked)
	c.InvalidityDate = fromMicros(invalidity)
	c.Status, c.Reason = ca.Active, pkix.Reason(reason)
	if len(c.DER) == 1 {
		c.DER = nil
	}
	if status == statusRevoked {
		c.Status = ca.Revoked
	}
	return c, nil
}

// storedDER is the der column: one octet, which no certificate is, where the certificate itself is not known.
func storedDER(der []byte) []byte {
	if len(der) == 0 {
		return []byte{0}
	}
	return der
}

// Certificate implements ca.Ledger. An archived certificate is found too.
func (s *Store) Certificate(ctx context.Context, zoneID, id string) (ca.Certificate, error) {
	c, err := s.certificate(ctx, `WHERE c.id = ?`, id)
	if err == nil && zoneID != "" && c.ZoneID != zoneID {
		err = ca.ErrNotFound
	}
	if err != nil {
		return ca.Certificate{}, fmt.Errorf("store: certificate %q: %w", id, err)
	}
	return c, nil
}

// CertificateByID implements ca.Ledger. An archived certificate is found too.
func (s *Store) CertificateByID(ctx context.Context, id pkix.CertID) (ca.Certificate, error) {
	c, err := s.certificate(ctx, `WHERE c.serial = ? AND c.issuer = (SELECT ref FROM issuers WHERE key = ?)`,
		id.Serial.Bytes(), id.Issuer[:])
	if err != nil {
		return ca.Certificate{}, fmt.Errorf("store: certificate with serial %s: %w", id.Serial, err)
	}
	return c, nil
}

func (s *Store) certificate(ctx context.Context, where string, args ...any) (c ca.Certificate, err error) {
	c, err = scanCertificate(s.read.row(ctx, selectCertificate+where, args...))
	if db := s.archived(); errors.Is(err, sql.ErrNoRows) && db != nil {
		c, err = scanCertificate(db.row(ctx, selectCertificate+where, args...))
		if errors.Is(err, sql.ErrNoRows) { // it may have come back between the two looks
			c, err = scanCertificate(s.read.row(ctx, selectCertificate+where, args...))
		}
	}
	return c, notFound(err, ca.ErrNotFound)
}

// KeyBlocked implements ca.Ledger.
func (s *Store) KeyBlocked(ctx context.Context, key pkix.KeyID) (bool, error) {
	var blocked bool
	err := s.read.get(ctx, `SELECT EXISTS (SELECT 1 FROM blocked_keys WHERE key_hash = ?)`, []any{key[:]}, &blocked)
	return blocked, err
}
