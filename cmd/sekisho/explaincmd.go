package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/identity"
	"sekisho/internal/revocation"
	"sekisho/internal/verify"
)

// explained is what the API says of a certificate, or of a request that was refused.
type explained struct {
	verify.Explanation
	raw json.RawMessage
}

// UnmarshalJSON keeps the answer as it came, for --json.
func (x *explained) UnmarshalJSON(data []byte) error {
	type plain explained
	if err := json.Unmarshal(data, (*plain)(x)); err != nil {
		return err
	}
	x.raw = append(json.RawMessage(nil), data...)
	return nil
}

var requestIDForm = regexp.MustCompile(`^[0-9a-f]{24}$`)

func newExplain(e env) *cobra.Command {
	var t target
	var host string
	var asJSON bool
	c := &cobra.Command{
		Use: "explain CERT|REQUEST-ID", Short: "Say how a running server judges a certificate, or why it refused a request",
		Long: `explain asks the running server how it judges the certificates in the file CERT (PEM, leaf first) for a host: the path
that it found, the CA and its policy, each source of revocation that it asked, how fresh the answer is, who signed it,
and which one decided. With the X-Request-Id of a refused request it prints the same as it was known at that moment.
Nothing is fetched for it: "not asked yet" is an answer, too.

Exit codes: 0 valid, 1 refused or pending, 2 wrong usage or unreadable input.`,
		Example: `  sekisho explain client.pem --host api.example.com
  sekisho explain 5f0c3b1e9a7d4c2b8e6f1a3d --json`,
		Args: oneArg("sekisho explain client.pem --host api.example.com"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				x, err := askExplanation(ctx, a, args[0], host)
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(e, x.raw)
				} else {
					err = x.print(e.stdout)
				}
				if err == nil && x.Reason != identity.OK {
					err = fmt.Errorf("%s: %s: %s", x.Decision, x.Reason, x.Text)
				}
				return err
			})
		},
	}
	t.flags(c)
	c.Flags().StringVar(&host, "host", "", "`NAME` of the host (default: the only one, or the default host)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the whole explanation as JSON")
	return c
}

func askExplanation(ctx context.Context, a *api, what, host string) (explained, error) {
	var x explained
	data, err := os.ReadFile(what)
	switch {
	case err == nil:
	case requestIDForm.MatchString(what):
		return x, a.call(ctx, "GET", "/sekisho/explain/"+url.PathEscape(what), nil, &x)
	default:
		return x, &usageError{err: err, hint: "name a PEM file with the certificate, or the X-Request-Id of a refused request (24 hex digits)"}
	}
	if _, err := parseCertificates(data); err != nil {
		return x, &usageError{err: fmt.Errorf("%s: %w", what, err)}
	}
	return x, a.call(ctx, "POST", "/sekisho/explain", map[string]string{"certificate": string(data), "host": host}, &x)
}

// printExplanation prints an explanation for people, or as JSON.
func printExplanation(e env, x verify.Explanation, asJSON bool) error {
	if asJSON {
		data, err := json.Marshal(x)
		if err != nil {
			return err
		}
		return printJSON(e, json.RawMessage(data))
	}
	shown := explained{Explanation: x}
	return shown.print(e.stdout)
}

// print writes the explanation as text: the decision, the path, and a table of sources for each certificate.
func (x *explained) print(w io.Writer) error {
	var b strings.Builder
	decision := x.Decision
	if x.Reason != identity.OK {
		decision += ": " + string(x.Reason)
	}
	fmt.Fprintf(&b, "decision     %s\n", decision)
	if x.Text != "" {
		fmt.Fprintf(&b, "because      %s\n", x.Text)
	}
	for _, line := range [][2]string{{"request", x.RequestID}, {"host", x.Host}, {"mode", x.Mode}, {"remote", x.Remote}, {"revocation", x.Revocation}} {
		if line[1] != "" {
			fmt.Fprintf(&b, "%-12s %s\n", line[0], line[1])
		}
	}
	fmt.Fprintf(&b, "at           %s\n", x.At.Format(time.RFC3339))
	if x.CA != nil {
		fmt.Fprintf(&b, "CA           %s\n", x.CA.Name)
	}
	if len(x.Path) == 0 && x.Certificate != nil {
		names := make([]string, len(x.TrustSet))
		for i, ca := range x.TrustSet {
			names[i] = ca.Name
		}
		fmt.Fprintf(&b, "certificate  %s, serial %s, issued by %s\nCAs          %s\n", x.Certificate.Subject, x.Certificate.Serial, x.Certificate.Issuer, dash(strings.Join(names, ", ")))
	}
	for i, c := range x.Path {
		fmt.Fprintf(&b, "path %d       %s, serial %s, to %s\n", i, c.Subject, c.Serial, c.NotAfter.Format(time.DateOnly))
	}
	for _, r := range x.Sources {
		b.WriteString("\n")
		printReport(&b, r)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printReport writes the sources of one certificate.
func printReport(b *strings.Builder, r revocation.Report) {
	fmt.Fprintf(b, "%s, serial %s: %s (%s)\n", r.Subject, r.Serial, r.State, r.PolicyLine)
	if len(r.Sources) == 0 {
		return
	}
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  SOURCE\tANSWER\tFRESH\tNUMBER\tNEXT UPDATE\tASKED\tDECIDED\tSIGNER\tADDRESS\t")
	for _, s := range r.Sources {
		fresh := yes(s.Fresh)
		if s.Answer == revocation.DoesNotApply {
			fresh = "-"
		}
		answer := s.Answer
		if s.Reason != "" {
			answer += " " + s.Reason
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", s.Source, answer, fresh, dash(s.Number), moment(s.NextUpdate), moment(s.LastAttempt),
			yes(s.Decided), dash(s.Signer), dash(s.Address))
	}
	_ = table.Flush() // a strings.Builder takes everything
	for _, s := range r.Sources {
		switch {
		case s.Error == "":
		case s.Address == "" || strings.Contains(s.Error, s.Address):
			fmt.Fprintf(b, "  %s: %s\n", s.Source, s.Error)
		default:
			fmt.Fprintf(b, "  %s %s: %s\n", s.Source, s.Address, s.Error)
		}
	}
}

func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
