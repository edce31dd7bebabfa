package pkix

import (
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Fingerprint is the SHA-256 of a certificate's DER.
type Fingerprint [32]byte

// FingerprintOf is the fingerprint of a certificate's DER (x509's Raw).
func FingerprintOf(der []byte) Fingerprint { return sha256.Sum256(der) }

// String is 64 lower-case hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Upper is 64 upper-case hexadecimal digits.
func (f Fingerprint) Upper() string { return strings.ToUpper(f.String()) }

// ParseFingerprint reads 64 hexadecimal digits in either case, with or without
// colons, as `openssl x509 -fingerprint -sha256` prints them.
func ParseFingerprint(text string) (Fingerprint, error) {
	var f Fingerprint
	digits := strings.TrimSpace(text)
	if len(digits) > 2*len(f)+len(f)-1 {
		return Fingerprint{}, fmt.Errorf("SHA-256 fingerprint has %d characters; 64 hexadecimal digits are wanted", len(digits))
	}
	digits = strings.ReplaceAll(digits, ":", "")
	if len(digits) != 2*len(f) {
		return Fingerprint{}, fmt.Errorf("SHA-256 fingerprint %q has %d hexadecimal digits; 64 are wanted", text, len(digits))
	}
	if _, err := hex.Decode(f[:], []byte(digits)); err != nil {
		return Fingerprint{}, fmt.Errorf("SHA-256 fingerprint %q: %w", text, err)
	}
	return f, nil
}

// KeyID names a key: the SHA-256 of its SubjectPublicKeyInfo DER. Unlike the
// subject key identifier it cannot be chosen by whoever made the certificate.
type KeyID [32]byte

// KeyIDOf is the key id of a certificate's own key.
func KeyIDOf(cert *x509.Certificate) KeyID { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// KeyIDOfSPKI is the key id of a SubjectPublicKeyInfo in DER.
func KeyIDOfSPKI(der []byte) KeyID { return sha256.Sum256(der) }

// String is 64 lower-case hexadecimal digits.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// CertID names a certificate the way revocation does: by the key that issued
// it and its serial number. Several certificates of one CA key share one name
// space; two CAs with one name do not.
type CertID struct {
	Issuer KeyID
	Serial Serial
}

// CertIDOf is the CertID of cert under the issuer that was found for it.
func CertIDOf(cert, issuer *x509.Certificate) CertID {
	return CertID{Issuer: KeyIDOf(issuer), Serial: SerialOf(cert.SerialNumber)}
}

// SKI is the certificate's subject key identifier: the extension's octets, or,
// where there is none, the SHA-1 of the key bits (RFC 5280, Section 4.2.1.2,
// method 1), which is what openssl would have written.
func SKI(cert *x509.Certificate) []byte {
	if len(cert.SubjectKeyId) > 0 {
		return cert.SubjectKeyId
	}
	sum := sha1.Sum(keyBits(cert.RawSubjectPublicKeyInfo))
	return sum[:]
}

// NewSKI is a subject key identifier for a new certificate: the leftmost 160
// bits of the SHA-256 of the key bits (RFC 7093, Section 2, method 1).
func NewSKI(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("subject key identifier: %w", err)
	}
	bits := keyBits(der)
	if bits == nil {
		return nil, errors.New("subject key identifier: the public key has no BIT STRING")
	}
	sum := sha256.Sum256(bits)
	return sum[:20:20], nil
}

// keyBits is the content of subjectPublicKey, without tag, length and the
// count of unused bits (RFC 5280, Section 4.1); nil if spki is no
// SubjectPublicKeyInfo.
func keyBits(spki []byte) []byte {
	input := cryptobyte.String(spki)
	var info cryptobyte.String
	var bits []byte
	if !input.ReadASN1(&info, asn1.SEQUENCE) || !info.SkipASN1(asn1.SEQUENCE) ||
		!info.ReadASN1BitStringAsBytes(&bits) {
		return nil
	}
	return bits
}
