package pkix

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ReasonFlags is a set of reasons (RFC 5280, Section 4.2.1.13): bit i is flag
// i of the RFC. Bit 0 is not used, RemoveFromCRL and Unspecified have none.
type ReasonFlags uint16

// AllReasons has every flag that there is.
const AllReasons ReasonFlags = 0x1fe

// ReasonFlag is the set of the one reason; 0 for the two without a flag.
func ReasonFlag(r Reason) ReasonFlags {
	switch {
	case KeyCompromise <= r && r <= CertificateHold:
		return 1 << r
	case r == PrivilegeWithdrawn:
		return 1 << 7
	case r == AACompromise:
		return 1 << 8
	}
	return 0
}

// String names the reasons of the set: "keyCompromise, cACompromise".
func (f ReasonFlags) String() string {
	var names []string
	for _, r := range Reasons() {
		if ReasonFlag(r)&f != 0 {
			names = append(names, r.String())
		}
	}
	return strings.Join(names, ", ")
}

// readReasonFlags reads the content of a ReasonFlags that is there. It is
// refused if it has none of the reasons: 0 stands for "all" elsewhere.
func readReasonFlags(content cryptobyte.String) (ReasonFlags, error) {
	// Two octets hold the nine flags; longer ones would speak of reasons that do not exist.
	if len(content) < 2 || len(content) > 3 || content[0] > 7 || content[len(content)-1]&(1<<content[0]-1) != 0 {
		return 0, errors.New("the reasons are no BIT STRING of at most 16 bits")
	}
	var flags ReasonFlags
	for i := range 8 * (len(content) - 1) {
		if content[1+i/8]&(0x80>>(i%8)) != 0 {
			flags |= 1 << i
		}
	}
	if flags &= AllReasons; flags == 0 {
		return 0, errors.New("the set of reasons is empty")
	}
	return flags, nil
}

// add writes the content of the BIT STRING, without zero bits at its end
// (X.690, Section 11.2.2).
func (f ReasonFlags) add(b *cryptobyte.Builder) {
	octets := [2]byte{}
	last := 0
	for i := range 16 {
		if f&(1<<i) != 0 {
			octets[i/8] |= 0x80 >> (i % 8)
			last = i
		}
	}
	b.AddUint8(uint8(7 - last%8))
	b.AddBytes(octets[:last/8+1])
}

// DistributionPoint says where a CRL is to be had (RFC 5280, Section 4.2.1.13).
type DistributionPoint struct {
	FullName  []GeneralName
	Relative  []byte      // nameRelativeToCRLIssuer: content of the RelativeDistinguishedName; nil: none
	Reasons   ReasonFlags // 0: all
	CRLIssuer [][]byte    // Names in DER; empty: the certificate's issuer
}

// URLs are the http and https URLs of the full name, in their order.
func (d DistributionPoint) URLs() []string {
	var urls []string
	for _, n := range d.FullName {
		if n.Tag == TagURI && httpURL(n.URI) {
			urls = append(urls, n.URI)
		}
	}
	return urls
}

// oidCRLDistributionPoints and oidFreshestCRL have one syntax.
func oidCRLDistributionPoints() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 31} }
func oidFreshestCRL() asn1.ObjectIdentifier           { return asn1.ObjectIdentifier{2, 5, 29, 46} }

// CertificateDistributionPoints are the points of the certificate's extensions
// cRLDistributionPoints and freshestCRL (RFC 5280, Sections 4.2.1.13 and
// 4.2.1.15), with the forms that crypto/x509 does not read: names relative to
// the issuer, other issuers, reasons. An extension that cannot be read is an
// error, for it may be the one that says more about revocation.
func CertificateDistributionPoints(cert *x509.Certificate) (cdp, freshest []DistributionPoint, err error) {
	for _, e := range cert.Extensions {
		var what string
		var into *[]DistributionPoint
		switch {
		case e.Id.Equal(oidCRLDistributionPoints()):
			what, into = "CRL distribution points", &cdp
		case e.Id.Equal(oidFreshestCRL()):
			what, into = "freshest CRL", &freshest
		default:
			continue
		}
		if *into != nil {
			return nil, nil, fmt.Errorf("certificate %s: %s: the extension occurs twice", DNString(cert.RawSubject), what)
		}
		if *into, err = readDistributionPoints(e.Value); err != nil {
			return nil, nil, fmt.Errorf("certificate %s: %s: %w", DNString(cert.RawSubject), what, err)
		}
	}
	return cdp, freshest, nil
}

