package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"sekisho/internal/store/journal"
)

// maxBatch is how many writes share one commit at most.
const maxBatch = 64

// A job is one caller's write. Its function runs in the writer's goroutine, at most once; what it stored counts only
// when done says nil.
type job struct {
	ctx  context.Context // the caller's: a job whose caller has gone before it starts is dropped
	run  func(context.Context, *tx) error
	done chan error
	err  error // of run
}

// writer owns the one connection that writes. Everything below jobs belongs to its goroutine.
//
//	callers ──jobs──▶ BEGIN ─▶ SAVEPOINT run RELEASE ─▶ SAVEPOINT run ROLLBACK TO ─▶ … ─▶ journal (fsync) ─▶ COMMIT (fsync) ──▶ answers
type writer struct {
	path  string
	fault func(point string) error
	stop  chan struct{} // closed to end run
	ended chan struct{} // closed when run has ended
	once  sync.Once
	jobs  chan *job // unbuffered: a job that is taken begins at once

	db *sql.DB
	tx tx

	journal   *journal.File    // nil: none
	pending   *journal.Pending // the last block that was written, or was to be
	attempted bool             // its transaction has come to COMMIT
}

func newWriter(path string, db *sql.DB, conn *sql.Conn, fault func(string) error) *writer {
	if fault == nil {
		fault = func(string) error { return nil }
	}
	return &writer{
		path: path, fault: fault, db: db,
		stop: make(chan struct{}), ended: make(chan struct{}), jobs: make(chan *job),
		tx: tx{conn: conn, stmts: map[string]*sql.Stmt{}},
	}
}

