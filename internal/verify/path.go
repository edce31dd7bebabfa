package verify

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"sekisho/internal/certpath"
	"sekisho/internal/identity"
	"sekisho/internal/trust"
)

// errNobody is why the nil or empty set refuses.
var errNobody = errors.New("the host trusts no CA for client certificates")

// findPaths looks for paths from the leaf to an anchor of set that its certificates may be used on. What it returns may
// be outside its validity at now, if there is nothing better: an expired certificate still has an issuer, and is named
// by it. Without a path it says why.
func findPaths(set *trust.Set, presented []*x509.Certificate, now time.Time) ([][]*x509.Certificate, identity.Reason, error) {
	if len(set.Groups()) == 0 {
		return nil, identity.Untrusted, errNobody
	}
	var valid, ended [][]*x509.Certificate
	reason, first := identity.Untrusted, error(nil)
	for i, group := range set.Groups() {
		options, err := optionsFor(group, now)
		if err != nil {
			return nil, identity.Malformed, err
		}
		paths, err := certpath.Build(presented[0], presented[1:], options)
		if err != nil {
			// Of several CAs, the one that has something to say beside "not mine" explains best.
			if r := reasonOf(err); i == 0 || reason == identity.Untrusted && r != identity.Untrusted {
				reason, first = r, err
			}
			continue
		}
		for _, path := range paths {
			if inside(path, now) {
				valid = append(valid, path)
			} else {
				ended = append(ended, path)
			}
		}
	}
	switch {
	case len(valid) > 0:
		return valid, identity.OK, nil
	case len(ended) > 0:
		return ended, identity.OK, nil
	}
	return nil, reason, first
}

// optionsFor is how paths of a group's CAs are validated. A policy that was checked has no object identifiers that
// cannot be read.
func optionsFor(g trust.Group, now time.Time) (certpath.Options, error) {
	o := certpath.Options{
		Anchors: g.Anchors, Intermediates: g.Intermediates, At: now, Purpose: certpath.Client,
		EKU: g.Policy.EKU, Allows: g.Policy.Allows, IgnoreValidity: true,
		RequireExplicitPolicy: len(g.Policy.AllowedPolicies) > 0,
	}
	for _, text := range g.Policy.AllowedPolicies {
		oid, err := x509.ParseOID(text)
		if err != nil {
			return o, fmt.Errorf("allowed_policies: %q is no object identifier: %w", text, err)
		}
		o.Policies = append(o.Policies, oid)
	}
	return o, nil
}

func inside(path []*x509.Certificate, now time.Time) bool {
	for _, c := range path {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return false
		}
	}
	return true
}

// reasonOf maps why there is no path to a reason of the closed set.
func reasonOf(err error) identity.Reason {
	failed, ok := errors.AsType[*certpath.Error](err)
	if !ok {
		return identity.TooComplex
	}
	switch failed.Reason {
	case certpath.WrongUsage:
		return identity.WrongUsage
	case certpath.WeakSignature:
		return identity.WeakSignature
	case certpath.Malformed:
		return identity.Malformed
	case certpath.TooComplex:
		return identity.TooComplex
	case certpath.Expired:
		return identity.Expired
	case certpath.NotYetValid:
		return identity.NotYetValid
	case certpath.Untrusted, certpath.BadSignature, certpath.WrongHost, certpath.NotACA, certpath.PathTooLong,
		certpath.NameConstraints, certpath.Policy:
	}
	return identity.Untrusted
}
