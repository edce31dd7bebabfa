package pkix_test

import (
	"bytes"
	"crypto"
	"crypto/mldsa"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

func TestOCSPRequestFromXCrypto(t *testing.T) {
	ca := testpki.NewCA(t)
	leaf := ca.Client("x")
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		der, err := ocsp.CreateRequest(leaf.Cert, ca.Cert, &ocsp.RequestOptions{Hash: hash})
		if err != nil {
			t.Fatal(err)
		}
		req, err := pkix.ParseOCSPRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		want := pkix.NewOCSPCertID(hash, ca.Cert, pkix.SerialOf(leaf.Cert.SerialNumber))
		got := req.Certs[0]
		if len(req.Certs) != 1 || req.Nonce != nil || got.Hash != hash || got.Serial != want.Serial ||
			!bytes.Equal(got.IssuerNameHash, want.IssuerNameHash) || !bytes.Equal(got.IssuerKeyHash, want.IssuerKeyHash) ||
			!bytes.Equal(got.Raw, want.Raw) {
			t.Errorf("%v: %+v, want %+v", hash, got, want)
		}
		theirs, err := ocsp.ParseRequest(pkix.OCSPRequest{Certs: []pkix.OCSPCertID{want}}.Marshal())
		if err != nil || theirs.SerialNumber.Cmp(leaf.Cert.SerialNumber) != 0 || theirs.HashAlgorithm != hash {
			t.Errorf("%v: x/crypto reads %+v, %v", hash, theirs, err)
		}
	}
}

func TestOCSPRequestFromOpenSSL(t *testing.T) {
	ca := testpki.NewCA(t)
	one, two := ca.Client("one"), ca.Client("two")
	key, err := pkix.EncodePrivateKey(ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "ca.pem", ca.PEM)
	write(t, dir, "ca.key", key)
	write(t, dir, "one.pem", one.CertPEM)
	write(t, dir, "two.pem", two.CertPEM)
	openssl(t, dir, "ocsp", "-issuer", "ca.pem", "-cert", "one.pem", "-sha256", "-cert", "two.pem", "-reqout", "plain.der")
	openssl(t, dir, "ocsp", "-issuer", "ca.pem", "-cert", "one.pem", "-no_nonce", "-signer", "ca.pem", "-signkey", "ca.key", "-reqout", "signed.der")
	req, err := pkix.ParseOCSPRequest(readFile(t, dir, "plain.der"))
	if err != nil {
		t.Fatal(err)
	}
	if len(req.Certs) != 2 || len(req.Nonce) != 16 || req.Certs[0].Hash != crypto.SHA1 || req.Certs[1].Hash != crypto.SHA256 ||
		req.Certs[1].Serial != pkix.SerialOf(two.Cert.SerialNumber) {
		t.Errorf("%+v", req)
	}
	if !bytes.Equal(req.Marshal(), readFile(t, dir, "plain.der")) {
		t.Error("marshalled, it is another request than openssl's")
	}
	req, err = pkix.ParseOCSPRequest(readFile(t, dir, "signed.der"))
	if err != nil || len(req.Certs) != 1 || req.Nonce != nil {
		t.Errorf("signed, with requestorName: %+v, %v", req, err)
	}
}

