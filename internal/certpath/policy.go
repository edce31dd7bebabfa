package certpath

import (
	"crypto/x509"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// maxPolicyWork bounds the steps of policy processing for one path. A path of ten certificates with a hundred policies
// each, all mapped, needs about a tenth.
const maxPolicyWork = 50_000

// anyPolicy is the content of the object identifier 2.5.29.32.0.
const anyPolicy = "\x55\x1d\x20\x00"

// Errors without a detail.
var (
	errPolicies    = errors.New("its certificate policies or policy mappings cannot be read")
	errMapsAny     = errors.New("its policy mappings map anyPolicy, which RFC 5280, Section 6.1.4 (a) forbids")
	errNoPolicy    = errors.New("an explicit policy is required and the path is valid for none that is acceptable")
	errPolicyWork  = errors.New("its policies need more steps than are spent on a path")
	errPolicyUsage = errors.New("an accepted policy is no object identifier")
)

// policyNode is a node of the deepest level of the valid policy graph. Of the levels above only one thing is ever asked
// again: which nodes of the valid_policy_node_set, those right below anyPolicy (RFC 9618, Section 5.4, (g)(3)), lead
// here. So each node carries their policies along, and levels above need not be kept or pruned.
type policyNode struct {
	expected []string            // expected_policy_set
	roots    map[string]struct{} // policies of the trust anchor's domain that this one comes from; anyPolicy's is itself
}

// policyState is the state of RFC 5280, Section 6.1.2, as RFC 9618 amends it.
type policyState struct {
	level    map[string]policyNode // by valid_policy; empty stands for NULL
	explicit int                   // certificates until a policy is required
	mapping  int                   // until mappings no longer count
	any      int                   // until anyPolicy no longer counts
	work     int
}

// checkPolicies processes certificate policies from the anchor down.
func (s *search) checkPolicies(path []step) *Error {
	n := len(path) - 1
	if n == 0 || !s.needsPolicies(path) {
		return checkMappings(path)
	}
	st := policyState{explicit: n + 1, mapping: n + 1, any: n + 1, work: maxPolicyWork}
	st.level = map[string]policyNode{anyPolicy: {[]string{anyPolicy}, map[string]struct{}{anyPolicy: {}}}}
	if s.o.RequireExplicitPolicy {
		st.explicit = 0
	}
	if s.o.InhibitPolicyMapping {
		st.mapping = 0
	}
	if s.o.InhibitAnyPolicy {
		st.any = 0
	}
	for i := n - 1; i >= 0; i-- {
		node := path[i].node
		err := st.descend(node, i == 0)
		if err == nil && i > 0 {
			err = st.prepare(node)
		}
		if err != nil {
			return s.policyError(err, node.cert, i)
		}
	}
	if err := st.conclude(path[0].node.cert, s.o.Policies); err != nil {
		return s.policyError(err, path[0].node.cert, 0)
	}
	return nil
}

func (s *search) policyError(err error, c *x509.Certificate, index int) *Error {
	switch {
	case errors.Is(err, errPolicyWork):
		s.spent = &Error{TooComplex, c, index, err}
		return s.spent
	case errors.Is(err, errPolicies):
		return &Error{Malformed, c, index, err}
	}
	return &Error{Policy, c, index, err}
}

// needsPolicies reports whether the outcome can depend on policies: explicit_policy begins above the number of
// certificates, so it reaches 0 only where the caller or a certificate sets it.
func (s *search) needsPolicies(path []step) bool {
	return s.o.RequireExplicitPolicy || slices.ContainsFunc(path[:len(path)-1], func(p step) bool {
		return p.node.cert.RequireExplicitPolicy > 0 || p.node.cert.RequireExplicitPolicyZero
	})
}

// checkMappings refuses mappings of anyPolicy on a path whose policies do not matter otherwise.
func checkMappings(path []step) *Error {
	for i := 1; i < len(path)-1; i++ {
		if n := path[i].node; n.facts.mappings != nil {
			if _, err := readMappings(n.facts.mappings); errors.Is(err, errPolicies) {
				return &Error{Malformed, n.cert, i, err}
			} else if err != nil {
				return &Error{Policy, n.cert, i, err}
			}
		}
	}
	return nil
}

// descend makes the next level from the certificate's policies: RFC 5280, Section 6.1.3 (d), (e), (f).
func (st *policyState) descend(n *node, last bool) error {
	var next map[string]policyNode
	if n.facts.hasPolicies && len(st.level) > 0 {
		policies, err := readPolicies(n.facts.policies)
		if err != nil {
			return err
		}
		next = map[string]policyNode{}
		parents := st.byExpected()
		wild := false
		for _, p := range policies {
			if p == anyPolicy {
				wild = true
				continue
			}
			if from := parents[p]; len(from) > 0 { // (d)(1)(i)
				next[p] = st.child(p, from)
			} else if _, ok := st.level[anyPolicy]; ok { // (d)(1)(ii)
				next[p] = rootNode(p)
			}
		}
		if wild && (st.any > 0 || !last && selfIssued(n.cert)) { // (d)(2)
			for p, from := range parents {
				if _, ok := next[p]; !ok {
					next[p] = st.child(p, from)
				}
			}
		}
	}
	st.level = next
	switch {
	case st.work < 0:
		return errPolicyWork
	case st.explicit == 0 && len(st.level) == 0:
		return errNoPolicy
	}
	return nil
}

// byExpected finds the nodes of the level that expect a policy.
func (st *policyState) byExpected() map[string][]policyNode {
	parents := map[string][]policyNode{}
	for _, node := range st.level {
		for _, p := range node.expected {
			if st.work--; st.work < 0 {
				return nil
			}
			parents[p] = append(parents[p], node)
		}
	}
	return parents
}

// rootNode is a node right below anyPolicy.
func rootNode(policy string) policyNode {
	return policyNode{[]string{policy}, map[string]struct{}{policy: {}}}
}

// child is a node below the given ones.
func (st *policyState) child(policy string, parents []policyNode) policyNode {
	if len(parents) == 1 { // a set is never changed once it is made
		return policyNode{[]string{policy}, parents[0].roots}
	}
	roots := map[string]struct{}{}
	for _, parent := range parents {
		for root := range parent.roots {
			if st.work--; st.work < 0 {
				break
			}
			roots[root] = struct{}{}
		}
	}
	return policyNode{[]string{policy}, roots}
}

// prepare applies mappings and constraints of a CA certificate: RFC 5280, Section 6.1.4 (a), (b), (h) to (j).
func (st *policyState) prepare(n *node) error {
	c := n.cert
	if n.facts.mappings != nil {
		if err := st.mapPolicies(n.facts.mappings); err != nil {
			return err
		}
	}
	if !selfIssued(c) {
		st.explicit, st.mapping, st.any = max(st.explicit-1, 0), max(st.mapping-1, 0), max(st.any-1, 0)
	}
	if c.RequireExplicitPolicy > 0 || c.RequireExplicitPolicyZero {
		st.explicit = min(st.explicit, c.RequireExplicitPolicy)
	}
	if c.InhibitPolicyMapping > 0 || c.InhibitPolicyMappingZero {
		st.mapping = min(st.mapping, c.InhibitPolicyMapping)
	}
	if c.InhibitAnyPolicy > 0 || c.InhibitAnyPolicyZero {
		st.any = min(st.any, c.InhibitAnyPolicy)
	}
	return nil
}

// mapPolicies applies policy mappings to the level: RFC 5280, Section 6.1.4 (b).
func (st *policyState) mapPolicies(der []byte) error {
	mappings, err := readMappings(der)
	if err != nil || len(st.level) == 0 {
		return err
	}
	if st.mapping == 0 {
		for _, m := range mappings {
			delete(st.level, m.issuer)
		}
		return nil
	}
	expected := map[string][]string{}
	for _, m := range mappings {
		expected[m.issuer] = append(expected[m.issuer], m.subject)
	}
	_, wild := st.level[anyPolicy]
	for issuer, subjects := range expected {
		node, ok := st.level[issuer]
		switch {
		case ok:
			node.expected = subjects
		case wild:
			node = rootNode(issuer)
			node.expected = subjects
		default:
			continue
		}
		st.level[issuer] = node
	}
	return nil
}

// conclude decides at the end of the path: RFC 5280, Section 6.1.5 (a), (b), (g).
func (st *policyState) conclude(leaf *x509.Certificate, accepted []x509.OID) error {
	if st.explicit = max(st.explicit-1, 0); leaf.RequireExplicitPolicyZero {
		st.explicit = 0
	}
	if st.explicit > 0 {
		return nil
	}
	valid := map[string]struct{}{} // authority-constrained-policy-set
	for _, node := range st.level {
		for root := range node.roots {
			valid[root] = struct{}{}
		}
	}
	_, wild := valid[anyPolicy]
	for _, oid := range accepted {
		p, err := contentOf(oid)
		if err != nil {
			return err
		}
		if _, ok := valid[p]; ok || wild || p == anyPolicy && len(valid) > 0 {
			return nil
		}
	}
	if len(accepted) == 0 && len(valid) > 0 {
		return nil
	}
	return errNoPolicy
}

// contentOf is the content octets of an object identifier.
func contentOf(oid x509.OID) (string, error) {
	der, err := oid.MarshalBinary()
	if err != nil || len(der) == 0 {
		return "", errPolicyUsage
	}
	return string(der), nil
}

// readPolicies reads CertificatePolicies (RFC 5280, Section 4.2.1.4), without the qualifiers.
func readPolicies(der []byte) ([]string, error) {
	input := cryptobyte.String(der)
	var list cryptobyte.String
	if !input.ReadASN1(&list, asn1.SEQUENCE) || !input.Empty() || list.Empty() {
		return nil, errPolicies
	}
	var policies []string
	for !list.Empty() {
		var info, oid cryptobyte.String
		if !list.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
			return nil, errPolicies
		}
		policies = append(policies, string(oid))
	}
	return policies, nil
}

// policyMapping says that subject's policy stands for issuer's.
type policyMapping struct{ issuer, subject string }

// readMappings reads PolicyMappings (RFC 5280, Section 4.2.1.5).
func readMappings(der []byte) ([]policyMapping, error) {
	input := cryptobyte.String(der)
	var list cryptobyte.String
	if !input.ReadASN1(&list, asn1.SEQUENCE) || !input.Empty() || list.Empty() {
		return nil, errPolicies
	}
	var mappings []policyMapping
	for !list.Empty() {
		var pair, issuer, subject cryptobyte.String
		if !list.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1(&issuer, asn1.OBJECT_IDENTIFIER) ||
			!pair.ReadASN1(&subject, asn1.OBJECT_IDENTIFIER) || !pair.Empty() {
			return nil, errPolicies
		}
		if string(issuer) == anyPolicy || string(subject) == anyPolicy {
			return nil, errMapsAny
		}
		mappings = append(mappings, policyMapping{string(issuer), string(subject)})
	}
	return mappings, nil
}
