package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/mldsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/keystore"
	"sekisho/internal/pkix"
)

// readCertificate reads one certificate in PEM or DER. field is what the request calls it.
func readCertificate(field string, data []byte) (*x509.Certificate, error) {
	if len(data) == 0 {
		return nil, invalid(field, "give the certificate")
	}
	var cert *x509.Certificate
	var err error
	if data[0] == 0x30 { // a SEQUENCE; no PEM text begins so
		cert, err = pkix.ParseAnyCertificate(data)
	} else {
		cert, err = pkix.ParseCertificate(data)
	}
	if err != nil {
		return nil, invalid(field, "%v; the certificates of its issuers go into chain", err)
	}
	return cert, nil
}

// readKey reads the key of a certificate.
func readKey(field string, text, passphrase []byte, cert *x509.Certificate) (crypto.Signer, error) {
	key, err := keystore.ParseKey(text, passphrase)
	switch {
	case errors.Is(err, keystore.ErrPassphrase):
		return nil, invalid("passphrase", "of %s: %v", field, err)
	case err != nil:
		return nil, invalid(field, "%v", err)
	case !samePublicKey(key.Public(), cert.PublicKey):
		return nil, invalid(field, "the key (%s) is not the one of the certificate %s (%s)",
			pkix.KeyTypeOf(key.Public()), pkix.DNString(cert.RawSubject), pkix.KeyTypeOf(cert.PublicKey))
	}
	if _, err := algorithmOf(key); err != nil {
		return nil, invalid(field, "%v", err)
	}
	return key, nil
}

