package keystore

import (
	"crypto"
	"fmt"
	"io"
	"log/slog"

	"sekisho/internal/pkix"
)

// Key is a private key that signs and never shows itself: every way of printing it gives its name and type. It is safe
// for concurrent use.
type Key struct {
	name   string
	public crypto.PublicKey
	signer func() crypto.Signer // a func, because fmt follows pointers in unexported fields for some verbs
}

var (
	_ crypto.Signer        = (*Key)(nil)
	_ crypto.MessageSigner = (*Key)(nil)
)

func newKey(name string, signer crypto.Signer) *Key {
	return &Key{name: name, public: signer.Public(), signer: func() crypto.Signer { return signer }}
}

// Name is the key's name in the keystore.
func (k Key) Name() string { return k.name }

// Public implements crypto.Signer.
func (k Key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer.
func (k Key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.signer().Sign(rand, digest, opts)
}

// SignMessage implements crypto.MessageSigner.
func (k Key) SignMessage(rand io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	return crypto.SignMessage(k.signer(), rand, msg, opts)
}

// String is the key's name and type.
func (k Key) String() string {
	return fmt.Sprintf("key %s (%s)", k.name, pkix.KeyTypeOf(k.public))
}

// Format prints String, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses too.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
