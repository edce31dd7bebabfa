package pkix

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
)

// ParseAnyCertificate reads a certificate in DER as x509.ParseCertificate
// does, and those too that it refuses for nothing but distribution points
// which are allowed (RFC 5280, Section 4.2.1.13): a name relative to the CRL's
// issuer, or a CRL issuer alone. Of such a certificate everything but that
// extension is crypto/x509's reading; Raw, RawTBSCertificate and Extensions
// are the original's, so that signatures are checked over what was signed and
// CertificateDistributionPoints reads what is there.
func ParseAnyCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxCertificateBytes {
		return nil, fmt.Errorf("certificate: %d bytes; at most %d are read", len(der), MaxCertificateBytes)
	}
	cert, refusal := x509.ParseCertificate(der)
	if refusal == nil {
		return cert, nil
	}
	refusal = fmt.Errorf("certificate: %w", refusal)
	tbs, oid, ok := findDistributionPoints(der)
	if !ok {
		return nil, refusal
	}
	// 2.5.29.127 is assigned to nothing, so crypto/x509 passes over it. No length changes.
	aside := asn1.ObjectIdentifier{2, 5, 29, 127}
	renamed := bytes.Clone(der)
	renamed[oid+2] = 127
	cert, err := x509.ParseCertificate(renamed)
	if err != nil {
		return nil, refusal
	}
	for i, e := range cert.Extensions {
		if e.Id.Equal(aside) {
			cert.Extensions[i].Id = oidCRLDistributionPoints()
		}
	}
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, aside.Equal)
	cert.Raw, cert.RawTBSCertificate = der, der[tbs.from:tbs.to]
	cdp, _, err := CertificateDistributionPoints(cert)
	if err != nil {
		return nil, err
	}
	for _, point := range cdp { // as crypto/x509 does
		for _, n := range point.FullName {
			if n.Tag == TagURI {
				cert.CRLDistributionPoints = append(cert.CRLDistributionPoints, n.URI)
			}
		}
	}
	return cert, nil
}

// span is a part of a larger text.
type span struct{ from, to int }

// findDistributionPoints finds TBSCertificate and the content octets of the
// object identifier of the first cRLDistributionPoints extension; ok is false
// without one. A second one, or a 2.5.29.127, is refused by crypto/x509 as a
// duplicate.
func findDistributionPoints(der []byte) (tbs span, oid int, ok bool) {
	tbs.from, tbs.to, ok = derElement(der, 0, 0x30)
	if !ok {
		return tbs, 0, false
	}
	fields, end, ok := derElement(der[:tbs.to], tbs.from, 0x30)
	if !ok {
		return tbs, 0, false
	}
	tbs.to = end
	const extensions = 0xa3 // [3], the last field
	for ok && fields < end && der[fields] != extensions {
		_, fields, ok = derElement(der[:end], fields, der[fields])
	}
	if !ok {
		return tbs, 0, false
	}
	list, end, ok := derElement(der[:end], fields, extensions)
	if !ok {
		return tbs, 0, false
	}
	at, end, ok := derElement(der[:end], list, 0x30)
	for ok && at < end {
		var ext, next, id, idEnd int
		if ext, next, ok = derElement(der[:end], at, 0x30); !ok {
			break
		}
		if id, idEnd, ok = derElement(der[:next], ext, 0x06); ok && string(der[id:idEnd]) == ceDistributionPoints {
			return tbs, id, true
		}
		at = next
	}
	return tbs, 0, false
}
