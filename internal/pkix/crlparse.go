package pkix

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Errors of reading a CRL. What cannot be used because it says something that
// is not known here, but must be, is ErrCRLCritical, all else ErrCRLMalformed.
var (
	ErrCRLMalformed = errors.New("malformed CRL")
	ErrCRLCritical  = errors.New("CRL with an unknown critical extension")
)

// Bounds of a CRL. Its entries are bounded by its size alone.
const (
	MaxCRLBytes           = 1 << 30 // DER
	MaxCRLExtensionsBytes = 1 << 20 // crlExtensions
	maxCRLExtensions      = 64
	maxCRLSignature       = 64 << 10
)

// The object identifiers under id-ce (2.5.29) by their content octets.
const (
	ceCRLNumber           = "\x55\x1d\x14"
	ceReason              = "\x55\x1d\x15"
	ceInvalidityDate      = "\x55\x1d\x18"
	ceDeltaCRLIndicator   = "\x55\x1d\x1b"
	ceIssuingDistribution = "\x55\x1d\x1c"
	ceCertificateIssuer   = "\x55\x1d\x1d"
	ceDistributionPoints  = "\x55\x1d\x1f"
	ceAuthorityKeyID      = "\x55\x1d\x23"
	ceFreshestCRL         = "\x55\x1d\x2e"
)

// CRL is everything of a CertificateList but its entries, which Walk reads.
// All slices are parts of Raw.
type CRL struct {
	Raw, RawTBS, RawIssuer []byte
	RawSignatureAlgorithm  []byte // the AlgorithmIdentifier; the same inside and outside
	Signature              []byte
	Version                int // 1 or 2
	ThisUpdate             time.Time
	NextUpdate             time.Time // zero: not given
	Number                 *big.Int  // nil: not given
	BaseNumber             *big.Int  // of a delta, which has a Number too; nil: a complete CRL
	AuthorityKeyID         []byte    // keyIdentifier; nil: not given
	IDP                    *IssuingDistributionPoint
	FreshestCRL            []DistributionPoint

	// SkipNegative makes Walk pass over entries with a negative serial number
	// instead of refusing the list. They can concern no certificate that
	// crypto/x509 reads.
	SkipNegative bool

	entries span // the content of revokedCertificates, in Raw
}

// IssuingDistributionPoint is the scope of a CRL (RFC 5280, Section 5.2.5).
type IssuingDistributionPoint struct {
	FullName                        []GeneralName
	Relative                        []byte // nameRelativeToCRLIssuer: content of the RelativeDistinguishedName; nil: none
	OnlyUser, OnlyCA, OnlyAttribute bool   // at most one of them
	Indirect                        bool
	OnlySomeReasons                 ReasonFlags // 0: all reasons
}

// ParseCRLHeader reads a CertificateList in DER (RFC 5280, Section 5.1),
// version 1 or 2, without its entries, in a time that does not depend on their
// number. It refuses bytes after the end, two different algorithm identifiers,
// extensions that occur twice or are critical and unknown, and what is over
// the bounds. Errors are ErrCRLMalformed or ErrCRLCritical. The signature is
// not checked; CheckSignature does.
func ParseCRLHeader(der []byte) (*CRL, error) {
	if len(der) > MaxCRLBytes {
		return nil, fmt.Errorf("%w: %d bytes; at most %d are read", ErrCRLMalformed, len(der), MaxCRLBytes)
	}
	c := &CRL{Raw: der}
	from, to, ok := derElement(der, 0, 0x30)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: not a CertificateList in DER, or cut off", ErrCRLMalformed)
	case to != len(der):
		return nil, fmt.Errorf("%w: %d bytes follow the end", ErrCRLMalformed, len(der)-to)
	}
	fields, end, ok := derElement(der, from, 0x30)
	if !ok {
		return nil, fmt.Errorf("%w: TBSCertList cannot be read", ErrCRLMalformed)
	}
	c.RawTBS = der[from:end]
	outer := cryptobyte.String(der[end:])
	var algorithm, bits cryptobyte.String
	if !outer.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) || !outer.ReadASN1(&bits, cbasn1.BIT_STRING) || !outer.Empty() ||
		len(bits) < 2 || len(bits) > maxCRLSignature || bits[0] != 0 {
		return nil, fmt.Errorf("%w: the signature cannot be read", ErrCRLMalformed)
	}
	c.RawSignatureAlgorithm, c.Signature = algorithm, bits[1:]
	if err := c.readTBS(fields, end); err != nil {
		return nil, err
	}
	return c, nil
}

