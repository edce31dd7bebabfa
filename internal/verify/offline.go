package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sekisho/internal/certpath"
	"sekisho/internal/identity"
	"sekisho/internal/revocation"
	"sekisho/internal/revocation/crl"
	"sekisho/internal/revocation/ocsp"
	"sekisho/internal/trust"
)

// Offline judges a certificate by what is at hand alone: nothing is fetched and no server is needed. The zero value of
// everything but Path is its default.
type Offline struct {
	Path   certpath.Options // Anchors and At must be set; Intermediates may be
	CRLs   []string         // files, PEM or DER
	OCSP   []OCSPAnswer     // about the leaf; of several the latest counts
	Policy trust.Policy     // how revocation is judged; addresses in certificates are not followed in any case
}

// OCSPAnswer is an answer of a responder, in DER, under the name that errors and explanations call it by.
type OCSPAnswer struct {
	Name string
	DER  []byte
}

// Verify returns how the leaf was judged, and what was wrong with the sources that were given: a list or an answer that
// cannot be used is an error, since the caller meant it to count; one that is out of date is a source that says nothing.
// presented are certificates that came with the leaf.
func (o Offline) Verify(ctx context.Context, leaf *x509.Certificate, presented []*x509.Certificate) (Explanation, error) {
	ca := trust.CA{
		ID: "offline", Name: "roots given", Anchors: o.Path.Anchors,
		Intermediates: slices.Concat(presented, o.Path.Intermediates), Policy: o.Policy,
	}
	ca.Policy.CRLs, ca.Policy.IgnoreCDP, ca.Policy.IgnoreAIA = o.CRLs, true, true
	now := func() time.Time { return o.Path.At }
	quiet := slog.New(slog.DiscardHandler)
	keeper := crl.NewKeeper(crl.KeeperConfig{Now: now, Logger: quiet})
	defer keeper.Close()
	checker := revocation.NewChecker(revocation.CheckerConfig{
		Lists: keeper, OCSP: ocsp.New(ocsp.Config{Now: now, Logger: quiet}), Now: now, Logger: quiet,
	})
	checker.SetCAs(ctx, []trust.CA{ca})
	for _, held := range keeper.Lists(ca.ID) {
		if held.List == nil && !errors.Is(held.Err, crl.ErrIssuer) {
			return Explanation{}, fmt.Errorf("%s: %w", held.Address, held.Err)
		}
	}
	set, err := trust.NewSet([]trust.CA{ca})
	if err != nil {
		return Explanation{}, err
	}
	v := &Verifier{checker: checker, now: now, cache: newCache(-1)}
	paths, err := certpath.Build(leaf, presented, o.Path)
	if err != nil {
		id := identity.NewRefused([]*x509.Certificate{leaf}, nil, reasonOf(err), err)
		return v.ExplainIdentity(set, id), nil
	}
	given := set.CAOf(paths[0][len(paths[0])-1])
	if err := o.offer(checker, given, paths); err != nil {
		return Explanation{}, err
	}
	return v.ExplainIdentity(set, v.firstGood(slices.Concat([]*x509.Certificate{leaf}, presented), paths, given)), nil
}

// offer hands the answers to the checker. They must be of the issuer in one of the paths.
func (o Offline) offer(checker *revocation.Checker, ca *trust.CA, paths []certpath.Path) error {
	for _, answer := range o.OCSP {
		var first error
		taken := false
		for i, path := range paths {
			err := checker.Offer(path, ca, answer.DER)
			if i == 0 {
				first = err
			}
			taken = taken || err == nil || errors.Is(err, ocsp.ErrOlder)
		}
		switch {
		case taken:
		case errors.Is(first, ocsp.ErrTimes):
			// A responder that has said nothing that counts now: not the same as none.
			ca.Policy.OCSPResponders = append(ca.Policy.OCSPResponders, answer.Name)
		default:
			return fmt.Errorf("%s: OCSP answer: %w", answer.Name, first)
		}
	}
	return nil
}

// firstGood judges each path and returns the first verified identity, else the first.
func (v *Verifier) firstGood(chain []*x509.Certificate, paths []certpath.Path, ca *trust.CA) identity.Identity {
	var first identity.Identity
	for i, path := range paths {
		verdict := v.checker.Judge(path, ca, v.now())
		verdict.Pending = false // there is nobody to ask
		id := v.conclude(identity.NewVerified(chain, path), verdict, false)
		if id.Verified() {
			return id
		}
		if i == 0 {
			first = id
		}
	}
	return first
}