// readDistributionPoints reads CRLDistributionPoints.
func readDistributionPoints(value []byte) ([]DistributionPoint, error) {
	input := cryptobyte.String(value)
	var list cryptobyte.String
	if !input.ReadASN1(&list, cbasn1.SEQUENCE) || !input.Empty() || list.Empty() {
		return nil, errors.New("this is no list of distribution points")
	}
	var points []DistributionPoint
	for !list.Empty() {
		if len(points) == MaxDistributionPoints {
			return nil, fmt.Errorf("more than %d distribution points", MaxDistributionPoints)
		}
		var content cryptobyte.String
		if !list.ReadASN1(&content, cbasn1.SEQUENCE) {
			return nil, errors.New("a distribution point cannot be read")
		}
		point, err := readDistributionPoint(content)
		if err != nil {
			return nil, fmt.Errorf("distribution point %d: %w", len(points)+1, err)
		}
		points = append(points, point)
	}
	return points, nil
}

func readDistributionPoint(content cryptobyte.String) (DistributionPoint, error) {
	var d DistributionPoint
	var name, reasons, issuer cryptobyte.String
	var hasName, hasReasons, hasIssuer bool
	if !content.ReadOptionalASN1(&name, &hasName, contextGroup(0)) ||
		!content.ReadOptionalASN1(&reasons, &hasReasons, contextTag(1)) ||
		!content.ReadOptionalASN1(&issuer, &hasIssuer, contextGroup(2)) || !content.Empty() {
		return d, errors.New("its fields cannot be read")
	}
	var err error
	switch {
	case !hasName && !hasIssuer:
		return d, errors.New("it has neither a name nor a CRL issuer")
	case hasName:
		if d.FullName, d.Relative, err = readPointName(name); err != nil {
			return d, err
		}
	}
	if hasReasons {
		if d.Reasons, err = readReasonFlags(reasons); err != nil {
			return d, err
		}
	}
	if hasIssuer {
		names, err := readGeneralNames(issuer)
		if err != nil {
			return d, fmt.Errorf("CRL issuer: %w", err)
		}
		d.CRLIssuer = directoryNames(names)
		switch {
		case len(d.CRLIssuer) == 0: // left out, the certificate's issuer would be meant
			return d, errors.New("the CRL issuer has no directory name")
		case len(d.CRLIssuer) > 1 && d.Relative != nil: // Section 4.2.1.13: MUST NOT
			return d, errors.New("a relative name with more than one CRL issuer")
		}
	}
	return d, nil
}

// readPointName reads the content of a DistributionPointName in its explicit tag.
func readPointName(choice cryptobyte.String) (full []GeneralName, relative []byte, err error) {
	var content cryptobyte.String
	switch {
	case choice.PeekASN1Tag(contextGroup(0)):
		if !choice.ReadASN1(&content, contextGroup(0)) || !choice.Empty() {
			return nil, nil, errors.New("the full name cannot be read")
		}
		full, err = readGeneralNames(content)
		return full, nil, err
	case choice.ReadASN1(&content, contextGroup(1)) && choice.Empty() && validRDN(content):
		return nil, content, nil
	}
	return nil, nil, errors.New("the name of the distribution point cannot be read")
}

// directoryNames are the Names among general names.
func directoryNames(names []GeneralName) [][]byte {
	var out [][]byte
	for _, n := range names {
		if n.Tag == TagDirectoryName {
			out = append(out, n.Name)
		}
	}
	return out
}
