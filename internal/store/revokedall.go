package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// revokedBatch is how many rows go from a reader to the loop at once.
const revokedBatch = 4096

// maxIssuers bounds the numbers of issuers, which are counted up from 1: one for each key that a CA of this house has had.
const maxIssuers = 1 << 15

// AllRevoked yields id, reason and time, in whole seconds, of every revoked certificate that expired no earlier than since, in no order: what
// [Store.Revoked] of every CA yields without the fields that only lists need, read by as many connections as there are
// processors, four at most. Each CA's shard is a view of its own, so a certificate that is revoked meanwhile may or may not
// be there: it is for the start, and for whoever hears of changes by another way. The error ends the sequence.
func (s *Store) AllRevoked(ctx context.Context, since time.Time) iter.Seq2[ca.RevokedRow, error] {
	return func(yield func(ca.RevokedRow, error) bool) {
		parts, err := s.revokedParts(ctx)
		if err != nil {
			yield(ca.RevokedRow{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		batches := make(chan []ca.RevokedRow)
		group, reading := errgroup.WithContext(ctx)
		group.SetLimit(min(runtime.GOMAXPROCS(0), 4))
		ended := make(chan error, 1)
		go func() {
			for _, p := range parts {
				group.Go(func() error { return s.readPart(reading, p, since, batches) })
			}
			ended <- group.Wait()
			close(batches)
		}()
		stopped := false
		for batch := range batches {
			for i := 0; i < len(batch) && !stopped; i++ {
				stopped = !yield(batch[i], nil)
			}
			if stopped {
				cancel() // and take what the readers are about to hand over, until they have ended
			}
		}
		switch err := <-ended; {
		case stopped:
		case err != nil:
			yield(ca.RevokedRow{}, explain(s.path, err))
		default:
			s.allArchived(ctx, since, yield)
		}
	}
}

// allArchived yields what was archived while a clock was ahead.
func (s *Store) allArchived(ctx context.Context, since time.Time, yield func(ca.RevokedRow, error) bool) {
	view, err := s.read.streams.BeginTx(ctx, nil)
	if err != nil {
		yield(ca.RevokedRow{}, explain(s.path, err))
		return
	}
	defer view.Rollback()
	s.archivedRevoked(ctx, view, revokedSelection{shard: -1, since: since}, yield)
}

// revokedPart is a run of the index of revoked certificates.
type revokedPart struct{ ca, shard int64 }

// revokedParts are the shards that have revoked certificates, found by leaps through the index: to the next shard of the
// CA, and from the last one to the next CA.
func (s *Store) revokedParts(ctx context.Context) (parts []revokedPart, err error) {
	const from = `SELECT ca, shard FROM certificates INDEXED BY certificates_revoked WHERE status = 1 AND `
	at := revokedPart{-1, -1}
	for {
		err := s.read.get(ctx, from+`ca = ? AND shard > ? ORDER BY shard LIMIT 1`, []any{at.ca, at.shard}, &at.ca, &at.shard)
		if errors.Is(err, sql.ErrNoRows) {
			err = s.read.get(ctx, from+`ca > ? ORDER BY ca, shard LIMIT 1`, []any{at.ca}, &at.ca, &at.shard)
		}
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return parts, nil
		case err != nil:
			return nil, err
		}
		parts = append(parts, at)
	}
}

// readPart hands over the rows of a part.
func (s *Store) readPart(ctx context.Context, p revokedPart, since time.Time, to chan<- []ca.RevokedRow) error {
	view, err := s.read.streams.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer view.Rollback()
	issuers, err := readIssuers(ctx, view)
	if err != nil {
		return err
	}
	for ref := range issuers {
		if ref >= maxIssuers {
			return fmt.Errorf("store: issuer number %d: at most %d are read", ref, maxIssuers)
		}
	}
	// Half of the cost of a row is that of its columns, so there are two: a number of 15 bits for the issuer, 8 for the reason
	// and 40 for the time in seconds, and the serial.
	found, err := view.QueryContext(ctx, `SELECT (issuer << 48) | (reason << 40) | ((revoked_at / 1000000) & 0xffffffffff), serial
		FROM certificates INDEXED BY certificates_revoked WHERE status = 1 AND ca = ? AND shard = ? AND not_after >= ?`, p.ca, p.shard, micros(since))
	if err != nil {
		return err
	}
	var batch []ca.RevokedRow
	send := func() error {
		select {
		case to <- batch:
			batch = nil
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var packed int64
	var serial sql.RawBytes
	dest := []any{&packed, &serial}
	err = eachRow(found, func(scan scan) error {
		if err := scan(dest...); err != nil {
			return err
		}
		key, ok := issuers[packed>>48]
		if !ok {
			return fmt.Errorf("store: a revoked certificate is of issuer number %d, which is not in the table of issuers", packed>>48)
		}
		if batch == nil {
			batch = make([]ca.RevokedRow, 0, revokedBatch)
		}
		batch = append(batch, ca.RevokedRow{
			ID:     pkix.CertID{Issuer: key, Serial: pkix.SerialFromBytes(serial)},
			Reason: pkix.Reason(packed >> 40 & 0xff), At: time.Unix(packed<<24>>24, 0).UTC(),
		})
		if len(batch) == cap(batch) {
			return send()
		}
		return nil
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return send()
}
