package pkix

import (
	"fmt"
	"strconv"
	"strings"
)

// Reason is a CRLReason (RFC 5280, Section 5.3.1). It is the number on the
// wire; 7 is not used.
type Reason int

// The reasons. CertificateHold alone can be undone; RemoveFromCRL is how a
// delta CRL says that it was.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	CertificateHold      Reason = 6
	RemoveFromCRL        Reason = 8
	PrivilegeWithdrawn   Reason = 9
	AACompromise         Reason = 10
)

// Reasons lists every reason in the order of its number.
func Reasons() []Reason {
	return []Reason{
		Unspecified, KeyCompromise, CACompromise, AffiliationChanged, Superseded,
		CessationOfOperation, CertificateHold, RemoveFromCRL, PrivilegeWithdrawn, AACompromise,
	}
}

// String is the RFC's name: "keyCompromise".
func (r Reason) String() string {
	switch r {
	case Unspecified:
		return "unspecified"
	case KeyCompromise:
		return "keyCompromise"
	case CACompromise:
		return "cACompromise"
	case AffiliationChanged:
		return "affiliationChanged"
	case Superseded:
		return "superseded"
	case CessationOfOperation:
		return "cessationOfOperation"
	case CertificateHold:
		return "certificateHold"
	case RemoveFromCRL:
		return "removeFromCRL"
	case PrivilegeWithdrawn:
		return "privilegeWithdrawn"
	case AACompromise:
		return "aACompromise"
	}
	return "reason " + strconv.Itoa(int(r))
}

// Known reports whether RFC 5280 assigns the number.
func (r Reason) Known() bool { return r >= 0 && r <= AACompromise && r != 7 }

// ParseReason reads a name in any case, with or without dashes and
// underscores (key-compromise, KEY_COMPROMISE), or a number.
func ParseReason(text string) (Reason, error) {
	trimmed := strings.TrimSpace(text)
	plain := strings.NewReplacer("-", "", "_", "").Replace(trimmed)
	for _, r := range Reasons() {
		if strings.EqualFold(plain, r.String()) || trimmed == strconv.Itoa(int(r)) {
			return r, nil
		}
	}
	names := make([]string, 0, len(Reasons()))
	for _, r := range Reasons() {
		names = append(names, fmt.Sprintf("%s (%d)", r, int(r)))
	}
	return Unspecified, fmt.Errorf("unknown revocation reason %.40q; known are %s", text, strings.Join(names, ", "))
}
