package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"sekisho/internal/auditlog"
)

// maxAuditPage bounds AuditRecords.
const maxAuditPage = 10_000

// audit appends an entry to the audit log inside the transaction of the decision it tells of.
func (t *tx) audit(ctx context.Context, e auditlog.Entry) error {
	var last auditlog.Record
	var hash []byte
	err := t.get(ctx, `SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1`, nil, &last.Seq, &hash)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	copy(last.Hash[:], hash)
	r := auditlog.Next(last, e)
	detail, err := json.Marshal(r.Detail)
	if err != nil {
		return fmt.Errorf("store: audit detail: %w", err)
	}
	err = t.exec(ctx, `INSERT INTO audit (seq, prev, hash, at, actor, action, object, outcome, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.Seq, r.Prev[:], r.Hash[:], micros(r.At), r.Actor, r.Action, r.Object, r.Outcome, string(detail))
	return err
}

// AppendAudit records a decision that changes nothing else, such as a refusal. It is durable when it returns nil.
func (s *Store) AppendAudit(ctx context.Context, e auditlog.Entry) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error { return t.audit(ctx, e) })
}

// AuditRecords returns the records from number from on, in order, at most limit of them; 0 means 10,000, which is also
// the most.
func (s *Store) AuditRecords(ctx context.Context, from int64, limit int) ([]auditlog.Record, error) {
	if limit <= 0 || limit > maxAuditPage {
		limit = maxAuditPage
	}
	return collect(ctx, s.read, `SELECT seq, prev, hash, at, actor, action, object, outcome, detail FROM audit
		WHERE seq >= ? ORDER BY seq LIMIT ?`, []any{from, limit}, scanRecord)
}

func scanRecord(scan scan) (r auditlog.Record, err error) {
	var prev, hash []byte
	var at int64
	var detail string
	if err := scan(&r.Seq, &prev, &hash, &at, &r.Actor, &r.Action, &r.Object, &r.Outcome, &detail); err != nil {
		return r, err
	}
	copy(r.Prev[:], prev)
	copy(r.Hash[:], hash)
	r.At = fromMicros(at)
	if err := json.Unmarshal([]byte(detail), &r.Detail); err != nil {
		return r, fmt.Errorf("store: audit record %d: detail: %w", r.Seq, err)
	}
	return r, nil
}

// VerifyAudit reads the whole audit log and checks its chain. The error names the first record that does not fit.
func (s *Store) VerifyAudit(ctx context.Context) error {
	return auditlog.Verify(s.audit(ctx))
}

func (s *Store) audit(ctx context.Context) iter.Seq2[auditlog.Record, error] {
	return func(yield func(auditlog.Record, error) bool) {
		for from := int64(0); ; {
			page, err := s.AuditRecords(ctx, from, 0)
			if err != nil {
				yield(auditlog.Record{}, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
				from = r.Seq + 1
			}
			if len(page) < maxAuditPage {
				return
			}
		}
	}
}
