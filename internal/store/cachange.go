package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store/journal"
)

// ChangeCAs implements ca.Ledger.
func (s *Store) ChangeCAs(ctx context.Context, change ca.CAChange, entry auditlog.Entry) error {
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		for _, r := range change.Add {
			if err := t.addCA(ctx, r, change.Floor); err != nil {
				return err
			}
		}
		for _, r := range change.Update {
			if err := errors.Join(t.updateCA(ctx, r), t.raiseCRLNumbersTo(ctx, r, change.Floor)); err != nil {
				return err
			}
		}
		for i := range change.Certificates {
			status, err := statusCode(change.Certificates[i].Status)
			if err != nil {
				return err
			}
			if err := t.insertCertificate(ctx, &change.Certificates[i], status); err != nil {
				return err
			}
		}
		return t.audit(ctx, entry)
	})
}

// addCA stores a CA, and with a floor the CRL number of each of its lists.
func (t *tx) addCA(ctx context.Context, r ca.CARecord, floor int64) error {
	r.Shards = max(r.Shards, 1)
	if err := t.insertCA(ctx, r); err != nil {
		return err
	}
	t.note(journal.Record{CA: &r})
	return t.raiseCRLNumbersTo(ctx, r, floor)
}

// raiseCRLNumbersTo makes the CRL number of each list of a CA at least floor.
func (t *tx) raiseCRLNumbersTo(ctx context.Context, r ca.CARecord, floor int64) error {
	if floor <= 0 {
		return nil
	}
	ref, err := t.caRef(ctx, r.ID)
	for shard := ca.AllShards; err == nil && shard < max(r.Shards, 1); shard++ {
		if err = t.reachCRLNumber(ctx, ref, shard, floor); err == nil {
			err = t.noteNumber(ctx, ref, shard, floor)
		}
	}
	return err
}

// updateCA changes what may change of a CA, and tells the journal all of it.
func (t *tx) updateCA(ctx context.Context, r ca.CARecord) error {
	if _, err := t.caRef(ctx, r.ID); err != nil {
		return err
	}
	if err := t.setCA(ctx, r); err != nil {
		return err
	}
	return t.noteCA(ctx, r.ID)
}

func (t *tx) setCA(ctx context.Context, r ca.CARecord) error {
	return t.exec(ctx, `UPDATE cas SET retired = ?, untrusted = ?, extra = ?, signer = ?, signer_key = ?, list_number = ?, list_on = ? WHERE id = ?`,
		flag(r.Retired), flag(r.Untrusted), r.Extra, r.Signer.DER, r.Signer.KeyName, r.List.Number, micros(r.List.ThisUpdate), r.ID)
}

// noteCA notes for the journal how a CA stands now.
func (t *tx) noteCA(ctx context.Context, id string) error {
	if !t.journaled {
		return nil
	}
	return t.each(ctx, selectCAs, nil, func(scan scan) error {
		r, err := scanCA(scan)
		if err == nil && r.ID == id {
			t.note(journal.Record{CA: &r})
		}
		return err
	})
}

// CACounts implements ca.Ledger.
func (s *Store) CACounts(ctx context.Context) (map[string]ca.CACount, error) {
	counts := map[string]ca.CACount{}
	err := s.read.each(ctx, `SELECT a.id, c.status, c.n FROM ca_counts c JOIN cas a ON a.ref = c.ca`, nil, func(scan scan) error {
		var id string
		var status, n int
		err := scan(&id, &status, &n)
		count := counts[id]
		if status == statusRevoked {
			count.Revoked = n
		} else {
			count.Active = n
		}
		counts[id] = count
		return err
	})
	if err != nil {
		return nil, err
	}
	return counts, nil
}