func TestInvariant13OCSPRequestBounds(t *testing.T) {
	ca := testpki.NewCA(t)
	id := pkix.NewOCSPCertID(crypto.SHA1, ca.Cert, pkix.SerialOf(big.NewInt(5)))
	many := func(n int) []pkix.OCSPCertID {
		ids := make([]pkix.OCSPCertID, n)
		for i := range ids {
			ids[i] = id
		}
		return ids
	}
	good := pkix.OCSPRequest{Certs: many(1), Nonce: make([]byte, 128)}.Marshal()
	serial41 := pkix.NewOCSPCertID(crypto.SHA1, ca.Cert, pkix.SerialFromBytes(bytes.Repeat([]byte{1}, 41)))
	for _, tt := range []struct {
		name string
		der  []byte
		ok   bool
	}{
		{"nonce of 128", good, true},
		{"nonce of 1", pkix.OCSPRequest{Certs: many(1), Nonce: []byte{1}}.Marshal(), true},
		{"100 certificates", pkix.OCSPRequest{Certs: many(100)}.Marshal(), true},
		{"101 certificates", pkix.OCSPRequest{Certs: many(101)}.Marshal(), false},
		{"no certificate", pkix.OCSPRequest{}.Marshal(), false},
		{"nonce of 129", pkix.OCSPRequest{Certs: many(1), Nonce: make([]byte, 129)}.Marshal(), false},
		{"trailing byte", append(bytes.Clone(good), 0), false},
		{"cut", good[:len(good)-1], false},
		{"serial of 41", pkix.OCSPRequest{Certs: []pkix.OCSPCertID{serial41}}.Marshal(), false},
		{"empty", nil, false},
		{"huge", make([]byte, pkix.MaxOCSPRequestBytes+1), false},
	} {
		if _, err := pkix.ParseOCSPRequest(tt.der); (err == nil) != tt.ok || err != nil && !errors.Is(err, pkix.ErrOCSPMalformed) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for parameters, ok := range map[string]bool{"": true, "\x05\x00": true, "\x05\x01x": false, "\x04\x01x": false, "\x05\x00\x05\x00": false} {
		odd := pkix.OCSPCertID{Raw: withParameters(id.Raw, parameters)}
		if _, err := pkix.ParseOCSPRequest(pkix.OCSPRequest{Certs: []pkix.OCSPCertID{odd}}.Marshal()); (err == nil) != ok {
			t.Errorf("hash parameters %x: %v", parameters, err)
		}
	}
	_, err := pkix.ParseOCSPRequest(requestWith(id, []byte{1, 2, 3}, false, []byte("x")))
	if err != nil {
		t.Errorf("unknown extension, not critical: %v", err)
	}
	_, err = pkix.ParseOCSPRequest(requestWith(id, []byte{1, 2, 3}, true, []byte("x")))
	wantError(t, err, "unknown critical extension 0.1.2.3")
	nonceOID := []byte{0x2b, 6, 1, 5, 5, 7, 48, 1, 2}
	for _, value := range [][]byte{{}, {4, 0}, {4, 2, 1}, {4, 1, 1, 0}, []byte("raw octets")} {
		_, err = pkix.ParseOCSPRequest(requestWith(id, nonceOID, false, value))
		wantError(t, err, "nonce")
	}
}

// withParameters is a CertID with other parameters of its hash algorithm.
func withParameters(certID []byte, parameters string) []byte {
	input := cryptobyte.String(certID)
	var id, alg, oid cryptobyte.String
	if !input.ReadASN1(&id, asn1.SEQUENCE) || !id.ReadASN1(&alg, asn1.SEQUENCE) || !alg.ReadASN1Element(&oid, asn1.OBJECT_IDENTIFIER) {
		panic("no CertID")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(append(bytes.Clone(oid), parameters...)) })
		b.AddBytes(id)
	})
	return b.BytesOrPanic()
}

// requestWith is a request with one extension.
func requestWith(id pkix.OCSPCertID, oid []byte, critical bool, value []byte) []byte {
	explicit := asn1.Tag(2).ContextSpecific().Constructed()
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(id.Raw) })
			})
			b.AddASN1(explicit, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(oid) })
						if critical {
							b.AddASN1Boolean(true)
						}
						b.AddASN1OctetString(value)
					})
				})
			})
		})
	})
	return b.BytesOrPanic()
}

// answer is a template with one answer of each status.
func answer(ca *testpki.CA, hash crypto.Hash) pkix.OCSPTemplate {
	now := time.Now().Truncate(time.Second)
	single := func(n int64, status pkix.OCSPStatus) pkix.OCSPSingle {
		return pkix.OCSPSingle{
			ID: pkix.NewOCSPCertID(hash, ca.Cert, pkix.SerialOf(big.NewInt(n))), Status: status,
			ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
		}
	}
	good, revoked, unknown := single(0xa1, pkix.OCSPGood), single(0xa2, pkix.OCSPRevoked), single(0xa3, pkix.OCSPUnknown)
	revoked.RevokedAt, revoked.Reason = at(2020), pkix.KeyCompromise
	return pkix.OCSPTemplate{
		Responder: ca.Cert, ProducedAt: now, Nonce: []byte("0123456789abcdef"),
		Responses: []pkix.OCSPSingle{good, revoked, unknown},
	}
}

