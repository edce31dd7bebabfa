package pkix

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Size bounds of PEM texts, in octets.
const (
	MaxCertificateBytes = 128 << 10 // one certificate
	MaxBundleBytes      = 4 << 20   // a CA bundle; the public web's is 220 KiB
	MaxCSRBytes         = 64 << 10  // one certificate request
	MaxPrivateKeyBytes  = 64 << 10  // one private key
)

const pemBegin = "-----BEGIN "

// pemBlocks splits a PEM text. Text before and between blocks is allowed (as
// `openssl x509 -text` writes it); with strictTail none may follow the last. A
// block that cannot be read is an error, where encoding/pem would skip it.
func pemBlocks(what string, text []byte, limit int, strictTail bool) ([]*pem.Block, error) {
	if len(text) > limit {
		return nil, fmt.Errorf("%s: PEM text of %d bytes; at most %d are read", what, len(text), limit)
	}
	begins := bytes.Count(text, []byte(pemBegin))
	var blocks []*pem.Block
	rest := text
	for {
		block, tail := pem.Decode(rest)
		if block == nil {
			break
		}
		blocks = append(blocks, block)
		rest = tail
	}
	switch {
	case len(blocks) == 0:
		return nil, noPEM(what, text)
	case len(blocks) != begins:
		return nil, fmt.Errorf("%s: %d PEM blocks begin but %d can be read; one is cut off or damaged", what, begins, len(blocks))
	case strictTail && len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%s: %d bytes follow the PEM block; remove them", what, len(bytes.TrimSpace(rest)))
	}
	return blocks, nil
}

// noPEM explains a text without any readable PEM block by the likeliest cause.
func noPEM(what string, text []byte) error {
	trimmed := bytes.TrimSpace(text)
	hint := "a PEM text begins with a line -----BEGIN ...-----"
	switch {
	case len(trimmed) == 0:
		hint = "the text is empty"
	case trimmed[0] == 0x30:
		hint = "this looks like DER; convert it with openssl x509 -inform DER (or openssl req, openssl pkey)"
	case bytes.Contains(trimmed, []byte(`\n`)):
		hint = `the line ends are written as \n; they must be real line ends`
	case bytes.Contains(trimmed, []byte(pemBegin)) && !bytes.Contains(trimmed, []byte("\n")):
		hint = "the line ends are lost; in a shell, put the variable in double quotes"
	case bytes.Contains(trimmed, []byte(pemBegin)):
		hint = "the block is cut off or damaged"
	}
	return fmt.Errorf("%s: no PEM block found; %s", what, hint)
}

// wantType reports an error unless the block is of one of the types. A private
// key in the wrong place is called by its name, and none of it is repeated.
func wantType(what string, block *pem.Block, types ...string) error {
	if slices.Contains(types, block.Type) {
		return nil
	}
	if strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return fmt.Errorf("%s: this is a private key (%.60s); keep it secret and give a %s block", what, block.Type, types[0])
	}
	if block.Type == "TRUSTED CERTIFICATE" {
		return fmt.Errorf("%s: openssl's TRUSTED CERTIFICATE is not read; convert it with openssl x509 -in FILE -out FILE2", what)
	}
	return fmt.Errorf("%s: the PEM block is a %.60q; a %q is wanted", what, block.Type, types[0])
}

