package ca

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"

	"sekisho/internal/pkix"
)

// signsLike is the key of a CA or of an OCSP signer as its certificate wants it used: an RSA key whose certificate is
// signed with RSASSA-PSS signs with that, so that a PKI for clients that verify nothing else stays one.
func signsLike(cert *x509.Certificate, signer crypto.Signer) (crypto.Signer, error) {
	if pkix.HasPSSKey(cert) {
		return nil, errors.New("the key in the certificate is restricted to RSASSA-PSS (id-RSASSA-PSS in its SubjectPublicKeyInfo), " +
			"which cannot be read: certify the same key as rsaEncryption, signed with RSASSA-PSS; then it signs with that")
	}
	if _, ok := signer.Public().(*rsa.PublicKey); ok && pkix.SignedWithPSS(cert) {
		return pkix.PSS(signer)
	}
	return signer, nil
}
