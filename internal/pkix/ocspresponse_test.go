package pkix_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// tlv is one DER element: a tag and its contents one after another.
func tlv(tag byte, contents ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.Tag(tag), func(b *cryptobyte.Builder) {
		for _, c := range contents {
			b.AddBytes(c)
		}
	})
	return b.BytesOrPanic()
}

// parts are the elements of an OCSPResponse, each in DER, for tests to break.
type parts struct {
	status, responseType, version, responder, produced []byte
	singles                                            []byte // one after another
	extensions, algorithm, signature, certs            []byte
	afterData, afterBasic, afterBytes, afterAll        []byte
}

// singleParts are the elements of a SingleResponse.
type singleParts struct{ id, status, this, next, extensions []byte }

func (s singleParts) der() []byte {
	return tlv(0x30, s.id, s.status, s.this, s.next, s.extensions)
}

const (
	soon  = "20300102030405Z"
	later = "20300103030405Z"
)

func generalized(text string) []byte { return tlv(0x18, []byte(text)) }

func goodSingle() singleParts {
	ca := &x509.Certificate{RawSubject: []byte("name"), RawSubjectPublicKeyInfo: tlv(0x30, tlv(0x30), tlv(0x03, []byte("\x00key")))}
	return singleParts{
		id: pkix.NewOCSPCertID(crypto.SHA1, ca, pkix.SerialOf(big.NewInt(5))).Raw, status: tlv(0x80),
		this: generalized(soon), next: tlv(0xa0, generalized(later)),
	}
}

func goodParts() parts {
	oid := []byte{0x2b, 6, 1, 5, 5, 7, 48, 1, 1}
	return parts{
		status: tlv(0x0a, []byte{0}), responseType: tlv(0x06, oid), responder: tlv(0xa2, tlv(0x04, make([]byte, 20))),
		produced: generalized(soon), singles: goodSingle().der(),
		algorithm: tlv(0x30, tlv(0x06, []byte{0x2b, 0x65, 0x70})), signature: tlv(0x03, []byte{0}, make([]byte, 64)),
	}
}

func (p parts) der() []byte {
	data := tlv(0x30, p.version, p.responder, p.produced, tlv(0x30, p.singles), p.extensions, p.afterData)
	basic := tlv(0x30, data, p.algorithm, p.signature, p.certs, p.afterBasic)
	return append(tlv(0x30, p.status, tlv(0xa0, tlv(0x30, p.responseType, tlv(0x04, basic), p.afterBytes))), p.afterAll...)
}

// extension is one Extension; extensions puts some in an explicit context tag.
func extension(oid []byte, critical bool, value []byte) []byte {
	if critical {
		return tlv(0x30, tlv(0x06, oid), tlv(0x01, []byte{0xff}), tlv(0x04, value))
	}
	return tlv(0x30, tlv(0x06, oid), tlv(0x04, value))
}

func extensions(list ...[]byte) []byte { return tlv(0xa1, tlv(0x30, list...)) }

