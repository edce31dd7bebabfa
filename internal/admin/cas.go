package admin

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// caObject is one of our CAs: what everybody may see, never its key.
type caObject struct {
	ID                string `json:"id,omitempty"`
	Name              string `json:"name"`
	Parent            string `json:"parent,omitempty"`
	Role              string `json:"role"`     // root or issuing
	State             string `json:"state"`    // active (in force), issuing (when it is named), retired, answering (its key is elsewhere), unfinished (import it again)
	Active            bool   `json:"active"`   // state is active
	Imported          bool   `json:"imported"` // made elsewhere
	Trusted           bool   `json:"trusted"`  // hosts let its clients in as those of the managed CA
	HasKey            bool   `json:"has_key"`
	Subject           string `json:"subject"` // RFC 4514
	KeyType           string `json:"key_type"`
	Certificate       string `json:"certificate"` // PEM
	SerialNumber      string `json:"serial_number"`
	FingerprintSHA256 string `json:"fingerprint_sha256"`
	SKI               string `json:"ski"`
	IssuedOn          string `json:"issued_on"`
	ExpiresOn         string `json:"expires_on"`
	DaysLeft          int    `json:"days_left"`
	Shards            int    `json:"shards"`
	CRL               string `json:"crl"`  // URL of the list of all shards; "" where the CA publishes elsewhere
	OCSP              string `json:"ocsp"` // URL
	Issuer            string `json:"ca"`   // URL of the certificate

	ActiveCertificates  int           `json:"active_certificates"` // not revoked; those that have ended are among them
	RevokedCertificates int           `json:"revoked_certificates"`
	OCSPSignerExpiresOn *string       `json:"ocsp_signer_expires_on"` // of a signer that was made elsewhere; null: of our own making
	CRLNumber           string        `json:"imported_crl_number"`    // of the newest CRL that was imported
	Extra               []extraObject `json:"extra"`                  // sent along: cross certificates, the chain of an imported CA
}

// extraObject is a certificate that is sent along with a CA's.
type extraObject struct {
	Subject     string `json:"subject"`
	Issuer      string `json:"issuer"`
	ExpiresOn   string `json:"expires_on"`
	Certificate string `json:"certificate"` // PEM
	URL         string `json:"url"`
}

// caObject makes the object of a CA; of one that a dry run would make, only what is known of it.
func (s *server) caObject(c ca.State) caObject {
	now := s.Now()
	o := caObject{
		ID: c.ID, Name: c.Name, Parent: c.Parent, Role: string(c.Role), Active: c.InForce, Imported: c.Imported, HasKey: c.HasKey,
		Trusted: c.Role == ca.RoleIssuing && !c.Untrusted && now.Before(c.Cert.NotAfter),
		Subject: pkix.DNString(c.Cert.RawSubject), KeyType: string(c.KeyType),
		IssuedOn: *stamp(c.Cert.NotBefore), ExpiresOn: *stamp(c.Cert.NotAfter), DaysLeft: int(c.Cert.NotAfter.Sub(now) / (24 * time.Hour)),
		Shards: c.Shards, OCSP: s.Authority.OCSPURL(), ActiveCertificates: c.Count.Active, RevokedCertificates: c.Count.Revoked,
		OCSPSignerExpiresOn: stamp(c.SignerTo), CRLNumber: c.List.Number, Extra: []extraObject{},
	}
	switch {
	case c.Broken:
		o.State = "unfinished"
	case c.InForce:
		o.State = "active"
	case !c.HasKey:
		o.State = "answering"
	case c.Issues:
		o.State = "issuing"
	default:
		o.State = "retired"
	}
	if c.Cert.Raw == nil {
		return o
	}
	o.Certificate, o.SerialNumber = string(pkix.EncodeCertificate(c.DER)), pkix.SerialOf(c.Cert.SerialNumber).String()
	o.FingerprintSHA256, o.SKI, o.Issuer = pkix.FingerprintOf(c.DER).String(), hex.EncodeToString(c.Cert.SubjectKeyId), s.Authority.CAURL(c.ID)
	if c.HasKey {
		o.CRL = s.Authority.CRLURL(c.ID, ca.AllShards)
	}
	for _, cert := range c.Extra {
		o.Extra = append(o.Extra, s.extraObject(cert))
	}
	return o
}

func (s *server) extraObject(cert *x509.Certificate) extraObject {
	return extraObject{
		Subject: pkix.DNString(cert.RawSubject), Issuer: pkix.DNString(cert.RawIssuer), ExpiresOn: *stamp(cert.NotAfter),
		Certificate: string(pkix.EncodeCertificate(cert.Raw)), URL: s.Authority.CAURL(pkix.FingerprintOf(cert.Raw).String()),
	}
}

func (s *server) caObjects(states []ca.State) []caObject {
	objects := make([]caObject, len(states))
	for i, c := range states {
		objects[i] = s.caObject(c)
	}
	return objects
}

