package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// issueRequest is Cloudflare's body, and below the blank line our extensions.
type issueRequest struct {
	CSR          string `json:"csr"`           // PEM, line ends \n or \r\n
	ValidityDays *int   `json:"validity_days"` // at least 1

	CA      string   `json:"ca"`      // name or id of the CA; default: the one in force
	Profile string   `json:"profile"` // client (default) or server
	Subject string   `json:"subject"` // RFC 4514 or /C=… form; default: the request's
	Hosts   []string `json:"hosts"`   // names to certify beside those of the request: DNS, addresses, e-mail, URIs
}

// defaultValidity is used when a caller names no validity_days; Cloudflare demands one.
const defaultValidity = 365

func (s *server) issueCertificate(ctx context.Context, c *call, req issueRequest) (certificateObject, error) {
	z, err := s.zone(ctx, c.path("zone"))
	if err != nil {
		return certificateObject{}, err
	}
	if strings.TrimSpace(req.CSR) == "" {
		return certificateObject{}, invalid("/csr", "csr: give a certificate request in PEM "+
			"(openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj /CN=name)")
	}
	days := defaultValidity
	if req.ValidityDays != nil {
		if days = *req.ValidityDays; days < 1 {
			return certificateObject{}, invalid("/validity_days", "validity_days: want at least 1 day")
		}
	}
	issue := ca.IssueRequest{
		ZoneID: z.ID, CA: req.CA, Profile: req.Profile, Actor: c.caller.Name, CSR: []byte(req.CSR), Subject: req.Subject, ValidDays: days,
	}
	if issue.Profile == "" {
		issue.Profile = ca.ProfileClient
	}
	addHosts(&issue, req.Hosts)
	row, err := s.Authority.Issue(ctx, issue)
	if err != nil {
		return certificateObject{}, err
	}
	return newCertificateObject(row)
}

// addHosts sorts names by what they look like.
func addHosts(issue *ca.IssueRequest, hosts []string) {
	for _, host := range hosts {
		addr, err := netip.ParseAddr(host)
		switch {
		case err == nil:
			issue.IPAddresses = append(issue.IPAddresses, addr)
		case strings.Contains(host, "://"):
			issue.URIs = append(issue.URIs, host)
		case strings.Contains(host, "@"):
			issue.Emails = append(issue.Emails, host)
		default:
			issue.DNSNames = append(issue.DNSNames, host)
		}
	}
}

func (s *server) getCertificate(ctx context.Context, c *call, _ none) (certificateObject, error) {
	row, err := s.certificate(ctx, c)
	if err != nil {
		return certificateObject{}, err
	}
	return newCertificateObject(row)
}

// certificate finds the certificate that the path names, in the zone that it names.
func (s *server) certificate(ctx context.Context, c *call) (ca.Certificate, error) {
	if _, err := s.zone(ctx, c.path("zone")); err != nil {
		return ca.Certificate{}, err
	}
	row, err := s.Authority.Certificate(ctx, c.path("zone"), c.path("id"))
	if err != nil {
		return row, certificateError(c, row, err)
	}
	return row, nil
}

func (s *server) listCertificates(ctx context.Context, c *call, _ none) (list[certificateObject], error) {
	var answer list[certificateObject]
	z, err := s.zone(ctx, c.path("zone"))
	if err != nil {
		return answer, err
	}
	p, err := pageOf(c.query)
	if err != nil {
		return answer, err
	}
	filter := ca.Filter{ZoneID: z.ID, Limit: p.size, Offset: p.skip()}
	pending, err := readFilter(c.query, &filter, s.Now())
	if err != nil {
		return answer, err
	}
	if filter.CAID, err = s.searchedCA(ctx, c.query.Get("ca")); err != nil {
		return answer, err
	}
	if pending { // a step is done when its call is answered, so nothing ever is pending
		return list[certificateObject]{info: p.info(0, 0)}, nil
	}
	found, err := s.Authority.Search(ctx, filter)
	if err != nil {
		return answer, err
	}
	for _, row := range found.Rows {
		object, err := newCertificateObject(row)
		if err != nil {
			return answer, err
		}
		answer.items = append(answer.items, object)
	}
	answer.info = p.info(len(found.Rows), found.Total)
	answer.info.AtLeast = found.AtLeast
	return answer, nil
}

