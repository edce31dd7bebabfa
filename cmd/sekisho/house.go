package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sekisho/internal/admin"
	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/keystore"
	"sekisho/internal/pkix"
	"sekisho/internal/principal"
	"sekisho/internal/site"
	"sekisho/internal/store"
)

// house is the part of a checkpoint that has state: store, keys, CA and the first token. `serve` runs one, and the
// commands open one when no server runs on the data directory.
type house struct {
	dir       string
	store     *store.Store
	keys      *keystore.Dir
	authority *ca.Authority // opened by openCA
	accountID string
	token     string // the first token's secret
	email     string
	logger    *slog.Logger
}

// openHouse opens the data directory, which it locks, and makes the account and the first token when they are missing.
func openHouse(ctx context.Context, cfg Config, logger *slog.Logger) (*house, error) {
	passphrase, err := readPassphrase(cfg.Keys.PassphraseFile)
	if err != nil {
		return nil, err
	}
	h := &house{dir: cfg.Data, email: cfg.Admin.Email, logger: logger}
	if h.store, err = store.Open(ctx, h.storeConfig(cfg, passphrase)); err != nil {
		return nil, storeHint(cfg, err)
	}
	if err = h.openCaller(ctx); err != nil {
		return nil, errors.Join(err, h.store.Close())
	}
	return h, nil
}

// openCA opens the CA and makes root and issuing CA at first start. pkiURL is the base of the addresses in
// certificates; it is remembered for commands that run without a server.
func (h *house) openCA(ctx context.Context, pki PKIConfig, onChange func(ca.Certificate)) error {
	if err := h.store.SetMeta(ctx, "pki_url", pki.URL); err != nil {
		return err
	}
	if err := h.rememberLists(ctx, pki); err != nil {
		return err
	}
	keyType, err := pkix.ParseKeyType(pki.KeyType)
	if err != nil {
		return &usageError{err: fmt.Errorf("pki.key_type: %w", err)}
	}
	h.authority, err = ca.Open(ctx, h.authorityConfig(pki, onChange))
	if errors.Is(err, keystore.ErrNotFound) {
		return &hinted{err: err, hint: "the journal or the database knows a CA whose key is not in " + filepath.Join(h.dir, "keys") + ": restore the newest copy of that directory too"}
	}
	if errors.Is(err, keystore.ErrPassphrase) {
		return &hinted{err: err, hint: passphraseHint}
	}
	if err != nil {
		return err
	}
	err = h.authority.Init(ctx, "sekisho", ca.InitRequest{KeyType: keyType, RootSubject: pki.Root, IssuingSubject: pki.Issuing, Shards: pki.Shards})
	if errors.Is(err, ca.ErrConflict) {
		return nil // made at an earlier start
	}
	return err
}

// openCaller makes sure that there is an account and a first token, whose secret is in DATA/token.
func (h *house) openCaller(ctx context.Context) error {
	var err error
	if h.accountID, err = h.ensureMeta(ctx, "account_id", newID); err != nil {
		return err
	}
	path := filepath.Join(h.dir, "token")
	secret, err := os.ReadFile(path)
	switch {
	case err == nil:
		h.token = strings.TrimSpace(string(secret))
		_, err = h.store.TokenByHash(ctx, principal.HashSecret(h.token))
		if !errors.Is(err, principal.ErrUnauthenticated) {
			return err
		}
		// A crash came between the file and the store, or the store is an older one: nobody has a token that works.
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("first token: %w", err)
	}
	text, token, err := principal.NewToken("first token", h.email, principal.Edit)
	if err != nil {
		return err
	}
	// The file first: a token that nobody stored is harmless, one that nobody knows is not.
	if err := writePrivate(path, []byte(text+"\n")); err != nil {
		return fmt.Errorf("first token: %w", err)
	}
	entry := auditlog.Entry{
		At: token.CreatedOn, Actor: "sekisho", Action: "token.create", Object: token.ID, Outcome: "done",
		Detail: map[string]string{"name": token.Name, "email": token.Email, "role": string(token.Role)},
	}
	if err := h.store.AddToken(ctx, token, entry); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	h.token = text
	h.logger.InfoContext(ctx, "first token made", "file", path, "email", token.Email)
	return nil
}

// writeRoots writes DATA/ca.pem: what clients of our servers trust.
func (h *house) writeRoots() error {
	// Public, so readable by all; whole or not at all, for clients may read it at any time.
	if err := writeWhole(filepath.Join(h.dir, "ca.pem"), pkix.EncodeCertificates(h.authority.Roots()), 0o644); err != nil {
		return fmt.Errorf("write the CA certificates: %w", err)
	}
	return nil
}

// adminConfig is what the API needs of a house; the server adds what it has beyond that.
func (h *house) adminConfig() admin.Config {
	return admin.Config{
		Authority: h.authority, Records: h.store, Authenticator: principal.NewAuthenticator(h.store), Tokens: h.store,
		Audit: h.store.AppendAudit, AuditRecords: h.store.AuditRecords,
		AccountID: h.accountID, Version: version, Logger: h.logger, Explain: explain,
		CAsChanged: func(context.Context) error { return h.writeRoots() },
	}
}

// explain is what the API may tell of a failure that is the house's own.
func explain(err error) string {
	if errors.Is(err, store.ErrDiskFull) {
		return store.ErrDiskFull.Error() + " that has the data directory or the revocation journal; nothing was stored"
	}
	return ""
}

// apiHandler is the API over a house without a server.
func (h *house) apiHandler() (http.Handler, error) { return admin.New(h.adminConfig()) }

// ensureZone makes sure that there is at least one zone, for commands before the first start.
func (h *house) ensureZone(ctx context.Context) error {
	zones, err := h.store.Zones(ctx)
	if err != nil || len(zones) > 0 {
		return err
	}
	_, err = h.store.EnsureZone(ctx, site.Zone{ID: newID(), Name: "localhost", AccountID: h.accountID, CreatedOn: time.Now().UTC()})
	return err
}

// ensureMeta returns a value of the store's meta table, made at first use.
func (h *house) ensureMeta(ctx context.Context, key string, fresh func() string) (string, error) {
	value, ok, err := h.store.Meta(ctx, key)
	if err != nil || ok {
		return value, err
	}
	value = fresh()
	return value, h.store.SetMeta(ctx, key, value)
}

// close gives the data directory free.
func (h *house) close() error { return h.store.Close() }
