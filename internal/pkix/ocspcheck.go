package pkix

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrOCSPResponder is what every error of CheckResponder is.
var ErrOCSPResponder = errors.New("OCSP response not signed by an authorized responder")

// CheckResponder finds who signed the response and whether it may speak for
// the issuer (RFC 6960, Section 4.2.2.2): the issuer's own key, or a delegate
// whose certificate came along. A delegate's certificate must be signed by that
// key, be valid at the given time, name id-kp-OCSPSigning in its extended key
// usage (anyExtendedKeyUsage does not do), allow digitalSignature where it has a
// key usage, be no CA's, and have no critical extension unknown to crypto/x509.
// The responder that the response names must be the one that signed. Both
// signatures must be of an algorithm that allows takes, by the names of
// SignatureAlgorithmName.
//
// It returns the issuer or the delegate. Whether the delegate's certificate is
// revoked is not looked at: see HasOCSPNoCheck. Nor are the times of the
// answers: they are the caller's to judge.
func (r *OCSPResponse) CheckResponder(issuer *x509.Certificate, at time.Time, allows func(algorithm string) bool) (*x509.Certificate, error) {
	responder, err := r.findResponder(issuer, at, allows)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOCSPResponder, err)
	}
	return responder, nil
}

// SignatureAlgorithm is the name of the algorithm that the answer is signed with, as SignatureAlgorithmName gives it.
func (r *OCSPResponse) SignatureAlgorithm() string { return SignatureAlgorithmName(r.algorithm) }

func (r *OCSPResponse) findResponder(issuer *x509.Certificate, at time.Time, allows func(string) bool) (*x509.Certificate, error) {
	if r.Status != OCSPSuccessful {
		return nil, fmt.Errorf("responseStatus %s has no signature", OCSPStatusName(r.Status))
	}
	if err := allowed(r.algorithm, allows); err != nil {
		return nil, err
	}
	var refusal error
	if r.names(issuer) {
		refusal = VerifySignature(r.algorithm, issuer.PublicKey, r.tbs, r.signature)
		if refusal == nil {
			return issuer, nil
		}
	}
	for _, cert := range r.Certificates {
		if !r.names(cert) {
			continue
		}
		err := checkDelegate(cert, issuer, at, allows)
		if err == nil {
			err = VerifySignature(r.algorithm, cert.PublicKey, r.tbs, r.signature)
		}
		if err == nil {
			return cert, nil
		}
		if refusal == nil {
			refusal = fmt.Errorf("responder %.200s: %w", DNString(cert.RawSubject), err)
		}
	}
	switch {
	case refusal != nil:
		return nil, refusal
	case r.unread != nil:
		return nil, fmt.Errorf("the responder is neither the issuer nor in a certificate that can be read: %w", r.unread)
	}
	return nil, errors.New("the responder is neither the issuer nor in a certificate sent along")
}

// names reports whether the response says that the holder of cert signed it.
func (r *OCSPResponse) names(cert *x509.Certificate) bool {
	if r.ResponderName != nil {
		return bytes.Equal(r.ResponderName, cert.RawSubject)
	}
	sum := sha1.Sum(keyBits(cert.RawSubjectPublicKeyInfo))
	return bytes.Equal(r.ResponderKeyHash, sum[:])
}

// checkDelegate reports why a certificate may not sign answers for the issuer.
func checkDelegate(cert, issuer *x509.Certificate, at time.Time, allows func(string) bool) error {
	hasKeyUsage := slices.ContainsFunc(cert.Extensions, hasID(asn1.ObjectIdentifier{2, 5, 29, 15}))
	switch {
	case !bytes.Equal(cert.RawIssuer, issuer.RawSubject):
		return errors.New("its certificate is of another issuer")
	case !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("its certificate has no extended key usage OCSPSigning")
	case hasKeyUsage && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its certificate's key usage does not allow digitalSignature")
	case cert.IsCA: // a CA below the issuer with this usage is a known mistake of CAs, and would answer for its own siblings
		return errors.New("its certificate is a CA's")
	case len(cert.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("its certificate has an unknown critical extension %.80s", cert.UnhandledCriticalExtensions[0])
	case at.Before(cert.NotBefore):
		return fmt.Errorf("its certificate is not valid before %s", cert.NotBefore.UTC().Format(time.RFC3339))
	case at.After(cert.NotAfter):
		return fmt.Errorf("its certificate expired at %s", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	algorithm := certificateAlgorithm(cert)
	if err := allowed(algorithm, allows); err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	if err := VerifySignature(algorithm, issuer.PublicKey, cert.RawTBSCertificate, cert.Signature); err != nil {
		return fmt.Errorf("its certificate is not signed by the issuer: %w", err)
	}
	return nil
}

// allowed reports an error unless a signature algorithm is known and taken.
func allowed(algorithm []byte, allows func(string) bool) error {
	switch name := SignatureAlgorithmName(algorithm); {
	case name == "":
		return fmt.Errorf("%w %x", ErrSignatureAlgorithm, algorithm[:min(len(algorithm), 32)])
	case !allows(name):
		return fmt.Errorf("signature algorithm %s is not allowed", name)
	}
	return nil
}

// certificateAlgorithm is the AlgorithmIdentifier of a certificate's
// signature; crypto/x509 has seen that the inner one is the same.
func certificateAlgorithm(cert *x509.Certificate) []byte {
	input := cryptobyte.String(cert.Raw)
	var outer, algorithm cryptobyte.String
	if !input.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.SkipASN1(cbasn1.SEQUENCE) || !outer.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) {
		return nil
	}
	return algorithm
}

// HasOCSPNoCheck reports whether the certificate of a delegated responder says
// that its own revocation is not to be asked for; see OCSPNoCheck.
func HasOCSPNoCheck(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.Extensions, hasID(OCSPNoCheck().Id))
}

// hasID finds an extension by its object identifier.
func hasID(oid asn1.ObjectIdentifier) func(x509pkix.Extension) bool {
	return func(e x509pkix.Extension) bool { return e.Id.Equal(oid) }
}

// Single finds the answer about a serial number under the issuer, whichever
// digest it names the issuer by. Where a response contradicts itself, revoked
// comes before unknown and unknown before good.
func (r *OCSPResponse) Single(issuer *x509.Certificate, serial Serial) (OCSPSingleResponse, bool) {
	var found OCSPSingleResponse
	ok := false
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		var name, key []byte // of the issuer, made when they are needed
		for _, s := range r.Singles {
			if s.CertID.Hash != h || s.CertID.Serial != serial {
				continue
			}
			if name == nil {
				name, key = digest(h, issuer.RawSubject), digest(h, keyBits(issuer.RawSubjectPublicKeyInfo))
			}
			if bytes.Equal(s.CertID.IssuerNameHash, name) && bytes.Equal(s.CertID.IssuerKeyHash, key) &&
				(!ok || severity(s.Status) > severity(found.Status)) {
				found, ok = s, true
			}
		}
	}
	return found, ok
}

// severity orders statuses by how much they forbid.
func severity(s OCSPStatus) int {
	switch s {
	case OCSPGood:
		return 0
	case OCSPRevoked:
		return 2
	}
	return 1
}
