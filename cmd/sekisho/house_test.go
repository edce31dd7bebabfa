package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/principal"
	"sekisho/internal/revocation"
	"sekisho/internal/store/storetest"
)

// TestFirstTokenAfterCrash: a kill between writing DATA/token and storing the token must not lock the owner out, and a
// token that works is never replaced. Each stored token is on record.
func TestFirstTokenAfterCrash(t *testing.T) {
	dir := t.TempDir()
	works := func(want string) string {
		t.Helper()
		h, err := openHouse(t.Context(), Config{Data: dir}.withDefaults(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer h.close()
		onDisk, err := os.ReadFile(filepath.Join(dir, "token"))
		if err != nil || string(onDisk) != h.token+"\n" {
			t.Fatalf("DATA/token has %q, %v; the house uses another", onDisk, err)
		}
		auth := principal.NewAuthenticator(h.store)
		if _, err := auth.Authenticate(t.Context(), principal.Credentials{Bearer: h.token}, time.Now()); err != nil {
			t.Errorf("the token of DATA/token: %v", err)
		}
		if want != "" && h.token != want {
			t.Error("a token that works was replaced")
		}
		tokens, err := h.store.ListTokens(t.Context())
		records, err2 := h.store.AuditRecords(t.Context(), 0, 0)
		if err != nil || err2 != nil || len(tokens) != len(records) || records[0].Action != "token.create" {
			t.Errorf("%d tokens, %d audit records; %v, %v", len(tokens), len(records), err, err2)
		}
		return h.token
	}
	first := works("")
	works(first)
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("0123456789012345678901234567890123456789\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	works(works(""))
}

// TestRevokedUnderAWrongClock: what seems to have ended at start is still known as revoked when the clock is set back.
func TestRevokedUnderAWrongClock(t *testing.T) {
	h, err := openHouse(t.Context(), Config{Data: t.TempDir()}.withDefaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	storetest.AddCA(t, h.store)
	c := storetest.Certificate(1)
	c.NotAfter = time.Now().AddDate(0, -6, 0) // by a clock that is half a year and more ahead
	if err := h.store.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
		t.Fatal(err)
	}
	step := ca.Transition{ID: c.ID, To: ca.Revoked, Reason: pkix.KeyCompromise, At: time.Now()}
	if _, _, err := h.store.Apply(t.Context(), step, storetest.Entry("certificate.revoke", c.ID)); err != nil {
		t.Fatal(err)
	}
	s := &server{house: h, logger: h.logger, index: revocation.NewIndex()}
	if err := s.buildRevocation(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, revoked := s.index.Lookup(c.CertID()); !revoked {
		t.Error("the edge does not know that the certificate is revoked")
	}
}
