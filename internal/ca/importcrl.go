package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
)

// listOwner is the CA whose CRL is read.
type listOwner struct {
	id   string
	cert *x509.Certificate
	zone string
}

// readList is a CRL of another system, read.
type readList struct {
	list   List
	number *big.Int
	rows   []Certificate // one for each serial number
	part   bool          // it may be one of several lists
	floor  int64         // what our own numbers go on above
}

// readCRL reads a complete CRL of a CA and checks whose it is.
func (a *Authority) readCRL(data []byte, owner listOwner) (*readList, error) {
	der, err := pkix.ParsePEMOrDERCRL(data)
	if err != nil {
		return nil, invalid("crl", "%v", err)
	}
	crl, err := pkix.ParseCRLHeader(der)
	if err != nil {
		return nil, invalid("crl", "%v", err)
	}
	if err := a.checkCRL(crl, owner.cert); err != nil {
		return nil, err
	}
	r := &readList{list: List{ThisUpdate: crl.ThisUpdate}, number: crl.Number}
	if crl.Number != nil {
		r.list.Number = crl.Number.String()
	}
	r.part = crl.IDP != nil && (len(crl.IDP.FullName) > 0 || crl.IDP.Relative != nil)
	at := map[pkix.Serial]int{}
	err = crl.Walk(func(e pkix.CRLRecord) error {
		if len(e.Serial) > pkix.MaxSerialBytes {
			return fmt.Errorf("the serial number %x has %d octets; at most %d are taken", e.Serial[:16], len(e.Serial), pkix.MaxSerialBytes)
		}
		row := a.unknownRow(e, owner)
		if i, twice := at[row.Serial]; twice { // the last one says how it is, but what is final once stays so
			if !row.OnHold() || r.rows[i].OnHold() {
				r.rows[i] = row
			}
			return nil
		}
		at[row.Serial] = len(r.rows)
		r.rows = append(r.rows, row)
		return nil
	})
	if err != nil {
		return nil, invalid("crl", "%v", err)
	}
	return r, nil
}

// checkCRL judges whether a CRL speaks of the certificates of a CA, and of all it can say of them.
func (a *Authority) checkCRL(crl *pkix.CRL, issuer *x509.Certificate) error {
	idp := crl.IDP
	switch {
	case !pkix.SameName(crl.RawIssuer, issuer.RawSubject):
		return invalid("crl", "it is of %s, not of %s", pkix.DNString(crl.RawIssuer), pkix.DNString(issuer.RawSubject))
	case crl.BaseNumber != nil:
		return invalid("crl", "it is a delta CRL; give the complete one")
	case idp != nil && (idp.Indirect || idp.OnlyCA || idp.OnlyAttribute || idp.OnlySomeReasons != 0):
		return invalid("crl", "it is for some certificates or reasons only (issuing distribution point); give the one for the certificates of clients and servers")
	case crl.ThisUpdate.After(a.now().Add(5 * time.Minute)):
		return invalid("crl", "it is of the future: %s", crl.ThisUpdate.UTC().Format(time.RFC3339))
	}
	if err := crl.CheckSignature(issuer.PublicKey); err != nil {
		return invalid("crl", "it is not signed by the CA: %v", err)
	}
	return nil
}

// unknownRow is the row of a certificate of which only a CRL told. It ends, for all that is known, with its CA.
func (a *Authority) unknownRow(e pkix.CRLRecord, owner listOwner) Certificate {
	issuer := pkix.KeyIDOf(owner.cert)
	reason := e.Reason
	if !reason.Known() || reason == pkix.RemoveFromCRL {
		reason = pkix.Unspecified
	}
	row := Certificate{
		ID: newUUID(), ZoneID: owner.zone, CAID: owner.id, Profile: ProfileUnknown, IssuerKey: issuer, Serial: pkix.SerialFromBytes(e.Serial),
		NotBefore: owner.cert.NotBefore, NotAfter: owner.cert.NotAfter, IssuedOn: owner.cert.NotBefore,
		Status: Revoked, Reason: reason, RevokedAt: e.At.UTC(), InvalidityDate: e.InvalidityDate,
	}
	// No two rows may seem to have one key, nor one certificate.
	row.KeyHash = sha256.Sum256(append(append([]byte("unknown key of serial "), row.Serial.Bytes()...), issuer[:]...))
	row.Fingerprint = sha256.Sum256(append(append([]byte("unknown certificate of serial "), row.Serial.Bytes()...), issuer[:]...))
	return row
}

// setFloor makes our own CRL numbers go on above the list's.
func (r *readList) setFloor() error {
	if r.number == nil {
		return nil
	}
	if r.number.BitLen() > 61 {
		return invalid("crl", "its number %v is too large to go on from; numbers below 2^61 are taken", r.number)
	}
	r.floor = r.number.Int64()
	for i := range r.rows {
		r.rows[i].CRLNumber = r.floor
	}
	return nil
}

