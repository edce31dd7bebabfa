package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"sekisho/internal/pkix"
)

// OCSPAnswer is an OCSPResponse and what a cache may do with it.
type OCSPAnswer struct {
	DER []byte
	// Status is good, revoked or unknown (of the first certificate asked for), or for an answer without any
	// malformedRequest, unauthorized or internalError.
	Status     string
	Cacheable  bool // it says good or revoked, and no nonce ties it to one request
	ThisUpdate time.Time
	NextUpdate time.Time // zero when not cacheable: newer information is always to be had
	ETag       string    // quoted, for HTTP; only when cacheable
}

const (
	maxOCSPCacheBytes = 64 << 20
	maxOCSPVariants   = 8 // ways to write one CertID: four hashes, parameters NULL or absent; pkix takes no others
)

// ocspResponder answers from memory where it can. An answer leaves memory at the moment its certificate changes.
type ocspResponder struct {
	a *Authority

	mu    sync.RWMutex
	epoch uint64 // raised by every drop: an answer made before is not stored after
	cache map[pkix.CertID][]cachedAnswer
	bytes int

	signers ocspSigners
}

// cachedAnswer is an answer for one spelling of a CertID.
type cachedAnswer struct {
	raw    []byte
	answer OCSPAnswer
}

func (r *ocspResponder) init(a *Authority) {
	r.a, r.cache = a, map[pkix.CertID][]cachedAnswer{}
	r.signers.init(a)
}

// issuerHashes are how CertIDs name a CA.
type issuerHashes map[crypto.Hash]pkix.OCSPCertID

func hashIssuer(cert *x509.Certificate) issuerHashes {
	h := issuerHashes{}
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		h[hash] = pkix.NewOCSPCertID(hash, cert, pkix.Serial{})
	}
	return h
}

// names reports whether a CertID's issuer is this CA.
func (h issuerHashes) names(id pkix.OCSPCertID) bool {
	own, known := h[id.Hash]
	return known && bytes.Equal(own.IssuerNameHash, id.IssuerNameHash) && bytes.Equal(own.IssuerKeyHash, id.IssuerKeyHash)
}

// AnswerOCSP answers an OCSPRequest in DER. There is always an answer: what cannot be read is malformedRequest, a
// certificate of another CA unauthorized, a serial number that we never issued unknown (never good). Certificates of
// two of our CAs in one request are unauthorized too, since one signature cannot speak for both (RFC 6960, Section
// 4.2.2.2). With an error the answer is internalError.
func (a *Authority) AnswerOCSP(ctx context.Context, der []byte) (OCSPAnswer, error) {
	answer, err := a.ocsp.answer(ctx, der)
	c := &a.counters
	switch answer.Status {
	case "good":
		c.ocspGood.Add(1)
	case "revoked":
		c.ocspRevoked.Add(1)
	case "unknown":
		c.ocspUnknown.Add(1)
	default:
		c.ocspErrors.Add(1)
	}
	return answer, err
}

func (r *ocspResponder) answer(ctx context.Context, der []byte) (OCSPAnswer, error) {
	req, err := pkix.ParseOCSPRequest(der)
	if err != nil {
		return ocspRefusal(pkix.OCSPMalformedRequest, "malformedRequest"), nil
	}
	issuer := r.issuerOf(req.Certs)
	if issuer == nil {
		return ocspRefusal(pkix.OCSPUnauthorized, "unauthorized"), nil
	}
	cacheable := len(req.Certs) == 1 && len(req.Nonce) == 0
	id := pkix.CertID{Issuer: issuer.key, Serial: req.Certs[0].Serial}
	answer, epoch, found := r.cached(id, req.Certs[0].Raw)
	if cacheable && found {
		r.a.counters.ocspCached.Add(1)
		return answer, nil
	}
	answer, err = r.live(ctx, issuer, req)
	if err != nil {
		return ocspRefusal(pkix.OCSPInternalError, "internalError"), fmt.Errorf("answer OCSP: %w", err)
	}
	if cacheable && answer.Cacheable {
		r.store(id, epoch, cachedAnswer{raw: bytes.Clone(req.Certs[0].Raw), answer: answer})
	}
	return answer, nil
}

func ocspRefusal(status int, name string) OCSPAnswer {
	return OCSPAnswer{DER: pkix.OCSPErrorResponse(status), Status: name}
}

// issuerOf is the one CA of ours that all the CertIDs name; nil when there is none.
func (r *ocspResponder) issuerOf(ids []pkix.OCSPCertID) *authorityCA {
	for _, c := range r.a.cas.Load().all() {
		if !c.hashes.names(ids[0]) {
			continue
		}
		for _, id := range ids[1:] {
			if !c.hashes.names(id) {
				return nil
			}
		}
		return c
	}
	return nil
}

