package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// maxCAFile bounds a file of CA certificates, in octets: a body of the API may have 1 MiB.
const maxCAFile = 900 << 10

// trustedCA is a CA as the API shows it.
type trustedCA struct {
	ID            string        `json:"id"`
	Name          string        `json:"name"`
	Origin        string        `json:"origin"`
	Product       string        `json:"product"`
	Hosts         []string      `json:"hosts"`
	Hostnames     []string      `json:"hostnames"`
	Waiting       []string      `json:"waiting"`
	Policy        trust.Policy  `json:"policy"`
	Anchors       []trustedCert `json:"anchors"`
	Intermediates []trustedCert `json:"intermediates"`
	ExpiresOn     string        `json:"expires_on"`
	Error         string        `json:"error"`

	raw json.RawMessage
}

type trustedCert struct {
	Subject     string `json:"subject"`
	KeyType     string `json:"key_type"`
	Signature   string `json:"signature"`
	Fingerprint string `json:"fingerprint_sha256"`
	ExpiresOn   string `json:"expires_on"`
}

// UnmarshalJSON keeps the answer as it came, for --json. Nothing stays of what c was before: the default is left out.
func (c *trustedCA) UnmarshalJSON(data []byte) error {
	type plain trustedCA
	var fresh plain
	if err := json.Unmarshal(data, &fresh); err != nil {
		return err
	}
	*c = trustedCA(fresh)
	c.raw = append(json.RawMessage(nil), data...)
	return nil
}

// path is where the API has the CA.
func (c trustedCA) path() string { return "/sekisho/trust/" + url.PathEscape(c.ID) }