// brokenResponses names what is wrong in a response, and the words of its error.
func brokenResponses() map[string]struct {
	der  []byte
	want string
} {
	nonceOID, other := []byte{0x2b, 6, 1, 5, 5, 7, 48, 1, 2}, []byte{1, 2, 3}
	type broken = struct {
		der  []byte
		want string
	}
	edit := func(f func(*parts)) []byte { p := goodParts(); f(&p); return p.der() }
	single := func(f func(*singleParts)) []byte {
		s := goodSingle()
		f(&s)
		return edit(func(p *parts) { p.singles = s.der() })
	}
	good := goodParts().der()
	return map[string]broken{
		"empty":                  {nil, "not an OCSPResponse"},
		"huge":                   {make([]byte, pkix.MaxOCSPResponseBytes+1), "at most 262144"},
		"cut":                    {good[:len(good)-1], "not an OCSPResponse"},
		"trailing byte":          {edit(func(p *parts) { p.afterAll = []byte{0} }), "not an OCSPResponse"},
		"after ResponseBytes":    {edit(func(p *parts) { p.afterBytes = tlv(0x05) }), "without an answer that can be read"},
		"after BasicResponse":    {edit(func(p *parts) { p.afterBasic = tlv(0x05) }), "BasicOCSPResponse"},
		"after ResponseData":     {edit(func(p *parts) { p.afterData = tlv(0x05) }), "ResponseData"},
		"no status":              {edit(func(p *parts) { p.status = nil }), "not an OCSPResponse"},
		"status 4":               {tlv(0x30, tlv(0x0a, []byte{4})), "unknown responseStatus 4"},
		"status 7":               {tlv(0x30, tlv(0x0a, []byte{7})), "unknown responseStatus 7"},
		"status -1":              {tlv(0x30, tlv(0x0a, []byte{0xff})), "unknown responseStatus -1"},
		"tryLater with answer":   {edit(func(p *parts) { p.status = tlv(0x0a, []byte{3}) }), "tryLater with an answer"},
		"successful and nothing": {tlv(0x30, tlv(0x0a, []byte{0})), "without an answer"},
		"other response type":    {edit(func(p *parts) { p.responseType = tlv(0x06, other) }), "response type 0.1.2.3"},
		"version 2":              {edit(func(p *parts) { p.version = tlv(0xa0, tlv(0x02, []byte{1})) }), "version"},
		"no responder":           {edit(func(p *parts) { p.responder = nil }), "neither by name nor by key"},
		"both responders": {edit(func(p *parts) {
			p.responder = append(tlv(0xa1, tlv(0x30)), tlv(0xa2, tlv(0x04, make([]byte, 20)))...)
		}), "neither by name nor by key"},
		"key hash of 19":         {edit(func(p *parts) { p.responder = tlv(0xa2, tlv(0x04, make([]byte, 19))) }), "SHA-1"},
		"name that is none":      {edit(func(p *parts) { p.responder = tlv(0xa1, tlv(0x04)) }), "name cannot be read"},
		"producedAt with zone":   {edit(func(p *parts) { p.produced = generalized("20300102030405+0100") }), "producedAt"},
		"producedAt fraction":    {edit(func(p *parts) { p.produced = generalized("20300102030405.5Z") }), "producedAt"},
		"producedAt in year 0":   {edit(func(p *parts) { p.produced = generalized("00000102030405Z") }), "producedAt"},
		"producedAt a UTCTime":   {edit(func(p *parts) { p.produced = tlv(0x17, []byte("300102030405Z")) }), "producedAt"},
		"no answers":             {edit(func(p *parts) { p.singles = nil }), "no certificate"},
		"1001 answers":           {edit(func(p *parts) { p.singles = bytes.Repeat(p.singles, 1001) }), "more than 1000 answers"},
		"11 certificates":        {edit(func(p *parts) { p.certs = tlv(0xa0, tlv(0x30, bytes.Repeat(tlv(0x30), 11))) }), "more than 10 certificates"},
		"certificate, no DER":    {edit(func(p *parts) { p.certs = tlv(0xa0, tlv(0x30, []byte("x"))) }), "certificates cannot be read"},
		"after the certificates": {edit(func(p *parts) { p.certs = tlv(0xa0, tlv(0x30), tlv(0x05)) }), "certificates cannot be read"},
		"unused signature bits":  {edit(func(p *parts) { p.signature = tlv(0x03, []byte{1, 2}) }), "BasicOCSPResponse"},
		"critical extension":     {edit(func(p *parts) { p.extensions = extensions(extension(other, true, nil)) }), "unknown critical extension 0.1.2.3"},
		"two nonces": {edit(func(p *parts) {
			p.extensions = extensions(extension(nonceOID, false, []byte{4, 1, 1}), extension(nonceOID, false, []byte{4, 1, 1}))
		}), "nonce"},
		"nonce of 0":        {edit(func(p *parts) { p.extensions = extensions(extension(nonceOID, false, []byte{4, 0})) }), "nonce"},
		"nonce of 129":      {edit(func(p *parts) { p.extensions = extensions(extension(nonceOID, false, tlv(4, make([]byte, 129)))) }), "nonce"},
		"empty extensions":  {edit(func(p *parts) { p.extensions = tlv(0xa1) }), "extensions cannot be read"},
		"status tag 3":      {single(func(s *singleParts) { s.status = tlv(0x83) }), "status cannot be read"},
		"good with content": {single(func(s *singleParts) { s.status = tlv(0x80, []byte{1}) }), "status cannot be read"},
		"revoked, no time":  {single(func(s *singleParts) { s.status = tlv(0xa1) }), "status cannot be read"},
		"reason no ENUMERATED": {single(func(s *singleParts) {
			s.status = tlv(0xa1, generalized(soon), tlv(0xa0, tlv(0x02, []byte{1})))
		}), "status cannot be read"},
		"unknown with content":       {single(func(s *singleParts) { s.status = tlv(0x82, []byte{1}) }), "status cannot be read"},
		"no thisUpdate":              {single(func(s *singleParts) { s.this = nil }), "thisUpdate"},
		"nextUpdate first":           {single(func(s *singleParts) { s.this = generalized("20300203030405Z") }), "nextUpdate is before"},
		"nextUpdate, two":            {single(func(s *singleParts) { s.next = tlv(0xa0, generalized(later), generalized(later)) }), "nextUpdate"},
		"critical single extension":  {single(func(s *singleParts) { s.extensions = extensions(extension(other, true, nil)) }), "unknown critical extension 0.1.2.3"},
		"critical nonce in a single": {single(func(s *singleParts) { s.extensions = extensions(extension(nonceOID, true, []byte{4, 1, 1})) }), "unknown critical"},
		"negative serial": {single(func(s *singleParts) {
			s.id = slices.Concat(s.id[:len(s.id)-1], []byte{0xff})
		}), "CertID"},
	}
}

