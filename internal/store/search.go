package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
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

// searchSQL is the two queries of a search; the page takes limit and offset as arguments after args. The totals of zones,
// profiles and states are kept ready; other matches are counted up to ca.MaxTotal.
func searchSQL(f ca.Filter) (count, page string, args []any, err error) {
	s, err := filterSQL(f)
	if err != nil {
		return "", "", nil, err
	}
	count = `SELECT coalesce(sum(c.n), 0) FROM certificate_counts c ` + s.where()
	if s.counted {
		count = fmt.Sprintf(`SELECT count(*) FROM (SELECT 1 FROM certificates c %s %s LIMIT %d)`, s.index, s.where(), ca.MaxTotal+1)
	}
	page = `SELECT ` + certificateColumns + ` FROM certificates c ` + s.index + ` JOIN cas a ON a.ref = c.ca JOIN issuers i ON i.ref = c.issuer ` +
		s.where() + ` ORDER BY ` + s.order + ` LIMIT ? OFFSET ?`
	return count, page, s.args, nil
}

// conditions is a WHERE clause, the index that leads to its rows ("": the planner's choice) and their order.
type conditions struct {
	conds   []string
	args    []any
	index   string
	order   string
	counted bool // its matches must be counted
}

func (s *conditions) add(cond string, arg any) {
	s.conds, s.args = append(s.conds, cond), append(s.args, arg)
}

func (s *conditions) where() string {
	if len(s.conds) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(s.conds, " AND ")
}

// filterSQL chooses the way to the rows: a condition that nearly names them (serial, fingerprint, key, common name, name),
// else the end of their life, else the hold, else the CA, else the zone. The columns of the other conditions are in the
// same index, or there are few rows left; "|| ”" and "+" keep the planner from walking a whole zone's index instead.
func filterSQL(f ca.Filter) (*conditions, error) {
	s := &conditions{order: "c.seq DESC"}
	s.naming(f)
	named := len(s.conds) > 0
	expiry := !f.ExpiresFrom.IsZero() || !f.ExpiresBefore.IsZero()
	zone, caID := "c.zone_id = ?", "+c.ca = (SELECT ref FROM cas WHERE id = ?)"
	switch {
	case named:
		zone, s.counted = "c.zone_id || '' = ?", true
	case expiry:
		s.index, s.order, s.counted = "INDEXED BY certificates_expiry", "c.not_after, c.seq", true
	case f.OnHold:
		s.index, s.counted = "INDEXED BY certificates_hold", true
	case f.CAID != "":
		s.index, caID, zone, s.counted = "INDEXED BY certificates_ca", strings.TrimPrefix(caID, "+"), "c.zone_id || '' = ?", true
	}
	if f.ZoneID != "" {
		s.add(zone, f.ZoneID)
	}
	if !f.ExpiresFrom.IsZero() {
		s.add(unindexed(named)+"c.not_after >= ?", micros(f.ExpiresFrom))
	}
	if !f.ExpiresBefore.IsZero() {
		s.add(unindexed(named)+"c.not_after < ?", micros(f.ExpiresBefore))
	}
	if f.CAID != "" {
		s.add(caID, f.CAID)
	}
	if err := s.state(f); err != nil {
		return nil, err
	}
	if f.Profile != "" {
		s.add("c.profile = ?", f.Profile)
	}
	return s, nil
}

func unindexed(yes bool) string {
	if yes {
		return "+"
	}
	return ""
}

// naming adds the conditions that leave few rows.
func (s *conditions) naming(f ca.Filter) {
	if f.Serial != nil {
		s.add("c.serial = ?", f.Serial.Bytes())
	}
	if f.Fingerprint != nil {
		s.add("c.fingerprint = ?", f.Fingerprint[:])
	}
	if f.Key != nil {
		s.add("c.key_hash = ?", f.Key[:])
	}
	if f.CommonName != "" {
		s.add("c.common_name = ?", f.CommonName)
	}
	if f.Name != "" {
		s.add("c.seq IN (SELECT seq FROM certificate_names WHERE name = ?)", f.Name)
	}
}

func (s *conditions) state(f ca.Filter) error {
	if f.OnHold {
		s.conds = append(s.conds, fmt.Sprintf("c.status = %d AND c.reason = %d", statusRevoked, pkix.CertificateHold))
		return nil
	}
	if f.Status == "" {
		return nil
	}
	code, err := statusCode(f.Status)
	if err == nil {
		s.add("c.status = ?", code)
	}
	return err
}
