package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/store/journal"
)

// replayBatch is about how many records are replayed in one transaction.
const replayBatch = 4096

// replayed counts what the journal had and the database had not.
type replayed struct {
	records, states, unknown, numbers, cas int

	kept int // rows that stayed, since they are later than their record
}

func (r *replayed) add(o replayed) {
	r.records, r.states, r.unknown = r.records+o.records, r.states+o.states, r.unknown+o.unknown
	r.numbers, r.cas, r.kept = r.numbers+o.numbers, r.cas+o.cas, r.kept+o.kept
}

// replay brings forward to the database what follows its place in the journal: a crash came between the two, or the
// database is from a backup. Each transaction moves the place along, so a replay that is interrupted goes on where it was.
func (o *journalOpener) replay(ctx context.Context, f *journal.File) error {
	left, err := f.Pending()
	if err != nil || left == 0 {
		return err
	}
	// What a killed process has written may not be on the disk yet, and the database must not be ahead of it.
	if err := f.Sync(); err != nil {
		return err
	}
	var total replayed
	var blocks []journal.Block
	pending := 0
	for b, err := range f.Blocks() {
		if errors.Is(err, journal.ErrTorn) {
			o.log.WarnContext(ctx, "the last block of the revocation journal was not written to its end, and is cut off; nobody was told that it was stored", "error", err)
			break
		}
		if err != nil {
			return err
		}
		blocks, pending = append(blocks, b), pending+len(b.Records)
		if pending >= replayBatch {
			if err := o.replayBlocks(ctx, f.Epoch(), blocks, &total); err != nil {
				return err
			}
			blocks, pending = nil, 0
		}
	}
	if len(blocks) > 0 {
		if err := o.replayBlocks(ctx, f.Epoch(), blocks, &total); err != nil {
			return err
		}
	}
	if err := f.Undo(); err != nil { // what was torn; and what was read is synced
		return err
	}
	if total.records > 0 {
		o.log.WarnContext(ctx, "the database is older than the revocation journal: its changes were brought forward",
			"changes", total.records, "certificates", total.states, "of_them_unknown", total.unknown, "crl_numbers", total.numbers, "cas", total.cas,
			"note", "certificates issued since that database was written are not known unless they were revoked: the edge lets them in, OCSP says unknown")
	}
	if total.kept > 0 {
		o.log.WarnContext(ctx, "the database has later states of certificates than the revocation journal, which was begun from an older one: they stay, and the journal does not tell of them",
			"certificates", total.kept)
	}
	return nil
}

// replayBlocks is one transaction of a replay, with its audit record.
func (o *journalOpener) replayBlocks(ctx context.Context, epoch uint64, blocks []journal.Block, total *replayed) error {
	t := &o.w.tx
	if err := t.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return explain(o.path, err)
	}
	count, err := o.apply(ctx, epoch, blocks)
	if err == nil {
		err = t.exec(ctx, "COMMIT")
	}
	if err != nil {
		o.w.rollback(ctx)
		return fmt.Errorf("replay of %s: %w", o.file, explain(o.path, err))
	}
	total.add(count)
	return nil
}

func (o *journalOpener) apply(ctx context.Context, epoch uint64, blocks []journal.Block) (count replayed, err error) {
	t := &o.w.tx
	for _, b := range blocks {
		for i, r := range b.Records {
			number := b.First + uint64(i)
			if number == 1 && r.Epoch != nil {
				continue
			}
			err := t.replay(ctx, r, &count)
			if errors.Is(err, ca.ErrConflict) || errors.Is(err, ca.ErrNotFound) {
				err = fmt.Errorf("%w: %w", ErrJournal, err)
			}
			if err != nil {
				return count, fmt.Errorf("record %d: %w", number, err)
			}
		}
	}
	last := blocks[len(blocks)-1].Head
	if err := t.setPlace(ctx, place{last, epoch}); err != nil {
		return count, err
	}
	return count, t.audit(ctx, auditlog.Entry{
		At: time.Now().UTC(), Actor: "sekisho", Action: "store.replay", Object: "revocation journal", Outcome: "done",
		Detail: map[string]string{
			"from": strconv.FormatUint(blocks[0].First, 10), "to": strconv.FormatUint(last.Seq, 10),
			"certificates": strconv.Itoa(count.states), "of_them_unknown": strconv.Itoa(count.unknown),
			"crl_numbers": strconv.Itoa(count.numbers), "cas": strconv.Itoa(count.cas), "kept": strconv.Itoa(count.kept),
		},
	})
}

// replay brings one record forward. It notes nothing for the journal, which has it.
func (t *tx) replay(ctx context.Context, r journal.Record, count *replayed) error {
	count.records++
	switch {
	case r.CA != nil:
		count.cas++
		return t.replayCA(ctx, *r.CA)
	case r.Number != nil:
		count.numbers++
		ref, err := t.caRef(ctx, r.Number.CAID)
		if err != nil {
			return err
		}
		return t.replayCRLNumber(ctx, ref, r.Number.Shard, r.Number.Number)
	case r.State != nil:
		count.states++
		return t.replayState(ctx, r.State, count)
	}
	return fmt.Errorf("%w: an epoch begins in the middle of the journal", ErrJournal)
}

