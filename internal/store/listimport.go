package store

import (
	"context"
	"errors"
	"fmt"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// ImportList implements ca.Ledger.
func (s *Store) ImportList(ctx context.Context, step ca.ListImport, entry auditlog.Entry) (changed []ca.Certificate, err error) {
	err = s.write.do(ctx, func(ctx context.Context, t *tx) error {
		changed = changed[:0]
		if err := t.raiseList(ctx, step.CAID, step.List); err != nil {
			return err
		}
		for _, row := range step.Rows {
			moved, err := t.listed(ctx, row, entry)
			if err != nil {
				return err
			}
			changed = append(changed, moved...)
		}
		if step.Listed != nil {
			back, err := t.unlisted(ctx, step)
			if err != nil {
				return err
			}
			changed = append(changed, back...)
		}
		return t.audit(ctx, entry)
	})
	if err != nil {
		return nil, err
	}
	return changed, nil
}

// raiseList makes a list the newest of its CA.
func (t *tx) raiseList(ctx context.Context, caID string, list ca.List) error {
	ref, err := t.caRef(ctx, caID)
	if err != nil || list == (ca.List{}) {
		return err
	}
	var had ca.List
	var on int64
	if err := t.get(ctx, `SELECT list_number, list_on FROM cas WHERE ref = ?`, []any{ref}, &had.Number, &on); err != nil {
		return err
	}
	had.ThisUpdate = fromMicros(on)
	if !list.NewerThan(had) {
		return fmt.Errorf("store: the list of the CA %s is not newer than the one before it: %w", caID, ca.ErrConflict)
	}
	if err := t.exec(ctx, `UPDATE cas SET list_number = ?, list_on = ? WHERE ref = ?`, list.Number, micros(list.ThisUpdate), ref); err != nil {
		return err
	}
	return t.noteCA(ctx, caID)
}

// listed makes the row of an entry say what the entry says, as far as a transition leads there, and returns what changed:
// a key that the list calls compromised takes its other certificates along.
func (t *tx) listed(ctx context.Context, row ca.Certificate, entry auditlog.Entry) ([]ca.Certificate, error) {
	if err := t.recallSerial(ctx, row.CertID()); err != nil {
		return nil, err
	}
	have, err := scanCertificate(t.row(ctx, selectCertificate+`WHERE c.serial = ? AND i.key = ?`, row.Serial.Bytes(), row.IssuerKey[:]))
	switch err = notFound(err, ca.ErrNotFound); {
	case errors.Is(err, ca.ErrNotFound):
		return []ca.Certificate{row}, t.insertBlocked(ctx, &row, statusRevoked)
	case err != nil:
		return nil, err
	}
	step := ca.Transition{
		ID: have.ID, To: ca.Revoked, Reason: row.Reason, At: row.RevokedAt, InvalidityDate: row.InvalidityDate,
		Block: row.Reason == pkix.KeyCompromise, // which the journal must tell too
	}
	if allowed(have, step) != nil {
		return nil, nil // what is revoked for good stays
	}
	after, err := t.transition(ctx, have, step)
	if err != nil || !step.Block || !have.KeyKnown() {
		return []ca.Certificate{after}, err
	}
	sameKey, err := t.blockKey(ctx, after, step, entry)
	return append([]ca.Certificate{after}, sameKey...), err
}

// unlisted reactivates what is on hold and no longer listed.
func (t *tx) unlisted(ctx context.Context, step ca.ListImport) (changed []ca.Certificate, err error) {
	ref, err := t.caRef(ctx, step.CAID)
	if err != nil {
		return nil, err
	}
	var held []ca.Certificate
	err = t.each(ctx, selectCertificate+`WHERE c.ca = ? AND c.status = ? AND c.reason = ?`, []any{ref, statusRevoked, int64(pkix.CertificateHold)},
		func(scan scan) error {
			row, err := scanCertificate(scan)
			if err == nil && !step.Listed[row.Serial] {
				held = append(held, row)
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	for _, row := range held {
		after, err := t.transition(ctx, row, ca.Transition{ID: row.ID, To: ca.Active, At: step.At})
		if err != nil {
			return nil, err
		}
		changed = append(changed, after)
	}
	return changed, nil
}
