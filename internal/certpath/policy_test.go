package certpath

import (
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sekisho/internal/testpki"
)

// policyCert is a certificate of a path that has policies alone; its names follow from its place.
type policyCert struct {
	policies   []int // 0 is anyPolicy
	mappings   [][2]int
	explicit   int // requireExplicitPolicy; -1: absent
	noMapping  int // inhibitPolicyMapping; -1: absent
	noAny      int // inhibitAnyPolicy; -1: absent
	selfIssued bool
}

// policyOID is one of a few policies.
func policyOID(n int) asn1.ObjectIdentifier {
	if n == 0 {
		return asn1.ObjectIdentifier{2, 5, 29, 32, 0}
	}
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, n}
}

// extensions encodes what the certificate says.
func (p policyCert) extensions(t testing.TB) []x509pkix.Extension {
	t.Helper()
	var out []x509pkix.Extension
	add := func(arc int, value any, params string) {
		der, err := asn1.MarshalWithParams(value, params)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x509pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, arc}, Critical: true, Value: der})
	}
	if len(p.policies) > 0 {
		type info struct{ OID asn1.ObjectIdentifier }
		var infos []info
		for _, n := range p.policies {
			infos = append(infos, info{policyOID(n)})
		}
		add(32, infos, "")
	}
	if len(p.mappings) > 0 {
		type pair struct{ Issuer, Subject asn1.ObjectIdentifier }
		var pairs []pair
		for _, m := range p.mappings {
			pairs = append(pairs, pair{policyOID(m[0]), policyOID(m[1])})
		}
		add(33, pairs, "")
	}
	if p.explicit >= 0 || p.noMapping >= 0 {
		add(36, struct {
			Explicit  int `asn1:"optional,tag:0,default:-1"`
			NoMapping int `asn1:"optional,tag:1,default:-1"`
		}{p.explicit, p.noMapping}, "")
	}
	if p.noAny >= 0 {
		add(54, p.noAny, "")
	}
	return out
}

// policyPath issues the certificates, the one below the anchor first, and returns the path.
func policyPath(t testing.TB, certs []policyCert) Path {
	t.Helper()
	ca := testpki.NewCA(t, testpki.Name("anchor"))
	path := Path{ca.Cert}
	for i, p := range certs {
		extend := testpki.Edit(func(c *x509.Certificate) { c.ExtraExtensions = p.extensions(t) })
		if i == len(certs)-1 {
			path = append(path, ca.Client("leaf", extend).Cert)
			break
		}
		name := fmt.Sprint("ca ", i)
		if p.selfIssued {
			name = ca.Cert.Subject.CommonName
		}
		ca = ca.Intermediate(name, extend)
		path = append(path, ca.Cert)
	}
	slices.Reverse(path)
	return path
}

// naive is RFC 5280's policy processing on a tree of nodes, word for word, with pruning: the reference for small paths.
// It grows exponentially, which is why the product does not do it.
type naive struct {
	policy   int
	expected []int
	children []*naive
}

// atDepth collects the nodes of a depth.
func (n *naive) atDepth(depth int, f func(parent, node *naive)) {
	n.visit(nil, 0, depth, f)
}

func (n *naive) visit(parent *naive, depth, want int, f func(parent, node *naive)) {
	if depth == want {
		f(parent, n)
		return
	}
	for _, c := range slices.Clone(n.children) {
		c.visit(n, depth+1, want, f)
	}
}

// prune deletes nodes above depth without children, and reports whether the node itself is left.
func (n *naive) prune(depth int) bool {
	if depth == 0 {
		return true
	}
	n.children = slices.DeleteFunc(n.children, func(c *naive) bool { return !c.prune(depth - 1) })
	return len(n.children) > 0
}

// naiveValid processes a path of certificates, the one below the anchor first.
func naiveValid(certs []policyCert, user []int, requireExplicit, inhibitMapping, inhibitAny bool) bool {
	n := len(certs)
	start := func(now bool) int {
		if now {
			return 0
		}
		return n + 1
	}
	explicit, mapping, anyLeft := start(requireExplicit), start(inhibitMapping), start(inhibitAny)
	tree := &naive{policy: 0, expected: []int{0}}
	for i, c := range certs {
		depth := i + 1
		if len(c.policies) == 0 {
			tree = nil
		}
		if tree != nil {
			naiveGrow(tree, c, depth, anyLeft > 0 || depth < n && c.selfIssued)
			if !tree.prune(depth) {
				tree = nil
			}
		}
		if explicit == 0 && tree == nil {
			return false
		}
		if depth == n {
			if explicit = max(explicit-1, 0); c.explicit == 0 {
				explicit = 0
			}
			return explicit > 0 || naiveAccepts(tree, depth, user)
		}
		if slices.ContainsFunc(c.mappings, func(m [2]int) bool { return m[0] == 0 || m[1] == 0 }) {
			return false
		}
		if tree != nil && !naiveMap(tree, c, depth, mapping > 0) {
			tree = nil
		}
		if !c.selfIssued {
			explicit, mapping, anyLeft = max(explicit-1, 0), max(mapping-1, 0), max(anyLeft-1, 0)
		}
		for _, limit := range []struct {
			left *int
			to   int
		}{{&explicit, c.explicit}, {&mapping, c.noMapping}, {&anyLeft, c.noAny}} {
			if limit.to >= 0 {
				*limit.left = min(*limit.left, limit.to)
			}
		}
	}
	return true
}

