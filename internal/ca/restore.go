package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/pkix"
)

// restoreShard takes over what an earlier process published, so that a start signs nothing and reads no million rows. A
// file that is not exactly what the ledger would have signed is left aside, with a line in the log.
func (p *publisher) restoreShard(ctx context.Context, issuer *authorityCA, s *shard) error {
	if p.files == nil {
		return nil
	}
	number, bases, err := p.a.cfg.Ledger.CRLBases(ctx, s.key.caID, s.key.shard)
	if err != nil || number == 0 || len(bases) == 0 {
		return err
	}
	full, err1 := p.files.read(p.files.path(s.key.caID, s.key.shard, false), issuer)
	delta, err2 := p.files.read(p.files.path(s.key.caID, s.key.shard, true), issuer)
	if err1 == nil && err2 == nil && full == nil && delta == nil {
		return nil
	}
	r := restored{p: p, issuer: issuer, key: s.key, number: number, bases: bases, full: full, delta: delta}
	reason := errors.Join(err1, err2)
	if reason == nil {
		reason = r.check()
	}
	if reason == nil {
		if reason, err = r.compare(ctx); err != nil {
			return err
		}
	}
	if reason != nil {
		p.a.cfg.Logger.WarnContext(ctx, "published CRL not taken over, it is made anew", "ca", issuer.record.Name,
			"shard", s.key.shard, "reason", reason)
		return nil
	}
	s.state = shardState{
		loaded: true, number: number, full: full.Entries(), delta: delta.Entries(),
		base: delta.BaseNumber.Int64(), kept: bases[len(bases)-1].At,
	}
	s.current.Store(r.lists())
	return nil
}

// restored are the published lists of a shard, and what the ledger says of them.
type restored struct {
	p           *publisher
	issuer      *authorityCA
	key         shardKey
	number      int64
	bases       []CRLBase
	full, delta *pkix.CRL
}

func (r *restored) lists() *lists {
	now := &lists{full: readCRL(r.key.caID, r.key.shard, r.full), delta: readCRL(r.key.caID, r.key.shard, r.delta)}
	now.renewAt = r.p.renewTime(now.full.NextUpdate, r.bases[len(r.bases)-1].At)
	return now
}

func readCRL(caID string, shard int, crl *pkix.CRL) *CRL {
	t := pkix.CRLTemplate{Number: crl.Number, BaseNumber: crl.BaseNumber, ThisUpdate: crl.ThisUpdate, NextUpdate: crl.NextUpdate}
	return newCRL(caID, shard, t, crl.Raw)
}

// check compares everything but the entries.
func (r *restored) check() error {
	if r.full == nil || r.delta == nil {
		return errors.New("one of list and delta is missing")
	}
	points := r.p.points(r.issuer, r.key.shard)
	for _, crl := range []*pkix.CRL{r.full, r.delta} {
		switch {
		case !crl.Number.IsInt64() || crl.Number.Int64() != r.number:
			return fmt.Errorf("its number is %v, and the ledger is at %d", crl.Number, r.number)
		case !crl.ThisUpdate.Equal(r.full.ThisUpdate) || crl.NextUpdate.Sub(crl.ThisUpdate) != r.p.a.cfg.CRLLifetime:
			return errors.New("its dates are not those of the configuration")
		case !slices.Equal(pointsOf(crl.IDP), points) || (crl.IDP != nil && crl.IDP.OnlyUser) != (points != nil && r.issuer.signsOnlyUserCerts()):
			return errors.New("its issuing distribution point has not the addresses of today")
		}
	}
	fresh := r.full.FreshestCRL
	if len(fresh) != 1 || !slices.Equal(fresh[0].URLs(), []string{r.p.a.DeltaCRLURL(r.key.caID, r.key.shard)}) {
		return errors.New("it names another place of its delta")
	}
	if r.full.BaseNumber != nil || r.delta.BaseNumber == nil || !slices.ContainsFunc(r.bases, func(b CRLBase) bool {
		return r.delta.BaseNumber.IsInt64() && b.Number == r.delta.BaseNumber.Int64()
	}) {
		return errors.New("the base of its delta is none that the ledger has")
	}
	if r.p.renewIn(r.lists()) <= 0 {
		return errors.New("it is due for renewal")
	}
	return nil
}

