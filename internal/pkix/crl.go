package pkix

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CRLEntry is one revoked certificate. Reason Unspecified writes no reason
// extension (RFC 5280, Section 5.3.1); a zero InvalidityDate writes none.
// RemoveFromCRL belongs in delta CRLs only.
type CRLEntry struct {
	Serial         Serial
	At             time.Time // when it was revoked
	Reason         Reason
	InvalidityDate time.Time // since when the key is thought to be compromised; usually zero
}

// AppendCRLEntry appends the DER of one entry of revokedCertificates. Entries
// are encoded once and kept, so that signing a list anew encodes nothing.
// Years must lie between 0 and 9999.
func AppendCRLEntry(b []byte, e CRLEntry) []byte {
	var buf [160]byte // enough for any entry with a serial of MaxSerialBytes
	body := e.Serial.appendDER(buf[:0])
	body = appendTime(body, e.At)
	if e.Reason != Unspecified || !e.InvalidityDate.IsZero() {
		var extBuf [48]byte
		exts := extBuf[:0]
		if e.Reason != Unspecified { // id-ce-cRLReasons, ENUMERATED
			exts = append(exts, 0x30, 10, 0x06, 3, 0x55, 0x1d, 0x15, 0x04, 3, 0x0a, 1, byte(e.Reason))
		}
		if !e.InvalidityDate.IsZero() { // id-ce-invalidityDate; RFC 5280, Section 5.3.2: always GeneralizedTime
			exts = append(exts, 0x30, 24, 0x06, 3, 0x55, 0x1d, 0x18, 0x04, 17)
			exts = appendGeneralizedTime(exts, e.InvalidityDate)
		}
		body = appendHeader(body, 0x30, len(exts))
		body = append(body, exts...)
	}
	b = appendHeader(b, 0x30, len(body))
	return append(b, body...)
}

// appendTime appends a Time: UTCTime from 1950 to 2049, else GeneralizedTime
// (RFC 5280, Section 5.1.2.4).
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Year() < 1950 || t.Year() > 2049 {
		return appendGeneralizedTime(b, t)
	}
	b = append(b, 0x17, 13)
	return t.AppendFormat(b, "060102150405Z")
}

func appendGeneralizedTime(b []byte, t time.Time) []byte {
	b = append(b, 0x18, 15)
	return t.UTC().AppendFormat(b, "20060102150405Z")
}

// CRLTemplate is everything of a CRL but its entries and signature.
type CRLTemplate struct {
	Issuer             *x509.Certificate // signs the list; needs neither keyUsage nor a subject key identifier
	Number             *big.Int          // CRLNumber, at most 20 octets
	BaseNumber         *big.Int          // the full CRL this one is a delta to; nil: a full CRL
	ThisUpdate         time.Time
	NextUpdate         time.Time
	DistributionPoints []string // URIs of the critical issuing distribution point; empty: none
	FreshestCRL        []string // where the delta is; not allowed in a delta
	OnlyUserCerts      bool     // the list covers end-entity certificates only
}

// maxCRLNumberBytes: RFC 5280, Section 5.2.3: CRL numbers of at most 20 octets.
const maxCRLNumberBytes = 20

func (t CRLTemplate) check() error {
	switch {
	case t.Issuer == nil:
		return errors.New("no issuer certificate")
	case t.Number == nil || t.Number.Sign() < 0 || len(t.Number.Bytes()) > maxCRLNumberBytes || t.Number.BitLen() == 8*maxCRLNumberBytes:
		return fmt.Errorf("number %v is not between 0 and 2^%d", t.Number, 8*maxCRLNumberBytes-1)
	case t.BaseNumber != nil && (t.BaseNumber.Sign() < 0 || t.BaseNumber.Cmp(t.Number) > 0):
		return fmt.Errorf("base number %v is not between 0 and the number %v", t.BaseNumber, t.Number)
	case !t.NextUpdate.After(t.ThisUpdate):
		return fmt.Errorf("next update %v is not after this update %v", t.NextUpdate, t.ThisUpdate)
	case t.BaseNumber != nil && len(t.FreshestCRL) > 0:
		return errors.New("a delta has no freshest CRL extension (RFC 5280, Section 5.2.6)")
	}
	return nil
}

// SignCRL is a version 2 CRL in DER with the entries, each written by
// AppendCRLEntry, in the order given; the caller vouches for them. The
// algorithm follows the key: ECDSA with the digest of its curve, RSA PKCS#1
// v1.5 with SHA-256, Ed25519, ML-DSA. The signature is checked before the list
// is returned, so a faulty signer never publishes.
func SignCRL(t CRLTemplate, entries []byte, signer crypto.Signer) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	if err := signerMatches(t.Issuer, signer); err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	alg, err := algorithmFor(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	tbs, err := t.tbs(alg, entries)
	if err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	signature, err := alg.sign(tbs, signer)
	if err != nil {
		return nil, fmt.Errorf("CRL of %s: %w", DNString(t.Issuer.RawSubject), err)
	}
	if err := t.Issuer.CheckSignature(alg.x509, tbs, signature); err != nil {
		return nil, fmt.Errorf("CRL of %s: the signer made a wrong signature: %w", DNString(t.Issuer.RawSubject), err)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		alg.add(b)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}

// tbs is TBSCertList (RFC 5280, Section 5.1).
func (t CRLTemplate) tbs(alg algorithm, entries []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(entries)+2048))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1) // version v2
		alg.add(b)
		b.AddBytes(t.Issuer.RawSubject)
		b.AddBytes(appendTime(nil, t.ThisUpdate))
		b.AddBytes(appendTime(nil, t.NextUpdate))
		if len(entries) > 0 { // Section 5.1.2.6: absent when nothing is revoked
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(entries) })
		}
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, t.addExtensions)
		})
	})
	return b.Bytes()
}

func (t CRLTemplate) addExtensions(b *cryptobyte.Builder) {
	addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 35}, false, func(b *cryptobyte.Builder) { // authorityKeyIdentifier
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(SKI(t.Issuer)) })
		})
	})
	addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 20}, false, func(b *cryptobyte.Builder) { // cRLNumber
		b.AddASN1BigInt(t.Number)
	})
	if t.BaseNumber != nil {
		addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 27}, true, func(b *cryptobyte.Builder) { // deltaCRLIndicator
			b.AddASN1BigInt(t.BaseNumber)
		})
	}
	if len(t.DistributionPoints) > 0 || t.OnlyUserCerts {
		addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 28}, true, t.addIDP)
	}
	if len(t.FreshestCRL) > 0 {
		addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 46}, false, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addFullName(b, t.FreshestCRL) })
			})
		})
	}
}

// addIDP writes issuingDistributionPoint (RFC 5280, Section 5.2.5). Booleans
// that are false are left out.
func (t CRLTemplate) addIDP(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if len(t.DistributionPoints) > 0 {
			addFullName(b, t.DistributionPoints)
		}
		if t.OnlyUserCerts {
			b.AddASN1(cbasn1.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
		}
	})
}
