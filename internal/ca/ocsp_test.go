package ca_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// request is an OCSP request about serial numbers of an issuer.
func request(hash crypto.Hash, issuer *x509.Certificate, nonce []byte, serials ...pkix.Serial) []byte {
	r := pkix.OCSPRequest{Nonce: nonce}
	for _, s := range serials {
		r.Certs = append(r.Certs, pkix.NewOCSPCertID(hash, issuer, s))
	}
	return r.Marshal()
}

func (f *fixture) answer(der []byte) ca.OCSPAnswer {
	f.t.Helper()
	answer, err := f.AnswerOCSP(f.t.Context(), der)
	if err != nil {
		f.t.Fatal(err)
	}
	return answer
}

// ask asks about a certificate without a nonce, as a cache may answer.
func (f *fixture) ask(row ca.Certificate) ca.OCSPAnswer {
	f.t.Helper()
	return f.answer(request(crypto.SHA256, f.Issuing(), nil, row.Serial))
}

func (f *fixture) askGood(row ca.Certificate) {
	f.t.Helper()
	if got := f.ask(row).Status; got != "good" {
		f.t.Errorf("OCSP says %s of an active certificate", got)
	}
}

// TestOCSPAnswers lets x/crypto/ocsp read and verify the answers, with both hashes.
func TestOCSPAnswers(t *testing.T) {
	for _, kind := range []pkix.KeyType{pkix.ECDSAP256, pkix.ECDSAP384, pkix.RSA2048} { // x/crypto/ocsp knows no others
		t.Run(string(kind), func(t *testing.T) {
			f := newCA(t, kind)
			good, held, gone := f.issue("good"), f.issue("held"), f.issue("gone")
			f.hold(held.ID)
			f.revoke(gone.ID, pkix.KeyCompromise)
			for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
				for row, want := range map[*ca.Certificate][2]int{
					&good: {ocsp.Good, 0}, &held: {ocsp.Revoked, ocsp.CertificateHold}, &gone: {ocsp.Revoked, ocsp.KeyCompromise},
				} {
					answer := f.answer(request(hash, f.Issuing(), nil, row.Serial))
					parsed, err := ocsp.ParseResponse(answer.DER, f.Issuing())
					if err != nil {
						t.Fatalf("%s with %v: %v", row.CommonName, hash, err)
					}
					if parsed.Status != want[0] || parsed.RevocationReason != want[1] || parsed.IssuerHash != hash ||
						parsed.SerialNumber.Cmp(row.Serial.Big()) != 0 {
						t.Errorf("%s with %v: %+v", row.CommonName, hash, parsed)
					}
					if !parsed.NextUpdate.Equal(parsed.ThisUpdate.Add(time.Hour)) || !answer.Cacheable {
						t.Errorf("%s: from %v to %v, cacheable %v", row.CommonName, parsed.ThisUpdate, parsed.NextUpdate, answer.Cacheable)
					}
				}
			}
		})
	}
}

// TestInvariant07UnknownIsNeverGood: serial numbers that our CA never issued, and those of another CA.
func TestInvariant07UnknownIsNeverGood(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	next := pkix.SerialOf(new(big.Int).Add(row.Serial.Big(), big.NewInt(1)))
	foreign := testpki.NewCA(t).Cert
	for _, c := range []struct {
		name string
		der  []byte
		want string
	}{
		{"never issued", request(crypto.SHA1, f.Issuing(), nil, next), "unknown"},
		{"zero", request(crypto.SHA256, f.Issuing(), nil, pkix.Serial{}), "unknown"},
		{"the leaf's serial under the root", request(crypto.SHA256, f.Root(), nil, row.Serial), "unknown"},
		{"the issuing CA under the root", request(crypto.SHA256, f.Root(), nil, pkix.SerialOf(f.Issuing().SerialNumber)), "good"},
		{"foreign issuer", request(crypto.SHA256, foreign, nil, row.Serial), "unauthorized"},
		{"two of our CAs", pkix.OCSPRequest{Certs: []pkix.OCSPCertID{
			pkix.NewOCSPCertID(crypto.SHA1, f.Issuing(), row.Serial), pkix.NewOCSPCertID(crypto.SHA1, f.Root(), row.Serial),
		}}.Marshal(), "unauthorized"},
		{"garbage", []byte("hello"), "malformedRequest"},
		{"empty", nil, "malformedRequest"},
		{"nonce of 129", request(crypto.SHA1, f.Issuing(), make([]byte, 129), row.Serial), "malformedRequest"},
	} {
		for range 2 { // the second answer might come from memory
			if got := f.answer(c.der).Status; got != c.want {
				t.Errorf("%s: %s, want %s", c.name, got, c.want)
			}
		}
	}
	f.askGood(f.issue("y")) // a certificate is good from its first second
}

