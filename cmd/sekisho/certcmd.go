package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// clientCertificate is a certificate as the API shows it.
type clientCertificate struct {
	ID          string `json:"id"`
	Status      string `json:"status"`
	CommonName  string `json:"common_name"`
	Serial      string `json:"serial_number"`
	Fingerprint string `json:"fingerprint_sha256"`
	IssuedOn    string `json:"issued_on"`
	ExpiresOn   string `json:"expires_on"`
	Signature   string `json:"signature"`
	SKI         string `json:"ski"`
	RevokedOn   string `json:"revoked_on"`
	Reason      string `json:"revocation_reason"`
	Certificate string `json:"certificate"`
	Authority   struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"certificate_authority"`

	raw json.RawMessage
}

// UnmarshalJSON keeps the answer as it came, for --json.
func (c *clientCertificate) UnmarshalJSON(data []byte) error {
	type plain clientCertificate
	if err := json.Unmarshal(data, (*plain)(c)); err != nil {
		return err
	}
	c.raw = append(json.RawMessage(nil), data...)
	return nil
}

func newCert(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "cert",
		Short: "Issue, import, list, show, verify, revoke, hold and reactivate certificates",
		Long: `cert works on the certificates of a checkpoint: on the running server by its API, or on the store in --data
when no server runs. A certificate is named by its id, its serial number (hex in any spelling), its SHA-256
fingerprint, a file that holds it, or its common name when only one has it.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newCertIssue(e), newCertImport(e), newCertList(e), newCertShow(e), newCertVerify(e),
		newCertStep(e, certStep{
			use: "revoke", short: "Revoke a certificate for good: refused from now on, open connections are cut", done: "revoked",
			long: `revoke is final. The certificate is refused by every new and resumed handshake and every further request, its open
connections are cut, and CRL and OCSP say so within a second. Use hold for what you may want to undo.`,
			reason: true, method: "DELETE",
		}),
		newCertStep(e, certStep{
			use: "hold", short: "Put a certificate on hold: like revoke, but reactivate undoes it", done: "on hold",
			long: "hold revokes with reason certificateHold, as a DELETE of the API without a reason does. reactivate undoes it.", method: "DELETE",
		}),
		newCertStep(e, certStep{
			use: "reactivate", short: "Let a certificate on hold in again", done: "active",
			long: "reactivate ends a hold. A certificate revoked for good stays revoked.", method: "PATCH", body: map[string]bool{"reactivate": true},
		}))
	return c
}

// certStep is one of the commands that change a certificate's state.
type certStep struct {
	use, short, long, done, method string
	reason                         bool
	body                           any
}

func newCertStep(e env, s certStep) *cobra.Command {
	var t target
	var reason, invalidity string
	var asJSON bool
	c := &cobra.Command{
		Use: s.use + " CERT", Short: s.short, Long: s.long,
		Example: "  sekisho cert " + s.use + " 028a07ebc6f20d73acfe2366f5d4afe2fea2b37f\n  sekisho cert " + s.use + " client.pem",
		Args:    oneArg("sekisho cert " + s.use + " SERIAL"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				zone, cert, err := t.find(ctx, a, args[0])
				if err != nil {
					return err
				}
				path := "/zones/" + zone + "/client_certificates/" + cert.ID
				if s.reason {
					path += "?reason=" + url.QueryEscape(reason)
				}
				body := s.body
				if invalidity != "" {
					body = map[string]string{"invalidity_date": dayOrTime(invalidity)}
				}
				var after clientCertificate
				if err := a.call(ctx, s.method, path, body, &after); err != nil {
					return err
				}
				if asJSON {
					return printJSON(e, after.raw)
				}
				note := ""
				if end, err := time.Parse(time.RFC3339, after.ExpiresOn); err == nil && end.Before(time.Now()) {
					note = "; it had expired on " + after.ExpiresOn + " and is let in nowhere"
				}
				_, err = fmt.Fprintf(e.stdout, "%s %s: %s%s\n", cert.Serial, cert.CommonName, s.done, note)
				return err
			})
		},
	}
	t.flags(c)
	t.zoneFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the certificate as JSON")
	if s.reason {
		c.Flags().StringVar(&reason, "reason", "unspecified", "`REASON`: keyCompromise (blocks the key too), superseded, affiliationChanged, cessationOfOperation, privilegeWithdrawn")
		c.Flags().StringVar(&invalidity, "invalidity-date", "", "`TIME` since when the key is thought to be compromised: 2026-01-31 or 2026-01-31T09:30:00Z")
	}
	return c
}

// dayOrTime makes a day the time of its beginning in UTC; anything else is for the API to judge.
func dayOrTime(text string) string {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.Format(time.RFC3339)
	}
	return text
}

func newCertShow(e env) *cobra.Command {
	var t target
	var asJSON, asPEM bool
	c := &cobra.Command{
		Use: "show CERT", Short: "Show one certificate",
		Example: "  sekisho cert show 'Super Client'\n  sekisho cert show 02:8A:07:EB --pem | openssl x509 -noout -text",
		Args:    oneArg("sekisho cert show SERIAL"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				_, cert, err := t.find(ctx, a, args[0])
				if err != nil {
					return err
				}
				switch {
				case asJSON:
					return printJSON(e, cert.raw)
				case asPEM:
					_, err = fmt.Fprint(e.stdout, cert.Certificate)
					return err
				}
				status := cert.Status
				if cert.Reason != "" {
					status += " since " + cert.RevokedOn + ", " + cert.Reason
				}
				_, err = fmt.Fprintf(e.stdout, "common name  %s\nserial       %s\nstatus       %s\nissued       %s\nexpires      %s\nissuer       %s\nsignature    %s\nski          %s\nsha256       %s\nid           %s\n",
					cert.CommonName, cert.Serial, status, cert.IssuedOn, cert.ExpiresOn, cert.Authority.Name, cert.Signature, cert.SKI, cert.Fingerprint, cert.ID)
				return err
			})
		},
	}
	t.flags(c)
	t.zoneFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	c.Flags().BoolVar(&asPEM, "pem", false, "print only the certificate in PEM")
	return c
}

// zoneID finds the zone that a command is about.
func (t *target) zoneID(ctx context.Context, a *api) (string, error) {
	var zones []struct{ ID, Name string }
	path := "/zones?per_page=50"
	if t.zone != "" {
		path += "&name=" + url.QueryEscape(t.zone)
	}
	if err := a.call(ctx, "GET", path, nil, &zones); err != nil {
		return "", err
	}
	switch {
	case len(zones) == 1:
		return zones[0].ID, nil
	case len(zones) == 0:
		return "", &hinted{err: fmt.Errorf("no zone %q", t.zone), hint: "zones come from the configuration file"}
	}
	names := make([]string, len(zones))
	for i, z := range zones {
		names[i] = z.Name
	}
	return "", &usageError{err: errors.New("there are several zones"), hint: "choose one with --zone: " + strings.Join(names, ", ")}
}

func printJSON(e env, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s\n", data)
	return err
}

// refuseOverwrite returns an error when one of the files exists.
func refuseOverwrite(paths ...string) error {
	for _, p := range paths {
		if _, err := os.Lstat(p); err == nil {
			return &usageError{err: fmt.Errorf("%s exists", p), hint: "choose another name with --out, or move it away: keys are never overwritten"}
		}
	}
	return nil
}
