package main

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// ocspFault is an answer that does not count, and how that is told.
type ocspFault struct {
	name     string
	serve    fault  // nil: nothing listens there
	says     string // explain
	outbound string // result in sekisho_outbound_requests_total
}

// question is what a responder was asked.
func (o *faultyCA) question(r *http.Request) pkix.OCSPRequest {
	der, err := io.ReadAll(r.Body)
	if r.Method == http.MethodGet {
		der, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(r.URL.Path, "/ocsp/"))
	}
	if err != nil {
		o.t.Errorf("%s: %v", o.name, err)
	}
	q, err := pkix.ParseOCSPRequest(der)
	if err != nil {
		o.t.Errorf("%s: %v", o.name, err)
		return pkix.OCSPRequest{Certs: make([]pkix.OCSPCertID, 1)}
	}
	return q
}

// reply is an answer before it is signed.
type reply struct {
	pkix.OCSPTemplate
	key crypto.Signer
}

// says answers "good", with what edit makes wrong of it.
func says(edit func(o *faultyCA, q pkix.OCSPRequest, a *reply)) fault {
	return func(o *faultyCA, w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(o.reply(o.question(r), edit))
	}
}

func (o *faultyCA) reply(q pkix.OCSPRequest, edit func(o *faultyCA, q pkix.OCSPRequest, a *reply)) []byte {
	now := time.Now()
	a := reply{pkix.OCSPTemplate{Responder: o.Cert, ProducedAt: now, Nonce: q.Nonce, Responses: []pkix.OCSPSingle{
		{ID: q.Certs[0], Status: pkix.OCSPGood, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)},
	}}, o.Key}
	if edit != nil {
		edit(o, q, &a)
	}
	der, err := pkix.SignOCSP(a.OCSPTemplate, a.key)
	if err != nil {
		o.t.Errorf("%s: %v", o.name, err)
	}
	return der
}

// resignedOCSP changes the fields of ResponseData and signs it again; certificates that came along are left out.
func resignedOCSP(o *faultyCA, der []byte, edit func(fields [][]byte)) []byte {
	outer := cryptobyte.String(content(o.t, der))
	var status, wrapped, oid, octets cryptobyte.String
	if !outer.ReadASN1Element(&status, asn1.ENUM) || !outer.ReadASN1(&wrapped, asn1.Tag(0).ContextSpecific().Constructed()) {
		o.t.Errorf("no answer: %x", der)
	}
	body := cryptobyte.String(content(o.t, wrapped))
	if !body.ReadASN1Element(&oid, asn1.OBJECT_IDENTIFIER) || !body.ReadASN1(&octets, asn1.OCTET_STRING) {
		o.t.Errorf("no basic response: %x", der)
	}
	basic := resigned(o.t, octets, o.Key, edit)
	return tlv(0x30, status, tlv(0xa0, tlv(0x30, oid, tlv(0x04, basic))))
}

// delegated has a certificate sign that a CA, nil for the right one, gave these usages.
func delegated(ca *testpki.CA, usages ...x509.ExtKeyUsage) fault {
	return says(func(o *faultyCA, _ pkix.OCSPRequest, a *reply) {
		if ca == nil {
			ca = o.CA
		}
		delegate := ca.Client("delegate", testpki.Edit(func(c *x509.Certificate) { c.ExtKeyUsage = usages }))
		a.Responder, a.Include, a.key = delegate.Cert, []*x509.Certificate{delegate.Cert}, delegate.Key
	})
}

// ocspStatus answers with a responseStatus alone.
func ocspStatus(code int) fault {
	return answers(func(*faultyCA) []byte { return pkix.OCSPErrorResponse(code) })
}

// ocspTransportFaults are those of the way, and of responders that answer nothing.
func ocspTransportFaults() []ocspFault {
	return []ocspFault{
		{name: "refuses connections", says: "connection refused", outbound: "error"},
		{name: "status 404", serve: answersStatus(http.StatusNotFound), says: "404 Not Found", outbound: "status"},
		{name: "status 500", serve: answersStatus(http.StatusInternalServerError), says: "500 Internal Server Error", outbound: "status"},
		{name: "endless body", serve: endless, says: "response too large", outbound: "too_large"},
		{name: "body cut off", serve: cutOff(func(o *faultyCA) []byte { return make([]byte, 500) }), says: "unexpected EOF", outbound: "error"},
		{name: "empty", serve: answers(func(*faultyCA) []byte { return nil }), says: "malformed OCSP response", outbound: "ok"},
		{name: "a web page", serve: answers(func(*faultyCA) []byte { return []byte("<!DOCTYPE html>") }), says: "malformed OCSP response", outbound: "ok"},
		{name: "tryLater", serve: ocspStatus(pkix.OCSPTryLater), says: "did not answer: tryLater", outbound: "ok"},
		{name: "unauthorized", serve: ocspStatus(pkix.OCSPUnauthorized), says: "unauthorized", outbound: "ok"},
		{name: "malformedRequest", serve: ocspStatus(pkix.OCSPMalformedRequest), says: "did not answer: malformedRequest", outbound: "ok"},
		{name: "internalError", serve: ocspStatus(pkix.OCSPInternalError), says: "did not answer: internalError", outbound: "ok"},
		{name: "sigRequired", serve: ocspStatus(pkix.OCSPSigRequired), says: "did not answer: sigRequired", outbound: "ok"},
	}
}

