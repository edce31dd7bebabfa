package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// tokenView is a token as the API shows it.
type tokenView struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	Email     string  `json:"email"`
	Role      string  `json:"role"`
	CreatedOn string  `json:"created_on"`
	ExpiresOn *string `json:"expires_on"`
	Value     string  `json:"value,omitempty"` // the secret, in the answer that makes it only
}

func newToken(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "List, make and revoke tokens of the API",
		Long: `token works on the API tokens of a checkpoint: on the running server by its API, or on the store in --data when no server
runs. Only hashes of tokens are stored: a token that is lost is revoked and another one made.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newTokenList(e), newTokenCreate(e), newTokenRevoke(e))
	return c
}

func newTokenList(e env) *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the tokens, without their secrets",
		Example: "  sekisho token list --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				tokens, err := allPages[tokenView](ctx, a, "/sekisho/tokens", url.Values{}, 0)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(e, tokens)
				}
				w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "ID\tROLE\tEXPIRES\tEMAIL\tNAME")
				for _, v := range tokens {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.ID, v.Role, v.expires(), v.Email, v.Name)
				}
				return w.Flush()
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

func (v tokenView) expires() string {
	if v.ExpiresOn == nil {
		return "never"
	}
	return *v.ExpiresOn
}

// tokenRequest is what the API wants to make a token.
type tokenRequest struct {
	Name      string     `json:"name"`
	Role      string     `json:"role"`
	Email     string     `json:"email,omitempty"`
	ExpiresOn *time.Time `json:"expires_on,omitempty"`
}

func newTokenCreate(e env) *cobra.Command {
	var t target
	var req tokenRequest
	var days int
	c := &cobra.Command{
		Use: "create", Short: "Make a token and print its secret, this once",
		Long: `create makes a token and prints its secret on standard output: it is not stored and never shown again. A token of role
read may look at everything; one of role edit may change everything.`,
		Example: `  sekisho token create --name ci --role read --expires 90 > ci.token`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case req.Name == "":
				return &usageError{err: errors.New("the token needs a name, for the audit log"), hint: "give one with --name NAME"}
			case c.Flags().Changed("expires") && (days < 1 || days > 36500):
				return &usageError{err: fmt.Errorf("--expires %d: want 1 to 36500 days", days), hint: "leave it out for a token that never expires"}
			case days > 0:
				at := time.Now().UTC().AddDate(0, 0, days).Truncate(time.Second)
				req.ExpiresOn = &at
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				var made tokenView
				if err := a.call(ctx, "POST", "/sekisho/tokens", req, &made); err != nil {
					return err
				}
				_, err := fmt.Fprintln(e.stdout, made.Value)
				fmt.Fprintf(e.stderr, "token %s (%s, expires %s) has the id %s; its secret is shown this once\n", made.Name, made.Role, made.expires(), made.ID)
				return err
			})
		},
	}
	t.flags(c)
	c.Flags().StringVar(&req.Name, "name", "", "`NAME` of the token in the audit log")
	c.Flags().StringVar(&req.Role, "role", "read", "`ROLE`: read or edit")
	c.Flags().StringVar(&req.Email, "email", "", "`ADDRESS` of its owner, demanded with X-Auth-Email (default: that of the token in use)")
	c.Flags().IntVar(&days, "expires", 0, "it works for so many `DAYS` (default: for ever)")
	return c
}

func newTokenRevoke(e env) *cobra.Command {
	var t target
	c := &cobra.Command{
		Use: "revoke TOKEN", Short: "Revoke a token: refused from now on",
		Long: `revoke removes a token, named by its id, or by its name when only one has it. It is refused from now on. The last token of
role edit that has not expired cannot be revoked: make another first. When the first token, whose secret is in DATA/token, was
revoked, the next start makes a new one there.`,
		Example: "  sekisho token revoke ci",
		Args:    oneArg("sekisho token revoke ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				v, err := findToken(ctx, a, args[0])
				if err != nil {
					return err
				}
				if err := a.call(ctx, "DELETE", "/sekisho/tokens/"+v.ID, nil, nil); err != nil {
					return err
				}
				_, err = fmt.Fprintf(e.stdout, "%s %s: revoked\n", v.ID, v.Name)
				return err
			})
		},
	}
	t.flags(c)
	return c
}

var tokenIDForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// findToken resolves an id or a name. An id wins over a name that looks like one.
func findToken(ctx context.Context, a *api, ref string) (tokenView, error) {
	tokens, err := allPages[tokenView](ctx, a, "/sekisho/tokens", url.Values{}, 0)
	if err != nil {
		return tokenView{}, err
	}
	var named []tokenView
	for _, v := range tokens {
		switch {
		case tokenIDForm.MatchString(ref) && v.ID == ref:
			return v, nil
		case v.Name == ref:
			named = append(named, v)
		}
	}
	switch len(named) {
	case 0:
		return tokenView{}, &hinted{err: fmt.Errorf("no token %q", ref), hint: "sekisho token list shows what there is"}
	case 1:
		return named[0], nil
	}
	return tokenView{}, &usageError{err: fmt.Errorf("%d tokens have the name %q", len(named), ref), hint: "name one by its id: sekisho token list"}
}

// allPages reads every page of a list that says how many there are.
func allPages[T any](ctx context.Context, a *api, path string, query url.Values, limit int) ([]T, error) {
	const pageSize = 1000 // the most that the API gives
	all := []T{}
	query.Set("per_page", strconv.Itoa(pageSize))
	for page := 1; ; page++ {
		query.Set("page", fmt.Sprint(page))
		env, err := a.send(ctx, "GET", path+"?"+query.Encode(), nil)
		if err != nil {
			return nil, err
		}
		var rows []T
		if err := json.Unmarshal(env.Result, &rows); err != nil {
			return nil, fmt.Errorf("answer of GET %s: %w", path, err)
		}
		all = append(all, rows...)
		if size := env.ResultInfo.PerPage; size == 0 || len(rows) < size || limit > 0 && len(all) >= limit { // totals of long lists are not exact
			return all, nil
		}
	}
}
