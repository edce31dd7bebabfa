package admin

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
	"sekisho/internal/principal"
)

// The calls under /client/v4/sekisho are ours: what the command line needs of a running server.

// tokenStatus is Cloudflare's answer to user/tokens/verify.
type tokenStatus struct {
	ID        string  `json:"id"`
	Status    string  `json:"status"`
	NotBefore *string `json:"not_before"`
	ExpiresOn *string `json:"expires_on"`
}

func (s *server) verifyToken(_ context.Context, c *call, _ none) (noted, error) {
	t := c.caller.Token
	return noted{
		result:   tokenStatus{ID: t.ID, Status: "active", NotBefore: stamp(t.CreatedOn), ExpiresOn: stamp(t.ExpiresOn)},
		messages: []message{{Code: 10000, Message: "This API Token is valid and active"}},
	}, nil
}

// caObject is one of our CAs: what everybody may see, never its key.
type caObject struct {
	ID                string `json:"id"`
	Name              string `json:"name"` // root or issuing
	Parent            string `json:"parent,omitempty"`
	Subject           string `json:"subject"` // RFC 4514
	KeyType           string `json:"key_type"`
	Certificate       string `json:"certificate"` // PEM
	SerialNumber      string `json:"serial_number"`
	FingerprintSHA256 string `json:"fingerprint_sha256"`
	SKI               string `json:"ski"`
	IssuedOn          string `json:"issued_on"`
	ExpiresOn         string `json:"expires_on"`
	CRL               string `json:"crl"`  // URL of shard 0
	OCSP              string `json:"ocsp"` // URL
	Issuer            string `json:"ca"`   // URL of the certificate
}

// showCA answers all CAs, parents first.
func (s *server) showCA(ctx context.Context, _ *call, _ none) ([]caObject, error) {
	records, err := s.Authority.CAs(ctx)
	if err != nil {
		return nil, err
	}
	objects := make([]caObject, len(records))
	for i, r := range records {
		cert, err := x509.ParseCertificate(r.DER)
		if err != nil {
			return nil, fmt.Errorf("certificate of the CA %s: %w", r.Name, err)
		}
		objects[i] = caObject{
			ID: r.ID, Name: r.Name, Parent: r.Parent,
			Subject: pkix.DNString(cert.RawSubject), KeyType: pkix.KeyTypeOf(cert.PublicKey),
			Certificate:       string(pkix.EncodeCertificate(r.DER)),
			SerialNumber:      pkix.SerialOf(cert.SerialNumber).String(),
			FingerprintSHA256: pkix.FingerprintOf(r.DER).String(),
			SKI:               hex.EncodeToString(cert.SubjectKeyId),
			IssuedOn:          *stamp(cert.NotBefore), ExpiresOn: *stamp(cert.NotAfter),
			CRL: s.Authority.CRLURL(r.ID, 0), OCSP: s.Authority.OCSPURL(), Issuer: s.Authority.CAURL(r.ID),
		}
	}
	return objects, nil
}

// crlObject is a CRL as it is now.
type crlObject struct {
	PEM        string `json:"pem"`
	DER        []byte `json:"der"` // base64
	Number     string `json:"number"`
	ThisUpdate string `json:"this_update"`
	NextUpdate string `json:"next_update"`
}

// showCRL answers the CRL of a CA that is named by its name or id.
func (s *server) showCRL(ctx context.Context, c *call, _ none) (crlObject, error) {
	records, err := s.Authority.CAs(ctx)
	if err != nil {
		return crlObject{}, err
	}
	name := c.path("name")
	for _, r := range records {
		if r.Name != name && r.ID != name {
			continue
		}
		crl, err := s.Authority.CRL(ctx, r.ID, 0)
		if err != nil {
			return crlObject{}, err
		}
		return crlObject{
			PEM: string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl.DER})), DER: crl.DER,
			Number: crl.Number.String(), ThisUpdate: *stamp(crl.ThisUpdate), NextUpdate: *stamp(crl.NextUpdate),
		}, nil
	}
	return crlObject{}, refuse(http.StatusNotFound, codeNotFound, "no CA has the name "+clip(name, 60)+": there are root and issuing")
}

// versionObject says what runs here.
type versionObject struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"` // there is a CA that can issue
}

func (s *server) showVersion(context.Context, *call, none) (versionObject, error) {
	return versionObject{Version: s.Version, Ready: s.Authority.Ready()}, nil
}

// tokenObject is a token without its secret, which nobody but its owner has.
type tokenObject struct {
	ID        string  `json:"id"`
	Name      string  `json:"name"`
	Email     string  `json:"email"`
	Role      string  `json:"role"`
	CreatedOn *string `json:"created_on"`
	ExpiresOn *string `json:"expires_on"` // null: never
	Value     string  `json:"value,omitempty"`
}

func newTokenObject(t principal.Token) tokenObject {
	return tokenObject{
		ID: t.ID, Name: t.Name, Email: t.Email, Role: string(t.Role), CreatedOn: stamp(t.CreatedOn), ExpiresOn: stamp(t.ExpiresOn),
	}
}

