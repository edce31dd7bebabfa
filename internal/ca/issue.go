package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sekisho/internal/ca/lint"
	"sekisho/internal/pkix"
)

// IssueRequest asks for a certificate. The key comes from CSR or from PublicKey; the subject from Subject, else
// SubjectDER, else the CSR; the names from the CSR and from the lists, together.
type IssueRequest struct {
	ZoneID  string // 32 lower hex; empty for certificates of the house itself
	CA      string // name or id of the CA; empty: the one in force
	Profile string // ProfileClient or ProfileServer
	Actor   string // for the audit log

	CSR       []byte           // PEM, at most 64 KiB
	PublicKey crypto.PublicKey // instead of CSR, for a key whose holder is known

	Subject     string // RFC 4514 or /C=.. form
	SubjectDER  []byte // RDNSequence in DER, passed through
	DNSNames    []string
	IPAddresses []netip.Addr
	URIs        []string
	Emails      []string

	ValidDays int       // 1 to the profile's most: client 5475, server 825
	NotAfter  time.Time // instead of ValidDays
}

// maxSerialTries: two equal serial numbers out of 2^158 mean a broken ledger or random source, not bad luck.
const maxSerialTries = 3

// maxLeafBytes bounds a certificate without its signature: five times what a long list of names on an ML-DSA key takes.
const maxLeafBytes = 16 << 10

// Issue checks, lints, signs and records a certificate, in this order, and returns it once it is durable. It returns a
// [*RequestError], ErrNotReady or ErrKeyBlocked; after any error there is no certificate.
func (a *Authority) Issue(ctx context.Context, req IssueRequest) (Certificate, error) {
	row, err := a.issue(ctx, req)
	if err != nil {
		a.counters.refused.Add(1)
		a.cfg.Logger.InfoContext(ctx, "certificate refused", "actor", req.Actor, "profile", req.Profile, "zone", req.ZoneID, "error", err)
		return Certificate{}, err
	}
	a.counters.issued.Add(1)
	a.cfg.Logger.InfoContext(ctx, "certificate issued", "actor", req.Actor, "profile", row.Profile, "zone", row.ZoneID,
		"id", row.ID, "serial", row.Serial.String(), "common_name", row.CommonName, "not_after", row.NotAfter)
	return row, nil
}

// IssueWithKey makes a key and a certificate for it. The key is returned and kept nowhere.
func (a *Authority) IssueWithKey(ctx context.Context, req IssueRequest, t pkix.KeyType) (Certificate, crypto.Signer, error) {
	if len(req.CSR) > 0 || req.PublicKey != nil {
		return Certificate{}, nil, invalid("csr", "a certificate request brings its own key; leave one of the two out")
	}
	keyType, err := pkix.ParseKeyType(string(t))
	if err != nil {
		return Certificate{}, nil, invalid("key_type", "%v", err)
	}
	key, err := pkix.GenerateKey(keyType)
	if err != nil {
		return Certificate{}, nil, fmt.Errorf("make a key: %w", err)
	}
	req.PublicKey = key.Public()
	row, err := a.Issue(ctx, req)
	if err != nil {
		return Certificate{}, nil, err
	}
	return row, key, nil
}

func (a *Authority) issue(ctx context.Context, req IssueRequest) (Certificate, error) {
	issuer, err := a.issuerFor(req.CA)
	if err != nil {
		return Certificate{}, err
	}
	p, err := profileFor(req.Profile)
	if err != nil {
		return Certificate{}, err
	}
	if !allowsUsage(issuer.cert, p.usage) {
		return Certificate{}, invalid("profile", "the certificate of the CA %s has an extended key usage that leaves %s certificates out", issuer.record.Name, p.name)
	}
	who, err := newApplicant(req, p)
	if err != nil {
		return Certificate{}, err
	}
	w, err := a.window(req, p, issuer.cert)
	if err != nil {
		return Certificate{}, err
	}
	return a.signAndRecord(ctx, issuance{issuer: issuer, profile: p, who: who, window: w, zoneID: req.ZoneID, actor: req.Actor})
}

