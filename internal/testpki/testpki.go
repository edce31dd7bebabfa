// Package testpki makes CAs and certificates for tests, in memory, in one line
// each. Only tests import it.
//
// It refuses nothing on purpose: expired, usage-less, SAN-less and X.509 v1
// certificates are what tests need. What goes wrong ends the test.
//
// Example:
//
//	ca := testpki.NewCA(t)
//	server := ca.Server("localhost", "127.0.0.1")
//	client := ca.Client("Iwa Te", testpki.KeyType(pkix.Ed25519))
//	expired := ca.Client("old", testpki.NotAfter(time.Now().Add(-time.Hour)))
//	config := &tls.Config{Certificates: []tls.Certificate{server.TLS()}}
package testpki

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
)

// CA is a certificate authority with its key.
type CA struct {
	Cert   *x509.Certificate
	Key    crypto.Signer
	PEM    []byte              // Cert alone
	Chain  []*x509.Certificate // the CAs above, nearest first, without the root; empty for a root
	parent *CA
	t      testing.TB
}

// Leaf is an end-entity certificate with its key.
type Leaf struct {
	Cert    *x509.Certificate
	Key     crypto.Signer
	Chain   []*x509.Certificate // the intermediates, nearest first, without the root
	CertPEM []byte              // Cert and Chain
	KeyPEM  []byte              // PKCS#8
}

type config struct {
	name       string
	subject    []byte
	keyType    pkix.KeyType
	key        crypto.Signer
	notBefore  time.Time
	notAfter   time.Time
	noSAN      bool
	noEKU      bool
	wrongEKU   bool
	v1         bool
	noKeyUsage bool
	serial     *big.Int
	edit       func(*x509.Certificate)
}

// Option makes a certificate odd.
type Option func(*config)

// Name is the common name of a CA; default "testpki root".
func Name(cn string) Option { return func(c *config) { c.name = cn } }

// Subject is the whole subject, a Name in DER (pkix.ParseDN), in place of CN alone.
func Subject(rawName []byte) Option { return func(c *config) { c.subject = rawName } }

// KeyType is the kind of key; default pkix.ECDSAP256.
func KeyType(t pkix.KeyType) Option { return func(c *config) { c.keyType = t } }

// Key is a ready key in place of a new one.
func Key(key crypto.Signer) Option { return func(c *config) { c.key = key } }

// NotBefore is the start of validity; default an hour ago.
func NotBefore(at time.Time) Option { return func(c *config) { c.notBefore = at } }

// NotAfter is the end of validity; default a day ahead, a CA's ten days.
func NotAfter(at time.Time) Option { return func(c *config) { c.notAfter = at } }

// NoSAN leaves out subject alternative names: the name is in CN only.
func NoSAN() Option { return func(c *config) { c.noSAN = true } }

// NoEKU leaves out the extended key usage, which allows any.
func NoEKU() Option { return func(c *config) { c.noEKU = true } }

// WrongEKU swaps clientAuth and serverAuth.
func WrongEKU() Option { return func(c *config) { c.wrongEKU = true } }

// V1 makes an X.509 v1 certificate without extensions, as `openssl x509 -req` does.
func V1() Option { return func(c *config) { c.v1 = true } }

// NoKeyUsage leaves out the key usage, as `openssl req -x509` does for a CA.
func NoKeyUsage() Option { return func(c *config) { c.noKeyUsage = true } }

// Serial is the serial number; default 120 random bits.
func Serial(n *big.Int) Option { return func(c *config) { c.serial = n } }

// Edit changes the template last of all.
func Edit(f func(*x509.Certificate)) Option { return func(c *config) { c.edit = f } }

// NewCA is a new self-signed root.
func NewCA(t testing.TB, opts ...Option) *CA {
	t.Helper()
	ca := &CA{t: t}
	return ca.become(nil, ca.config("testpki root", 10*24*time.Hour, opts))
}

// Intermediate is a CA that this one has certified.
func (ca *CA) Intermediate(name string, opts ...Option) *CA {
	ca.t.Helper()
	sub := &CA{t: ca.t, parent: ca, Chain: ca.chain()}
	return sub.become(ca, ca.config(name, 9*24*time.Hour, opts))
}

// become gives the CA its certificate, from the issuer or, if nil, itself.
func (ca *CA) become(issuer *CA, c *config) *CA {
	ca.t.Helper()
	ca.Cert = ca.issue(c, &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}, issuer)
	ca.Key = c.key
	ca.PEM = pkix.EncodeCertificate(ca.Cert.Raw)
	return ca
}

// Client is a client certificate with the common name and no subject
// alternative name; Edit gives it one.
func (ca *CA) Client(name string, opts ...Option) Leaf {
	ca.t.Helper()
	c := ca.config(name, 24*time.Hour, opts)
	return ca.leaf(c, leafTemplate(c, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth))
}

// Server is a server certificate for the names, which are DNS names or IP
// addresses; the first is the common name too.
func (ca *CA) Server(names ...string) Leaf {
	ca.t.Helper()
	return ca.ServerWith(names)
}

