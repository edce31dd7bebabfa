package admin

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// certificateObject is a managed client certificate as Cloudflare's API shows it. Hexadecimal is lower case in whole
// bytes; absent parts of the subject are "".
type certificateObject struct {
	ID                   string    `json:"id"`
	Certificate          string    `json:"certificate"` // PEM
	CertificateAuthority certifier `json:"certificate_authority"`
	CommonName           string    `json:"common_name"`
	Country              string    `json:"country"`
	CSR                  string    `json:"csr"` // PEM, as it was sent
	ExpiresOn            string    `json:"expires_on"`
	FingerprintSHA256    string    `json:"fingerprint_sha256"`
	IssuedOn             string    `json:"issued_on"`
	Location             string    `json:"location"`
	Organization         string    `json:"organization"`
	OrganizationalUnit   string    `json:"organizational_unit"`
	SerialNumber         string    `json:"serial_number"`
	Signature            string    `json:"signature"`
	SKI                  string    `json:"ski"`
	State                string    `json:"state"`
	Status               string    `json:"status"`
	ValidityDays         int       `json:"validity_days"`

	// Extensions of ours.
	Profile          string  `json:"profile"`
	Subject          string  `json:"subject"`           // RFC 4514
	RevokedOn        *string `json:"revoked_on"`        // null unless revoked
	RevocationReason *string `json:"revocation_reason"` // a name of RFC 5280; null unless revoked
	InvalidityDate   *string `json:"invalidity_date"`   // null unless it was given with the revocation
}

// certifier names the CA that issued a certificate.
type certifier struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// newCertificateObject reads a row of the ledger. A row whose certificate does not parse is an error of ours.
func newCertificateObject(row ca.Certificate) (certificateObject, error) {
	if len(row.DER) == 0 {
		return unknownCertificateObject(row), nil
	}
	cert, err := x509.ParseCertificate(row.DER)
	if err != nil {
		return certificateObject{}, fmt.Errorf("certificate %s of the ledger: %w", row.ID, err)
	}
	part := func(short string) string { return pkix.Attribute(cert.RawSubject, short) }
	issued := row.IssuedOn
	if issued.IsZero() {
		issued = row.NotBefore
	}
	object := certificateObject{
		ID:                   row.ID,
		Certificate:          string(pkix.EncodeCertificate(row.DER)),
		CertificateAuthority: certifier{ID: row.CAID, Name: pkix.CommonName(cert.RawIssuer)},
		CommonName:           part("CN"),
		Country:              part("C"),
		CSR:                  string(row.CSR),
		ExpiresOn:            *stamp(row.NotAfter),
		FingerprintSHA256:    row.Fingerprint.String(),
		IssuedOn:             *stamp(issued),
		Location:             part("L"),
		Organization:         part("O"),
		OrganizationalUnit:   part("OU"),
		SerialNumber:         row.Serial.String(),
		Signature:            signatureName(cert.SignatureAlgorithm),
		SKI:                  hex.EncodeToString(cert.SubjectKeyId),
		State:                part("ST"),
		Status:               string(row.Status),
		ValidityDays:         row.ValidDays,
		Profile:              row.Profile,
		Subject:              pkix.DNString(cert.RawSubject),
	}
	object.revoked(row)
	return object, nil
}

// unknownCertificateObject is what is known of a certificate that is not in the ledger itself.
func unknownCertificateObject(row ca.Certificate) certificateObject {
	object := certificateObject{
		ID: row.ID, CertificateAuthority: certifier{ID: row.CAID}, CommonName: row.CommonName, ExpiresOn: *stamp(row.NotAfter),
		IssuedOn: *stamp(row.IssuedOn), FingerprintSHA256: row.Fingerprint.String(), SerialNumber: row.Serial.String(),
		Status: string(row.Status), ValidityDays: row.ValidDays, Profile: row.Profile,
	}
	object.revoked(row)
	return object
}

// revoked fills what only a revoked certificate has.
func (o *certificateObject) revoked(row ca.Certificate) {
	if row.Status != ca.Revoked {
		return
	}
	reason := row.Reason.String()
	o.RevokedOn, o.RevocationReason = stamp(row.RevokedAt), &reason
	if !row.InvalidityDate.IsZero() {
		o.InvalidityDate = stamp(row.InvalidityDate)
	}
}

// pendingObject is the answer to a step: Cloudflare names the state that is being left for the next one.
func pendingObject(row ca.Certificate, status string) (certificateObject, error) {
	object, err := newCertificateObject(row)
	object.Status = status
	return object, err
}

// certSignature is signatureName, also for RSASSA-PSS as OpenSSL writes it: with the longest salt, which crypto/x509 does
// not know.
func certSignature(c *x509.Certificate) string {
	if c.SignatureAlgorithm != x509.UnknownSignatureAlgorithm {
		return signatureName(c.SignatureAlgorithm)
	}
	switch pkix.SignatureAlgorithmName(c.RawSignatureAlgorithm) {
	case "sha256-rsa-pss":
		return x509.SHA256WithRSAPSS.String()
	case "sha384-rsa-pss":
		return x509.SHA384WithRSAPSS.String()
	case "sha512-rsa-pss":
		return x509.SHA512WithRSAPSS.String()
	}
	return "an algorithm that is not known"
}

// signatureName spells an algorithm as Cloudflare does (cfssl's helpers.SignatureString).
func signatureName(a x509.SignatureAlgorithm) string {
	switch a {
	case x509.SHA1WithRSA:
		return "SHA1WithRSA"
	case x509.ECDSAWithSHA1:
		return "ECDSAWithSHA1"
	case x509.SHA256WithRSA:
		return "SHA256WithRSA"
	case x509.SHA384WithRSA:
		return "SHA384WithRSA"
	case x509.SHA512WithRSA:
		return "SHA512WithRSA"
	case x509.ECDSAWithSHA256:
		return "ECDSAWithSHA256"
	case x509.ECDSAWithSHA384:
		return "ECDSAWithSHA384"
	case x509.ECDSAWithSHA512:
		return "ECDSAWithSHA512"
	case x509.PureEd25519:
		return "Ed25519"
	}
	return a.String() // ML-DSA-65 and the like
}
