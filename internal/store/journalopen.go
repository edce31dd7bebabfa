package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"sekisho/internal/store/journal"
)

const (
	journalName = "revocations.log"
	// newSuffix is of a journal that is being made. It takes its name after the database has committed to it.
	newSuffix = ".new"
)

// JournalPath is the file of the journal in its directory.
func JournalPath(dir string) string { return filepath.Join(dir, journalName) }

// journalOpener brings database and journal together before anything else is written.
type journalOpener struct {
	path  string // of the database
	file  string // of the journal
	cfg   journal.Config
	w     *writer
	log   *slog.Logger
	place place // of the database
	known bool
}

// openJournal opens the journal and makes it when neither database nor directory has one. A journal that is longer than
// the database knows is replayed; everything else that does not fit is ErrJournal.
func (s *Store) openJournal(ctx context.Context, cfg Config, log *slog.Logger) error {
	o := &journalOpener{path: s.path, w: s.write, log: log}
	if err := o.open(ctx, cfg); err != nil {
		return err
	}
	switch {
	case cfg.Journal.Dir == "":
		return nil
	case cfg.renew != nil:
		return cfg.renew(ctx, o)
	}
	if !o.known && absent(o.file) {
		return o.begin(ctx, beginning{epoch: 1, reason: "first start"})
	}
	f, err := journal.Open(o.cfg)
	if err == nil {
		s.write.journal = f // closed with the writer
		if err = o.seek(f); err == nil {
			err = o.replay(ctx, f)
		}
	}
	if err != nil {
		return journalError(s.path, err)
	}
	return nil
}

// seek goes to the database's place. A journal that was begun after the database was written begins with the state of
// that time, so all of it is to be replayed.
func (o *journalOpener) seek(f *journal.File) error {
	if !o.known || f.ID() != o.place.ID && f.Epoch() > o.place.epoch {
		f.Rewind()
		return nil
	}
	return f.Seek(o.place.Head)
}

// journalError adds ErrJournal to what journal and database do not agree on.
func journalError(path string, err error) error {
	for _, kind := range []error{journal.ErrMissing, journal.ErrBehind, journal.ErrForeign, journal.ErrDamaged, journal.ErrTorn} {
		if errors.Is(err, kind) {
			return fmt.Errorf("store: %s: %w: %w", path, ErrJournal, err)
		}
	}
	return fmt.Errorf("store: %w", err)
}

// open reads the database's place, and gets directory and key ready when a journal is wanted.
func (o *journalOpener) open(ctx context.Context, all Config) (err error) {
	cfg := all.Journal
	if o.place, o.known, err = o.w.tx.place(ctx); err != nil {
		return explain(o.path, err)
	}
	o.w.tx.journaled = o.known || cfg.Dir != ""
	if cfg.Dir == "" {
		return nil
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("store: directory of the revocation journal: %w", err)
	}
	if cfg.Key == nil {
		return fmt.Errorf("store: revocation journal in %s: no key to sign it with is given: %w", dir, os.ErrInvalid)
	}
	o.file = JournalPath(dir)
	// Whoever is asked for the key may make one, by which the journal that is missing would be a stranger when it is put back.
	if o.known && all.renew == nil && absent(o.file) && absent(o.file+newSuffix) {
		return journalError(o.path, fmt.Errorf("%w: %s", journal.ErrMissing, o.file))
	}
	signer, err := cfg.Key()
	if err != nil {
		return fmt.Errorf("store: key of the revocation journal: %w", err)
	}
	o.cfg = journal.Config{Path: o.file, Signer: signer, Fault: o.w.fault}
	return o.finish()
}

func absent(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// finish ends what a crash has left of a journal that was being made: it takes its name when the database has committed
// to it, and goes away when not. What was there before stays under another name.
func (o *journalOpener) finish() error {
	cfg := o.cfg
	cfg.Path += newSuffix
	if absent(cfg.Path) {
		return nil
	}
	f, err := journal.Open(cfg)
	if err != nil && !errors.Is(err, journal.ErrDamaged) && !errors.Is(err, journal.ErrForeign) {
		return err // it may well be the one that counts
	}
	ours := err == nil && o.known && f.ID() == o.place.ID
	if err == nil {
		err = f.Close()
	}
	if !ours {
		// What does not verify was never committed to: it was synced before that.
		if err := os.Remove(cfg.Path); err != nil {
			return fmt.Errorf("store: unfinished revocation journal: %w", err)
		}
		return nil
	}
	return errors.Join(err, o.install())
}

// install gives the new journal its name.
func (o *journalOpener) install() error {
	for n := 1; ; n++ {
		aside := fmt.Sprintf("%s.old-%d", o.file, n)
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		if err := os.Rename(o.file, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store: put the old revocation journal aside: %w", err)
		}
		break
	}
	if err := os.Rename(o.file+newSuffix, o.file); err != nil {
		return fmt.Errorf("store: new revocation journal: %w", err)
	}
	return syncDir(filepath.Dir(o.file))
}