// readFilter reads Cloudflare's status and our filters. pending: only states were asked for that last no time here.
func readFilter(q url.Values, f *ca.Filter, now time.Time) (pending bool, err error) {
	switch status := q.Get("status"); status {
	case "", "all":
	case "active":
		f.Status = ca.Active
	case "revoked":
		f.Status = ca.Revoked
	case "pending_reactivation", "pending_revocation":
		pending = true
	default:
		return false, invalidQuery("status", "want all, active, pending_reactivation, pending_revocation or revoked")
	}
	if text := q.Get("serial_number"); text != "" {
		serial, err := pkix.ParseSerial(text)
		if err != nil {
			return false, invalidQuery("serial_number", err.Error())
		}
		f.Serial = &serial
	}
	if text := q.Get("fingerprint_sha256"); text != "" {
		print, err := pkix.ParseFingerprint(text)
		if err != nil {
			return false, invalidQuery("fingerprint_sha256", err.Error())
		}
		f.Fingerprint = &print
	}
	f.CommonName = q.Get("common_name")
	f.Profile = q.Get("profile")
	return pending, readOurFilter(q, f, now)
}

// revokeBody is our extension; Cloudflare's DELETE has no body.
type revokeBody struct {
	Reason         *string `json:"reason"`          // a name or number of RFC 5280, Section 5.3.1
	InvalidityDate *string `json:"invalidity_date"` // RFC 3339; since when the key is thought to be compromised. With a final reason only
}

func (revokeBody) bodyIsOptional() {}

func (revokeBody) bodyIsOurs() {}

// revokeCertificate revokes. Without a reason it does what Cloudflare's call does: the certificate is revoked until it
// is reactivated, which X.509 calls certificateHold. A reason makes it final, certificateHold aside.
func (s *server) revokeCertificate(ctx context.Context, c *call, req revokeBody) (certificateObject, error) {
	z, err := s.zone(ctx, c.path("zone"))
	if err != nil {
		return certificateObject{}, err
	}
	reason, err := reasonOf(c.query, req)
	if err != nil {
		return certificateObject{}, err
	}
	since, err := invalidityOf(reason, req)
	if err != nil {
		return certificateObject{}, err
	}
	var row ca.Certificate
	if reason == pkix.CertificateHold {
		row, err = s.Authority.Hold(ctx, ca.ChangeRequest{ID: c.path("id"), ZoneID: z.ID, Actor: c.caller.Name})
	} else {
		row, err = s.Authority.Revoke(ctx, ca.RevokeRequest{
			ID: c.path("id"), ZoneID: z.ID, Actor: c.caller.Name, Reason: reason, InvalidityDate: since,
		})
	}
	changed := s.caMayHaveChanged(ctx, row) // after an error too: it may be stored
	if err != nil {
		return certificateObject{}, certificateError(c, row, errors.Join(err, changed))
	}
	if changed != nil {
		return certificateObject{}, notInForce(changed)
	}
	return pendingObject(row, "pending_revocation")
}

// reasonOf reads the reason from the query or the body; none is certificateHold.
func reasonOf(q url.Values, body revokeBody) (pkix.Reason, error) {
	if asked := q.Get("reason"); asked != "" {
		if body.Reason != nil && *body.Reason != asked {
			return 0, invalidQuery("reason", "the query and the body differ: give one")
		}
		reason, err := pkix.ParseReason(asked)
		if err != nil {
			return 0, invalidQuery("reason", err.Error())
		}
		return reason, nil
	}
	if body.Reason == nil {
		return pkix.CertificateHold, nil
	}
	reason, err := pkix.ParseReason(*body.Reason)
	if err != nil {
		return 0, invalid("/reason", err.Error())
	}
	return reason, nil
}

