package ca

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"sekisho/internal/pkix"
)

// RevokeRequest asks for a revocation that cannot be undone.
type RevokeRequest struct {
	ID     string
	ZoneID string // when set, the certificate must belong to it, else ErrNotFound
	Actor  string
	// Reason is any but certificateHold (that is [Authority.Hold]) and removeFromCRL. keyCompromise also blocks the
	// public key: it is never certified again, and every other certificate of it is revoked with this one.
	Reason pkix.Reason
	// InvalidityDate is since when the key is thought to be compromised or the certificate wrong (RFC 5280, Section 5.3.2):
	// not in the future. Zero: not said.
	InvalidityDate time.Time
}

// ChangeRequest names a certificate to hold or to reactivate.
type ChangeRequest struct {
	ID     string
	ZoneID string // when set, the certificate must belong to it, else ErrNotFound
	Actor  string
}

// Revoke revokes a certificate for good; one on hold too. It returns the row after it. A certificate that is revoked
// for good already is ErrConflict, except that any other reason may still become keyCompromise.
func (a *Authority) Revoke(ctx context.Context, req RevokeRequest) (Certificate, error) {
	switch {
	case req.Reason == pkix.CertificateHold:
		return Certificate{}, invalid("reason", "certificateHold is not final; put the certificate on hold instead")
	case req.Reason == pkix.RemoveFromCRL:
		return Certificate{}, invalid("reason", "removeFromCRL is no reason to revoke; reactivate the certificate instead")
	case !req.Reason.Known():
		return Certificate{}, invalid("reason", "there is no %s", req.Reason)
	}
	t := Transition{
		ID: req.ID, ZoneID: req.ZoneID, To: Revoked, Reason: req.Reason, At: a.now(), Block: req.Reason == pkix.KeyCompromise,
		InvalidityDate: req.InvalidityDate.Truncate(time.Second),
	}
	if t.InvalidityDate.After(t.At) {
		return Certificate{}, invalid("invalidity_date", "%s is in the future", t.InvalidityDate.UTC().Format(time.RFC3339))
	}
	if t.InvalidityDate.UTC().Year() < 1 { // a list with it could not be signed
		return Certificate{}, invalid("invalidity_date", "it is before the year 1")
	}
	row, n, err := a.change(ctx, t, req.Actor, "certificate.revoke")
	a.counters.revoked.Add(int64(n))
	return row, err
}

// Hold revokes a certificate in the one way that can be undone (reason certificateHold).
func (a *Authority) Hold(ctx context.Context, req ChangeRequest) (Certificate, error) {
	t := Transition{ID: req.ID, ZoneID: req.ZoneID, To: Revoked, Reason: pkix.CertificateHold, At: a.now()}
	if row, err := a.refuseForeignHold(ctx, t); err != nil {
		return row, err
	}
	row, n, err := a.change(ctx, t, req.Actor, "certificate.hold")
	a.counters.held.Add(int64(n))
	return row, err
}

// Reactivate ends a hold. A certificate that is active or revoked for good is ErrConflict.
func (a *Authority) Reactivate(ctx context.Context, req ChangeRequest) (Certificate, error) {
	t := Transition{ID: req.ID, ZoneID: req.ZoneID, To: Active, At: a.now()}
	if row, err := a.refuseForeignHold(ctx, t); err != nil {
		return row, err
	}
	row, n, err := a.change(ctx, t, req.Actor, "certificate.reactivate")
	a.counters.reactivated.Add(int64(n))
	return row, err
}

// refuseForeignHold refuses to begin or end a hold on a certificate of a CA whose key is elsewhere: its own CRL says who is
// on hold, and an import of it ends the holds that it does not have.
func (a *Authority) refuseForeignHold(ctx context.Context, t Transition) (Certificate, error) {
	if !slices.ContainsFunc(a.cas.Load().all(), func(c *authorityCA) bool { return !c.signs() }) {
		return Certificate{}, nil
	}
	row, err := a.cfg.Ledger.Certificate(ctx, t.ZoneID, t.ID)
	if err != nil {
		return Certificate{}, fmt.Errorf("certificate %.60s: %w", t.ID, err)
	}
	if c, err := a.ca(row.CAID); err == nil && !c.signs() {
		return row, invalid("reason", "the key of the CA %s is elsewhere: whoever has it puts on hold and reactivates, and sekisho ca import-crl %s brings that here; "+
			"revoking for good is possible here", c.record.Name, c.record.Name)
	}
	return Certificate{}, nil
}

