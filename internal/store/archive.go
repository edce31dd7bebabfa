package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

const (
	archiveCopy = 512 // certificates copied in one transaction of the archive, which no other writer waits for
	// The others do wait while some are taken out of the ledger: so many at once as take about archiveWait.
	archiveLeast, archiveMost = 4, 64
	archiveWait               = 2 * time.Millisecond
)

// Archive moves certificates that ended before a time into the archive, the oldest first and at most some hundreds, and
// returns how many it moved; call it again until that is none. They are still found by [Store.Certificate],
// [Store.CertificateByID], and a search with Filter.Archived, and one that is revoked or held after all comes back by
// itself. They are no more in [Store.Revoked], so before must be a time after which a CRL has told of every revoked
// certificate that ended before it. The certificate that was recorded last always stays.
//
// The two files have no common transaction: what is durable in the archive leaves the ledger, if it has not changed
// meanwhile. After a crash in between a certificate is in both, the ledger's word counts, and the next call copies it again.
func (s *Store) Archive(ctx context.Context, before time.Time, entry auditlog.Entry) (moved int, err error) {
	if left, err := metaNumber(ctx, s.read, namesLeft); err != nil || left > 0 {
		return 0, errors.Join(err, ca.ErrNamesPending)
	}
	seqs, err := s.archivable(ctx, before)
	if err != nil || len(seqs) == 0 {
		return 0, err
	}
	a, id, err := s.wantArchive(ctx)
	if err != nil {
		return 0, err
	}
	rows := make([]wholeRow, len(seqs))
	for i, seq := range seqs {
		if rows[i], err = a.scanWhole(s.read.row(ctx, a.selectSQL(`WHERE c.seq = ?`), seq)); err != nil {
			return 0, err
		}
	}
	known, err := s.readRefs(ctx)
	if err != nil {
		return 0, err
	}
	batch, err := metaNumber(ctx, a.reader, archiveBatch)
	if err != nil {
		return 0, err
	}
	if err := a.add(ctx, id, batch+1, rows, known); err != nil {
		return 0, err
	}
	return s.leave(ctx, rows, batch+1, entry)
}

// readRefs reads what the small integers stand for.
func (s *Store) readRefs(ctx context.Context) (known refs, err error) {
	err = s.write.do(ctx, func(ctx context.Context, t *tx) (err error) {
		known, err = readRefs(ctx, t)
		return err
	})
	return known, err
}

// archivable finds the numbers of certificates that ended before a time.
func (s *Store) archivable(ctx context.Context, before time.Time) (seqs []int64, err error) {
	view, err := s.read.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, explain(s.path, err)
	}
	defer view.Rollback()
	runs, err := readRuns(ctx, view, ca.Filter{})
	if err != nil {
		return nil, explain(s.path, err)
	}
	for _, r := range runs {
		// The highest number stays, or SQLite would give it away again; so does what the next delta must tell of.
		found, err := view.QueryContext(ctx, fmt.Sprintf(`SELECT seq FROM certificates INDEXED BY certificates_expiry
			WHERE zone_id = ? AND ca = ? AND profile = ? AND status = %d AND not_after < ? AND seq < (SELECT max(seq) FROM certificates)
			AND crl_number <= coalesce((SELECT min(b.number) FROM crl_bases b WHERE b.ca = certificates.ca AND b.shard = certificates.shard), crl_number)
			ORDER BY not_after LIMIT ?`, r.status), r.zone, r.ca, r.profile, micros(before), archiveCopy-len(seqs))
		if err != nil {
			return nil, explain(s.path, err)
		}
		err = eachRow(found, func(scan scan) error {
			var seq int64
			err := scan(&seq)
			seqs = append(seqs, seq)
			return err
		})
		if err != nil || len(seqs) == archiveCopy {
			return seqs, explain(s.path, err)
		}
	}
	return seqs, nil
}

// wantArchive is the archive, made at first use, and its id.
func (s *Store) wantArchive(ctx context.Context) (*archive, string, error) {
	id, ok, err := s.Meta(ctx, archiveID)
	if err == nil && !ok {
		id = rand.Text()
		err = s.SetMeta(ctx, archiveID, id)
	}
	if err != nil {
		return nil, "", err
	}
	if a := s.archive.Load(); a != nil {
		return a, id, nil
	}
	a, err := newArchive(ctx, archivePath(s.path), s.read, s.log)
	if err != nil {
		return nil, "", err
	}
	if !s.archive.CompareAndSwap(nil, a) {
		return s.archive.Load(), id, a.close()
	}
	return a, id, nil
}

