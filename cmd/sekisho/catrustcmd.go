package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
)

func newCATrust(e env) *cobra.Command {
	return newCASetTrust(e, true, &cobra.Command{
		Use: "trust NAME", Short: "Have hosts let the clients of a CA in",
		Long: `trust has hosts let the clients of an issuing CA in as those of the managed CA: of one that was imported with --trust=false,
or that "sekisho ca untrust" was said of. It is in force when the command returns.`,
		Example: "  sekisho ca trust partner",
		Args:    oneArg("sekisho ca trust partner"),
	})
}

func newCAUntrust(e env) *cobra.Command {
	return newCASetTrust(e, false, &cobra.Command{
		Use: "untrust NAME", Short: "Have hosts refuse the clients of a CA",
		Long: `untrust has hosts let the clients of an imported CA in no more, or those of a CA of the checkpoint's own that was rotated. When
the command returns they are refused, on connections that are open too. What the CA publishes goes on: it is not revoked.
"sekisho ca trust" takes it back.

The CA in force cannot be distrusted: put another one in force first, with "sekisho ca rotate".`,
		Example: "  sekisho ca untrust partner\n  sekisho ca rotate && sekisho ca untrust issuing",
		Args:    oneArg("sekisho ca untrust partner"),
	})
}

// newCASetTrust completes a command that sets whether a CA is trusted.
func newCASetTrust(e env, trusted bool, c *cobra.Command) *cobra.Command {
	var t target
	c.RunE = func(c *cobra.Command, args []string) error {
		return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
			var ca caView
			call := apiCall{"PUT", "/sekisho/ca/" + url.PathEscape(args[0]) + "/trust", map[string]any{"trusted": trusted}}
			if err := a.callNoting(ctx, e, call, &ca); err != nil {
				return err
			}
			_, err := fmt.Fprint(e.stdout, ca.text())
			return err
		})
	}
	t.flags(c)
	return c
}
