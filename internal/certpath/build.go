package certpath

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"sekisho/internal/pkix"
)

// Errors without a detail.
var (
	errEmptyPath = errors.New("the path is empty")
	errNotParsed = errors.New("a certificate is missing or was not parsed")
	errNameChain = errors.New("its issuer's name is not the subject of the next certificate")
	errNoAnchor  = errors.New("it is no trust anchor")
	errNoIssuer  = errors.New("no trusted CA issued it, nor any CA that leads to one")
	errSteps     = errors.New("more paths than are tried lead from it")
	errBudget    = errors.New("its paths need more signature checks than the budget allows")
)

// search is the work on one leaf.
type search struct {
	o         Options
	presented []*x509.Certificate
	leaf      *node
	nodes     []*node // reached by name from the leaf, in order of distance
	checks    int     // signature checks left
	names     int     // comparisons of names with constraints left
	steps     int     // left in this pass
	mode      mode

	paths    []Path
	spent    *Error // a budget ran out
	unsigned *Error // the first bad or weak signature
	refused  *Error // why the first path with good signatures is not valid
}

// mode is what a pass of the search leaves out early.
type mode int

const (
	strict   mode = iota // whatever is not valid
	undated              // the same, but validity does not matter
	diagnose             // nothing: the first path with good signatures says what is wrong
)

// node is a certificate with what was found out about it.
type node struct {
	cert     *x509.Certificate
	anchor   bool
	distance int // certificates from here to the nearest anchor, by name; negative: none
	issuers  []edge
	facts    facts
	names    []name // of the subject and its alternative names, once a constraint asked
	named    bool
	passed   []*node // CAs whose constraints the names are known to meet
}

// edge leads from a certificate to one that may have issued it.
type edge struct {
	to      *node
	rank    int
	checked bool // the signature was checked
	bad     bool // and is not good
}

// step is a node of a path and the edge that leads to it.
type step struct {
	node *node
	edge *edge
}

func newNode(c *x509.Certificate) *node { return &node{cert: c, distance: -1, facts: factsOf(c)} }

func newSearch(leaf *x509.Certificate, presented []*x509.Certificate, o Options) *search {
	o = o.withDefaults()
	s := &search{o: o, presented: presented, leaf: newNode(leaf), checks: o.Budget, names: o.NameBudget}
	if o.IgnoreValidity {
		s.mode = undated
	}
	return s
}

// run looks for valid paths; when there are none it looks again for one that explains why.
func (s *search) run() error {
	s.discover()
	switch {
	case s.leaf.distance < 0:
		return &Error{Untrusted, s.leaf.cert, 0, errNoIssuer}
	case s.leaf.distance+1 > s.o.MaxDepth:
		return s.tooDeep()
	}
	passes := []mode{strict, diagnose}
	if s.o.IgnoreValidity {
		passes = []mode{strict, undated, diagnose}
	}
	for _, s.mode = range passes {
		if s.mode != diagnose && s.checkLeaf(s.leaf) != nil {
			continue
		}
		s.steps = maxSteps
		stack := make([]step, 1, s.o.MaxDepth+1)
		stack[0].node = s.leaf
		s.walk(stack)
		if len(s.paths) > 0 {
			return nil
		}
		if s.spent != nil {
			return s.spent
		}
	}
	if s.refused == nil && s.unsigned == nil {
		return s.tooDeep() // every path that is short enough goes in a circle
	}
	return firstOf(s.refused, s.unsigned)
}

func (s *search) tooDeep() *Error {
	return &Error{TooComplex, s.leaf.cert, 0, fmt.Errorf("its path needs more than %d certificates", s.o.MaxDepth)}
}

// firstOf is the first error there is.
func firstOf(errs ...*Error) error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}

// discover finds every certificate that names lead to, how far each is from an anchor, and puts issuers in order.
func (s *search) discover() {
	s.nodes = append(s.nodes, s.leaf)
	for i := 0; i < len(s.nodes); i++ {
		if n := s.nodes[i]; !n.anchor {
			s.addIssuers(n, s.o.Anchors, true)
			s.addIssuers(n, s.presented, false)
			s.addIssuers(n, s.o.Intermediates, false)
		}
	}
	s.measure()
	for _, n := range s.nodes {
		if len(n.issuers) > 1 {
			for i := range n.issuers {
				n.issuers[i].rank = s.rank(n.cert, n.issuers[i].to)
			}
			slices.SortStableFunc(n.issuers, func(a, b edge) int { return a.rank - b.rank })
		}
	}
}

// measure finds how far each certificate is from an anchor, over edges whose signatures are not known to be bad.
func (s *search) measure() {
	for _, n := range s.nodes {
		if !n.anchor {
			n.distance = -1
		}
	}
	for changed := true; changed; {
		changed = false
		for _, n := range slices.Backward(s.nodes) {
			for _, e := range n.issuers {
				if d := e.to.distance; !e.bad && d >= 0 && (n.distance < 0 || d+1 < n.distance) {
					n.distance, changed = d+1, true
				}
			}
		}
	}
}

// addIssuers adds the certificates of the list that bear the name of n's issuer.
func (s *search) addIssuers(n *node, list []*x509.Certificate, anchors bool) {
	for _, c := range list {
		if !pkix.SameName(n.cert.RawIssuer, c.RawSubject) {
			continue
		}
		to := s.nodeOf(c, anchors)
		if to != n && to != s.leaf && !slices.ContainsFunc(n.issuers, func(e edge) bool { return e.to == to }) {
			n.issuers = append(n.issuers, edge{to: to})
		}
	}
}

