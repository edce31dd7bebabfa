// Package pki makes the certificates of a benchmark run: a root, the server's certificate for [Host], as many client
// certificates as handshakes may need, each with a serial of its own and all for one key, so that making them is
// cheap, and revocation lists of any length by the root. It is no CA: nothing is checked and nothing is recorded.
//
//	files, err := pki.Make(dir, 25000)
//	clients, err := pki.LoadClients(dir)
//	list, err := pki.MakeList(dir, 1_000_000)
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

// Files in a run's folder that only this package reads.
const (
	rootKey     = "ca-key.pem"
	clientKey   = "client-key.pem"
	clientsFile = "clients.bin"
	revokedFile = "revoked.bin"
)

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

// Make writes ca.pem, ca-key.pem, server.pem, server-key.pem, client-key.pem, clients.bin (n client certificates) and
// revoked.bin (one that is in every list) to dir.
func Make(dir string, n int) (Files, error) {
	f := Files{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem")}
	key, err := newKey(filepath.Join(dir, rootKey))
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

// clients writes n certificates for one key, each behind its length, and apart one whose serial number is the first of
// every list.
func (i *issuer) clients(dir string, n int) error {
	key, err := newKey(filepath.Join(dir, clientKey))
	if err != nil {
		return err
	}
	var all []byte
	for k := range n {
		if all, err = i.client(all, k, nil, key.Public()); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, clientsFile), all, 0o600); err != nil {
		return err
	}
	serial := NewSerials().At(0)
	if all, err = i.client(nil, n, serial[:], key.Public()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, revokedFile), all, 0o600)
}

// client appends a client certificate behind its length. Without a serial number it gets the next.
func (i *issuer) client(all []byte, k int, serial []byte, pub crypto.PublicKey) ([]byte, error) {
	t := &x509.Certificate{
		Subject:  pkix.Name{CommonName: fmt.Sprintf("device-%06d", k), Organization: []string{"Bench"}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if serial != nil {
		t.SerialNumber = new(big.Int).SetBytes(serial)
	}
	der, err := i.issue(t, pub)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(all, uint32(len(der))), der...), nil
}

// issue signs a template, with the next serial number if it has none; without a root yet, by itself.
func (i *issuer) issue(t *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	if t.SerialNumber == nil {
		i.next++
		t.SerialNumber = big.NewInt(1<<62 + i.next)
	}
	t.NotBefore, t.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent := i.cert
	if parent == nil {
		parent = t
	}
	return x509.CreateCertificate(rand.Reader, t, parent, pub, i.key)
}

// LoadClients reads what Make wrote: one [tls.Certificate] for each client certificate.
func LoadClients(dir string) ([]tls.Certificate, error) { return loadClients(dir, clientsFile) }

// LoadRevoked reads the client certificate that every list of MakeList with an entry has.
func LoadRevoked(dir string) (tls.Certificate, error) {
	certs, err := loadClients(dir, revokedFile)
	switch {
	case err != nil:
		return tls.Certificate{}, err
	case len(certs) != 1:
		return tls.Certificate{}, fmt.Errorf("%d certificates in %s/%s, want 1", len(certs), dir, revokedFile)
	}
	return certs[0], nil
}

func loadClients(dir, file string) ([]tls.Certificate, error) {
	key, err := readKey(filepath.Join(dir, clientKey))
	if err != nil {
		return nil, err
	}
	all, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	var certs []tls.Certificate
	for len(all) > 4 {
		n := int(binary.BigEndian.Uint32(all))
		if n > len(all)-4 {
			return nil, fmt.Errorf("%s/%s is cut short", dir, file)
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

// readKey reads what newKey wrote.
func readKey(path string) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds no key that signs", path)
	}
	return signer, nil
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
