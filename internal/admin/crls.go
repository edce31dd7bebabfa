package admin

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"sekisho/internal/ca"
)

// crlObject is a CRL as it is now.
type crlObject struct {
	PEM        string `json:"pem"`
	DER        []byte `json:"der"` // base64
	Number     string `json:"number"`
	Base       string `json:"base_number,omitempty"` // of a delta
	ThisUpdate string `json:"this_update"`
	NextUpdate string `json:"next_update"`
}

// showCRL answers a CRL of a CA that is named by its name or id: the one of all shards, of one shard, or a delta.
func (s *server) showCRL(ctx context.Context, c *call, _ none) (crlObject, error) {
	records, err := s.Authority.CAs(ctx)
	if err != nil {
		return crlObject{}, err
	}
	name := s.Authority.ResolveCA(c.path("name"))
	for _, r := range records {
		if r.Name != name && r.ID != name {
			continue
		}
		crl, err := s.findCRL(ctx, r, c.query)
		if err != nil {
			return crlObject{}, err
		}
		o := crlObject{
			PEM: string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl.DER})), DER: crl.DER,
			Number: crl.Number.String(), ThisUpdate: *stamp(crl.ThisUpdate), NextUpdate: *stamp(crl.NextUpdate),
		}
		if crl.Base != nil {
			o.Base = crl.Base.String()
		}
		return o, nil
	}
	return crlObject{}, refuse(http.StatusNotFound, codeNotFound, "no CA has the name "+clip(name, 60)+": sekisho ca show lists them")
}

// findCRL reads shard and delta of the query. Who asks for the list of all shards has just revoked something, as likely as
// not, and waits until it is in it.
func (s *server) findCRL(ctx context.Context, r ca.CARecord, q url.Values) (ca.CRL, error) {
	delta, err := strconv.ParseBool(q.Get("delta"))
	if err != nil && q.Get("delta") != "" {
		return ca.CRL{}, invalidQuery("delta", "it is true or false")
	}
	if r.KeyName == "" {
		return ca.CRL{}, refuse(http.StatusNotFound, codeNotFound, "the key of the CA "+r.Name+" is elsewhere, and so are its CRLs")
	}
	if !q.Has("shard") && !delta {
		return s.Authority.FullCRLNow(ctx, r.ID)
	}
	shard := 0
	switch {
	case q.Has("shard"):
		if shard, err = strconv.Atoi(q.Get("shard")); err != nil {
			return ca.CRL{}, invalidQuery("shard", "it is the number of a shard")
		}
	case r.Shards > 1:
		return ca.CRL{}, invalidQuery("shard", "the list of all shards has no delta: name a shard")
	}
	get := s.Authority.CRL
	if delta {
		get = s.Authority.DeltaCRL
	}
	crl, err := get(ctx, r.ID, shard)
	if errors.Is(err, ca.ErrNotFound) {
		return crl, invalidQuery("shard", fmt.Sprintf("the %s CA has the shards 0 to %d", r.Name, r.Shards-1))
	}
	return crl, err
}
