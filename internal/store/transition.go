package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// Apply implements ca.Ledger. With ca.ErrConflict it also returns the row as it is.
func (s *Store) Apply(ctx context.Context, step ca.Transition, entry auditlog.Entry) (c ca.Certificate, sameKey []ca.Certificate, err error) {
	if _, err := statusCode(step.To); err != nil {
		return ca.Certificate{}, nil, err
	}
	var back []wholeRow
	err = s.write.do(ctx, func(ctx context.Context, t *tx) (err error) {
		if err := t.recall(ctx, `WHERE c.id = ?`, step.ID); err != nil {
			return err
		}
		defer func() { back = t.recalled }()
		if c, err = t.certificate(ctx, step.ZoneID, step.ID); err != nil {
			return err
		}
		if err := allowed(c, step); err != nil {
			return err
		}
		if c, err = t.transition(ctx, c, step); err != nil {
			return err
		}
		// Of a certificate that only a CRL told of, the key is not known; it is blocked when the certificate comes.
		if err := t.audit(ctx, entry); err != nil || !step.Block || step.To != ca.Revoked || !c.KeyKnown() {
			return err
		}
		sameKey, err = t.blockKey(ctx, c, step, entry)
		return err
	})
	switch {
	case errors.Is(err, ca.ErrConflict):
		return c, nil, err
	case err != nil:
		return ca.Certificate{}, nil, err
	}
	s.recalled(ctx, back)
	return c, sameKey, nil
}

// blockKey blocks the key of c and revokes every other certificate of it that is not revoked for good, each on record.
func (t *tx) blockKey(ctx context.Context, c ca.Certificate, step ca.Transition, entry auditlog.Entry) ([]ca.Certificate, error) {
	err := t.exec(ctx, `INSERT INTO blocked_keys (key_hash, blocked_on, cause) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		c.KeyHash[:], micros(step.At), c.ID)
	if err != nil {
		return nil, err
	}
	if err := t.recallKey(ctx, c.KeyHash); err != nil {
		return nil, err
	}
	var rows []ca.Certificate
	err = t.each(ctx, selectCertificate+`WHERE c.key_hash = ? AND c.id <> ? AND (c.status = ? OR c.reason = ?) ORDER BY c.seq`,
		[]any{c.KeyHash[:], c.ID, statusActive, int64(pkix.CertificateHold)}, func(scan scan) error {
			row, err := scanCertificate(scan)
			rows = append(rows, row)
			return err
		})
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		if rows[i], err = t.transition(ctx, row, step); err != nil {
			return nil, err
		}
		e := entry
		e.Object, e.Detail = row.ID, maps.Clone(entry.Detail)
		if e.Detail == nil {
			e.Detail = map[string]string{}
		}
		e.Detail["same_key_as"] = c.ID
		if err := t.audit(ctx, e); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// certificate is Store.Certificate inside the transaction, so that nothing comes between reading and writing.
func (t *tx) certificate(ctx context.Context, zoneID, id string) (ca.Certificate, error) {
	c, err := scanCertificate(t.row(ctx, selectCertificate+`WHERE c.id = ?`, id))
	err = notFound(err, ca.ErrNotFound)
	if err == nil && zoneID != "" && c.ZoneID != zoneID {
		err = ca.ErrNotFound
	}
	if err != nil {
		return ca.Certificate{}, fmt.Errorf("store: certificate %q: %w", id, err)
	}
	return c, nil
}

// allowed says whether the step leads on from where the certificate is: RFC 5280, Section 5.3.1 lets only
// certificateHold be undone. That a key is compromised may become known after its certificate was revoked for another
// reason.
func allowed(c ca.Certificate, step ca.Transition) error {
	switch {
	case c.Status == ca.Active && step.To == ca.Revoked:
		return nil
	case c.OnHold() && step.To == ca.Active:
		return nil
	case c.OnHold() && step.To == ca.Revoked && step.Reason != pkix.CertificateHold:
		return nil
	case c.Status == ca.Revoked && step.To == ca.Revoked && step.Reason == pkix.KeyCompromise && c.Reason != pkix.KeyCompromise:
		return nil
	case c.Status == ca.Active:
		return fmt.Errorf("store: certificate %s is active already: %w", c.ID, ca.ErrConflict)
	case c.OnHold():
		return fmt.Errorf("store: certificate %s is on hold already: %w", c.ID, ca.ErrConflict)
	case step.To == ca.Active:
		return fmt.Errorf("store: certificate %s is revoked for good (%s): %w", c.ID, c.Reason, ca.ErrConflict)
	}
	return fmt.Errorf("store: certificate %s is revoked already (%s): %w", c.ID, c.Reason, ca.ErrConflict)
}

func (t *tx) transition(ctx context.Context, c ca.Certificate, step ca.Transition) (ca.Certificate, error) {
	caRef, err := t.caRef(ctx, c.CAID)
	if err != nil {
		return c, err
	}
	if c.CRLNumber, err = t.raiseCRLNumber(ctx, caRef, c.Shard); err != nil {
		return c, err
	}
	since := fromMicros(micros(step.At))
	if c.Status == ca.Revoked { // X.509, reasonCode: a hold that becomes final keeps its date; so does what was final before
		since = c.RevokedAt
	}
	invalidity := c.InvalidityDate
	if !step.InvalidityDate.IsZero() {
		invalidity = fromMicros(micros(step.InvalidityDate))
	}
	c.Status, c.Reason, c.RevokedAt, c.InvalidityDate = step.To, 0, time.Time{}, time.Time{}
	status := statusActive
	if step.To == ca.Revoked {
		status, c.Reason, c.RevokedAt, c.InvalidityDate = statusRevoked, step.Reason, since, invalidity
	}
	err = t.exec(ctx, `UPDATE certificates SET status = ?, reason = ?, revoked_at = ?, crl_number = ?, invalidity = ? WHERE id = ?`,
		status, int64(c.Reason), micros(c.RevokedAt), c.CRLNumber, micros(c.InvalidityDate), c.ID)
	if err == nil {
		t.noteState(c, step)
	}
	return c, err
}
