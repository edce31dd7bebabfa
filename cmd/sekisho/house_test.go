package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sekisho/internal/principal"
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
