package store

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// wholeCA is the shard of the list of a whole CA.
const wholeCA = -1

// publishedList is a CRL of the published directory and what it must be.
type publishedList struct {
	v      *verifier
	file   string
	crl    *pkix.CRL
	shard  int
	caRef  int64
	issuer int64 // of the rows
	number int64 // of the list
	base   int64 // of a delta, else 0
	ledger int64 // the ledger's number of the shard
	listed bitmap
}

// verifyLists compares every list of the directory with the ledger. There may be none.
func (v *verifier) verifyLists(ctx context.Context, dir string) error {
	cas, err := collect(ctx, v.read, selectCAs, nil, scanCA)
	if err != nil {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".crl" {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return v.verifyList(ctx, cas, path, rel)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("published CRLs in %s: %w", dir, err)
	}
	return nil
}

// verifyList looks at one file. What is wrong with it is a finding.
func (v *verifier) verifyList(ctx context.Context, cas []ca.CARecord, path, rel string) error {
	v.report.CRLs++
	name, shard, delta, ok := listName(rel)
	l := &publishedList{v: v, file: path, shard: shard}
	var issuer *ca.CARecord
	for i := range cas {
		if cas[i].ID == name || cas[i].Name == name {
			issuer = &cas[i]
		}
	}
	if !ok || issuer == nil {
		v.report.found(path, "it is the list of no CA and shard; names are CA/SHARD.crl, CA/SHARD-delta.crl and CA.crl")
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if shard == wholeCA && issuer.Shards <= 1 {
		l.shard = 0 // its only shard is all of it
	}
	cert, err := x509.ParseCertificate(issuer.DER)
	if err != nil {
		return fmt.Errorf("CA %s: %w", issuer.Name, err)
	}
	if l.crl, err = pkix.ParseCRLHeader(data); err == nil {
		err = l.crl.CheckSignature(cert.PublicKey)
	}
	switch {
	case err != nil:
		v.report.found(path, "%v", err)
		return nil
	case l.crl.Number == nil || !l.crl.Number.IsInt64() || delta != (l.crl.BaseNumber != nil):
		v.report.found(path, "its number (%v) or base (%v) is not that of such a list", l.crl.Number, l.crl.BaseNumber)
		return nil
	}
	l.number = l.crl.Number.Int64()
	if delta {
		l.base = l.crl.BaseNumber.Int64()
	}
	if err := l.place(ctx, issuer.ID, pkix.KeyIDOf(cert)); err != nil {
		return err
	}
	if l.number > l.ledger {
		v.report.found(path, "its number is %d, the ledger's %d", l.number, l.ledger)
	}
	if l.number < l.ledger {
		v.report.CRLsBehind++
	}
	if err := l.entries(ctx); err != nil {
		return err
	}
	return l.missing(ctx)
}

// listName reads CA/SHARD.crl, CA/SHARD-delta.crl, CA.crl and CA-delta.crl.
func listName(rel string) (name string, shard int, delta, ok bool) {
	rest, delta := strings.CutSuffix(strings.TrimSuffix(filepath.ToSlash(rel), ".crl"), "-delta")
	name, number, sharded := strings.Cut(rest, "/")
	if !sharded {
		return name, wholeCA, delta, name != ""
	}
	shard, err := strconv.Atoi(number)
	return name, shard, delta, err == nil && shard >= 0
}

func (l *publishedList) place(ctx context.Context, caID string, key pkix.KeyID) error {
	row := l.v.conn.QueryRowContext(ctx, `SELECT ref, coalesce((SELECT number FROM crl_numbers WHERE ca = ref AND shard = ?), 0),
		coalesce((SELECT ref FROM issuers WHERE key = ?), -1) FROM cas WHERE id = ?`, l.shard, key[:], caID)
	return explain(l.v.path, row.Scan(&l.caRef, &l.ledger, &l.issuer))
}

// entries demands that each entry is of a certificate that is revoked, or was when the list was made.
func (l *publishedList) entries(ctx context.Context) (err error) {
	const query = `SELECT seq, status, crl_number FROM certificates WHERE serial = ? AND issuer = ?`
	st, err := l.v.conn.PrepareContext(ctx, query)
	if err != nil {
		return explain(l.v.path, err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	walk := l.crl.Walk(func(e pkix.CRLRecord) error {
		l.v.report.Entries++
		var seq, number int64
		var status int
		err := st.QueryRowContext(ctx, e.Serial, l.issuer).Scan(&seq, &status, &number)
		serial := pkix.SerialFromBytes(e.Serial)
		if errors.Is(err, sql.ErrNoRows) && l.v.archive != nil { // it left since, and the next list leaves it out
			err = l.v.archive.get(ctx, query, []any{e.Serial, l.issuer}, &seq, &status, &number)
		}
		if errors.Is(err, sql.ErrNoRows) {
			l.v.report.found(l.file, "it lists the serial %s, which the ledger does not know", serial)
			return nil
		}
		if err != nil {
			return explain(l.v.path, err)
		}
		l.listed.set(seq)
		removed := e.Reason == pkix.RemoveFromCRL
		// What changed after the list was made may be otherwise by now. A list of all shards has numbers of its own, which
		// do not tell that of a row.
		changed := number > l.number || l.shard == wholeCA && number > 0
		if removed != (status == statusActive) && !changed {
			l.v.report.found(l.file, "it says of the serial %s what is not so: removed from the list %t, status %s",
				serial, removed, map[int]ca.Status{statusActive: ca.Active, statusRevoked: ca.Revoked}[status])
		}
		return nil
	})
	if errors.Is(walk, pkix.ErrCRLMalformed) || errors.Is(walk, pkix.ErrCRLCritical) {
		l.v.report.found(l.file, "%v", walk)
		return nil
	}
	return walk
}

// missing finds revoked certificates that have not ended and should be on the list.
func (l *publishedList) missing(ctx context.Context) error {
	query := `SELECT seq, crl_number, revoked_at FROM certificates INDEXED BY certificates_revoked WHERE status = 1 AND ca = ? AND not_after >= ?`
	args := []any{l.caRef, micros(time.Now())}
	if l.shard != wholeCA {
		query, args = query+` AND shard = ?`, append(args, l.shard)
	}
	var names []int64
	err := l.v.each(ctx, query, args, func(scan scan) error {
		var seq, number, at int64
		err := scan(&seq, &number, &at)
		switch {
		case err != nil || l.listed.has(seq) || !l.due(number, fromMicros(at)):
		case len(names) < maxFindings:
			names = append(names, seq)
		default:
			l.v.report.More++
		}
		return err
	})
	for _, seq := range names {
		if err != nil {
			return err
		}
		var name string
		if name, err = l.v.nameOf(ctx, seq); err == nil {
			l.v.report.found(l.file, "%s is revoked and not on the list", name)
		}
	}
	return err
}

// listSlack is how long before the time of a list of all shards a certificate was revoked for sure, if it must be in it.
const listSlack = 2 * time.Minute

// due reports whether a certificate that was revoked with a CRL number at a time must be on the list.
func (l *publishedList) due(number int64, at time.Time) bool {
	switch {
	case number == 0: // it came revoked from elsewhere, and no number tells when
		return false
	case l.shard == wholeCA:
		return at.Before(l.crl.ThisUpdate.Add(-listSlack))
	}
	return number > l.base && number <= l.number
}