// live reads the ledger and signs.
func (r *ocspResponder) live(ctx context.Context, issuer *authorityCA, req pkix.OCSPRequest) (OCSPAnswer, error) {
	signer, err := r.signers.get(ctx, issuer)
	if err != nil {
		return OCSPAnswer{}, err
	}
	now := r.a.now()
	answer := OCSPAnswer{ThisUpdate: now, Cacheable: len(req.Nonce) == 0}
	t := pkix.OCSPTemplate{
		Responder: signer.cert, Include: []*x509.Certificate{signer.cert}, ProducedAt: now, Nonce: req.Nonce,
	}
	for _, id := range req.Certs {
		single, err := r.status(ctx, issuer, id)
		if err != nil {
			return OCSPAnswer{}, err
		}
		single.ThisUpdate = now
		if single.Status == pkix.OCSPUnknown {
			answer.Cacheable = false // it may be issued in the next second
		} else {
			single.NextUpdate = now.Add(r.a.cfg.OCSPLifetime)
		}
		t.Responses = append(t.Responses, single)
	}
	if answer.DER, err = pkix.SignOCSP(t, signer.key); err != nil {
		return OCSPAnswer{}, err
	}
	r.a.counters.ocspSigned.Add(1)
	answer.Status = t.Responses[0].Status.String()
	if answer.Cacheable {
		answer.NextUpdate, answer.ETag = now.Add(r.a.cfg.OCSPLifetime), etag(answer.DER)
	}
	return answer, nil
}

// etag is a strong HTTP entity tag.
func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// status is what the ledger says of a serial number of one of our CAs.
func (r *ocspResponder) status(ctx context.Context, issuer *authorityCA, id pkix.OCSPCertID) (pkix.OCSPSingle, error) {
	single := pkix.OCSPSingle{ID: id, Status: pkix.OCSPUnknown}
	if r.a.cas.Load().below[pkix.CertID{Issuer: issuer.key, Serial: id.Serial}] { // CAs have no row of their own
		single.Status = pkix.OCSPGood
		return single, nil
	}
	row, err := r.a.cfg.Ledger.CertificateByID(ctx, pkix.CertID{Issuer: issuer.key, Serial: id.Serial})
	switch {
	case errors.Is(err, ErrNotFound):
		return single, nil
	case err != nil:
		return single, err
	}
	switch row.Status {
	case Active:
		single.Status = pkix.OCSPGood
	case Revoked:
		single.Status, single.Reason, single.RevokedAt = pkix.OCSPRevoked, row.Reason, row.RevokedAt
	}
	return single, nil
}

// cached finds an answer that is in the first half of its life. The epoch is for store.
func (r *ocspResponder) cached(id pkix.CertID, raw []byte) (OCSPAnswer, uint64, bool) {
	now := r.a.cfg.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, c := range r.cache[id] {
		if bytes.Equal(c.raw, raw) && now.Before(c.answer.ThisUpdate.Add(r.a.cfg.OCSPLifetime/2)) && !now.Before(c.answer.ThisUpdate) {
			return c.answer, r.epoch, true
		}
	}
	return OCSPAnswer{}, r.epoch, false
}

// store keeps an answer unless a certificate changed since the epoch was read: it might be the one.
func (r *ocspResponder) store(id pkix.CertID, epoch uint64, c cachedAnswer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch != epoch {
		return
	}
	list := r.cache[id]
	for i := range list {
		if bytes.Equal(list[i].raw, c.raw) {
			r.bytes += len(c.answer.DER) - len(list[i].answer.DER)
			list[i] = c
			return
		}
	}
	if len(list) == maxOCSPVariants {
		return
	}
	r.cache[id] = append(list, c)
	r.bytes += len(c.answer.DER)
	if r.bytes <= maxOCSPCacheBytes {
		return
	}
	for other := range r.cache { // Go's map order is as good as any choice
		if r.bytes <= maxOCSPCacheBytes*3/4 {
			return
		}
		r.removeLocked(other)
	}
}

// drop forgets the answers about a certificate that changed.
func (r *ocspResponder) drop(id pkix.CertID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	r.removeLocked(id)
}

// forget drops every answer: another signs them now.
func (r *ocspResponder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	r.cache, r.bytes = map[pkix.CertID][]cachedAnswer{}, 0
}

func (r *ocspResponder) removeLocked(id pkix.CertID) {
	for _, c := range r.cache[id] {
		r.bytes -= len(c.answer.DER)
	}
	delete(r.cache, id)
}
