package crl

import (
	"bytes"
	"crypto/x509"
	"slices"
	"strings"

	"sekisho/internal/pkix"
)

// Covers says which reasons of revocation of a certificate the list speaks of, by RFC 5280, Section 6.3.3 (b) and (d):
// whose list it is, its issuing distribution point against the distribution points of the certificate, and the kinds of
// certificates it is limited to. Several lists may have to be asked until all reasons are covered. As the end of the
// section has it, a list of the certificate's own issuer is also taken as if the certificate had a distribution point
// that is named after the issuer; so one without distribution points is covered by any list of its issuer that has no
// name in its issuing distribution point.
func (l *List) Covers(cert *x509.Certificate, points []pkix.DistributionPoint, isCA bool) (pkix.ReasonFlags, bool) {
	p := l.base
	listed := pkix.AllReasons
	if idp := p.idp; idp != nil {
		if idp.OnlyUser && isCA || idp.OnlyCA && !isCA || idp.OnlyAttribute { // (b) (2) (ii) to (iv)
			return 0, false
		}
		if idp.OnlySomeReasons != 0 {
			listed = idp.OnlySomeReasons
		}
	}
	if l.IsDelta() {
		return 0, false
	}
	own := pkix.SameName(p.name, cert.RawIssuer)
	var reasons pkix.ReasonFlags
	for i := range points {
		point := &points[i]
		issued := own
		if len(point.CRLIssuer) > 0 { // (b) (1)
			issued = p.indirect() && slices.ContainsFunc(point.CRLIssuer, func(name []byte) bool { return pkix.SameName(name, p.name) })
		}
		if issued && p.meets(point, cert.RawIssuer) {
			if point.Reasons != 0 { // (d)
				reasons |= listed & point.Reasons
			} else {
				reasons |= listed
			}
		}
	}
	if own && (len(p.scope) == 0 || p.scopeHas(directoryName(cert.RawIssuer))) {
		reasons |= listed
	}
	return reasons, reasons != 0
}

// meets reports whether the list is the one at a distribution point: (b) (2) (i).
func (p *part) meets(point *pkix.DistributionPoint, certIssuer []byte) bool {
	switch {
	case len(p.scope) == 0:
		return true
	case len(point.FullName) > 0:
		return slices.ContainsFunc(point.FullName, p.scopeHas)
	case point.Relative != nil: // Section 4.2.1.13: relative to the CRL issuer, which is the certificate's unless named
		name := certIssuer
		if len(point.CRLIssuer) > 0 {
			name = point.CRLIssuer[0]
		}
		return p.scopeHas(directoryName(pkix.AppendRDN(name, point.Relative)))
	}
	return slices.ContainsFunc(point.CRLIssuer, func(name []byte) bool { return p.scopeHas(directoryName(name)) })
}

func directoryName(raw []byte) pkix.GeneralName {
	return pkix.GeneralName{Tag: pkix.TagDirectoryName, Name: raw}
}

// scopeHas reports whether the issuing distribution point has the name.
func (p *part) scopeHas(name pkix.GeneralName) bool {
	for i := range p.scope {
		if sameGeneralName(p.scope[i], name) {
			return true
		}
	}
	return false
}

func sameGeneralName(a, b pkix.GeneralName) bool {
	switch {
	case a.Tag != b.Tag:
		return false
	case a.Tag == pkix.TagDirectoryName:
		return pkix.SameName(a.Name, b.Name)
	case a.Tag == pkix.TagURI:
		return sameURI(a.URI, b.URI)
	}
	return bytes.Equal(a.Raw, b.Raw)
}

// sameURI: RFC 5280, Section 7.4: scheme and host without regard to case, the rest octet by octet.
func sameURI(a, b string) bool {
	if a == b {
		return true
	}
	i, j := authorityEnd(a), authorityEnd(b)
	return strings.EqualFold(a[:i], b[:j]) && a[i:] == b[j:]
}

// authorityEnd is where the path of a URI begins; 0 if it has no authority.
func authorityEnd(uri string) int {
	_, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return 0
	}
	start := len(uri) - len(rest)
	if n := strings.IndexAny(rest, "/?#"); n >= 0 {
		return start + n
	}
	return len(uri)
}
