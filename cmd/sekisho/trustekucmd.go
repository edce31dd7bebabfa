package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

func newTrustEKU(e env) *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use: "eku CA", Short: "List the clients whose certificates lack clientAuth: who breaks when it is demanded",
		Long: `eku lists the clients that were seen since the server started and that the CA lets in only while extended key usages are
ignored: their certificate, or an issuer's, has the extension and does not name clientAuth in it, as those of public CAs
by now. Under the policy "ignore" they are who breaks when it becomes "demand"; under "demand", the default, they are
who is refused now. Clients that a host refuses in the handshake itself have not proved their key and are only in its log.`,
		Example: `  sekisho trust eku partner
  sekisho trust policy partner --eku ignore && sleep 86400 && sekisho trust eku partner --json`,
		Args: oneArg("sekisho trust eku partner"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				ca, err := findCA(ctx, a, args[0])
				if err != nil {
					return err
				}
				var raw json.RawMessage
				if err := a.call(ctx, "GET", ca.path()+"/eku", nil, &raw); err != nil {
					return err
				}
				if asJSON {
					return printJSON(e, raw)
				}
				var report verify.UsageReport
				if err := json.Unmarshal(raw, &report); err != nil {
					return err
				}
				return printUsage(e.stdout, ca.Name, report)
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}

// printUsage writes the report as text: what it means in a sentence, then a table.
func printUsage(w io.Writer, name string, r verify.UsageReport) error {
	since := r.Since.Format(time.RFC3339)
	what := ": let in, and would be refused under demand"
	switch {
	case len(r.Clients) == 0:
		what = ""
	case r.EKU == trust.EKUDemand:
		what = ": refused, and would be let in under ignore"
	}
	if _, err := fmt.Fprintf(w, "%s: eku is %s; %d clients without clientAuth since %s%s\n", name, r.EKU, len(r.Clients), since, what); err != nil {
		return err
	}
	if r.LeftOut > 0 {
		if _, err := fmt.Fprintf(w, "%d connections by further clients were seen for which the table had no room\n", r.LeftOut); err != nil {
			return err
		}
	}
	if len(r.Clients) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SUBJECT\tSERIAL\tEXTENDED KEY USAGE\tHOSTS\tCONNECTIONS\tLAST SEEN\tEXPIRES")
	for _, c := range r.Clients {
		usages := strings.Join(c.Usages, ",")
		if c.Lacking != c.Subject {
			usages += " of its issuer " + c.Lacking
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", c.Subject, c.Serial, usages, strings.Join(c.Hosts, ","), c.Connections,
			c.Last.Format(time.RFC3339), c.NotAfter.Format(time.DateOnly))
	}
	return table.Flush()
}
