package store

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"sync"
)

const defaultReaders = 4

// reader is the pool of connections that only read. In WAL mode they see the last commit and never wait for the writer.
// Long sequences have a pool of their own without a limit, so that whoever reads one may read others meanwhile.
type reader struct {
	path    string
	db      *sql.DB
	streams *sql.DB

	mu    sync.Mutex
	stmts map[string]*sql.Stmt // by text; the texts are few and fixed
}

func openReader(path string, conns int) (*reader, error) {
	if conns == 0 {
		conns = defaultReaders
	}
	name := dsn(path, url.Values{
		"mode":          {"ro"},
		"_query_only":   {"1"},
		"_busy_timeout": {"5000"},
		"_pragma":       {"cache_size(-8192)"},
	})
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, explain(path, err)
	}
	streams, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, errors.Join(explain(path, err), db.Close())
	}
	db.SetMaxOpenConns(max(conns, 2))
	db.SetMaxIdleConns(max(conns, 2))
	streams.SetMaxIdleConns(1)
	return &reader{path: path, db: db, streams: streams, stmts: map[string]*sql.Stmt{}}, nil
}

// prepare holds no lock while it waits for a connection: those that are prepared already have theirs.
func (r *reader) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if st := r.prepared(query, nil); st != nil {
		return st, nil
	}
	st, err := r.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, explain(r.path, err)
	}
	return r.prepared(query, st), nil
}

// prepared is the statement of a query, which is fresh where there is none yet.
func (r *reader) prepared(query string, fresh *sql.Stmt) *sql.Stmt {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.stmts[query]
	switch {
	case st == nil && fresh != nil:
		r.stmts[query] = fresh
		return fresh
	case fresh != nil:
		_ = fresh.Close() // somebody was faster
	}
	return st
}

// get reads one row into dest; sql.ErrNoRows when there is none.
func (r *reader) get(ctx context.Context, query string, args []any, dest ...any) error {
	st, err := r.prepare(ctx, query) //nolint:sqlclosecheck // kept for the next caller; close closes it
	if err != nil {
		return err
	}
	return explain(r.path, st.QueryRowContext(ctx, args...).Scan(dest...))
}

// row is get for a function that scans.
func (r *reader) row(ctx context.Context, query string, args ...any) scan {
	return func(dest ...any) error { return r.get(ctx, query, args, dest...) }
}

// each calls fn for each row of query.
func (r *reader) each(ctx context.Context, query string, args []any, fn func(scan) error) error {
	st, err := r.prepare(ctx, query) //nolint:sqlclosecheck // kept for the next caller; close closes it
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return explain(r.path, err)
	}
	return explain(r.path, eachRow(rows, fn))
}

// scan reads the columns of the current row.
type scan func(dest ...any) error

func eachRow(rows *sql.Rows, fn func(scan) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// collect returns one value a row.
func collect[T any](ctx context.Context, r *reader, query string, args []any, one func(scan) (T, error)) ([]T, error) {
	var all []T
	err := r.each(ctx, query, args, func(s scan) error {
		v, err := one(s)
		all = append(all, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

func (r *reader) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, st := range r.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, r.db.Close(), r.streams.Close())...)
}