// naiveGrow is 6.1.3 (d)(1) and (2).
func naiveGrow(tree *naive, c policyCert, depth int, anyCounts bool) {
	for _, p := range c.policies {
		if p == 0 {
			continue
		}
		matched := false
		tree.atDepth(depth-1, func(_, node *naive) {
			if slices.Contains(node.expected, p) {
				node.children = append(node.children, &naive{policy: p, expected: []int{p}})
				matched = true
			}
		})
		if !matched {
			tree.atDepth(depth-1, func(_, node *naive) {
				if node.policy == 0 {
					node.children = append(node.children, &naive{policy: p, expected: []int{p}})
				}
			})
		}
	}
	if !slices.Contains(c.policies, 0) || !anyCounts {
		return
	}
	tree.atDepth(depth-1, func(_, node *naive) {
		for _, e := range node.expected {
			if !slices.ContainsFunc(node.children, func(c *naive) bool { return c.policy == e }) {
				node.children = append(node.children, &naive{policy: e, expected: []int{e}})
			}
		}
	})
}

// naiveMap is 6.1.4 (b); false when no tree is left.
func naiveMap(tree *naive, c policyCert, depth int, allowed bool) bool {
	to := map[int][]int{}
	for _, m := range c.mappings {
		to[m[0]] = append(to[m[0]], m[1])
	}
	for from, subjects := range to {
		if !allowed {
			tree.atDepth(depth-1, func(_, node *naive) {
				node.children = slices.DeleteFunc(node.children, func(c *naive) bool { return c.policy == from })
			})
			continue
		}
		found := false
		tree.atDepth(depth, func(_, node *naive) {
			if node.policy == from {
				node.expected, found = subjects, true
			}
		})
		if found {
			continue
		}
		tree.atDepth(depth-1, func(_, node *naive) {
			if node.policy == 0 && slices.ContainsFunc(node.children, func(c *naive) bool { return c.policy == 0 }) {
				node.children = append(node.children, &naive{policy: from, expected: subjects})
			}
		})
	}
	return tree.prune(depth)
}

// naiveAccepts is 6.1.5 (g).
func naiveAccepts(tree *naive, depth int, user []int) bool {
	if tree == nil {
		return false
	}
	if len(user) == 0 {
		return true
	}
	valid := false
	for d := 1; d <= depth; d++ {
		tree.atDepth(d, func(parent, node *naive) {
			if parent.policy == 0 && node.policy != 0 && slices.Contains(user, node.policy) && node.prune(depth-d) {
				valid = true
			}
		})
	}
	tree.atDepth(depth, func(_, node *naive) { valid = valid || node.policy == 0 })
	return valid
}

// TestPoliciesAgree compares random small paths with the tree of RFC 5280, which RFC 9618 promises to agree with.
func TestPoliciesAgree(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 300
	}
	random := rand.New(rand.NewPCG(1, 2))
	absent := func(n int) int { return max(random.IntN(n+6)-6, -1) } // mostly absent
	accepted := 0
	for round := range rounds {
		certs := make([]policyCert, 1+random.IntN(4))
		for i := range certs {
			c := policyCert{explicit: absent(3), noMapping: absent(3), noAny: absent(3)}
			for n := range 5 {
				if random.IntN(5) < 3 {
					c.policies = append(c.policies, n)
				}
			}
			for range random.IntN(4) {
				if m := [2]int{1 + random.IntN(4), 1 + random.IntN(4)}; i < len(certs)-1 && !slices.Contains(c.mappings, m) {
					c.mappings = append(c.mappings, m)
				}
			}
			c.selfIssued = i > 0 && i < len(certs)-1 && random.IntN(4) == 0
			certs[i] = c
		}
		var user []int
		for n := 1; n < 5; n++ {
			if random.IntN(3) == 0 {
				user = append(user, n)
			}
		}
		path := policyPath(t, certs)
		o := Options{
			Anchors: path[len(path)-1:], At: time.Now(), RequireExplicitPolicy: random.IntN(2) == 0,
			InhibitPolicyMapping: random.IntN(6) == 0, InhibitAnyPolicy: random.IntN(6) == 0,
		}
		for _, n := range user {
			oid, err := x509.ParseOID(policyOID(n).String())
			if err != nil {
				t.Fatal(err)
			}
			o.Policies = append(o.Policies, oid)
		}
		want := naiveValid(certs, user, o.RequireExplicitPolicy, o.InhibitPolicyMapping, o.InhibitAnyPolicy)
		err := Validate(path, o)
		if (err == nil) != want || err != nil && reasonOf(t, err) != Policy {
			t.Fatalf("round %d: %v, want valid %v: %+v, accepted %v, %+v", round, err, want, certs, user, o)
		}
		if want {
			accepted++
		}
	}
	t.Logf("%d of %d random paths are valid", accepted, rounds)
	if accepted < rounds/5 || accepted > rounds*4/5 {
		t.Error("the paths do not tell much")
	}
}

