package pkix

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/mldsa"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Errors of VerifySignature.
var (
	ErrSignatureAlgorithm = errors.New("unknown signature algorithm")
	ErrSignature          = errors.New("the signature is not by this key")
)

// maxPSSSalt bounds the salt of RSASSA-PSS, in octets; the usual one is as
// long as the digest.
const maxPSSSalt = 1024

// scheme is the arithmetic of a signature.
type scheme int

const (
	schemePKCS1 scheme = iota + 1
	schemePSS
	schemeECDSA
	schemeEd25519
	schemeMLDSA
)

// signatureAlgorithm is what an AlgorithmIdentifier says.
type signatureAlgorithm struct {
	name   string
	scheme scheme
	digest crypto.Hash // 0: the message itself is signed
	salt   int         // of schemePSS
}

// SignatureAlgorithmName is the short name of the signature algorithm of an
// AlgorithmIdentifier in DER: sha1-rsa, sha256-rsa, sha384-rsa-pss,
// sha512-ecdsa, ed25519, ml-dsa-65 and their like. It is empty for algorithms
// that VerifySignature does not know, among them MD5, DSA, RSASSA-PSS with
// SHA-1 or with two different digests, and for parameters that do not belong
// to the algorithm.
func SignatureAlgorithmName(rawAlgorithmIdentifier []byte) string {
	alg, _ := readSignatureAlgorithm(rawAlgorithmIdentifier)
	return alg.name
}

// VerifySignature checks a signature over signed with the algorithm that the
// AlgorithmIdentifier names, its RSASSA-PSS parameters included. SHA-1 is
// verified like any other: whether it is good enough is for the caller to say,
// by SignatureAlgorithmName. The error is ErrSignatureAlgorithm or ErrSignature.
func VerifySignature(rawAlgorithmIdentifier []byte, pub crypto.PublicKey, signed, signature []byte) error {
	alg, ok := readSignatureAlgorithm(rawAlgorithmIdentifier)
	if !ok {
		return fmt.Errorf("%w %x", ErrSignatureAlgorithm, rawAlgorithmIdentifier[:min(len(rawAlgorithmIdentifier), 32)])
	}
	digest := signed
	if alg.digest != 0 {
		h := alg.digest.New()
		h.Write(signed)
		digest = h.Sum(nil)
	}
	valid, fits := false, false
	switch k := pub.(type) {
	case *rsa.PublicKey:
		switch fits = alg.scheme == schemePKCS1 || alg.scheme == schemePSS; {
		case !fits:
		case alg.scheme == schemePSS:
			valid = rsa.VerifyPSS(k, alg.digest, digest, signature, &rsa.PSSOptions{SaltLength: alg.salt}) == nil
		default:
			valid = rsa.VerifyPKCS1v15(k, alg.digest, digest, signature) == nil
		}
	case *ecdsa.PublicKey:
		fits = alg.scheme == schemeECDSA
		valid = fits && ecdsa.VerifyASN1(k, digest, signature)
	case ed25519.PublicKey:
		fits = alg.scheme == schemeEd25519
		valid = fits && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, signed, signature)
	case *mldsa.PublicKey:
		fits = alg.scheme == schemeMLDSA && KeyTypeOf(k) == alg.name
		valid = fits && mldsa.Verify(k, signed, signature, nil) == nil
	}
	switch {
	case !fits:
		return fmt.Errorf("%w: it says %s, the key is %s", ErrSignature, alg.name, KeyTypeOf(pub))
	case !valid:
		return fmt.Errorf("%w (%s, %s)", ErrSignature, alg.name, KeyTypeOf(pub))
	}
	return nil
}

// readSignatureAlgorithm reads an AlgorithmIdentifier of a signature.
func readSignatureAlgorithm(raw []byte) (signatureAlgorithm, bool) {
	input := cryptobyte.String(raw)
	var params, oid cryptobyte.String
	if !input.ReadASN1(&params, cbasn1.SEQUENCE) || !input.Empty() || !params.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) {
		return signatureAlgorithm{}, false
	}
	alg := signatureAlgorithmFor(string(oid))
	ok := false
	switch alg.scheme {
	case schemePKCS1, schemeECDSA:
		// RFC 4055, Section 5: NULL, but absent must be taken. RFC 5758, Section 3.2: absent, but some signers write NULL.
		ok = absentOrNull(params)
	case schemePSS:
		alg, ok = readPSSParameters(params)
	case schemeEd25519, schemeMLDSA: // RFC 8410, Section 3; RFC 9881, Section 2
		ok = params.Empty()
	}
	if !ok {
		return signatureAlgorithm{}, false
	}
	return alg, true
}

