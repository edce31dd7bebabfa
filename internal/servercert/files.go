package servercert

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"
)

// FromFiles reads a certificate chain (PEM, leaf first) and its key (PEM, not encrypted). The files are read again every
// few seconds; where one of them has changed both must match, else the old pair stays. Size and time do not tell two
// versions apart: a certificate that is replaced has the size of the one before, and the clock of a file system stands
// still for some milliseconds.
func FromFiles(certFile, keyFile string) (*Source, error) {
	files, err := readPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := files.parse()
	if err != nil {
		return nil, err
	}
	s := &Source{name: certFile}
	s.current.Store(pair)
	known := files.digest()
	s.reload = func(context.Context, time.Time) (*tls.Certificate, error) {
		files, err := readPair(certFile, keyFile)
		if err != nil || files.digest() == known {
			return nil, err
		}
		pair, err := files.parse()
		if err != nil {
			return nil, err
		}
		known = files.digest()
		return pair, nil
	}
	return s, nil
}

// filePair is a certificate and its key as they are in two files.
type filePair struct {
	certFile, keyFile string
	cert, key         []byte // PEM
}

func readPair(certFile, keyFile string) (p filePair, err error) {
	p.certFile, p.keyFile = certFile, keyFile
	if p.cert, err = os.ReadFile(certFile); err != nil {
		return p, fmt.Errorf("server certificate: %w", err)
	}
	if p.key, err = os.ReadFile(keyFile); err != nil {
		return p, fmt.Errorf("server key: %w", err)
	}
	return p, nil
}

func (p filePair) digest() [2][sha256.Size]byte {
	return [2][sha256.Size]byte{sha256.Sum256(p.cert), sha256.Sum256(p.key)}
}

func (p filePair) parse() (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, fmt.Errorf("server certificate %s with key %s: %w", p.certFile, p.keyFile, err)
	}
	if pair.Leaf == nil { // filled by X509KeyPair unless GODEBUG says otherwise
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("server certificate %s: %w", p.certFile, err)
		}
	}
	return &pair, nil
}