// ImportCertificates implements ca.Ledger.
func (s *Store) ImportCertificates(ctx context.Context, certs []ca.Certificate, entries []auditlog.Entry) (done []ca.Imported, err error) {
	if len(certs) != len(entries) {
		return nil, errors.New("store: an import needs an audit entry for each certificate")
	}
	err = s.write.do(ctx, func(ctx context.Context, t *tx) error {
		done = done[:0]
		for i, c := range certs {
			one, err := t.importCertificate(ctx, c, entries[i])
			if err != nil {
				return err
			}
			done = append(done, one)
			for _, row := range one.SameKey {
				if at := slices.IndexFunc(done, func(d ca.Imported) bool { return d.Row.ID == row.ID }); at >= 0 {
					done[at].Row = row // it came in the same import, before its key was known to be compromised
				}
			}
			if one.Outcome == ca.ImportKnown {
				continue
			}
			entry := entries[i]
			entry.Object = one.Row.ID
			if err := t.audit(ctx, entry); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

func (t *tx) importCertificate(ctx context.Context, c ca.Certificate, entry auditlog.Entry) (ca.Imported, error) {
	if err := t.recallSerial(ctx, c.CertID()); err != nil {
		return ca.Imported{}, err
	}
	known, err := scanCertificate(t.row(ctx, selectCertificate+`WHERE c.serial = ? AND i.key = ?`, c.Serial.Bytes(), c.IssuerKey[:]))
	switch err = notFound(err, ca.ErrNotFound); {
	case errors.Is(err, ca.ErrNotFound):
		return t.importUnknown(ctx, c, entry.At)
	case err != nil:
		return ca.Imported{}, err
	case len(known.DER) == 0:
		return t.complete(ctx, known, c, entry)
	case known.Fingerprint == c.Fingerprint:
		return ca.Imported{Row: known, Outcome: ca.ImportKnown}, nil
	}
	return ca.Imported{}, fmt.Errorf("store: serial %s is that of the certificate %s: %w", c.Serial, known.ID, ca.ErrSerialTaken)
}

// importUnknown stores a certificate that may well be in use already. So a blocked key is no reason to leave it out: it is
// stored and revoked.
func (t *tx) importUnknown(ctx context.Context, c ca.Certificate, at time.Time) (ca.Imported, error) {
	err := t.insertCertificate(ctx, &c, statusActive)
	if err == nil {
		return ca.Imported{Row: c, Outcome: ca.ImportStored}, t.addNames(ctx, c.ID, namesOf(c.DER))
	}
	if !errors.Is(err, ca.ErrKeyBlocked) {
		return ca.Imported{}, err
	}
	if err := t.insertBlocked(ctx, &c, statusActive); err != nil {
		return ca.Imported{}, err
	}
	if err := t.addNames(ctx, c.ID, namesOf(c.DER)); err != nil {
		return ca.Imported{}, err
	}
	c.Status = ca.Active
	c, err = t.transition(ctx, c, ca.Transition{ID: c.ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: at})
	return ca.Imported{Row: c, Outcome: ca.ImportBlocked}, err
}

// complete gives a row its certificate; its state stays, but for a blocked key. A key that turns out to be compromised takes
// its other certificates along, as it does where the certificate is known first and revoked then.
func (t *tx) complete(ctx context.Context, known, c ca.Certificate, entry auditlog.Entry) (ca.Imported, error) {
	c.ID, c.Shard, c.Status, c.Reason, c.RevokedAt = known.ID, known.Shard, known.Status, known.Reason, known.RevokedAt
	c.InvalidityDate, c.CRLNumber, c.CAID = known.InvalidityDate, known.CRLNumber, known.CAID
	err := t.exec(ctx, `UPDATE certificates SET zone_id = ?, profile = ?, key_hash = ?, common_name = ?, not_before = ?, not_after = ?, issued_on = ?,
			valid_days = ?, fingerprint = ?, der = ? WHERE id = ?`,
		c.ZoneID, c.Profile, c.KeyHash[:], c.CommonName, micros(c.NotBefore), micros(c.NotAfter), micros(c.IssuedOn), c.ValidDays, c.Fingerprint[:], c.DER, c.ID)
	if err != nil {
		return ca.Imported{}, err
	}
	if err := errors.Join(t.recountZone(ctx, known, c), t.addNames(ctx, c.ID, namesOf(c.DER))); err != nil {
		return ca.Imported{}, err
	}
	// Its key and its dates are known from here on.
	compromised := c.Status == ca.Revoked && c.Reason == pkix.KeyCompromise
	step := ca.Transition{To: c.Status, Reason: c.Reason, Block: compromised, At: entry.At}
	t.noteState(c, step)
	done := ca.Imported{Row: c, Outcome: ca.ImportCompleted}
	if compromised {
		done.SameKey, err = t.blockKey(ctx, c, step, entry)
		return done, err
	}
	if c.Status == ca.Revoked && !c.OnHold() {
		return done, nil
	}
	// As in importUnknown: a key that is blocked is no client's any more, whatever a list says of its certificates.
	blocked, err := t.has(ctx, `SELECT 1 FROM blocked_keys WHERE key_hash = ?`, c.KeyHash[:])
	if err == nil && blocked {
		done.Outcome = ca.ImportBlocked
		done.Row, err = t.transition(ctx, c, ca.Transition{ID: c.ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: entry.At})
	}
	return done, err
}

// recountZone keeps the totals of searches for a row that moved; their triggers follow the status alone.
func (t *tx) recountZone(ctx context.Context, from, to ca.Certificate) error {
	if from.ZoneID == to.ZoneID && from.Profile == to.Profile {
		return nil
	}
	status, err := statusCode(to.Status)
	if err != nil {
		return err
	}
	ref, err := t.caRef(ctx, to.CAID)
	if err != nil {
		return err
	}
	if err := t.exec(ctx, `UPDATE certificate_counts SET n = n - 1 WHERE zone_id = ? AND ca = ? AND profile = ? AND status = ?`, from.ZoneID, ref, from.Profile, status); err != nil {
		return err
	}
	return t.exec(ctx, `INSERT INTO certificate_counts (zone_id, ca, profile, status, n) VALUES (?, ?, ?, ?, 1)
		ON CONFLICT (zone_id, ca, profile, status) DO UPDATE SET n = n + 1`, to.ZoneID, ref, to.Profile, status)
}