// readTBS reads the fields of TBSCertList, Raw[at:end].
func (c *CRL) readTBS(at, end int) error {
	malformed := func(what string) error { return fmt.Errorf("%w: %s", ErrCRLMalformed, what) }
	tbs := c.Raw[:end]
	c.Version = 1
	if from, to, ok := derElement(tbs, at, 0x02); ok {
		// Section 5.1.2.1: the field is absent in v1 and 1 in v2.
		if to-from != 1 || tbs[from] != 1 {
			return malformed("the version is neither v1 nor v2")
		}
		c.Version, at = 2, to
	}
	_, algorithmEnd, ok := derElement(tbs, at, 0x30)
	if !ok {
		return malformed("the signature algorithm cannot be read")
	}
	if !bytes.Equal(tbs[at:algorithmEnd], c.RawSignatureAlgorithm) { // Section 5.1.1.2: MUST
		return malformed("the signature algorithm inside is not the one outside")
	}
	at = algorithmEnd
	_, issuerEnd, ok := derElement(tbs, at, 0x30)
	if !ok || !validName(tbs[at:issuerEnd]) {
		return malformed("the issuer is no name")
	}
	c.RawIssuer, at = tbs[at:issuerEnd], issuerEnd
	sec, at, ok := derTime(tbs, at)
	if !ok {
		return malformed("thisUpdate cannot be read")
	}
	c.ThisUpdate = time.Unix(sec, 0).UTC()
	if at < end && (tbs[at] == 0x17 || tbs[at] == 0x18) {
		if sec, at, ok = derTime(tbs, at); !ok {
			return malformed("nextUpdate cannot be read")
		}
		c.NextUpdate = time.Unix(sec, 0).UTC()
	}
	c.entries = span{at, at}
	if at < end && tbs[at] == 0x30 {
		if c.entries.from, c.entries.to, ok = derElement(tbs, at, 0x30); !ok {
			return malformed("revokedCertificates cannot be read")
		}
		at = c.entries.to
	}
	if at == end {
		return nil
	}
	return c.readExtensions(tbs[at:])
}

// readExtensions reads crlExtensions in their explicit tag, which is the last field.
func (c *CRL) readExtensions(field cryptobyte.String) error {
	switch {
	case len(field) > MaxCRLExtensionsBytes:
		return fmt.Errorf("%w: %d bytes of extensions; at most %d are read", ErrCRLMalformed, len(field), MaxCRLExtensionsBytes)
	case c.Version == 1: // Section 5.1.2.1
		return fmt.Errorf("%w: version 1 has no extensions", ErrCRLMalformed)
	}
	var explicit, list cryptobyte.String
	if !field.ReadASN1(&explicit, contextGroup(0)) || !field.Empty() || !explicit.ReadASN1(&list, cbasn1.SEQUENCE) || !explicit.Empty() {
		return fmt.Errorf("%w: the extensions cannot be read", ErrCRLMalformed)
	}
	var seen []string
	for !list.Empty() {
		id, critical, value, ok := readExtension(&list)
		switch {
		case !ok:
			return fmt.Errorf("%w: an extension cannot be read", ErrCRLMalformed)
		case len(seen) == maxCRLExtensions:
			return fmt.Errorf("%w: more than %d extensions", ErrCRLMalformed, maxCRLExtensions)
		}
		for _, s := range seen {
			if s == id {
				return fmt.Errorf("%w: extension %s occurs twice", ErrCRLMalformed, oidText([]byte(id)))
			}
		}
		seen = append(seen, id)
		known, err := c.readExtensionValue(id, value)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrCRLMalformed, err)
		case critical && !known: // Section 5.2: MUST NOT be used
			return fmt.Errorf("%w %s", ErrCRLCritical, oidText([]byte(id)))
		}
	}
	switch {
	case c.BaseNumber == nil:
		return nil
	case c.Number == nil: // Section 5.2.4: without it, nothing can be combined
		return fmt.Errorf("%w: a delta without a CRL number", ErrCRLMalformed)
	case c.BaseNumber.Cmp(c.Number) > 0:
		return fmt.Errorf("%w: the base number %v is over the CRL number %v", ErrCRLMalformed, c.BaseNumber, c.Number)
	}
	return nil
}

