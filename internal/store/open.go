package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// openWriter opens the one connection that writes. synchronous=FULL fsyncs the WAL in every commit; NORMAL would lose
// acknowledged revocations when the power fails.
func openWriter(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, url.Values{
		"_busy_timeout": {"5000"},
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"1"},
		"_txlock":       {"immediate"},
		"_pragma": {
			"cache_size(-32768)",           // 32 MiB of pages
			"wal_autocheckpoint(4000)",     // 16 MiB: fewer, larger checkpoints
			"journal_size_limit(67108864)", // a WAL that grew under a long read shrinks to 64 MiB again
		},
	}))
	if err != nil {
		return nil, explain(path, err)
	}
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	return db, nil
}

func dsn(path string, query url.Values) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	return newProviderOf(db, migrations, "migrations")
}

// newProviderOf is newProvider with the migrations in a directory.
func newProviderOf(db *sql.DB, files fs.FS, dir string) (*goose.Provider, error) {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, sub)
	if err != nil {
		return nil, fmt.Errorf("store: migrations: %w", err)
	}
	return provider, nil
}

// migrate brings the schema up to date, or refuses one that is newer than this program.
func migrate(ctx context.Context, db *sql.DB, path string, log *slog.Logger) error {
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	return migrateWith(ctx, provider, path, log)
}

func migrateWith(ctx context.Context, provider *goose.Provider, path string, log *slog.Logger) error {
	have, want, err := provider.GetVersions(ctx)
	if err != nil {
		return explain(path, err)
	}
	if have > want {
		return fmt.Errorf("store: %s: %w: its schema is number %d, this program knows up to %d; run the newer sekisho or restore an older backup",
			path, ErrNewerSchema, have, want)
	}
	if have == want {
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("store: bring the schema of %s from %d to %d: %w", path, have, want, explain(path, err))
	}
	if have > 0 {
		log.InfoContext(ctx, "store schema brought up to date", "path", path, "from", have, "to", want)
	}
	return nil
}
