package store

import (
	"context"
	"fmt"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
)

// AddCA implements ca.Ledger.
func (s *Store) AddCA(ctx context.Context, r ca.CARecord, entry auditlog.Entry) error {
	return s.ChangeCAs(ctx, ca.CAChange{Add: []ca.CARecord{r}}, entry)
}

// insertCA inserts the row alone.
func (t *tx) insertCA(ctx context.Context, r ca.CARecord) error {
	err := t.exec(ctx, `INSERT INTO cas (id, name, parent, key_name, der, created_on, shards, role, retired, imported, untrusted, extra,
			signer, signer_key, list_number, list_on) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.ID, r.Name, r.Parent, r.KeyName, r.DER, micros(r.CreatedOn), r.Shards, string(r.Role), flag(r.Retired), flag(r.Imported),
		flag(r.Untrusted), r.Extra, r.Signer.DER, r.Signer.KeyName, r.List.Number, micros(r.List.ThisUpdate))
	if isUnique(err) {
		return fmt.Errorf("store: CA %q: a CA of that name or id exists: %w", r.Name, ca.ErrConflict)
	}
	return err
}

const selectCAs = `SELECT id, name, parent, key_name, der, created_on, shards, role, retired, imported, untrusted,
	coalesce(extra, x''), coalesce(signer, x''), signer_key, list_number, list_on FROM cas ORDER BY ref`

func scanCA(scan scan) (r ca.CARecord, err error) {
	var created, list int64
	err = scan(&r.ID, &r.Name, &r.Parent, &r.KeyName, &r.DER, &created, &r.Shards, &r.Role, &r.Retired, &r.Imported, &r.Untrusted,
		&r.Extra, &r.Signer.DER, &r.Signer.KeyName, &r.List.Number, &list)
	r.CreatedOn, r.List.ThisUpdate = fromMicros(created), fromMicros(list)
	if len(r.Extra) == 0 {
		r.Extra = nil
	}
	if len(r.Signer.DER) == 0 {
		r.Signer.DER = nil
	}
	return r, err
}

// CAs implements ca.Ledger.
func (s *Store) CAs(ctx context.Context) ([]ca.CARecord, error) {
	all, err := collect(ctx, s.read, selectCAs, nil, scanCA)
	return parentsFirst(all), err
}

// parentsFirst orders CAs so that each comes after its parent, otherwise as they were. One whose parent is missing
// counts as a root.
func parentsFirst(all []ca.CARecord) []ca.CARecord {
	known := make(map[string]bool, len(all))
	for _, r := range all {
		known[r.ID] = true
	}
	placed := make(map[string]bool, len(all))
	ordered := make([]ca.CARecord, 0, len(all))
	for len(ordered) < len(all) {
		before := len(ordered)
		for _, r := range all {
			if !placed[r.ID] && (r.Parent == "" || r.Parent == r.ID || placed[r.Parent] || !known[r.Parent]) {
				placed[r.ID] = true
				ordered = append(ordered, r)
			}
		}
		if len(ordered) == before { // a circle of parents: no CA of ours makes one
			return all
		}
	}
	return ordered
}

// caRef is the small integer that stands for a CA.
func (t *tx) caRef(ctx context.Context, id string) (int64, error) {
	var ref int64
	err := t.get(ctx, `SELECT ref FROM cas WHERE id = ?`, []any{id}, &ref)
	return ref, notFound(err, fmt.Errorf("store: CA %q: %w", id, ca.ErrNotFound))
}

// raiseCRLNumber adds one to a shard's CRL number; the first is 1. RFC 5280, Section 5.2.3: monotonically increasing.
func (t *tx) raiseCRLNumber(ctx context.Context, caRef int64, shard int) (number int64, err error) {
	err = t.get(ctx, `INSERT INTO crl_numbers (ca, shard, number) VALUES (?, ?, 1)
		ON CONFLICT (ca, shard) DO UPDATE SET number = number + 1 RETURNING number`, []any{caRef, shard}, &number)
	if err == nil {
		err = t.noteNumber(ctx, caRef, shard, number)
	}
	return number, err
}
