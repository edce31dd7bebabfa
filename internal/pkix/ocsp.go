package pkix

import (
	"crypto"
	_ "crypto/sha1" // OCSP's certificate ids use it still; RFC 5019, Section 2.1.1
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of an OCSP request.
const (
	MaxOCSPRequestBytes = 64 << 10
	MaxOCSPRequests     = 100 // certificates in one request
	MaxOCSPNonce        = 128 // octets; RFC 9654, Section 2.1
)

// ErrOCSPMalformed is what every error of ParseOCSPRequest is; the answer to
// it is OCSPErrorResponse(OCSPMalformedRequest).
var ErrOCSPMalformed = errors.New("malformed OCSP request")

// OCSPCertID is RFC 6960's CertID: the issuer by hashes, and a serial number.
type OCSPCertID struct {
	Hash           crypto.Hash // SHA1, SHA256, SHA384 or SHA512; 0: one we do not know, answer "unknown"
	IssuerNameHash []byte
	IssuerKeyHash  []byte
	Serial         Serial
	Raw            []byte // the CertID in DER as received or built; answers repeat it octet for octet
}

// OCSPRequest is a request's content; requestor name and signature are read
// over.
type OCSPRequest struct {
	Certs []OCSPCertID
	Nonce []byte // 1 to MaxOCSPNonce octets; nil: none
}

// hashOID is the digest's algorithm identifier; nil for others.
func hashOID(h crypto.Hash) asn1.ObjectIdentifier {
	switch h {
	case crypto.SHA1:
		return asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	case crypto.SHA256:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	case crypto.SHA384:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	case crypto.SHA512:
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	}
	return nil
}

func hashFor(oid asn1.ObjectIdentifier) crypto.Hash {
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		if oid.Equal(hashOID(h)) {
			return h
		}
	}
	return 0
}

func oidOCSPNonce() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
}

// NewOCSPCertID is the CertID of a serial number under an issuer. The hash
// must be SHA1, SHA256, SHA384 or SHA512; anything else is a bug of the caller
// and panics.
func NewOCSPCertID(h crypto.Hash, issuer *x509.Certificate, serial Serial) OCSPCertID {
	oid := hashOID(h)
	if oid == nil {
		panic(fmt.Sprintf("sekisho/pkix: OCSP certificate id with hash %v", h))
	}
	id := OCSPCertID{Hash: h, Serial: serial}
	id.IssuerNameHash = digest(h, issuer.RawSubject)
	id.IssuerKeyHash = digest(h, keyBits(issuer.RawSubjectPublicKeyInfo))
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(id.IssuerNameHash)
		b.AddASN1OctetString(id.IssuerKeyHash)
		b.AddBytes(serial.appendDER(nil))
	})
	id.Raw = b.BytesOrPanic()
	return id
}

func digest(h crypto.Hash, data []byte) []byte {
	hash := h.New()
	hash.Write(data)
	return hash.Sum(nil)
}

// ParseOCSPRequest reads an OCSPRequest in DER (RFC 6960, Section 4.1.1),
// signed or not; a signature is not looked at. Extensions that are marked
// critical and unknown, a nonce of 0 or over MaxOCSPNonce octets, bytes after
// the end and requests over the bounds are refused. Every error is
// ErrOCSPMalformed.
func ParseOCSPRequest(der []byte) (OCSPRequest, error) {
	req, err := parseOCSPRequest(der)
	if err != nil {
		return OCSPRequest{}, fmt.Errorf("%w: %w", ErrOCSPMalformed, err)
	}
	return req, nil
}

func parseOCSPRequest(der []byte) (OCSPRequest, error) {
	if len(der) > MaxOCSPRequestBytes {
		return OCSPRequest{}, fmt.Errorf("%d bytes; at most %d are read", len(der), MaxOCSPRequestBytes)
	}
	input := cryptobyte.String(der)
	var outer, tbs cryptobyte.String
	if !input.ReadASN1(&outer, cbasn1.SEQUENCE) || !input.Empty() || !outer.ReadASN1(&tbs, cbasn1.SEQUENCE) ||
		!outer.SkipOptionalASN1(explicit(0)) || !outer.Empty() {
		return OCSPRequest{}, errors.New("not an OCSPRequest in DER")
	}
	var version int
	if !tbs.ReadOptionalASN1Integer(&version, explicit(0), 0) || version != 0 {
		return OCSPRequest{}, errors.New("the version is not v1")
	}
	var list, exts cryptobyte.String
	var hasExts bool
	if !tbs.SkipOptionalASN1(explicit(1)) || !tbs.ReadASN1(&list, cbasn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&exts, &hasExts, explicit(2)) || !tbs.Empty() {
		return OCSPRequest{}, errors.New("TBSRequest cannot be read")
	}
	var req OCSPRequest
	for !list.Empty() {
		if len(req.Certs) == MaxOCSPRequests {
			return OCSPRequest{}, fmt.Errorf("more than %d certificates", MaxOCSPRequests)
		}
		id, err := readOCSPSingleRequest(&list)
		if err != nil {
			return OCSPRequest{}, err
		}
		req.Certs = append(req.Certs, id)
	}
	if len(req.Certs) == 0 {
		return OCSPRequest{}, errors.New("it asks about no certificate")
	}
	if hasExts {
		var err error
		if req.Nonce, err = readOCSPExtensions(exts, true); err != nil {
			return OCSPRequest{}, err
		}
	}
	return req, nil
}

