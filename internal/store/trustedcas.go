package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"sekisho/internal/auditlog"
	"sekisho/internal/site"
)

const selectTrustedCA = `SELECT id, product, zone_id, name, pem, policy, uploaded_on, updated_on FROM trusted_cas `

func scanTrustedCA(scan scan) (ca site.TrustedCA, err error) {
	var policy []byte
	var uploaded, updated int64
	if err := scan(&ca.ID, &ca.Product, &ca.ZoneID, &ca.Name, &ca.PEM, &policy, &uploaded, &updated); err != nil {
		return site.TrustedCA{}, err
	}
	ca.UploadedOn, ca.UpdatedOn = fromMicros(uploaded), fromMicros(updated)
	// A field that is not known here could be the one that makes the policy strict.
	decoder := json.NewDecoder(bytes.NewReader(policy))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&ca.Policy); err != nil {
		return site.TrustedCA{}, fmt.Errorf("store: policy of the CA %q (%s): %w", ca.Name, ca.ID, err)
	}
	return ca, nil
}

// TrustedCAs implements site.TrustedCARecords.
func (s *Store) TrustedCAs(ctx context.Context) ([]site.TrustedCA, error) {
	return collect(ctx, s.read, selectTrustedCA+`ORDER BY seq`, nil, scanTrustedCA)
}

// AddTrustedCA implements site.TrustedCARecords.
func (s *Store) AddTrustedCA(ctx context.Context, ca site.TrustedCA, ties []site.Association, entry auditlog.Entry) error {
	policy, err := json.Marshal(ca.Policy)
	if err != nil {
		return fmt.Errorf("store: policy of the CA %q: %w", ca.Name, err)
	}
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		err := t.exec(ctx, `INSERT INTO trusted_cas (id, product, zone_id, name, pem, policy, uploaded_on, updated_on) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			ca.ID, string(ca.Product), ca.ZoneID, ca.Name, ca.PEM, string(policy), micros(ca.UploadedOn), micros(ca.UpdatedOn))
		if isUnique(err) {
			return fmt.Errorf("store: CA %q: the id %s is stored already", ca.Name, ca.ID)
		}
		if err != nil {
			return err
		}
		if err := t.tie(ctx, ca.ID, ties); err != nil {
			return err
		}
		return t.audit(ctx, entry)
	})
}

// UpdateTrustedCA implements site.TrustedCARecords.
func (s *Store) UpdateTrustedCA(ctx context.Context, ca site.TrustedCA, ties []site.Association, entry auditlog.Entry) error {
	policy, err := json.Marshal(ca.Policy)
	if err != nil {
		return fmt.Errorf("store: policy of the CA %q: %w", ca.Name, err)
	}
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		if err := t.wantTrustedCA(ctx, ca.ID); err != nil {
			return err
		}
		err := t.exec(ctx, `UPDATE trusted_cas SET name = ?, policy = ?, updated_on = ? WHERE id = ?`,
			ca.Name, string(policy), micros(ca.UpdatedOn), ca.ID)
		if err != nil {
			return err
		}
		if ties != nil {
			if err := t.exec(ctx, `DELETE FROM associations WHERE ca_id = ?`, ca.ID); err != nil {
				return err
			}
			if err := t.tie(ctx, ca.ID, ties); err != nil {
				return err
			}
		}
		return t.audit(ctx, entry)
	})
}

// DeleteTrustedCA implements site.TrustedCARecords.
func (s *Store) DeleteTrustedCA(ctx context.Context, id string, entry auditlog.Entry) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		if err := t.wantTrustedCA(ctx, id); err != nil {
			return err
		}
		tied, err := t.has(ctx, `SELECT 1 FROM associations WHERE ca_id = ? LIMIT 1`, id)
		if err != nil {
			return err
		}
		if tied {
			return fmt.Errorf("store: CA %s: %w", id, site.ErrTied)
		}
		if err := t.exec(ctx, `DELETE FROM trusted_cas WHERE id = ?`, id); err != nil {
			return err
		}
		return t.audit(ctx, entry)
	})
}

func (t *tx) wantTrustedCA(ctx context.Context, id string) error {
	known, err := t.has(ctx, `SELECT 1 FROM trusted_cas WHERE id = ?`, id)
	if err == nil && !known {
		err = fmt.Errorf("store: CA %q: %w", id, site.ErrNoTrustedCA)
	}
	return err
}

// tie adds hostnames to those of a CA; one that is there already counts once.
func (t *tx) tie(ctx context.Context, caID string, ties []site.Association) error {
	for _, a := range ties {
		err := t.exec(ctx, `INSERT INTO associations (zone_id, ca_id, hostname) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, a.ZoneID, caID, a.Hostname)
		if err != nil {
			return err
		}
	}
	return nil
}
