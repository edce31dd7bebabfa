package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"sekisho/internal/ca"
)

func newCACRL(e env) *cobra.Command {
	var t target
	var name string
	var asDER, delta bool
	var shard int
	c := &cobra.Command{
		Use: "crl", Short: "Print the current CRL of a CA",
		Long: `crl prints the certificate revocation list as it is now, in PEM, or in DER with --der: the one of all shards, for programs
that take one list per CA; with --shard N the one that certificates of that shard name, with --delta what changed in it.`,
		Example: "  sekisho ca crl --der | openssl crl -inform der -noout -text\n  sekisho ca crl --shard 3 --delta",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			query := url.Values{}
			if c.Flags().Changed("shard") {
				if shard < 0 {
					return &usageError{err: errors.New("--shard is a number from 0 on")}
				}
				query.Set("shard", strconv.Itoa(shard))
			}
			if delta {
				query.Set("delta", "true")
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				var crl struct {
					PEM string `json:"pem"`
					DER []byte `json:"der"`
				}
				if err := a.call(ctx, http.MethodGet, "/sekisho/ca/"+url.PathEscape(name)+"/crl?"+query.Encode(), nil, &crl); err != nil {
					return err
				}
				data := []byte(crl.PEM)
				if asDER {
					data = crl.DER
				}
				_, err := e.stdout.Write(data)
				return err
			})
		},
	}
	t.flags(c)
	c.Flags().StringVar(&name, "ca", ca.ActiveName, "`NAME` of the CA, as sekisho ca show has it; active: the one in force")
	c.Flags().BoolVar(&asDER, "der", false, "DER instead of PEM")
	c.Flags().IntVar(&shard, "shard", 0, "`N` of the shard (default: all of them in one list)")
	c.Flags().BoolVar(&delta, "delta", false, "the delta to the list of --shard")
	return c
}
