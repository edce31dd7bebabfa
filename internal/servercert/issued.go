package servercert

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/keystore"
	housepkix "sekisho/internal/pkix"
)

// IssuedConfig says which certificate our own CA shall issue and keep fresh.
type IssuedConfig struct {
	Authority *ca.Authority
	Keys      ca.Keys           // where the server key lives, so that a restart goes on with the same certificate
	KeyType   housepkix.KeyType // default ecdsa-p256
	Names     []string          // DNS names and IP addresses, the first one names the certificate
	ValidDays int               // default 90
	Now       func() time.Time  // nil: time.Now
}

// Issued returns a source whose certificate comes from our CA. The certificate in the ledger is used when it is for
// the same key, names and issuer and has more than a third of its life left; otherwise a new one is issued.
func Issued(ctx context.Context, cfg IssuedConfig) (*Source, error) {
	if len(cfg.Names) == 0 {
		return nil, errors.New("servercert: a certificate needs at least one name")
	}
	if cfg.ValidDays == 0 {
		cfg.ValidDays = 90
	}
	if cfg.KeyType == "" {
		cfg.KeyType = "ecdsa-p256"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	key, err := cfg.key()
	if err != nil {
		return nil, err
	}
	current, err := cfg.fromLedger(ctx, key)
	if err != nil {
		return nil, err
	}
	if current == nil {
		if current, err = cfg.issue(ctx, key); err != nil {
			return nil, err
		}
	}
	s := &Source{name: cfg.Names[0]}
	s.current.Store(current)
	s.reload = func(ctx context.Context, now time.Time) (*tls.Certificate, error) {
		if cfg.fresh(s.Leaf(), now) {
			return nil, nil
		}
		return cfg.issue(ctx, key)
	}
	return s, nil
}

// fresh reports whether a certificate is of the present issuer and has more than a third of its life left.
func (cfg IssuedConfig) fresh(leaf *x509.Certificate, now time.Time) bool {
	issuing := cfg.Authority.Issuing()
	if issuing == nil || leaf.CheckSignatureFrom(issuing) != nil {
		return false
	}
	return leaf.NotAfter.Sub(now) > leaf.NotAfter.Sub(leaf.NotBefore)/3
}

func (cfg IssuedConfig) key() (crypto.Signer, error) {
	sum := sha256.Sum256([]byte(strings.ToLower(cfg.Names[0])))
	name := "server-" + hex.EncodeToString(sum[:8])
	key, err := cfg.Keys.Signer(name)
	if errors.Is(err, keystore.ErrNotFound) {
		key, err = cfg.Keys.Create(name, cfg.KeyType)
	}
	if err != nil {
		return nil, fmt.Errorf("servercert: key of %q: %w", cfg.Names[0], err)
	}
	return key, nil
}

// fromLedger finds the certificate issued before a restart, nil when there is none that still serves.
func (cfg IssuedConfig) fromLedger(ctx context.Context, key crypto.Signer) (*tls.Certificate, error) {
	rows, _, err := cfg.Authority.Certificates(ctx, ca.Filter{Profile: "server", Status: ca.Active, CommonName: cfg.Names[0], Limit: 10})
	if err != nil {
		return nil, fmt.Errorf("servercert: look for the certificate of %q: %w", cfg.Names[0], err)
	}
	for _, row := range rows {
		if len(row.DER) == 0 {
			continue
		}
		leaf, err := x509.ParseCertificate(row.DER)
		if err != nil {
			return nil, fmt.Errorf("servercert: certificate %s in the ledger: %w", row.ID, err)
		}
		if samePublicKey(leaf.PublicKey, key.Public()) && sameNames(leaf, cfg.Names) && cfg.fresh(leaf, cfg.Now()) {
			return cfg.assemble(leaf, row.CAID, key)
		}
	}
	return nil, nil
}

func (cfg IssuedConfig) issue(ctx context.Context, key crypto.Signer) (*tls.Certificate, error) {
	request := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cfg.Names[0]}}
	for _, name := range cfg.Names {
		if ip := net.ParseIP(name); ip != nil {
			request.IPAddresses = append(request.IPAddresses, ip)
		} else {
			request.DNSNames = append(request.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, request, key)
	if err != nil {
		return nil, fmt.Errorf("servercert: request for %q: %w", cfg.Names[0], err)
	}
	row, err := cfg.Authority.Issue(ctx, ca.IssueRequest{
		Profile: "server", CSR: housepkix.EncodeCSR(der), ValidDays: cfg.ValidDays, Actor: "sekisho",
	})
	if err != nil {
		return nil, fmt.Errorf("servercert: issue a certificate for %q: %w", cfg.Names[0], err)
	}
	leaf, err := x509.ParseCertificate(row.DER)
	if err != nil {
		return nil, fmt.Errorf("servercert: certificate for %q: %w", cfg.Names[0], err)
	}
	return cfg.assemble(leaf, row.CAID, key)
}

// assemble makes the chain that the server sends: the leaf, its CA, and what leads from there to roots of before. A root is
// the client's to have.
func (cfg IssuedConfig) assemble(leaf *x509.Certificate, caID string, key crypto.Signer) (*tls.Certificate, error) {
	chain, err := cfg.Authority.Chain(caID)
	if err != nil {
		return nil, fmt.Errorf("servercert: certificate for %q: %w", cfg.Names[0], err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func sameNames(leaf *x509.Certificate, names []string) bool {
	have := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		have = append(have, ip.String())
	}
	want := slices.Clone(names)
	slices.Sort(have)
	slices.Sort(want)
	return slices.Equal(have, want)
}