// allowsUsage reports whether a CA's own extended key usage, where it has one, lets its certificates be for a purpose.
func allowsUsage(issuer *x509.Certificate, usage x509.ExtKeyUsage) bool {
	none := len(issuer.ExtKeyUsage)+len(issuer.UnknownExtKeyUsage) == 0
	return none || slices.Contains(issuer.ExtKeyUsage, usage) || slices.Contains(issuer.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// window is how long a certificate is valid.
type window struct {
	notBefore, notAfter time.Time
	days                int
}

// window computes a leaf's validity. A leaf never outlives its issuer: who asks for longer is told until when.
func (a *Authority) window(req IssueRequest, p profile, issuer *x509.Certificate) (window, error) {
	w := window{notBefore: later(a.notBefore(), issuer.NotBefore), days: req.ValidDays}
	if !req.NotAfter.IsZero() && req.ValidDays != 0 {
		return w, invalid("validity_days", "give a number of days or an end, not both")
	}
	if !req.NotAfter.IsZero() {
		w.notAfter = req.NotAfter.UTC().Truncate(time.Second)
		w.days = int((w.notAfter.Sub(w.notBefore) + day - 1) / day)
	} else {
		w.notAfter = w.notBefore.Add(time.Duration(min(max(req.ValidDays, 0), p.maxDays+1)) * day)
	}
	switch {
	case req.NotAfter.IsZero() && req.ValidDays < 1, w.days > p.maxDays:
		return w, invalid("validity_days", "%d is not between 1 and %d, the bounds of profile %s", w.days, p.maxDays, p.name)
	case !w.notAfter.After(a.now()):
		return w, invalid("validity_days", "the certificate would have ended at %s", w.notAfter.Format(time.RFC3339))
	case w.notAfter.After(issuer.NotAfter):
		return w, invalid("validity_days", "the certificate would outlive its issuer, which ends at %s; ask for at most %d days",
			issuer.NotAfter.Format(time.RFC3339), max(int(issuer.NotAfter.Sub(w.notBefore)/day), 0))
	}
	return w, nil
}

// issuance is a certificate that has been decided on.
type issuance struct {
	issuer  *authorityCA
	profile profile
	who     applicant
	window  window
	zoneID  string
	actor   string
}

// signAndRecord signs under a new serial number until the ledger takes it.
func (a *Authority) signAndRecord(ctx context.Context, i issuance) (Certificate, error) {
	for try := 1; ; try++ {
		row, err := a.signLeaf(i)
		if err != nil {
			return Certificate{}, err
		}
		entry := a.entry(i.actor, "certificate.issue", row.ID, map[string]string{
			"profile": row.Profile, "serial": row.Serial.String(), "subject": pkix.DNString(i.who.subject),
			"zone": row.ZoneID, "not_after": row.NotAfter.Format(time.RFC3339), "fingerprint": row.Fingerprint.String(),
		})
		err = a.cfg.Ledger.RecordCertificate(ctx, row, entry)
		switch {
		case err == nil:
			return row, nil
		case errors.Is(err, ErrSerialTaken) && try < maxSerialTries:
		case errors.Is(err, ErrKeyBlocked):
			return Certificate{}, fmt.Errorf("key %s: %w; make a new one", row.KeyHash, ErrKeyBlocked)
		default:
			return Certificate{}, fmt.Errorf("record the certificate: %w", err)
		}
	}
}

// signLeaf makes one signed certificate and the ledger row that holds it.
func (a *Authority) signLeaf(i issuance) (Certificate, error) {
	serial := newSerial()
	// The last octets of a random number spread evenly; the shard is in the certificate and never changes.
	shard := int(serial[18])<<8 | int(serial[19])
	shard %= i.issuer.record.Shards
	ski, err := pkix.NewSKI(i.who.pub)
	if err != nil {
		return Certificate{}, invalid("public_key", "%v", err)
	}
	t := tbsCertificate{
		serial: serial, algorithm: i.issuer.algorithm, issuer: i.issuer.cert.RawSubject, subject: i.who.subject,
		notBefore: i.window.notBefore, notAfter: i.window.notAfter, spki: i.who.spki,
	}
	t.extensions = []extension{
		basicConstraints(false, -1), keyUsageExtension(i.profile.keyUsage(i.who.pub)), extKeyUsageExtension(i.profile.usage),
		subjectKeyID(ski), authorityKeyID(pkix.SKI(i.issuer.cert)),
	}
	if !i.who.names.empty() {
		t.extensions = append(t.extensions, i.who.names.extension(isEmptyName(i.who.subject)))
	}
	if i.profile.noCheck {
		e := pkix.OCSPNoCheck()
		t.extensions = append(t.extensions, extension{e.Id, e.Critical, e.Value})
	} else {
		t.extensions = append(t.extensions, a.pointers(i.issuer, shard)...)
	}
	tbs, err := t.marshal()
	if err != nil {
		return Certificate{}, invalid("subject", "%v", err)
	}
	if len(tbs) > maxLeafBytes {
		return Certificate{}, invalid(i.who.source("subject"), "the certificate would have %d bytes; at most %d are signed, for it goes over the wire in each handshake: "+
			"shorten its subject and names", len(tbs), maxLeafBytes)
	}
	linted, err := a.linter.Check(tbs, t.algorithm)
	if err != nil {
		return Certificate{}, lintError(i.who.source("subject"), err)
	}
	cert, err := sign(linted, i.issuer.signer, i.issuer.cert)
	if err != nil {
		return Certificate{}, err
	}
	return a.row(i, cert, shard), nil
}

// row is the ledger's row of a certificate.
func (a *Authority) row(i issuance, cert *x509.Certificate, shard int) Certificate {
	return Certificate{
		ID: newUUID(), ZoneID: i.zoneID, CAID: i.issuer.record.ID, Profile: i.profile.name,
		IssuerKey: i.issuer.key, Serial: pkix.SerialOf(cert.SerialNumber), Shard: shard, DER: cert.Raw, CSR: i.who.csr,
		KeyHash: pkix.KeyIDOfSPKI(i.who.spki), CommonName: i.who.commonName,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, IssuedOn: a.now(), ValidDays: i.window.days,
		Status: Active, Fingerprint: pkix.FingerprintOf(cert.Raw),
	}
}

// lintError makes a refusal by the linter the request's fault; anything else stays what it is.
func lintError(field string, err error) error {
	if found, ok := errors.AsType[*lint.Error](err); ok {
		return invalid(field, "%v", found)
	}
	return invalid(field, "the certificate would be malformed (%v)", err)
}
