package store

import (
	"context"
	"crypto"
	"database/sql"
	"errors"
	"fmt"
	"syscall"

	"sekisho/internal/ca"
	"sekisho/internal/store/journal"
)

// JournalConfig says where the revocation journal is. The zero value is a store without one, for tests of other
// packages; a database that has had a journal refuses revocations without it.
type JournalConfig struct {
	Dir string                        // made with mode 0700 when absent; best on another disk than the database
	Key func() (crypto.Signer, error) // an Ed25519 key; called once, while the data directory is locked
}

// A place is the row of journal_head: how far the database has got.
type place struct {
	journal.Head
	epoch uint64
}

// place reads it; known is false when the database has never had a journal.
func (t *tx) place(ctx context.Context) (p place, known bool, err error) {
	return scanPlace(t.row(ctx, selectPlace))
}

const selectPlace = `SELECT journal, epoch, seq, offset, hash FROM journal_head`

func scanPlace(scan scan) (p place, known bool, err error) {
	var id, hash []byte
	err = scan(&id, &p.epoch, &p.Seq, &p.Offset, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return place{}, false, nil
	}
	copy(p.ID[:], id)
	copy(p.Hash[:], hash)
	return p, err == nil, err
}

// setPlace moves it.
func (t *tx) setPlace(ctx context.Context, p place) error {
	return t.exec(ctx, `INSERT INTO journal_head (one, journal, epoch, seq, offset, hash) VALUES (1, ?, ?, ?, ?, ?)
		ON CONFLICT (one) DO UPDATE SET journal = excluded.journal, epoch = excluded.epoch, seq = excluded.seq,
			offset = excluded.offset, hash = excluded.hash`,
		p.ID[:], p.epoch, p.Seq, p.Offset, p.Hash[:])
}

// note keeps a record for the journal until the commit, or until the job is rolled back.
func (t *tx) note(r journal.Record) {
	if t.journaled {
		t.records = append(t.records, r)
	}
}

// noteState notes what a certificate has become.
func (t *tx) noteState(c ca.Certificate, step ca.Transition) {
	known := c.KeyKnown()
	c.DER, c.CSR = nil, nil
	s := &journal.State{Certificate: c}
	if step.Block && step.To == ca.Revoked && known {
		s.Blocked, s.BlockedOn = true, fromMicros(micros(step.At))
	}
	t.note(journal.Record{State: s})
}

// noteNumber notes a CRL number.
func (t *tx) noteNumber(ctx context.Context, caRef int64, shard int, number int64) error {
	if !t.journaled {
		return nil
	}
	var id string
	if err := t.get(ctx, `SELECT id FROM cas WHERE ref = ?`, []any{caRef}, &id); err != nil {
		return err
	}
	t.note(journal.Record{Number: &journal.Number{CAID: id, Shard: shard, Number: number}})
	return nil
}

// a shard is what CRL numbers belong to.
type shardOf struct {
	ca    string
	shard int
}

// takeRecords returns what was noted, without the CRL numbers that another record of the same commit tells of too.
func (t *tx) takeRecords() []journal.Record {
	highest := map[shardOf]int64{}
	for _, r := range t.records {
		if s := r.State; s != nil {
			of := shardOf{s.Certificate.CAID, s.Certificate.Shard}
			highest[of] = max(highest[of], s.Certificate.CRLNumber)
		}
	}
	records := t.records[:0]
	for i := len(t.records) - 1; i >= 0; i-- { // from the end: the last number of a shard is the highest
		if n := t.records[i].Number; n != nil {
			of := shardOf{n.CAID, n.Shard}
			if n.Number <= highest[of] {
				t.records[i] = journal.Record{}
			}
			highest[of] = max(highest[of], n.Number)
		}
	}
	for _, r := range t.records {
		if r != (journal.Record{}) {
			records = append(records, r)
		}
	}
	t.records = nil
	return records
}

// prepare makes the journal's block of this transaction and moves the database's place behind it; nil when nothing is
// to be told.
func (w *writer) prepare(ctx context.Context) (*journal.Pending, error) {
	records := w.tx.takeRecords()
	if len(records) == 0 {
		return nil, nil //nolint:nilnil // no block is no error
	}
	if w.journal == nil {
		return nil, fmt.Errorf("store: %s: %w: it was opened without its revocation journal, so nothing can be revoked", w.path, ErrJournal)
	}
	p, err := w.journal.Prepare(records)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := w.tx.setPlace(ctx, place{p.Head, w.journal.Epoch()}); err != nil {
		return nil, explain(w.path, err)
	}
	return p, nil
}

// writeJournal brings a block to the disk before its transaction is committed.
func (w *writer) writeJournal(p *journal.Pending) error {
	if err := w.fault("before-journal"); err != nil {
		return err
	}
	w.pending, w.attempted = p, false
	if err := w.journal.Write(p); err != nil {
		return explainJournal(err)
	}
	return w.fault("after-journal")
}

func explainJournal(err error) error {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return fmt.Errorf("store: %w: free some, nothing was stored (%w)", ErrDiskFull, err)
		}
	}
	return fmt.Errorf("store: %w", err)
}

// settle makes journal and database one again after a transaction that failed: the block stays where the database has
// it, and is cut off where it has not. Until that is done nothing else is written; what cannot be done now is tried again
// with the next write, and the next start does it with the rest of the journal.
func (w *writer) settle(ctx context.Context) error {
	if w.journal == nil || !w.journal.Dirty() {
		return nil
	}
	p, _, err := w.tx.place(ctx)
	switch {
	case err != nil:
		err = explain(w.path, err)
	case p.Head == w.pending.Head:
		w.journal.Keep(w.pending)
		return nil
	case p.Head != w.journal.Head():
		err = fmt.Errorf("%w: the database is at record %d, the journal at %d", ErrJournal, p.Seq, w.journal.Head().Seq)
	default:
		if err = w.confirm(ctx); err == nil {
			err = w.journal.Undo()
		}
	}
	if err != nil {
		return fmt.Errorf("store: nothing is written until the revocation journal is in step with the database again, at the latest by a restart: %w", explainJournal(err))
	}
	return nil
}

// confirm commits something else after a COMMIT that failed: a part of that may be in the WAL, and would count after a
// crash if nothing were written in its place.
func (w *writer) confirm(ctx context.Context) error {
	if !w.attempted {
		return nil
	}
	for _, q := range []string{"BEGIN IMMEDIATE", `UPDATE journal_head SET touched = touched + 1`, "COMMIT"} {
		if err := w.tx.exec(ctx, q); err != nil {
			w.rollback(ctx)
			return explain(w.path, err)
		}
	}
	w.attempted = false
	return nil
}
