package admin

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/mldsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/site"
	"sekisho/internal/trust"
)

// maxBundle bounds the certificates of one CA; the public web's roots are some 150.
const maxBundle = 500

// The RSA keys that a CA may have, in bits. The upper end bounds what each handshake may cost.
const (
	minRSA = 2048
	maxRSA = 16384
)

// bundle is a CA bundle that may be stored.
type bundle struct {
	pem      string              // every certificate once, in the order given
	certs    []*x509.Certificate // at least one
	weak     []weakSignature
	warnings []string
}

// weakSignature is a certificate whose own signature is of a kind that a policy must allow.
type weakSignature struct {
	what      string // the certificate
	algorithm string // as trust.WeakAlgorithms spells it
}

// readBundle checks what somebody wants to have trusted. It is stricter than the configuration file, whose writer can be
// asked: every certificate must say that it is a CA.
func readBundle(text string, now time.Time) (bundle, error) {
	certs, err := pkix.ParseCertificates([]byte(text))
	if err != nil {
		return bundle{}, err // it names a private key as such and repeats none of it
	}
	if len(certs) > maxBundle {
		return bundle{}, fmt.Errorf("%d certificates are too many for one CA: give at most %d", len(certs), maxBundle)
	}
	var b bundle
	for i, c := range certs {
		what := fmt.Sprintf("certificate %d of %d (%s)", i+1, len(certs), clip(pkix.DNString(c.RawSubject), 100))
		if err := checkCA(c); err != nil {
			return bundle{}, fmt.Errorf("%s: %w", what, err)
		}
		if slices.ContainsFunc(b.certs, func(have *x509.Certificate) bool { return bytes.Equal(have.Raw, c.Raw) }) {
			continue
		}
		b.certs = append(b.certs, c)
		if name := pkix.SignatureAlgorithmName(c.RawSignatureAlgorithm); slices.Contains(trust.WeakAlgorithms(), name) {
			b.weak = append(b.weak, weakSignature{what, name})
		}
		switch {
		case now.After(c.NotAfter):
			b.warnings = append(b.warnings, what+" expired on "+*stamp(c.NotAfter)+": no client gets in by it; upload its successor")
		case now.Before(c.NotBefore):
			b.warnings = append(b.warnings, what+" is valid only from "+*stamp(c.NotBefore)+" on: until then no client gets in by it")
		}
	}
	if _, _, err := site.SplitBundle(b.certs); err != nil {
		return bundle{}, err
	}
	b.pem = string(pkix.EncodeCertificates(b.certs))
	return b, nil
}

// checkCA says why a certificate cannot be one of a CA's.
func checkCA(c *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid && c.Version < 3:
		return fmt.Errorf("CA must have CA:TRUE, and a certificate of X.509 version %d cannot say so: "+
			"make it anew with basicConstraints=critical,CA:TRUE, or name it in the configuration file", c.Version)
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("CA must have CA:TRUE in its basic constraints; a client's or server's own certificate is no CA")
	case saysKeyUsage(c) && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its key usage does not name keyCertSign, so it may not sign certificates (RFC 5280, Section 4.2.1.3)")
	}
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("its RSA key has %d bits: want %d to %d", n, minRSA, maxRSA)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey, *mldsa.PublicKey:
	default:
		return fmt.Errorf("its key is %s: want RSA, ECDSA, Ed25519 or ML-DSA", keyName(c))
	}
	// The list of Cloudflare's Access, and what came after it was written: whatever a policy can allow.
	name := pkix.SignatureAlgorithmName(c.RawSignatureAlgorithm)
	if !slices.Contains(trust.Algorithms(), name) && !slices.Contains(trust.WeakAlgorithms(), name) {
		return fmt.Errorf("it is signed with %s: want RSA or ECDSA with SHA-256, SHA-384, SHA-512 or SHA-1, RSA-PSS without SHA-1, Ed25519 or ML-DSA",
			certSignature(c))
	}
	return nil
}

func keyName(c *x509.Certificate) string {
	if c.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm {
		return "of an unknown kind"
	}
	return c.PublicKeyAlgorithm.String()
}

func saysKeyUsage(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.String() == "2.5.29.15" { // id-ce-keyUsage
			return true
		}
	}
	return false
}
