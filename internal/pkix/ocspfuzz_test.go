package pkix_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// FuzzOCSPRoundTrip: what SignOCSP writes, ParseOCSPResponse reads back the same, and CheckResponder finds who signed it;
// with one bit changed in what was signed, it does not. What SignOCSP refuses has a reason that can be named.
func FuzzOCSPRoundTrip(f *testing.F) {
	ca := testpki.NewCA(f)
	f.Add([]byte{5}, int64(1_800_000_000), int64(3600), byte(0x11), []byte("nonce"))
	f.Add(bytes.Repeat([]byte{0xff}, 20), int64(0), int64(0), byte(0x26), []byte{})
	f.Add([]byte{0}, int64(4_102_444_800), int64(-1), byte(0xff), bytes.Repeat([]byte{0}, 128))
	f.Add([]byte{1}, int64(253_402_300_800), int64(1), byte(3), bytes.Repeat([]byte{1}, 129)) // the year 10000
	f.Fuzz(func(t *testing.T, serial []byte, second, life int64, switches byte, nonce []byte) {
		if len(serial) > pkix.MaxSerialBytes || second < -62135596800 || second > 1<<40 || life < -1<<40 || life > 1<<40 {
			return
		}
		hashes := []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512}
		at := time.Unix(second, 0).UTC()
		single := pkix.OCSPSingle{
			ID:     pkix.NewOCSPCertID(hashes[switches&3], ca.Cert, pkix.SerialFromBytes(serial)),
			Status: pkix.OCSPStatus(switches >> 2 & 3 % 3), ThisUpdate: at,
		}
		if switches&0x10 != 0 {
			single.NextUpdate = at.Add(time.Duration(life) * time.Second)
		}
		if single.Status == pkix.OCSPRevoked {
			single.RevokedAt, single.Reason = at.Add(-time.Hour), pkix.Reason(switches>>5)
		}
		tmpl := pkix.OCSPTemplate{Responder: ca.Cert, ProducedAt: at, Nonce: nonce, Responses: []pkix.OCSPSingle{single, single}}
		der, err := pkix.SignOCSP(tmpl, ca.Key)
		writable := inYears(at) && (single.Status != pkix.OCSPRevoked || inYears(single.RevokedAt)) && len(nonce) <= pkix.MaxOCSPNonce &&
			(single.NextUpdate.IsZero() || inYears(single.NextUpdate) && !single.NextUpdate.Before(at))
		if (err == nil) != writable {
			t.Fatalf("%+v: %v", tmpl, err)
		}
		if err != nil {
			return
		}
		r, err := pkix.ParseOCSPResponse(der)
		if err != nil {
			t.Fatal(err)
		}
		sameOCSP(t, r, tmpl)
		if _, err := r.CheckResponder(ca.Cert, time.Now(), func(string) bool { return true }); err != nil {
			t.Error(err)
		}
		changed := bytes.Clone(der)
		changed[bytes.Index(der, single.ID.Raw)+len(single.ID.Raw)-1] ^= 1 // the last octet of the serial number
		if r, err = pkix.ParseOCSPResponse(changed); err == nil {
			if _, err = r.CheckResponder(ca.Cert, time.Now(), func(string) bool { return true }); !errors.Is(err, pkix.ErrOCSPResponder) {
				t.Errorf("with another serial number: %v", err)
			}
		}
	})
}

// inYears reports whether GeneralizedTime has the year, and is not near the zero time.
func inYears(at time.Time) bool { return at.Year() >= 1 && at.Year() <= 9999 }

// sameOCSP compares what was read with what was written.
func sameOCSP(t *testing.T, r *pkix.OCSPResponse, want pkix.OCSPTemplate) {
	t.Helper()
	if len(r.Singles) != len(want.Responses) || !r.ProducedAt.Equal(want.ProducedAt) || !bytes.Equal(r.Nonce, want.Nonce) || r.ResponderName != nil {
		t.Fatalf("%+v, want %+v", r, want)
	}
	for i, got := range r.Singles {
		w := want.Responses[i]
		if !bytes.Equal(got.CertID.Raw, w.ID.Raw) || got.CertID.Serial != w.ID.Serial || got.CertID.Hash != w.ID.Hash || got.Status != w.Status ||
			!got.ThisUpdate.Equal(w.ThisUpdate) || !got.NextUpdate.Equal(w.NextUpdate) || !got.RevokedAt.Equal(w.RevokedAt) || got.Reason != w.Reason {
			t.Errorf("%+v, want %+v", got, w)
		}
	}
}

// TestPSSIsForRSA: other keys do not become signers of RSASSA-PSS; an RSA key does once.
func TestPSSIsForRSA(t *testing.T) {
	for _, kind := range []pkix.KeyType{pkix.ECDSAP256, pkix.Ed25519, pkix.MLDSA65} {
		key, err := pkix.GenerateKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pkix.PSS(key); err == nil {
			t.Errorf("%s signs with RSASSA-PSS", kind)
		}
	}
	ca := testpki.NewCA(t, testpki.KeyType(pkix.RSA2048))
	key, err := pkix.PSS(ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := pkix.PSS(key); err != nil || again != key || !pkix.IsPSS(key) || pkix.IsPSS(ca.Key) {
		t.Errorf("%v, %v", again, err)
	}
	der, err := pkix.SignOCSP(answer(ca, crypto.SHA256), key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pkix.ParseOCSPResponse(der)
	if err != nil || r.SignatureAlgorithm() != "sha256-rsa-pss" {
		t.Fatalf("%v, %v", r, err)
	}
	if _, err := r.CheckResponder(ca.Cert, time.Now(), func(string) bool { return true }); err != nil {
		t.Error(err)
	}
	if pkix.SignedWithPSS(ca.Cert) || pkix.HasPSSKey(ca.Cert) || pkix.HasPSSKey(&x509.Certificate{}) {
		t.Error("a certificate that has nothing to do with RSASSA-PSS is taken for one")
	}
}