// nodeOf is the node of a certificate. Anchors come first, so what is both is an anchor.
func (s *search) nodeOf(c *x509.Certificate, anchor bool) *node {
	for _, n := range s.nodes {
		if n.cert == c || bytes.Equal(n.cert.Raw, c.Raw) {
			return n
		}
	}
	n := newNode(c)
	if anchor {
		n.anchor, n.distance = true, 0
	}
	s.nodes = append(s.nodes, n)
	return n
}

// rank is low for a likely issuer: its key identifier is not another one, it is valid, it is near to an anchor, and its
// key identifier is the one that the child names. Identifiers are hints only (RFC 4158, Section 3.5.12).
func (s *search) rank(child *x509.Certificate, issuer *node) int {
	rank := issuer.distance << 1
	if issuer.distance < 0 {
		rank = 1 << 20
	}
	if s.o.At.Before(issuer.cert.NotBefore) || s.o.At.After(issuer.cert.NotAfter) {
		rank |= 1 << 21
	}
	switch {
	case len(child.AuthorityKeyId) == 0 || len(issuer.cert.SubjectKeyId) == 0:
		rank |= 1
	case !bytes.Equal(child.AuthorityKeyId, issuer.cert.SubjectKeyId):
		rank |= 1 << 22
	}
	return rank
}

// walk extends the path by each possible issuer of its last certificate. It reports whether the pass is over.
func (s *search) walk(path []step) bool {
	tip := path[len(path)-1].node
	for i := range tip.issuers {
		e := &tip.issuers[i]
		if broken(path) {
			return false
		}
		if s.steps--; s.steps < 0 {
			s.spent = &Error{TooComplex, s.leaf.cert, 0, errSteps}
			return true
		}
		if e.bad || e.to.distance < 0 || len(path)+1+e.to.distance > s.o.MaxDepth || repeats(path, e.to.cert) {
			continue
		}
		if s.mode != diagnose && !s.possible(path, e) {
			if s.spent != nil {
				return true
			}
			continue
		}
		extend := s.walk
		if e.to.anchor {
			extend = s.finish
		}
		if extend(append(path, step{e.to, e})) {
			return true
		}
	}
	return false
}

// possible reports whether a valid path can go on over the edge. Name constraints, which may be many, are looked at once
// the signatures from the anchor down to this edge are known to be good; before that they may be a stranger's.
func (s *search) possible(path []step, e *edge) bool {
	return s.admit(path, e.to) == nil && (!e.checked || s.checkNames(path, e.to) == nil)
}

// broken reports whether a signature of the path is known to be bad.
func broken(path []step) bool {
	return slices.ContainsFunc(path[1:], func(p step) bool { return p.edge.bad })
}

// repeats reports whether a certificate for the same name and key is in the path already: such a path is a detour.
func repeats(path []step, c *x509.Certificate) bool {
	return slices.ContainsFunc(path, func(p step) bool {
		return bytes.Equal(p.node.cert.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) && pkix.SameName(p.node.cert.RawSubject, c.RawSubject)
	})
}

// finish takes a path that has reached an anchor. It reports whether the pass is over.
func (s *search) finish(path []step) bool {
	if !s.signed(path) {
		return s.spent != nil
	}
	if err := s.judge(path); err != nil {
		if s.mode == diagnose {
			s.refused = err
		}
		return s.mode == diagnose || s.spent != nil
	}
	certs := make(Path, len(path))
	for i := range path {
		certs[i] = path[i].node.cert
	}
	s.paths = append(s.paths, certs)
	return len(s.paths) >= maxPaths
}

// signed reports whether the signatures of a path are good, checking from the anchor downwards: so only keys that an
// anchor vouches for are used, and a stranger cannot make us work with keys of his choice.
func (s *search) signed(path []step) bool {
	if broken(path) {
		return false
	}
	for i := len(path) - 1; i > 0; i-- {
		e := path[i].edge
		if e.checked {
			continue
		}
		if err := s.checkSignature(path[i-1].node.cert, path[i].node.cert); err != nil {
			err.Index = i - 1
			if err.Reason == TooComplex {
				s.spent = err
				return false
			}
			if s.unsigned == nil {
				s.unsigned = err
			}
			e.bad = true
			s.measure()
			return false
		}
		e.checked = true
	}
	return true
}

// checkSignature checks that issuer's key signed the certificate, with an algorithm that is taken.
func (s *search) checkSignature(c, issuer *x509.Certificate) *Error {
	algorithm := pkix.SignatureAlgorithmName(c.RawSignatureAlgorithm)
	switch {
	case algorithm == "":
		return &Error{WeakSignature, c, 0, fmt.Errorf("signature algorithm %s is not taken", c.SignatureAlgorithm)}
	case !s.o.Allows(algorithm):
		return &Error{WeakSignature, c, 0, fmt.Errorf("signature algorithm %s is not allowed", algorithm)}
	}
	if err := checkKey(issuer); err != nil {
		return &Error{WeakSignature, c, 0, fmt.Errorf("its issuer's key: %w", err)}
	}
	if s.checks--; s.checks < 0 {
		return &Error{TooComplex, s.leaf.cert, 0, errBudget}
	}
	if err := pkix.VerifySignature(c.RawSignatureAlgorithm, issuer.PublicKey, c.RawTBSCertificate, c.Signature); err != nil {
		return &Error{BadSignature, c, 0, fmt.Errorf("its issuer did not sign it: %w", err)}
	}
	return nil
}

// checkKey refuses RSA keys that can be broken, and those that take very long to use.
func checkKey(c *x509.Certificate) error {
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok && (key.N.BitLen() < 1024 || key.N.BitLen() > 16384) {
		return fmt.Errorf("RSA with %d bits; 1024 to 16384 are taken", key.N.BitLen())
	}
	return nil
}