// ParseCertificate reads exactly one certificate. Text before it is allowed,
// bytes after it are not.
func ParseCertificate(pemBytes []byte) (*x509.Certificate, error) {
	const what = "certificate"
	blocks, err := pemBlocks(what, pemBytes, MaxCertificateBytes, true)
	if err != nil {
		return nil, err
	}
	for _, block := range blocks { // a key anywhere is worse than a second certificate
		if err := wantType(what, block, "CERTIFICATE", "X509 CERTIFICATE"); err != nil {
			return nil, err
		}
	}
	if len(blocks) > 1 {
		return nil, fmt.Errorf("%s: the PEM text has %d certificates; give exactly one", what, len(blocks))
	}
	cert, err := x509.ParseCertificate(blocks[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return cert, nil
}

// ParseCertificates reads a bundle of one or more certificates in their order.
// Comments around the blocks are allowed, blocks of other types are not.
func ParseCertificates(pemBytes []byte) ([]*x509.Certificate, error) {
	const what = "certificate bundle"
	blocks, err := pemBlocks(what, pemBytes, MaxBundleBytes, false)
	if err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, 0, len(blocks))
	for i, block := range blocks {
		if err := wantType(what, block, "CERTIFICATE", "X509 CERTIFICATE"); err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d of %d: %w", what, i+1, len(blocks), err)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// ParseCSR reads exactly one PKCS#10 certificate request, with LF or CRLF line
// ends. It does not check the request's signature; CheckSignature does.
func ParseCSR(pemBytes []byte) (*x509.CertificateRequest, error) {
	const what = "certificate request"
	blocks, err := pemBlocks(what, pemBytes, MaxCSRBytes, true)
	if err != nil {
		return nil, err
	}
	for _, block := range blocks {
		if err := wantType(what, block, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"); err != nil {
			return nil, err
		}
	}
	if len(blocks) > 1 {
		return nil, fmt.Errorf("%s: the PEM text has %d requests; give exactly one", what, len(blocks))
	}
	csr, err := x509.ParseCertificateRequest(blocks[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return csr, nil
}

// ParsePrivateKey reads exactly one unencrypted private key: PKCS#8 (RSA,
// ECDSA, Ed25519, ML-DSA), PKCS#1, SEC 1 with or without the EC PARAMETERS
// block that openssl writes before it, or an "Ed25519 PRIVATE KEY" of PKCS#8
// or of the bare key octets. Errors never repeat any of the key.
func ParsePrivateKey(pemBytes []byte) (crypto.Signer, error) {
	const what = "private key"
	blocks, err := pemBlocks(what, pemBytes, MaxPrivateKeyBytes, true)
	if err != nil {
		return nil, err
	}
	blocks = slices.DeleteFunc(blocks, func(b *pem.Block) bool { return b.Type == "EC PARAMETERS" })
	if len(blocks) != 1 {
		return nil, fmt.Errorf("%s: the PEM text has %d blocks; give exactly one private key", what, len(blocks))
	}
	block := blocks[0]
	if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, fmt.Errorf("%s: the key is encrypted; decrypt it with openssl pkey -in FILE -out FILE2 and keep FILE2 readable by its owner only", what)
	}
	key, err := parseKeyBlock(block)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T cannot sign", what, key)
	}
	return signer, nil
}

func parseKeyBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	case "ED25519 PRIVATE KEY", "Ed25519 PRIVATE KEY":
		switch len(block.Bytes) {
		case ed25519.SeedSize:
			return ed25519.NewKeyFromSeed(block.Bytes), nil
		case ed25519.PrivateKeySize:
			key := ed25519.NewKeyFromSeed(block.Bytes[:ed25519.SeedSize])
			if !bytes.Equal(key, block.Bytes) {
				return nil, errors.New("the public half does not belong to the private half")
			}
			return key, nil
		}
		return x509.ParsePKCS8PrivateKey(block.Bytes)
	case "CERTIFICATE":
		return nil, errors.New("this is a certificate; give its key")
	case "PUBLIC KEY":
		return nil, errors.New("this is a public key; give the private one")
	}
	return nil, fmt.Errorf("the PEM block is a %.60q; a \"PRIVATE KEY\" is wanted", block.Type)
}

// EncodeCertificate is one CERTIFICATE block.
func EncodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// EncodeCertificates is one CERTIFICATE block after another, in the order given.
func EncodeCertificates(certs []*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, EncodeCertificate(cert.Raw)...)
	}
	return out
}

// EncodeCSR is one CERTIFICATE REQUEST block.
func EncodeCSR(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// EncodePrivateKey is one PRIVATE KEY block (PKCS#8, unencrypted). Keys that
// live in a device have no such form and are an error.
func EncodePrivateKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