// With a tree this path has 2^n nodes at depth n; each CA maps two policies to both of the next (RFC 9618, Section 1).
func TestPoliciesDoNotExplode(t *testing.T) {
	absent := policyCert{explicit: -1, noMapping: -1, noAny: -1}
	var certs []policyCert
	for range 40 {
		c := absent
		for n := 1; n <= 8; n++ {
			c.policies = append(c.policies, n)
			for m := 1; m <= 8; m++ {
				c.mappings = append(c.mappings, [2]int{n, m})
			}
		}
		certs = append(certs, c)
	}
	path := policyPath(t, append(certs, policyCert{policies: []int{1}, explicit: -1, noMapping: -1, noAny: -1}))
	start := time.Now()
	o := Options{Anchors: path[len(path)-1:], At: start, RequireExplicitPolicy: true, MaxDepth: 100}
	if err := Validate(path, o); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}

	wide := absent
	for n := 1; n <= 400; n++ {
		wide.policies = append(wide.policies, n)
		for m := range 20 {
			wide.mappings = append(wide.mappings, [2]int{n, 1 + (n*7+m)%400})
		}
	}
	path = policyPath(t, []policyCert{wide, wide, wide, wide, wide})
	o.Anchors = path[len(path)-1:]
	start = time.Now()
	if err := Validate(path, o); reasonOf(t, err) != TooComplex {
		t.Errorf("400 policies, 8,000 mappings: %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

// What crypto/x509 takes for policies and we do not, whether a policy is demanded or not.
func TestMalformedPolicies(t *testing.T) {
	ca := testpki.NewCA(t)
	const mappings, policies, inhibitAny = 33, 32, 54
	anyPolicies := []byte{0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0}
	for _, tc := range []struct {
		name  string
		arc   int
		value []byte
		want  Reason
	}{
		{"mapping from anyPolicy", mappings, []byte{0x30, 12, 0x30, 10, 6, 4, 0x55, 0x1d, 0x20, 0, 6, 2, 0x2a, 3}, Policy},
		{"mapping to anyPolicy", mappings, []byte{0x30, 12, 0x30, 10, 6, 2, 0x2a, 3, 6, 4, 0x55, 0x1d, 0x20, 0}, Policy},
		{"no mappings", mappings, []byte{0x30, 0}, Malformed},
		{"bytes after a mapping", mappings, []byte{0x30, 12, 0x30, 10, 6, 2, 0x2a, 3, 6, 2, 0x2a, 4, 5, 0}, Malformed},
		{"inhibitAnyPolicy -1", inhibitAny, []byte{2, 1, 0xff}, Malformed},
	} {
		sub := ca.Intermediate("sub", edit(func(c *x509.Certificate) {
			for arc, value := range map[int][]byte{tc.arc: tc.value, policies: anyPolicies} {
				c.ExtraExtensions = append(c.ExtraExtensions, x509pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, arc}, Critical: true, Value: value})
			}
		}))
		leaf := sub.Client("x", extension(asn1.ObjectIdentifier{2, 5, 29, policies}, true, anyPolicies))
		for _, demand := range []bool{false, true} {
			o := Options{Anchors: []*x509.Certificate{ca.Cert}, At: time.Now(), RequireExplicitPolicy: demand}
			if _, err := Build(leaf.Cert, leaf.Chain, o); reasonOf(t, err) != tc.want {
				t.Errorf("%s, policy demanded %v: %v, want %q", tc.name, demand, err, tc.want)
			}
		}
	}
}

func FuzzReadPolicies(f *testing.F) {
	f.Add([]byte{0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0})
	f.Add([]byte{0x30, 12, 0x30, 10, 6, 4, 0x55, 0x1d, 0x20, 0, 6, 2, 0x2a, 3})
	f.Fuzz(func(t *testing.T, der []byte) {
		if policies, err := readPolicies(der); err == nil && len(policies) == 0 {
			t.Error("no policies and no error")
		}
		if mappings, err := readMappings(der); err == nil {
			for _, m := range mappings {
				if m.issuer == anyPolicy || m.subject == anyPolicy {
					t.Error("anyPolicy is mapped")
				}
			}
		}
	})
}
