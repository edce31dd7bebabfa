package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
)

func newCA(e env) *cobra.Command {
	c := &cobra.Command{
		Use:   "ca",
		Short: "Make, show, rotate, import and distrust the CAs of a checkpoint, fetch their CRLs",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newCAInit(e), newCAShow(e), newCACRL(e), newCAImport(e), newCAImportCRL(e), newCASigner(e), newCATrust(e), newCAUntrust(e), newCARotate(e))
	return c
}

func newCAInit(e env) *cobra.Command {
	var dir, passphrase string
	pki := PKIConfig{}
	c := &cobra.Command{
		Use:   "init",
		Short: "Make root and issuing CA in a data directory before the first start",
		Long: `init makes a root and an issuing CA in --data. serve does the same at its first start; init is for choosing the key
type, the subjects and the address of CRL and OCSP answers beforehand. A directory that has a CA is left alone: exit code 1.`,
		Example: `  sekisho ca init --data /var/lib/sekisho --key-type rsa-3072 --root "CN=Kame Root,O=Kame,C=JP" --pki-url http://pki.example.com`,
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return caInit(c.Context(), e, dir, passphrase, pki) },
	}
	fl := c.Flags()
	fl.StringVar(&dir, "data", "sekisho-data", "`DIR` of the state, made when missing")
	fl.StringVar(&passphrase, "passphrase-file", "", "`FILE` with a passphrase that encrypts the keys")
	fl.StringVar(&pki.KeyType, "key-type", "ecdsa-p256", "`TYPE` of both keys: ecdsa-p256, ecdsa-p384, rsa-3072, rsa-4096, ed25519, ml-dsa-65")
	fl.StringVar(&pki.Root, "root", "", "subject `DN` of the root (default CN=sekisho Root CA)")
	fl.StringVar(&pki.Issuing, "issuing", "", "subject `DN` of the issuing CA (default CN=sekisho Issuing CA)")
	fl.IntVar(&pki.Shards, "shards", ca.DefaultShards, "`N` lists for the issuing CA's certificates, 1 to 1024; fixed for good")
	fl.StringVar(&pki.URL, "pki-url", "http://127.0.0.1:8441", "base `URL` of CRL, OCSP and CA certificates, written into certificates")
	return c
}

func caInit(ctx context.Context, e env, dir, passphrase string, pki PKIConfig) (err error) {
	// Before anything is made on disk.
	if err := pki.check(); err != nil {
		return &usageError{err: err}
	}
	logger := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg, err := offlineConfig(dir, passphrase)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if store.Held(dir) {
		return &hinted{err: fmt.Errorf("a server runs on %s: its CA exists", dir), hint: "sekisho ca show --data " + dir}
	}
	h, err := openHouse(ctx, cfg, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	h.authority, err = ca.Open(ctx, ca.Config{Ledger: h.store, Keys: h.keys, PKIURL: pki.URL, Logger: logger})
	if err != nil {
		return err
	}
	if h.authority.Ready() {
		return &hinted{err: fmt.Errorf("%s has a CA already: %s", dir, pkix.DNString(h.authority.Issuing().RawSubject)), hint: "choose another directory with --data"}
	}
	if err := h.openCA(ctx, pki, nil); err != nil {
		return err
	}
	if err := h.writeRoots(); err != nil {
		return err
	}
	path := filepath.Join(dir, "ca.pem")
	_, err = fmt.Fprintf(e.stdout, "root     %s\nissuing  %s\nwritten  %s\n", pkix.DNString(h.authority.Root().RawSubject), pkix.DNString(h.authority.Issuing().RawSubject), path)
	return err
}

// caView is one CA as the API shows it.
type caView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Role       string `json:"role"`
	State      string `json:"state"`
	Imported   bool   `json:"imported"`
	Trusted    bool   `json:"trusted"`
	DaysLeft   int    `json:"days_left"`
	Shards     int    `json:"shards"`
	Active     int    `json:"active_certificates"`
	Revoked    int    `json:"revoked_certificates"`
	SignerEnds string `json:"ocsp_signer_expires_on"`
	Extra      []struct {
		Subject     string `json:"subject"`
		Issuer      string `json:"issuer"`
		Certificate string `json:"certificate"`
		URL         string `json:"url"`
	} `json:"extra"`
	Subject     string `json:"subject"`
	Serial      string `json:"serial_number"`
	KeyType     string `json:"key_type"`
	Fingerprint string `json:"fingerprint_sha256"`
	ExpiresOn   string `json:"expires_on"`
	Certificate string `json:"certificate"`
	CRL         string `json:"crl"`

	raw json.RawMessage
}

// UnmarshalJSON keeps the answer as it came, for --json.
func (c *caView) UnmarshalJSON(data []byte) error {
	type plain caView
	if err := json.Unmarshal(data, (*plain)(c)); err != nil {
		return err
	}
	c.raw = append(json.RawMessage(nil), data...)
	return nil
}

func newCAShow(e env) *cobra.Command {
	var t target
	var asJSON, asPEM bool
	c := &cobra.Command{
		Use: "show", Short: "Show the CAs of a checkpoint",
		Long: `show lists every CA: roots, the one in force ("active"), those that were rotated ("retired": they publish what is revoked
and issue no more), imported ones ("issuing" when cert issue --ca names them; "answering" when their key is elsewhere).`,
		Example: "  sekisho ca show\n  sekisho ca show --pem > chain.pem",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				var cas []caView
				if err := a.call(ctx, "GET", "/sekisho/ca", nil, &cas); err != nil {
					return err
				}
				if asJSON {
					raw := make([]json.RawMessage, len(cas))
					for i, c := range cas {
						raw[i] = c.raw
					}
					return printJSON(e, raw)
				}
				for _, c := range cas {
					var err error
					if asPEM {
						_, err = fmt.Fprint(e.stdout, c.pem())
					} else {
						_, err = fmt.Fprint(e.stdout, c.text())
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	t.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	c.Flags().BoolVar(&asPEM, "pem", false, "print only the certificates in PEM, roots first, each with its cross certificates and chain")
	return c
}

// readBounded reads at most limit bytes and refuses more; what names the input for the error.
func readBounded(what string, r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &usageError{err: fmt.Errorf("%s is larger than %d bytes", what, limit)}
	}
	return data, nil
}
