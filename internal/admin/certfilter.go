package admin

import (
	"context"
	"net/url"
	"strings"
	"time"

	"sekisho/internal/ca"
)

// readOurFilter reads the filters that Cloudflare's API has not.
func readOurFilter(q url.Values, f *ca.Filter, now time.Time) error {
	switch text := q.Get("reason"); text {
	case "":
	case "certificateHold":
		f.OnHold = true
	default:
		return invalidQuery("reason", "only certificateHold can be searched for: those are the revoked ones that can come back")
	}
	if f.OnHold && f.Status == ca.Active {
		return invalidQuery("reason", "an active certificate has none")
	}
	for name, to := range map[string]*time.Time{
		"expires_from": &f.ExpiresFrom, "expires_before": &f.ExpiresBefore, "issued_from": &f.IssuedFrom, "issued_before": &f.IssuedBefore,
	} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return invalidQuery(name, "want a time like 2026-01-31T00:00:00Z")
		}
		*to = at
	}
	f.Name = q.Get("san")
	switch order := q.Get("order"); order {
	case "", string(ca.Newest), string(ca.Soonest):
		f.Order = ca.Order(order)
	default:
		return invalidQuery("order", "want newest or expires")
	}
	switch q.Get("archived") {
	case "", "false":
	case "true":
		f.Archived = true
	default:
		return invalidQuery("archived", "want true or false")
	}
	return readState(q.Get("state"), f, now)
}

// readState adds the conditions of a state. Where status knows two, as Cloudflare's, there are four of these, and a
// certificate that ended is in none but expired.
func readState(state string, f *ca.Filter, now time.Time) error {
	var status ca.Status
	switch state {
	case "":
		return nil
	case "expired":
		f.ExpiresBefore = earliest(f.ExpiresBefore, now)
		return nil
	case "active":
		status = ca.Active
	case "on_hold":
		status, f.OnHold = ca.Revoked, true
	case "revoked":
		status, f.Final = ca.Revoked, true
	default:
		return invalidQuery("state", "want active, on_hold, revoked or expired")
	}
	if f.Status != "" && f.Status != status || f.OnHold && state != "on_hold" {
		return invalidQuery("state", "no certificate has it together with the status or reason that is asked for: leave one out")
	}
	f.Status = status
	if f.Order == "" && f.ExpiresFrom.IsZero() && f.ExpiresBefore.IsZero() {
		f.Order = ca.Newest // the present is no range of ends that was asked for
	}
	if f.ExpiresFrom.Before(now) {
		f.ExpiresFrom = now
	}
	return nil
}

// earliest is the earlier time; the zero time is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// searchedCA is the id of the CA that a query names by id or name; "" for none.
func (s *server) searchedCA(ctx context.Context, ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	records, err := s.Authority.CAs(ctx)
	if err != nil {
		return "", err
	}
	ref = s.Authority.ResolveCA(ref) // also of "active", as everywhere
	names := make([]string, len(records))
	for i, r := range records {
		if r.ID == ref || r.Name == ref {
			return r.ID, nil
		}
		names[i] = r.Name
	}
	return "", invalidQuery("ca", "there is no such CA; there are "+strings.Join(names, ", "))
}