// showCA answers all CAs, parents first.
func (s *server) showCA(ctx context.Context, _ *call, _ none) ([]caObject, error) {
	states, err := s.Authority.States(ctx)
	if err != nil {
		return nil, err
	}
	return s.caObjects(states), nil
}

// maxImport is the most that an import may carry: half a million entries of a CRL.
const maxImport = 32 << 20

// importCABody brings a CA. Everything is PEM.
type importCABody struct {
	Name            string `json:"name"`
	Certificate     string `json:"certificate"`
	Chain           string `json:"chain"`
	Key             string `json:"key"`
	Passphrase      string `json:"passphrase"`
	CRL             string `json:"crl"`
	Shards          int    `json:"shards"`
	Trust           *bool  `json:"trust"` // default true
	OCSPCertificate string `json:"ocsp_certificate"`
	OCSPKey         string `json:"ocsp_key"`
	Zone            string `json:"zone_id"` // of certificates that only the CRL tells of
}

func (importCABody) bodyIsOurs() {}

func (importCABody) bodyLimit() int64 { return maxImport }

// importedCA is the answer to an import.
type importedCA struct {
	caObject
	Revoked int `json:"revoked"` // certificates that the CRL told of
}

// importCA brings a CA that was made elsewhere.
func (s *server) importCA(ctx context.Context, c *call, b importCABody) (importedCA, error) {
	if err := s.optionalZone(ctx, b.Zone); err != nil {
		return importedCA{}, err
	}
	result, err := s.Authority.Import(ctx, ca.ImportRequest{
		Actor: c.caller.Name, ZoneID: b.Zone, Name: b.Name, Certificate: []byte(b.Certificate), Chain: []byte(b.Chain), Key: []byte(b.Key),
		Passphrase: []byte(b.Passphrase), CRL: []byte(b.CRL), Shards: b.Shards, Untrusted: b.Trust != nil && !*b.Trust,
		SignerCertificate: []byte(b.OCSPCertificate), SignerKey: []byte(b.OCSPKey),
	})
	if err != nil {
		return importedCA{}, s.brokenOff(ctx, err)
	}
	return importedCA{s.caObject(result.CA), result.Revoked}, notInForce(s.CAsChanged(ctx))
}

// optionalZone refuses a zone that is none.
func (s *server) optionalZone(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	if _, err := s.zone(ctx, id); err != nil {
		return invalid("/zone_id", "zone_id: no zone has the id "+clip(id, 40))
	}
	return nil
}

// caError says what stands in the way of a change of CAs.
func caError(err error) error {
	if !errors.Is(err, ca.ErrConflict) {
		return err
	}
	text, _, _ := strings.Cut(err.Error(), ": "+ca.ErrConflict.Error())
	r := refuse(http.StatusBadRequest, codeConflict, strings.TrimPrefix(text, "store: "))
	r.noRetry, r.cause = true, err
	return r
}

// brokenOff is caError for a change of which a part may be stored: the hosts work by what the CAs are now.
func (s *server) brokenOff(ctx context.Context, err error) error {
	if _, invalid := errors.AsType[*ca.RequestError](err); !invalid && !errors.Is(err, ca.ErrNotFound) {
		err = errors.Join(err, s.CAsChanged(context.WithoutCancel(ctx)))
	}
	return caError(err)
}

// rotateBody asks for a new issuing CA.
type rotateBody struct {
	KeyType     string `json:"key_type"`
	Subject     string `json:"subject"`
	Root        bool   `json:"root"`
	RootSubject string `json:"root_subject"`
	DryRun      bool   `json:"dry_run"`
}

func (rotateBody) bodyIsOptional() {}

func (rotateBody) bodyIsOurs() {}

// rotationObject is what a rotation did, or would do.
type rotationObject struct {
	DryRun  bool          `json:"dry_run"`
	New     []caObject    `json:"new"`
	Retired []caObject    `json:"retired"`
	Cross   []extraObject `json:"cross"`
}

// rotateCA makes a new issuing CA, and a new root where that is asked for.
func (s *server) rotateCA(ctx context.Context, c *call, b rotateBody) (rotationObject, error) {
	r, err := s.Authority.Rotate(ctx, ca.RotateRequest{
		Actor: c.caller.Name, KeyType: pkix.KeyType(b.KeyType), Subject: b.Subject, Root: b.Root, RootSubject: b.RootSubject, DryRun: b.DryRun,
	})
	if err != nil {
		return rotationObject{}, s.brokenOff(ctx, err)
	}
	o := rotationObject{DryRun: b.DryRun, New: s.caObjects(r.New), Retired: s.caObjects(r.Retired), Cross: []extraObject{}}
	for _, cert := range r.Cross {
		o.Cross = append(o.Cross, s.extraObject(cert))
	}
	if b.DryRun {
		return o, nil
	}
	return o, notInForce(s.CAsChanged(ctx))
}

// importCRLBody brings a newer CRL of a CA whose key is elsewhere.
type importCRLBody struct {
	CRL  string `json:"crl"` // PEM
	Zone string `json:"zone_id"`
}

