package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/pkix"
)

// hierarchy is the CAs there are; it is replaced, never changed.
type hierarchy struct {
	root    *authorityCA // in force; nil: none yet
	issuing *authorityCA // in force; nil: none yet
	list    []*authorityCA
	below   map[pkix.CertID]bool // certificates of CAs and cross certificates, by the CAs of ours that signed them
}

// authorityCA is a CA, with its key where we have it.
type authorityCA struct {
	record    CARecord
	cert      *x509.Certificate
	extra     []*x509.Certificate
	signer    crypto.Signer // nil: the key is elsewhere
	key       pkix.KeyID
	algorithm []byte // AlgorithmIdentifier of what it signs
	hashes    issuerHashes
	ocsp      *ocspSigner // made elsewhere; nil: a delegate of our own making signs
	revoked   bool        // by a CA of ours above it; nothing is issued by it and none of its clients let in
}

// signs reports whether we have the CA's key.
func (c *authorityCA) signs() bool { return c.signer != nil }

// issues reports whether certificates of clients and servers may be asked of the CA.
func (c *authorityCA) issues() bool {
	return c.record.Role == RoleIssuing && !c.record.Retired && c.signs() && !c.revoked
}

// all lists the loaded CAs, parents first.
func (h *hierarchy) all() []*authorityCA { return h.list }

// load reads the CAs from the ledger.
func (a *Authority) load(ctx context.Context) error {
	records, err := a.cfg.Ledger.CAs(ctx)
	if err != nil {
		return fmt.Errorf("read the certificate authorities: %w", err)
	}
	h := hierarchy{below: map[pkix.CertID]bool{}}
	for _, r := range records {
		loaded, err := a.loadCA(r)
		if err != nil {
			return fmt.Errorf("%s CA: %w", r.Name, err)
		}
		h.list = append(h.list, loaded)
		// Of several in force the latest is meant: those before it are retired in the transaction that stores it.
		switch r = loaded.record; {
		case r.Imported || r.Retired:
		case r.Role == RoleRoot:
			h.root = loaded
		default:
			h.issuing = loaded
		}
	}
	h.findBelow()
	if err := a.findRevoked(ctx, &h); err != nil {
		return err
	}
	a.cas.Store(&h)
	if len(records) == 0 {
		return nil // no certificate names an address yet
	}
	return a.publisher.loadURLs(ctx)
}

// findBelow fills below. That a CA signed a certificate is found out by its signature: names are not proof.
func (h *hierarchy) findBelow() {
	for _, c := range h.list {
		for _, cert := range append([]*x509.Certificate{c.cert}, c.extra...) {
			for _, issuer := range h.list {
				if issuer.signed(cert) {
					h.below[pkix.CertID{Issuer: issuer.key, Serial: pkix.SerialOf(cert.SerialNumber)}] = true
				}
			}
		}
	}
}

// findRevoked marks the CAs that a CA of ours has revoked, as the CRLs of imported CAs say.
func (a *Authority) findRevoked(ctx context.Context, h *hierarchy) error {
	for _, c := range h.list {
		serial := pkix.SerialOf(c.cert.SerialNumber)
		for _, issuer := range h.list {
			if !h.below[pkix.CertID{Issuer: issuer.key, Serial: serial}] || !issuer.signed(c.cert) {
				continue
			}
			row, err := a.cfg.Ledger.CertificateByID(ctx, pkix.CertID{Issuer: issuer.key, Serial: serial})
			if err != nil && !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("is the %s CA revoked: %w", c.record.Name, err)
			}
			c.revoked = c.revoked || err == nil && row.Status == Revoked
		}
	}
	return nil
}

// CertifiesCA reports whether a certificate is that of a CA of ours, so that its revocation says who is let in.
func (a *Authority) CertifiesCA(id pkix.CertID) bool { return a.cas.Load().below[id] }

// signedBy reports whether the issuer's key signed a certificate, RSASSA-PSS with any salt included.
func signedBy(cert, issuer *x509.Certificate) bool {
	return pkix.SameName(cert.RawIssuer, issuer.RawSubject) &&
		pkix.VerifySignature(cert.RawSignatureAlgorithm, issuer.PublicKey, cert.RawTBSCertificate, cert.Signature) == nil
}

// signed reports whether the CA signed a certificate, its own of a root aside.
func (c *authorityCA) signed(cert *x509.Certificate) bool {
	return !cert.Equal(c.cert) && signedBy(cert, c.cert)
}

// unfinished reports whether the import of a CA was broken off before its CRL was stored whole: nobody else retires an
// imported CA. Until it is imported again nothing is signed for it.
func (r CARecord) unfinished() bool { return r.Imported && r.Retired }