// checkCA judges the certificate of a CA to be imported; signs: we are to sign with it, CRLs too.
func (a *Authority) checkCA(ctx context.Context, cert *x509.Certificate, signs bool) error {
	const field = "certificate"
	now, name := a.now(), pkix.DNString(cert.RawSubject)
	hasUsage := hasExtension(cert, asn1.ObjectIdentifier{2, 5, 29, 15})
	switch {
	case isEmptyName(cert.RawSubject):
		return invalid(field, "it has no subject, and an issuer needs a name")
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return invalid(field, "%s is no CA: its basicConstraints do not say CA:TRUE", name)
	case hasUsage && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return invalid(field, "the key usage of %s does not allow to sign certificates (keyCertSign)", name)
	case hasUsage && cert.KeyUsage&x509.KeyUsageCRLSign == 0 && signs:
		return invalid(field, "the key usage of %s does not allow to sign CRLs (cRLSign), so revocation could not be published", name)
	case now.After(cert.NotAfter):
		return invalid(field, "%s ended at %s", name, cert.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return invalid(field, "%s begins at %s", name, cert.NotBefore.UTC().Format(time.RFC3339))
	case len(cert.UnhandledCriticalExtensions) > 0:
		return invalid(field, "%s has a critical extension that is not known here: %s", name, cert.UnhandledCriticalExtensions[0])
	}
	if err := checkKeyStrength(cert.PublicKey); err != nil {
		return invalid(field, "%s: %v", name, err)
	}
	if pkix.SameName(cert.RawIssuer, cert.RawSubject) && !signedBy(cert, cert) {
		return invalid(field, "%s names itself as its issuer, and its signature is not by its key", name)
	}
	return a.checkNew(ctx, cert)
}

// checkNew refuses a CA that is here already. By issuer key and serial number certificates are told apart, so a second CA
// of one key would share its serial numbers.
func (a *Authority) checkNew(ctx context.Context, cert *x509.Certificate) error {
	key := pkix.KeyIDOf(cert)
	for _, c := range a.cas.Load().all() {
		switch {
		case c.cert.Equal(cert) && c.record.unfinished():
			return nil
		case c.cert.Equal(cert):
			return fmt.Errorf("this CA is here already, as %s: %w", c.record.Name, ErrConflict)
		case c.key == key:
			return fmt.Errorf("the CA %s has the same key: their serial numbers would be one name space: %w", c.record.Name, ErrConflict)
		}
	}
	blocked, err := a.cfg.Ledger.KeyBlocked(ctx, key)
	if err == nil && blocked {
		return invalid("certificate", "its %v", ErrKeyBlocked)
	}
	return err
}

// checkKeyStrength refuses keys that nobody should sign with any more, and kinds that cannot be used here.
func checkKeyStrength(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 16384 {
			return fmt.Errorf("its RSA key has %d bits; 2048 to 16384 are taken", n)
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
	case ed25519.PublicKey, *mldsa.PublicKey:
		return nil
	case nil:
		return errors.New("the kind of its key is not known here; RSA, ECDSA (P-256, P-384, P-521), Ed25519 and ML-DSA are taken")
	}
	return fmt.Errorf("its key is %s; RSA, ECDSA (P-256, P-384, P-521), Ed25519 and ML-DSA are taken", pkix.KeyTypeOf(pub))
}

func hasExtension(cert *x509.Certificate, id asn1.ObjectIdentifier) bool {
	for _, e := range cert.Extensions {
		if e.Id.Equal(id) {
			return true
		}
	}
	return false
}

// readChain reads the issuers of a CA, each of which must have signed the one before it, and returns those that are sent
// along: all but a root.
func (a *Authority) readChain(text []byte, cert *x509.Certificate) ([]byte, error) {
	if len(text) == 0 {
		return nil, nil
	}
	chain, err := pkix.ParseCertificates(text)
	if err != nil {
		return nil, invalid("chain", "%v", err)
	}
	if len(chain) > maxChain {
		return nil, invalid("chain", "it has %d certificates; at most %d are taken", len(chain), maxChain)
	}
	var sent []byte
	below := cert
	for i, c := range chain {
		name := pkix.DNString(c.RawSubject)
		limited := c.MaxPathLen > 0 || c.MaxPathLenZero
		switch {
		case !c.BasicConstraintsValid || !c.IsCA || hasExtension(c, asn1.ObjectIdentifier{2, 5, 29, 15}) && c.KeyUsage&x509.KeyUsageCertSign == 0:
			return nil, invalid("chain", "certificate %d, %s, is no CA that may sign certificates", i+1, name)
		case !signedBy(below, c):
			return nil, invalid("chain", "certificate %d, %s, has not signed %s, which comes before it", i+1, name, pkix.DNString(below.RawSubject))
		case a.now().After(c.NotAfter):
			return nil, invalid("chain", "certificate %d, %s, ended at %s", i+1, name, c.NotAfter.UTC().Format(time.RFC3339))
		case limited && c.MaxPathLen < i+1: // RFC 5280, Section 4.2.1.9: CAs that may follow
			return nil, invalid("chain", "the path length of certificate %d, %s, allows %d CAs below it, and there are %d", i+1, name, c.MaxPathLen, i+1)
		}
		if !pkix.SameName(c.RawIssuer, c.RawSubject) {
			sent = append(sent, c.Raw...)
		}
		below = c
	}
	return sent, nil
}

// readSigner reads an OCSP signer that was made elsewhere (RFC 6960, Section 4.2.2.2).
func (a *Authority) readSigner(certificate, key, passphrase []byte, issuer *x509.Certificate) (*ocspSigner, error) {
	const field = "ocsp_certificate"
	cert, err := readCertificate(field, certificate)
	if err != nil {
		return nil, err
	}
	if len(key) == 0 {
		return nil, invalid("ocsp_key", "give the key of the OCSP signer")
	}
	now, name := a.now(), pkix.DNString(cert.RawSubject)
	switch {
	case !signedBy(cert, issuer):
		return nil, invalid(field, "%s is not signed by the CA %s, whose answers it is to sign", name, pkix.DNString(issuer.RawSubject))
	case cert.IsCA:
		return nil, invalid(field, "%s is a CA; an OCSP signer is none", name)
	case !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return nil, invalid(field, "%s has no extended key usage OCSPSigning", name)
	case hasExtension(cert, asn1.ObjectIdentifier{2, 5, 29, 15}) && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, invalid(field, "the key usage of %s does not allow digitalSignature", name)
	case len(cert.UnhandledCriticalExtensions) > 0:
		return nil, invalid(field, "%s has a critical extension that is not known here: %s", name, cert.UnhandledCriticalExtensions[0])
	case now.After(cert.NotAfter):
		return nil, invalid(field, "%s ended at %s", name, cert.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return nil, invalid(field, "%s begins at %s", name, cert.NotBefore.UTC().Format(time.RFC3339))
	}
	if err := checkKeyStrength(cert.PublicKey); err != nil {
		return nil, invalid(field, "%s: %v", name, err)
	}
	signer, err := readKey("ocsp_key", key, passphrase, cert)
	if err != nil {
		return nil, err
	}
	return &ocspSigner{key: signer, cert: cert}, nil
}
