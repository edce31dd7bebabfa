package crl

import (
	"bytes"
	"fmt"
	"slices"

	"sekisho/internal/pkix"
)

// WithDelta returns the list with a delta on top, in place of one that it may have. The base is shared, not copied. RFC
// 5280, Section 5.2.4 wants of both the same issuer, scope and authority key identifier, and a base that is at least as
// new as the one that the delta builds upon and not newer than the delta; Section 6.3.3 (h) wants the same key.
func (l *List) WithDelta(d *List) (*List, error) {
	base, delta := l.base, d.base
	switch {
	case base.crl.BaseNumber != nil:
		return nil, fmt.Errorf("%w: the list is a delta itself", ErrBase)
	case delta.crl.BaseNumber == nil:
		return nil, fmt.Errorf("%w: it is a complete list", ErrBase)
	case !pkix.SameName(base.name, delta.name),
		!bytes.Equal(base.issuer.RawSubjectPublicKeyInfo, delta.issuer.RawSubjectPublicKeyInfo):
		return nil, fmt.Errorf("%w: the delta is by another CA or key, %.200s", ErrIssuer, pkix.DNString(delta.name))
	case !sameScope(base, delta):
		return nil, fmt.Errorf("%w: their issuing distribution points or authority key identifiers differ", ErrScope)
	case base.crl.Number == nil:
		return nil, fmt.Errorf("%w: the list has no number", ErrBase)
	case base.crl.Number.Cmp(delta.crl.BaseNumber) < 0:
		return nil, fmt.Errorf("%w: it needs list %v or later, and the list is %v", ErrBase, delta.crl.BaseNumber, base.crl.Number)
	case delta.crl.Number.Cmp(base.crl.Number) < 0:
		return nil, fmt.Errorf("%w: the delta is %v and the list already %v", ErrOlder, delta.crl.Number, base.crl.Number)
	}
	return &List{base: base, delta: delta}, nil
}

// sameScope: RFC 5280, Section 5.2.4 (b), both have no issuing distribution point or the same; and 6.3.3 (c) (3), the
// authority key identifiers match or are not given.
func sameScope(a, b *part) bool {
	return bytes.Equal(a.keyID, b.keyID) && sameIDP(a, b)
}

func sameIDP(a, b *part) bool {
	if a.idp == nil || b.idp == nil {
		return a.idp == b.idp
	}
	x, y := a.idp, b.idp
	return x.OnlyUser == y.OnlyUser && x.OnlyCA == y.OnlyCA && x.OnlyAttribute == y.OnlyAttribute &&
		x.Indirect == y.Indirect && x.OnlySomeReasons == y.OnlySomeReasons &&
		slices.EqualFunc(a.scope, b.scope, sameGeneralName)
}
