package pkix

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/mldsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the digests the algorithms below name
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// algorithm is how a key signs: the identifier to write and the digest to use.
type algorithm struct {
	x509   x509.SignatureAlgorithm
	oid    asn1.ObjectIdentifier
	digest crypto.Hash // 0: the message itself is signed
	null   bool        // RFC 4055, Section 5: the parameters of RSA are NULL; others have none
}

// algorithmFor chooses the one signature algorithm that fits a key.
func algorithmFor(signer crypto.Signer) (algorithm, error) {
	if IsPSS(signer) {
		return pssAlgorithm(), nil
	}
	switch k := signer.Public().(type) {
	case *ecdsa.PublicKey:
		switch k.Curve { // RFC 5758, Section 3.2
		case elliptic.P256():
			return algorithm{x509.ECDSAWithSHA256, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, crypto.SHA256, false}, nil
		case elliptic.P384():
			return algorithm{x509.ECDSAWithSHA384, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, crypto.SHA384, false}, nil
		case elliptic.P521():
			return algorithm{x509.ECDSAWithSHA512, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, crypto.SHA512, false}, nil
		}
	case *rsa.PublicKey:
		return algorithm{x509.SHA256WithRSA, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, crypto.SHA256, true}, nil
	case ed25519.PublicKey: // RFC 8410, Section 3
		return algorithm{x509.PureEd25519, asn1.ObjectIdentifier{1, 3, 101, 112}, 0, false}, nil
	case *mldsa.PublicKey: // RFC 9881, Section 2
		switch k.Parameters() {
		case mldsa.MLDSA44():
			return algorithm{x509.MLDSA44, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 17}, 0, false}, nil
		case mldsa.MLDSA65():
			return algorithm{x509.MLDSA65, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 18}, 0, false}, nil
		case mldsa.MLDSA87():
			return algorithm{x509.MLDSA87, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 19}, 0, false}, nil
		}
	}
	return algorithm{}, fmt.Errorf("no signature algorithm for a key of type %s", KeyTypeOf(signer.Public()))
}

// add writes the AlgorithmIdentifier.
func (a algorithm) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.oid)
		switch {
		case a.null:
			b.AddASN1NULL()
		case a.x509 == x509.SHA256WithRSAPSS:
			addPSSParameters(b)
		}
	})
}

// sign signs the message with the algorithm.
func (a algorithm) sign(message []byte, signer crypto.Signer) ([]byte, error) {
	return crypto.SignMessage(signer, rand.Reader, message, a.digest)
}

// SignTBS is SEQUENCE { tbs, AlgorithmIdentifier, BIT STRING }, the shape of a
// certificate or CRL around its to-be-signed part. The algorithm inside tbs
// must be the one that fits the key: ECDSA with the digest of its curve, RSA
// PKCS#1 v1.5 with SHA-256 (or what PSS says), Ed25519, ML-DSA.
func SignTBS(tbs []byte, signer crypto.Signer) ([]byte, error) {
	alg, err := algorithmFor(signer)
	if err != nil {
		return nil, err
	}
	signature, err := alg.sign(tbs, signer)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		alg.add(b)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// signerMatches reports an error unless the signer holds the certificate's key.
func signerMatches(cert *x509.Certificate, signer crypto.Signer) error {
	pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(cert.PublicKey) {
		return errors.New("the signing key is not the key of certificate " + DNString(cert.RawSubject))
	}
	return nil
}