// explicit is the tag around an element with EXPLICIT [n].
func explicit(n int) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }

// readOCSPSingleRequest reads one Request.
func readOCSPSingleRequest(list *cryptobyte.String) (OCSPCertID, error) {
	var single, exts cryptobyte.String
	var hasExts bool
	if !list.ReadASN1(&single, cbasn1.SEQUENCE) {
		return OCSPCertID{}, errors.New("a Request cannot be read")
	}
	id, err := readOCSPCertID(&single)
	if err != nil {
		return OCSPCertID{}, err
	}
	if !single.ReadOptionalASN1(&exts, &hasExts, explicit(0)) || !single.Empty() {
		return OCSPCertID{}, errors.New("a Request cannot be read")
	}
	if hasExts {
		if _, err := readOCSPExtensions(exts, false); err != nil {
			return OCSPCertID{}, err
		}
	}
	return id, nil
}

// readOCSPCertID reads one CertID.
func readOCSPCertID(from *cryptobyte.String) (OCSPCertID, error) {
	var raw, certID, alg cryptobyte.String
	var id OCSPCertID
	var oid asn1.ObjectIdentifier
	var serial big.Int
	if !from.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return OCSPCertID{}, errors.New("a CertID cannot be read")
	}
	id.Raw = raw
	if !raw.ReadASN1(&certID, cbasn1.SEQUENCE) || !certID.ReadASN1(&alg, cbasn1.SEQUENCE) ||
		!alg.ReadASN1ObjectIdentifier(&oid) || !absentOrNull(alg) ||
		!certID.ReadASN1Bytes(&id.IssuerNameHash, cbasn1.OCTET_STRING) ||
		!certID.ReadASN1Bytes(&id.IssuerKeyHash, cbasn1.OCTET_STRING) ||
		!certID.ReadASN1Integer(&serial) || !certID.Empty() || serial.Sign() < 0 {
		return OCSPCertID{}, errors.New("a CertID cannot be read")
	}
	id.Hash = hashFor(oid)
	id.Serial = SerialOf(&serial)
	if len(id.Serial.mag) > MaxSerialBytes {
		return OCSPCertID{}, fmt.Errorf("a serial number of %d octets", len(id.Serial.mag))
	}
	return id, nil
}

// readOCSPExtensions reads Extensions and returns the nonce, which only the
// request or response as a whole may carry. Unknown extensions pass unless
// critical.
func readOCSPExtensions(exts cryptobyte.String, whole bool) ([]byte, error) {
	var list cryptobyte.String
	if !exts.ReadASN1(&list, cbasn1.SEQUENCE) || !exts.Empty() {
		return nil, errors.New("extensions cannot be read")
	}
	var nonce []byte
	for !list.Empty() {
		var ext cryptobyte.String
		var oid asn1.ObjectIdentifier
		var critical bool
		var value []byte
		if !list.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&oid) ||
			ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) ||
			!ext.ReadASN1Bytes(&value, cbasn1.OCTET_STRING) || !ext.Empty() {
			return nil, errors.New("an extension cannot be read")
		}
		switch {
		case whole && oid.Equal(oidOCSPNonce()):
			inner := cryptobyte.String(value)
			var octets []byte
			if nonce != nil || !inner.ReadASN1Bytes(&octets, cbasn1.OCTET_STRING) || !inner.Empty() ||
				len(octets) == 0 || len(octets) > MaxOCSPNonce {
				return nil, fmt.Errorf("the nonce is not one OCTET STRING of 1 to %d octets", MaxOCSPNonce)
			}
			nonce = octets
		case critical:
			return nil, fmt.Errorf("unknown critical extension %.80s", oid)
		}
	}
	return nonce, nil
}

// absentOrNull reports whether the parameters of a hash algorithm are one of the two that there are (RFC 5754, Section 2).
// Answers repeat them and are kept by them, so others would be a way to fill a cache.
func absentOrNull(parameters cryptobyte.String) bool {
	var null cryptobyte.String
	return parameters.Empty() || parameters.ReadASN1(&null, cbasn1.NULL) && null.Empty() && parameters.Empty()
}

// Marshal is the unsigned request in DER. Only Certs' Raw fields are written.
func (r OCSPRequest) Marshal() []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, id := range r.Certs {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(id.Raw) })
				}
			})
			if len(r.Nonce) > 0 {
				addNonce(b, cbasn1.Tag(2), r.Nonce)
			}
		})
	})
	return b.BytesOrPanic()
}

// addNonce adds Extensions with the nonce alone in the explicit context tag.
func addNonce(b *cryptobyte.Builder, tag cbasn1.Tag, nonce []byte) {
	b.AddASN1(tag.ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addExtension(b, oidOCSPNonce(), false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
		})
	})
}
