package site

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// Product is the API by which a CA came, and by which alone it is shown there.
type Product string

// The products.
const (
	MTLS   Product = "mtls"   // API Shield: accounts/{account}/mtls_certificates
	Access Product = "access" // Access: access/certificates of a zone or of the account
)

// TrustedCA is somebody else's CA that came by API.
type TrustedCA struct {
	ID         string // UUID
	Product    Product
	ZoneID     string // "" for the account
	Name       string // for people; not unique
	PEM        string // its certificates, each once, as pkix.EncodeCertificates writes them
	Policy     trust.Policy
	UploadedOn time.Time
	UpdatedOn  time.Time
}

// Errors of the records, to branch on.
var (
	// ErrNoTrustedCA: no CA has that id.
	ErrNoTrustedCA = errors.New("no such CA")
	// ErrTied: hostnames are tied to the CA, so it cannot be deleted.
	ErrTied = errors.New("hostnames are tied to the CA")
)

// TrustedCARecords is where CAs that came by API are kept, with the hostnames that are tied to them.
type TrustedCARecords interface {
	// TrustedCAs returns all of them in the order in which they came.
	TrustedCAs(ctx context.Context) ([]TrustedCA, error)
	// AddTrustedCA stores a CA and ties, whose CAID is the CA's whatever they say.
	AddTrustedCA(ctx context.Context, ca TrustedCA, ties []Association, entry auditlog.Entry) error
	// UpdateTrustedCA stores name, policy and UpdatedOn of the CA with that ID. Ties replace all of the CA, in every
	// zone; nil leaves them alone. It returns ErrNoTrustedCA.
	UpdateTrustedCA(ctx context.Context, ca TrustedCA, ties []Association, entry auditlog.Entry) error
	// DeleteTrustedCA forgets a CA to which no hostname is tied. It returns ErrNoTrustedCA or ErrTied.
	DeleteTrustedCA(ctx context.Context, id string, entry auditlog.Entry) error
}

// Parse makes of a record what hosts trust.
func (ca TrustedCA) Parse() (trust.CA, error) {
	certs, err := pkix.ParseCertificates([]byte(ca.PEM))
	if err != nil {
		return trust.CA{}, err
	}
	anchors, intermediates, err := SplitBundle(certs)
	if err != nil {
		return trust.CA{}, err
	}
	return trust.CA{ID: ca.ID, Name: ca.Name, Anchors: anchors, Intermediates: intermediates, Policy: ca.Policy}, nil
}

// ErrNoAnchor is returned for a bundle in which every certificate has its issuer beside it.
var ErrNoAnchor = errors.New("no certificate of the bundle can be a trust anchor: each is issued by another one of them; add the self-signed root")

// SplitBundle tells the trust anchors of a CA bundle from the helpers for path building: a certificate whose issuer is
// in the bundle is a helper. What is there twice counts once; the order is kept.
func SplitBundle(certs []*x509.Certificate) (anchors, intermediates []*x509.Certificate, err error) {
	bySubject := make(map[string][]*x509.Certificate)
	seen := make(map[pkix.Fingerprint]bool)
	var distinct []*x509.Certificate
	for _, c := range certs {
		if print := pkix.FingerprintOf(c.Raw); !seen[print] {
			seen[print] = true
			distinct = append(distinct, c)
			bySubject[string(c.RawSubject)] = append(bySubject[string(c.RawSubject)], c)
		}
	}
	for _, c := range distinct {
		if slices.ContainsFunc(bySubject[string(c.RawIssuer)], func(issuer *x509.Certificate) bool { return issued(issuer, c) }) {
			intermediates = append(intermediates, c)
		} else {
			anchors = append(anchors, c)
		}
	}
	if len(anchors) == 0 {
		return nil, nil, ErrNoAnchor
	}
	return anchors, intermediates, nil
}

// issued reports whether a certificate of the right name is another one's issuer by its key identifier as well (RFC
// 5280, Section 4.2.1.1): a CA that has changed its key has two certificates of one name, and perhaps one for the new key
// by the old. Certificates of one key are not one another's issuers: they are the same CA.
func issued(issuer, c *x509.Certificate) bool {
	if bytes.Equal(issuer.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) {
		return false
	}
	if len(c.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 {
		return bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId)
	}
	// Without identifiers a name that is its own issuer's is a root of its own.
	return !bytes.Equal(c.RawSubject, c.RawIssuer)
}

// parseAll parses records by id. One that cannot be parsed any more fails them all: a host must not silently trust less,
// or ask for less, than its operator wrote.
func parseAll(records []TrustedCA) (map[string]trust.CA, error) {
	cas := make(map[string]trust.CA, len(records))
	for _, r := range records {
		ca, err := r.Parse()
		if err != nil {
			return nil, fmt.Errorf("site: CA %q (%s): %w; remove it with sekisho trust remove %s", r.Name, r.ID, err, r.ID)
		}
		cas[r.ID] = ca
	}
	return cas, nil
}