// readExtension reads one Extension. DER leaves out a critical flag that is
// false; some issuers write it, and nothing else can be meant.
func readExtension(list *cryptobyte.String) (id string, critical bool, value cryptobyte.String, ok bool) {
	var ext, oid cryptobyte.String
	ok = list.ReadASN1(&ext, cbasn1.SEQUENCE) && ext.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) && len(oid) > 0 &&
		(!ext.PeekASN1Tag(cbasn1.BOOLEAN) || ext.ReadASN1Boolean(&critical)) &&
		ext.ReadASN1(&value, cbasn1.OCTET_STRING) && ext.Empty()
	return string(oid), critical, value, ok
}

// readExtensionValue takes in the extensions that are known.
func (c *CRL) readExtensionValue(id string, value cryptobyte.String) (known bool, err error) {
	ok := true
	switch id {
	case ceAuthorityKeyID:
		c.AuthorityKeyID, ok = readKeyIdentifier(value)
	case ceCRLNumber:
		c.Number, ok = readCRLNumber(value)
	case ceDeltaCRLIndicator:
		c.BaseNumber, ok = readCRLNumber(value)
	case ceIssuingDistribution:
		if c.IDP, err = readIDP(value); err != nil {
			return true, fmt.Errorf("issuing distribution point: %w", err)
		}
	case ceFreshestCRL:
		if c.FreshestCRL, err = readDistributionPoints(value); err != nil {
			return true, fmt.Errorf("freshest CRL: %w", err)
		}
	default:
		return false, nil
	}
	if !ok {
		return true, fmt.Errorf("extension %s cannot be read", oidText([]byte(id)))
	}
	return true, nil
}

// readCRLNumber reads a CRLNumber or BaseCRLNumber of at most 20 octets
// (RFC 5280, Section 5.2.3).
func readCRLNumber(value cryptobyte.String) (*big.Int, bool) {
	n := new(big.Int)
	ok := len(value) <= 3+maxCRLNumberBytes && value.ReadASN1Integer(n) && value.Empty() &&
		n.Sign() >= 0 && n.BitLen() <= 8*maxCRLNumberBytes
	return n, ok
}

// readKeyIdentifier reads the keyIdentifier of an AuthorityKeyIdentifier.
func readKeyIdentifier(value cryptobyte.String) ([]byte, bool) {
	var list, id cryptobyte.String
	var present bool
	ok := value.ReadASN1(&list, cbasn1.SEQUENCE) && value.Empty() &&
		list.ReadOptionalASN1(&id, &present, contextTag(0)) &&
		list.SkipOptionalASN1(contextGroup(1)) && list.SkipOptionalASN1(contextTag(2)) && list.Empty()
	return id, ok
}

