package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
)

// ImportRequest brings a CA that was made elsewhere: with its key, to issue, revoke and publish for it here; or without,
// with a delegated OCSP signer instead, to answer for it. Everything but the key may be PEM or DER, Chain PEM only.
type ImportRequest struct {
	Actor       string
	ZoneID      string // of certificates that only CRL tells of, so that they are found there
	Name        string // a-z, 0-9, dots, dashes and underscores; made of the common name unless given
	Certificate []byte // one certificate
	Chain       []byte // its issuers, the next one first; a root among them is left out
	Key         []byte // PEM, maybe encrypted; empty: the key stays elsewhere
	Passphrase  []byte // of Key and SignerKey, where they are encrypted
	CRL         []byte // what the CA has published last: its entries are revoked here, and our numbers go on above its number
	Shards      int    // CRL shards of certificates issued here, 1 to 1024; 0: as many as the CA in force has
	Untrusted   bool   // hosts do not let its clients in as those of the managed CA

	SignerCertificate []byte // OCSP signer: signed by the CA, with the extended key usage OCSPSigning
	SignerKey         []byte // PEM, maybe encrypted
}

// ImportResult is what an import stored.
type ImportResult struct {
	CA      State
	Revoked int // certificates that the CRL said are revoked
}

const (
	maxChain = 8
)

// imported is an import that has been checked.
type imported struct {
	record CARecord
	cert   *x509.Certificate
	key    crypto.Signer // nil: elsewhere
	signer *ocspSigner   // nil: none given
	list   *readList     // nil: none given
	again  bool          // an import that was broken off goes on
}

// Import checks everything first, stores keys, and then the CA with what its CRL says. A CRL of over a thousand entries is
// stored in parts, lest other writes wait; until the last part is there the CA does nothing and nobody trusts it, and after
// an error in between importing it again goes on. It returns a
// [*RequestError], ErrNotReady, or ErrConflict for a CA, a key or a name that is here already; then nothing is stored. The
// caller has the hosts trust the CA after it ([Authority.ClientAnchors]).
func (a *Authority) Import(ctx context.Context, req ImportRequest) (ImportResult, error) {
	a.initMu.Lock()
	defer a.initMu.Unlock()
	if err := a.load(ctx); err != nil {
		return ImportResult{}, err
	}
	if !a.Ready() {
		return ImportResult{}, ErrNotReady
	}
	in, err := a.checkImport(ctx, req)
	if err != nil {
		return ImportResult{}, err
	}
	if err := a.storeImportedKeys(&in); err != nil {
		return ImportResult{}, err
	}
	var rows []Certificate
	if in.list != nil {
		rows = in.list.rows
	}
	revoked := len(rows)
	if err := a.storeImport(ctx, in, rows, a.entry(req.Actor, "ca.import", in.record.ID, in.detail(revoked))); err != nil {
		return ImportResult{}, fmt.Errorf("record the CA %s: %w", in.record.Name, err)
	}
	a.cfg.Logger.InfoContext(ctx, "certificate authority imported", "actor", req.Actor, "name", in.record.Name, "id", in.record.ID,
		"subject", pkix.DNString(in.cert.RawSubject), "key", in.key != nil, "revoked", revoked, "not_after", in.cert.NotAfter)
	state, err := a.state(ctx, in.record.ID)
	return ImportResult{CA: state, Revoked: revoked}, err
}

