package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store/journal"
)

// A comparison is of the ledger with the journal up to the database's place in it. A bit a row keeps it small: same is
// whether the last record of a certificate so far is what its row says.
type comparison struct {
	v       *verifier
	rows    *sql.Stmt
	now     time.Time
	touched bitmap
	same    bitmap
	last    map[int64]uint64 // of rows that differ, the record
	numbers map[shardOf]int64
	cas     map[string]ca.CARecord
}

// verifyJournal reads the whole journal: signatures, chain and order; and compares.
func (v *verifier) verifyJournal(ctx context.Context) (err error) {
	p, known, err := scanPlace(v.conn.QueryRowContext(ctx, selectPlace).Scan)
	if err != nil {
		return explain(v.path, err)
	}
	v.report.Journal = JournalPath(v.cfg.Journal.Dir)
	if !known {
		v.report.found("journal", "the database has no journal yet; the next start of the server begins one")
		return nil
	}
	v.report.JournalID, v.report.Epoch = hex.EncodeToString(p.ID[:]), p.epoch
	if absent(v.report.Journal) { // asking for the key may make one
		v.report.found("journal", "%v: %s", journal.ErrMissing, v.report.Journal)
		return nil
	}
	signer, err := v.cfg.Journal.Key()
	if err != nil {
		return fmt.Errorf("store: key of the revocation journal: %w", err)
	}
	f, err := journal.Open(journal.Config{Path: v.report.Journal, Signer: signer})
	if err == nil {
		defer func() { err = errors.Join(err, f.Close()) }()
		err = f.Seek(p.Head)
	}
	if err != nil {
		v.report.found("journal", "%v", err)
		return nil
	}
	rows, err := v.conn.PrepareContext(ctx, selectLedgerRows)
	if err != nil {
		return explain(v.path, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	c := &comparison{v: v, rows: rows, now: time.Now(), last: map[int64]uint64{}, numbers: map[shardOf]int64{}, cas: map[string]ca.CARecord{}}
	if err := c.read(ctx, f, p.Head); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{c.checkRows, c.checkRevoked, c.checkNumbers, c.checkCAs} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// read goes through the blocks. Those behind the database's place are verified and counted.
func (c *comparison) read(ctx context.Context, f *journal.File, until journal.Head) error {
	r := &c.v.report
	f.Rewind()
	reached := false
	for b, err := range f.Blocks() {
		switch {
		case reached && errors.Is(err, journal.ErrTorn):
			r.Torn = true
			return nil
		case err != nil:
			r.found("journal", "%v", err)
			return nil
		}
		r.Blocks++
		r.Records = b.Head.Seq
		if b.First == 1 && b.Records[0].Epoch == nil {
			r.found("journal", "%s: record 1 is not the epoch", r.Journal)
		}
		if reached {
			r.Pending += len(b.Records)
			continue
		}
		for at := 0; at < len(b.Records); at += lookUpBatch {
			part := b.Records[at:min(at+lookUpBatch, len(b.Records))]
			if err := c.compareAll(ctx, b.First+uint64(at), part); err != nil {
				return err
			}
		}
		reached = b.Head == until
	}
	if !reached {
		r.found("journal", "%s: no block ends where the database is, at record %d", r.Journal, until.Seq)
	}
	return nil
}

// lookUpBatch is how many rows are looked up by one query; one query a row would take most of the time.
const lookUpBatch = 4096

// ledgerRow is what a comparison needs of a row.
type ledgerRow struct {
	seq, reason, revoked, crl, invalidity int64
	status, shard                         int
	serial                                pkix.Serial
	key                                   pkix.KeyID
	blocked                               bool // the key
}

// lookUp reads the rows of the certificates in records, by id.
func (c *comparison) lookUp(ctx context.Context, records []journal.Record) (map[string]ledgerRow, error) {
	var ids []string
	for _, r := range records {
		if r.State != nil {
			ids = append(ids, r.State.Certificate.ID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	found, err := c.rows.QueryContext(ctx, string(list))
	if err != nil {
		return nil, explain(c.v.path, err)
	}
	rows := make(map[string]ledgerRow, len(ids))
	err = eachRow(found, func(scan scan) error {
		id, row, err := scanLedgerRow(scan)
		rows[id] = row
		return err
	})
	if err == nil && len(rows) < len(ids) {
		err = c.v.lookUpArchived(ctx, string(list), rows)
	}
	return rows, explain(c.v.path, err)
}

// compareAll compares records, the first of which has the number first.
func (c *comparison) compareAll(ctx context.Context, first uint64, records []journal.Record) error {
	rows, err := c.lookUp(ctx, records)
	if err != nil {
		return err
	}
	for i, r := range records {
		c.compare(first+uint64(i), r, rows)
	}
	return nil
}

func (c *comparison) compare(number uint64, r journal.Record, rows map[string]ledgerRow) {
	switch {
	case r.CA != nil:
		c.cas[r.CA.ID] = *r.CA
	case r.Number != nil:
		c.reach(r.Number.CAID, r.Number.Shard, r.Number.Number)
	case r.State != nil:
		c.reach(r.State.Certificate.CAID, r.State.Certificate.Shard, r.State.Certificate.CRLNumber)
		c.compareState(number, r.State, rows)
	case number != 1:
		c.v.report.found("journal", "%s: record %d begins an epoch in the middle", c.v.report.Journal, number)
	}
}

// reach notes a CRL number.
func (c *comparison) reach(caID string, shard int, number int64) {
	of := shardOf{caID, shard}
	c.numbers[of] = max(c.numbers[of], number)
}

func (c *comparison) compareState(number uint64, state *journal.State, rows map[string]ledgerRow) {
	s := &state.Certificate
	row, ok := rows[s.ID]
	switch {
	case !ok && s.NotAfter.Before(c.now):
		c.v.report.Gone++
		return
	case !ok:
		c.v.report.found("ledger", "certificate %s, serial %s, has no row; record %d of the journal says that it is %s", s.ID, s.Serial, number, s.Status)
		return
	}
	c.touched.set(row.seq)
	told := ledgerRow{
		seq: row.seq, status: revokedFlag(s), reason: int64(s.Reason), revoked: micros(s.RevokedAt), crl: s.CRLNumber,
		invalidity: micros(s.InvalidityDate), serial: s.Serial, shard: s.Shard, key: s.KeyHash,
		blocked: row.blocked || state.Blocked, // another certificate may be the cause
	}
	if row == told {
		c.same.set(row.seq)
		delete(c.last, row.seq)
		return
	}
	c.same.drop(row.seq)
	if _, ok := c.last[row.seq]; ok || len(c.last) < 1<<16 {
		c.last[row.seq] = number
	}
}

// checkRows names the rows that are not what the journal said last.
func (c *comparison) checkRows(ctx context.Context) error {
	for word, bits := range c.touched {
		for n := range int64(64) {
			seq := int64(word)*64 + n
			if bits&(1<<n) == 0 {
				continue
			}
			c.v.report.Certificates++
			if c.same.has(seq) {
				continue
			}
			name, err := c.v.nameOf(ctx, seq)
			if err != nil {
				return err
			}
			c.v.report.found("ledger", "%s: its row is not what record %d of the journal says, the last one of it", name, c.last[seq])
		}
	}
	return nil
}

// checkRevoked finds revoked rows that the journal has not told of.
func (c *comparison) checkRevoked(ctx context.Context) error {
	var unknown []int64
	err := c.v.each(ctx, `SELECT seq FROM certificates INDEXED BY certificates_revoked WHERE status = 1`, nil, func(scan scan) error {
		var seq int64
		err := scan(&seq)
		switch {
		case err != nil || c.touched.has(seq):
		case len(unknown) < maxFindings:
			unknown = append(unknown, seq)
		default:
			c.v.report.More++
		}
		return err
	})
	for _, seq := range unknown {
		if err != nil {
			return err
		}
		var name string
		if name, err = c.v.nameOf(ctx, seq); err == nil {
			c.v.report.found("ledger", "%s: it is revoked, and the journal does not know", name)
		}
	}
	return err
}

func (c *comparison) checkNumbers(ctx context.Context) error {
	err := c.v.each(ctx, `SELECT a.id, n.shard, n.number FROM crl_numbers n JOIN cas a ON a.ref = n.ca`, nil, func(scan scan) error {
		var of shardOf
		var number int64
		if err := scan(&of.ca, &of.shard, &number); err != nil {
			return err
		}
		if told := c.numbers[of]; told != number {
			c.v.report.found("ledger", "CA %s, shard %d: the CRL number is %d, the journal says %d", of.ca, of.shard, number, told)
		}
		delete(c.numbers, of)
		return nil
	})
	for of, number := range c.numbers {
		if number > 0 {
			c.v.report.found("ledger", "CA %s, shard %d has no CRL number, the journal says %d", of.ca, of.shard, number)
		}
	}
	return err
}

func (c *comparison) checkCAs(ctx context.Context) error {
	err := c.v.each(ctx, selectCAs, nil, func(scan scan) error {
		r, err := scanCA(scan)
		if err != nil {
			return err
		}
		switch told, ok := c.cas[r.ID]; {
		case !ok:
			c.v.report.found("ledger", "CA %s (%s): the journal does not know it", r.ID, r.Name)
		case !sameCA(told, r):
			c.v.report.found("ledger", "CA %s (%s): it is not the one of the journal", r.ID, r.Name)
		}
		delete(c.cas, r.ID)
		return nil
	})
	for id, r := range c.cas {
		c.v.report.found("ledger", "CA %s (%s) has no row, and is in the journal", id, r.Name)
	}
	return err
}

// sameCA compares all but times, which the ledger has in microseconds.
func sameCA(a, b ca.CARecord) bool {
	return a.Name == b.Name && a.Parent == b.Parent && a.KeyName == b.KeyName && a.Shards == b.Shards && a.Role == b.Role &&
		a.Retired == b.Retired && a.Imported == b.Imported && a.Untrusted == b.Untrusted && a.List.Number == b.List.Number &&
		a.Signer.KeyName == b.Signer.KeyName && bytes.Equal(a.Signer.DER, b.Signer.DER) && bytes.Equal(a.DER, b.DER) && bytes.Equal(a.Extra, b.Extra)
}
