package ocsp

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
)

const (
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
	// maxGET is the longest URL for which GET is used, in bytes: RFC 6960, Appendix A.1.1 and RFC 5019, Section 5.
	maxGET = 255
	// nonceLength is that of RFC 9654, Section 2.1, in octets.
	nonceLength = 32
	// maxResponders bounds how many responders one question goes to, and maxURL how long the URL of one may be, in bytes:
	// certificates name them.
	maxResponders = 4
	maxURL        = 2048
)

// question asks one responder after the other.
func (c *Client) question(ctx context.Context, q Query) (*Answer, error) {
	if c.cfg.HTTP == nil {
		return nil, errors.New("this checkpoint asks no OCSP responders")
	}
	if len(q.Responders) == 0 {
		return nil, errors.New("the certificate names no OCSP responder")
	}
	var errs []error
	for _, responder := range q.Responders[:min(len(q.Responders), maxResponders)] {
		a, err := c.askOne(ctx, q, responder)
		if err == nil {
			c.count(a)
			return a, nil
		}
		errs = append(errs, fmt.Errorf("%.200s: %w", responder, err))
	}
	c.metrics.failed.Add(1)
	return nil, errors.Join(errs...)
}

func (c *Client) count(a *Answer) {
	switch a.Status {
	case pkix.OCSPGood:
		c.metrics.good.Add(1)
	case pkix.OCSPRevoked:
		c.metrics.revoked.Add(1)
	default:
		c.metrics.unknown.Add(1)
	}
}

// askOne performs the exchange with one responder, unless that failed too often of late.
func (c *Client) askOne(ctx context.Context, q Query, responder string) (*Answer, error) {
	if len(responder) > maxURL {
		return nil, fmt.Errorf("the responder's URL has %d bytes; at most %d are taken", len(responder), maxURL)
	}
	// By issuer: the certificates of another CA may name this responder, which knows nothing of them.
	key := breakerKey{pkix.KeyIDOf(q.Issuer), responder}
	if until, open := c.breakers.open(key, c.cfg.Now()); open {
		return nil, fmt.Errorf("%w until %s", ErrBreaker, stamp(until))
	}
	a, err := c.exchange(ctx, q, responder)
	c.breakers.record(key, c.cfg.Now(), isResponderFault(err))
	return a, err
}

// isResponderFault tells a responder that is down or broken from one that answered about the wrong certificate or too
// late: the former is not asked about other certificates for a while.
func isResponderFault(err error) bool {
	for _, harmless := range []error{nil, ErrOtherCert, ErrTimes, ErrNonce, errUnauthorized} {
		if errors.Is(err, harmless) {
			return false
		}
	}
	return true
}

func (c *Client) exchange(ctx context.Context, q Query, responder string) (*Answer, error) {
	hash := crypto.SHA1
	if q.SHA256 {
		hash = crypto.SHA256
	}
	request := pkix.OCSPRequest{Certs: []pkix.OCSPCertID{pkix.NewOCSPCertID(hash, q.Issuer, pkix.SerialOf(q.Cert.SerialNumber))}}
	if q.Nonce {
		request.Nonce = make([]byte, nonceLength)
		_, _ = rand.Read(request.Nonce) // never fails
	}
	resp, err := c.cfg.HTTP.Do(ctx, httpRequest(q, responder, request.Marshal()))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a, err := c.check(q, der, request.Nonce)
	if err != nil {
		return nil, err
	}
	a.Responder = responder
	return a, nil
}

// httpRequest uses GET where the URL stays short, so that caches on the way can help, and POST else and with a nonce
// (RFC 6960, Appendix A.1).
func httpRequest(q Query, responder string, der []byte) outbound.Request {
	out := outbound.Request{
		Method: http.MethodPost, URL: responder, Body: der, ContentType: "application/ocsp-request",
		Accept: "application/ocsp-response", MaxBytes: maxAnswer, Origin: q.Origin,
	}
	get := strings.TrimSuffix(responder, "/") + "/" + url.QueryEscape(base64.StdEncoding.EncodeToString(der))
	if !q.Nonce && len(get) <= maxGET && !strings.ContainsAny(responder, "?#") {
		out.Method, out.URL, out.Body, out.ContentType = http.MethodGet, get, nil, ""
	}
	return out
}

