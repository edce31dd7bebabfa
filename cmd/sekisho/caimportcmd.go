package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sekisho/internal/pkix"
)

// maxImportFile bounds a file that is imported, in octets: what goes into the body of a call as PEM.
const maxImportFile = 22 << 20

// importFlags are the flags of `sekisho ca import`.
type importFlags struct {
	cert, key, passphrase, name, chain, crl, ocspCert, ocspKey string
	shards                                                     int
	trust                                                      bool
}

func newCAImport(e env) *cobra.Command {
	var t target
	var f importFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "import",
		Short: "Import a CA made by openssl, cfssl or another program",
		Long: `import makes a CA that exists one of the checkpoint's own. With --key certificates are issued, revoked and published for it
here; its key goes into the keystore, encrypted where the checkpoint's keys are. With --ocsp-cert and --ocsp-key instead of
--key its key stays where it is: OCSP is answered for it here, and "sekisho ca import-crl" brings what it revokes.

Hosts let its clients in as those of the managed CA unless --trust=false is given. What it has revoked so far comes with --crl,
and certificates that it has issued with "sekisho cert import". Files are PEM, or DER where they are no keys. A file that
cannot be used is named, and nothing is stored.`,
		Example: `  sekisho ca import --cert ca.pem --key ca-key.pem --crl ca.crl --name legacy
  sekisho ca import --cert ca.pem --ocsp-cert ocsp.pem --ocsp-key ocsp-key.pem --crl ca.crl`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := f.body()
			if err != nil {
				return err
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				if body["zone_id"], err = t.zoneID(ctx, a); err != nil {
					return err
				}
				return importCA(ctx, e, a, body, asJSON)
			})
		},
	}
	t.flags(c)
	t.zoneFlag(c)
	fl := c.Flags()
	fl.Lookup("passphrase-file").Usage = "`FILE` with the passphrase of the checkpoint's own keys, when no server runs and they have one"
	fl.StringVar(&f.cert, "cert", "", "certificate `FILE` of the CA")
	fl.StringVar(&f.key, "key", "", "PEM `FILE` of its key: PKCS#8, PKCS#1 or SEC 1, plain or encrypted")
	fl.StringVar(&f.passphrase, "key-passphrase-file", "", "`FILE` with the passphrase of --key and --ocsp-key")
	fl.StringVar(&f.name, "name", "", "`NAME` of the CA (default: made of its common name)")
	fl.StringVar(&f.chain, "chain", "", "PEM `FILE` with its issuers, the next one first; they are sent along")
	fl.StringVar(&f.crl, "crl", "", "`FILE` with its newest CRL")
	fl.StringVar(&f.ocspCert, "ocsp-cert", "", "certificate `FILE` of an OCSP signer that the CA has signed")
	fl.StringVar(&f.ocspKey, "ocsp-key", "", "PEM `FILE` of the OCSP signer's key")
	fl.IntVar(&f.shards, "shards", 0, "`NUMBER` of CRL shards of certificates issued here (default: as the CA in force)")
	fl.BoolVar(&f.trust, "trust", true, "hosts let its clients in as those of the managed CA")
	fl.BoolVar(&asJSON, "json", false, "print the CA as JSON")
	return c
}

// body reads the files. What is in them is judged by the server.
func (f importFlags) body() (map[string]any, error) {
	switch {
	case f.cert == "":
		return nil, &usageError{err: errors.New("--cert is missing"), hint: "sekisho ca import --cert ca.pem --key ca-key.pem"}
	case f.key == "" && f.ocspCert == "":
		return nil, &usageError{err: errors.New("--key is missing"), hint: "where the key stays elsewhere, give --ocsp-cert and --ocsp-key"}
	case (f.ocspCert == "") != (f.ocspKey == ""):
		return nil, &usageError{err: errors.New("--ocsp-cert and --ocsp-key go together"), hint: "give both"}
	}
	body := map[string]any{"name": f.name, "shards": f.shards, "trust": f.trust}
	for _, file := range []struct{ field, path, block string }{
		{"certificate", f.cert, "CERTIFICATE"},
		{"key", f.key, ""},
		{"chain", f.chain, "CERTIFICATE"},
		{"crl", f.crl, "X509 CRL"},
		{"ocsp_certificate", f.ocspCert, "CERTIFICATE"},
		{"ocsp_key", f.ocspKey, ""},
	} {
		text, err := readForImport(file.path, file.block)
		if err != nil {
			return nil, err
		}
		body[file.field] = text
	}
	passphrase, err := keyPassphrase(f.passphrase)
	body["passphrase"] = passphrase
	return body, err
}

// keyPassphrase reads the passphrase of a key that is imported; "" where there is no file.
func keyPassphrase(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := readForImport(path, "")
	if err != nil {
		return "", err
	}
	if text = strings.TrimRight(text, "\r\n"); text == "" {
		return "", &usageError{err: fmt.Errorf("--key-passphrase-file %s is empty", path)}
	}
	return text, nil
}

