package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

// rotation is what a rotation did, or would do.
type rotation struct {
	New     []caView `json:"new"`
	Retired []caView `json:"retired"`
	Cross   []struct {
		Subject string `json:"subject"`
		Issuer  string `json:"issuer"`
	} `json:"cross"`
}

func newCARotate(e env) *cobra.Command {
	var t target
	var keyType, subject, rootSubject string
	var root, dry, asJSON bool
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Put a new issuing CA with a new key in force",
		Long: `rotate makes a new issuing CA below the root, which issues from now on. The one before it issues no more; it goes on publishing
what is revoked until it ends, and hosts let its clients in as before. Certificates of the checkpoint's own servers are
replaced by ones of the new CA within seconds. No connection is cut.

With --root there is a new root, too. The two roots sign one another, so that who trusts one of them verifies what is below
the other; hand out the new ca.pem, which has both, before the old root ends.

--dry-run says what would happen and does nothing.`,
		Example: "  sekisho ca rotate --dry-run\n  sekisho ca rotate --root --key-type ecdsa-p384",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			body := map[string]any{"key_type": keyType, "subject": subject, "root": root, "root_subject": rootSubject, "dry_run": dry}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				var raw json.RawMessage
				if err := a.call(ctx, "POST", "/sekisho/ca/rotate", body, &raw); err != nil {
					return err
				}
				if asJSON {
					return printJSON(e, raw)
				}
				var r rotation
				if err := json.Unmarshal(raw, &r); err != nil {
					return fmt.Errorf("answer of POST /sekisho/ca/rotate: %w", err)
				}
				return r.print(e, dry)
			})
		},
	}
	t.flags(c)
	fl := c.Flags()
	fl.StringVar(&keyType, "key-type", "", "`TYPE` of the new keys: ecdsa-p256, ecdsa-p384, rsa-3072, rsa-4096, ed25519, ml-dsa-65 (default: as before)")
	fl.StringVar(&subject, "subject", "", "subject `DN` of the issuing CA (default: as before, with G2, G3, ... after its name)")
	fl.BoolVar(&root, "root", false, "make a new root, too")
	fl.StringVar(&rootSubject, "root-subject", "", "subject `DN` of the new root (default: as before, with G2, G3, ... after its name)")
	fl.BoolVar(&dry, "dry-run", false, "say what would happen and do nothing")
	fl.BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

func (r rotation) print(e env, dry bool) error {
	made, retired := "made", "retired"
	if dry {
		made, retired = "would be made", "would be retired"
	}
	for _, c := range r.New {
		fmt.Fprintf(e.stdout, "%s  %s %s: %s, %s, until %s\n", c.Name, c.Role, made, c.Subject, c.KeyType, c.ExpiresOn)
	}
	for _, c := range r.Retired {
		fmt.Fprintf(e.stdout, "%s  %s %s: %s, until %s, %d certificates not revoked\n", c.Name, c.Role, retired, c.Subject, c.ExpiresOn, c.Active)
	}
	for _, c := range r.Cross {
		fmt.Fprintf(e.stdout, "cross certificate: %s, by %s\n", c.Subject, c.Issuer)
	}
	return nil
}

// decodeResult reads the result of an answer.
func decodeResult(answer envelope, into any) error {
	if err := json.Unmarshal(answer.Result, into); err != nil {
		return fmt.Errorf("answer of the admin API: %w", err)
	}
	return nil
}
