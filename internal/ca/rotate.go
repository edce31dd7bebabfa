package ca

import (
	"context"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
)

// RotateRequest asks for a new issuing CA. Zero fields have the default said beside them.
type RotateRequest struct {
	Actor       string
	KeyType     pkix.KeyType // that of the CA before it
	Subject     string       // of the issuing CA, RFC 4514 or /C=.. form; that of the CA before it with "G2", "G3", ... after its name
	Root        bool         // a new root too
	RootSubject string       // as Subject
	DryRun      bool         // say what would be, and do nothing
}

// Rotation is what a rotation did or would do.
type Rotation struct {
	New     []State             // parents first; without DryRun as they are stored, with it without id, key and certificate
	Retired []State             // CAs that issue no more; their certificates stay good until they end or are revoked
	Cross   []*x509.Certificate // the new root under the one before it, and those before under the new one; none with DryRun
}

// Rotate makes a new issuing CA with a key of its own below the root, or below a new root, and puts it in force; the CA
// before it issues no more, and goes on publishing what is revoked until it ends. A new root and those before it sign one
// another, so that who trusts one of them comes to the certificates of all. Everything is one transaction of the ledger:
// after an error nothing has changed, but for keys that nobody uses. It returns a [*RequestError] or ErrNotReady.
func (a *Authority) Rotate(ctx context.Context, req RotateRequest) (Rotation, error) {
	a.initMu.Lock()
	defer a.initMu.Unlock()
	if err := a.load(ctx); err != nil {
		return Rotation{}, err
	}
	if !a.Ready() {
		return Rotation{}, ErrNotReady
	}
	plans, keyType, err := a.rotationPlans(req)
	if err != nil {
		return Rotation{}, err
	}
	if req.DryRun {
		return a.dryRun(ctx, plans, keyType)
	}
	before := a.cas.Load()
	change, cross, err := a.makeRotation(plans, keyType)
	if err != nil {
		return Rotation{}, err
	}
	if err := a.recordRotation(ctx, req.Actor, change); err != nil {
		return Rotation{}, err
	}
	rotation := Rotation{Cross: cross}
	states, err := a.States(ctx)
	if err != nil {
		return rotation, err
	}
	for _, s := range states {
		if slices.ContainsFunc(change.Add, func(r CARecord) bool { return r.ID == s.ID }) {
			rotation.New = append(rotation.New, s)
		}
		if s.ID == before.issuing.record.ID || req.Root && s.ID == before.root.record.ID {
			rotation.Retired = append(rotation.Retired, s)
		}
	}
	return rotation, nil
}

// rotationPlans are the CAs that a rotation makes, the root first where there is one, and the type of their keys.
func (a *Authority) rotationPlans(req RotateRequest) ([]caPlan, pkix.KeyType, error) {
	h := a.cas.Load()
	text := string(req.KeyType)
	if text == "" {
		text = pkix.KeyTypeOf(h.issuing.cert.PublicKey)
	}
	keyType, err := pkix.ParseKeyType(text)
	if err != nil {
		return nil, "", invalid("key_type", "%v", err)
	}
	switch end := h.root.cert.NotAfter; {
	case req.RootSubject != "" && !req.Root:
		return nil, "", invalid("root_subject", "it is for a new root: set root too, or leave it out")
	case !req.Root && !a.notBefore().Before(end): // a CA below it would have ended before it begins
		return nil, "", invalid("root", "the root %s ended at %s: make a new one too, sekisho ca rotate --root",
			pkix.DNString(h.root.cert.RawSubject), end.UTC().Format(time.RFC3339))
	}
	var plans []caPlan
	if req.Root {
		plans = append(plans, caPlan{name: h.freeName(rootName), subject: req.RootSubject, previous: h.root.cert.RawSubject, lifetime: a.cfg.RootLifetime})
	}
	plans = append(plans, caPlan{
		name: h.freeName(issuingName), subject: req.Subject, previous: h.issuing.cert.RawSubject, lifetime: a.cfg.IssuingLifetime,
		shards: h.issuing.record.Shards,
	})
	var above []byte
	for _, p := range plans { // before any key is made
		subject, err := p.dn()
		if err != nil {
			return nil, "", err
		}
		if above != nil && pkix.SameName(subject, above) {
			return nil, "", invalid("subject", "%s would be the name of the root and of the issuing CA: clients could not tell the two apart; choose another",
				pkix.DNString(subject))
		}
		above = subject
		for _, c := range h.list {
			if pkix.SameName(subject, c.cert.RawSubject) {
				return nil, "", invalid("subject", "%s is the name of the CA %s already: clients could not tell the two apart; choose another",
					pkix.DNString(subject), c.record.Name)
			}
		}
	}
	return plans, keyType, nil
}

// freeName is base, or base with the first number that makes it free.
func (h *hierarchy) freeName(base string) string {
	name := base
	for n := 2; h.find(name) != nil; n++ {
		name = base + "-" + strconv.Itoa(n)
	}
	return name
}

// makeRotation makes keys and certificates. Nothing is recorded yet.
func (a *Authority) makeRotation(plans []caPlan, keyType pkix.KeyType) (change CAChange, cross []*x509.Certificate, err error) {
	h := a.cas.Load()
	parent := h.root
	retired := h.issuing.record
	retired.Retired = true
	change.Update = []CARecord{retired}
	if len(plans) == 2 {
		if parent, err = a.makeCA(nil, keyType, plans[0]); err != nil {
			return change, nil, err
		}
		forward, err := a.crossSign(h.root, parent)
		if err != nil {
			return change, nil, err
		}
		parent.record.Extra = forward.Raw
		older, back, err := a.signOlderRoots(parent)
		if err != nil {
			return change, nil, err
		}
		change.Add, change.Update = []CARecord{parent.record}, append(change.Update, older...)
		cross = append([]*x509.Certificate{forward}, back...)
	}
	issuing, err := a.makeCA(parent, keyType, plans[len(plans)-1])
	if err != nil {
		return change, nil, err
	}
	change.Add = append(change.Add, issuing.record)
	return change, cross, nil
}