// invalidityOf reads the invalidity date; zero when there is none.
func invalidityOf(reason pkix.Reason, body revokeBody) (time.Time, error) {
	if body.InvalidityDate == nil {
		return time.Time{}, nil
	}
	if reason == pkix.CertificateHold {
		return time.Time{}, invalid("/invalidity_date", "a hold has no invalidity date: give a reason that is final")
	}
	at, err := time.Parse(time.RFC3339, *body.InvalidityDate)
	if err != nil {
		return time.Time{}, invalid("/invalidity_date", "invalidity_date is a time like 2026-01-31T00:00:00Z")
	}
	return at, nil
}

// reactivateBody is Cloudflare's. Its older clients send none: the call has this one meaning.
type reactivateBody struct {
	Reactivate *bool `json:"reactivate"`
}

func (reactivateBody) bodyIsOptional() {}

func (s *server) reactivateCertificate(ctx context.Context, c *call, req reactivateBody) (certificateObject, error) {
	z, err := s.zone(ctx, c.path("zone"))
	if err != nil {
		return certificateObject{}, err
	}
	if req.Reactivate != nil && !*req.Reactivate {
		return certificateObject{}, invalid("/reactivate", "reactivate: only true is possible; DELETE revokes")
	}
	row, err := s.Authority.Reactivate(ctx, ca.ChangeRequest{ID: c.path("id"), ZoneID: z.ID, Actor: c.caller.Name})
	changed := s.caMayHaveChanged(ctx, row) // after an error too: it may be stored
	if err != nil {
		return certificateObject{}, certificateError(c, row, errors.Join(err, changed))
	}
	if changed != nil {
		return certificateObject{}, notInForce(changed)
	}
	return pendingObject(row, "pending_reactivation")
}

// caMayHaveChanged has the hosts judge the clients of a CA anew whose own certificate changed.
func (s *server) caMayHaveChanged(ctx context.Context, row ca.Certificate) error {
	if !s.Authority.CertifiesCA(row.CertID()) {
		return nil
	}
	return s.CAsChanged(context.WithoutCancel(ctx))
}

// certificateError says which certificate, what its state is and what can be done. row is the certificate's state
// when err is ca.ErrConflict.
func certificateError(c *call, row ca.Certificate, err error) error {
	id := c.path("id")
	conflict := func(text string) error {
		r := refuse(http.StatusBadRequest, codeConflict, text)
		r.noRetry, r.cause = true, err
		return r
	}
	since := row.RevokedAt.UTC().Format(time.RFC3339)
	switch {
	case errors.Is(err, ca.ErrNotFound):
		return refuse(http.StatusNotFound, codeNotFound, "no certificate of this zone has the id "+id)
	case !errors.Is(err, ca.ErrConflict):
		return err
	case row.OnHold():
		return conflict(fmt.Sprintf("certificate %s is already revoked since %s (certificateHold); "+
			`PATCH {"reactivate":true} undoes that, DELETE with a reason makes it final`, id, since))
	case row.Status == ca.Revoked && row.Reason == pkix.KeyCompromise:
		return conflict(fmt.Sprintf("certificate %s is already revoked since %s (%s), and that is final: issue a new one", id, since, row.Reason))
	case row.Status == ca.Revoked:
		return conflict(fmt.Sprintf("certificate %s is already revoked since %s (%s), and that is final: issue a new one; "+
			"only the reason keyCompromise can still be given, which blocks its key", id, since, row.Reason))
	case row.Status == ca.Active:
		return conflict("certificate " + id + " is active already")
	}
	return conflict("certificate " + id + ": its state does not allow this")
}