// signatureAlgorithmFor finds an algorithm by the content octets of its object
// identifier.
func signatureAlgorithmFor(oid string) signatureAlgorithm {
	switch oid {
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", "\x2b\x0e\x03\x02\x1d": // 1.2.840.113549.1.1.5; 1.3.14.3.2.29, OIW's name for it
		return signatureAlgorithm{"sha1-rsa", schemePKCS1, crypto.SHA1, 0}
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b": // 1.2.840.113549.1.1.11
		return signatureAlgorithm{"sha256-rsa", schemePKCS1, crypto.SHA256, 0}
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c":
		return signatureAlgorithm{"sha384-rsa", schemePKCS1, crypto.SHA384, 0}
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d":
		return signatureAlgorithm{"sha512-rsa", schemePKCS1, crypto.SHA512, 0}
	case "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a": // 1.2.840.113549.1.1.10; the parameters name the rest
		return signatureAlgorithm{scheme: schemePSS}
	case "\x2a\x86\x48\xce\x3d\x04\x01": // 1.2.840.10045.4.1
		return signatureAlgorithm{"sha1-ecdsa", schemeECDSA, crypto.SHA1, 0}
	case "\x2a\x86\x48\xce\x3d\x04\x03\x02": // 1.2.840.10045.4.3.2
		return signatureAlgorithm{"sha256-ecdsa", schemeECDSA, crypto.SHA256, 0}
	case "\x2a\x86\x48\xce\x3d\x04\x03\x03":
		return signatureAlgorithm{"sha384-ecdsa", schemeECDSA, crypto.SHA384, 0}
	case "\x2a\x86\x48\xce\x3d\x04\x03\x04":
		return signatureAlgorithm{"sha512-ecdsa", schemeECDSA, crypto.SHA512, 0}
	case "\x2b\x65\x70": // 1.3.101.112
		return signatureAlgorithm{"ed25519", schemeEd25519, 0, 0}
	case "\x60\x86\x48\x01\x65\x03\x04\x03\x11": // 2.16.840.1.101.3.4.3.17
		return signatureAlgorithm{"ml-dsa-44", schemeMLDSA, 0, 0}
	case "\x60\x86\x48\x01\x65\x03\x04\x03\x12":
		return signatureAlgorithm{"ml-dsa-65", schemeMLDSA, 0, 0}
	case "\x60\x86\x48\x01\x65\x03\x04\x03\x13":
		return signatureAlgorithm{"ml-dsa-87", schemeMLDSA, 0, 0}
	}
	return signatureAlgorithm{}
}

// readPSSParameters reads RSASSA-PSS-params (RFC 4055, Section 3.1). The
// digest must be SHA-256, SHA-384 or SHA-512 and serve the mask too. A salt of
// 0 octets is not taken: crypto/rsa would read it as one of any length.
func readPSSParameters(params cryptobyte.String) (signatureAlgorithm, bool) {
	explicit := func(n int) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	var list, hash, mask, maskAlg cryptobyte.String
	var maskOID asn1.ObjectIdentifier
	salt, trailer := 20, 1
	if !params.ReadASN1(&list, cbasn1.SEQUENCE) || !params.Empty() ||
		!list.ReadASN1(&hash, explicit(0)) || // absent: SHA-1, which is not taken
		!list.ReadASN1(&mask, explicit(1)) ||
		!list.ReadOptionalASN1Integer(&salt, explicit(2), 20) ||
		!list.ReadOptionalASN1Integer(&trailer, explicit(3), 1) || !list.Empty() ||
		trailer != 1 || salt < 1 || salt > maxPSSSalt {
		return signatureAlgorithm{}, false
	}
	digest, ok := readHash(hash)
	if !ok || !mask.ReadASN1(&maskAlg, cbasn1.SEQUENCE) || !mask.Empty() || !maskAlg.ReadASN1ObjectIdentifier(&maskOID) ||
		!maskOID.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}) { // id-mgf1
		return signatureAlgorithm{}, false
	}
	if maskDigest, ok := readHash(maskAlg); !ok || maskDigest != digest {
		return signatureAlgorithm{}, false
	}
	alg := signatureAlgorithm{scheme: schemePSS, digest: digest, salt: salt}
	switch digest {
	case crypto.SHA256:
		alg.name = "sha256-rsa-pss"
	case crypto.SHA384:
		alg.name = "sha384-rsa-pss"
	case crypto.SHA512:
		alg.name = "sha512-rsa-pss"
	default:
		return signatureAlgorithm{}, false
	}
	return alg, true
}

// readHash reads the AlgorithmIdentifier of a digest and nothing after it.
func readHash(input cryptobyte.String) (crypto.Hash, bool) {
	var alg cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !input.ReadASN1(&alg, cbasn1.SEQUENCE) || !input.Empty() || !alg.ReadASN1ObjectIdentifier(&oid) || !absentOrNull(alg) {
		return 0, false
	}
	h := hashFor(oid)
	return h, h != 0
}