// ImportCRLRequest brings a newer CRL of a CA whose key is elsewhere.
type ImportCRLRequest struct {
	Actor  string
	CA     string // name or id
	ZoneID string // of certificates that only the CRL tells of, so that they are found there
	CRL    []byte // PEM or DER
}

// ImportCRLResult is what a CRL changed.
type ImportCRLResult struct {
	Name                 string // of the CA
	List                 List
	Entries              int
	Revoked, Reactivated int
	// Part: the list may be one of several, so holds that are not in it stay.
	Part bool
}

// ImportCRL makes the ledger say what a newer CRL of a CA says whose key is elsewhere: what is listed is revoked, a thousand
// entries in a transaction, and in the last one what was on hold and left the list becomes active again and the list is the
// newest. After an error in between some are revoked, and importing the list again goes on. It returns a [*RequestError],
// or ErrConflict for a list that is not newer than the last one.
func (a *Authority) ImportCRL(ctx context.Context, req ImportCRLRequest) (ImportCRLResult, error) {
	a.initMu.Lock()
	defer a.initMu.Unlock()
	c, err := a.named(req.CA)
	if err != nil {
		return ImportCRLResult{}, err
	}
	switch {
	case c.record.unfinished():
		return ImportCRLResult{}, invalid("ca", "the import of %s was broken off; import it again: sekisho ca import", c.record.Name)
	case c.signs():
		return ImportCRLResult{}, invalid("ca", "the key of %s is here, so its CRL is made here: revoke its certificates with sekisho cert revoke", c.record.Name)
	}
	list, err := a.readCRL(req.CRL, listOwner{id: c.record.ID, cert: c.cert, zone: req.ZoneID})
	if err != nil {
		return ImportCRLResult{}, err
	}
	result := ImportCRLResult{Name: c.record.Name, List: list.list, Entries: len(list.rows), Part: list.part}
	if !list.list.NewerThan(c.record.List) {
		return result, fmt.Errorf("this CRL of %s (%s) is not newer than the last one (%s): %w", c.record.Name, list.list, c.record.List, ErrConflict)
	}
	entry := a.entry(req.Actor, "ca.import_crl", c.record.ID, map[string]string{
		"name": c.record.Name, "crl_number": list.list.Number, "this_update": list.list.ThisUpdate.UTC().Format(time.RFC3339), "entries": fmt.Sprint(len(list.rows)),
	})
	step := ListImport{CAID: c.record.ID, At: a.now()}
	for part := range slices.Chunk(list.rows, maxAtOnce) {
		step.Rows = part
		changed, err := a.importPart(ctx, step, entry)
		result.Revoked += len(changed)
		if err != nil {
			// A part before may have revoked a CA below.
			return result, fmt.Errorf("record the CRL of %s; import it again: %w", c.record.Name, errors.Join(err, a.load(context.WithoutCancel(ctx))))
		}
	}
	step.Rows, step.List = nil, list.list
	if !list.part {
		step.Listed = make(map[pkix.Serial]bool, len(list.rows))
		for _, row := range list.rows {
			step.Listed[row.Serial] = true
		}
	}
	changed, err := a.importPart(ctx, step, entry)
	result.Reactivated = len(changed)
	if err := errors.Join(err, a.load(context.WithoutCancel(ctx))); err != nil {
		return result, fmt.Errorf("record the CRL of %s: %w", c.record.Name, err)
	}
	a.cfg.Logger.InfoContext(ctx, "CRL imported", "actor", req.Actor, "ca", c.record.Name, "number", list.list.Number,
		"entries", len(list.rows), "revoked", result.Revoked, "reactivated", result.Reactivated)
	return result, nil
}

// maxAtOnce is how many entries of a list are stored in one transaction: other writes, a revocation for one, wait for no
// more of them.
const maxAtOnce = 1000

// importPart stores a part of a list and tells of it.
func (a *Authority) importPart(ctx context.Context, step ListImport, entry auditlog.Entry) ([]Certificate, error) {
	defer a.lockStates(Transition{Block: true})()
	changed, err := a.cfg.Ledger.ImportList(context.WithoutCancel(ctx), step, entry)
	if err != nil { // it may be stored all the same
		for _, row := range a.rowsNow(ctx, step.Rows) {
			a.tell(row)
			a.tellSameKey(ctx, row)
		}
		return nil, err
	}
	for _, row := range changed {
		a.tell(row)
	}
	return changed, nil
}

// String says which list it is.
func (l List) String() string {
	if l.Number == "" {
		return "without a number, of " + l.ThisUpdate.UTC().Format(time.RFC3339)
	}
	return "number " + l.Number + " of " + l.ThisUpdate.UTC().Format(time.RFC3339)
}

// rowsNow reads the rows of certificates as they are in the ledger; those that are not there are left out.
func (a *Authority) rowsNow(ctx context.Context, rows []Certificate) []Certificate {
	ctx = context.WithoutCancel(ctx)
	var now []Certificate
	for _, row := range rows {
		if have, err := a.cfg.Ledger.CertificateByID(ctx, row.CertID()); err == nil {
			now = append(now, have)
		}
	}
	return now
}