// ServerWith is [CA.Server] with options.
func (ca *CA) ServerWith(names []string, opts ...Option) Leaf {
	ca.t.Helper()
	c := ca.config(names[0], 24*time.Hour, opts)
	template := leafTemplate(c, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return ca.leaf(c, template)
}

// Pool is a pool with this CA's certificate alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return pool
}

// TLS is the certificate with its chain and key, for a tls.Config.
func (l Leaf) TLS() tls.Certificate {
	certificate := tls.Certificate{Certificate: [][]byte{l.Cert.Raw}, PrivateKey: l.Key, Leaf: l.Cert}
	for _, cert := range l.Chain {
		certificate.Certificate = append(certificate.Certificate, cert.Raw)
	}
	return certificate
}

// chain is this CA and those above it without the root.
func (ca *CA) chain() []*x509.Certificate {
	if ca.parent == nil {
		return nil
	}
	return append([]*x509.Certificate{ca.Cert}, ca.Chain...)
}

func (ca *CA) config(name string, lifetime time.Duration, opts []Option) *config {
	ca.t.Helper()
	now := time.Now()
	c := &config{name: name, keyType: pkix.ECDSAP256, notBefore: now.Add(-time.Hour)}
	for _, opt := range opts {
		opt(c)
	}
	var err error
	if c.key == nil {
		c.key, err = pkix.GenerateKey(c.keyType)
		ca.must(err)
	}
	if c.serial == nil {
		c.serial, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		ca.must(err)
	}
	switch {
	case c.notAfter.IsZero() && c.notBefore.After(now):
		c.notAfter = c.notBefore.Add(lifetime)
	case c.notAfter.IsZero():
		c.notAfter = now.Add(lifetime)
	case c.notAfter.Before(c.notBefore):
		c.notBefore = c.notAfter.Add(-lifetime)
	}
	return c
}

func leafTemplate(c *config, right, wrong x509.ExtKeyUsage) *x509.Certificate {
	usage := right
	if c.wrongEKU {
		usage = wrong
	}
	return &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
}

func (ca *CA) leaf(c *config, template *x509.Certificate) Leaf {
	ca.t.Helper()
	cert, chain := ca.issue(c, template, ca), ca.chain()
	keyPEM, err := pkix.EncodePrivateKey(c.key)
	ca.must(err)
	certPEM := append(pkix.EncodeCertificate(cert.Raw), pkix.EncodeCertificates(chain)...)
	return Leaf{Cert: cert, Key: c.key, Chain: chain, CertPEM: certPEM, KeyPEM: keyPEM}
}

// issue signs the template under the issuer; nil is self-signed.
func (ca *CA) issue(c *config, template *x509.Certificate, issuer *CA) *x509.Certificate {
	ca.t.Helper()
	template.SerialNumber = c.serial
	template.Subject = x509pkix.Name{CommonName: c.name}
	template.RawSubject = c.subject
	template.NotBefore, template.NotAfter = c.notBefore, c.notAfter
	var err error
	template.SubjectKeyId, err = pkix.NewSKI(c.key.Public())
	ca.must(err)
	if c.noSAN {
		template.DNSNames, template.IPAddresses = nil, nil
	}
	if c.noEKU {
		template.ExtKeyUsage = nil
	}
	if c.noKeyUsage {
		template.KeyUsage = 0
	}
	if c.edit != nil {
		c.edit(template)
	}
	parent, signer := template, c.key
	if issuer != nil {
		parent, signer = issuer.Cert, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, c.key.Public(), signer)
	ca.must(err)
	if c.v1 {
		der = ca.stripToV1(der, signer)
	}
	cert, err := x509.ParseCertificate(der)
	ca.must(err)
	return cert
}

// stripToV1 removes version and extensions and signs again (RFC 5280, Section
// 4.1: without extensions the version is v1 and DER leaves it out).
func (ca *CA) stripToV1(der []byte, signer crypto.Signer) []byte {
	ca.t.Helper()
	input := cryptobyte.String(der)
	var outer, tbs cryptobyte.String
	version, extensions := asn1.Tag(0).ContextSpecific().Constructed(), asn1.Tag(3).ContextSpecific().Constructed()
	if !input.ReadASN1(&outer, asn1.SEQUENCE) || !outer.ReadASN1(&tbs, asn1.SEQUENCE) || !tbs.SkipOptionalASN1(version) {
		ca.t.Fatal("testpki: cannot read the certificate just made")
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for !tbs.Empty() {
			var element cryptobyte.String
			var tag asn1.Tag
			if tbs.ReadAnyASN1Element(&element, &tag) && tag != extensions {
				b.AddBytes(element)
			}
		}
	})
	signed, err := pkix.SignTBS(b.BytesOrPanic(), signer)
	ca.must(err)
	return signed
}

func (ca *CA) must(err error) {
	ca.t.Helper()
	if err != nil {
		ca.t.Fatalf("testpki: %v", err)
	}
}
