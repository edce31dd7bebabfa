package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"sekisho/internal/ca"
)

// maxRuns bounds how many runs of an index one list is merged of; SQLite takes 500.
const maxRuns = 200

// run is the part of an index that has one zone, CA, profile and status: in the order of a list.
type run struct {
	zone    string
	ca      int64
	profile string
	status  int
	n       int // how many certificates
}

// readRuns finds the runs that a list is made of.
func readRuns(ctx context.Context, view *sql.Tx, f ca.Filter) (runs []run, err error) {
	var c conditions
	c.add("n > 0")
	if f.ZoneID != "" {
		c.add("zone_id = ?", f.ZoneID)
	}
	if f.CAID != "" {
		c.add("ca = (SELECT ref FROM cas WHERE id = ?)", f.CAID)
	}
	if f.Profile != "" {
		c.add("profile = ?", f.Profile)
	}
	if f.Status != "" {
		code, err := statusCode(f.Status)
		if err != nil {
			return nil, err
		}
		c.add("status = ?", code)
	}
	if f.OnHold || f.Final {
		c.add("status = 1")
	}
	query := `SELECT zone_id, ca, profile, status, n FROM certificate_counts` + c.where() //nolint:gosec // the conditions are the constants above
	found, err := view.QueryContext(ctx, query, c.args...)
	if err != nil {
		return nil, err
	}
	err = eachRow(found, func(scan scan) error {
		var r run
		err := scan(&r.zone, &r.ca, &r.profile, &r.status, &r.n)
		runs = append(runs, r)
		return err
	})
	return runs, err
}

// planList plans a search without a name.
func planList(ctx context.Context, view *sql.Tx, f ca.Filter) (p searchPlan, err error) {
	key, direction, err := orderOf(f)
	if err != nil {
		return p, err
	}
	runs, err := readRuns(ctx, view, f)
	if err != nil || len(runs) == 0 {
		return p, err
	}
	if len(runs) > maxRuns {
		return p, fmt.Errorf("store: the list is over %d zones, CAs and profiles: %w: choose a zone or a CA", len(runs), ca.ErrTooWide)
	}
	l := listSource{filter: f, runs: runs, index: indexOf(key, f), key: key}
	if !expires(f) && !issued(f) && !f.OnHold && !f.Final {
		for _, r := range runs {
			p.total += r.n
		}
	} else if p.total, p.least, err = l.choose(ctx, view); err != nil {
		return p, err
	}
	inner, args := l.sql()
	p.page, p.args = pageSQL(inner, direction), args
	return p, nil
}

func indexOf(key string, f ca.Filter) string {
	switch {
	case key == "not_after":
		return "certificates_expiry"
	case f.OnHold:
		return "certificates_hold"
	}
	return "certificates_newest"
}

// listSource is the runs of one index, and the column that orders the list.
type listSource struct {
	filter ca.Filter
	runs   []run
	index  string
	key    string
}

// choose counts the matches as far as that is cheap. Where another index than that of the order has few that can match,
// it is read instead, and sorted: thirty certificates that end this week are not looked for among ten million.
func (l *listSource) choose(ctx context.Context, view *sql.Tx) (total int, least bool, err error) {
	most := exactTotal
	if other := l.other(); other.index != l.index {
		// What is new is found soon in the order of issuing, whatever ends it may have; what ends soon is nowhere near in
		// any other order.
		if l.key == "not_after" {
			most = sortedTotal
		}
		narrow := other
		narrow.filter = other.ownRange()
		query, args := narrow.sql()
		if total, err = countTo(ctx, view, query, args, most); err != nil {
			return 0, false, err
		}
		if total > most {
			// Nothing is known of how many of them pass the other conditions, if there are any.
			if expires(l.filter) && issued(l.filter) || l.filter.OnHold || l.filter.Final {
				total = 0
			}
			return total, true, nil
		}
		*l = other
	}
	query, args := l.sql()
	total, err = countTo(ctx, view, query, args, most)
	return total, total > most, err
}

// other is the same list by another index that may have few matches; the list itself when there is none.
func (l *listSource) other() listSource {
	other := *l
	switch {
	case l.key == "issued_on" && expires(l.filter):
		other.index = "certificates_expiry"
	case l.key == "not_after" && l.filter.OnHold:
		other.index = "certificates_hold"
	case l.key == "not_after" && issued(l.filter):
		other.index = "certificates_newest"
	}
	return other
}

// ownRange is the conditions that the index itself narrows.
func (l *listSource) ownRange() ca.Filter {
	f := l.filter
	switch l.index {
	case "certificates_expiry":
		f.IssuedFrom, f.IssuedBefore, f.OnHold, f.Final = time.Time{}, time.Time{}, false, false
	default:
		f.ExpiresFrom, f.ExpiresBefore, f.Final = time.Time{}, time.Time{}, false
	}
	return f
}

// sql selects the rows of all runs with the column that orders them. Each run is read in the order of the index, and
// the runs are merged. Status and reason are written out, which is how SQLite knows that a partial index has them.
func (l *listSource) sql() (query string, args []any) {
	parts := make([]string, len(l.runs))
	for i, r := range l.runs {
		var c conditions
		c.add("c.zone_id = ?", r.zone)
		c.add("c.ca = ?", r.ca)
		c.add("c.profile = ?", r.profile)
		c.add(fmt.Sprintf("c.status = %d", r.status))
		if l.filter.OnHold {
			c.add("c.reason = 6")
		}
		if l.filter.Final {
			c.add("c.reason <> 6")
		}
		c.addDates("not_after", l.filter.ExpiresFrom, l.filter.ExpiresBefore)
		c.addDates("issued_on", l.filter.IssuedFrom, l.filter.IssuedBefore)
		parts[i] = `SELECT c.seq AS s, c.` + l.key + ` AS k FROM certificates c INDEXED BY ` + l.index + c.where()
		args = append(args, c.args...)
	}
	return strings.Join(parts, " UNION ALL "), args
}

// addDates adds a range of a date; the zero times do not bound it.
func (c *conditions) addDates(column string, from, before time.Time) {
	if !from.IsZero() {
		c.add("c."+column+" >= ?", micros(from))
	}
	if !before.IsZero() {
		c.add("c."+column+" < ?", micros(before))
	}
}

func expires(f ca.Filter) bool { return !f.ExpiresFrom.IsZero() || !f.ExpiresBefore.IsZero() }

func issued(f ca.Filter) bool { return !f.IssuedFrom.IsZero() || !f.IssuedBefore.IsZero() }
