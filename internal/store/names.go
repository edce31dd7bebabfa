package store

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// namesOf is the subject alternative names of a certificate, as they are searched for: host names in lower case,
// addresses in their shortest form, e-mail addresses and URIs as they are. Of bytes that are no certificate: none.
func namesOf(der []byte) []string {
	if len(der) <= 1 {
		return nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	var names []string
	for _, name := range cert.DNSNames {
		names = append(names, strings.ToLower(name))
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	names = append(names, cert.EmailAddresses...)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// addNames makes a certificate's names searchable.
func (t *tx) addNames(ctx context.Context, id string, names []string) error {
	for _, name := range names {
		err := t.exec(ctx, `INSERT INTO certificate_names (name, seq) SELECT ?, seq FROM certificates WHERE id = ? ON CONFLICT DO NOTHING`, name, id)
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	namesMeta  = "names_until" // the highest seq whose names are in the table, while they are being filled in; -1: done
	namesBatch = 2000
)

// fillNames fills the table of names for the certificates that were recorded before there was one. It goes on where a
// start that was killed had come to. New stores have nothing to fill.
func (s *Store) fillNames(ctx context.Context, log *slog.Logger) error {
	var done, last int64
	err := s.read.get(ctx, `SELECT coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?), 0), coalesce((SELECT max(seq) FROM certificates), 0)`,
		[]any{namesMeta}, &done, &last)
	if err != nil || done < 0 {
		return err
	}
	start := time.Now()
	for from := done; from < last; {
		if from, err = s.fillBatch(ctx, from); err != nil {
			return fmt.Errorf("store: make the names of certificates searchable: %w", err)
		}
	}
	if last > done {
		log.InfoContext(ctx, "names of certificates made searchable", "until", last, "seconds", time.Since(start).Seconds())
	}
	return s.SetMeta(ctx, namesMeta, "-1")
}

// fillBatch fills in the names of the next rows after from, and returns how far it came.
func (s *Store) fillBatch(ctx context.Context, from int64) (to int64, err error) {
	type row struct {
		seq   int64
		names []string
	}
	rows, err := collect(ctx, s.read, `SELECT seq, der FROM certificates WHERE seq > ? ORDER BY seq LIMIT ?`, []any{from, namesBatch},
		func(scan scan) (r row, err error) {
			var der []byte
			err = scan(&r.seq, &der)
			r.names = namesOf(der)
			return r, err
		})
	if err != nil || len(rows) == 0 {
		return from, err
	}
	to = rows[len(rows)-1].seq
	return to, s.write.do(ctx, func(ctx context.Context, t *tx) error {
		for _, r := range rows {
			for _, name := range r.names {
				if err := t.exec(ctx, `INSERT INTO certificate_names (name, seq) VALUES (?, ?) ON CONFLICT DO NOTHING`, name, r.seq); err != nil {
					return err
				}
			}
		}
		return t.exec(ctx, `INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, namesMeta, to)
	})
}
