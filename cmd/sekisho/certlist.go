package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// listFlags are the conditions of `sekisho cert list`.
type listFlags struct {
	status, cn, serial, san, ca, within, order, issued string
	expired, archived                                  bool
	limit                                              int
}

func newCertList(e env) *cobra.Command {
	var t target
	var f listFlags
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List what was issued, newest first",
		Long: `list shows the certificates of a zone, newest first; with --expires-within or --expired soonest to end first. Conditions
add up. Each of them is answered from an index, also among millions.

Certificates that ended longer ago than pki.archive_after are in the archive: show and list --serial find them there by
themselves, every other list with --archived.`,
		Example: `  sekisho cert list --status revoked
  sekisho cert list --status active --expires-within 30d
  sekisho cert list --san device-7.example.com
  sekisho cert list --san .example.com --status in-force --limit 20
  sekisho cert list --ca issuing-2 --issued-within 7d --order expires
  sekisho cert list --archived --cn "Super Client"
  sekisho cert list --serial 02:8A:07:EB --json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			query, err := f.query(time.Now())
			if err != nil {
				return err
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				zone, err := t.zoneID(ctx, a)
				if err != nil {
					return err
				}
				certs, err := listCertificates(ctx, a, zone, query, f.limit)
				if err != nil {
					return err
				}
				return printCertificates(e, certs, asJSON)
			})
		},
	}
	t.flags(c)
	t.zoneFlag(c)
	fl := c.Flags()
	fl.StringVar(&f.status, "status", "", "only `STATUS`: active (expired ones too), revoked (holds too), hold, in-force, final (revoked for good and not expired), expired")
	fl.StringVar(&f.cn, "cn", "", "only this common `NAME`")
	fl.StringVar(&f.san, "san", "", "only this subject alternative `NAME`: a host, an address, an e-mail address, a URI, or .DOMAIN for every host below it")
	fl.StringVar(&f.serial, "serial", "", "only this serial number, `HEX` in any spelling")
	fl.StringVar(&f.ca, "ca", "", "only those of the `CA` of this name or id")
	fl.StringVar(&f.within, "expires-within", "", "only those that end within this `TIME` from now: 30d, 12h")
	fl.BoolVar(&f.expired, "expired", false, "only those that have ended")
	fl.StringVar(&f.issued, "issued-within", "", "only those issued within this `TIME` until now: 30d, 12h")
	fl.StringVar(&f.order, "order", "", "`ORDER`: newest or expires (soonest to end first)")
	fl.BoolVar(&f.archived, "archived", false, "those in the archive instead")
	fl.IntVar(&f.limit, "limit", 0, "at most `N` (default all)")
	fl.BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

// query is the conditions as the API takes them.
func (f *listFlags) query(now time.Time) (url.Values, error) {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	switch f.status {
	case "hold":
		set("status", "revoked")
		set("reason", "certificateHold")
	case "in-force":
		set("state", "active")
	case "final":
		set("state", "revoked")
	case "expired":
		set("state", "expired")
	default:
		set("status", f.status)
	}
	set("order", f.order)
	if f.archived {
		set("archived", "true")
	}
	if f.issued != "" {
		span, err := parseSpan(f.issued)
		if err != nil {
			return nil, &usageError{err: fmt.Errorf("--issued-within: %w", err)}
		}
		set("issued_from", now.Add(-span).UTC().Format(time.RFC3339))
	}
	set("common_name", f.cn)
	set("serial_number", f.serial)
	set("san", f.san)
	set("ca", f.ca)
	switch {
	case f.limit < 0:
		return nil, &usageError{err: errors.New("--limit is a number of certificates")}
	case f.expired && f.within != "":
		return nil, &usageError{err: errors.New("--expired and --expires-within exclude each other")}
	case f.expired:
		set("expires_before", now.UTC().Format(time.RFC3339))
	case f.within != "":
		span, err := parseSpan(f.within)
		if err != nil {
			return nil, &usageError{err: fmt.Errorf("--expires-within: %w", err)}
		}
		set("expires_from", now.UTC().Format(time.RFC3339))
		set("expires_before", now.Add(span).UTC().Format(time.RFC3339))
	}
	return q, nil
}

// parseSpan reads a time span like 30d or 12h30m.
func parseSpan(text string) (time.Duration, error) {
	if days, found := strings.CutSuffix(text, "d"); found {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	span, err := time.ParseDuration(text)
	if err != nil || span <= 0 {
		return 0, fmt.Errorf("%q is no time span; write 30d or 12h", text)
	}
	return span, nil
}

// listCertificates reads page after page; limit 0 means all, else it reads until it has so many.
func listCertificates(ctx context.Context, a *api, zone string, query url.Values, limit int) ([]clientCertificate, error) {
	certs, err := allPages[clientCertificate](ctx, a, "/zones/"+zone+"/client_certificates", query, limit)
	if limit > 0 && len(certs) > limit {
		certs = certs[:limit]
	}
	return certs, err
}

func printCertificates(e env, certs []clientCertificate, asJSON bool) error {
	if asJSON {
		raw := make([]json.RawMessage, len(certs))
		for i, c := range certs {
			raw[i] = c.raw
		}
		return printJSON(e, raw)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERIAL\tSTATUS\tEXPIRES\tCOMMON NAME\tID")
	for _, c := range certs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.Serial, c.Status, c.ExpiresOn, c.CommonName, c.ID)
	}
	return w.Flush()
}
