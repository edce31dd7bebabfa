package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/trust"
)

// policyFlags are a flag for each field of a policy. Only those that were given count.
type policyFlags struct {
	texts  map[string]*string
	spans  map[string]*time.Duration
	lists  map[string]*[]string
	checks map[string]*bool
}

// policyFlag is one of them: its name on the command line, its field in JSON, what the help says.
type policyFlag struct{ flag, field, help string }

func policyTexts() []policyFlag {
	return []policyFlag{
		{"require", "require", "`WHICH` answers must be there: any (one fresh good answer, the default) or all"},
		{"on-failure", "on_failure", "`WHAT` happens without them: hard (refused, the default) or soft (let in and logged)"},
		{"scope", "scope", "`WHICH` certificates are judged: chain (all below the anchor, the default) or leaf"},
		{"eku", "eku", "extended key usage: `HOW` it is read: demand (clientAuth where the extension is there, the default) or ignore"},
	}
}

func policySpans() []policyFlag {
	return []policyFlag{
		{"grace", "grace", "`TIME` for which an answer counts as fresh after its nextUpdate, such as 1h; default none"},
		{"refresh", "refresh", "`TIME` after which sources in use are asked again; 0s: the default"},
	}
}

func policyLists() []policyFlag {
	return []policyFlag{
		{"source", "sources", "`KIND` of source that is asked: crl, ocsp, crlset; may be repeated"},
		{"crl", "crls", "`FILE|URL` of a CRL; may be repeated"},
		{"crlset", "crlsets", "`FILE|URL` of a CRLSet; may be repeated"},
		{"ocsp-responder", "ocsp_responders", "`URL` asked instead of the responders in certificates; may be repeated"},
		{"allow-algorithm", "allow_algorithms", "weak `NAME` of a signature algorithm taken all the same: sha1-rsa, sha1-ecdsa; may be repeated"},
		{"deny-algorithm", "deny_algorithms", "`NAME` of a signature algorithm that is refused; may be repeated"},
		{"allowed-policy", "allowed_policies", "certificate policy `OID`, one of which a path must be valid for; may be repeated"},
	}
}

func policyChecks() []policyFlag {
	return []policyFlag{
		{"ignore-cdp", "ignore_cdp", "do not fetch from the distribution points in certificates"},
		{"ignore-aia", "ignore_aia", "do not ask the responders in certificates"},
		{"ocsp-nonce", "ocsp_nonce", "send a nonce, and take only answers that repeat it"},
		{"ocsp-sha256", "ocsp_sha256", "name the issuer by SHA-256 instead of SHA-1 in requests"},
		{"ignore-staple", "ignore_staple", "do not use what clients staple"},
	}
}

func (p *policyFlags) flags(c *cobra.Command) {
	*p = policyFlags{map[string]*string{}, map[string]*time.Duration{}, map[string]*[]string{}, map[string]*bool{}}
	for _, f := range policyTexts() {
		p.texts[f.flag] = c.Flags().String(f.flag, "", f.help)
	}
	for _, f := range policySpans() {
		p.spans[f.flag] = c.Flags().Duration(f.flag, 0, f.help)
	}
	for _, f := range policyLists() {
		p.lists[f.flag] = c.Flags().StringArray(f.flag, nil, f.help)
	}
	for _, f := range policyChecks() {
		p.checks[f.flag] = c.Flags().Bool(f.flag, false, f.help)
	}
}

// changed returns the fields whose flags were given, as the API takes them. A list of one empty text is an empty list.
func (p *policyFlags) changed(c *cobra.Command) (map[string]any, error) {
	fields := map[string]any{}
	given := func(f policyFlag) bool { return c.Flags().Changed(f.flag) }
	for _, f := range policyTexts() {
		if given(f) {
			fields[f.field] = *p.texts[f.flag]
		}
	}
	for _, f := range policySpans() {
		if given(f) {
			fields[f.field] = *p.spans[f.flag]
		}
	}
	for _, f := range policyChecks() {
		if given(f) {
			fields[f.field] = *p.checks[f.flag]
		}
	}
	for _, f := range policyLists() {
		if !given(f) {
			continue
		}
		list := slices.DeleteFunc(slices.Clone(*p.lists[f.flag]), func(s string) bool { return s == "" })
		if f.field == "crls" || f.field == "crlsets" {
			var err error
			if list, err = absolutePlaces(list); err != nil {
				return nil, err
			}
		}
		fields[f.field] = append([]string{}, list...)
	}
	return fields, nil
}

func newTrustPolicy(e env) *cobra.Command {
	var t target
	var asJSON bool
	var policy policyFlags
	c := &cobra.Command{
		Use: "policy CA", Short: "Show or change how the clients of a CA are judged",
		Long: `policy changes the fields whose flags are given and leaves the others; without any it prints the policy in force. The new
one is in force when the command ends. A list is replaced whole: repeat its flag, or give '' for none.`,
		Example: `  sekisho trust policy partner
  sekisho trust policy partner --source crl --crl /etc/pki/partner.crl --grace 1h
  sekisho trust policy partner --allow-algorithm ''`,
		Args: oneArg("sekisho trust policy partner"),
		RunE: func(c *cobra.Command, args []string) error {
			fields, err := policy.changed(c)
			if err != nil {
				return err
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				ca, err := findCA(ctx, a, args[0])
				if err == nil && len(fields) > 0 {
					if ca, err = changeableCA(ctx, a, args[0]); err == nil {
						err = a.callNoting(ctx, e, apiCall{"PATCH", ca.path() + "/policy", fields}, &ca)
					}
				}
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(e, ca.Policy)
				}
				return printPolicy(e.stdout, ca.Policy)
			})
		},
	}
	t.flags(c)
	policy.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the policy as JSON, without the fields that have their default")
	return c
}

func printPolicy(w io.Writer, p trust.Policy) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	writePolicy(t, p)
	return t.Flush()
}

// writePolicy writes every field of a policy as it is in force.
func writePolicy(w io.Writer, p trust.Policy) {
	or := func(value, preset string) string {
		if value == "" {
			return preset
		}
		return value
	}
	list := func(items []string) string { return orDash(strings.Join(items, ", ")) }
	var sources []string
	for _, s := range p.AskedSources() {
		sources = append(sources, string(s))
	}
	refresh := "by source"
	if p.Refresh != 0 {
		refresh = p.Refresh.String()
	}
	for _, line := range [][2]string{
		{"sources", list(sources)},
		{"require", or(p.Require, trust.RequireAny)},
		{"on_failure", or(p.OnFailure, trust.Hard)},
		{"scope", or(p.Scope, trust.Chain)},
		{"refresh", refresh},
		{"grace", p.Grace.String()},
		{"crls", list(p.CRLs)},
		{"crlsets", list(p.CRLSets)},
		{"ocsp_responders", list(p.OCSPResponders)},
		{"ignore_cdp", fmt.Sprint(p.IgnoreCDP)},
		{"ignore_aia", fmt.Sprint(p.IgnoreAIA)},
		{"ocsp_nonce", fmt.Sprint(p.OCSPNonce)},
		{"ocsp_sha256", fmt.Sprint(p.OCSPSHA256)},
		{"ignore_staple", fmt.Sprint(p.IgnoreStaple)},
		{"eku", or(p.EKU, trust.EKUDemand)},
		{"allow_algorithms", list(p.AllowAlgorithms)},
		{"deny_algorithms", list(p.DenyAlgorithms)},
		{"allowed_policies", list(p.AllowedPolicies)},
	} {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
}
