package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

func newCertImport(e env) *cobra.Command {
	var t target
	var issuer string
	var asJSON bool
	c := &cobra.Command{
		Use:   "import FILE...",
		Short: "Bring certificates that a CA of the checkpoint has signed elsewhere",
		Long: `import records certificates that a CA of the checkpoint has signed and the checkpoint does not know, so that they can be
searched, held and revoked: those that an imported CA issued before, or those of a ledger that was restored. A file holds
PEM certificates, or one in DER; the certificates of a file are recorded all or none, those of a file of more than 1,000 in
parts, each of them all or none. After an error what was recorded before it is listed; bringing the file again does no harm.`,
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
					done, err := importFile(ctx, a, path, map[string]any{"ca": issuer, "zone_id": zone})
					all = append(all, done...)
					if err != nil { // what came before is recorded
						if len(all) > 0 {
							err = errors.Join(printImported(e, all, asJSON), err)
						}
						return err
					}
				}
				return printImported(e, all, asJSON)
			})
		},
	}
	t.flags(c)
	t.zoneFlag(c)
	c.Flags().StringVar(&issuer, "ca", "", "`NAME` of the CA that has signed all of them (default: any)")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

// importFile sends the certificates of a file, in parts where there are many, and says what was recorded, also with an error.
func importFile(ctx context.Context, a *api, path string, body map[string]any) (all []importedCertificate, err error) {
	text, err := readForImport(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	parts := bundleParts(text, ca.MaxImportCertificates, pkix.MaxBundleBytes)
	first := 1
	for _, part := range parts {
		var done []importedCertificate
		body["certificates"] = part.text
		if err := a.call(ctx, "POST", "/sekisho/certificates/import", body, &done); err != nil {
			if len(parts) > 1 {
				return all, fmt.Errorf("%s, certificates %d to %d: %w", path, first, first+part.blocks-1, err)
			}
			return all, fmt.Errorf("%s: %w", path, err)
		}
		all, first = append(all, done...), first+part.blocks
	}
	return all, nil
}

// bundlePart is some PEM blocks of a bundle with the text between them.
type bundlePart struct {
	text   string
	blocks int
}

// bundleParts cuts a bundle before PEM blocks, so that a part has at most so many blocks and, unless one alone is longer,
// so many octets. Nothing is left out: what is wrong with the text is for the server to say.
func bundleParts(text string, blocks, octets int) []bundlePart {
	var parts []bundlePart
	from, count := 0, 0 // of the part that is being filled
	for at := 0; at < len(text); {
		end := nextBlock(text, at)
		if count == blocks || count > 0 && end-from > octets {
			parts = append(parts, bundlePart{text[from:at], count})
			from, count = at, 0
		}
		at, count = end, count+1
	}
	return append(parts, bundlePart{text[from:], count})
}

// nextBlock is where the block after the first one behind at begins; the end of the text where there is none.
func nextBlock(text string, at int) int {
	const begin = "-----BEGIN "
	first := strings.Index(text[at:], begin)
	if first < 0 {
		return len(text)
	}
	at += first + len(begin)
	if next := strings.Index(text[at:], begin); next >= 0 {
		return at + next
	}
	return len(text)
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
