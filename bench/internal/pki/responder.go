package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	format "sekisho/internal/pkix"
)

// Responder is a delegated OCSP responder of the root that Make wrote: P-256, its certificate in each answer.
type Responder struct {
	CA, CAKey string              // PEM
	Cert, Key string              // PEM
	Index     string              // what openssl ocsp reads
	Responses string              // what cfssl ocspserve reads: an answer to the question about each certificate
	IDs       []format.OCSPCertID // by SHA-1, of all certificates that it knows; all are good
}

// MakeResponder makes one that knows n certificates. They exist in no other sense.
func MakeResponder(dir string, n int) (Responder, error) {
	path := func(name string) string { return filepath.Join(dir, name) }
	r := Responder{
		CA: path("ca.pem"), CAKey: path(rootKey), Cert: path("ocsp.pem"), Key: path("ocsp-key.pem"),
		Index: path("index.txt"), Responses: path("responses.txt"),
	}
	ca, err := LoadCA(r.CA)
	if err != nil {
		return r, err
	}
	rootSigner, err := readKey(r.CAKey)
	if err != nil {
		return r, err
	}
	key, err := newKey(r.Key)
	if err != nil {
		return r, err
	}
	root := issuer{cert: ca, key: rootSigner, next: 1 << 40}
	der, err := root.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "bench OCSP"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, ExtraExtensions: []pkix.Extension{format.OCSPNoCheck()},
	}, key.Public())
	if err != nil {
		return r, err
	}
	if err := writePEM(r.Cert, "CERTIFICATE", der); err != nil {
		return r, err
	}
	delegate, err := x509.ParseCertificate(der)
	if err != nil {
		return r, err
	}
	return r, r.fill(ca, delegate, key, n)
}

// fill writes what the responders know.
func (r *Responder) fill(ca, delegate *x509.Certificate, key crypto.Signer, n int) error {
	var index, responses bytes.Buffer
	now := time.Now().UTC().Truncate(time.Second)
	serials := NewSerials()
	for i := range n {
		serial := serials.At(i)
		id := format.NewOCSPCertID(crypto.SHA1, ca, format.SerialFromBytes(serial[:]))
		r.IDs = append(r.IDs, id)
		fmt.Fprintf(&index, "V\t%sZ\t\t%X\tunknown\t/CN=device-%d\n", now.Add(24*time.Hour).Format("060102150405"), serial, i)
		der, err := format.SignOCSP(format.OCSPTemplate{
			Responder: delegate, Include: []*x509.Certificate{delegate}, ProducedAt: now,
			Responses: []format.OCSPSingle{{ID: id, Status: format.OCSPGood, ThisUpdate: now, NextUpdate: now.Add(24 * time.Hour)}},
		}, key)
		if err != nil {
			return err
		}
		responses.WriteString(base64.StdEncoding.EncodeToString(der) + "\n")
	}
	if err := os.WriteFile(r.Index, index.Bytes(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(r.Responses, responses.Bytes(), 0o600)
}

// OCSPRequest is a request about one certificate in DER; with a nonce of 16 octets if wanted.
func OCSPRequest(id format.OCSPCertID, nonce bool) []byte {
	r := format.OCSPRequest{Certs: []format.OCSPCertID{id}}
	if nonce {
		text := rand.Text()
		r.Nonce = []byte(text[:16])
	}
	return r.Marshal()
}

// LeafID names a certificate in PEM as OCSP requests do, by SHA-1.
func LeafID(text string, issuer *x509.Certificate) (format.OCSPCertID, error) {
	leaf, err := ParsePEM([]byte(text))
	if err != nil {
		return format.OCSPCertID{}, err
	}
	return format.NewOCSPCertID(crypto.SHA1, issuer, format.SerialOf(leaf.SerialNumber)), nil
}

// CSR is a certificate request in PEM for a new P-256 key.
func CSR() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	var tag [4]byte
	_, _ = rand.Read(tag[:]) // never fails
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "device-" + hex.EncodeToString(tag[:]), Organization: []string{"Bench"}},
	}, key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}
