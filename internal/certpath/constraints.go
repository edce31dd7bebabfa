package certpath

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The forms of GeneralName (RFC 5280, Section 4.2.1.6) that constraints are compared for.
const (
	formOther     = 0
	formEmail     = 1
	formDNS       = 2
	formDirectory = 4
	formURI       = 6
	formIP        = 7
	formLast      = 8
)

// Errors without a detail.
var (
	errConstraints = errors.New("its name constraints cannot be read")
	errDistance    = errors.New("its name constraints have a minimum or maximum, which RFC 5280, Section 4.2.1.10 forbids")
	errNameBudget  = errors.New("its name constraints need more comparisons than the budget allows")
)

// constraints are the subtrees of a NameConstraints extension.
type constraints struct {
	permitted, excluded []subtree
	has                 [formLast + 1]bool // forms that are constrained
	only                [formLast + 1]bool // forms with permitted subtrees
}

// subtree is the base of a GeneralSubtree: text for the forms that are text, octets otherwise.
type subtree struct {
	form int
	base string
}

// parseConstraints reads the value of a NameConstraints extension (RFC 5280, Section 4.2.1.10).
func parseConstraints(der []byte) (*constraints, error) {
	input := cryptobyte.String(der)
	var list, permitted, excluded cryptobyte.String
	var some, others bool
	if !input.ReadASN1(&list, asn1.SEQUENCE) || !input.Empty() ||
		!list.ReadOptionalASN1(&permitted, &some, asn1.Tag(0).ContextSpecific().Constructed()) ||
		!list.ReadOptionalASN1(&excluded, &others, asn1.Tag(1).ContextSpecific().Constructed()) ||
		!list.Empty() || !some && !others || some && permitted.Empty() || others && excluded.Empty() {
		return nil, errConstraints
	}
	c := &constraints{}
	var err error
	if c.permitted, err = c.subtrees(permitted); err != nil {
		return nil, err
	}
	if c.excluded, err = c.subtrees(excluded); err != nil {
		return nil, err
	}
	for _, s := range c.permitted {
		c.only[s.form] = true
	}
	return c, nil
}

// subtrees reads GeneralSubtrees.
func (c *constraints) subtrees(list cryptobyte.String) ([]subtree, error) {
	var out []subtree
	for !list.Empty() {
		var tree cryptobyte.String
		if !list.ReadASN1(&tree, asn1.SEQUENCE) {
			return nil, errConstraints
		}
		form, value, ok := readGeneralName(&tree)
		if !ok {
			return nil, errConstraints
		}
		var minimum cryptobyte.String // DER leaves it out, as 0 is the default; some write it
		var written bool
		if !tree.ReadOptionalASN1(&minimum, &written, asn1.Tag(0).ContextSpecific()) || written && string(minimum) != "\x00" || !tree.Empty() {
			return nil, errDistance
		}
		if !validBase(form, value) {
			return nil, fmt.Errorf("%w: base %.100q of form %d", errConstraints, value, form)
		}
		c.has[form] = true
		out = append(out, subtree{form, string(value)})
	}
	return out, nil
}

// readGeneralName reads a GeneralName: its form, and its content (for a directory name the Name).
func readGeneralName(input *cryptobyte.String) (form int, value []byte, ok bool) {
	var content cryptobyte.String
	var tag asn1.Tag
	if !input.ReadAnyASN1(&content, &tag) {
		return 0, nil, false
	}
	for form := range formLast + 1 {
		switch tag {
		case asn1.Tag(form).ContextSpecific():
			return form, content, form == formEmail || form == formDNS || form >= formURI
		case asn1.Tag(form).ContextSpecific().Constructed():
			return form, content, form == formOther || form >= 3 && form <= 5
		}
	}
	return 0, nil, false
}

// validBase reports whether the base of a subtree has the syntax of its form.
func validBase(form int, value []byte) bool {
	text := string(value)
	switch form {
	case formDNS, formURI:
		return validDomainBase(text)
	case formEmail:
		_, host, full := cutMailbox(text)
		return full && validDomain(host, false) || !full && validDomainBase(text)
	case formIP: // address and mask
		return len(value) == 8 || len(value) == 32
	case formDirectory:
		var name cryptobyte.String
		input := cryptobyte.String(value)
		return input.ReadASN1(&name, asn1.SEQUENCE) && input.Empty()
	}
	return true // not compared
}

// check reports the first name that the constraints do not allow. Each comparison is taken from the budget.
func (c *constraints) check(names []name, budget *int) error {
	for i := range names {
		n := &names[i]
		switch {
		case !c.has[n.form] && !(n.mailbox && c.has[formEmail]):
			continue
		case n.unclear != "":
			return fmt.Errorf("%s: %s, and a CA above constrains such names", n, n.unclear)
		}
		permitted := !c.only[n.form]
		for _, s := range c.permitted {
			if permitted {
				break
			}
			if *budget -= s.cost(n); *budget < 0 {
				return errNameBudget
			}
			permitted = s.form == n.form && n.within(s.base)
		}
		if !permitted {
			return fmt.Errorf("%s is not in a subtree that a CA above may name", n)
		}
		for _, s := range c.excluded {
			if *budget -= s.cost(n); *budget < 0 {
				return errNameBudget
			}
			if s.form == n.form && (n.within(s.base) || n.overlaps(s.base)) {
				return fmt.Errorf("%s is in a subtree that a CA above may not name", n)
			}
		}
	}
	return nil
}

// cost is what a comparison takes from the budget: more for very long names.
func (s subtree) cost(n *name) int { return 1 + min(len(s.base), len(n.value))/256 }