// readIDP reads an IssuingDistributionPoint (RFC 5280, Section 5.2.5). The
// empty SEQUENCE and a BOOLEAN that is false are not DER.
func readIDP(value cryptobyte.String) (*IssuingDistributionPoint, error) {
	var list, name, reasons cryptobyte.String
	var hasName, hasReasons bool
	if !value.ReadASN1(&list, cbasn1.SEQUENCE) || !value.Empty() {
		return nil, errors.New("this is no SEQUENCE")
	}
	if list.Empty() {
		return nil, errors.New("it is empty")
	}
	idp := &IssuingDistributionPoint{}
	if !list.ReadOptionalASN1(&name, &hasName, contextGroup(0)) ||
		!readTrue(&list, 1, &idp.OnlyUser) || !readTrue(&list, 2, &idp.OnlyCA) ||
		!list.ReadOptionalASN1(&reasons, &hasReasons, contextTag(3)) ||
		!readTrue(&list, 4, &idp.Indirect) || !readTrue(&list, 5, &idp.OnlyAttribute) || !list.Empty() {
		return nil, errors.New("its fields cannot be read")
	}
	if idp.OnlyUser && idp.OnlyCA || idp.OnlyUser && idp.OnlyAttribute || idp.OnlyCA && idp.OnlyAttribute {
		return nil, errors.New("more than one kind of certificate is the only one")
	}
	var err error
	if hasName {
		if idp.FullName, idp.Relative, err = readPointName(name); err != nil {
			return nil, err
		}
	}
	if hasReasons {
		if idp.OnlySomeReasons, err = readReasonFlags(reasons); err != nil {
			return nil, err
		}
	}
	return idp, nil
}

// readTrue reads an optional BOOLEAN that is there only if it is true.
func readTrue(list *cryptobyte.String, tag int, into *bool) bool {
	var content cryptobyte.String
	if !list.ReadOptionalASN1(&content, into, contextTag(tag)) {
		return false
	}
	return !*into || len(content) == 1 && content[0] == 0xff
}

// SignatureAlgorithm is the name of the algorithm as of SignatureAlgorithmName.
func (c *CRL) SignatureAlgorithm() string { return SignatureAlgorithmName(c.RawSignatureAlgorithm) }

// CheckSignature checks that the list was signed by the key, as
// VerifySignature does.
func (c *CRL) CheckSignature(pub crypto.PublicKey) error {
	if err := VerifySignature(c.RawSignatureAlgorithm, pub, c.RawTBS, c.Signature); err != nil {
		return fmt.Errorf("CRL of %s: %w", DNString(c.RawIssuer), err)
	}
	return nil
}

// ParsePEMOrDERCRL returns the DER of the one CRL that data is, in DER or PEM.
// Text before the PEM block is allowed, as openssl crl -text writes it; bytes
// after it are not. What the DER says is not looked at.
func ParsePEMOrDERCRL(data []byte) (der []byte, err error) {
	const what = "CRL"
	// The second octet of a list is over 0x7f or the right length; no text begins with 0x30 and such a one.
	if len(data) >= 2 && data[0] == 0x30 && (data[1] >= 0x80 || int(data[1]) == len(data)-2) {
		if len(data) > MaxCRLBytes {
			return nil, fmt.Errorf("%s: %d bytes; at most %d are read", what, len(data), MaxCRLBytes)
		}
		return data, nil
	}
	if len(data) > MaxCRLBytes/2*3 {
		return nil, fmt.Errorf("%s: PEM text of %d bytes; at most %d are read", what, len(data), MaxCRLBytes/2*3)
	}
	// One block, so that reading it is one pass.
	if n := bytes.Count(data, []byte(pemBegin)); n > 1 {
		return nil, fmt.Errorf("%s: the PEM text has %d blocks; put each CRL in a file of its own", what, n)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, noPEM(what, data)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%s: %d bytes follow the PEM block; remove them", what, len(bytes.TrimSpace(rest)))
	}
	if err := wantType(what, block, "X509 CRL", "CRL"); err != nil {
		return nil, err
	}
	return block.Bytes, nil
}