func (t *tx) replayCA(ctx context.Context, r ca.CARecord) error {
	var der []byte
	err := t.get(ctx, `SELECT der FROM cas WHERE id = ?`, []any{r.ID}, &der)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return t.insertCA(ctx, r)
	case err == nil && !bytes.Equal(der, r.DER):
		return fmt.Errorf("%w: CA %s (%s) has another certificate in the journal than in the database", ErrJournal, r.ID, r.Name)
	case err == nil: // it was rotated, or got a list or a signer
		return t.setCA(ctx, r)
	}
	return err
}

// replayCRLNumber raises a shard's CRL number as reachCRLNumber does. Lists that were published since the database was
// written are valid still and may have any number after the one it knows. Its bases for deltas are no later than that; a
// shard without any gets one.
func (t *tx) replayCRLNumber(ctx context.Context, caRef int64, shard int, number int64) error {
	err := t.exec(ctx, `INSERT INTO crl_bases (ca, shard, number, at)
		SELECT ?1, ?2, max(1, coalesce((SELECT number FROM crl_numbers WHERE ca = ?1 AND shard = ?2), 1)), ?3
		WHERE NOT EXISTS (SELECT 1 FROM crl_bases WHERE ca = ?1 AND shard = ?2)`, caRef, shard, micros(time.Now()))
	if err != nil {
		return err
	}
	return t.reachCRLNumber(ctx, caRef, shard, number)
}

// reachCRLNumber raises a shard's CRL number to at least number.
func (t *tx) reachCRLNumber(ctx context.Context, caRef int64, shard int, number int64) error {
	if number == 0 { // a certificate that came revoked from elsewhere
		return nil
	}
	return t.exec(ctx, `INSERT INTO crl_numbers (ca, shard, number) VALUES (?, ?, ?)
		ON CONFLICT (ca, shard) DO UPDATE SET number = excluded.number WHERE excluded.number > number`, caRef, shard, number)
}

func (t *tx) replayState(ctx context.Context, s *journal.State, count *replayed) error {
	c := &s.Certificate
	caRef, err := t.caRef(ctx, c.CAID)
	if err != nil {
		return err
	}
	if err := t.replayCRLNumber(ctx, caRef, c.Shard, c.CRLNumber); err != nil {
		return err
	}
	issuer, err := t.issuerRef(ctx, c.IssuerKey)
	if err != nil {
		return err
	}
	if err := t.recallSerial(ctx, c.CertID()); err != nil {
		return err
	}
	have, err := scanCertificate(t.row(ctx, selectCertificate+`WHERE c.serial = ? AND c.issuer = ?`, c.Serial.Bytes(), issuer))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		count.unknown++
		err = t.insertRow(ctx, c, caRef, issuer)
	case err == nil && have.ID != c.ID:
		err = fmt.Errorf("%w: certificate with serial %s is %s in the journal and %s in the database", ErrJournal, c.Serial, c.ID, have.ID)
	case err == nil && laterThan(have, c):
		count.kept++
	case err == nil:
		err = t.exec(ctx, `UPDATE certificates SET status = ?, reason = ?, revoked_at = ?, crl_number = ?, invalidity = ? WHERE id = ?`,
			revokedFlag(c), int64(c.Reason), micros(c.RevokedAt), c.CRLNumber, micros(c.InvalidityDate), c.ID)
		if err == nil && !have.KeyKnown() && c.KeyKnown() {
			err = t.replayComplete(ctx, have, c)
		}
	}
	if err != nil || !s.Blocked {
		return err
	}
	return t.exec(ctx, `INSERT INTO blocked_keys (key_hash, blocked_on, cause) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		c.KeyHash[:], micros(s.BlockedOn), c.ID)
}

// replayComplete gives a row of which only a CRL had told what was known of its certificate later, but for the
// certificate itself.
func (t *tx) replayComplete(ctx context.Context, have ca.Certificate, c *ca.Certificate) error {
	err := t.exec(ctx, `UPDATE certificates SET zone_id = ?, profile = ?, key_hash = ?, common_name = ?, not_before = ?, not_after = ?, issued_on = ?,
			valid_days = ?, fingerprint = ? WHERE id = ?`,
		c.ZoneID, c.Profile, c.KeyHash[:], c.CommonName, micros(c.NotBefore), micros(c.NotAfter), micros(c.IssuedOn), c.ValidDays, c.Fingerprint[:], c.ID)
	if err != nil {
		return err
	}
	return t.recountZone(ctx, have, *c)
}

// laterThan reports whether a row is from after its record. That is so where the journal was begun from a backup and the
// database of before that backup was put back: what it has revoked since must not become active again.
func laterThan(row ca.Certificate, record *ca.Certificate) bool {
	final := row.Status == ca.Revoked && !row.OnHold()
	return row.CRLNumber > record.CRLNumber || final && (record.Status != ca.Revoked || record.OnHold())
}

func revokedFlag(c *ca.Certificate) int {
	if c.Status == ca.Revoked {
		return statusRevoked
	}
	return statusActive
}
