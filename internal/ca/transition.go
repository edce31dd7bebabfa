package ca

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"sekisho/internal/pkix"
)

// RevokeRequest asks for a revocation that cannot be undone.
type RevokeRequest struct {
	ID     string
	ZoneID string // when set, the certificate must belong to it, else ErrNotFound
	Actor  string
	// Reason is any but certificateHold (that is [Authority.Hold]) and removeFromCRL. keyCompromise also blocks the
	// public key: it is never certified again.
	Reason pkix.Reason
}

// ChangeRequest names a certificate to hold or to reactivate.
type ChangeRequest struct {
	ID     string
	ZoneID string // when set, the certificate must belong to it, else ErrNotFound
	Actor  string
}

// Revoke revokes a certificate for good; one on hold too. It returns the row after it. A certificate that is revoked
// already is ErrConflict.
func (a *Authority) Revoke(ctx context.Context, req RevokeRequest) (Certificate, error) {
	switch {
	case req.Reason == pkix.CertificateHold:
		return Certificate{}, invalid("reason", "certificateHold is not final; put the certificate on hold instead")
	case req.Reason == pkix.RemoveFromCRL:
		return Certificate{}, invalid("reason", "removeFromCRL is no reason to revoke; reactivate the certificate instead")
	case !req.Reason.Known():
		return Certificate{}, invalid("reason", "there is no %s", req.Reason)
	}
	t := Transition{ID: req.ID, ZoneID: req.ZoneID, To: Revoked, Reason: req.Reason, At: a.now(), Block: req.Reason == pkix.KeyCompromise}
	row, err := a.change(ctx, t, req.Actor, "certificate.revoke")
	if err == nil {
		a.counters.revoked.Add(1)
	}
	return row, err
}

// Hold revokes a certificate in the one way that can be undone (reason certificateHold).
func (a *Authority) Hold(ctx context.Context, req ChangeRequest) (Certificate, error) {
	t := Transition{ID: req.ID, ZoneID: req.ZoneID, To: Revoked, Reason: pkix.CertificateHold, At: a.now()}
	row, err := a.change(ctx, t, req.Actor, "certificate.hold")
	if err == nil {
		a.counters.held.Add(1)
	}
	return row, err
}

// Reactivate ends a hold. A certificate that is active or revoked for good is ErrConflict.
func (a *Authority) Reactivate(ctx context.Context, req ChangeRequest) (Certificate, error) {
	t := Transition{ID: req.ID, ZoneID: req.ZoneID, To: Active, At: a.now()}
	row, err := a.change(ctx, t, req.Actor, "certificate.reactivate")
	if err == nil {
		a.counters.reactivated.Add(1)
	}
	return row, err
}

// change performs a transition and tells everybody: ledger, cached OCSP answers, CRL, OnChange, in this order. The lock
// keeps the order of the ledger for one certificate: a hold that is told after its own reactivation would shut out a
// good client, the other way round would let a revoked one in.
func (a *Authority) change(ctx context.Context, t Transition, actor, action string) (Certificate, error) {
	lock := &a.states[stripe(t.ID)%uint32(len(a.states))]
	lock.Lock()
	defer lock.Unlock()
	detail := map[string]string{}
	if t.To == Revoked {
		detail["reason"] = t.Reason.String()
	}
	if t.ZoneID != "" {
		detail["zone"] = t.ZoneID
	}
	row, err := a.cfg.Ledger.Apply(ctx, t, a.entry(actor, action, t.ID, detail))
	if err != nil {
		a.recheck(ctx, t.ID, err)
		err = transitionError(t, row, err)
		a.cfg.Logger.InfoContext(ctx, "certificate not changed", "actor", actor, "action", action, "id", t.ID, "error", err)
		return row, err
	}
	a.tell(row)
	a.cfg.Logger.InfoContext(ctx, "certificate changed", "actor", actor, "action", action, "id", row.ID,
		"serial", row.Serial.String(), "status", string(row.Status), "reason", row.Reason.String(), "crl_number", row.CRLNumber)
	return row, nil
}

// tell announces what the ledger says of a certificate.
func (a *Authority) tell(row Certificate) {
	a.ocsp.drop(row.CertID())
	a.publisher.changed(row)
	if a.cfg.OnChange != nil {
		a.cfg.OnChange(row)
	}
}

// recheck announces what the ledger says after an error that leaves open whether the transition was stored (a commit
// that failed on the way back). The caller gets the error all the same; but what is stored takes effect.
func (a *Authority) recheck(ctx context.Context, id string, err error) {
	// The context's error means that the ledger never began; any other, with a caller who is gone by now, does not.
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return
	}
	if row, err := a.cfg.Ledger.Certificate(context.WithoutCancel(ctx), "", id); err == nil {
		a.tell(row)
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
