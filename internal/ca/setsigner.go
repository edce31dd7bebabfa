package ca

import (
	"context"
	"errors"
	"fmt"

	"sekisho/internal/pkix"
)

// SignerRequest gives a CA another OCSP signer.
type SignerRequest struct {
	Actor       string
	CA          string // name or id
	Certificate []byte // PEM or DER; with Key empty: a signer of our own making again, for a CA whose key is here
	Key         []byte // PEM, maybe encrypted
	Passphrase  []byte
}

// SetSigner puts an OCSP signer that was made elsewhere in force, or takes the one there is away. It returns a
// [*RequestError].
func (a *Authority) SetSigner(ctx context.Context, req SignerRequest) (State, error) {
	a.initMu.Lock()
	defer a.initMu.Unlock()
	if err := a.load(ctx); err != nil {
		return State{}, err
	}
	c, err := a.named(req.CA)
	if err != nil {
		return State{}, err
	}
	if c.record.unfinished() {
		return State{}, invalid("ca", "the import of %s was broken off; import it again: sekisho ca import", c.record.Name)
	}
	record, change := c.record, CAChange{}
	detail := map[string]string{"name": record.Name, "ocsp_signer": "own"}
	record.Signer = Signer{}
	if len(req.Certificate)+len(req.Key) == 0 && !c.signs() {
		return State{}, invalid("ocsp_certificate", "the key of %s is not here, so a signer of our own cannot be made; give one", record.Name)
	}
	if len(req.Certificate)+len(req.Key) > 0 {
		signer, err := a.readSigner(req.Certificate, req.Key, req.Passphrase, c.cert)
		if err != nil {
			return State{}, err
		}
		if change.Certificates, err = a.signerRow(ctx, signer, c); err != nil {
			return State{}, err
		}
		record.Signer = Signer{DER: signer.cert.Raw, KeyName: newSignerName()}
		if _, err := a.cfg.Keys.Add(record.Signer.KeyName, signer.key); err != nil {
			return State{}, fmt.Errorf("store the key of the OCSP signer of the CA %s: %w", record.Name, err)
		}
		detail["ocsp_signer"] = pkix.FingerprintOf(signer.cert.Raw).String()
	}
	change.Update = []CARecord{record}
	err = a.storeCAs(ctx, change, a.entry(req.Actor, "ca.ocsp_signer", record.ID, detail))
	a.ocsp.cache.forget() // also after an error that came when it was stored already
	if err != nil {
		return State{}, fmt.Errorf("record the OCSP signer of the CA %s: %w", record.Name, err)
	}
	a.cfg.Logger.InfoContext(ctx, "OCSP signer changed", "actor", req.Actor, "ca", record.Name, "signer", detail["ocsp_signer"])
	return a.state(ctx, record.ID)
}

// signerRow is the row of a signer where the ledger has none; one that is revoked is refused.
func (a *Authority) signerRow(ctx context.Context, signer *ocspSigner, c *authorityCA) ([]Certificate, error) {
	row := a.importedRow(signer.cert, c.cert, importPlace{ca: c.record.ID})
	have, err := a.cfg.Ledger.CertificateByID(ctx, row.CertID())
	switch {
	case errors.Is(err, ErrNotFound):
		return []Certificate{row}, nil
	case err != nil:
		return nil, err
	case have.Status == Revoked:
		return nil, invalid("ocsp_certificate", "it is revoked since %s (%s)", have.RevokedAt.UTC().Format("2006-01-02"), have.Reason)
	}
	return nil, nil
}