// leave takes the rows of a batch out of the ledger, but for those that changed since they were copied.
func (s *Store) leave(ctx context.Context, rows []wholeRow, batch int64, entry auditlog.Entry) (moved int, err error) {
	entry.Detail = map[string]string{"certificates": strconv.Itoa(len(rows)), "batch": strconv.FormatInt(batch, 10)}
	size := archiveLeast
	for at := 0; at < len(rows); {
		chunk := rows[at:min(at+size, len(rows))]
		begin, took, gone := time.Now(), time.Duration(0), 0
		err := s.write.do(ctx, func(ctx context.Context, t *tx) (err error) {
			defer func(from time.Time) { took = time.Since(from) }(time.Now())
			if at == 0 {
				err = errors.Join(t.audit(ctx, entry), t.setMeta(ctx, archiveBatch, strconv.FormatInt(batch, 10)))
			}
			if err == nil {
				gone, err = t.leave(ctx, chunk)
			}
			return err
		})
		if err != nil {
			return moved, err
		}
		moved, at = moved+gone, at+len(chunk)
		if size = min(2*size, archiveMost); took > archiveWait {
			size = max(len(chunk)/2, archiveLeast)
		}
		if err := rest(ctx, begin); err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// rest waits as long as the work since begin took, so that work in the background takes at most half of the writer.
func rest(ctx context.Context, begin time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Since(begin)):
		return nil
	}
}

// leave deletes rows that are as they were when they were copied: each transition raises the CRL number, and an import
// may have brought the certificate of a row that had none.
func (t *tx) leave(ctx context.Context, rows []wholeRow) (gone int, err error) {
	for _, r := range rows {
		if err := t.exec(ctx, `INSERT INTO leaving (seq) VALUES (?) ON CONFLICT DO NOTHING`, r.seq); err != nil {
			return 0, err
		}
		left, err := t.has(ctx, `DELETE FROM certificates WHERE seq = ? AND status = ? AND crl_number = ? AND der = ? RETURNING 1`,
			r.seq, r.status, r.crlNumber, r.der)
		if err != nil {
			return 0, err
		}
		if !left {
			continue
		}
		gone++
		for _, name := range namesOf(r.der) {
			if err := t.exec(ctx, `DELETE FROM certificate_names WHERE name = ? AND seq = ?`, name, r.seq); err != nil {
				return 0, err
			}
		}
	}
	return gone, t.exec(ctx, `DELETE FROM leaving`)
}

// recall brings archived rows back into the ledger, inside the transaction of what changes them. The copies in the archive are removed afterwards, or replaced by the next [Store.Archive]; the ledger's word counts until
// then. Between the two files nothing is lost: a row leaves one only when it is durable in the other, and rows leave the
// ledger on this goroutine alone.
func (t *tx) recall(ctx context.Context, where string, args ...any) error {
	a := t.archived()
	if a == nil {
		return nil
	}
	rows, err := collect(ctx, a.reader, a.selectSQL(where), args, a.scanWhole)
	if err != nil {
		return err
	}
	for _, r := range rows {
		here, err := t.has(ctx, `SELECT 1 FROM certificates WHERE seq = ?`, r.seq)
		if err != nil {
			return err
		}
		if here {
			continue
		}
		if err := t.exec(ctx, a.insertSQL(), r.values...); err != nil {
			return err
		}
		if err := t.setNames(ctx, r.seq, namesOf(r.der)); err != nil {
			return err
		}
		t.recalled = append(t.recalled, r)
	}
	return nil
}

// archived is the archive; nil while there is none.
func (t *tx) archived() *archive {
	if t.archive == nil {
		return nil
	}
	return t.archive.Load()
}

// recallSerial brings back the certificate with an issuer's serial.
func (t *tx) recallSerial(ctx context.Context, id pkix.CertID) error {
	return t.recall(ctx, `WHERE c.serial = ? AND c.issuer = (SELECT ref FROM issuers WHERE key = ?)`, id.Serial.Bytes(), id.Issuer[:])
}

// recallKey brings back the certificates of a key that are not revoked for good.
func (t *tx) recallKey(ctx context.Context, key pkix.KeyID) error {
	return t.recall(ctx, `WHERE c.key_hash = ? AND (c.status = ? OR c.reason = ?)`, key[:], statusActive, int64(pkix.CertificateHold))
}

// recalled takes rows that are durable in the ledger again out of the archive. When it cannot, they are in both, which
// the next [Store.Archive] puts right.
func (s *Store) recalled(ctx context.Context, back []wholeRow) {
	if len(back) == 0 {
		return
	}
	if err := s.archive.Load().remove(context.WithoutCancel(ctx), back); err != nil {
		s.log.WarnContext(ctx, "archived certificates that changed are in the archive as they were, too", "certificates", len(back), "error", err)
	}
}

// archivedTaken reports whether an archived certificate has the id, or the issuer and serial.
func (t *tx) archivedTaken(ctx context.Context, c *ca.Certificate) error {
	a := t.archived()
	if a == nil {
		return nil
	}
	var id, serial bool
	err := a.get(ctx, `SELECT EXISTS (SELECT 1 FROM certificates WHERE id = ?),
		EXISTS (SELECT 1 FROM certificates WHERE serial = ? AND issuer = (SELECT ref FROM issuers WHERE key = ?))`,
		[]any{c.ID, c.Serial.Bytes(), c.IssuerKey[:]}, &id, &serial)
	switch {
	case err != nil:
		return err
	case serial:
		return fmt.Errorf("store: certificate %s: serial %s: in the archive: %w", c.ID, c.Serial, ca.ErrSerialTaken)
	case id:
		return fmt.Errorf("store: certificate %s: the id is taken, in the archive: %w", c.ID, ca.ErrConflict)
	}
	return nil
}
