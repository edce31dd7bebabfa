package pkix

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/mldsa"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
)

// KeyType is a kind of key that GenerateKey can make.
type KeyType string

// The key types, in the spelling of configuration files and the API.
const (
	ECDSAP256 KeyType = "ecdsa-p256"
	ECDSAP384 KeyType = "ecdsa-p384"
	RSA2048   KeyType = "rsa-2048"
	RSA3072   KeyType = "rsa-3072"
	RSA4096   KeyType = "rsa-4096"
	Ed25519   KeyType = "ed25519"
	MLDSA65   KeyType = "ml-dsa-65"
)

// KeyTypes lists every KeyType, the default first.
func KeyTypes() []KeyType {
	return []KeyType{ECDSAP256, ECDSAP384, RSA2048, RSA3072, RSA4096, Ed25519, MLDSA65}
}

// ParseKeyType reads a key type in any case, with or without punctuation, and
// the usual names for the same thing: p256, prime256v1, secp384r1, rsa (2048),
// rsa:4096, ec, mldsa65. Empty is ECDSAP256.
func ParseKeyType(text string) (KeyType, error) {
	plain := strings.NewReplacer("-", "", "_", "", ":", "", " ", "").Replace(strings.ToLower(text))
	switch plain {
	case "", "ec", "ecdsa", "p256", "ecp256", "ecdsap256", "ecdsa256", "prime256v1", "secp256r1":
		return ECDSAP256, nil
	case "p384", "ecp384", "ecdsap384", "ecdsa384", "secp384r1":
		return ECDSAP384, nil
	case "rsa", "rsa2048":
		return RSA2048, nil
	case "rsa3072":
		return RSA3072, nil
	case "rsa4096":
		return RSA4096, nil
	case "ed25519":
		return Ed25519, nil
	case "mldsa", "mldsa65":
		return MLDSA65, nil
	}
	known := make([]string, 0, len(KeyTypes()))
	for _, t := range KeyTypes() {
		known = append(known, string(t))
	}
	return "", fmt.Errorf("unknown key type %.40q; known are %s", text, strings.Join(known, ", "))
}

// GenerateKey makes a new private key.
func GenerateKey(t KeyType) (crypto.Signer, error) {
	switch t {
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case MLDSA65:
		return mldsa.GenerateKey(mldsa.MLDSA65())
	}
	return nil, fmt.Errorf("unknown key type %.40q", string(t))
}

// KeyTypeOf names the type and size of any public key: a KeyType's text, or
// for instance "ecdsa-p521", "rsa-1024", "ml-dsa-87"; for what it does not
// know, the Go type.
func KeyTypeOf(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return "ecdsa-" + strings.ToLower(strings.ReplaceAll(k.Curve.Params().Name, "-", ""))
	case *rsa.PublicKey:
		return fmt.Sprintf("rsa-%d", k.N.BitLen())
	case ed25519.PublicKey:
		return string(Ed25519)
	case *mldsa.PublicKey:
		return strings.ToLower(k.Parameters().String())
	case nil: // crypto/x509 reads no key of that algorithm
		return "unknown"
	}
	return fmt.Sprintf("%T", pub)
}