// signOlderRoots has a new root sign every root before it that has not ended, the one in force first, so that one step
// leads from each to the newest. The newest cross certificate of a root comes first: openssl takes the first that fits.
func (a *Authority) signOlderRoots(root *authorityCA) (older []CARecord, cross []*x509.Certificate, err error) {
	for _, cert := range a.Roots() {
		for _, c := range a.cas.Load().list {
			if !c.cert.Equal(cert) {
				continue
			}
			back, err := a.crossSign(root, c)
			if err != nil {
				return nil, nil, err
			}
			record := c.record
			record.Extra, record.Retired = slices.Concat(back.Raw, record.Extra), true
			older, cross = append(older, record), append(cross, back)
		}
	}
	return older, cross, nil
}

// crossSign makes a certificate for the name and key of one root under another. It ends with the first of the two.
func (a *Authority) crossSign(issuer, subject *authorityCA) (*x509.Certificate, error) {
	cert, err := a.signCA(issuer, caTemplate{
		subject: subject.cert.RawSubject, public: subject.cert.PublicKey, ski: pkix.SKI(subject.cert), pathLen: -1,
		lifetime: subject.cert.NotAfter.Sub(a.notBefore()),
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("cross certificate of the %s CA by the %s CA: %w", subject.record.Name, issuer.record.Name, err)
	}
	return cert, nil
}

// recordRotation stores a rotation. After an error that leaves open whether it was stored, what is stored takes effect.
func (a *Authority) recordRotation(ctx context.Context, actor string, change CAChange) error {
	made := change.Add[len(change.Add)-1]
	detail := map[string]string{"fingerprint": pkix.FingerprintOf(made.DER).String(), "name": made.Name, "retired": change.Update[0].Name}
	if len(change.Add) > 1 {
		detail["root"], detail["retired_root"] = change.Add[0].Name, change.Update[1].Name
		detail["root_fingerprint"] = pkix.FingerprintOf(change.Add[0].DER).String()
	}
	err := a.storeCAs(ctx, change, a.entry(actor, "ca.rotate", made.ID, detail))
	if err != nil {
		return fmt.Errorf("record the rotation: %w", err)
	}
	a.cfg.Logger.InfoContext(ctx, "certificate authority rotated", "actor", actor, "name", made.Name, "id", made.ID, "retired", change.Update[0].Name)
	return nil
}

// dryRun says what a rotation would do.
func (a *Authority) dryRun(ctx context.Context, plans []caPlan, keyType pkix.KeyType) (Rotation, error) {
	var r Rotation
	parentEnd := a.cas.Load().root.cert.NotAfter
	for _, p := range plans {
		subject, err := p.dn()
		if err != nil {
			return r, err
		}
		s := State{CARecord: CARecord{Name: p.name, Role: RoleIssuing, Shards: max(p.shards, 1)}, InForce: true, Issues: true, HasKey: true}
		end := a.notBefore().Add(p.lifetime)
		if len(plans) == 2 && p.name == plans[0].name {
			s.Role, s.Issues, parentEnd = RoleRoot, false, end
		}
		s.Cert = &x509.Certificate{RawSubject: subject, NotBefore: a.notBefore(), NotAfter: earlier(end, parentEnd)}
		s.KeyType = keyType
		r.New = append(r.New, s)
	}
	states, err := a.States(ctx)
	for _, s := range states {
		if s.InForce && (s.Role == RoleIssuing || len(plans) == 2) {
			s.InForce, s.Issues, s.Retired = false, false, true
			r.Retired = append(r.Retired, s)
		}
	}
	return r, err
}

// nextName is a CA's subject with the next generation in its common name: "Example CA", "Example CA G2", "Example CA G3".
func nextName(subject []byte) ([]byte, error) {
	var name x509pkix.RDNSequence
	if rest, err := asn1.Unmarshal(subject, &name); err != nil || len(rest) > 0 {
		return nil, invalid("subject", "the name of the CA before cannot be carried on (%s); give one", pkix.DNString(subject))
	}
	commonName := asn1.ObjectIdentifier{2, 5, 4, 3}
	for i := range name {
		for j := range name[i] {
			if text, ok := name[i][j].Value.(string); ok && name[i][j].Type.Equal(commonName) {
				name[i][j].Value = nextGeneration(text)
				return asn1.Marshal(name)
			}
		}
	}
	name = append(name, x509pkix.RelativeDistinguishedNameSET{{Type: commonName, Value: "G2"}})
	return asn1.Marshal(name)
}

func nextGeneration(text string) string {
	found := regexp.MustCompile(`^(.*\S) G([1-9][0-9]{0,3})$`).FindStringSubmatch(text)
	if found == nil {
		return text + " G2"
	}
	n, err := strconv.Atoi(found[2])
	if err != nil {
		return text + " G2"
	}
	return found[1] + " G" + strconv.Itoa(n+1)
}

// storeCAs stores a change and loads what is stored then. After an error that leaves that open (a commit that failed on
// its way back) the caller gets the error all the same, and what is stored takes effect.
func (a *Authority) storeCAs(ctx context.Context, change CAChange, entry auditlog.Entry) error {
	ctx = context.WithoutCancel(ctx)
	stored := a.cfg.Ledger.ChangeCAs(ctx, change, entry)
	return errors.Join(stored, a.load(ctx))
}
