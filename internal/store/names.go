package store

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// namesLeft is the key of meta that says from which certificate down there are no names yet; absent: all have.
	namesLeft = "names_left"
	// namesBatch is how many certificates are given their names in one transaction: writers wait about a millisecond.
	namesBatch = 32
	// maxDomains bounds the domains above one host name that it is found by, those next to the root first.
	maxDomains = 8
)

// nameKey is how a name is written in certificate_names: host names and addresses in one spelling.
func nameKey(name string) string {
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().String()
	}
	if isURI(name) {
		return name
	}
	return strings.TrimSuffix(strings.ToLower(name), ".")
}

// isURI: a colon stands in no host name and in no e-mail address that a certificate may have.
func isURI(name string) bool { return strings.Contains(name, ":") }

// namesOf are the entries of a certificate in certificate_names. What is no certificate has none.
func namesOf(der []byte) []string {
	found, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	var keys []string
	for _, name := range found.DNSNames {
		key := nameKey(name)
		keys = append(keys, key)
		for n, at := 0, strings.LastIndexByte(key, '.'); at > 0 && n < maxDomains; n++ {
			if at = strings.LastIndexByte(key[:at], '.'); at >= 0 {
				keys = append(keys, key[at:])
			}
		}
	}
	for _, name := range found.EmailAddresses {
		keys = append(keys, nameKey(name))
	}
	for _, addr := range found.IPAddresses {
		keys = append(keys, addr.String())
	}
	for _, uri := range found.URIs {
		keys = append(keys, uri.String())
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// addNames makes a certificate found by its names.
func (t *tx) addNames(ctx context.Context, id string, names []string) error {
	return t.insertNames(ctx, `SELECT value, (SELECT seq FROM certificates WHERE id = ?2) FROM json_each(?1) WHERE TRUE`, names, id)
}

// setNames is addNames by the certificate's number.
func (t *tx) setNames(ctx context.Context, seq int64, names []string) error {
	return t.insertNames(ctx, `SELECT value, ?2 FROM json_each(?1) WHERE TRUE`, names, seq)
}

// insertNames inserts all names by one statement: each costs more than the rows.
func (t *tx) insertNames(ctx context.Context, rows string, names []string, which any) error {
	if len(names) == 0 {
		return nil
	}
	list, err := json.Marshal(names)
	if err != nil {
		return fmt.Errorf("store: names: %w", err)
	}
	return t.exec(ctx, `INSERT INTO certificate_names (name, seq) `+rows+` ON CONFLICT DO NOTHING`, string(list), which)
}

// IndexNames gives the certificates that were in the ledger before it had a search by names their entries, newest first.
// It returns nil when all have them, at once if they had already. It works in small transactions, so that other writers
// hardly wait, and goes on where it ended when it is called again; until it is done a search by name is
// ca.ErrNamesPending.
func (s *Store) IndexNames(ctx context.Context) error {
	for {
		begin := time.Now()
		var left int64
		err := s.read.get(ctx, `SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?`, []any{namesLeft}, &left)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err == nil {
			err = s.indexNames(ctx, left)
		}
		if err == nil {
			err = rest(ctx, begin)
		}
		if err != nil {
			return err
		}
	}
}

// namesRow is a certificate that has no names yet.
type namesRow struct {
	seq   int64
	names []string
}

// indexNames does one batch from the certificate left down.
func (s *Store) indexNames(ctx context.Context, left int64) error {
	rows, err := collect(ctx, s.read, `SELECT seq, der FROM certificates WHERE seq <= ? ORDER BY seq DESC LIMIT ?`, []any{left, namesBatch},
		func(scan scan) (r namesRow, err error) {
			var der []byte
			err = scan(&r.seq, &der)
			r.names = namesOf(der)
			return r, err
		})
	if err != nil {
		return err
	}
	return s.write.do(ctx, func(ctx context.Context, t *tx) error {
		for _, r := range rows {
			if err := t.setNames(ctx, r.seq, r.names); err != nil {
				return err
			}
		}
		if len(rows) < namesBatch {
			return t.exec(ctx, `DELETE FROM meta WHERE key = ?`, namesLeft)
		}
		return t.exec(ctx, `UPDATE meta SET value = ? WHERE key = ?`, rows[len(rows)-1].seq-1, namesLeft)
	})
}
