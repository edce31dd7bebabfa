package verify

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/trust"
)

// errNobody is why the nil or empty set refuses.
var errNobody = errors.New("the host trusts no CA for client certificates")

// errKeyUsage refuses a key that its certificate does not let authenticate a client (RFC 5280, Section 4.2.1.12: with
// clientAuth, digitalSignature or keyAgreement is consistent; both extensions are to be obeyed). openssl does the same.
var errKeyUsage = errors.New("key usage allows neither digitalSignature nor keyAgreement, which client authentication needs")

// findPaths looks for paths from the leaf to an anchor of set that its certificates may be used on. Without one it says
// why.
func findPaths(set *trust.Set, presented []*x509.Certificate, now time.Time) ([][]*x509.Certificate, identity.Reason, error) {
	paths, reason, err := buildPaths(set, presented, now)
	const signs = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement
	if usage := presented[0].KeyUsage; len(paths) > 0 && usage != 0 && usage&signs == 0 {
		return nil, identity.WrongUsage, errKeyUsage
	}
	return paths, reason, err
}

// buildPaths looks for paths from the leaf to an anchor of set. What it returns may be outside its validity at now: an
// expired certificate still has an issuer, and is named by it. Without a path it says why.
func buildPaths(set *trust.Set, presented []*x509.Certificate, now time.Time) ([][]*x509.Certificate, identity.Reason, error) {
	if set.Roots() == nil || len(set.CAs()) == 0 {
		return nil, identity.Untrusted, errNobody
	}
	opts := x509.VerifyOptions{
		Roots:         set.Roots(),
		Intermediates: intermediates(set, presented),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	chains, err := presented[0].Verify(opts)
	if err == nil {
		return chains, identity.OK, nil
	}
	reason := reasonOf(err)
	if reason != identity.Untrusted && reason != identity.Expired {
		return nil, reason, err
	}
	for _, at := range otherTimes(set, presented, now) {
		opts.CurrentTime = at
		if chains, otherErr := presented[0].Verify(opts); otherErr == nil {
			return chains, identity.OK, nil
		} else if r := reasonOf(otherErr); r != identity.Untrusted && r != identity.Expired {
			return nil, r, otherErr
		}
	}
	if reason == identity.Expired {
		// No path at any time: that nobody vouches for it is the graver news.
		return nil, identity.Untrusted, err
	}
	return nil, reason, err
}

// intermediates is the pool of what the client sent and what the set knows; nil when that is nothing.
func intermediates(set *trust.Set, presented []*x509.Certificate) *x509.CertPool {
	if len(presented) == 1 && len(set.Intermediates()) == 0 {
		return nil
	}
	pool := x509.NewCertPool()
	for _, c := range presented[1:] {
		pool.AddCert(c)
	}
	for _, c := range set.Intermediates() {
		pool.AddCert(c)
	}
	return pool
}

// otherTimes are at most two moments at which a path that is not valid now may have been, or may become, valid:
// one when everything that can be part of it is valid, and one when at least the leaf is.
func otherTimes(set *trust.Set, presented []*x509.Certificate, now time.Time) []time.Time {
	all := slices.Clone(presented)
	for _, ca := range set.CAs() {
		for _, c := range slices.Concat(ca.Anchors, ca.Intermediates) {
			if slices.ContainsFunc(presented, func(p *x509.Certificate) bool { return bytes.Equal(p.RawIssuer, c.RawSubject) }) {
				all = append(all, c)
			}
		}
	}
	var times []time.Time
	for _, certs := range [][]*x509.Certificate{all, presented[:1]} {
		if at, ok := nearest(certs, now); ok && !at.Equal(now) && !slices.ContainsFunc(times, at.Equal) {
			times = append(times, at)
		}
	}
	return times
}

// nearest is the moment nearest to now at which all the certificates are valid.
func nearest(certs []*x509.Certificate, now time.Time) (time.Time, bool) {
	from, to := certs[0].NotBefore, certs[0].NotAfter
	for _, c := range certs[1:] {
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(to) {
			to = c.NotAfter
		}
	}
	switch {
	case to.Before(from):
		return time.Time{}, false
	case now.Before(from):
		return from, true
	case now.After(to):
		return to, true
	}
	return now, true
}

// reasonOf maps what crypto/x509 said to a reason of the closed set. Expired is said of either end of a validity period;
// the two are told apart once a path is known.
func reasonOf(err error) identity.Reason {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return identity.Untrusted
	}
	if _, ok := errors.AsType[x509.UnhandledCriticalExtension](err); ok {
		return identity.Malformed
	}
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok {
		// What is left is the limit on signature checks, which has no type of its own.
		return identity.TooComplex
	}
	switch invalid.Reason {
	case x509.Expired:
		return identity.Expired
	case x509.IncompatibleUsage, x509.CANotAuthorizedForExtKeyUsage:
		return identity.WrongUsage
	case x509.TooManyConstraints:
		return identity.TooComplex
	}
	return identity.Untrusted // no CA, path too long, or outside the CA's name constraints
}
