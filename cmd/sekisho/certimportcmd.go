package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newCertImport(e env) *cobra.Command {
	var t target
	var ca string
	var asJSON bool
	c := &cobra.Command{
		Use:   "import FILE...",
		Short: "Bring certificates that a CA of the checkpoint has signed elsewhere",
		Long: `import records certificates that a CA of the checkpoint has signed and the checkpoint does not know, so that they can be
searched, held and revoked: those that an imported CA issued before, or those of a ledger that was restored. A file holds
PEM certificates, or one in DER; the certificates of a file are recorded all or none.`,
		Example: "  sekisho cert import issued/*.pem --ca legacy",
		Args:    wantArgs(1, -1, "sekisho cert import client.pem"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				zone, err := t.zoneID(ctx, a)
				if err != nil {
					return err
				}
				a.patient()
				var all []importedCertificate
				for _, path := range args {
					text, err := readForImport(path, "CERTIFICATE")
					var done []importedCertificate
					if err == nil {
						body := map[string]any{"certificates": text, "ca": ca, "zone_id": zone}
						if err = a.call(ctx, "POST", "/sekisho/certificates/import", body, &done); err != nil {
							err = fmt.Errorf("%s: %w", path, err)
						}
					}
					if err != nil { // the files before it are recorded
						if len(all) > 0 {
							err = errors.Join(printImported(e, all, asJSON), err)
						}
						return err
					}
					all = append(all, done...)
				}
				return printImported(e, all, asJSON)
			})
		},
	}
	t.flags(c)
	t.zoneFlag(c)
	c.Flags().StringVar(&ca, "ca", "", "`NAME` of the CA that has signed all of them (default: any)")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

// importedCertificate is what became of one certificate.
type importedCertificate struct {
	ID         string `json:"id"`
	Serial     string `json:"serial_number"`
	CommonName string `json:"common_name"`
	Outcome    string `json:"outcome"`
	Status     string `json:"status"`
}

func printImported(e env, all []importedCertificate, asJSON bool) error {
	if asJSON {
		data, err := json.Marshal(all)
		if err != nil {
			return err
		}
		return printJSON(e, json.RawMessage(data))
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERIAL\tOUTCOME\tSTATUS\tCOMMON NAME\tID")
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.Serial, c.Outcome, c.Status, c.CommonName, c.ID)
	}
	return w.Flush()
}
