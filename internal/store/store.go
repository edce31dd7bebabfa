// Package store keeps everything durable in one SQLite database: the CA's ledger, zones and their settings, tokens,
// sealed session ticket keys, and the audit log. It implements the small interfaces that the packages above declare
// (ca.Ledger, site.Records, principal.Tokens, the edge's ticket store).
//
// A write is acknowledged after it is on disk (WAL, synchronous=FULL), together with its audit record or not at all.
// One goroutine writes; writers that wait at the same time share one commit, each in a savepoint of its own, so one that
// is refused does not disturb the others. Reads have connections of their own and never wait for a write.
//
// It refuses a data directory that another process has open ([ErrLocked]) and a database that a newer sekisho has
// written ([ErrNewerSchema]). It keeps no private key: those are in package keystore.
//
//	s, err := store.Open(ctx, store.Config{Dir: "/var/lib/sekisho"})
//	if err != nil {
//		return err
//	}
//	defer s.Close()
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"sekisho/internal/ca"
	"sekisho/internal/principal"
	"sekisho/internal/site"
)

const fileName = "sekisho.db"

// Config says where the store is. Dir must be set.
type Config struct {
	Dir     string       // data directory, made with mode 0700 when absent
	Logger  *slog.Logger // nil: slog.Default()
	Readers int          // read connections; 0: 4, at least 2
	Journal JournalConfig

	// Fault, when set, is called in the writer at "before-commit" and "after-commit" of each group of writes; an error
	// fails the whole group, after-commit although it is stored. Groups that the journal must tell of come to
	// "before-journal" and "after-journal" (it is on disk) first, and inside of it to the points of [journal.Config]. It
	// exists for tests of what happens then.
	Fault func(point string) error

	renew func(context.Context, *journalOpener) error // of RenewJournal
}

// Store is an open database. It is safe for concurrent use.
type Store struct {
	path  string
	lock  *os.File
	write *writer // it has the journal
	read  *reader
	log   *slog.Logger

	archive atomic.Pointer[archive] // nil: nothing was ever archived

	tokens remembered[map[[32]byte]principal.Token] // by hash
	zones  remembered[[]site.Zone]

	closing sync.Once
	closed  error
}

var (
	_ ca.Ledger        = (*Store)(nil)
	_ site.Records     = (*Store)(nil)
	_ principal.Tokens = (*Store)(nil)
)

// Open opens the store in cfg.Dir, makes it when there is none, and brings its schema up to date. It holds an exclusive
// lock on the directory until Close. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil || cfg.Dir == "" {
		return nil, fmt.Errorf("store: data directory %q: name one: %w", cfg.Dir, errors.Join(err, os.ErrInvalid))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: data directory: %w", err)
	}
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	s := &Store{path: filepath.Join(dir, fileName), lock: lock}
	if err := s.open(ctx, cfg); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, cfg Config) error {
	if err := createFile(s.path); err != nil {
		return err
	}
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	db, err := openWriter(s.path)
	if err != nil {
		return err
	}
	if err := migrate(ctx, db, s.path, log); err != nil {
		return errors.Join(err, db.Close())
	}
	if err := syncDir(filepath.Dir(s.path)); err != nil {
		return errors.Join(err, db.Close())
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return errors.Join(explain(s.path, err), db.Close())
	}
	if s.read, err = openReader(s.path, cfg.Readers); err != nil {
		return errors.Join(err, conn.Close(), db.Close())
	}
	s.log = log
	s.write = newWriter(s.path, db, conn, cfg.Fault)
	s.write.tx.archive = &s.archive
	err = s.openArchive(ctx, log) // first: what the journal brings forward may be in it
	if err == nil {
		err = s.openJournal(ctx, cfg, log)
	}
	if err != nil {
		return errors.Join(err, s.closeArchive(), s.read.close(), s.write.close())
	}
	// The writer outlives ctx: it ends with Close, which waits for it.
	go s.write.run(context.WithoutCancel(ctx))
	return nil
}

// Close waits for writes that have begun, refuses later ones with [ErrClosed], and frees the data directory. Sequences
// that [Store.Revoked] returned must have ended. Calling it again returns the same error.
func (s *Store) Close() error {
	s.closing.Do(func() {
		// Readers first: the last connection to close, the writer's, checkpoints and removes the WAL.
		s.write.stopAndWait()
		s.closed = errors.Join(s.closeArchive(), s.read.close(), s.write.close(), s.lock.Close())
	})
	return s.closed
}

// Path is the database file.
func (s *Store) Path() string { return s.path }

// createFile makes the database file readable by its owner only; SQLite gives its WAL the same mode. It must come before
// the first SQLite connection: closing a descriptor of the file drops the process's POSIX locks on it.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if err := f.Chmod(0o600); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("store: sync %s: %w", dir, err)
	}
	return nil
}

// notFound turns the absence of a row into err.
func notFound(err, as error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return as
	}
	return err
}
