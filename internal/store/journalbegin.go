package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/store/journal"
)

// baselineBlock is how many records a block has that tells of what was before the journal.
const baselineBlock = 2048

// beginning is how a journal begins.
type beginning struct {
	epoch  uint64
	reason string
	raise  int64           // added to every CRL number
	entry  *auditlog.Entry // stored with it
}

// begun counts what the first blocks of a journal tell of.
type begun struct {
	cas, numbers, revoked int
}

// begin makes a journal that tells of the database as it is: its CAs, CRL numbers and revoked certificates.
func (o *journalOpener) begin(ctx context.Context, b beginning) error {
	start := time.Now()
	t := &o.w.tx
	if err := t.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return explain(o.path, err)
	}
	counts, err := o.write(ctx, b)
	if err != nil {
		o.w.rollback(ctx)
		return errors.Join(explain(o.path, err), ignoreAbsent(os.Remove(o.file+newSuffix)))
	}
	if err := t.exec(ctx, "COMMIT"); err != nil {
		o.w.rollback(ctx)
		return explain(o.path, err) // whether it is there or not, the next start finds the new file and knows
	}
	if err := o.install(); err != nil {
		return err
	}
	if o.place, o.known, err = t.place(ctx); err != nil {
		return explain(o.path, err)
	}
	f, err := journal.Open(o.cfg)
	if err == nil {
		o.w.journal = f // closed with the writer
		err = f.Seek(o.place.Head)
	}
	if err != nil {
		return journalError(o.path, err)
	}
	o.log.InfoContext(ctx, "revocation journal begun", "path", o.file, "epoch", b.epoch, "reason", b.reason,
		"cas", counts.cas, "crl_numbers", counts.numbers, "revoked", counts.revoked, "took", time.Since(start).Round(time.Millisecond).String())
	return nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// write fills the new file, syncs it, and stores the place behind it.
