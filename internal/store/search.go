package store

import (
	"context"
	"database/sql"
	"strings"

	"sekisho/internal/ca"
)

const (
	defaultPage = 50
	maxPage     = 1000
)

// Certificates implements ca.Ledger. Newest means recorded last. Rows and total are of one view.
func (s *Store) Certificates(ctx context.Context, f ca.Filter) (rows []ca.Certificate, total int, err error) {
	countSQL, pageSQL, args, err := searchSQL(f)
	if err != nil {
		return nil, 0, err
	}
	count, err := s.read.prepare(ctx, countSQL)
	if err != nil {
		return nil, 0, err
	}
	page, err := s.read.prepare(ctx, pageSQL)
	if err != nil {
		return nil, 0, err
	}
	view, err := s.read.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, 0, explain(s.path, err)
	}
	defer view.Rollback()
	// Statements of a transaction end with it.
	if err := view.StmtContext(ctx, count).QueryRowContext(ctx, args...).Scan(&total); err != nil { //nolint:sqlclosecheck // see above
		return nil, 0, explain(s.path, err)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	found, err := view.StmtContext(ctx, page).QueryContext(ctx, append(args, min(limit, maxPage), max(f.Offset, 0))...) //nolint:sqlclosecheck // see above
	if err != nil {
		return nil, 0, explain(s.path, err)
	}
	rows, err = scanPage(found)
	return rows, total, explain(s.path, err)
}

func scanPage(found *sql.Rows) (rows []ca.Certificate, err error) {
	err = eachRow(found, func(scan scan) error {
		c, err := scanCertificate(scan)
		rows = append(rows, c)
		return err
	})
	return rows, err
}

// searchSQL is the two queries of a search; the page takes limit and offset as arguments after args. Rows are counted
// only where a condition that nearly names them leaves few; the other totals are kept ready.
func searchSQL(f ca.Filter) (count, page string, args []any, err error) {
	where, args, err := filterSQL(f)
	count = `SELECT coalesce(sum(c.n), 0) FROM certificate_counts c ` + where
	if f.Serial != nil || f.Fingerprint != nil || f.Key != nil || f.CommonName != "" {
		count = `SELECT count(*) FROM certificates c ` + where
	}
	return count, selectCertificate + where + ` ORDER BY c.seq DESC LIMIT ? OFFSET ?`, args, err
}

// filterSQL is the WHERE clause of a filter. Where a condition that nearly names the row is present (serial,
// fingerprint, key, common name), "|| ”" keeps the planner from walking a whole zone's index instead.
func filterSQL(f ca.Filter) (where string, args []any, err error) {
	var conds []string
	add := func(cond string, arg any) {
		conds = append(conds, cond)
		args = append(args, arg)
	}
	if f.Serial != nil {
		add("c.serial = ?", f.Serial.Bytes())
	}
	if f.Fingerprint != nil {
		add("c.fingerprint = ?", f.Fingerprint[:])
	}
	if f.Key != nil {
		add("c.key_hash = ?", f.Key[:])
	}
	if f.CommonName != "" {
		add("c.common_name = ?", f.CommonName)
	}
	zone := "c.zone_id = ?"
	if len(conds) > 0 {
		zone = "c.zone_id || '' = ?"
	}
	if f.ZoneID != "" {
		add(zone, f.ZoneID)
	}
	if f.Status != "" {
		code, err := statusCode(f.Status)
		if err != nil {
			return "", nil, err
		}
		add("c.status = ?", code)
	}
	if f.Profile != "" {
		add("c.profile = ?", f.Profile)
	}
	if len(conds) == 0 {
		return "", nil, nil
	}
	return "WHERE " + strings.Join(conds, " AND "), args, nil
}
