package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"sekisho/internal/ca"
)

const (
	defaultPage = 50
	maxPage     = 1000
	// exactTotal is how many matches are counted where counting means reading, and sorted where no index has the order.
	exactTotal = ca.MaxTotal
	// sortedTotal is how many are sorted where that means reading an index alone: a tenth of a second.
	sortedTotal = 100_000
	// searchTime bounds one search; a search that an index answers takes milliseconds.
	searchTime = 5 * time.Second
)

// Certificates implements ca.Ledger.
func (s *Store) Certificates(ctx context.Context, f ca.Filter) (rows []ca.Certificate, total int, err error) {
	found, err := s.Search(ctx, f)
	return found.Rows, found.Total, err
}

// Search implements ca.Ledger. Rows and total are of one view. What is looked for by serial number or fingerprint and is
// not in the ledger is looked for in the archive too.
func (s *Store) Search(ctx context.Context, f ca.Filter) (ca.Found, error) {
	db := s.read
	if f.Archived {
		if db = s.archived(); db == nil {
			return ca.Found{}, nil
		}
	}
	found, err := db.search(ctx, f)
	if err == nil && found.Total == 0 && !f.Archived && (f.Serial != nil || f.Fingerprint != nil) {
		if db := s.archived(); db != nil {
			return db.search(ctx, f)
		}
	}
	return found, err
}

func (r *reader) search(ctx context.Context, f ca.Filter) (ca.Found, error) {
	bounded, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	found, err := r.searchBounded(bounded, f)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("store: stopped after %v: %w: add a serial number, a name, a range of dates or a CA", searchTime, ca.ErrTooWide)
	}
	if err != nil {
		return ca.Found{}, explain(r.path, err)
	}
	return found, nil
}

func (r *reader) searchBounded(ctx context.Context, f ca.Filter) (found ca.Found, err error) {
	if f.Limit <= 0 {
		f.Limit = defaultPage
	}
	f.Limit, f.Offset = min(f.Limit, maxPage), max(f.Offset, 0)
	view, err := r.db.BeginTx(ctx, nil)
	if err != nil {
		return found, err
	}
	defer view.Rollback()
	var p searchPlan
	if namesOne(f) {
		p, err = planNamed(ctx, view, f)
	} else {
		p, err = planList(ctx, view, f)
	}
	if err != nil || p.page == "" {
		return found, err
	}
	rows, err := view.QueryContext(ctx, p.page, append(p.args, f.Limit, f.Offset)...)
	if err != nil {
		return found, err
	}
	if found.Rows, err = scanPage(rows); err != nil {
		return found, err
	}
	found.Total, found.AtLeast = p.totalOf(f, len(found.Rows))
	return found, nil
}

func scanPage(found *sql.Rows) (rows []ca.Certificate, err error) {
	err = eachRow(found, func(scan scan) error {
		c, err := scanCertificate(scan)
		rows = append(rows, c)
		return err
	})
	return rows, err
}

// searchPlan is how a search is answered. page takes limit and offset after args; "" finds nothing.
type searchPlan struct {
	page  string
	args  []any
	total int
	least bool // more than total may match
}

// totalOf is the total after a page of n rows was read: what was counted, or what the page itself shows.
func (p searchPlan) totalOf(f ca.Filter, n int) (total int, least bool) {
	if !p.least {
		return p.total, false
	}
	shown := f.Offset + n
	switch {
	case n == f.Limit:
		return max(p.total, shown+1), true
	case n > 0 || f.Offset == 0:
		return shown, false
	}
	return p.total, true
}

// pageSQL is the rows that inner selects (s is the row, k what it is ordered by), in that order.
func pageSQL(inner, order string) string {
	return selectPrefix + `(` + inner + ` ORDER BY k` + order + `, s` + order + ` LIMIT ? OFFSET ?) p CROSS JOIN certificates c ON c.seq = p.s
	JOIN cas a ON a.ref = c.ca JOIN issuers i ON i.ref = c.issuer ORDER BY p.k` + order + `, p.s` + order
}

const selectPrefix = `SELECT ` + certificateColumns + ` FROM `

func orderOf(f ca.Filter) (key, direction string, err error) {
	switch {
	case f.Order == ca.Soonest, f.Order == "" && expires(f):
		return "not_after", "", nil
	case f.Order == ca.Newest, f.Order == "":
		return "issued_on", " DESC", nil
	}
	return "", "", fmt.Errorf("store: there is no order %q", string(f.Order))
}

// errWide refuses a search whose answer would have to be sorted first.
func errWide(what string) error {
	return fmt.Errorf("store: more than %d certificates match and no index has %s: %w: narrow it by a serial number, a name, a CA or shorter ranges of dates",
		exactTotal, what, ca.ErrTooWide)
}

// countTo counts what query yields, up to one more than most.
func countTo(ctx context.Context, view *sql.Tx, query string, args []any, most int) (n int, err error) {
	err = view.QueryRowContext(ctx, countSQL(query), append(args, most+1)...).Scan(&n)
	return n, err
}

func countSQL(query string) string { return `SELECT count(*) FROM (` + query + ` LIMIT ?)` }

// checkNames refuses a search by name while older certificates have none.
func checkNames(ctx context.Context, view *sql.Tx) error {
	var left int64
	err := view.QueryRowContext(ctx, `SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?`, namesLeft).Scan(&left)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("store: %w, %d at most are left: a running server does it, try again later", ca.ErrNamesPending, left)
}