func TestInvariant13OCSPResponseBounds(t *testing.T) {
	for name, tt := range brokenResponses() {
		r, err := pkix.ParseOCSPResponse(tt.der)
		if r != nil || !errors.Is(err, pkix.ErrOCSPResponse) {
			t.Errorf("%s: %+v, %v", name, r, err)
			continue
		}
		wantError(t, err, tt.want)
	}
}

// TestOCSPResponseTolerated: what is odd and still taken, and how it is read.
func TestOCSPResponseTolerated(t *testing.T) {
	other := []byte{1, 2, 3}
	single := func(f func(*singleParts)) func(*parts) {
		return func(p *parts) { s := goodSingle(); f(&s); p.singles = s.der() }
	}
	for name, tt := range map[string]struct {
		edit  func(*parts)
		check func(*pkix.OCSPResponse) bool
	}{
		"plain": {func(*parts) {}, func(r *pkix.OCSPResponse) bool {
			return r.Status == pkix.OCSPSuccessful && len(r.ResponderKeyHash) == 20 && r.ResponderName == nil && r.Nonce == nil &&
				r.Singles[0].Status == pkix.OCSPGood && r.Singles[0].NextUpdate.Equal(time.Date(2030, 1, 3, 3, 4, 5, 0, time.UTC))
		}},
		"1000 answers": {func(p *parts) { p.singles = bytes.Repeat(p.singles, 1000) }, func(r *pkix.OCSPResponse) bool { return len(r.Singles) == 1000 }},
		"unreadable certificates": {
			func(p *parts) { p.certs = tlv(0xa0, tlv(0x30, bytes.Repeat(tlv(0x30), 10))) },
			func(r *pkix.OCSPResponse) bool { return len(r.Certificates) == 0 },
		},
		"by name":             {func(p *parts) { p.responder = tlv(0xa1, tlv(0x30)) }, func(r *pkix.OCSPResponse) bool { return bytes.Equal(r.ResponderName, tlv(0x30)) }},
		"version written out": {func(p *parts) { p.version = tlv(0xa0, tlv(0x02, []byte{0})) }, func(*pkix.OCSPResponse) bool { return true }},
		"unknown extensions": {func(p *parts) {
			p.extensions = extensions(extension(other, false, nil), extension(other, false, nil))
		}, func(r *pkix.OCSPResponse) bool { return r.Nonce == nil }},
		"no nextUpdate":      {single(func(s *singleParts) { s.next = nil }), func(r *pkix.OCSPResponse) bool { return r.Singles[0].NextUpdate.IsZero() }},
		"unknown":            {single(func(s *singleParts) { s.status = tlv(0x82) }), func(r *pkix.OCSPResponse) bool { return r.Singles[0].Status == pkix.OCSPUnknown }},
		"revoked, no reason": {single(func(s *singleParts) { s.status = tlv(0xa1, generalized(soon)) }), isRevoked(pkix.Unspecified)},
		"revoked, reason 7": {
			single(func(s *singleParts) { s.status = tlv(0xa1, generalized(soon), tlv(0xa0, tlv(0x0a, []byte{7}))) }),
			isRevoked(7),
		},
		"single extension": {single(func(s *singleParts) { s.extensions = extensions(extension(other, false, nil)) }), func(*pkix.OCSPResponse) bool { return true }},
	} {
		p := goodParts()
		tt.edit(&p)
		r, err := pkix.ParseOCSPResponse(p.der())
		if err != nil || !tt.check(r) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func isRevoked(reason pkix.Reason) func(*pkix.OCSPResponse) bool {
	return func(r *pkix.OCSPResponse) bool {
		return r.Singles[0].Status == pkix.OCSPRevoked && r.Singles[0].Reason == reason && !r.Singles[0].RevokedAt.IsZero()
	}
}

func TestOCSPUnsuccessfulStatuses(t *testing.T) {
	ca := testpki.NewCA(t)
	for status, name := range map[int]string{
		pkix.OCSPMalformedRequest: "malformedRequest", pkix.OCSPInternalError: "internalError", pkix.OCSPTryLater: "tryLater",
		pkix.OCSPSigRequired: "sigRequired", pkix.OCSPUnauthorized: "unauthorized",
	} {
		r, err := pkix.ParseOCSPResponse(pkix.OCSPErrorResponse(status))
		if err != nil || r.Status != status || len(r.Singles) != 0 || pkix.OCSPStatusName(r.Status) != name {
			t.Errorf("%s: %+v, %v", name, r, err)
			continue
		}
		_, err = r.CheckResponder(ca.Cert, time.Now(), anyAlgorithm)
		wantError(t, err, name+" has no signature")
		if _, ok := r.Single(ca.Cert, pkix.SerialOf(big.NewInt(1))); ok {
			t.Errorf("%s: an answer out of nothing", name)
		}
	}
}

// TestOCSPResponseOwnRoundTrip: what SignOCSP writes is read back, with every key.
func TestOCSPResponseOwnRoundTrip(t *testing.T) {
	for _, keyType := range []pkix.KeyType{pkix.ECDSAP256, pkix.ECDSAP384, pkix.RSA2048, pkix.Ed25519, pkix.MLDSA65} {
		t.Run(string(keyType), func(t *testing.T) {
			ca := testpki.NewCA(t, testpki.KeyType(keyType))
			for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
				roundTrip(t, ca, answer(ca, hash))
			}
		})
	}
}

func roundTrip(t *testing.T, ca *testpki.CA, tmpl pkix.OCSPTemplate) {
	t.Helper()
	der, err := pkix.SignOCSP(tmpl, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pkix.ParseOCSPResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err := r.CheckResponder(ca.Cert, time.Now(), anyAlgorithm); err != nil || signer != ca.Cert {
		t.Errorf("signer %v, %v", signer, err)
	}
	if !r.ProducedAt.Equal(tmpl.ProducedAt) || !bytes.Equal(r.Nonce, tmpl.Nonce) || !bytes.Equal(r.Raw, der) {
		t.Errorf("%+v", r)
	}
	for _, want := range tmpl.Responses {
		got, ok := r.Single(ca.Cert, want.ID.Serial)
		if !ok || got.Status != want.Status || got.Reason != want.Reason || !got.ThisUpdate.Equal(want.ThisUpdate) ||
			!got.NextUpdate.Equal(want.NextUpdate) || !got.RevokedAt.Equal(want.RevokedAt.Truncate(time.Second)) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if _, ok := r.Single(ca.Cert, pkix.SerialOf(big.NewInt(0xa4))); ok {
		t.Error("an answer for a certificate that was not asked about")
	}
	if _, ok := r.Single(testpki.NewCA(t).Cert, pkix.SerialOf(big.NewInt(0xa1))); ok {
		t.Error("an answer for another issuer with the same name")
	}
}

// TestOCSPSingleContradiction: two answers for one certificate, by two digests; the worse one counts, whatever the order.
func TestOCSPSingleContradiction(t *testing.T) {
	ca := testpki.NewCA(t)
	now := time.Now().Truncate(time.Second)
	order := []pkix.OCSPStatus{pkix.OCSPGood, pkix.OCSPUnknown, pkix.OCSPRevoked} // worst last
	for i, one := range order {
		for j, two := range order {
			tmpl := pkix.OCSPTemplate{Responder: ca.Cert, ProducedAt: now}
			for hash, status := range map[crypto.Hash]pkix.OCSPStatus{crypto.SHA1: one, crypto.SHA256: two} {
				tmpl.Responses = append(tmpl.Responses, pkix.OCSPSingle{
					ID: pkix.NewOCSPCertID(hash, ca.Cert, pkix.SerialOf(big.NewInt(1))), Status: status, ThisUpdate: now, RevokedAt: now,
				})
			}
			der, err := pkix.SignOCSP(tmpl, ca.Key)
			if err != nil {
				t.Fatal(err)
			}
			r, err := pkix.ParseOCSPResponse(der)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := r.Single(ca.Cert, pkix.SerialOf(big.NewInt(1))); !ok || got.Status != order[max(i, j)] {
				t.Errorf("%v and %v: %v", one, two, got.Status)
			}
		}
	}
}

// TestInvariant13OCSPResponseWork: a response just under the bound, made of what costs most, is judged in a moment.
func TestInvariant13OCSPResponseWork(t *testing.T) {
	ca := testpki.NewCA(t)
	p := goodParts()
	s := goodSingle()
	s.extensions = extensions(bytes.Repeat(extension([]byte{1, 2, 3}, false, nil), 14))
	p.singles = bytes.Repeat(s.der(), 1000)
	p.certs = tlv(0xa0, tlv(0x30, bytes.Repeat(ca.Cert.Raw, 10)))
	keyHash := pkix.NewOCSPCertID(crypto.SHA1, ca.Cert, pkix.Serial{}).IssuerKeyHash
	p.responder = tlv(0xa2, tlv(0x04, keyHash))
	der := p.der()
	if len(der) > pkix.MaxOCSPResponseBytes || len(der) < pkix.MaxOCSPResponseBytes*3/4 {
		t.Fatalf("the response has %d bytes", len(der))
	}
	begin := time.Now()
	r, err := pkix.ParseOCSPResponse(der)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.CheckResponder(ca.Cert, time.Now(), anyAlgorithm)
	if !errors.Is(err, pkix.ErrOCSPResponder) {
		t.Error(err)
	}
	r.Single(ca.Cert, pkix.SerialOf(big.NewInt(5)))
	if took := time.Since(begin); took > 500*time.Millisecond && !raceEnabled {
		t.Errorf("%d bytes took %v", len(der), took)
	}
}

func anyAlgorithm(string) bool { return true }

func FuzzParseOCSPResponse(f *testing.F) {
	ca := testpki.NewCA(f)
	delegate := ca.Client("responder", testpki.Edit(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }))
	tmpl := answer(ca, crypto.SHA256)
	tmpl.Responder, tmpl.Include = delegate.Cert, []*x509.Certificate{delegate.Cert}
	der, err := pkix.SignOCSP(tmpl, delegate.Key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add(goodParts().der())
	f.Add(pkix.OCSPErrorResponse(pkix.OCSPTryLater))
	for name, tt := range brokenResponses() {
		if name != "huge" {
			f.Add(tt.der)
		}
	}
	signed := der
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := pkix.ParseOCSPResponse(der)
		if err != nil {
			if !errors.Is(err, pkix.ErrOCSPResponse) || len(err.Error()) > 1000 {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		if r.Status == pkix.OCSPSuccessful != (len(r.Singles) > 0) || len(r.Singles) > pkix.MaxOCSPSingles || len(r.Certificates) > pkix.MaxOCSPCertificates {
			t.Errorf("%+v", r)
		}
		if _, err := r.CheckResponder(ca.Cert, time.Now(), anyAlgorithm); err == nil && !sameAnswers(t, der, signed) {
			t.Error("a response that nobody signed passes")
		}
		// A CertID read is one that is read again, as the same.
		for _, s := range r.Singles[:min(len(r.Singles), pkix.MaxOCSPRequests)] {
			req, err := pkix.ParseOCSPRequest(pkix.OCSPRequest{Certs: []pkix.OCSPCertID{s.CertID}}.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.CertID, req.Certs[0], cmp.AllowUnexported(pkix.Serial{})); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// sameAnswers reports whether two responses have the same content under their signatures; ECDSA signatures and what is
// around them can be spelled in more than one way.
func sameAnswers(t *testing.T, a, b []byte) bool {
	t.Helper()
	one, err1 := pkix.ParseOCSPResponse(a)
	two, err2 := pkix.ParseOCSPResponse(b)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%v", one.Singles) == fmt.Sprintf("%v", two.Singles) && bytes.Equal(one.Nonce, two.Nonce)
}
