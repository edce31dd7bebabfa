package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
)

// InitRequest is how the CAs are made. Zero fields have the default said beside them.
type InitRequest struct {
	KeyType        pkix.KeyType // of both CAs; ecdsa-p256
	RootSubject    string       // RFC 4514 or /C=.. form; "CN=sekisho Root CA"
	IssuingSubject string       // "CN=sekisho Issuing CA"
	Shards         int          // into how many CRLs the issuing CA's certificates go, at most MaxShards; DefaultShards
}

// Shards of an issuing CA. The number is fixed when the CA is made: each certificate names the list of its shard.
const (
	DefaultShards = 16
	MaxShards     = 1024
)

// Init makes the root and the issuing CA. When both exist it is ErrConflict. When only the root does, because a crash
// came between the two, it makes the issuing CA below that root.
func (a *Authority) Init(ctx context.Context, actor string, req InitRequest) error {
	a.initMu.Lock()
	defer a.initMu.Unlock()
	if err := a.load(ctx); err != nil {
		return err
	}
	if a.Ready() {
		return fmt.Errorf("the certificate authority %s exists already: %w", pkix.DNString(a.Issuing().RawSubject), ErrConflict)
	}
	keyType, err := pkix.ParseKeyType(string(req.KeyType))
	if err != nil {
		return invalid("key_type", "%v", err)
	}
	if req.Shards < 0 || req.Shards > MaxShards {
		return invalid("shards", "%d is not between 1 and %d", req.Shards, MaxShards)
	}
	for _, step := range []caPlan{
		{name: rootName, subject: req.RootSubject, fallback: "CN=sekisho Root CA", lifetime: a.cfg.RootLifetime, shards: 1},
		{
			name: issuingName, subject: req.IssuingSubject, fallback: "CN=sekisho Issuing CA", lifetime: a.cfg.IssuingLifetime,
			shards: cmp.Or(req.Shards, DefaultShards),
		},
	} {
		parent := a.cas.Load().root
		if step.name == rootName && parent != nil {
			continue
		}
		if err := a.createCA(ctx, actor, keyType, step); err != nil {
			return err
		}
		if err := a.load(ctx); err != nil {
			return err
		}
	}
	return nil
}

// caPlan is one CA to be made.
type caPlan struct {
	name              string
	subject, fallback string
	previous          []byte // Name of the CA that it comes after; then instead of fallback
	lifetime          time.Duration
	shards            int // 0: one
}

// createCA makes a key, signs the certificate and records it.
func (a *Authority) createCA(ctx context.Context, actor string, keyType pkix.KeyType, plan caPlan) error {
	parent := a.cas.Load().root
	if plan.name == rootName {
		parent = nil
	}
	made, err := a.makeCA(parent, keyType, plan)
	if err != nil {
		return err
	}
	subject := pkix.DNString(made.cert.RawSubject)
	entry := a.entry(actor, "ca.create", made.record.ID, map[string]string{
		"name": plan.name, "subject": subject, "key_type": string(keyType), "fingerprint": pkix.FingerprintOf(made.cert.Raw).String(),
	})
	if err := a.cfg.Ledger.AddCA(ctx, made.record, entry); err != nil {
		return fmt.Errorf("record the %s CA: %w", plan.name, err)
	}
	a.cfg.Logger.InfoContext(ctx, "certificate authority created", "name", plan.name, "id", made.record.ID,
		"subject", subject, "key_type", string(keyType), "not_after", made.cert.NotAfter)
	return nil
}

// dn is the subject of a CA to be made, in DER.
func (p caPlan) dn() ([]byte, error) {
	text := p.subject
	if text == "" {
		if p.previous != nil {
			return nextName(p.previous)
		}
		text = p.fallback
	}
	subject, err := pkix.ParseDN(text)
	if err != nil {
		return nil, invalid("subject", "%s CA: %v", p.name, err)
	}
	if isEmptyName(subject) { // RFC 5280, Section 4.1.2.4: an issuer has a name
		return nil, invalid("subject", "%s CA: a CA needs a name", p.name)
	}
	return subject, nil
}

