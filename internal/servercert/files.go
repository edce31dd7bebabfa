package servercert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"
)

// FromFiles reads a certificate chain (PEM, leaf first) and its key (PEM, not encrypted). The files are looked at again
// every few seconds and read when one of them changed; both must then match, else the old pair stays.
func FromFiles(certFile, keyFile string) (*Source, error) {
	stamp, err := stampOf(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := loadPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	s := &Source{name: certFile}
	s.current.Store(pair)
	s.reload = func(context.Context, time.Time) (*tls.Certificate, error) {
		now, err := stampOf(certFile, keyFile)
		if err != nil || now == stamp {
			return nil, err
		}
		pair, err := loadPair(certFile, keyFile)
		if err != nil {
			return nil, err
		}
		stamp = now
		return pair, nil
	}
	return s, nil
}

// stamp is what tells two versions of a pair of files apart.
type stamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

func stampOf(certFile, keyFile string) (stamp, error) {
	c, err := os.Stat(certFile)
	if err != nil {
		return stamp{}, fmt.Errorf("server certificate: %w", err)
	}
	k, err := os.Stat(keyFile)
	if err != nil {
		return stamp{}, fmt.Errorf("server key: %w", err)
	}
	return stamp{c.ModTime(), k.ModTime(), c.Size(), k.Size()}, nil
}

func loadPair(certFile, keyFile string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("server certificate %s with key %s: %w", certFile, keyFile, err)
	}
	if pair.Leaf == nil { // filled by LoadX509KeyPair unless GODEBUG says otherwise
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("server certificate %s: %w", certFile, err)
		}
	}
	return &pair, nil
}
