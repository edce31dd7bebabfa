package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	format "sekisho/internal/pkix"
)

// Serials are the serial numbers of the lists: 16 octets that look random, each another one, positive and without a
// leading zero octet. They are the same in every run, so that a process that loads a list knows what is in it.
type Serials struct{ block cipher.Block }

// NewSerials returns them.
func NewSerials() Serials {
	block, err := aes.NewCipher([]byte("sekisho's bench!"))
	if err != nil {
		panic("sekisho/bench/internal/pki: " + err.Error()) // the key has 16 octets
	}
	return Serials{block}
}

// At is the i-th serial number; a list of n entries has those from 0 to n-1.
func (s Serials) At(i int) [16]byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[8:], uint64(i))
	s.block.Encrypt(b[:], b[:])
	b[0] = b[0]&0x7f | 0x40
	return b
}

// MakeList writes a list with n entries in DER, signed by the root that Make wrote to dir, and returns its path.
func MakeList(dir string, n int) (string, error) {
	ca, err := LoadCA(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return "", err
	}
	key, err := readKey(filepath.Join(dir, rootKey))
	if err != nil {
		return "", err
	}
	at := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	serials := NewSerials()
	entries := make([]byte, 0, 35*n)
	for i := range n {
		serial := serials.At(i)
		entries = format.AppendCRLEntry(entries, format.CRLEntry{Serial: format.SerialFromBytes(serial[:]), At: at})
	}
	der, err := format.SignCRL(format.CRLTemplate{
		Issuer: ca, Number: big.NewInt(1), ThisUpdate: at, NextUpdate: at.Add(24 * time.Hour),
	}, entries, key)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("list-%d.crl", n))
	return path, os.WriteFile(path, der, 0o600)
}

// ListPEM writes a list in DER once more, in PEM, and returns the path.
func ListPEM(path string) (string, error) {
	der, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return path + ".pem", writePEM(path+".pem", "X509 CRL", der)
}

// LoadCA reads one certificate in PEM.
func LoadCA(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cert, err := ParsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

// ParsePEM reads one certificate.
func ParsePEM(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