// loadCA finds the keys of a record.
func (a *Authority) loadCA(r CARecord) (*authorityCA, error) {
	if r.unfinished() {
		return newCA(r, nil)
	}
	var signer crypto.Signer
	var err error
	if r.KeyName != "" {
		if signer, err = a.cfg.Keys.Signer(r.KeyName); err != nil {
			return nil, fmt.Errorf("key %s: %w", r.KeyName, err)
		}
	}
	loaded, err := newCA(r, signer)
	if err != nil || len(r.Signer.DER) == 0 {
		return loaded, err
	}
	key, err := a.cfg.Keys.Signer(r.Signer.KeyName)
	if err != nil {
		return nil, fmt.Errorf("key %s of its OCSP signer: %w", r.Signer.KeyName, err)
	}
	cert, err := x509.ParseCertificate(r.Signer.DER)
	if err != nil {
		return nil, fmt.Errorf("certificate of its OCSP signer: %w", err)
	}
	if !samePublicKey(key.Public(), cert.PublicKey) {
		return nil, fmt.Errorf("key %s is not the key of its OCSP signer", r.Signer.KeyName)
	}
	if key, err = signsLike(cert, key); err != nil {
		return nil, fmt.Errorf("its OCSP signer: %w", err)
	}
	loaded.ocsp = &ocspSigner{key: key, cert: cert}
	return loaded, nil
}

