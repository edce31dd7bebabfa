package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sekisho/internal/keystore"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
)

const (
	// journalKeyName is the key in the keystore that signs the revocation journal.
	journalKeyName = "journal"
	// journalDirName is a file in the data directory that says where the journal is when it is elsewhere, for commands
	// that run without the configuration.
	journalDirName = "journal.dir"
)

// journalDir is the directory of the revocation journal.
func (c Config) journalDir() string {
	if c.Journal != "" {
		return c.Journal
	}
	return filepath.Join(c.Data, "journal")
}

// rememberJournal notes in the data directory where the journal is.
func (c Config) rememberJournal() error {
	path := filepath.Join(c.Data, journalDirName)
	if c.Journal == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("place of the revocation journal: %w", err)
		}
		return nil
	}
	dir, err := filepath.Abs(c.Journal)
	if err == nil {
		err = writePrivate(path, []byte(dir+"\n"))
	}
	if err != nil {
		return fmt.Errorf("place of the revocation journal: %w", err)
	}
	return nil
}

// offlineConfig is the configuration of a command that works on a data directory without a server.
func offlineConfig(data, passphraseFile string) (Config, error) {
	cfg := Config{Data: data, Keys: KeysConfig{PassphraseFile: passphraseFile}}.withDefaults()
	dir, err := os.ReadFile(filepath.Join(cfg.Data, journalDirName))
	switch {
	case err == nil:
		cfg.Journal = strings.TrimSpace(string(dir))
	case !errors.Is(err, fs.ErrNotExist):
		return cfg, fmt.Errorf("place of the revocation journal: %w", err)
	}
	return cfg, nil
}

// storeConfig is what the store needs to know. The keystore is opened when the store has locked the data directory.
func (h *house) storeConfig(cfg Config, passphrase []byte) store.Config {
	return store.Config{Dir: cfg.Data, Logger: h.logger, Journal: store.JournalConfig{
		Dir: cfg.journalDir(),
		Key: func() (crypto.Signer, error) {
			var err error
			if h.keys, err = keystore.Open(keystore.Config{Dir: filepath.Join(cfg.Data, "keys"), Passphrase: passphrase}); err != nil {
				return nil, err
			}
			return h.journalKey(store.JournalPath(cfg.journalDir()))
		},
	}}
}

// journalKey is the journal's key, made when there is neither key nor journal.
func (h *house) journalKey(journal string) (crypto.Signer, error) {
	key, err := h.keys.Signer(journalKeyName)
	if !errors.Is(err, keystore.ErrNotFound) {
		return key, err
	}
	if _, statErr := os.Lstat(journal); statErr == nil {
		return nil, &hinted{
			err:  fmt.Errorf("%s is there, and the key that signed it is not: %w", journal, err),
			hint: "put back " + filepath.Join(h.dir, "keys", journalKeyName+".key") + "; if it is lost, move the journal away and begin a new one: sekisho store new-journal --data " + h.dir,
		}
	}
	return h.keys.Create(journalKeyName, pkix.Ed25519)
}

// storeHint adds advice to the refusals of a store.
func storeHint(cfg Config, err error) error {
	var hint *hinted
	switch {
	case err == nil || errors.As(err, &hint):
		return err
	case errors.Is(err, store.ErrLocked):
		return &hinted{err: err, hint: "a server is running on that directory: use its API, stop it, or choose another with --data DIR"}
	case errors.Is(err, store.ErrJournal):
		return &hinted{err: err, hint: fmt.Sprintf("put the newest %s back beside this database; if it is lost, \"sekisho store new-journal --data %s\" takes the database as it is: what was revoked after it was written must be revoked again",
			store.JournalPath(cfg.journalDir()), cfg.Data)}
	case errors.Is(err, keystore.ErrPassphrase):
		return &hinted{err: err, hint: passphraseHint}
	}
	return err
}

const passphraseHint = "name the file that holds it: --passphrase-file FILE, or keys.passphrase_file in the configuration of serve"