// check verifies an answer: status, certificate, signature, times and nonce (RFC 6960, Section 3.2).
func (c *Client) check(q Query, der, nonce []byte) (*Answer, error) {
	r, err := pkix.ParseOCSPResponse(der)
	if err != nil {
		return nil, err
	}
	if r.Status == pkix.OCSPUnauthorized {
		return nil, fmt.Errorf("%w: %w", ErrNotSuccessful, errUnauthorized)
	}
	if r.Status != pkix.OCSPSuccessful {
		return nil, fmt.Errorf("%w: %s", ErrNotSuccessful, pkix.OCSPStatusName(r.Status))
	}
	serial := pkix.SerialOf(q.Cert.SerialNumber)
	single, ok := r.Single(q.Issuer, serial)
	if !ok {
		return nil, fmt.Errorf("%w, serial %s", ErrOtherCert, serial)
	}
	now := c.cfg.Now()
	signer, err := r.CheckResponder(q.Issuer, now, q.Allows)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrResponder, err)
	}
	if !signer.Equal(q.Issuer) && !pkix.HasOCSPNoCheck(signer) && c.cfg.Revoked != nil && c.cfg.Revoked(signer, q.Issuer) {
		return nil, fmt.Errorf("%w: the certificate of the responder %q is revoked", ErrResponder, pkix.DNString(signer.RawSubject))
	}
	if nonce != nil && subtle.ConstantTimeCompare(nonce, r.Nonce) != 1 {
		return nil, ErrNonce
	}
	a := &Answer{
		Checked: true, Status: single.Status, Reason: single.Reason, RevokedAt: single.RevokedAt, ProducedAt: r.ProducedAt,
		ThisUpdate: single.ThisUpdate, NextUpdate: single.NextUpdate, Signer: pkix.DNString(signer.RawSubject),
		Algorithm: r.SignatureAlgorithm(), Nonced: nonce != nil,
	}
	return a, a.times(q, now, c.cfg.Skew)
}

// times checks thisUpdate, nextUpdate and producedAt, and sets Expires. An answer that says "revoked" is not refused for its
// age: who is revoked stays so until a later answer says otherwise.
func (a *Answer) times(q Query, now time.Time, skew time.Duration) error {
	a.Expires = a.NextUpdate
	if a.NextUpdate.IsZero() {
		// RFC 6960, Section 2.4: newer information is available all the time. It counts for one round of asking.
		refresh := q.Refresh
		if refresh <= 0 {
			refresh = 5 * time.Minute
		}
		if age := now.Sub(a.ThisUpdate); age > refresh+skew && a.Status != pkix.OCSPRevoked {
			return fmt.Errorf("%w: it has no nextUpdate and its thisUpdate, %s, is %s ago", ErrTimes, stamp(a.ThisUpdate), age.Round(time.Second))
		}
		a.Expires = now.Add(refresh)
	}
	switch {
	case a.ThisUpdate.After(now.Add(skew)):
		return fmt.Errorf("%w: thisUpdate %s is in the future", ErrTimes, stamp(a.ThisUpdate))
	case a.ProducedAt.After(now.Add(skew)):
		return fmt.Errorf("%w: producedAt %s is in the future", ErrTimes, stamp(a.ProducedAt))
	case !a.NextUpdate.IsZero() && a.NextUpdate.Before(a.ThisUpdate):
		return fmt.Errorf("%w: nextUpdate %s is before thisUpdate", ErrTimes, stamp(a.NextUpdate))
	case now.After(a.Expires.Add(q.Grace+skew)) && a.Status != pkix.OCSPRevoked:
		return fmt.Errorf("%w: nextUpdate %s has passed", ErrTimes, stamp(a.NextUpdate))
	}
	if now.After(a.Expires) {
		a.Expires = a.Expires.Add(skew) // inside the skew the responder's clock is as right as ours
	}
	return nil
}

var errUnauthorized = errors.New("unauthorized: it is not responsible for this certificate")