// storeImport stores a CA with what its CRL says: in one transaction, or, where the list is long, the CA first as one that
// does nothing and that nobody trusts, then the list in parts, and then the CA as it shall be.
func (a *Authority) storeImport(ctx context.Context, in imported, rows []Certificate, entry auditlog.Entry) error {
	change := CAChange{Add: []CARecord{in.record}}
	if in.list != nil {
		change.Floor = in.list.floor
	}
	var signer []Certificate
	if in.signer != nil { // it may have come by another way after an import that was broken off
		var err error
		if signer, err = a.signerRow(ctx, in.signer, &authorityCA{record: in.record, cert: in.cert}); err != nil {
			return err
		}
	}
	if len(rows) <= maxAtOnce && !in.again {
		change.Certificates = append(slices.Clone(rows), signer...)
		err := a.storeCAs(ctx, change, entry)
		if a.cas.Load().find(in.record.ID) != nil { // also after an error that came when it was stored already
			for _, row := range rows {
				a.tell(row)
			}
		}
		return err
	}
	if !in.again {
		waiting := in.record
		waiting.Retired, waiting.Untrusted = true, true
		change.Add[0] = waiting
		if err := a.storeCAs(ctx, change, entry); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(rows, maxAtOnce) {
		if _, err := a.importPart(ctx, ListImport{CAID: in.record.ID, Rows: part, At: a.now()}, entry); err != nil {
			return fmt.Errorf("its CRL is not stored whole, so it does nothing yet; import it again: %w", err)
		}
	}
	return a.storeCAs(ctx, CAChange{Update: []CARecord{in.record}, Floor: change.Floor, Certificates: signer}, entry)
}

// detail is what the audit log says of an import.
func (in imported) detail(revoked int) map[string]string {
	detail := map[string]string{
		"name": in.record.Name, "subject": pkix.DNString(in.cert.RawSubject), "fingerprint": pkix.FingerprintOf(in.cert.Raw).String(),
		"key_type": pkix.KeyTypeOf(in.cert.PublicKey), "key": fmt.Sprint(in.key != nil), "trusted": fmt.Sprint(!in.record.Untrusted),
	}
	if in.list != nil {
		detail["crl_number"], detail["revoked"] = in.list.list.Number, fmt.Sprint(revoked)
	}
	if in.signer != nil {
		detail["ocsp_signer"] = pkix.FingerprintOf(in.signer.cert.Raw).String()
	}
	return detail
}

// state is how one CA stands.
func (a *Authority) state(ctx context.Context, id string) (State, error) {
	states, err := a.States(ctx)
	if err != nil {
		return State{}, err
	}
	for _, s := range states {
		if s.ID == id {
			return s, nil
		}
	}
	return State{}, fmt.Errorf("certificate authority %.40q: %w", id, ErrNotFound)
}

// storeImportedKeys makes the keys durable, under names that are new each time.
func (a *Authority) storeImportedKeys(in *imported) error {
	if in.key != nil && !in.again {
		in.record.KeyName = "ca-imported-" + in.record.ID[:8]
		if _, err := a.cfg.Keys.Add(in.record.KeyName, in.key); err != nil {
			return fmt.Errorf("store the key of the CA %s: %w", in.record.Name, err)
		}
	}
	if in.signer != nil {
		in.record.Signer = Signer{DER: in.signer.cert.Raw, KeyName: newSignerName()}
		if _, err := a.cfg.Keys.Add(in.record.Signer.KeyName, in.signer.key); err != nil {
			return fmt.Errorf("store the key of the OCSP signer of the CA %s: %w", in.record.Name, err)
		}
	}
	return nil
}

func newSignerName() string { return "ocsp-" + newID()[:16] }

// checkImport reads and judges everything that came.
func (a *Authority) checkImport(ctx context.Context, req ImportRequest) (imported, error) {
	var in imported
	var err error
	if in.cert, err = readCertificate("certificate", req.Certificate); err != nil {
		return in, err
	}
	if err := a.checkCA(ctx, in.cert, len(req.Key) > 0); err != nil {
		return in, err
	}
	switch {
	case len(req.Key) == 0 && len(req.SignerCertificate)+len(req.SignerKey) == 0:
		return in, invalid("key", "give the key of the CA, or where that stays elsewhere a certificate and key of an OCSP signer")
	case len(req.Key) > 0:
		if in.key, err = readKey("key", req.Key, req.Passphrase, in.cert); err != nil {
			return in, err
		}
	}
	h := a.cas.Load()
	in.record = CARecord{
		ID: newID(), DER: in.cert.Raw, CreatedOn: a.now(), Shards: req.Shards, Role: RoleIssuing, Imported: true, Untrusted: req.Untrusted,
	}
	switch {
	case req.Shards == 0:
		in.record.Shards = h.issuing.record.Shards
	case req.Shards < 0 || req.Shards > MaxShards:
		return in, invalid("shards", "%d is not between 1 and %d", req.Shards, MaxShards)
	}
	if err := h.identify(&in, req.Name); err != nil {
		return in, err
	}
	if in.record.Extra, err = a.readChain(req.Chain, in.cert); err != nil {
		return in, err
	}
	if len(req.SignerCertificate)+len(req.SignerKey) > 0 {
		if in.signer, err = a.readSigner(req.SignerCertificate, req.SignerKey, req.Passphrase, in.cert); err != nil {
			return in, err
		}
	}
	return in, a.readFirstList(&in, req)
}

// readFirstList reads the CRL that comes with an import.
func (a *Authority) readFirstList(in *imported, req ImportRequest) (err error) {
	switch {
	case len(req.CRL) == 0 && in.again: // else what the CRL has that is not stored yet would be good
		return invalid("crl", "the import of this CA was begun with a CRL, which is not stored whole; give it, or a newer one, again")
	case len(req.CRL) == 0:
		return nil
	}
	if in.list, err = a.readCRL(req.CRL, listOwner{id: in.record.ID, cert: in.cert, zone: req.ZoneID}); err != nil {
		return err
	}
	if in.key != nil {
		if err := in.list.setFloor(); err != nil {
			return err
		}
	}
	if in.again && in.record.List.NewerThan(in.list.list) {
		return invalid("crl", "the import of this CA was begun with a newer CRL (%s); give that one, or a newer one, again", in.record.List)
	}
	in.record.List = in.list.list
	if in.signer != nil {
		serial := pkix.SerialOf(in.signer.cert.SerialNumber)
		if slices.ContainsFunc(in.list.rows, func(c Certificate) bool { return c.Serial == serial }) {
			return invalid("ocsp_certificate", "the CRL says that the OCSP signer is revoked")
		}
	}
	return nil
}

// identify gives the CA its name, or those that it has already where its import goes on: name, id, key and shards.
func (h *hierarchy) identify(in *imported, name string) (err error) {
	at := slices.IndexFunc(h.list, func(c *authorityCA) bool { return c.cert.Equal(in.cert) })
	if at < 0 {
		in.record.Name, err = h.nameFor(name, in.cert)
		return err
	}
	have := h.list[at].record
	if (have.KeyName == "") != (in.key == nil) {
		return invalid("key", "the import of this CA was begun with the other choice about its key; make the same")
	}
	in.again = true
	in.record.ID, in.record.Name, in.record.KeyName, in.record.Shards, in.record.List = have.ID, have.Name, have.KeyName, have.Shards, have.List
	return nil
}

// nameFor is the name of an imported CA, which nobody else has.
func (h *hierarchy) nameFor(asked string, cert *x509.Certificate) (string, error) {
	if asked == "" {
		return h.freeName(slug(pkix.CommonName(cert.RawSubject))), nil
	}
	switch {
	case asked != ActiveName && slug(asked) != asked:
		return "", invalid("name", "%.60q is no name for a CA: use up to 40 of a-z, 0-9, dot, dash and underscore, a letter or digit first", asked)
	case asked == ActiveName:
		return "", invalid("name", "%s always means the CA in force; choose another", asked)
	case h.find(asked) != nil:
		return "", fmt.Errorf("a CA has the name %s already: %w", asked, ErrConflict)
	}
	return asked, nil
}

// slug makes a name of a text: lower case, and a dash for whatever a name cannot have.
func slug(text string) string {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789._-"
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case b.Len() == 40:
		case strings.ContainsRune(allowed, r) && (b.Len() > 0 || !strings.ContainsRune("._-", r)):
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	name := strings.TrimRight(b.String(), "-")
	if name == "" || name == ActiveName {
		return "imported"
	}
	return name
}
