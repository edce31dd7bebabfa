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
	"sync/atomic"
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

// ocspResponder answers from memory where it can.
type ocspResponder struct {
	a       *Authority
	cache   ocspCache
	running atomic.Bool // run signs anew what is asked for
	signers ocspSigners
}

func (r *ocspResponder) init(a *Authority) {
	r.a = a
	r.cache.init()
	r.signers.init(a)
}

// drop forgets what is known of a certificate that changed, and all answers when it is one that signs them.
func (r *ocspResponder) drop(row Certificate) {
	if r.signers.drop(row) {
		r.cache.forget()
		return
	}
	r.cache.drop(row.CertID())
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
	if len(req.Certs) > 1 || len(req.Nonce) > 0 {
		answer, err := r.live(ctx, issuer, req)
		if err != nil {
			return ocspRefusal(pkix.OCSPInternalError, "internalError"), fmt.Errorf("answer OCSP: %w", err)
		}
		r.a.counters.ocspSigned.Add(1)
		return answer, nil
	}
	return r.kept(ctx, issuer, req)
}

// kept answers a question that others ask too: one certificate, no nonce.
func (r *ocspResponder) kept(ctx context.Context, issuer *authorityCA, req pkix.OCSPRequest) (OCSPAnswer, error) {
	now := r.a.cfg.Now()
	id := pkix.CertID{Issuer: issuer.key, Serial: req.Certs[0].Serial}
	found, epoch := r.cache.answer(id, req.Certs[0].Raw, now)
	if found != nil {
		touch(&found.asked, now)
		if now.Before(r.fresh(found.answer)) {
			r.a.counters.ocspCached.Add(1)
			return found.answer, nil
		}
	}
	answer, err := r.live(ctx, issuer, req)
	if err != nil {
		return ocspRefusal(pkix.OCSPInternalError, "internalError"), fmt.Errorf("answer OCSP: %w", err)
	}
	r.a.counters.ocspSigned.Add(1)
	// Where the CAs were loaded anew after issuer was found, another may sign now, and what the one before signed was forgotten.
	if answer.Cacheable && r.issuerOf(req.Certs) == issuer {
		fresh := &cachedAnswer{raw: bytes.Clone(req.Certs[0].Raw), answer: answer}
		fresh.asked.Store(now.Unix())
		r.cache.keep(id, epoch, fresh)
	}
	return answer, nil
}

// fresh is until when an answer is served from memory: half its life, or, where run signs anew what has reached that, a
// bit longer, lest a client wait for a signature that is being made.
func (r *ocspResponder) fresh(answer OCSPAnswer) time.Time {
	if r.running.Load() {
		return answer.lifeAt(3, 4)
	}
	return answer.lifeAt(1, 2)
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

// live asks what is known and signs. No answer is good for longer than the certificates of who signs it and of the CA.
func (r *ocspResponder) live(ctx context.Context, issuer *authorityCA, req pkix.OCSPRequest) (OCSPAnswer, error) {
	signer, err := r.signers.get(ctx, issuer)
	if err != nil {
		return OCSPAnswer{}, err
	}
	now := r.a.now()
	nextUpdate := earlier(now.Add(r.a.cfg.OCSPLifetime), earlier(signer.cert.NotAfter, issuer.cert.NotAfter))
	if !now.Before(nextUpdate) {
		return OCSPAnswer{}, fmt.Errorf("the %s CA or its OCSP signer ended at %s", issuer.record.Name, nextUpdate.UTC().Format(time.RFC3339))
	}
	answer := OCSPAnswer{ThisUpdate: now, Cacheable: len(req.Nonce) == 0}
	t := pkix.OCSPTemplate{
		Responder: signer.cert, Include: []*x509.Certificate{signer.cert}, ProducedAt: now, Nonce: req.Nonce,
		Responses: make([]pkix.OCSPSingle, 0, len(req.Certs)),
	}
	for _, id := range req.Certs {
		single, err := r.status(ctx, issuer, id.Serial)
		if err != nil {
			return OCSPAnswer{}, err
		}
		single.ID, single.ThisUpdate = id, now
		if single.Status == pkix.OCSPUnknown {
			answer.Cacheable = false // it may be issued in the next second
		} else {
			single.NextUpdate = nextUpdate
		}
		t.Responses = append(t.Responses, single)
	}
	if answer.DER, err = pkix.SignOCSP(t, signer.key); err != nil {
		return OCSPAnswer{}, err
	}
	answer.Status = t.Responses[0].Status.String()
	if answer.Cacheable {
		answer.NextUpdate, answer.ETag = nextUpdate, etag(answer.DER)
	}
	return answer, nil
}

// etag is a strong HTTP entity tag.
func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// status is what is known of a serial number of one of our CAs: from memory, which forgets what changes, else from the
// ledger. The result has no id and no times.
func (r *ocspResponder) status(ctx context.Context, issuer *authorityCA, serial pkix.Serial) (pkix.OCSPSingle, error) {
	id, now := pkix.CertID{Issuer: issuer.key, Serial: serial}, r.a.cfg.Now()
	single, epoch, found := r.cache.status(id, now)
	if found {
		return single, nil
	}
	row, err := r.a.cfg.Ledger.CertificateByID(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound) && r.a.cas.Load().below[id]: // a CA has no row unless a CRL said that it is revoked
		return pkix.OCSPSingle{Status: pkix.OCSPGood}, nil
	case errors.Is(err, ErrNotFound):
		return single, nil // unknown, and not kept: it may be issued in the next second
	case err != nil:
		return single, err
	}
	switch row.Status {
	case Active:
		single.Status = pkix.OCSPGood
	case Revoked:
		single.Status, single.Reason, single.RevokedAt = pkix.OCSPRevoked, row.Reason, row.RevokedAt
	default:
		return single, nil
	}
	r.cache.keepStatus(id, epoch, single, now)
	return single, nil
}
