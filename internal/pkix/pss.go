package pkix

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PSS is an RSA key that signs certificates, CRLs and OCSP answers with
// RSASSA-PSS (RFC 4055): SHA-256, MGF1 with SHA-256, a salt of 32 octets.
// SignTBS, SignCRL and SignOCSP write that algorithm for it; any other RSA key
// signs with PKCS#1 v1.5. Other kinds of keys are an error.
func PSS(key crypto.Signer) (crypto.Signer, error) {
	if _, ok := key.Public().(*rsa.PublicKey); !ok {
		return nil, fmt.Errorf("RSASSA-PSS needs an RSA key; this one is %s", KeyTypeOf(key.Public()))
	}
	if _, ok := key.(pssSigner); ok {
		return key, nil
	}
	return pssSigner{key}, nil
}

// IsPSS reports whether a key is one that PSS returned.
func IsPSS(key crypto.Signer) bool {
	_, ok := key.(pssSigner)
	return ok
}

// pssSigner signs with RSASSA-PSS whatever padding it is asked for.
type pssSigner struct{ crypto.Signer }

// Sign implements crypto.Signer.
func (s pssSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.Signer.Sign(rand, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: opts.HashFunc()})
}

// oidPSS is id-RSASSA-PSS (RFC 4055, Section 3.1).
func oidPSS() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10} }

// pssAlgorithm is RSASSA-PSS as PSS signs.
func pssAlgorithm() algorithm {
	return algorithm{x509.SHA256WithRSAPSS, oidPSS(), crypto.SHA256, false}
}

// addPSSParameters writes RSASSA-PSS-params. RFC 4055, Section 2.1: the
// parameters of the digests are NULL.
func addPSSParameters(b *cryptobyte.Builder) {
	explicit := func(n int, inner cryptobyte.BuilderContinuation) {
		b.AddASN1(cbasn1.Tag(n).ContextSpecific().Constructed(), inner)
	}
	hash := func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(hashOID(crypto.SHA256))
			b.AddASN1NULL()
		})
	}
	b.AddASN1(cbasn1.SEQUENCE, func(inner *cryptobyte.Builder) {
		b = inner
		explicit(0, hash)
		explicit(1, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}) // id-mgf1
				hash(b)
			})
		})
		explicit(2, func(b *cryptobyte.Builder) { b.AddASN1Int64(32) })
	})
}

// SignedWithPSS reports whether a certificate is signed with RSASSA-PSS,
// whatever its parameters.
func SignedWithPSS(cert *x509.Certificate) bool {
	return algorithmIs(certificateAlgorithm(cert), oidPSS())
}

// HasPSSKey reports whether the key of a certificate is restricted to
// RSASSA-PSS by the algorithm in its SubjectPublicKeyInfo (RFC 4055, Section
// 1.2). crypto/x509 does not read such keys: PublicKey is nil.
func HasPSSKey(cert *x509.Certificate) bool {
	spki := cryptobyte.String(cert.RawSubjectPublicKeyInfo)
	var content, raw cryptobyte.String
	return spki.ReadASN1(&content, cbasn1.SEQUENCE) && content.ReadASN1Element(&raw, cbasn1.SEQUENCE) && algorithmIs(raw, oidPSS())
}

// algorithmIs compares the object identifier of an AlgorithmIdentifier.
func algorithmIs(raw []byte, oid asn1.ObjectIdentifier) bool {
	input := cryptobyte.String(raw)
	var content, got cryptobyte.String
	if !input.ReadASN1(&content, cbasn1.SEQUENCE) || !content.ReadASN1Element(&got, cbasn1.OBJECT_IDENTIFIER) {
		return false
	}
	var want cryptobyte.Builder
	want.AddASN1ObjectIdentifier(oid)
	return bytes.Equal(got, want.BytesOrPanic())
}