// newCA joins a CA's record and its key; signer nil is a key that is elsewhere.
func newCA(r CARecord, signer crypto.Signer) (*authorityCA, error) {
	cert, err := x509.ParseCertificate(r.DER)
	if err != nil {
		return nil, err
	}
	extra, err := x509.ParseCertificates(r.Extra)
	if err != nil {
		return nil, fmt.Errorf("certificates to send along: %w", err)
	}
	r.Shards = max(r.Shards, 1)
	if r.Role == "" {
		r.Role = RoleIssuing
		if r.Parent == "" {
			r.Role = RoleRoot
		}
	}
	c := &authorityCA{record: r, cert: cert, extra: extra, key: pkix.KeyIDOf(cert), hashes: hashIssuer(cert)}
	if signer == nil {
		return c, nil
	}
	if c.signer, err = signsLike(cert, signer); err != nil {
		return nil, err
	}
	if !samePublicKey(signer.Public(), cert.PublicKey) {
		return nil, fmt.Errorf("key %s is not the key of the certificate", r.KeyName)
	}
	c.algorithm, err = algorithmOf(c.signer)
	return c, err
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Ready reports whether certificates can be issued.
func (a *Authority) Ready() bool { return a.cas.Load().issuing != nil }

// Root is the certificate of the root in force; nil when there is none yet.
func (a *Authority) Root() *x509.Certificate {
	if h := a.cas.Load(); h.root != nil {
		return h.root.cert
	}
	return nil
}

// Issuing is the certificate of the CA that issues; nil when there is none yet.
func (a *Authority) Issuing() *x509.Certificate {
	if h := a.cas.Load(); h.issuing != nil {
		return h.issuing.cert
	}
	return nil
}

// Roots are the certificates of our own roots that have not ended, the one in force first, then the latest first: what a
// client of our servers trusts.
func (a *Authority) Roots() []*x509.Certificate {
	h, now := a.cas.Load(), a.cfg.Now()
	var roots []*x509.Certificate
	for _, c := range slices.Backward(h.list) {
		if c.record.Role == RoleRoot && !c.record.Imported && c != h.root && now.Before(c.cert.NotAfter) {
			roots = append(roots, c.cert)
		}
	}
	if h.root != nil {
		roots = slices.Insert(roots, 0, h.root.cert)
	}
	return roots
}

// ClientAnchors are the certificates of the CAs whose clients hosts let in as those of the managed CA: the one in force,
// which comes first, and every other issuing CA that is trusted, also one that issues no more, until it ends or the CA
// above it has revoked it.
func (a *Authority) ClientAnchors() []*x509.Certificate {
	h, now := a.cas.Load(), a.cfg.Now()
	var anchors []*x509.Certificate
	for _, c := range h.list {
		switch {
		case c.revoked:
		case c == h.issuing:
			anchors = slices.Insert(anchors, 0, c.cert)
		case c.record.Role == RoleIssuing && !c.record.Untrusted && now.Before(c.cert.NotAfter):
			anchors = append(anchors, c.cert)
		}
	}
	return anchors
}

// IssuerOf is the certificate of the CA of ours that signed a certificate; nil when none did.
func (a *Authority) IssuerOf(cert *x509.Certificate) *x509.Certificate {
	if c := a.cas.Load().issuerOf(cert); c != nil {
		return c.cert
	}
	return nil
}

func (h *hierarchy) issuerOf(cert *x509.Certificate) *authorityCA {
	for _, c := range h.list {
		if c.signed(cert) {
			return c
		}
	}
	return nil
}

// Chain is what a server sends after a certificate of the CA with that id: the CA, and then whatever is needed to come to a
// root that clients may have: the chain of an imported CA, the cross certificates of roots that were renewed, from the
// newest root to the oldest. Certificates that have ended are left out. It returns ErrNotFound for a CA that is none.
func (a *Authority) Chain(caID string) ([]*x509.Certificate, error) {
	c, err := a.ca(caID)
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now()
	chain := []*x509.Certificate{c.cert}
	for _, cert := range c.extra {
		if now.Before(cert.NotAfter) {
			chain = append(chain, cert)
		}
	}
	h := a.cas.Load()
	for root := h.find(c.record.Parent); root != nil; {
		cross, older := h.crossToOlder(root, now)
		if cross == nil {
			break
		}
		chain, root = append(chain, cross), older
	}
	return chain, nil
}

// crossToOlder is the certificate of a root that an older root of ours has signed; nil when there is none.
func (h *hierarchy) crossToOlder(root *authorityCA, now time.Time) (*x509.Certificate, *authorityCA) {
	at := slices.Index(h.list, root)
	for _, cross := range root.extra {
		for _, older := range h.list[:at] {
			if older.record.Role == RoleRoot && older.signed(cross) && now.Before(cross.NotAfter) && now.Before(older.cert.NotAfter) {
				return cross, older
			}
		}
	}
	return nil, nil
}

// find returns the CA of a name or an id; nil when there is none.
func (h *hierarchy) find(ref string) *authorityCA {
	if ref == ActiveName {
		return h.issuing
	}
	for _, c := range h.list {
		if ref != "" && (c.record.ID == ref || c.record.Name == ref) {
			return c
		}
	}
	return nil
}

// ResolveCA is the id of the CA of a name or an id; of [ActiveName] that of the CA in force. What names no CA comes back
// as it is.
func (a *Authority) ResolveCA(ref string) string {
	if c := a.cas.Load().find(ref); c != nil {
		return c.record.ID
	}
	return ref
}

// ca finds a CA by its id.
func (a *Authority) ca(id string) (*authorityCA, error) {
	if c := a.cas.Load().find(id); c != nil && c.record.ID == id {
		return c, nil
	}
	return nil, fmt.Errorf("certificate authority %.40q: %w", id, ErrNotFound)
}

// named finds a CA by its name or id, as requests name it; "" is the one in force.
func (a *Authority) named(ref string) (*authorityCA, error) {
	h := a.cas.Load()
	if h.issuing == nil {
		return nil, ErrNotReady
	}
	if c := h.find(cmp.Or(ref, ActiveName)); c != nil {
		return c, nil
	}
	return nil, invalid("ca", "there is no CA %.60q; sekisho ca show lists them", ref)
}

// issuerFor finds the CA that a certificate is asked of; "" is the one in force.
func (a *Authority) issuerFor(ref string) (*authorityCA, error) {
	c, err := a.named(ref)
	if err != nil {
		return nil, err
	}
	switch r := c.record; {
	case c.issues():
		return c, nil
	case c.revoked:
		return nil, invalid("ca", "%s is revoked by the CA above it", r.Name)
	case r.Role == RoleRoot:
		return nil, invalid("ca", "%s is a root, which signs CAs only; leave ca out for the CA in force", r.Name)
	case !c.signs():
		return nil, invalid("ca", "the key of %s is not here: ask whoever has it, and import what it issues with sekisho cert import", r.Name)
	default:
		return nil, invalid("ca", "%s issues no more since it was rotated; leave ca out for the CA in force", r.Name)
	}
}

// State is how a CA stands now.
type State struct {
	CARecord
	Cert     *x509.Certificate
	KeyType  pkix.KeyType        // as pkix.KeyTypeOf names it
	Extra    []*x509.Certificate // as Chain and the publisher know them
	InForce  bool                // what is asked of no CA by name is asked of this one
	Issues   bool                // certificates may be asked of it
	Broken   bool                // its import was broken off; importing it again goes on
	HasKey   bool
	SignerTo time.Time // end of the OCSP signer that was made elsewhere; zero: none
	Count    CACount
}

// States returns how all CAs stand, parents first.
func (a *Authority) States(ctx context.Context) ([]State, error) {
	counts, err := a.cfg.Ledger.CACounts(ctx)
	if err != nil {
		return nil, fmt.Errorf("count the certificates of each CA: %w", err)
	}
	h := a.cas.Load()
	states := make([]State, len(h.list))
	for i, c := range h.list {
		states[i] = State{
			CARecord: c.record, Cert: c.cert, KeyType: pkix.KeyType(pkix.KeyTypeOf(c.cert.PublicKey)), Extra: c.extra, InForce: c == h.root || c == h.issuing, Issues: c.issues(), HasKey: c.signs(),
			Broken: c.record.unfinished(), Count: counts[c.record.ID],
		}
		if c.ocsp != nil {
			states[i].SignerTo = c.ocsp.cert.NotAfter
		}
	}
	return states, nil
}
