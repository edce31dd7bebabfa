package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/bits"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/ca/lint"
	"sekisho/internal/pkix"
)

// tbsCertificate is everything of a certificate but its signature. It is encoded once; those octets are linted and
// signed, so nothing can change between the two (crypto/x509 would encode twice and take apart the subject).
type tbsCertificate struct {
	serial     []byte // 20 octets, the first between 01 and 7f
	algorithm  []byte // AlgorithmIdentifier
	issuer     []byte // Name
	subject    []byte // Name
	notBefore  time.Time
	notAfter   time.Time
	spki       []byte // SubjectPublicKeyInfo
	extensions []extension
}

// extension is one X.509 extension; value is the DER inside the OCTET STRING.
type extension struct {
	oid      asn1.ObjectIdentifier
	critical bool
	value    []byte
}

// marshal is TBSCertificate in DER (RFC 5280, Section 4.1).
func (t tbsCertificate) marshal() ([]byte, error) {
	explicit := func(n int) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024+len(t.spki)))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // version v3
		b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(t.serial) })
		b.AddBytes(t.algorithm)
		b.AddBytes(t.issuer)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, t.notBefore)
			addTime(b, t.notAfter)
		})
		b.AddBytes(t.subject)
		b.AddBytes(t.spki)
		b.AddASN1(explicit(3), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, e := range t.extensions {
					e.add(b)
				}
			})
		})
	})
	return b.Bytes()
}

// add writes Extension. DER leaves out a critical flag that is false.
func (e extension) add(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(e.oid)
		if e.critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(e.value)
	})
}

// addTime writes a Time: RFC 5280, Section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050.
func addTime(b *cryptobyte.Builder, t time.Time) {
	t = t.UTC()
	if t.Year() >= 2050 {
		b.AddASN1GeneralizedTime(t)
		return
	}
	b.AddASN1UTCTime(t)
}

// newSerial is a positive serial number of exactly 20 octets: RFC 5280, Section 4.1.2.2 allows no more, and a first
// octet of 01 to 7f leaves over 158 random bits and one spelling.
func newSerial() []byte {
	serial := make([]byte, 20)
	for serial[0] == 0 || serial[0] >= 0x80 {
		_, _ = rand.Read(serial) // never fails; crypto/rand ends the process instead
	}
	return serial
}

// sign signs what was linted, and nothing else. The result has been parsed and its signature checked against issuer,
// or against itself when issuer is nil (a root).
func sign(linted *lint.Linted, signer crypto.Signer, issuer *x509.Certificate) (*x509.Certificate, error) {
	tbs, _, err := linted.Take()
	if err != nil {
		return nil, err
	}
	der, err := pkix.SignTBS(tbs, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: the result does not parse: %w", err)
	}
	if issuer == nil {
		issuer = cert
	}
	// A faulty key store must not get a certificate out of the door.
	if err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return nil, fmt.Errorf("sign certificate: the key store made a wrong signature: %w", err)
	}
	return cert, nil
}

// algorithmOf is the AlgorithmIdentifier that pkix.SignTBS writes for the key, taken from a signature over nothing, so
// that the one inside a certificate and the one beside its signature are the same by construction (RFC 5280, Section
// 4.1.1.2). It costs a signature and is asked once per key.
func algorithmOf(signer crypto.Signer) ([]byte, error) {
	der, err := pkix.SignTBS([]byte{0x30, 0x00}, signer)
	if err != nil {
		return nil, err
	}
	input := cryptobyte.String(der)
	var outer, algorithm cryptobyte.String
	if !input.ReadASN1(&outer, cbasn1.SEQUENCE) || !outer.SkipASN1(cbasn1.SEQUENCE) ||
		!outer.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) {
		panic("sekisho/ca: pkix.SignTBS returned no SEQUENCE of three")
	}
	return algorithm, nil
}

// encode runs a builder for an extension's value. The values are ours and bounded, so an error is a bug.
func encode(f cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	f(&b)
	return b.BytesOrPanic()
}

func oid(last ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{2, 5, 29}, last...)
}

// basicConstraints: RFC 5280, Section 4.2.1.9. pathLen below 0 is none.
func basicConstraints(isCA bool, pathLen int) extension {
	return extension{oid(19), true, encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if isCA {
				b.AddASN1Boolean(true)
			}
			if isCA && pathLen >= 0 {
				b.AddASN1Int64(int64(pathLen))
			}
		})
	})}
}

// keyUsageExtension: RFC 5280, Section 4.2.1.3: a named bit list without trailing zero bits, bit 0 first.
func keyUsageExtension(u keyUsage) extension {
	value := bits.Reverse16(uint16(u))
	octets := []byte{byte(value >> 8)}
	if byte(value) != 0 {
		octets = append(octets, byte(value))
	}
	unused := bits.TrailingZeros8(octets[len(octets)-1])
	return extension{oid(15), true, append([]byte{0x03, byte(len(octets) + 1), byte(unused)}, octets...)}
}

// extKeyUsageExtension: RFC 5280, Section 4.2.1.12.
func extKeyUsageExtension(u x509.ExtKeyUsage) extension {
	purpose := map[x509.ExtKeyUsage]int{
		x509.ExtKeyUsageServerAuth: 1, x509.ExtKeyUsageClientAuth: 2, x509.ExtKeyUsageOCSPSigning: 9,
	}[u]
	return extension{oid(37), false, encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, purpose})
		})
	})}
}

func subjectKeyID(ski []byte) extension {
	return extension{oid(14), false, encode(func(b *cryptobyte.Builder) { b.AddASN1OctetString(ski) })}
}

func authorityKeyID(ski []byte) extension {
	return extension{oid(35), false, encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(ski) })
		})
	})}
}

// crlDistributionPoint: RFC 5280, Section 4.2.1.13, one point with one URI.
func crlDistributionPoint(uri string) extension {
	explicit := cbasn1.Tag(0).ContextSpecific().Constructed()
	return extension{oid(31), false, encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(explicit, func(b *cryptobyte.Builder) {
					b.AddASN1(explicit, func(b *cryptobyte.Builder) { addURI(b, uri) })
				})
			})
		})
	})}
}

// authorityInfoAccess: RFC 5280, Section 4.2.2.1: where to ask, and where the issuer's certificate is.
func authorityInfoAccess(ocsp, caIssuers string) extension {
	access := func(b *cryptobyte.Builder, method int, uri string) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, method})
			addURI(b, uri)
		})
	}
	return extension{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}, false, encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			access(b, 1, ocsp)
			access(b, 2, caIssuers)
		})
	})}
}

func addURI(b *cryptobyte.Builder, uri string) {
	b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(uri)) })
}
