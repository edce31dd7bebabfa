// Package keystore keeps private keys as files of one directory and hands out a crypto.Signer by name.
//
// A key is on disk, synced, before [Dir.Create] returns it. Files have mode 0600; one that others can read is refused,
// with the command that mends it. With a passphrase new keys are encrypted (PKCS#8 with PBES2, as `openssl pkcs8 -topk8
// -v2 aes-256-cbc` makes them), and plain and encrypted keys may be mixed. A [Key] prints as its name and type in every
// way that fmt, log/slog and encoding/json know: the private half leaves this package in signatures only.
//
//	keys, err := keystore.Open(keystore.Config{Dir: "/var/lib/sekisho/keys"})
//	if err != nil {
//		return err
//	}
//	signer, err := keys.Signer("issuing")
package keystore

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"sekisho/internal/pkix"
)

// Errors of the keystore, to branch on.
var (
	// ErrNotFound: there is no key of that name.
	ErrNotFound = errors.New("no such key")
	// ErrExists: a key of that name exists; keys are never overwritten.
	ErrExists = errors.New("key exists already")
	// ErrPassphrase: the key is encrypted and the passphrase is missing or wrong.
	ErrPassphrase = errors.New("passphrase is missing or wrong")
	// ErrPermissions: others than the owner can read the key file.
	ErrPermissions = errors.New("private key is readable by others")
)

// Config says where the keys are. It prints without the passphrase.
type Config struct {
	Dir        string // made with mode 0700 when absent
	Passphrase []byte // encrypts new keys and decrypts old ones; empty: new keys are protected by their file mode only
}

// Format prints the directory and whether there is a passphrase, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.describe()) }

// LogValue implements slog.LogValuer.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.describe()) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses too.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.describe()), nil }

func (c Config) describe() string {
	return fmt.Sprintf("keystore %s (passphrase: %t)", c.Dir, len(c.Passphrase) > 0)
}

// Dir is an open keystore. It holds no key in memory and is safe for concurrent use.
type Dir struct {
	path string
	pass func() []byte // a func, so that no way of printing shows it
}

// Open opens a keystore, makes its directory when there is none, and removes what a killed Create has left: private keys
// under names that nobody knows. One process at a time may use a keystore; the data directory's lock sees to that. It
// reads no key.
func Open(cfg Config) (*Dir, error) {
	if cfg.Dir == "" {
		return nil, errors.New("keystore: no directory is given")
	}
	path, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if err := removeLeftovers(path); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	pass := bytes.Clone(cfg.Passphrase)
	return &Dir{path: path, pass: func() []byte { return pass }}, nil
}

// Create makes a key of type t and returns it after it is on disk, file and directory synced. It returns ErrExists
// when there is a key of that name.
func (d *Dir) Create(name string, t pkix.KeyType) (crypto.Signer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return d.create(name, t)
}

func (d *Dir) create(name string, t pkix.KeyType) (*Key, error) {
	signer, err := pkix.GenerateKey(t)
	if err != nil {
		return nil, fmt.Errorf("keystore: key %q: %w", name, err)
	}
	return d.write(name, signer)
}

// Add stores a key that was made elsewhere, as Create does one of its own making: encrypted where the store has a
// passphrase, and on disk when it returns. It returns ErrExists when there is a key of that name.
func (d *Dir) Add(name string, key crypto.Signer) (crypto.Signer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return d.write(name, key)
}

func (d *Dir) write(name string, signer crypto.Signer) (*Key, error) {
	text, err := pkix.EncodePrivateKey(signer)
	if err != nil {
		return nil, fmt.Errorf("keystore: key %q: %w", name, err)
	}
	if pass := d.pass(); len(pass) > 0 {
		if text, err = encryptPEM(text, pass); err != nil {
			return nil, fmt.Errorf("keystore: key %q: %w", name, err)
		}
	}
	if err := writeNew(d.file(name), text); err != nil {
		return nil, fmt.Errorf("keystore: key %q: %w", name, err)
	}
	return newKey(name, signer), nil
}

// Signer reads a key. Errors are ErrNotFound, ErrPermissions, ErrPassphrase, or say what is wrong with the file.
func (d *Dir) Signer(name string) (crypto.Signer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	signer, err := d.load(name)
	if err != nil {
		return nil, err
	}
	return newKey(name, signer), nil
}

func (d *Dir) load(name string) (crypto.Signer, error) {
	path := d.file(name)
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("keystore: key %q: %w in %s", name, ErrNotFound, d.path)
	}
	if err != nil {
		return nil, fmt.Errorf("keystore: key %q: %w", name, err)
	}
	if block, _ := pem.Decode(text); block != nil && block.Type == encryptedType {
		if text, err = decryptPEM(block.Bytes, d.pass()); err != nil {
			return nil, fmt.Errorf("keystore: %s: %w", path, err)
		}
	}
	signer, err := pkix.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("keystore: %s: %w", path, err)
	}
	return signer, nil
}

// file is where a key is. The name was checked, so it stays inside the directory.
func (d *Dir) file(name string) string { return filepath.Join(d.path, name+keySuffix) }

const (
	maxName   = 64
	keySuffix = ".key"
)

// checkName allows a-z, 0-9 and dashes inside. The name of the sealing key is taken: nothing must sign with it.
func checkName(name string) error {
	ok := name != "" && len(name) <= maxName && name[0] != '-'
	for _, c := range []byte(name) {
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("keystore: key name %.80q: use 1 to %d of a-z, 0-9 and -, not - first", name, maxName)
	}
	if name == sealName {
		return fmt.Errorf("keystore: key name %q is that of the sealing key; choose another", name)
	}
	return nil
}

// readPrivate reads a small file that its owner alone can read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s: %w (mode %04o); run: chmod 600 %s", path, ErrPermissions, info.Mode().Perm(), shellQuote(path))
	case info.Size() > pkix.MaxPrivateKeyBytes:
		return nil, fmt.Errorf("%s has %d bytes; a key has at most %d", path, info.Size(), pkix.MaxPrivateKeyBytes)
	}
	return io.ReadAll(f)
}