// makeCA makes a key and signs a certificate for it; parent nil is a root. The name of the key is new each time, so that a
// key left behind by a crash is never taken for another's. Nothing is recorded yet.
func (a *Authority) makeCA(parent *authorityCA, keyType pkix.KeyType, plan caPlan) (*authorityCA, error) {
	subject, err := plan.dn()
	if err != nil {
		return nil, err
	}
	id := newID()
	record := CARecord{
		ID: id, Name: plan.name, KeyName: "ca-" + plan.name + "-" + id[:8], CreatedOn: a.now(), Shards: max(plan.shards, 1), Role: RoleRoot,
	}
	signer, err := a.cfg.Keys.Create(record.KeyName, keyType)
	if err != nil {
		return nil, fmt.Errorf("make the key of the %s CA: %w", plan.name, err)
	}
	ski, err := pkix.NewSKI(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("%s CA: %w", plan.name, err)
	}
	t := caTemplate{subject: subject, public: signer.Public(), ski: ski, pathLen: -1, lifetime: plan.lifetime}
	if parent != nil {
		record.Parent, record.Role = parent.record.ID, RoleIssuing
		t.pathLen = 0 // the issuing CA may sign end-entity certificates only
	}
	cert, err := a.signCA(parent, t, signer)
	if err != nil {
		return nil, fmt.Errorf("%s CA: %w", plan.name, err)
	}
	record.DER = cert.Raw
	return newCA(record, signer)
}

// caTemplate is a CA's certificate to be signed.
type caTemplate struct {
	subject  []byte // Name
	public   crypto.PublicKey
	ski      []byte
	pathLen  int // below 0: none
	lifetime time.Duration
}

// signCA signs a CA's certificate with its parent's key; parent nil is a root, which signs itself with self.
func (a *Authority) signCA(parent *authorityCA, c caTemplate, self crypto.Signer) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(c.public)
	if err != nil {
		return nil, err
	}
	notBefore := a.notBefore()
	t := tbsCertificate{
		serial: newSerial(), subject: c.subject, issuer: c.subject, spki: spki,
		notBefore: notBefore, notAfter: notBefore.Add(c.lifetime),
	}
	aki, issuerKey, issuerCert := c.ski, self, (*x509.Certificate)(nil)
	if parent == nil {
		if t.algorithm, err = algorithmOf(self); err != nil {
			return nil, err
		}
	} else {
		aki, issuerKey, issuerCert = pkix.SKI(parent.cert), parent.signer, parent.cert
		t.issuer, t.algorithm = parent.cert.RawSubject, parent.algorithm
		t.notBefore = later(notBefore, parent.cert.NotBefore)
		t.notAfter = earlier(t.notAfter, parent.cert.NotAfter)
	}
	t.extensions = []extension{
		basicConstraints(true, c.pathLen), keyUsageExtension(keyCertSign | cRLSign), subjectKeyID(c.ski), authorityKeyID(aki),
	}
	if parent != nil {
		t.extensions = append(t.extensions, a.pointers(parent, 0)...)
	}
	tbs, err := t.marshal()
	if err != nil {
		return nil, err
	}
	linted, err := a.linter.Check(tbs, t.algorithm)
	if err != nil {
		return nil, lintError("subject", err)
	}
	return sign(linted, issuerKey, issuerCert)
}

// pointers are the extensions that say where revocation is published.
func (a *Authority) pointers(issuer *authorityCA, shard int) []extension {
	return []extension{
		crlDistributionPoint(a.CRLURL(issuer.record.ID, shard)),
		authorityInfoAccess(a.OCSPURL(), a.CAURL(issuer.record.ID)),
	}
}

// now is the time in UTC, in whole seconds as certificates have it.
func (a *Authority) now() time.Time { return a.cfg.Now().UTC().Truncate(time.Second) }

// notBefore is five minutes ago in a whole minute: clocks of clients lag.
func (a *Authority) notBefore() time.Time { return a.now().Add(-5 * time.Minute).Truncate(time.Minute) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// newID is 32 lower hex digits.
func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// newUUID is a random UUID (RFC 9562, Section 5.4).
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// entry is an audit record of something done.
func (a *Authority) entry(actor, action, object string, detail map[string]string) auditlog.Entry {
	return auditlog.Entry{At: a.now(), Actor: actor, Action: action, Object: object, Outcome: "done", Detail: detail}
}
