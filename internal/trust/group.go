package trust

import (
	"crypto/x509"
	"slices"
)

// Group is the trust anchors of a set whose CAs let the same paths pass: a path to any of them is looked for at once.
type Group struct {
	Policy        Policy // of the first of its CAs; path validation reads what they have in common
	Anchors       []*x509.Certificate
	Intermediates []*x509.Certificate // of the whole set
}

// groupsOf puts CAs together whose policies say the same about paths.
func groupsOf(cas []CA, intermediates []*x509.Certificate) []Group {
	var groups []Group
	for _, ca := range cas {
		at := slices.IndexFunc(groups, func(g Group) bool { return g.Policy.samePaths(ca.Policy) })
		if at < 0 {
			at = len(groups)
			groups = append(groups, Group{Policy: ca.Policy, Intermediates: intermediates})
		}
		groups[at].Anchors = append(groups[at].Anchors, ca.Anchors...)
	}
	return groups
}

// samePaths reports whether two policies let the same paths pass, revocation aside.
func (p Policy) samePaths(o Policy) bool {
	return (p.EKU == EKUIgnore) == (o.EKU == EKUIgnore) && slices.Equal(p.AllowAlgorithms, o.AllowAlgorithms) &&
		slices.Equal(p.DenyAlgorithms, o.DenyAlgorithms) && slices.Equal(p.AllowedPolicies, o.AllowedPolicies)
}