func newTrust(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "Bring your own CA: add, tie to hosts, say how its clients are judged, remove",
		Long: `trust works on the CAs of others whose clients hosts let in: on the running server by its API, or on the store in --data
when no server runs. A CA is named by its id, or by its name when only one has it. CAs of the configuration file and our
own are listed, too, and changed in the file only.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newTrustAdd(e), newTrustList(e), newTrustShow(e), newTrustPolicy(e), newTrustTie(e), newTrustUntie(e), newTrustRemove(e), newTrustCRL(e), newTrustEKU(e))
	return c
}

// wantArgs is cobra.RangeArgs with an example in the hint; most < 0 is any number.
func wantArgs(least, most int, example string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return &usageError{err: fmt.Errorf("%d arguments given, which is not what the command takes", len(args)), hint: "try: " + example}
		}
		return nil
	}
}

func newTrustAdd(e env) *cobra.Command {
	var t target
	var hosts []string
	var product string
	var asJSON bool
	var policy policyFlags
	c := &cobra.Command{
		Use: "add NAME CERTS.pem", Short: "Trust a CA: its clients are let in at the given hosts",
		Long: `add stores the certificates of a CA (the root, and intermediates that clients need not send; - reads standard input) with the
policy by which its clients are judged, and ties it to hosts: all in one step, or not at all. A host that asks for no
certificates begins to. Every certificate must say CA:TRUE. Never give a private key: it is refused and not stored.`,
		Example: `  sekisho trust add partner partner-ca.pem --host api.example.com
  sekisho trust add partner partner-ca.pem --host api.example.com --crl /etc/pki/partner.crl --on-failure hard`,
		Args: wantArgs(2, 2, "sekisho trust add partner partner-ca.pem --host api.example.com"),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := readCAFile(e, args[1])
			if err != nil {
				return err
			}
			fields, err := policy.changed(c)
			if err != nil {
				return err
			}
			body := map[string]any{"name": args[0], "certificates": text, "product": product, "policy": fields, "hostnames": hosts}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				var ca trustedCA
				if err := a.callNoting(ctx, e, apiCall{"POST", "/sekisho/trust", body}, &ca); err != nil {
					return err
				}
				if asJSON {
					return printJSON(e, ca.raw)
				}
				_, err := fmt.Fprintf(e.stdout, "%s %s: added\n", ca.ID, ca.Name)
				return err
			})
		},
	}
	t.flags(c)
	policy.flags(c)
	c.Flags().StringArrayVar(&hosts, "host", nil, "`NAME` of a host that lets its clients in; may be repeated")
	c.Flags().StringVar(&product, "product", "mtls", "`API` of Cloudflare's that shows it: mtls (mtls_certificates) or access (access/certificates)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the CA as JSON")
	return c
}

// readCAFile reads certificates and finds out that it is no private key before anything is sent anywhere.
func readCAFile(e env, path string) (string, error) {
	in := e.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", &usageError{err: err}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxCAFile+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxCAFile {
		return "", &usageError{err: fmt.Errorf("%s is larger than %d bytes", path, maxCAFile), hint: "give the certificates of one CA"}
	}
	if _, err := pkix.ParseCertificates(data); err != nil {
		return "", &usageError{err: fmt.Errorf("%s: %w", path, err)}
	}
	return string(data), nil
}

// apiCall is one call of the API.
type apiCall struct {
	method, path string
	body         any
}

// callNoting is call, with what the server says beside its answer on standard error.
func (a *api) callNoting(ctx context.Context, e env, c apiCall, result any) error {
	answer, err := a.send(ctx, c.method, c.path, c.body)
	if err != nil {
		return err
	}
	for _, m := range answer.Messages {
		fmt.Fprintf(e.stderr, "note: %s\n", m.Message)
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fmt.Errorf("answer of %s %s: %w", c.method, c.path, err)
	}
	return nil
}

// findCA resolves an id or a name. An id wins.
func findCA(ctx context.Context, a *api, ref string) (trustedCA, error) {
	cas, err := allPages[trustedCA](ctx, a, "/sekisho/trust", url.Values{}, 0)
	if err != nil {
		return trustedCA{}, err
	}
	var named []trustedCA
	for _, ca := range cas {
		switch ref {
		case ca.ID:
			return ca, nil
		case ca.Name:
			named = append(named, ca)
		}
	}
	switch len(named) {
	case 0:
		return trustedCA{}, &hinted{err: fmt.Errorf("no CA %q", ref), hint: "sekisho trust list shows what there is"}
	case 1:
		return named[0], nil
	}
	return trustedCA{}, &usageError{err: fmt.Errorf("%d CAs have the name %q", len(named), ref), hint: "name one by its id: sekisho trust list"}
}

// changeableCA is findCA for commands that change what they find.
func changeableCA(ctx context.Context, a *api, ref string) (trustedCA, error) {
	ca, err := findCA(ctx, a, ref)
	switch {
	case err != nil || ca.Origin == "api":
		return ca, err
	case ca.Origin == "managed":
		return ca, &hinted{err: errors.New("the managed CA is our own, and judged by its own ledger"), hint: "sekisho cert revoke ends one of its clients"}
	}
	return ca, &hinted{err: fmt.Errorf("the configuration file decides about the CA %q", ca.Name), hint: "change it there, then: sekisho config reload"}
}

func newTrustList(e env) *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the CAs that hosts trust, wherever they came from",
		Example: "  sekisho trust list\n  sekisho trust list --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				cas, err := allPages[trustedCA](ctx, a, "/sekisho/trust", url.Values{}, 0)
				if err != nil {
					return err
				}
				if asJSON {
					raw := make([]json.RawMessage, len(cas))
					for i, ca := range cas {
						raw[i] = ca.raw
					}
					return printJSON(e, raw)
				}
				w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tORIGIN\tEXPIRES\tHOSTS\tID")
				for _, ca := range cas {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", orDash(ca.Name), ca.Origin, orDash(ca.ExpiresOn), ca.where(), ca.ID)
				}
				return w.Flush()
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

// where is the hosts of a CA: those in force, and those that the API ties and no server serves now.
func (c trustedCA) where() string {
	texts := slices.Clone(c.Hosts)
	for _, name := range c.Hostnames {
		switch {
		case slices.Contains(c.Waiting, name):
			texts = append(texts, name+" (waits)")
		case !slices.Contains(c.Hosts, name):
			texts = append(texts, name)
		}
	}
	return orDash(strings.Join(texts, ","))
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func newTrustShow(e env) *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use: "show CA", Short: "Show one CA: its certificates, its hosts, its policy",
		Example: "  sekisho trust show partner\n  sekisho trust show partner --json | jq -r .certificates",
		Args:    oneArg("sekisho trust show partner"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				ca, err := findCA(ctx, a, args[0])
				if err != nil {
					return err
				}
				if asJSON && ca.Origin != "file" { // those of the file are shown without their PEM: it is in the file
					if err := a.call(ctx, "GET", ca.path(), nil, &ca); err != nil {
						return err
					}
				}
				if asJSON {
					return printJSON(e, ca.raw)
				}
				return printCA(e, ca)
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

func printCA(e env, ca trustedCA) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	origin := ca.Origin
	if ca.Product != "" {
		origin += ", " + ca.Product
	}
	fmt.Fprintf(w, "name\t%s\nid\t%s\norigin\t%s\nhosts\t%s\n", orDash(ca.Name), ca.ID, origin, ca.where())
	for _, group := range []struct {
		what  string
		certs []trustedCert
	}{{"anchor", ca.Anchors}, {"intermediate", ca.Intermediates}} {
		for _, c := range group.certs {
			fmt.Fprintf(w, "%s\t%s\n  expires\t%s\n  key\t%s, signed with %s\n  sha256\t%s\n", group.what, c.Subject, c.ExpiresOn, c.KeyType, c.Signature, c.Fingerprint)
		}
	}
	if ca.Error != "" {
		fmt.Fprintf(w, "error\t%s\n", ca.Error)
	}
	writePolicy(w, ca.Policy)
	return w.Flush()
}

func newTrustTie(e env) *cobra.Command {
	return newTrustHosts(e, trustHosts{
		use: "tie CA HOST...", short: "Let the clients of a CA in at more hosts", example: "sekisho trust tie partner shop.example.com",
		long:  "tie adds hosts to those of a CA. One that asks for no certificates begins to; one that nobody serves yet waits.",
		least: 2,
		hosts: func(have, given []string) []string { return append(slices.Clone(have), given...) },
	})
}

func newTrustUntie(e env) *cobra.Command {
	return newTrustHosts(e, trustHosts{
		use: "untie CA [HOST...]", short: "Let the clients of a CA in no more: at the hosts named, or at all of its hosts", example: "sekisho trust untie partner shop.example.com",
		long: `untie takes hosts from a CA. Its clients are refused there at once, and their open connections are cut. A host that asked
for certificates only because of it asks for none any more.`,
		least: 1,
		hosts: func(have, given []string) []string {
			return slices.DeleteFunc(slices.Clone(have), func(name string) bool { return len(given) == 0 || slices.Contains(given, name) })
		},
	})
}

// trustHosts is a command that changes the hosts of a CA.
type trustHosts struct {
	use, short, long, example string
	least                     int
	hosts                     func(have, given []string) []string
}

func newTrustHosts(e env, h trustHosts) *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use: h.use, Short: h.short, Long: h.long, Example: "  " + h.example,
		Args: wantArgs(h.least, -1, h.example),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				ca, err := changeableCA(ctx, a, args[0])
				if err != nil {
					return err
				}
				names := h.hosts(ca.Hostnames, args[1:])
				if h.least == 1 && len(args) > 1 && len(names) == len(ca.Hostnames) {
					return &hinted{err: fmt.Errorf("the CA %q is tied to none of these", ca.Name), hint: "sekisho trust show " + ca.ID}
				}
				body := map[string]any{"hostnames": append([]string{}, names...)}
				if err := a.callNoting(ctx, e, apiCall{"PUT", ca.path() + "/hostnames", body}, &ca); err != nil {
					return err
				}
				if asJSON {
					return printJSON(e, ca.raw)
				}
				_, err = fmt.Fprintf(e.stdout, "%s %s: %s\n", ca.ID, ca.Name, orDash(strings.Join(ca.Hostnames, ",")))
				return err
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the CA as JSON")
	return c
}

func newTrustRemove(e env) *cobra.Command {
	var t target
	c := &cobra.Command{
		Use: "remove CA", Short: "Forget a CA that is tied to no host",
		Long:    "remove deletes a CA. One that is tied to hosts stays: untie it first.",
		Example: "  sekisho trust untie partner && sekisho trust remove partner",
		Args:    oneArg("sekisho trust remove partner"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				ca, err := changeableCA(ctx, a, args[0])
				if err != nil {
					return err
				}
				if len(ca.Hostnames) > 0 {
					return &hinted{err: fmt.Errorf("the CA %q is tied to %s", ca.Name, strings.Join(ca.Hostnames, ", ")), hint: "sekisho trust untie " + ca.ID}
				}
				if err := a.call(ctx, "DELETE", ca.path(), nil, nil); err != nil {
					return err
				}
				_, err = fmt.Fprintf(e.stdout, "%s %s: removed\n", ca.ID, ca.Name)
				return err
			})
		},
	}
	t.flags(c)
	return c
}

func newTrustCRL(e env) *cobra.Command {
	c := &cobra.Command{
		Use: "crl", Short: "Say where the CRLs of a CA are, beside the places in its certificates", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newTrustCRLAdd(e), newTrustCRLList(e))
	return c
}

func newTrustCRLAdd(e env) *cobra.Command {
	var t target
	c := &cobra.Command{
		Use: "add CA FILE|URL", Short: "Add a CRL file, which is watched, or the http or https URL of one",
		Long: `add adds a place to the crls of the CA's policy. A path is one of the machine on which the server runs, and made absolute
here. To take a place out, give the ones that stay: sekisho trust policy CA --crl FILE.`,
		Example: "  sekisho trust crl add partner /etc/pki/partner.crl\n  sekisho trust crl add partner http://crl.partner.example/root.crl",
		Args:    wantArgs(2, 2, "sekisho trust crl add partner /etc/pki/partner.crl"),
		RunE: func(c *cobra.Command, args []string) error {
			place := args[1]
			if !strings.Contains(place, "://") {
				var err error
				if place, err = filepath.Abs(place); err != nil {
					return err
				}
				if _, err := os.Stat(place); err != nil && t.server == "" {
					return &usageError{err: err, hint: "give a file that exists, or a URL"}
				}
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				ca, err := changeableCA(ctx, a, args[0])
				if err != nil {
					return err
				}
				if err := a.callNoting(ctx, e, apiCall{"POST", ca.path() + "/crls", map[string]string{"crl": place}}, &ca); err != nil {
					return err
				}
				_, err = fmt.Fprintf(e.stdout, "%s %s: %s\n", ca.ID, ca.Name, place)
				return err
			})
		},
	}
	t.flags(c)
	return c
}

func newTrustCRLList(e env) *cobra.Command {
	var t target
	var asJSON bool
	c := &cobra.Command{
		Use: "list CA", Short: "List the CRL files and URLs of a CA's policy",
		Example: "  sekisho trust crl list partner",
		Args:    oneArg("sekisho trust crl list partner"),
		RunE: func(c *cobra.Command, args []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				ca, err := findCA(ctx, a, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(e, append([]string{}, ca.Policy.CRLs...))
				}
				for _, place := range ca.Policy.CRLs {
					if _, err := fmt.Fprintln(e.stdout, place); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}
