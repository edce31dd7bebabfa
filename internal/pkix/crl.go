package pkix

import (
	"crypto"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// CRLEntry is one revoked certificate. Reason Unspecified writes no reason
// extension (RFC 5280, Section 5.3.1); a zero InvalidityDate writes none.
// RemoveFromCRL belongs in delta CRLs only, Issuer in indirect ones: it is the
// issuer of this certificate and of those in the entries after it, up to the
// next entry with one (Section 5.3.3).
type CRLEntry struct {
	Serial         Serial
	At             time.Time // when it was revoked
	Reason         Reason
	InvalidityDate time.Time // since when the key is thought to be compromised; usually zero
	Issuer         []byte    // Name in DER; nil: not written
}

// AppendCRLEntry appends the DER of one entry of revokedCertificates. Entries
// are encoded once and kept, so that signing a list anew encodes nothing.
// Years must lie between 0 and 9999.
func AppendCRLEntry(b []byte, e CRLEntry) []byte {
	var buf [160]byte // enough for any entry with a serial of MaxSerialBytes
	body := e.Serial.appendDER(buf[:0])
	body = appendTime(body, e.At)
	if e.Reason != Unspecified || !e.InvalidityDate.IsZero() || e.Issuer != nil {
		var extBuf [48]byte
		exts := extBuf[:0]
		if e.Reason != Unspecified { // id-ce-cRLReasons, ENUMERATED
			exts = append(exts, 0x30, 10, 0x06, 3, 0x55, 0x1d, 0x15, 0x04, 3, 0x0a, 1, byte(e.Reason))
		}
		if !e.InvalidityDate.IsZero() { // id-ce-invalidityDate; RFC 5280, Section 5.3.2: always GeneralizedTime
			exts = append(exts, 0x30, 24, 0x06, 3, 0x55, 0x1d, 0x18, 0x04, 17)
			exts = appendGeneralizedTime(exts, e.InvalidityDate)
		}
		if e.Issuer != nil {
			exts = appendCertificateIssuer(exts, e.Issuer)
		}
		body = appendHeader(body, 0x30, len(exts))
		body = append(body, exts...)
	}
	b = appendHeader(b, 0x30, len(body))
	return append(b, body...)
}

// appendCertificateIssuer appends the extension certificateIssuer, which is
// always critical, with the one directory name.
func appendCertificateIssuer(b, name []byte) []byte {
	names := append(appendHeader(nil, 0xa4, len(name)), name...)
	value := append(appendHeader(nil, 0x30, len(names)), names...)
	body := append([]byte{0x06, 3, 0x55, 0x1d, 0x1d, 0x01, 1, 0xff}, appendHeader(nil, 0x04, len(value))...)
	body = append(body, value...)
	return append(appendHeader(b, 0x30, len(body)), body...)
}

// appendTime appends a Time: UTCTime from 1950 to 2049, else GeneralizedTime
// (RFC 5280, Section 5.1.2.4).
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Year() < 1950 || t.Year() > 2049 {
		return appendGeneralizedTime(b, t)
	}
	return appendToSecond(append(b, 0x17, 13), t)
}

func appendGeneralizedTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	return appendToSecond(appendTwoDigits(append(b, 0x18, 15), t.Year()/100), t)
}

// appendToSecond appends YYMMDDhhmmssZ of a time in UTC, at a fraction of what AppendFormat costs.
func appendToSecond(b []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	return append(appendTwoDigits(b, year%100, int(month), day, hour, minute, second), 'Z')
}

func appendTwoDigits(b []byte, numbers ...int) []byte {
	for _, n := range numbers {
		b = append(b, '0'+byte(n/10), '0'+byte(n%10))
	}
	return b
}

// SignCRL is a version 2 CRL in DER with the entries, each written by
// AppendCRLEntry, in the order given. Entries that Walk would refuse in such a
// list, and reasons that the list is not for, are refused. The algorithm
// follows the key: ECDSA with the digest of its curve, RSA PKCS#1 v1.5 with
// SHA-256, Ed25519, ML-DSA. The signature is checked before the list is
// returned, so a faulty signer never publishes.
func SignCRL(t CRLTemplate, entries []byte, signer crypto.Signer) ([]byte, error) {
	return SignCRLOf(t, signer, entries)
}

// SignCRLOf is SignCRL of entries that lie in several places: parts of other
// lists and new ones. They are copied once, into the result.
func SignCRLOf(t CRLTemplate, signer crypto.Signer, parts ...[]byte) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	if err := signerMatches(t.Issuer, signer); err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	alg, err := algorithmFor(signer)
	if err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	size := sizeHint(parts)
	if size > MaxCRLBytes {
		return nil, fmt.Errorf("CRL of %s: %d bytes; at most %d are read", DNString(t.Issuer.RawSubject), size, MaxCRLBytes)
	}
	// The list is put together in one buffer: room for its header, TBSCertList, then algorithm and signature.
	list, entries, err := t.appendTBS(make([]byte, maxHeader, size), alg, parts)
	if err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	tbs := list[maxHeader:]
	if err := t.checkEntries(tbs[entries.from:entries.to]); err != nil {
		return nil, fmt.Errorf("CRL of %s: %w", DNString(t.Issuer.RawSubject), err)
	}
	signature, err := alg.sign(tbs, signer)
	if err != nil {
		return nil, fmt.Errorf("CRL of %s: %w", DNString(t.Issuer.RawSubject), err)
	}
	if err := t.Issuer.CheckSignature(alg.x509, tbs, signature); err != nil {
		return nil, fmt.Errorf("CRL of %s: the signer made a wrong signature: %w", DNString(t.Issuer.RawSubject), err)
	}
	var b cryptobyte.Builder
	alg.add(&b)
	b.AddASN1BitString(signature)
	tail, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	list = append(list, tail...)
	header := appendHeader(nil, 0x30, len(list)-maxHeader)
	list = list[maxHeader-len(header):]
	copy(list, header)
	return list, nil
}