// criticalOCSP has an unknown critical extension in the response, or in the single answer of it.
func criticalOCSP(single bool) fault {
	return func(o *faultyCA, w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(resignedOCSP(o, o.reply(o.question(r), nil), func(fields [][]byte) {
			exts := tlv(0xa1, tlv(0x30, unknownCritical()))
			if single {
				fields[2] = tlv(0x30, tlv(0x30, content(o.t, content(o.t, fields[2])), exts))
				return
			}
			fields[2] = slices.Concat(fields[2], exts)
		}))
	}
}

// ocspContentFaults are those of the answer.
func ocspContentFaults(stranger *testpki.CA) []ocspFault {
	type edit = func(o *faultyCA, q pkix.OCSPRequest, a *reply)
	times := func(this, next time.Duration) edit {
		return func(_ *faultyCA, _ pkix.OCSPRequest, a *reply) {
			a.Responses[0].ThisUpdate, a.Responses[0].NextUpdate = time.Now().Add(this), time.Now().Add(next)
		}
	}
	about := func(id func(o *faultyCA, s pkix.Serial) pkix.OCSPCertID) edit {
		return func(o *faultyCA, q pkix.OCSPRequest, a *reply) { a.Responses[0].ID = id(o, q.Certs[0].Serial) }
	}
	const unauthorized = "not signed by an authorized responder"
	return []ocspFault{
		{"wrong nonce", says(func(_ *faultyCA, q pkix.OCSPRequest, a *reply) { a.Nonce = flipped(q.Nonce) }), "does not repeat the nonce", "ok"},
		{"no nonce", says(func(_ *faultyCA, _ pkix.OCSPRequest, a *reply) { a.Nonce = nil }), "does not repeat the nonce", "ok"},
		{"expired", says(times(-2*time.Hour, -time.Hour)), "has passed", "ok"},
		{"not yet valid", says(times(time.Hour, 2*time.Hour)), "is in the future", "ok"},
		{"responder without OCSPSigning", delegated(nil, x509.ExtKeyUsageClientAuth), "has no extended key usage OCSPSigning", "ok"},
		{"responder of another CA", delegated(stranger, x509.ExtKeyUsageOCSPSigning), "its certificate is of another issuer", "ok"},
		{"signed by another CA", says(func(_ *faultyCA, _ pkix.OCSPRequest, a *reply) { a.Responder, a.key = stranger.Cert, stranger.Key }), unauthorized, "ok"},
		{"bad signature", func(o *faultyCA, w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(flipped(o.reply(o.question(r), nil)))
		}, unauthorized, "ok"},
		{"another serial number", says(about(func(o *faultyCA, _ pkix.Serial) pkix.OCSPCertID {
			return pkix.NewOCSPCertID(crypto.SHA1, o.Cert, pkix.SerialOf(big.NewInt(7)))
		})), "not about this certificate", "ok"},
		{"another issuer", says(about(func(_ *faultyCA, s pkix.Serial) pkix.OCSPCertID {
			return pkix.NewOCSPCertID(crypto.SHA1, stranger.Cert, s)
		})), "not about this certificate", "ok"},
		{"unknown critical extension", criticalOCSP(false), "unknown critical extension 1.3.6.1.4.1.32473.1", "ok"},
		{"unknown critical extension of the single answer", criticalOCSP(true), "unknown critical extension 1.3.6.1.4.1.32473.1", "ok"},
	}
}