// change performs a transition and tells everybody: ledger, cached OCSP answers, CRL, OnChange, in this order. It returns
// the row and how many certificates changed. Where one of them is that of a CA of ours, the CAs are loaded anew: behind the
// states, which an import locks while it holds the CAs.
func (a *Authority) change(ctx context.Context, t Transition, actor, action string) (Certificate, int, error) {
	row, sameKey, err := a.changeStates(ctx, t, actor, action)
	all := append([]Certificate{row}, sameKey...)
	if slices.ContainsFunc(all, func(c Certificate) bool { return a.CertifiesCA(c.CertID()) }) {
		a.initMu.Lock()
		defer a.initMu.Unlock()
		err = errors.Join(err, a.load(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return row, 0, err
	}
	return row, len(all), nil
}

// changeStates is change without the CAs. With an error, too, the row is as it is now, where that is known.
func (a *Authority) changeStates(ctx context.Context, t Transition, actor, action string) (row Certificate, sameKey []Certificate, err error) {
	defer a.lockStates(t)()
	detail := map[string]string{}
	if t.To == Revoked {
		detail["reason"] = t.Reason.String()
	}
	if t.ZoneID != "" {
		detail["zone"] = t.ZoneID
	}
	row, sameKey, err = a.cfg.Ledger.Apply(ctx, t, a.entry(actor, action, t.ID, detail))
	if err != nil {
		now, open := a.recheck(ctx, t, err)
		err = transitionError(t, row, err)
		if open {
			row = now
		}
		a.cfg.Logger.InfoContext(ctx, "certificate not changed", "actor", actor, "action", action, "id", t.ID, "error", err)
		return row, nil, err
	}
	for _, c := range append([]Certificate{row}, sameKey...) {
		a.tell(c)
		a.cfg.Logger.InfoContext(ctx, "certificate changed", "actor", actor, "action", action, "id", c.ID,
			"serial", c.Serial.String(), "status", string(c.Status), "reason", c.Reason.String(), "crl_number", c.CRLNumber)
	}
	return row, sameKey, nil
}

// lockStates keeps the order of the ledger for each certificate that t may change, and returns how to unlock: a hold that
// is told after its own reactivation would shut out a good client, the other way round would let a revoked one in. Which
// certificates have one key is not known before the ledger is asked, so a compromised key locks them all.
func (a *Authority) lockStates(t Transition) (unlock func()) {
	from := int(stripe(t.ID) % uint32(len(a.states)))
	to := from + 1
	if t.Block {
		from, to = 0, len(a.states)
	}
	for i := from; i < to; i++ {
		a.states[i].Lock()
	}
	return func() {
		for i := from; i < to; i++ {
			a.states[i].Unlock()
		}
	}
}

// tell announces what the ledger says of a certificate.
func (a *Authority) tell(row Certificate) {
	a.ocsp.drop(row)
	if c, err := a.ca(row.CAID); err != nil || c.signs() {
		a.publisher.changed(row)
	}
	if a.cfg.OnChange != nil {
		a.cfg.OnChange(row)
	}
}

// recheck announces and returns what the ledger says after an error that leaves open whether the transition was stored (a
// commit that failed on the way back). The caller gets the error all the same; but what is stored takes effect.
func (a *Authority) recheck(ctx context.Context, t Transition, err error) (row Certificate, open bool) {
	// The context's error means that the ledger never began; any other, with a caller who is gone by now, does not.
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return Certificate{}, false
	}
	ctx = context.WithoutCancel(ctx)
	row, err = a.cfg.Ledger.Certificate(ctx, "", t.ID)
	if err != nil {
		return Certificate{}, false
	}
	a.tell(row)
	if t.Block {
		a.tellSameKey(ctx, row)
	}
	return row, true
}

// tellSameKey announces what the ledger says of every certificate of a key that may have been compromised with row.
func (a *Authority) tellSameKey(ctx context.Context, row Certificate) {
	if row.Status != Revoked || row.Reason != pkix.KeyCompromise || !row.KeyKnown() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	for f := (Filter{Key: &row.KeyHash, Limit: 1000}); ; f.Offset += f.Limit {
		rows, _, err := a.cfg.Ledger.Certificates(ctx, f)
		for _, c := range rows {
			a.tell(c)
		}
		if err != nil || len(rows) < f.Limit {
			return
		}
	}
}

func stripe(id string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return h.Sum32()
}

// transitionError says what state stood in the way.
func transitionError(t Transition, row Certificate, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("certificate %.60s: %w", t.ID, ErrNotFound)
	case !errors.Is(err, ErrConflict) || row.ID == "":
		return fmt.Errorf("certificate %.60s: %w", t.ID, err)
	case row.OnHold():
		return fmt.Errorf("certificate %s is already on hold since %s: %w", row.ID, row.RevokedAt.UTC().Format(time.RFC3339), ErrConflict)
	case row.Status == Revoked && t.To == Active:
		return fmt.Errorf("certificate %s is revoked for good (%s) since %s, only a hold can be undone: %w",
			row.ID, row.Reason, row.RevokedAt.UTC().Format(time.RFC3339), ErrConflict)
	case row.Status == Revoked:
		return fmt.Errorf("certificate %s is already revoked (%s) since %s: %w",
			row.ID, row.Reason, row.RevokedAt.UTC().Format(time.RFC3339), ErrConflict)
	}
	return fmt.Errorf("certificate %s is active: %w", row.ID, ErrConflict)
}
