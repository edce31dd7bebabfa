// Package pki makes the certificates of a benchmark run: a root, the server's certificate for [Host], and as many
// client certificates as handshakes may need, each with a serial of its own and all for one key, so that making them
// is cheap. It is no CA: nothing is checked and nothing is recorded.
//
//	files, err := pki.Make(dir, 25000)
//	clients, err := pki.LoadClients(dir)
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Host is the name in the server's certificate, and the SNI and Host of every request.
const Host = "bench.test"

// Files are the paths that servers are configured with, all PEM.
type Files struct {
	CA, Cert, Key string
}

// issuer signs with the root.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
	next int64
}

// Make writes ca.pem, server.pem, server-key.pem, client-key.pem and clients.bin (n client certificates) to dir.
func Make(dir string, n int) (Files, error) {
	f := Files{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return f, err
	}
	root := issuer{key: key}
	der, err := root.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "bench root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, key.Public())
	if err != nil {
		return f, err
	}
	if root.cert, err = x509.ParseCertificate(der); err != nil {
		return f, err
	}
	if err := writePEM(f.CA, "CERTIFICATE", der); err != nil {
		return f, err
	}
	serverKey, err := newKey(f.Key)
	if err != nil {
		return f, err
	}
	der, err = root.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: Host}, DNSNames: []string{Host}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, serverKey.Public())
	if err != nil {
		return f, err
	}
	if err := writePEM(f.Cert, "CERTIFICATE", der); err != nil {
		return f, err
	}
	return f, root.clients(dir, n)
}

// clients writes n certificates for one key, each behind its length.
func (i *issuer) clients(dir string, n int) error {
	key, err := newKey(filepath.Join(dir, "client-key.pem"))
	if err != nil {
		return err
	}
	var all []byte
	for k := range n {
		der, err := i.issue(&x509.Certificate{
			Subject:  pkix.Name{CommonName: fmt.Sprintf("device-%06d", k), Organization: []string{"Bench"}},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, key.Public())
		if err != nil {
			return err
		}
		all = binary.BigEndian.AppendUint32(all, uint32(len(der)))
		all = append(all, der...)
	}
	return os.WriteFile(filepath.Join(dir, "clients.bin"), all, 0o600)
}

// issue signs a template with the next serial number; without a root yet, by itself.
func (i *issuer) issue(t *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	i.next++
	t.SerialNumber = big.NewInt(1<<62 + i.next)
	t.NotBefore, t.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent := i.cert
	if parent == nil {
		parent = t
	}
	return x509.CreateCertificate(rand.Reader, t, parent, pub, i.key)
}

// LoadClients reads what Make wrote: one [tls.Certificate] for each client certificate.
func LoadClients(dir string) ([]tls.Certificate, error) {
	text, err := os.ReadFile(filepath.Join(dir, "client-key.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s/client-key.pem holds no PEM", dir)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	all, err := os.ReadFile(filepath.Join(dir, "clients.bin"))
	if err != nil {
		return nil, err
	}
	var certs []tls.Certificate
	for len(all) > 4 {
		n := int(binary.BigEndian.Uint32(all))
		if n > len(all)-4 {
			return nil, fmt.Errorf("%s/clients.bin is cut short", dir)
		}
		certs = append(certs, tls.Certificate{Certificate: [][]byte{all[4 : 4+n]}, PrivateKey: key})
		all = all[4+n:]
	}
	return certs, nil
}

// newKey makes a P-256 key and writes it.
func newKey(path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
