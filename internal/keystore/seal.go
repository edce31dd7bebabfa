package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"

	"sekisho/internal/pkix"
)

const (
	sealName    = "seal"
	sealVersion = 1
	sealInfo    = "sekisho seal v1: AES-256-GCM"
)

// ErrSeal is returned for what was not sealed with this key in this context, or was changed since.
var ErrSeal = errors.New("sealed value does not open with this key and context")

// Sealer encrypts and authenticates small secrets, such as session ticket keys, for a place that others may read. It
// is safe for concurrent use.
type Sealer struct {
	aead func() cipher.AEAD // a func, so that no way of printing shows the key
}

// Sealer returns the sealer of the keystore and makes its key, seal.key, at first use. The file is a private key like
// the others (Ed25519, encrypted under the passphrase if there is one), so it is kept, copied and checked like them; its
// 32-byte seed is used to derive an AES-256 key and for nothing else.
func (d *Dir) Sealer() (*Sealer, error) {
	signer, err := d.load(sealName)
	if errors.Is(err, ErrNotFound) {
		if _, err = d.create(sealName, pkix.Ed25519); err == nil || errors.Is(err, ErrExists) {
			signer, err = d.load(sealName)
		}
	}
	if err != nil {
		return nil, err
	}
	key, ok := signer.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("keystore: %s holds a key of type %s; the sealing key is ed25519", d.file(sealName), pkix.KeyTypeOf(signer.Public()))
	}
	secret, err := hkdf.Key(sha256.New, key.Seed(), nil, sealInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("keystore: sealing key: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("keystore: sealing key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("keystore: sealing key: %w", err)
	}
	return &Sealer{func() cipher.AEAD { return aead }}, nil
}

// Seal encrypts plaintext. context is not stored: who opens must give the same, so that a value sealed for one place
// does not open in another. The result is one version octet, a random nonce (12), the ciphertext and its tag (16).
func (s *Sealer) Seal(plaintext, context []byte) ([]byte, error) {
	return s.aead().Seal([]byte{sealVersion}, nil, plaintext, context), nil
}

// Open returns what was sealed in this context, or ErrSeal.
func (s *Sealer) Open(sealed, context []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != sealVersion {
		return nil, ErrSeal
	}
	plain, err := s.aead().Open(nil, nil, sealed[1:], context)
	if err != nil {
		return nil, ErrSeal
	}
	return plain, nil
}

// Format prints that it is a sealer, whatever the verb.
func (s *Sealer) Format(f fmt.State, _ rune) { fmt.Fprint(f, "sealer") }

// LogValue implements slog.LogValuer.
func (s *Sealer) LogValue() slog.Value { return slog.StringValue("sealer") }
