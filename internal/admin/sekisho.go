package admin

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// The calls under /client/v4/sekisho are ours: what the command line needs of a running server.

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
	CRL               string `json:"crl"`        // URL of the list of all shards
	CRLShards         int    `json:"crl_shards"` // how many lists its certificates name, one each
	OCSP              string `json:"ocsp"`       // URL
	Issuer            string `json:"ca"`         // URL of the certificate
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
			CRL: s.Authority.CRLURL(r.ID, ca.AllShards), CRLShards: r.Shards, OCSP: s.Authority.OCSPURL(), Issuer: s.Authority.CAURL(r.ID),
		}
	}
	return objects, nil
}

// versionObject says what runs here.
type versionObject struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"` // there is a CA that can issue
}

func (s *server) showVersion(context.Context, *call, none) (versionObject, error) {
	return versionObject{Version: s.Version, Ready: s.Authority.Ready()}, nil
}

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