// readForImport reads a file; DER becomes a PEM block of the given kind, where there is one.
func readForImport(path, block string) (string, error) {
	if path == "" {
		return "", nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", &usageError{err: err}
	}
	defer file.Close()
	limit := int64(maxImportFile)
	if block == "" {
		limit = pkix.MaxPrivateKeyBytes
	}
	data, err := readBounded(path, file, limit)
	if err != nil {
		return "", err
	}
	if len(data) == 0 { // a CRL that did not arrive is not the same as none
		return "", &usageError{err: fmt.Errorf("%s is empty", path)}
	}
	if block != "" && data[0] == 0x30 && !bytes.Contains(data, []byte("-----BEGIN ")) {
		data = pem.EncodeToMemory(&pem.Block{Type: block, Bytes: data})
	}
	return string(data), nil
}

// importCA sends the import and says what became of it.
func importCA(ctx context.Context, e env, a *api, body map[string]any, asJSON bool) error {
	a.patient()
	reply, err := a.send(ctx, "POST", "/sekisho/ca/import", body)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e, reply.Result)
	}
	var ca caView
	var count struct {
		Revoked int `json:"revoked"`
	}
	if err := errors.Join(decodeResult(reply, &ca), decodeResult(reply, &count)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s: imported, %d revoked by its CRL\n%s", ca.Name, count.Revoked, ca.text())
	return err
}

func newCAImportCRL(e env) *cobra.Command {
	var t target
	c := &cobra.Command{
		Use: "import-crl NAME FILE", Short: "Bring a newer CRL of a CA whose key is elsewhere",
		Long: `import-crl makes the checkpoint know what a CA has revoked whose key it does not have: what the list has is revoked, at the
edge and in OCSP answers; what was on hold and has left the list is active again. The list must be newer than the last one.`,
		Example: "  sekisho ca import-crl partner partner.crl",
		Args:    wantArgs(2, 2, "sekisho ca import-crl partner partner.crl"),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := readForImport(args[1], "X509 CRL")
			if err != nil {
				return err
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				zone, err := t.zoneID(ctx, a)
				if err != nil {
					return err
				}
				var r struct {
					CA, Number                    string
					Entries, Revoked, Reactivated int
				}
				call := apiCall{"POST", "/sekisho/ca/" + url.PathEscape(args[0]) + "/crl", map[string]any{"crl": text, "zone_id": zone}}
				a.patient()
				if err := a.callNoting(ctx, e, call, &r); err != nil {
					return err
				}
				_, err = fmt.Fprintf(e.stdout, "%s: CRL number %s, %d entries: %d newly revoked, %d active again\n", r.CA, orNone(r.Number), r.Entries, r.Revoked, r.Reactivated)
				return err
			})
		},
	}
	t.flags(c)
	t.zoneFlag(c)
	return c
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}

func newCASigner(e env) *cobra.Command {
	var t target
	var f importFlags
	var own bool
	c := &cobra.Command{
		Use: "ocsp-signer NAME", Short: "Give a CA another OCSP signer",
		Long: `ocsp-signer has the OCSP answers of a CA signed by a certificate that the CA has signed for that purpose, in place of the
one before it. For a CA whose key is elsewhere that is the only way; --own goes back to signers of the checkpoint's own making.`,
		Example: "  sekisho ca ocsp-signer partner --ocsp-cert ocsp.pem --ocsp-key ocsp-key.pem",
		Args:    oneArg("sekisho ca ocsp-signer partner --ocsp-cert ocsp.pem --ocsp-key ocsp-key.pem"),
		RunE: func(c *cobra.Command, args []string) error {
			if own == (f.ocspCert != "" && f.ocspKey != "") {
				return &usageError{err: errors.New("give --ocsp-cert and --ocsp-key, or --own"), hint: c.CommandPath() + " --help says what each does"}
			}
			cert, certErr := readForImport(f.ocspCert, "CERTIFICATE")
			key, keyErr := readForImport(f.ocspKey, "")
			passphrase, passErr := keyPassphrase(f.passphrase)
			if err := errors.Join(certErr, keyErr, passErr); err != nil {
				return err
			}
			body := map[string]any{"ocsp_certificate": cert, "ocsp_key": key, "passphrase": passphrase}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error {
				var ca caView
				if err := a.call(ctx, "PUT", "/sekisho/ca/"+url.PathEscape(args[0])+"/ocsp-signer", body, &ca); err != nil {
					return err
				}
				_, err := fmt.Fprint(e.stdout, ca.text())
				return err
			})
		},
	}
	t.flags(c)
	fl := c.Flags()
	fl.StringVar(&f.ocspCert, "ocsp-cert", "", "certificate `FILE` of the signer")
	fl.StringVar(&f.ocspKey, "ocsp-key", "", "PEM `FILE` of its key")
	fl.StringVar(&f.passphrase, "key-passphrase-file", "", "`FILE` with the passphrase of --ocsp-key")
	fl.BoolVar(&own, "own", false, "signers of the checkpoint's own making again")
	return c
}
