package ca_test

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
)

// element is DER written octet by octet: tag, length, contents. No part of the code under test helps.
func element(tag byte, contents ...[]byte) []byte {
	body := bytes.Join(contents, nil)
	switch n := len(body); {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, body...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, body...)
	default:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, body...)
	}
}

// workerRequest is the request that the article's Worker sends with pkijs: a requestorName (the subject of the client's
// certificate as a directoryName), one CertID by SHA-1 with NULL parameters, and a nonce of so many octets in an OCTET
// STRING inside the OCTET STRING of every extension. explicitVersion writes [0] v1, which DER leaves out and some
// versions of pkijs do not.
func workerRequest(leaf, issuer *x509.Certificate, nonce []byte, explicitVersion bool) []byte {
	spki := cryptobyte.String(issuer.RawSubjectPublicKeyInfo)
	var info cryptobyte.String
	var key []byte
	if !spki.ReadASN1(&info, asn1.SEQUENCE) || !info.SkipASN1(asn1.SEQUENCE) || !info.ReadASN1BitStringAsBytes(&key) {
		panic("no SubjectPublicKeyInfo")
	}
	name, keyHash := sha1.Sum(issuer.RawSubject), sha1.Sum(key)
	serial := leaf.SerialNumber.Bytes()
	if serial[0] >= 0x80 {
		serial = append([]byte{0}, serial...)
	}
	certID := element(0x30,
		element(0x30, element(0x06, []byte{0x2b, 0x0e, 0x03, 0x02, 0x1a}), []byte{0x05, 0x00}),
		element(0x04, name[:]), element(0x04, keyHash[:]), element(0x02, serial))
	version := []byte(nil)
	if explicitVersion {
		version = []byte{0xa0, 0x03, 0x02, 0x01, 0x00}
	}
	nonceOID := []byte{0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02}
	return element(0x30, element(0x30, version,
		element(0xa1, element(0xa4, leaf.RawSubject)),
		element(0x30, element(0x30, certID)),
		element(0xa2, element(0x30, element(0x30, element(0x06, nonceOID), element(0x04, element(0x04, nonce)))))))
}

// postOCSP sends a request to the responder of a certificate.
func (f *fixture) postOCSP(der []byte) []byte {
	f.t.Helper()
	resp, err := http.Post(f.OCSPURL(), "application/ocsp-request", bytes.NewReader(der))
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		f.t.Fatal(resp.Status, err)
	}
	return body
}

// TestOCSPWorkerRequest sends what the article's Worker sends, over HTTP, before and after a revocation.
func TestOCSPWorkerRequest(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("Super Client")
	for _, want := range []pkix.OCSPStatus{pkix.OCSPGood, pkix.OCSPRevoked} {
		for _, version := range []bool{false, true} {
			nonce := []byte("\x00\xff345678\x800")
			r, err := pkix.ParseOCSPResponse(f.postOCSP(workerRequest(parse(t, row), f.Issuing(), nonce, version)))
			if err != nil || r.Status != pkix.OCSPSuccessful {
				t.Fatalf("%+v, %v", r, err)
			}
			single, ok := r.Single(f.Issuing(), row.Serial)
			if !ok || single.Status != want || single.CertID.Hash != crypto.SHA1 || !bytes.Equal(r.Nonce, nonce) {
				t.Errorf("want %v: %+v, nonce %x", want, single, r.Nonce)
			}
			if _, err := r.CheckResponder(f.Issuing(), time.Now(), func(string) bool { return true }); err != nil {
				t.Error(err)
			}
		}
		if want == pkix.OCSPGood {
			f.revoke(row.ID, pkix.KeyCompromise)
		}
	}
}

