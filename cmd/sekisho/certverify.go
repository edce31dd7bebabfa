package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/certpath"
	"sekisho/internal/identity"
	"sekisho/internal/pkix"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// verifyFlags are the flags of `sekisho cert verify`.
type verifyFlags struct {
	roots, intermediates, crls, ocsp []string
	at, purpose, host                string
	maxDepth                         int
	soft, leafOnly, sha1             bool
	grace                            time.Duration
	asJSON                           bool
}

func newCertVerify(e env) *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use: "verify LEAF", Short: "Judge a certificate by roots, CRLs and OCSP answers at hand, without a server",
		Long: `verify looks for a path from the first certificate in LEAF to one of the --roots and judges every certificate of it
as the edge would: signatures, dates, usage, constraints, policies, and revocation by the CRLs and OCSP answers given.
Nothing is fetched. Certificates of which no CRL or answer speaks are taken as not revoked, and named as unchecked;
once a list of a CA is given, it must be fresh, signed by that CA and cover the certificate.

Exit codes: 0 valid, 1 refused (the reason is printed), 2 input that cannot be read.`,
		Example: `  sekisho cert verify client.pem --roots ca.pem --crls ca.crl
  sekisho cert verify client.pem --roots root.pem --intermediates inter.pem --crls root.crl --crls inter.crl --json
  sekisho cert verify server.pem --roots ca.pem --purpose server --host api.example.com --at 2025-02-22T12:00:00Z`,
		Args: oneArg("sekisho cert verify client.pem --roots ca.pem"),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c.Context(), e, args[0]) },
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.roots, "roots", nil, "trust anchors, PEM or DER `FILE` (repeatable; required)")
	fl.StringSliceVar(&f.intermediates, "intermediates", nil, "further certificates for the path, PEM or DER `FILE` (repeatable)")
	fl.StringSliceVar(&f.crls, "crls", nil, "CRL, PEM or DER `FILE` (repeatable)")
	fl.StringSliceVar(&f.ocsp, "ocsp", nil, "OCSP answer about the leaf, DER `FILE` (repeatable)")
	fl.StringVar(&f.at, "at", "", "judge as of this `TIME`, RFC 3339 (default: now)")
	fl.StringVar(&f.purpose, "purpose", "client", "`PURPOSE`: client, server or any")
	fl.StringVar(&f.host, "host", "", "demand a subject alternative name for `NAME`")
	fl.IntVar(&f.maxDepth, "max-depth", certpath.DefaultMaxDepth, "at most `N` certificates in a path, leaf and root included")
	fl.BoolVar(&f.soft, "soft", false, "let in what has no fresh answer")
	fl.BoolVar(&f.leafOnly, "leaf-only", false, "judge the revocation of the leaf alone")
	fl.BoolVar(&f.sha1, "allow-sha1", false, "take SHA-1 signatures")
	fl.DurationVar(&f.grace, "grace", 0, "take answers this long after their nextUpdate")
	fl.BoolVar(&f.asJSON, "json", false, "print the whole explanation as JSON")
	return c
}

func (f *verifyFlags) run(ctx context.Context, e env, path string) error {
	o, leaf, presented, err := f.input(path)
	if err != nil {
		return &usageError{err: err, hint: "sekisho cert verify --help shows what each flag takes"}
	}
	x, err := o.Verify(ctx, leaf, presented)
	if err != nil {
		return &usageError{err: err}
	}
	if err := printExplanation(e, x, f.asJSON); err != nil {
		return err
	}
	if x.Reason != identity.OK {
		return fmt.Errorf("%s: %s: %s", path, x.Reason, x.Text)
	}
	return nil
}

// input reads what the flags name.
func (f *verifyFlags) input(path string) (o verify.Offline, leaf *x509.Certificate, presented []*x509.Certificate, err error) {
	chain, err := readCertificates([]string{path})
	if err != nil {
		return o, nil, nil, err
	}
	if len(f.roots) == 0 {
		return o, nil, nil, errors.New("no --roots: name the file of the CA that the certificate must come from")
	}
	o.CRLs = f.crls
	o.Policy = trust.Policy{Grace: f.grace}
	if f.soft {
		o.Policy.OnFailure = trust.Soft
	}
	if f.leafOnly {
		o.Policy.Scope = trust.Leaf
	}
	if f.sha1 {
		o.Policy.AllowAlgorithms = trust.WeakAlgorithms()
	}
	if err := o.Policy.Check(); err != nil {
		return o, nil, nil, err
	}
	o.Path = certpath.Options{At: time.Now(), Host: f.host, MaxDepth: f.maxDepth, Allows: o.Policy.Allows}
	if f.maxDepth < 1 {
		return o, nil, nil, fmt.Errorf("--max-depth %d: a path has at least one certificate", f.maxDepth)
	}
	switch f.purpose {
	case "client":
	case "server":
		o.Path.Purpose = certpath.Server
	case "any":
		o.Path.Purpose = certpath.AnyPurpose
	default:
		return o, nil, nil, fmt.Errorf("--purpose %q: use client, server or any", f.purpose)
	}
	if f.at != "" {
		if o.Path.At, err = time.Parse(time.RFC3339, f.at); err != nil {
			return o, nil, nil, fmt.Errorf("--at %q: write it like 2025-02-22T12:00:00Z", f.at)
		}
	}
	if o.Path.Anchors, err = readCertificates(f.roots); err != nil {
		return o, nil, nil, err
	}
	if o.Path.Intermediates, err = readCertificates(f.intermediates); err != nil {
		return o, nil, nil, err
	}
	for _, name := range f.ocsp {
		der, err := readBoundedFile(name)
		if err != nil {
			return o, nil, nil, err
		}
		if len(der) == 0 { // which a handshake means as "nothing stapled", and would be passed over
			return o, nil, nil, fmt.Errorf("%s is empty: name a file with an OCSP answer in DER", name)
		}
		o.OCSP = append(o.OCSP, verify.OCSPAnswer{Name: name, DER: der})
	}
	return o, chain[0], chain[1:], nil
}

// maxInputFile bounds a file of certificates or an OCSP answer, in bytes.
const maxInputFile = 16 << 20

// readBoundedFile reads a file that is not too large to be what it is named for.
func readBoundedFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readBounded(name, file, maxInputFile)
}

// readCertificates reads the certificates of PEM or DER files.
func readCertificates(names []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, name := range names {
		data, err := readBoundedFile(name)
		if err != nil {
			return nil, err
		}
		certs, err := parseCertificates(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, certs...)
	}
	return all, nil
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	if block, _ := pem.Decode(data); block == nil && len(data) > 0 && data[0] == 0x30 {
		cert, err := pkix.ParseAnyCertificate(data)
		if err != nil {
			return nil, err
		}
		return []*x509.Certificate{cert}, nil
	}
	return pkix.ParseCertificates(data)
}
