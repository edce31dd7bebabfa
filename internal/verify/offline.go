package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sekisho/internal/certpath"
	"sekisho/internal/identity"
	"sekisho/internal/revocation"
	"sekisho/internal/revocation/crl"
	"sekisho/internal/revocation/ocsp"
	"sekisho/internal/trust"
)

// Offline judges a certificate by what is at hand alone: nothing is fetched and no server is needed. The zero value of
// everything but Roots and At is its default.
type Offline struct {
	Path   certpath.Options // Anchors and At must be set; Intermediates may be
	CRLs   []string         // files, PEM or DER
	OCSP   [][]byte         // answers about the leaf, DER
	Policy trust.Policy     // how revocation is judged; addresses in certificates are not followed in any case
}

// Verify returns how the leaf was judged, and what was wrong with the sources that were given: a list that cannot be
// read is an error, since the caller meant it to count. presented are certificates that came with the leaf.
func (o Offline) Verify(ctx context.Context, leaf *x509.Certificate, presented []*x509.Certificate) (Explanation, error) {
	ca := trust.CA{ID: "offline", Name: "roots given", Anchors: o.Path.Anchors, Intermediates: append(presented, o.Path.Intermediates...), Policy: o.Policy}
	ca.Policy.CRLs, ca.Policy.IgnoreCDP, ca.Policy.IgnoreAIA = o.CRLs, true, true
	now := func() time.Time { return o.Path.At }
	quiet := slog.New(slog.DiscardHandler)
	keeper := crl.NewKeeper(crl.KeeperConfig{Now: now, Logger: quiet})
	checker := revocation.NewChecker(revocation.CheckerConfig{
		Lists: keeper, OCSP: ocsp.New(ocsp.Config{Now: now, Logger: quiet}), Now: now, Logger: quiet,
	})
	checker.SetCAs(ctx, []trust.CA{ca})
	for _, held := range keeper.Lists(ca.ID) {
		if held.List == nil && !errors.Is(held.Err, crl.ErrIssuer) {
			return Explanation{}, fmt.Errorf("%s: %w", held.Address, held.Err)
		}
	}
	v := &Verifier{checker: checker, now: now, cache: newCache(-1)}
	set, err := trust.NewSet([]trust.CA{ca})
	if err != nil {
		return Explanation{}, err
	}
	paths, err := certpath.Build(leaf, presented, o.Path)
	if err != nil {
		id := identity.NewRefused([]*x509.Certificate{leaf}, nil, reasonOf(err), err)
		return v.ExplainIdentity(set, id), nil
	}
	chain := append([]*x509.Certificate{leaf}, presented...)
	var id identity.Identity
	for i, path := range paths {
		for _, der := range o.OCSP {
			if err := checker.Offer(path, &ca, der); err != nil && i == 0 {
				return Explanation{}, fmt.Errorf("OCSP answer: %w", err)
			}
		}
		next := v.conclude(identity.NewVerified(chain, path), checker.Judge(path, &ca, o.Path.At), false)
		if i == 0 || next.Verified() {
			id = next
		}
		if id.Verified() {
			break
		}
	}
	return v.ExplainIdentity(set, id), nil
}