func TestOCSPResponseReadByXCrypto(t *testing.T) {
	for _, keyType := range []pkix.KeyType{pkix.ECDSAP256, pkix.ECDSAP384, pkix.RSA2048} {
		t.Run(string(keyType), func(t *testing.T) {
			ca := testpki.NewCA(t, testpki.KeyType(keyType))
			tmpl := answer(ca, crypto.SHA256)
			der, err := pkix.SignOCSP(tmpl, ca.Key)
			if err != nil {
				t.Fatal(err)
			}
			for i, status := range []int{ocsp.Good, ocsp.Revoked, ocsp.Unknown} {
				cert := &x509.Certificate{SerialNumber: tmpl.Responses[i].ID.Serial.Big()}
				resp, err := ocsp.ParseResponseForCert(der, cert, ca.Cert)
				if err != nil {
					t.Fatal(err)
				}
				if resp.Status != status || !resp.ThisUpdate.Equal(tmpl.Responses[i].ThisUpdate) || !resp.NextUpdate.Equal(tmpl.Responses[i].NextUpdate) ||
					!resp.ProducedAt.Equal(tmpl.ProducedAt) || !bytes.Equal(resp.ResponderKeyHash, pkix.NewOCSPCertID(crypto.SHA1, ca.Cert, pkix.Serial{}).IssuerKeyHash) {
					t.Errorf("%+v", resp)
				}
				if status == ocsp.Revoked && (resp.RevocationReason != ocsp.KeyCompromise || !resp.RevokedAt.Equal(at(2020).Truncate(time.Second))) {
					t.Errorf("revoked: %+v", resp)
				}
			}
		})
	}
}

// TestOCSPResponseReadByOpenSSL: for every key openssl 3.0 can read, direct and
// by a delegate, with the nonce of openssl's own request.
func TestOCSPResponseReadByOpenSSL(t *testing.T) {
	for _, keyType := range []pkix.KeyType{pkix.ECDSAP256, pkix.ECDSAP384, pkix.RSA2048, pkix.Ed25519} {
		ca := testpki.NewCA(t, testpki.KeyType(keyType))
		t.Run(string(keyType), func(t *testing.T) { opensslReads(t, ca, answer(ca, crypto.SHA1), ca.Key) })
	}
	ca := testpki.NewCA(t)
	delegate := ca.Client("responder", testpki.Edit(func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.OCSPNoCheck())
	}))
	tmpl := answer(ca, crypto.SHA1)
	tmpl.Responder, tmpl.Include = delegate.Cert, []*x509.Certificate{delegate.Cert}
	t.Run("delegate", func(t *testing.T) { opensslReads(t, ca, tmpl, delegate.Key) })
}

func opensslReads(t *testing.T, ca *testpki.CA, tmpl pkix.OCSPTemplate, key crypto.Signer) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "ca.pem", ca.PEM)
	args := []string{"ocsp", "-issuer", "ca.pem", "-serial", "0xa1", "-serial", "0xa2", "-serial", "0xa3"}
	openssl(t, dir, append(args, "-reqout", "req.der")...)
	req, err := pkix.ParseOCSPRequest(readFile(t, dir, "req.der"))
	if err != nil {
		t.Fatal(err)
	}
	tmpl.Nonce = req.Nonce
	for i := range tmpl.Responses {
		tmpl.Responses[i].ID = req.Certs[i]
	}
	der, err := pkix.SignOCSP(tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "resp.der", der)
	out := openssl(t, dir, "ocsp", "-issuer", "ca.pem", "-serial", "0xa1", "-serial", "0xa2", "-serial", "0xa3",
		"-no_nonce", "-reqin", "req.der", "-respin", "resp.der", "-CAfile", "ca.pem")
	for _, want := range []string{"Response verify OK", "0xa1: good", "0xa2: revoked", "Reason: keyCompromise", "0xa3: unknown"} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not print %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "WARNING") {
		t.Errorf("openssl warns (of the nonce?):\n%s", out)
	}
}

