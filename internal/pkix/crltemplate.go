package pkix

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CRLTemplate is everything of a CRL but its entries and signature. From
// DistributionPoints on it is the critical issuing distribution point, which
// is written if any of it is set.
type CRLTemplate struct {
	Issuer      *x509.Certificate // signs the list; needs neither keyUsage nor a subject key identifier
	Number      *big.Int          // CRLNumber, at most 20 octets
	BaseNumber  *big.Int          // the full CRL this one is a delta to; nil: a full CRL
	ThisUpdate  time.Time
	NextUpdate  time.Time
	FreshestCRL []string // where the delta is; not allowed in a delta

	DistributionPoints []string    // URIs
	DirectoryNames     [][]byte    // Names in DER, after the URIs
	RelativeName       []byte      // nameRelativeToCRLIssuer: content of the RelativeDistinguishedName; instead of the two above
	OnlyUserCerts      bool        // the list covers end-entity certificates only
	OnlyCACerts        bool        // or CA certificates only
	OnlyAttributeCerts bool        // or attribute certificates only
	OnlySomeReasons    ReasonFlags // 0: all reasons
	Indirect           bool        // entries may name other issuers
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
	case t.RelativeName != nil && len(t.DistributionPoints)+len(t.DirectoryNames) > 0:
		return errors.New("a distribution point has a full name or a relative one, not both")
	case t.OnlySomeReasons&^AllReasons != 0:
		return fmt.Errorf("reasons %#x: there are flags 1 to 8 only", uint16(t.OnlySomeReasons))
	}
	return t.checkWritten()
}

// checkWritten lets our own reader judge what would be written: names that are
// none, more of them than are read, two kinds of certificates at once.
func (t CRLTemplate) checkWritten() error {
	if t.hasIDP() {
		var b cryptobyte.Builder
		t.addIDP(&b)
		value, err := b.Bytes()
		if err == nil {
			_, err = readIDP(value)
		}
		if err != nil {
			return fmt.Errorf("issuing distribution point: %w", err)
		}
	}
	if len(t.FreshestCRL) > 0 {
		var b cryptobyte.Builder
		t.addFreshest(&b)
		value, err := b.Bytes()
		if err == nil {
			_, err = readDistributionPoints(value)
		}
		if err != nil {
			return fmt.Errorf("freshest CRL: %w", err)
		}
	}
	return nil
}

// checkEntries reads the entries as whoever fetches the list will: what our
// own Walk refuses, or contradicts the list's scope, is not signed. Offsets in
// its errors count from the first entry.
func (t CRLTemplate) checkEntries(entries []byte) error {
	c := CRL{
		Raw: entries, RawIssuer: t.Issuer.RawSubject, Version: 2, BaseNumber: t.BaseNumber,
		IDP: &IssuingDistributionPoint{Indirect: t.Indirect}, entries: span{0, len(entries)},
	}
	return c.Walk(func(e CRLRecord) error {
		if flag := ReasonFlag(e.Reason); t.OnlySomeReasons != 0 && flag&^t.OnlySomeReasons != 0 {
			return fmt.Errorf("entry at offset %d: the reason %v is none of the list's: %v", e.Offset, e.Reason, t.OnlySomeReasons)
		}
		return nil
	})
}

// maxHeader is the longest tag and length that a list of MaxCRLBytes has.
const maxHeader = 6

// sizeHint is at least the size of a list with such entries, for all but the
// oddest names.
func sizeHint(parts [][]byte) int {
	size := 12 << 10 // names, extensions, the longest signature
	for _, p := range parts {
		size += len(p)
	}
	return size
}

// appendTBS appends TBSCertList (RFC 5280, Section 5.1), and says where in it
// the entries are.
func (t CRLTemplate) appendTBS(list []byte, alg algorithm, parts [][]byte) (_ []byte, entries span, err error) {
	var before, after cryptobyte.Builder
	before.AddASN1Int64(1) // version v2
	alg.add(&before)
	before.AddBytes(t.Issuer.RawSubject)
	before.AddBytes(appendTime(nil, t.ThisUpdate))
	before.AddBytes(appendTime(nil, t.NextUpdate))
	after.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, t.addExtensions)
	})
	head, err := before.Bytes()
	if err != nil {
		return nil, entries, err
	}
	tail, err := after.Bytes()
	if err != nil {
		return nil, entries, err
	}
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if size > 0 { // Section 5.1.2.6: absent when nothing is revoked
		head = appendHeader(head, 0x30, size)
	}
	start := len(list)
	list = appendHeader(list, 0x30, len(head)+size+len(tail))
	list = append(list, head...)
	entries.from = len(list) - start
	for _, p := range parts {
		list = append(list, p...)
	}
	entries.to = len(list) - start
	return append(list, tail...), entries, nil
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
	if t.hasIDP() {
		addExtension(b, asn1.ObjectIdentifier{2, 5, 29, 28}, true, t.addIDP)
	}
	if len(t.FreshestCRL) > 0 {
		addExtension(b, oidFreshestCRL(), false, t.addFreshest)
	}
}

// addFreshest writes CRLDistributionPoints with one point.
func (t CRLTemplate) addFreshest(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addFullName(b, t.FreshestCRL, nil) })
	})
}

// hasIDP reports whether there is anything to write: the empty extension is
// not allowed.
func (t CRLTemplate) hasIDP() bool {
	return len(t.DistributionPoints) > 0 || len(t.DirectoryNames) > 0 || t.RelativeName != nil || t.OnlyUserCerts || t.OnlyCACerts ||
		t.OnlyAttributeCerts || t.OnlySomeReasons != 0 || t.Indirect
}

// addIDP writes issuingDistributionPoint (RFC 5280, Section 5.2.5). Booleans
// that are false are left out.
func (t CRLTemplate) addIDP(b *cryptobyte.Builder) {
	addTrue := func(b *cryptobyte.Builder, tag int, value bool) {
		if value {
			b.AddASN1(contextTag(tag), func(b *cryptobyte.Builder) { b.AddUint8(0xff) })
		}
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		switch {
		case t.RelativeName != nil:
			b.AddASN1(contextGroup(0), func(b *cryptobyte.Builder) {
				b.AddASN1(contextGroup(1), func(b *cryptobyte.Builder) { b.AddBytes(t.RelativeName) })
			})
		case len(t.DistributionPoints) > 0 || len(t.DirectoryNames) > 0:
			addFullName(b, t.DistributionPoints, t.DirectoryNames)
		}
		addTrue(b, 1, t.OnlyUserCerts)
		addTrue(b, 2, t.OnlyCACerts)
		if t.OnlySomeReasons != 0 {
			b.AddASN1(contextTag(3), t.OnlySomeReasons.add)
		}
		addTrue(b, 4, t.Indirect)
		addTrue(b, 5, t.OnlyAttributeCerts)
	})
}