func (o *journalOpener) write(ctx context.Context, b beginning) (counts begun, err error) {
	cfg := o.cfg
	cfg.Path += newSuffix
	f, err := journal.Create(cfg, b.epoch)
	if err != nil {
		return counts, explainJournal(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := o.w.tx.raiseAll(ctx, b.raise); err != nil {
		return counts, err
	}
	batch := &batcher{f: f}
	batch.add(journal.Record{Epoch: &journal.Epoch{Reason: b.reason}})
	counts, err = o.baseline(ctx, batch)
	if err == nil {
		err = batch.flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(filepath.Dir(cfg.Path))
	}
	if err != nil {
		return counts, explainJournal(err)
	}
	if err := o.w.tx.setPlace(ctx, place{f.Head(), b.epoch}); err != nil || b.entry == nil {
		return counts, err
	}
	b.entry.Detail["revoked"] = strconv.Itoa(counts.revoked)
	return counts, o.w.tx.audit(ctx, *b.entry)
}

// raiseAll adds to every CRL number, of shards too that have had none.
func (t *tx) raiseAll(ctx context.Context, by int64) error {
	if by == 0 {
		return nil
	}
	if err := t.exec(ctx, `UPDATE crl_numbers SET number = number + ?`, by); err != nil {
		return err
	}
	// Shard -1 is the list of a whole CA.
	return t.exec(ctx, `WITH RECURSIVE every (ca, shard, shards) AS
			(SELECT ref, -1, shards FROM cas UNION ALL SELECT ca, shard + 1, shards FROM every WHERE shard + 1 < shards)
		INSERT INTO crl_numbers (ca, shard, number) SELECT ca, shard, ? FROM every WHERE TRUE ON CONFLICT DO NOTHING`, by)
}

// batcher gathers records into blocks. The first error stays.
type batcher struct {
	f       *journal.File
	records []journal.Record
	err     error
}

func (b *batcher) add(r journal.Record) {
	if b.records = append(b.records, r); len(b.records) >= baselineBlock {
		b.err = b.flush()
	}
}

func (b *batcher) flush() error {
	if b.err == nil && len(b.records) > 0 {
		b.err = b.f.Append(b.records)
	}
	b.records = b.records[:0]
	return b.err
}

// stateForJournal reads certificates with all that a State has, CA and issuer by their refs; the condition and ) follow. The list is
// sorted by SQLite, so the rows are read in the order that they have on the disk, not in that of the index.
const stateForJournal = `SELECT c.id, c.zone_id, c.ca, c.profile, c.issuer, c.serial, c.shard, c.key_hash, c.common_name,
	c.not_before, c.not_after, c.issued_on, c.valid_days, c.status, c.reason, c.revoked_at, c.crl_number, c.fingerprint,
	NULL, NULL, c.invalidity, coalesce(b.blocked_on, 0), b.key_hash IS NOT NULL
	FROM certificates c LEFT JOIN blocked_keys b ON b.key_hash = c.key_hash
	WHERE c.seq IN (SELECT seq FROM certificates WHERE `

func (o *journalOpener) baseline(ctx context.Context, batch *batcher) (counts begun, err error) {
	t := &o.w.tx
	err = t.each(ctx, selectCAs, nil, func(scan scan) error {
		r, err := scanCA(scan)
		batch.add(journal.Record{CA: &r})
		counts.cas++
		return errors.Join(err, batch.err)
	})
	if err != nil {
		return counts, err
	}
	err = t.each(ctx, `SELECT a.id, n.shard, n.number FROM crl_numbers n JOIN cas a ON a.ref = n.ca ORDER BY n.ca, n.shard`, nil, func(scan scan) error {
		var n journal.Number
		err := scan(&n.CAID, &n.Shard, &n.Number)
		batch.add(journal.Record{Number: &n})
		counts.numbers++
		return errors.Join(err, batch.err)
	})
	if err != nil {
		return counts, err
	}
	refs, err := readRefs(ctx, t)
	if err != nil {
		return counts, err
	}
	// Those that came back from a hold are told of too, for a database that is older than the journal's beginning.
	for _, which := range []string{`status = 1)`, `status = 0 AND crl_number > 0)`} {
		err = t.each(ctx, stateForJournal+which, nil, func(scan scan) error {
			s, err := refs.scanState(scan)
			batch.add(journal.Record{State: s})
			if s.Certificate.Status == ca.Revoked {
				counts.revoked++
			}
			return errors.Join(err, batch.err)
		})
		if err != nil {
			return counts, err
		}
	}
	return counts, nil
}

// refs are what the small integers stand for. They are few; joining them to each of a million rows is not free.
type refs struct {
	cas     map[int64]string
	issuers map[int64][]byte
}

func readRefs(ctx context.Context, t *tx) (r refs, err error) {
	r = refs{cas: map[int64]string{}, issuers: map[int64][]byte{}}
	err = t.each(ctx, `SELECT ref, id FROM cas`, nil, func(scan scan) error {
		var ref int64
		var id string
		err := scan(&ref, &id)
		r.cas[ref] = id
		return err
	})
	if err != nil {
		return r, err
	}
	err = t.each(ctx, `SELECT ref, key FROM issuers`, nil, func(scan scan) error {
		var ref int64
		var key []byte
		err := scan(&ref, &key)
		r.issuers[ref] = key
		return err
	})
	return r, err
}

// scanState reads a row of stateForJournal.
func (r refs) scanState(row scan) (*journal.State, error) {
	var caRef, issuer, blockedOn int64
	s := &journal.State{}
	c, err := scanCertificate(func(dest ...any) error {
		caID, key := dest[2], dest[4]
		dest[2], dest[4] = &caRef, &issuer
		if err := row(append(dest, &blockedOn, &s.Blocked)...); err != nil {
			return err
		}
		*caID.(*string), *key.(*[]byte) = r.cas[caRef], r.issuers[issuer] //nolint:forcetypeassert // scanCertificate's
		return nil
	})
	s.Certificate = c
	if s.Blocked {
		s.BlockedOn = fromMicros(blockedOn)
	}
	return s, err
}

// numberRise is how far a new journal raises the CRL numbers: further than any that was published after a backup.
const numberRise = 1_000_000

// RenewJournal begins a new journal from the database in cfg.Dir as it is, for a database whose own journal is lost:
// what was revoked after the database's state is not in it. The new journal has the next epoch, every CRL number is
// raised by 1,000,000, so that none comes again that may have been published meanwhile, and entry is stored with the
// number of revoked certificates in its detail. What is left of the old journal stays beside the new one. reason stands
// in the journal. The store must not be open. A journal that fits is [ErrJournalFits].
func RenewJournal(ctx context.Context, cfg Config, reason string, entry auditlog.Entry) error {
	cfg.renew = func(ctx context.Context, o *journalOpener) error {
		if entry.Detail == nil {
			entry.Detail = map[string]string{}
		}
		epoch, err := o.nextEpoch(ctx)
		if err != nil {
			return err
		}
		entry.Detail["epoch"], entry.Detail["crl_numbers_raised_by"] = strconv.FormatUint(epoch, 10), strconv.Itoa(numberRise)
		return o.begin(ctx, beginning{epoch: epoch, reason: reason, raise: numberRise, entry: &entry})
	}
	s, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	return s.Close()
}

// nextEpoch is that of a new journal. It refuses when the old one is as it should be: a start would bring forward what it
// has, and a new one would lose that.
func (o *journalOpener) nextEpoch(ctx context.Context) (epoch uint64, err error) {
	epoch = o.place.epoch + 1
	f, err := journal.Open(o.cfg)
	if err != nil {
		return epoch, nil //nolint:nilerr // that it cannot be read is why there is to be a new one
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	epoch = max(epoch, f.Epoch()+1)
	if o.seek(f) != nil {
		return epoch, nil
	}
	switch err := o.rehearse(ctx, f); {
	case err == nil:
		return 0, fmt.Errorf("store: %s: %w", o.file, ErrJournalFits)
	case errors.Is(err, ErrJournal), errors.Is(err, journal.ErrDamaged):
		return epoch, nil
	default:
		return 0, err
	}
}

// rehearse replays what follows and keeps nothing of it.
func (o *journalOpener) rehearse(ctx context.Context, f *journal.File) error {
	if err := o.w.tx.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return explain(o.path, err)
	}
	defer o.w.rollback(ctx)
	for b, err := range f.Blocks() {
		if errors.Is(err, journal.ErrTorn) {
			return nil
		}
		if err == nil {
			_, err = o.apply(ctx, f.Epoch(), []journal.Block{b})
		}
		if err != nil {
			return explain(o.path, err)
		}
	}
	return nil
}
