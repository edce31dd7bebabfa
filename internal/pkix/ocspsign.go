package pkix

import (
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// OCSPStatus is what an answer says of one certificate. The zero value is
// OCSPUnknown: forgetting to set it never says "good".
type OCSPStatus int

// The statuses (RFC 6960, Section 2.2).
const (
	OCSPUnknown OCSPStatus = iota
	OCSPGood
	OCSPRevoked
)

// String is "good", "revoked" or "unknown".
func (s OCSPStatus) String() string {
	switch s {
	case OCSPGood:
		return "good"
	case OCSPRevoked:
		return "revoked"
	}
	return "unknown"
}

// OCSPSingle is the answer for one certificate. RevokedAt and Reason count
// only with OCSPRevoked; Reason Unspecified is not written. A zero NextUpdate
// is not written and means that newer information is always to be had.
type OCSPSingle struct {
	ID         OCSPCertID
	Status     OCSPStatus
	RevokedAt  time.Time
	Reason     Reason
	ThisUpdate time.Time
	NextUpdate time.Time
}

// OCSPTemplate is everything of an answer but its signature.
type OCSPTemplate struct {
	Responder  *x509.Certificate   // whose key signs: the issuer itself or a delegate
	Include    []*x509.Certificate // certificates to send along; a delegate's own belongs here
	ProducedAt time.Time
	Nonce      []byte // the request's, repeated; nil: none
	Responses  []OCSPSingle
}

// SignOCSP is a successful OCSPResponse with a basic response in DER. The
// responder is named by key (the SHA-1 of its key bits). The algorithm follows
// the key as in SignCRL.
func SignOCSP(t OCSPTemplate, signer crypto.Signer) ([]byte, error) {
	if t.Responder == nil || len(t.Responses) == 0 {
		return nil, errors.New("OCSP response: no responder certificate or no answers")
	}
	if err := errors.Join(signerMatches(t.Responder, signer), t.check()); err != nil {
		return nil, fmt.Errorf("OCSP response: %w", err)
	}
	alg, err := algorithmFor(signer)
	if err != nil {
		return nil, fmt.Errorf("OCSP response: %w", err)
	}
	data, err := t.responseData()
	if err != nil {
		return nil, fmt.Errorf("OCSP response: %w", err)
	}
	signature, err := alg.sign(data, signer)
	if err != nil {
		return nil, fmt.Errorf("OCSP response: %w", err)
	}
	size := len(data) + len(signature) + 256
	for _, cert := range t.Include {
		size += len(cert.Raw)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0) // successful
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}) // id-pkix-ocsp-basic
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { t.addBasic(b, alg, data, signature) })
			})
		})
	})
	return b.Bytes()
}

// check refuses what nobody could read: a year that GeneralizedTime does not
// have, an end before the beginning, a nonce over MaxOCSPNonce octets.
func (t OCSPTemplate) check() error {
	if len(t.Nonce) > MaxOCSPNonce {
		return fmt.Errorf("a nonce of %d octets; at most %d", len(t.Nonce), MaxOCSPNonce)
	}
	times := []time.Time{t.ProducedAt}
	for _, s := range t.Responses {
		if times = append(times, s.ThisUpdate); s.Status == OCSPRevoked {
			times = append(times, s.RevokedAt)
		}
		if s.NextUpdate.IsZero() {
			continue
		}
		if times = append(times, s.NextUpdate); s.NextUpdate.Before(s.ThisUpdate) {
			return fmt.Errorf("nextUpdate %v is before thisUpdate %v", s.NextUpdate, s.ThisUpdate)
		}
	}
	for _, at := range times {
		if year := at.UTC().Year(); year < 1 || year > 9999 {
			return fmt.Errorf("the year %d cannot be written", year)
		}
	}
	return nil
}

// addBasic writes BasicOCSPResponse (RFC 6960, Section 4.2.1).
func (t OCSPTemplate) addBasic(b *cryptobyte.Builder, alg algorithm, data, signature []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(data)
		alg.add(b)
		b.AddASN1BitString(signature)
		if len(t.Include) == 0 {
			return
		}
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, cert := range t.Include {
					b.AddBytes(cert.Raw)
				}
			})
		})
	})
}

// responseData is ResponseData, the part that is signed.
func (t OCSPTemplate) responseData() ([]byte, error) {
	keyHash := sha1.Sum(keyBits(t.Responder.RawSubjectPublicKeyInfo))
	b := cryptobyte.NewBuilder(make([]byte, 0, 256+160*len(t.Responses)))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { // byKey
			b.AddASN1OctetString(keyHash[:])
		})
		b.AddBytes(appendGeneralizedTime(nil, t.ProducedAt))
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, single := range t.Responses {
				single.add(b)
			}
		})
		if len(t.Nonce) > 0 {
			addNonce(b, cbasn1.Tag(1), t.Nonce)
		}
	})
	return b.Bytes()
}

// add writes SingleResponse.
func (s OCSPSingle) add(b *cryptobyte.Builder) {
	explicit := cbasn1.Tag(0).ContextSpecific().Constructed()
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(s.ID.Raw)
		switch s.Status {
		case OCSPGood:
			b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
		case OCSPRevoked:
			b.AddASN1(cbasn1.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddBytes(appendGeneralizedTime(nil, s.RevokedAt))
				if s.Reason != Unspecified {
					b.AddASN1(explicit, func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
				}
			})
		default:
			b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(*cryptobyte.Builder) {})
		}
		b.AddBytes(appendGeneralizedTime(nil, s.ThisUpdate))
		if !s.NextUpdate.IsZero() {
			b.AddASN1(explicit, func(b *cryptobyte.Builder) { b.AddBytes(appendGeneralizedTime(nil, s.NextUpdate)) })
		}
	})
}

// The unsuccessful statuses of an OCSPResponse (RFC 6960, Section 4.2.1).
const (
	OCSPMalformedRequest = 1
	OCSPInternalError    = 2
	OCSPTryLater         = 3
	OCSPSigRequired      = 5
	OCSPUnauthorized     = 6
)

// OCSPErrorResponse is the unsigned OCSPResponse that carries a status and
// nothing else.
func OCSPErrorResponse(status int) []byte {
	return []byte{0x30, 3, 0x0a, 1, byte(status)}
}