func (s *server) listTokens(ctx context.Context, c *call, _ none) (list[tokenObject], error) {
	if s.Tokens == nil {
		return list[tokenObject]{}, noRoute(c.url)
	}
	p, err := pageOf(c.query)
	if err != nil {
		return list[tokenObject]{}, err
	}
	tokens, err := s.Tokens.ListTokens(ctx)
	if err != nil {
		return list[tokenObject]{}, err
	}
	objects := make([]tokenObject, len(tokens))
	for i, t := range tokens {
		objects[i] = newTokenObject(t)
	}
	return cut(p, objects), nil
}

// tokenRequest asks for a token.
type tokenRequest struct {
	Name      string     `json:"name"`
	Email     string     `json:"email"`      // default: the caller's
	Role      string     `json:"role"`       // read or edit
	ExpiresOn *time.Time `json:"expires_on"` // RFC 3339; absent: never
}

func (tokenRequest) bodyIsOurs() {}

// createToken makes a token. This answer is the only place where its secret is ever seen; what is stored is a hash.
func (s *server) createToken(ctx context.Context, c *call, req tokenRequest) (tokenObject, error) {
	if s.Tokens == nil {
		return tokenObject{}, noRoute(c.url)
	}
	if err := s.checkToken(&req, c); err != nil {
		return tokenObject{}, err
	}
	secret, token, err := principal.NewToken(req.Name, req.Email, principal.Role(req.Role))
	if err != nil {
		return tokenObject{}, err
	}
	token.CreatedOn = s.Now().UTC()
	if req.ExpiresOn != nil {
		token.ExpiresOn = req.ExpiresOn.UTC()
	}
	entry := auditlog.Entry{
		At: token.CreatedOn, Actor: c.caller.Name, Action: "token.create", Object: token.ID, Outcome: "done",
		Detail: map[string]string{"name": token.Name, "email": token.Email, "role": string(token.Role)},
	}
	if err := s.Tokens.AddToken(ctx, token, entry); err != nil {
		return tokenObject{}, err
	}
	object := newTokenObject(token)
	object.Value = secret
	return object, nil
}

func (s *server) checkToken(req *tokenRequest, c *call) error {
	if req.Email == "" {
		req.Email = c.caller.Token.Email
	}
	switch {
	case req.Name == "" || len(req.Name) > 100 || strings.ContainsFunc(req.Name, isControl):
		return invalid("/name", "name: give the token a name of at most 100 bytes, for the audit log")
	case len(req.Email) > 254 || !strings.Contains(req.Email, "@") || strings.ContainsFunc(req.Email, isControl):
		return invalid("/email", "email: "+clip(req.Email, 60)+" is no e-mail address")
	case req.Role != string(principal.Read) && req.Role != string(principal.Edit):
		return invalid("/role", "role: want read or edit")
	case req.ExpiresOn != nil && !req.ExpiresOn.After(s.Now()):
		return invalid("/expires_on", "expires_on: is in the past")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// recordObject is a record of the audit log with its place in the chain.
type recordObject struct {
	Seq     int64             `json:"seq"`
	At      string            `json:"at"`
	Actor   string            `json:"actor"`
	Action  string            `json:"action"`
	Object  string            `json:"object"`
	Outcome string            `json:"outcome"`
	Detail  map[string]string `json:"detail"`
	Prev    string            `json:"prev"`
	Hash    string            `json:"hash"`
}

// listAudit answers the records from number from on, oldest first, and pages from there.
func (s *server) listAudit(ctx context.Context, c *call, _ none) ([]recordObject, error) {
	if s.AuditRecords == nil {
		return nil, noRoute(c.url)
	}
	from, err := strconv.ParseInt(cmp.Or(c.query.Get("from"), "1"), 10, 64)
	if err != nil || from < 0 {
		return nil, invalidQuery("from", "want the number of a record")
	}
	p, err := pageOf(c.query)
	if err != nil {
		return nil, err
	}
	if from > math.MaxInt64-maxSkip {
		return []recordObject{}, nil
	}
	records, err := s.AuditRecords(ctx, from+int64(p.skip()), p.size)
	if err != nil {
		return nil, err
	}
	objects := make([]recordObject, len(records))
	for i, r := range records {
		objects[i] = recordObject{
			Seq: r.Seq, At: r.At.UTC().Format(time.RFC3339Nano), Actor: r.Actor, Action: r.Action, Object: r.Object,
			Outcome: r.Outcome, Detail: r.Detail, Prev: hex.EncodeToString(r.Prev[:]), Hash: hex.EncodeToString(r.Hash[:]),
		}
	}
	return objects, nil
}

type reloadObject struct {
	Reloaded bool `json:"reloaded"`
}

// reloadConfig reads the configuration file again. A file that cannot be used changes nothing.
func (s *server) reloadConfig(ctx context.Context, c *call, _ none) (reloadObject, error) {
	if s.Reload == nil {
		return reloadObject{}, noRoute(c.url)
	}
	if err := s.Reload(ctx); err != nil {
		r := refuse(http.StatusBadRequest, codeInvalid, "the configuration was not changed: "+err.Error())
		r.cause = err
		return reloadObject{}, r
	}
	entry := auditlog.Entry{At: s.Now().UTC(), Actor: c.caller.Name, Action: "config.reload", Object: "config", Outcome: "done"}
	return reloadObject{Reloaded: true}, s.Audit(ctx, entry)
}