// TestOCSPNonceSizes: RFC 9654, Section 2.1: 1 to 128 octets are echoed; none and 129 are malformed.
func TestOCSPNonceSizes(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	for _, size := range []int{0, 1, 10, 32, 33, 127, 128, 129, 1000} {
		nonce := bytes.Repeat([]byte{0x5a}, size)
		r, err := pkix.ParseOCSPResponse(f.postOCSP(workerRequest(parse(t, row), f.Issuing(), nonce, false)))
		if err != nil {
			t.Fatal(err)
		}
		if ok := size >= 1 && size <= 128; ok && !bytes.Equal(r.Nonce, nonce) || ok != (r.Status == pkix.OCSPSuccessful) || !ok && r.Status != pkix.OCSPMalformedRequest {
			t.Errorf("%d octets: %s, %d in the answer", size, pkix.OCSPStatusName(r.Status), len(r.Nonce))
		}
	}
}

// TestOCSPUnknownHash: a CertID by a digest that we do not compute names no CA that we know, so we may not speak for it
// (RFC 6960, Section 2.3: unauthorized).
func TestOCSPUnknownHash(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	known := request(crypto.SHA256, f.Issuing(), nil, f.issue("x").Serial)
	sha256 := []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}
	for last, want := range map[byte]string{1: "good", 4: "unauthorized" /* SHA-224 */, 9: "unauthorized" /* SHA3-384 */} {
		der := bytes.Replace(known, sha256, append(bytes.Clone(sha256[:8]), last), 1)
		if got := f.answer(der).Status; got != want {
			t.Errorf("digest 2.16.840.1.101.3.4.2.%d: %s, want %s", last, got, want)
		}
	}
}

// TestOCSPRequestsOfTools: requests that openssl and ocsptool write are answered to their satisfaction: several
// certificates with two digests in one, and signed ones, whose signature is passed over.
func TestOCSPRequestsOfTools(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	one, two := f.issue("one"), f.issue("two")
	f.hold(two.ID)
	j := newJudges(f, one)
	second := f.file("two.pem", pkix.EncodeCertificate(two.DER))
	out := wants(t, []string{"Response verify OK", j.leaf + ": good", second + ": revoked", "certificateHold"},
		"openssl", "ocsp", "-issuer", j.issuing, "-cert", j.leaf, "-sha256", "-cert", second, "-nonce", "-url", f.OCSPURL(),
		"-CAfile", j.root, "-verify_other", j.issuing)
	if strings.Contains(out, "WARNING") {
		t.Error(out)
	}
	key, err := pkix.EncodePrivateKey(newKey(t, pkix.ECDSAP256))
	if err != nil {
		t.Fatal(err)
	}
	signer := f.file("signer.key", key)
	wants(t, nil, "openssl", "req", "-x509", "-new", "-key", signer, "-subj", "/CN=whoever", "-out", signer+".pem")
	wants(t, []string{"Response verify OK", j.leaf + ": good"},
		"openssl", "ocsp", "-issuer", j.issuing, "-cert", j.leaf, "-nonce", "-signer", signer+".pem", "-signkey", signer, "-url", f.OCSPURL(),
		"-CAfile", j.root, "-verify_other", j.issuing)
	wants(t, []string{"Certificate Status: good", "Verifying OCSP Response: Success"},
		"ocsptool", "--ask="+f.OCSPURL(), "--nonce", "--load-issuer", j.issuing, "--load-trust", j.all, "--load-cert", j.leaf)
	asked := f.file("request.der", nil) // in a file ocsptool writes no nonce
	wants(t, nil, "ocsptool", "--generate-request", "--load-issuer", j.issuing, "--load-cert", j.leaf, "--outder", "--outfile", asked)
	worker := f.file("worker.der", workerRequest(parse(t, one), f.Issuing(), []byte("0123456789"), false))
	for file, nonce := range map[string]string{asked: "Extensions:", worker: "Nonce: 30313233343536373839"} {
		answered := f.file("answer.der", nil)
		wants(t, nil, "curl", "-sSf", "-H", "Content-Type: application/ocsp-request", "--data-binary", "@"+file, "-o", answered, f.OCSPURL())
		wants(t, []string{"Certificate Status: good", nonce}, "ocsptool", "--response-info", "--inder", "--infile", answered)
		wants(t, []string{"Verifying OCSP Response: Success"},
			"ocsptool", "--verify-response", "--load-issuer", j.issuing, "--load-trust", j.all, "--inder", "--infile", answered)
	}
}
