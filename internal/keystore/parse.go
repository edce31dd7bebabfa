package keystore

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"sekisho/internal/pkix"
)

// ParseKey reads one private key in PEM as openssl and cfssl write them: what [pkix.ParsePrivateKey] reads, PKCS#8 under a
// passphrase (PBES2 with PBKDF2 and AES-CBC or 3DES-CBC), and the traditional form with "Proc-Type: 4,ENCRYPTED". A
// missing or wrong passphrase is ErrPassphrase. Errors never repeat any of the key or of the passphrase.
func ParseKey(text, passphrase []byte) (crypto.Signer, error) {
	if len(text) > pkix.MaxPrivateKeyBytes {
		return nil, fmt.Errorf("private key: %d bytes; a key has at most %d", len(text), pkix.MaxPrivateKeyBytes)
	}
	block := keyBlock(text)
	var err error
	switch {
	case block == nil:
	case block.Type == encryptedType:
		if text, err = decryptPEM(block.Bytes, passphrase); err != nil {
			return nil, fmt.Errorf("private key: %w", err)
		}
	case strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		if text, err = decryptTraditional(block, passphrase); err != nil {
			return nil, fmt.Errorf("private key: %w", err)
		}
	}
	return pkix.ParsePrivateKey(text)
}

// keyBlock is the first block that is not the EC PARAMETERS which openssl writes before a key.
func keyBlock(text []byte) *pem.Block {
	for {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "EC PARAMETERS" {
			return block
		}
		text = rest
	}
}

// decryptTraditional reads openssl's own form of before PKCS#8. Its key derivation is weak and its padding no proof of
// anything, which is why crypto/x509 advises against it; here it is read once, from the operator's own file, and what
// comes out must be a key.
func decryptTraditional(block *pem.Block, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("the key is encrypted: %w; give the passphrase it was made with", ErrPassphrase)
	}
	plain, err := x509.DecryptPEMBlock(block, passphrase) //nolint:staticcheck // see above
	switch {
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, fmt.Errorf("%w: this one does not open the key, or the file is damaged", ErrPassphrase)
	case err != nil:
		return nil, errors.New("the encryption of the key is not known; convert the key with openssl pkcs8 -topk8 -v2 aes-256-cbc")
	}
	text := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: plain})
	if _, err := pkix.ParsePrivateKey(text); err != nil {
		return nil, fmt.Errorf("%w: this one does not open the key, or the file is damaged", ErrPassphrase)
	}
	return text, nil
}