// A responder that does not answer, or whose answer does not count, refuses (hard) or lets in (soft), is told in metrics
// and explain, and never keeps the list from being asked.
func TestInvariant06OCSPFaults(t *testing.T) {
	t.Parallel()
	c := newCheckpoint(t, t.TempDir())
	for _, tc := range slices.Concat(ocspTransportFaults(), ocspContentFaults(testpki.NewCA(t, testpki.Name("Stranger")))) {
		t.Run(tc.name, func(t *testing.T) {
			c := c.under(t)
			o := newFaultyCA(t, tc.name)
			url := o.url + "/ocsp"
			if tc.serve == nil {
				url = nowhere(t) + "/ocsp"
			}
			o.responder.Store(&tc.serve)
			c.trust(o, trust.Policy{OCSPNonce: strings.HasSuffix(tc.name, " nonce")})
			alone, good, bad := o.client("alone", "", url), o.client("good", o.url+"/ca.crl", url), o.client("bad", o.url+"/ca.crl", url)
			o.revoke(bad)
			raised := c.counting(`sekisho_ocsp_questions_total{result="failed"}`, fmt.Sprintf("sekisho_outbound_requests_total{result=%q}", tc.outbound),
				`sekisho_requests_refused_total{reason="revocation_unknown"}`, `sekisho_clients_judged_total{revocation="unknown"}`)
			c.want(alone, isUnknown, "hard, no other source")
			raised()
			c.explains(alone, trust.OCSP, url, tc.says, url)
			c.want(good, comesIn, "the list says nothing")
			c.want(bad, isRevoked, "the list says revoked")
			c.soften(o)
			c.want(alone, comesIn, "soft")
			c.want(bad, isRevoked, "soft, the list says revoked")
		})
	}
	c.stop()
}

// amongMany answers about 200 more certificates, and about the right one in their midst.
func amongMany(status pkix.OCSPStatus) fault {
	return says(func(o *faultyCA, _ pkix.OCSPRequest, a *reply) {
		right := a.Responses[0]
		right.Status, right.RevokedAt = status, time.Now()
		a.Responses = nil
		for i := range 200 {
			other := right
			other.ID = pkix.NewOCSPCertID(crypto.SHA1, o.Cert, pkix.SerialOf(big.NewInt(int64(i))))
			other.Status = pkix.OCSPGood
			if status == pkix.OCSPGood && i != 100 {
				other.Status = pkix.OCSPRevoked
			}
			a.Responses = append(a.Responses, other)
			if i == 100 {
				a.Responses = append(a.Responses, right)
			}
		}
	})
}

// What is odd about an answer, or right in spite of how it looks, counts for what it says; that a responder does not know a
// certificate is not that it is good.
func TestInvariant07OddOCSPAnswers(t *testing.T) {
	t.Parallel()
	c := newCheckpoint(t, t.TempDir())
	status := func(s ...pkix.OCSPStatus) fault {
		return says(func(_ *faultyCA, _ pkix.OCSPRequest, a *reply) {
			first := a.Responses[0]
			a.Responses = nil
			for _, one := range s {
				first.Status, first.RevokedAt = one, time.Now()
				a.Responses = append(a.Responses, first)
			}
		})
	}
	for _, tc := range []struct {
		name    string
		serve   fault
		verdict string
	}{
		{"good among many", amongMany(pkix.OCSPGood), comesIn},
		{"revoked among many", amongMany(pkix.OCSPRevoked), isRevoked},
		{"good and revoked", status(pkix.OCSPGood, pkix.OCSPRevoked, pkix.OCSPGood), isRevoked},
		{"good and unknown", status(pkix.OCSPGood, pkix.OCSPUnknown), isUnknown},
		{"unknown", status(pkix.OCSPUnknown), isUnknown},
		{"expired, and revoked", says(func(_ *faultyCA, _ pkix.OCSPRequest, a *reply) {
			a.Responses[0].Status, a.Responses[0].RevokedAt = pkix.OCSPRevoked, time.Now()
			a.Responses[0].ThisUpdate, a.Responses[0].NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), isRevoked},
		{"no nextUpdate", says(func(_ *faultyCA, _ pkix.OCSPRequest, a *reply) { a.Responses[0].NextUpdate = time.Time{} }), comesIn},
		{"a responder with the right to", delegated(nil, x509.ExtKeyUsageOCSPSigning), comesIn},
		{"a nonce that was not asked for", says(func(_ *faultyCA, _ pkix.OCSPRequest, a *reply) { a.Nonce = []byte("0123456789abcdef") }), comesIn},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := c.under(t)
			o := newFaultyCA(t, tc.name)
			o.responder.Store(&tc.serve)
			c.trust(o, trust.Policy{})
			c.want(o.client("client", "", o.url+"/ocsp"), tc.verdict, "the responder alone")
		})
	}
	c.stop()
}
