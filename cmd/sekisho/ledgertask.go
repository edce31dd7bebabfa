package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/store"
)

// archivePause is how long after a round of archiving the next one begins.
const archivePause = time.Hour

// keepLedger does what the ledger needs in the background: it makes certificates from before an upgrade searchable by
// their names, then archives those that ended longer ago than after; 0: none. It returns nil when ctx ends.
func (h *house) keepLedger(ctx context.Context, after time.Duration) error {
	start := time.Now()
	if err := h.store.IndexNames(ctx); err != nil && ctx.Err() == nil {
		h.logger.ErrorContext(ctx, "certificates of before an upgrade cannot be found by name; the next start goes on with it", "error", err)
	} else if took := time.Since(start); err == nil && took > time.Second {
		h.logger.InfoContext(ctx, "names of certificates made searchable", "seconds", took.Seconds())
	}
	for after > 0 {
		moved, err := h.archive(ctx, after)
		if moved > 0 {
			h.logger.InfoContext(ctx, "certificates archived", "certificates", moved, "ended_before", time.Now().Add(-after).UTC())
		}
		if err != nil && ctx.Err() == nil {
			h.logger.ErrorContext(ctx, "certificates not archived, tried again later", "error", err, "again_in", archivePause.String())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(archivePause):
		}
	}
	return nil
}

// archive moves what ended longer ago than after, and before every CRL that is published now: RFC 5280, Section 3.3: an
// entry stays until a CRL that was issued after the certificate's end has carried it.
func (h *house) archive(ctx context.Context, after time.Duration) (moved int, err error) {
	before := time.Now().Add(-after)
	cas, err := h.authority.CAs(ctx)
	if err != nil {
		return 0, err
	}
	for _, r := range cas {
		if r.KeyName == "" { // its CRLs are made where its key is
			continue
		}
		for shard := range r.Shards {
			crl, err := h.authority.CRL(ctx, r.ID, shard)
			if err != nil && !errors.Is(err, ca.ErrNotFound) {
				return 0, fmt.Errorf("before certificates may leave the ledger: %w", err)
			}
			if err == nil && crl.ThisUpdate.Before(before) {
				before = crl.ThisUpdate
			}
		}
	}
	for {
		entry := auditlog.Entry{At: time.Now().UTC(), Actor: "sekisho", Action: "ledger.archive", Object: "certificates", Outcome: "done"}
		n, err := h.store.Archive(ctx, before, entry)
		if moved += n; err != nil || n == 0 {
			return moved, err
		}
	}
}

// checkArchive refuses to archive what a start must still know.
func (c PKIConfig) checkArchive() error {
	if c.ArchiveAfter == 0 || c.ArchiveAfter >= store.MinArchiveAge {
		return nil
	}
	return fmt.Errorf("pki.archive_after %s: want at least %s (366 days), or leave it out to archive nothing: revoked certificates that ended within "+
		"a year are loaded at each start, so that a clock that was ahead and is set right lets none of them in again", c.ArchiveAfter, store.MinArchiveAge)
}
