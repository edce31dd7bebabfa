package store

import (
	"context"
	"database/sql"
	"strings"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// conditions are those of a WHERE clause.
type conditions struct {
	texts []string
	args  []any
}

func (c *conditions) add(text string, args ...any) {
	c.texts, c.args = append(c.texts, text), append(c.args, args...)
}

// where is the clause; "" without conditions.
func (c *conditions) where() string {
	if len(c.texts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.texts, " AND ")
}

// namesOne reports whether f has a condition that nearly names the row: then its index is read and all else is looked at
// in the rows.
func namesOne(f ca.Filter) bool {
	return f.Serial != nil || f.Fingerprint != nil || f.Key != nil || f.Name != "" || f.CommonName != ""
}

// namedSource is what a search by a name reads.
type namedSource struct {
	from   string
	row    string // the column with the row's number
	key    string // the column that orders them
	sorted bool   // it yields rows by number, so that the newest come first without sorting
	conds  conditions
}

// newNamedSource reads by the first of f's names; the others are conditions.
func newNamedSource(f ca.Filter) namedSource {
	s := namedSource{row: "c.seq"}
	name := func(from string, sorted bool, cond string, arg any) {
		if s.from == "" {
			s.from, s.sorted = from, sorted
		}
		s.conds.add(cond, arg)
	}
	if f.Serial != nil {
		name("certificates c INDEXED BY certificates_serial", false, "c.serial = ?", f.Serial.Bytes())
	}
	if f.Fingerprint != nil {
		name("certificates c INDEXED BY certificates_fingerprint", true, "c.fingerprint = ?", f.Fingerprint[:])
	}
	if f.Key != nil {
		name("certificates c INDEXED BY certificates_key", true, "c.key_hash = ?", f.Key[:])
	}
	switch {
	case f.Name == "":
	case s.from == "":
		s.row = "n.seq"
		name("certificate_names n CROSS JOIN certificates c ON c.seq = n.seq", true, "n.name = ?", nameKey(f.Name))
	default:
		s.conds.add("EXISTS (SELECT 1 FROM certificate_names WHERE name = ? AND seq = c.seq)", nameKey(f.Name))
	}
	if f.CommonName != "" {
		name("certificates c INDEXED BY certificates_common_name", f.ZoneID != "", "c.common_name = ?", f.CommonName)
	}
	return s
}

// planNamed plans a search by a name.
func planNamed(ctx context.Context, view *sql.Tx, f ca.Filter) (p searchPlan, err error) {
	if f.Name != "" {
		if err := checkNames(ctx, view); err != nil {
			return p, err
		}
	}
	page, count, source, err := namedSQL(f)
	if err != nil {
		return p, err
	}
	if p.total, err = countTo(ctx, view, count, source.conds.args, exactTotal); err != nil || p.total == 0 {
		return p, err
	}
	if p.least = p.total > exactTotal; p.least && (!source.sorted || source.key != source.row) {
		return p, errWide("their order")
	}
	p.page, p.args = page, source.conds.args
	return p, nil
}

// namedSQL is the queries of a search by a name; count is to be bounded by countSQL.
func namedSQL(f ca.Filter) (page, count string, source namedSource, err error) {
	order, direction, err := orderOf(f)
	if err != nil {
		return "", "", source, err
	}
	source = newNamedSource(f)
	if err := source.conds.addRest(f); err != nil {
		return "", "", source, err
	}
	if source.key = source.row; order == "not_after" {
		source.key = "c.not_after"
	}
	tail := ` FROM ` + source.from + source.conds.where()
	inner := `SELECT ` + source.row + ` AS s, ` + source.key + ` AS k` + tail
	return pageSQL(inner, direction), `SELECT 1` + tail, source, nil
}

// addRest adds what f asks for beside names.
func (c *conditions) addRest(f ca.Filter) error {
	if f.ZoneID != "" {
		c.add("c.zone_id = ?", f.ZoneID)
	}
	if f.CAID != "" {
		c.add("c.ca = (SELECT ref FROM cas WHERE id = ?)", f.CAID)
	}
	if f.Profile != "" {
		c.add("c.profile = ?", f.Profile)
	}
	if f.Status != "" {
		code, err := statusCode(f.Status)
		if err != nil {
			return err
		}
		c.add("c.status = ?", code)
	}
	if f.OnHold {
		c.add("c.status = 1 AND c.reason = ?", int64(pkix.CertificateHold))
	}
	if f.Final {
		c.add("c.status = 1 AND c.reason <> ?", int64(pkix.CertificateHold))
	}
	c.addDates("not_after", f.ExpiresFrom, f.ExpiresBefore)
	c.addDates("issued_on", f.IssuedFrom, f.IssuedBefore)
	return nil
}
