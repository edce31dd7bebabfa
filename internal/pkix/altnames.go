package pkix

import (
	"errors"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// AltNames are the subject alternative names of a certificate as they stand in it, doubles included.
type AltNames struct {
	DNS, Emails, URIs []string
	IPs               []netip.Addr
}

// errNoCertificate: what was to be read for its names is no certificate in DER.
var errNoCertificate = errors.New("pkix: no certificate in DER")

// ReadAltNames reads the subject alternative names of a certificate in DER and nothing else of it: a fifth of the work
// of x509.ParseCertificate. It does not say whether the certificate is a good one. Names of other kinds, addresses of a
// wrong length and text that is not ASCII (RFC 5280, Section 4.2.1.6: IA5String) are left out.
func ReadAltNames(der []byte) (AltNames, error) {
	var names AltNames
	input := cryptobyte.String(der)
	var certificate, tbs, rest, extensions cryptobyte.String
	var wrapped bool
	if !input.ReadASN1(&certificate, cbasn1.SEQUENCE) || !input.Empty() || !certificate.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return names, errNoCertificate
	}
	tbs.SkipOptionalASN1(contextGroup(0)) // version
	for _, tag := range []cbasn1.Tag{
		cbasn1.INTEGER, cbasn1.SEQUENCE, cbasn1.SEQUENCE, cbasn1.SEQUENCE, cbasn1.SEQUENCE, cbasn1.SEQUENCE,
	} { // serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
		if !tbs.ReadASN1(&rest, tag) {
			return names, errNoCertificate
		}
	}
	tbs.SkipOptionalASN1(contextTag(1)) // issuerUniqueID
	tbs.SkipOptionalASN1(contextTag(2)) // subjectUniqueID
	if !tbs.ReadOptionalASN1(&rest, &wrapped, contextGroup(3)) || wrapped && !rest.ReadASN1(&extensions, cbasn1.SEQUENCE) {
		return names, errNoCertificate
	}
	for !extensions.Empty() {
		if err := names.readExtension(&extensions); err != nil {
			return AltNames{}, err
		}
	}
	return names, nil
}

// readExtension takes the next extension off the list and keeps the names when it is subjectAltName (2.5.29.17).
func (n *AltNames) readExtension(list *cryptobyte.String) error {
	var one, oid, value, content cryptobyte.String
	if !list.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) ||
		!one.SkipOptionalASN1(cbasn1.BOOLEAN) || !one.ReadASN1(&value, cbasn1.OCTET_STRING) {
		return errNoCertificate
	}
	if string(oid) != "\x55\x1d\x11" {
		return nil
	}
	if !value.ReadASN1(&content, cbasn1.SEQUENCE) {
		return errNoCertificate
	}
	for !content.Empty() {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if !content.ReadAnyASN1(&name, &tag) {
			return errNoCertificate
		}
		n.add(tag, name)
	}
	return nil
}

func (n *AltNames) add(tag cbasn1.Tag, value []byte) {
	if tag == contextTag(7) {
		if addr, ok := netip.AddrFromSlice(value); ok {
			n.IPs = append(n.IPs, addr.Unmap())
		}
		return
	}
	text := string(value)
	if text == "" || !isIA5(text) {
		return
	}
	switch tag {
	case contextTag(1):
		n.Emails = append(n.Emails, text)
	case contextTag(2):
		n.DNS = append(n.DNS, text)
	case contextTag(TagURI):
		n.URIs = append(n.URIs, text)
	}
}