// TestOCSPNonce: echoed, and such an answer is for nobody else.
func TestOCSPNonce(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	plain := f.ask(row)
	for _, size := range []int{1, 32, 128} {
		nonce := bytes.Repeat([]byte{0xa5}, size)
		answer := f.answer(request(crypto.SHA256, f.Issuing(), nonce, row.Serial))
		if !bytes.Contains(answer.DER, nonce) || answer.Cacheable || answer.ETag != "" {
			t.Errorf("nonce of %d: echoed %v, cacheable %v", size, bytes.Contains(answer.DER, nonce), answer.Cacheable)
		}
	}
	if again := f.ask(row); !bytes.Equal(again.DER, plain.DER) {
		t.Error("the answer without a nonce did not come from memory")
	}
	two := f.answer(request(crypto.SHA1, f.Issuing(), nil, row.Serial, f.issue("y").Serial))
	if parsed, err := ocsp.ParseResponseForCert(two.DER, parse(t, row), f.Issuing()); err != nil || parsed.Status != ocsp.Good {
		t.Errorf("two in one: %v", err)
	}
}

// TestOCSPCache: an answer from memory lives for half its time, and not past a change.
func TestOCSPCache(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	first := f.ask(row)
	f.clock.Add(int64(29 * time.Minute))
	if !bytes.Equal(f.ask(row).DER, first.DER) {
		t.Error("signed anew after 29 minutes")
	}
	f.clock.Add(int64(2 * time.Minute))
	if bytes.Equal(f.ask(row).DER, first.DER) {
		t.Error("not signed anew after 31 minutes")
	}
	for range 3 {
		f.hold(row.ID)
		if got := f.ask(row).Status; got != "revoked" {
			t.Errorf("%s right after a hold", got)
		}
		f.reactivate(row.ID)
		f.askGood(row)
	}
	m := f.Metrics()
	if m.OCSPGood != 6 || m.OCSPRevoked != 3 || m.OCSPCached != 1 {
		t.Errorf("metrics %+v", m)
	}
}

// TestOCSPRace: whatever is asked while certificates change, once Hold has returned no answer says good.
func TestOCSPRace(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	der := request(crypto.SHA256, f.Issuing(), nil, row.Serial)
	var stop atomic.Bool
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for !stop.Load() {
				_, _ = f.AnswerOCSP(t.Context(), der)
			}
		})
	}
	for range 100 {
		f.hold(row.ID)
		if got := f.ask(row).Status; got != "revoked" {
			t.Errorf("%s after a hold", got)
		}
		f.reactivate(row.ID)
		f.askGood(row)
	}
	stop.Store(true)
	group.Wait()
}

// TestOCSPSignerRenewal: the delegate's certificate is renewed before it ends, and has a row each time.
func TestOCSPSignerRenewal(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	for range 4 {
		parsed, err := ocsp.ParseResponse(f.ask(row).DER, f.Issuing())
		if err != nil {
			t.Fatal(err)
		}
		if now := f.cfg.Now(); now.Before(parsed.Certificate.NotBefore) || now.Add(9*24*time.Hour).After(parsed.Certificate.NotAfter) {
			t.Errorf("at %v the delegate is valid from %v to %v", now, parsed.Certificate.NotBefore, parsed.Certificate.NotAfter)
		}
		f.clock.Add(int64(11 * 24 * time.Hour))
	}
	_, total, err := f.Certificates(t.Context(), ca.Filter{Profile: "ocsp"})
	if err != nil || total != 2 {
		t.Errorf("%d delegates in the ledger, %v; want 2", total, err)
	}
}

// TestOCSPMLDSA reads an answer by hand, as x/crypto/ocsp knows no ML-DSA: the CA signed the delegate, the delegate the
// answer.
func TestOCSPMLDSA(t *testing.T) {
	f := newCA(t, pkix.MLDSA65)
	row := f.issue("x")
	f.revoke(row.ID, pkix.KeyCompromise)
	type basic struct {
		Data      asn1.RawValue
		Algorithm x509pkix.AlgorithmIdentifier
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	var response struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(f.ask(row).DER, &response); err != nil {
		t.Fatal(err)
	}
	var b basic
	if _, err := asn1.Unmarshal(response.Bytes.Response, &b); err != nil {
		t.Fatal(err)
	}
	delegate, err := x509.ParseCertificate(b.Certs[0].FullBytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Issuing().CheckSignature(x509.MLDSA65, delegate.RawTBSCertificate, delegate.Signature); err != nil {
		t.Errorf("the delegate: %v", err)
	}
	if err := delegate.CheckSignature(x509.MLDSA65, b.Data.FullBytes, b.Signature.Bytes); err != nil {
		t.Errorf("the answer: %v", err)
	}
	if len(delegate.ExtKeyUsage) != 1 || delegate.ExtKeyUsage[0] != x509.ExtKeyUsageOCSPSigning {
		t.Errorf("the delegate's usages: %v", delegate.ExtKeyUsage)
	}
}

func BenchmarkOCSP(b *testing.B) {
	f := newCA(b, pkix.ECDSAP256)
	row := f.issue("x")
	for name, nonce := range map[string][]byte{"from memory": nil, "signed": []byte("0123456789abcdef")} {
		der := request(crypto.SHA1, f.Issuing(), nonce, row.Serial)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f.answer(der)
			}
		})
	}
}