func (importCRLBody) bodyIsOurs() {}

func (importCRLBody) bodyLimit() int64 { return maxImport }

// importedCRL is the answer to an import of a CRL.
type importedCRL struct {
	CA          string  `json:"ca"` // name
	Number      string  `json:"number"`
	ThisUpdate  *string `json:"this_update"`
	Entries     int     `json:"entries"`
	Revoked     int     `json:"revoked"`     // that were not revoked before
	Reactivated int     `json:"reactivated"` // that were on hold and have left the list
}

// importCRL makes the ledger say what a CRL says.
func (s *server) importCRL(ctx context.Context, c *call, b importCRLBody) (noted, error) {
	if err := s.optionalZone(ctx, b.Zone); err != nil {
		return noted{}, err
	}
	r, err := s.Authority.ImportCRL(ctx, ca.ImportCRLRequest{Actor: c.caller.Name, CA: c.path("name"), ZoneID: b.Zone, CRL: []byte(b.CRL)})
	if err != nil {
		return noted{}, s.brokenOff(ctx, err)
	}
	answer := noted{result: importedCRL{
		CA: r.Name, Number: r.List.Number, ThisUpdate: stamp(r.List.ThisUpdate), Entries: r.Entries, Revoked: r.Revoked, Reactivated: r.Reactivated,
	}}
	if r.Part {
		answer.messages = append(answer.messages, message{codeNote, "the list names a distribution point, so it may be one of several: holds that are not in it were left as they are"})
	}
	return answer, notInForce(s.CAsChanged(ctx)) // it may have revoked a CA below
}

// signerBody gives a CA another OCSP signer; an empty one takes it away.
type signerBody struct {
	Certificate string `json:"ocsp_certificate"`
	Key         string `json:"ocsp_key"`
	Passphrase  string `json:"passphrase"`
}

func (signerBody) bodyIsOurs() {}

func (s *server) putSigner(ctx context.Context, c *call, b signerBody) (caObject, error) {
	state, err := s.Authority.SetSigner(ctx, ca.SignerRequest{
		Actor: c.caller.Name, CA: c.path("name"), Certificate: []byte(b.Certificate), Key: []byte(b.Key), Passphrase: []byte(b.Passphrase),
	})
	if err != nil {
		return caObject{}, caError(err)
	}
	return s.caObject(state), nil
}

// trustBody has hosts let the clients of a CA in, or no more.
type trustBody struct {
	Trusted *bool `json:"trusted"`
}

func (trustBody) bodyIsOurs() {}

func (s *server) putTrust(ctx context.Context, c *call, b trustBody) (noted, error) {
	if b.Trusted == nil {
		return noted{}, invalid("/trusted", "trusted: say true or false")
	}
	r, err := s.Authority.SetTrust(ctx, ca.TrustRequest{Actor: c.caller.Name, CA: c.path("name"), Trusted: *b.Trusted})
	if err != nil {
		return noted{}, s.brokenOff(ctx, err)
	}
	answer := noted{result: s.caObject(r.CA)}
	for _, name := range r.Above {
		answer.messages = append(answer.messages, message{codeNote, "the CA " + name + " has signed " + r.CA.Name + " and is trusted: clients that send the certificate of " +
			r.CA.Name + " along are let in by it"})
	}
	return answer, notInForce(s.CAsChanged(ctx))
}

// importCertificatesBody brings certificates that CAs of ours signed.
type importCertificatesBody struct {
	Certificates string `json:"certificates"` // PEM
	CA           string `json:"ca"`           // name or id; default: any of ours
	Zone         string `json:"zone_id"`
}

func (importCertificatesBody) bodyIsOurs() {}

func (importCertificatesBody) bodyLimit() int64 { return maxImport }

// importedCertificate is what became of one certificate.
type importedCertificate struct {
	ID           string `json:"id"`
	SerialNumber string `json:"serial_number"`
	CommonName   string `json:"common_name"`
	Outcome      string `json:"outcome"` // imported, completed, known, revoked
	Status       string `json:"status"`
}

func (s *server) importCertificates(ctx context.Context, c *call, b importCertificatesBody) ([]importedCertificate, error) {
	if _, err := s.zone(ctx, b.Zone); err != nil {
		return nil, invalid("/zone_id", "zone_id: name the zone in which the certificates are to be found")
	}
	done, err := s.Authority.ImportCertificates(ctx, ca.ImportCertificatesRequest{
		Actor: c.caller.Name, CA: b.CA, ZoneID: b.Zone, Certificates: []byte(b.Certificates),
	})
	if err != nil {
		return nil, caError(err)
	}
	objects := make([]importedCertificate, len(done))
	for i, d := range done {
		objects[i] = importedCertificate{
			ID: d.Row.ID, SerialNumber: d.Row.Serial.String(), CommonName: d.Row.CommonName, Outcome: string(d.Outcome), Status: string(d.Row.Status),
		}
	}
	return objects, nil
}
