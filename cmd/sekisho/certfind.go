package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"sekisho/internal/pkix"
)

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// find resolves what a person wrote: an id, a fingerprint, a serial number, a common name, or a file with the certificate.
func (t *target) find(ctx context.Context, a *api, ref string) (zone string, cert clientCertificate, err error) {
	if zone, err = t.zoneID(ctx, a); err != nil {
		return "", cert, err
	}
	if uuidForm.MatchString(strings.ToLower(ref)) {
		err = a.call(ctx, "GET", "/zones/"+zone+"/client_certificates/"+strings.ToLower(ref), nil, &cert)
		return zone, cert, err
	}
	if cert, err := certificateFile(ref); cert != nil || err != nil {
		return t.findFile(ctx, a, zone, ref, cert, err)
	}
	hex := strings.TrimPrefix(strings.ReplaceAll(strings.ToLower(ref), ":", ""), "0x")
	keys := []string{"serial_number", "common_name"}
	if len(hex) == 64 {
		keys = []string{"fingerprint_sha256", "common_name"}
	}
	if strings.Trim(hex, "0123456789abcdef") != "" {
		keys = []string{"common_name"}
	}
	for _, key := range keys {
		certs, err := listCertificates(ctx, a, zone, url.Values{key: {ref}}, 0)
		if err != nil {
			return "", cert, err
		}
		switch len(certs) {
		case 0:
		case 1:
			return zone, certs[0], nil
		default:
			return "", cert, ambiguous(key, ref, certs)
		}
	}
	return "", cert, &hinted{err: fmt.Errorf("no certificate %q", ref), hint: "sekisho cert list shows what there is"}
}

// ambiguous says how to name one of several certificates. Serial numbers are of their CAs: two can have the same.
func ambiguous(key, ref string, certs []clientCertificate) error {
	if key == "common_name" {
		return &usageError{err: fmt.Errorf("%d certificates have the common name %q", len(certs), ref), hint: "name one by its serial number: sekisho cert list --cn '" + ref + "'"}
	}
	of := make([]string, len(certs))
	for i, c := range certs {
		of[i] = c.ID + " of " + c.Authority.Name
	}
	return &usageError{err: fmt.Errorf("%d certificates have the serial number %s", len(certs), ref), hint: "name one by its id: " + strings.Join(of, ", ")}
}

// certificateFile reads a file with a certificate, PEM or DER, of which the first counts; nil when ref is no file.
func certificateFile(ref string) (*x509.Certificate, error) {
	if info, err := os.Stat(ref); err != nil || !info.Mode().IsRegular() {
		return nil, nil //nolint:nilnil // it is a serial number or a name
	}
	data, err := readBoundedFile(ref)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return certs[0], nil
}

// findFile finds the certificate of a file, and says of one that is not there whose it is.
func (t *target) findFile(ctx context.Context, a *api, zone, path string, cert *x509.Certificate, err error) (string, clientCertificate, error) {
	if err != nil {
		return "", clientCertificate{}, &usageError{err: err, hint: "name a file with a certificate in PEM or DER, or a serial number"}
	}
	query := url.Values{"fingerprint_sha256": {pkix.FingerprintOf(cert.Raw).String()}}
	found, err := listCertificates(ctx, a, zone, query, 0)
	if err != nil {
		return "", clientCertificate{}, err
	}
	if len(found) > 0 {
		return zone, found[0], nil
	}
	var cas []caView
	if err := a.call(ctx, "GET", "/sekisho/ca", nil, &cas); err != nil {
		return "", clientCertificate{}, err
	}
	for _, c := range cas {
		if issuer, err := pkix.ParseCertificate([]byte(c.Certificate)); err == nil && cert.CheckSignatureFrom(issuer) == nil {
			return "", clientCertificate{}, &hinted{
				err:  fmt.Errorf("%s: the certificate is of our %s CA, and zone %s does not have it", path, c.Name, zone),
				hint: "--zone names another zone; sekisho cert import " + path + " takes in one that the ledger does not know",
			}
		}
	}
	return "", clientCertificate{}, &hinted{
		err:  fmt.Errorf("%s: the certificate is not of this checkpoint: %s issued it", path, pkix.DNString(cert.RawIssuer)),
		hint: "only its own CA can revoke it; sekisho trust remove ends the trust in it",
	}
}