// do runs fn in a transaction and returns after the commit. An error of fn, of the commit, or of ctx before fn began
// means that nothing was stored; once fn has begun, ctx no longer matters and the answer is the true one.
func (w *writer) do(ctx context.Context, fn func(context.Context, *tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{ctx: ctx, run: fn, done: make(chan error, 1)}
	select {
	case w.jobs <- j:
		return <-j.done
	case <-ctx.Done():
		return ctx.Err()
	case <-w.stop:
		return ErrClosed
	}
}

// run serves jobs until stop is closed and nobody waits any more.
func (w *writer) run(ctx context.Context) {
	defer close(w.ended)
	for {
		select {
		case j := <-w.jobs:
			w.batch(ctx, j)
		case <-w.stop:
			for j := w.waiting(); j != nil; j = w.waiting() {
				w.batch(ctx, j)
			}
			return
		}
	}
}

// waiting returns a job whose caller waits now, or nil.
func (w *writer) waiting() *job {
	select {
	case j := <-w.jobs:
		return j
	default:
		return nil
	}
}

// batch runs first and everybody who waits meanwhile in one transaction, and answers them all after the commit: also
// those who were refused, since what refused them may be the write of another in the same batch.
func (w *writer) batch(ctx context.Context, first *job) {
	if err := w.begin(ctx); err != nil {
		first.done <- err
		return
	}
	var jobs []*job
	var broken error
	for j := first; j != nil; {
		jobs = append(jobs, j)
		if broken = w.one(ctx, j); broken != nil || len(jobs) == maxBatch {
			break
		}
		if j = w.waiting(); j == nil {
			runtime.Gosched() // callers that run are let come: one more in this commit costs a fraction of a commit of its own
			j = w.waiting()
		}
	}
	err := broken
	if err == nil {
		err = w.commit(ctx)
	}
	if err != nil {
		w.rollback(ctx)
		err = errors.Join(err, w.settle(ctx))
	}
	for _, j := range jobs {
		if err != nil {
			j.err = err
		}
		j.done <- j.err
	}
}

// one runs a job in its savepoint. It returns an error only when the transaction as a whole is lost.
func (w *writer) one(ctx context.Context, j *job) error {
	if j.err = j.ctx.Err(); j.err != nil {
		return nil
	}
	if err := w.tx.exec(ctx, "SAVEPOINT job"); err != nil {
		return explain(w.path, err)
	}
	noted := len(w.tx.records)
	w.tx.recalled = nil
	j.err = explain(w.path, j.run(ctx, &w.tx))
	if j.err != nil {
		w.tx.records = w.tx.records[:noted]
		// After a full disk or an I/O error SQLite may have rolled back everything; then there is no savepoint any more.
		if err := w.tx.exec(ctx, "ROLLBACK TO job"); err != nil {
			return fmt.Errorf("store: the transaction was lost: %w", j.err)
		}
	}
	if err := w.tx.exec(ctx, "RELEASE job"); err != nil {
		return explain(w.path, errors.Join(j.err, err))
	}
	return nil
}

// begin also ends a transaction that an earlier failure has left open.
func (w *writer) begin(ctx context.Context) error {
	w.tx.records = nil
	if err := w.settle(ctx); err != nil {
		return err
	}
	err := w.tx.exec(ctx, "BEGIN IMMEDIATE")
	if err != nil {
		w.rollback(ctx)
		err = w.tx.exec(ctx, "BEGIN IMMEDIATE")
	}
	return explain(w.path, err)
}

// commit writes the journal first: it must never be shorter than the database.
func (w *writer) commit(ctx context.Context) error {
	block, err := w.prepare(ctx)
	if err == nil && block != nil {
		err = w.writeJournal(block)
	}
	if err == nil {
		err = w.fault("before-commit")
	}
	if err != nil {
		return err
	}
	w.attempted = true
	if err := w.tx.exec(ctx, "COMMIT"); err != nil {
		return explain(w.path, err)
	}
	if block != nil {
		w.journal.Keep(block)
	}
	return w.fault("after-commit")
}

// rollback ends a transaction that may have ended by itself, in which case SQLite says so and there is nothing to do.
func (w *writer) rollback(ctx context.Context) {
	_ = w.tx.exec(ctx, "ROLLBACK")
}

// stopAndWait refuses new jobs and waits for those that were taken.
func (w *writer) stopAndWait() {
	w.once.Do(func() { close(w.stop) })
	<-w.ended
}

func (w *writer) close() error {
	err := errors.Join(w.tx.close(), w.db.Close())
	if w.journal != nil {
		err = errors.Join(err, w.journal.Close())
	}
	return err
}

// tx is what a job writes with: the writer's connection inside a transaction, with every statement prepared once.
type tx struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt

	journaled bool             // what the journal must tell is noted
	records   []journal.Record // of the transaction

	archive  *atomic.Pointer[archive] // the store's
	recalled []wholeRow               // brought back from it by the job
}

func (t *tx) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if st := t.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	t.stmts[query] = st
	return st, nil
}

func (t *tx) exec(ctx context.Context, query string, args ...any) error {
	st, err := t.prepare(ctx, query) //nolint:sqlclosecheck // kept for the next job; close closes it
	if err != nil {
		return err
	}
	_, err = st.ExecContext(ctx, args...)
	return err
}

// get reads one row into dest; sql.ErrNoRows when there is none.
func (t *tx) get(ctx context.Context, query string, args []any, dest ...any) error {
	st, err := t.prepare(ctx, query) //nolint:sqlclosecheck // kept for the next job; close closes it
	if err != nil {
		return err
	}
	return st.QueryRowContext(ctx, args...).Scan(dest...)
}

// row is get for a function that scans.
func (t *tx) row(ctx context.Context, query string, args ...any) scan {
	return func(dest ...any) error { return t.get(ctx, query, args, dest...) }
}

// each calls fn for each row of query. fn must not use t: the connection is busy until the last row.
func (t *tx) each(ctx context.Context, query string, args []any, fn func(scan) error) error {
	st, err := t.prepare(ctx, query) //nolint:sqlclosecheck // kept for the next job; close closes it
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return eachRow(rows, fn)
}

// has reports whether query yields a row.
func (t *tx) has(ctx context.Context, query string, args ...any) (bool, error) {
	var one int
	switch err := t.get(ctx, query, args, &one); {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	default:
		return err == nil, err
	}
}

func (t *tx) close() error {
	var errs []error
	for _, st := range t.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, t.conn.Close())...)
}
