package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	stdpkix "crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"sekisho/internal/pkix"
)

// issueFlags are the flags of `sekisho cert issue`.
type issueFlags struct {
	csr, subject, profile, keyType, out, ca string
	dns, ips                                []string
	days                                    int
}

func newCertIssue(e env) *cobra.Command {
	var t target
	var f issueFlags
	c := &cobra.Command{
		Use:   "issue",
		Short: "Issue a certificate from a CSR, or with a key made here",
		Long: `issue has the issuing CA sign a certificate. Without --csr a key is made on this machine and never leaves it:
BASE.pem and BASE-key.pem (mode 0600) are written. With --csr the certificate goes to standard output,
or to BASE.pem with --out.

Subjects are written as RFC 4514 has it (CN=Super Client,O=Kame,C=JP) or as openssl does
(/C=JP/ST=Tokyo/L=Chuo/O=Kame/CN=Super Client), with CN, L, ST, O, OU, C, STREET, DC, UID.`,
		Example: `  sekisho cert issue --subject "/C=JP/O=Kame/CN=Super Client" --out client
  sekisho cert issue --profile server --subject CN=api.example.com --dns api.example.com --out api
  sekisho cert issue --csr client.csr --days 30 > client.pem`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return t.with(c.Context(), e, func(ctx context.Context, a *api) error { return t.issue(ctx, e, a, f) })
		},
	}
	t.flags(c)
	t.zoneFlag(c)
	fl := c.Flags()
	fl.StringVar(&f.csr, "csr", "", "PEM `FILE` of a certificate signing request, - for standard input")
	fl.StringVar(&f.subject, "subject", "", "subject `DN` of a certificate whose key is made here")
	fl.StringVar(&f.ca, "ca", "", "`NAME` of the CA that issues, as sekisho ca show has it (default: the one in force)")
	fl.StringVar(&f.profile, "profile", "client", "`PROFILE`: client or server")
	fl.StringVar(&f.keyType, "key-type", "ecdsa-p256", "`TYPE` of a key made here: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096, ed25519, ml-dsa-65")
	fl.StringVar(&f.out, "out", "", "`BASE` of the files written")
	fl.StringSliceVar(&f.dns, "dns", nil, "DNS `NAMES` for the subject alternative name")
	fl.StringSliceVar(&f.ips, "ip", nil, "IP `ADDRESSES` for the subject alternative name")
	fl.IntVar(&f.days, "days", 365, "validity in `DAYS`")
	return c
}

// check finds contradictions before anything is opened or made.
func (f issueFlags) check() error {
	switch {
	case (f.csr == "") == (f.subject == ""):
		return &usageError{err: errors.New("give either --csr or --subject"), hint: "sekisho cert issue --subject CN=device-1 --out device-1"}
	case f.subject != "" && f.out == "":
		return &usageError{err: errors.New("--subject makes a key: say where it goes"), hint: "add --out BASE for BASE.pem and BASE-key.pem"}
	case f.csr != "" && len(f.dns)+len(f.ips) > 0:
		return &usageError{err: errors.New("--dns and --ip go with --subject"), hint: "the names of a request are inside it: openssl req -addext subjectAltName=DNS:api.example.com"}
	case f.out == "":
		return nil
	case f.subject == "":
		return refuseOverwrite(f.out + ".pem")
	}
	return refuseOverwrite(f.out+".pem", f.out+"-key.pem")
}

func (t *target) issue(ctx context.Context, e env, a *api, f issueFlags) error {
	zone, err := t.zoneID(ctx, a)
	if err != nil {
		return err
	}
	if f.csr != "" {
		csr, err := readInput(e, f.csr)
		if err != nil {
			return err
		}
		return issueFor(ctx, e, a, order{f, zone, string(csr)})
	}
	csr, key, err := makeCSR(f)
	if err != nil {
		return &usageError{err: err}
	}
	// The key first: a certificate must not be issued whose key then cannot be written.
	path := f.out + "-key.pem"
	if err := writeNewKey(path, key); err != nil {
		return err
	}
	if err := issueFor(ctx, e, a, order{f, zone, string(csr)}); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// order is what is sent to the CA.
type order struct {
	issueFlags
	zone, request string // id; PEM
}

// issueFor has a request signed and prints the certificate, or writes it to BASE.pem.
func issueFor(ctx context.Context, e env, a *api, f order) error {
	var cert clientCertificate
	body := map[string]any{"csr": f.request, "validity_days": f.days, "profile": f.profile, "ca": f.ca}
	if err := a.call(ctx, "POST", "/zones/"+f.zone+"/client_certificates", body, &cert); err != nil {
		return err
	}
	if f.out == "" {
		_, err := fmt.Fprint(e.stdout, cert.Certificate)
		return err
	}
	if err := os.WriteFile(f.out+".pem", []byte(cert.Certificate), 0o644); err != nil { //nolint:gosec // a certificate is public
		return &hinted{err: fmt.Errorf("write the certificate: %w", err), hint: "it is issued all the same: sekisho cert show --pem " + cert.Serial}
	}
	_, err := fmt.Fprintf(e.stdout, "%s.pem  serial %s, until %s\n", f.out, cert.Serial, cert.ExpiresOn)
	return err
}

// writeNewKey writes a private key to a file that must not exist yet, readable by its owner only.
func writeNewKey(path string, key crypto.Signer) error {
	data, err := pkix.EncodePrivateKey(key)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &usageError{err: fmt.Errorf("write the key: %w", err)}
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the key: %w", err), os.Remove(path))
	}
	return nil
}

// makeCSR makes a key and a request for it.
func makeCSR(f issueFlags) ([]byte, crypto.Signer, error) {
	subject, err := pkix.ParseDN(f.subject)
	if err != nil {
		return nil, nil, fmt.Errorf("--subject: %w", err)
	}
	var rdn stdpkix.RDNSequence
	if _, err := asn1.Unmarshal(subject, &rdn); err != nil {
		return nil, nil, fmt.Errorf("--subject: %w", err)
	}
	keyType, err := pkix.ParseKeyType(f.keyType)
	if err != nil {
		return nil, nil, fmt.Errorf("--key-type: %w", err)
	}
	key, err := pkix.GenerateKey(keyType)
	if err != nil {
		return nil, nil, err
	}
	request := &x509.CertificateRequest{RawSubject: subject, DNSNames: f.dns}
	for _, text := range f.ips {
		ip := net.ParseIP(text)
		if ip == nil {
			return nil, nil, fmt.Errorf("--ip %q is no IP address", text)
		}
		request.IPAddresses = append(request.IPAddresses, ip)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, request, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the request: %w", err)
	}
	return pkix.EncodeCSR(der), key, nil
}

// readInput reads a file, or standard input for "-", up to the size of the largest request taken.
func readInput(e env, path string) ([]byte, error) {
	if path != "-" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, &usageError{err: err}
		}
		return data, nil
	}
	return readBounded("standard input", e.stdin, pkix.MaxCSRBytes+1)
}