func TestOCSPResponseWithMLDSA(t *testing.T) {
	ca := testpki.NewCA(t, testpki.KeyType(pkix.MLDSA65))
	der, err := pkix.SignOCSP(answer(ca, crypto.SHA256), ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	input := cryptobyte.String(der)
	var outer, bytesTag, seq, octets, basic, data cryptobyte.String
	var status int
	var signature []byte
	if !input.ReadASN1(&outer, asn1.SEQUENCE) || !outer.ReadASN1Enum(&status) || status != 0 ||
		!outer.ReadASN1(&bytesTag, asn1.Tag(0).ContextSpecific().Constructed()) || !bytesTag.ReadASN1(&seq, asn1.SEQUENCE) ||
		!seq.SkipASN1(asn1.OBJECT_IDENTIFIER) || !seq.ReadASN1(&octets, asn1.OCTET_STRING) || !octets.ReadASN1(&basic, asn1.SEQUENCE) ||
		!basic.ReadASN1Element(&data, asn1.SEQUENCE) || !basic.SkipASN1(asn1.SEQUENCE) || !basic.ReadASN1BitStringAsBytes(&signature) {
		t.Fatal("the response cannot be read")
	}
	if err := mldsa.Verify(ca.Cert.PublicKey.(*mldsa.PublicKey), data, signature, nil); err != nil {
		t.Error(err)
	}
}

func TestSignOCSPErrors(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t)
	_, err := pkix.SignOCSP(answer(ca, crypto.SHA1), other.Key)
	wantError(t, err, "not the key of certificate")
	_, err = pkix.SignOCSP(pkix.OCSPTemplate{Responder: ca.Cert}, ca.Key)
	wantError(t, err, "no answers")
}

func TestInvariant07ZeroStatusIsNotGood(t *testing.T) {
	if s := (pkix.OCSPSingle{}).Status; s != pkix.OCSPUnknown || s.String() != "unknown" {
		t.Errorf("the zero status is %v", s)
	}
}

func TestOCSPErrorResponse(t *testing.T) {
	for status, want := range map[int]ocsp.ResponseStatus{
		pkix.OCSPMalformedRequest: ocsp.Malformed, pkix.OCSPInternalError: ocsp.InternalError, pkix.OCSPTryLater: ocsp.TryLater,
		pkix.OCSPSigRequired: ocsp.SignatureRequired, pkix.OCSPUnauthorized: ocsp.Unauthorized,
	} {
		_, err := ocsp.ParseResponse(pkix.OCSPErrorResponse(status), nil)
		if got, ok := errors.AsType[ocsp.ResponseError](err); !ok || got.Status != want {
			t.Errorf("%d: %v, want %v", status, err, want)
		}
	}
}

func FuzzParseOCSPRequest(f *testing.F) {
	ca := testpki.NewCA(f)
	id := pkix.NewOCSPCertID(crypto.SHA1, ca.Cert, pkix.SerialOf(big.NewInt(5)))
	f.Add(pkix.OCSPRequest{Certs: []pkix.OCSPCertID{id}}.Marshal())
	f.Add(pkix.OCSPRequest{Certs: []pkix.OCSPCertID{id, id}, Nonce: []byte{1, 2}}.Marshal())
	f.Add(requestWith(id, []byte{1, 2, 3}, true, []byte("x")))
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		req, err := pkix.ParseOCSPRequest(der)
		if err != nil {
			if !errors.Is(err, pkix.ErrOCSPMalformed) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		again, err := pkix.ParseOCSPRequest(req.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(req, again, cmp.AllowUnexported(pkix.Serial{})); diff != "" {
			t.Error(diff)
		}
	})
}