// pointsOf are the URIs of a distribution point.
func pointsOf(idp *pkix.IssuingDistributionPoint) []string {
	if idp == nil {
		return nil
	}
	return pkix.DistributionPoint{FullName: idp.FullName}.URLs()
}

// compare reads what changed since the delta's base from the ledger: the delta must tell exactly that, and the full list
// must agree. A ledger that was restored from a backup may have come to the same number by other changes.
func (r *restored) compare(ctx context.Context) (reason, err error) {
	number, rows, err := r.p.a.cfg.Ledger.Changed(ctx, r.key.caID, r.key.shard, r.delta.BaseNumber.Int64())
	if err != nil {
		return nil, err
	}
	want := map[pkix.Serial]RevokedRow{}
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		want[row.ID.Serial] = row
	}
	if number != r.number {
		return errors.New("something changed meanwhile"), nil
	}
	told := 0
	err = r.delta.Walk(func(e pkix.CRLRecord) error {
		row, ok := want[pkix.SerialFromBytes(e.Serial)]
		if !ok || row.Reason != e.Reason || e.Reason != pkix.RemoveFromCRL && !sameEntry(row, e) {
			return errors.New("its delta is not what the ledger says")
		}
		told++
		return nil
	})
	if err == nil && told != len(want) {
		err = errors.New("its delta lacks something that the ledger has")
	}
	if err != nil {
		return err, nil
	}
	listed := 0
	err = r.full.Walk(func(e pkix.CRLRecord) error {
		row, ok := want[pkix.SerialFromBytes(e.Serial)]
		switch {
		case !ok:
			return nil
		case !sameEntry(row, e):
			return errors.New("an entry of it is not what the ledger says")
		}
		listed++
		return nil
	})
	for _, row := range want {
		if row.Reason == pkix.RemoveFromCRL || row.NotAfter.Before(r.full.ThisUpdate) {
			continue // not in it; or may have left
		}
		listed--
	}
	if err == nil && listed < 0 {
		err = errors.New("it lacks a revocation that the ledger has")
	}
	return err, nil
}

// sameEntry compares a row with an entry; lists have whole seconds.
func sameEntry(row RevokedRow, e pkix.CRLRecord) bool {
	return row.Reason == e.Reason && row.At.Truncate(time.Second).Equal(e.At) && row.InvalidityDate.Truncate(time.Second).Equal(e.InvalidityDate)
}

// restoreWhole takes over the published list of all shards when it has the very entries of the shards; nil when not.
func (p *publisher) restoreWhole(ctx context.Context, issuer *authorityCA, parts [][]byte) *CRL {
	if p.files == nil {
		return nil
	}
	path := p.files.path(issuer.record.ID, AllShards, false)
	crl, err := p.files.read(path, issuer)
	if crl == nil && err == nil {
		return nil
	}
	var number int64
	if err == nil {
		number, _, err = p.a.cfg.Ledger.CRLBases(ctx, issuer.record.ID, AllShards)
	}
	switch {
	case err != nil:
	case !crl.Number.IsInt64() || crl.Number.Int64() != number:
		err = fmt.Errorf("its number is %v, and the ledger is at %d", crl.Number, number)
	case crl.IDP != nil || crl.BaseNumber != nil || crl.NextUpdate.Sub(crl.ThisUpdate) != p.a.cfg.CRLLifetime:
		err = errors.New("it is not of this kind or configuration")
	case p.wholeRenewIn(readCRL(issuer.record.ID, AllShards, crl)) <= 0:
		err = errors.New("it is due for renewal")
	case !sameParts(crl.Entries(), parts):
		err = errors.New("the shards have moved on")
	}
	if err != nil {
		p.a.cfg.Logger.InfoContext(ctx, "published CRL of all shards not taken over, it is made anew", "ca", issuer.record.Name, "reason", err)
		return nil
	}
	return readCRL(issuer.record.ID, AllShards, crl)
}

// sameParts reports whether the entries are the parts in a row.
func sameParts(entries []byte, parts [][]byte) bool {
	for _, p := range parts {
		if !bytes.HasPrefix(entries, p) {
			return false
		}
		entries = entries[len(p):]
	}
	return len(entries) == 0
}
