package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestRevokeExpired: a certificate that has ended can still be revoked (what it signed while it was good may be judged by
// it), the answer says that it had ended, and the CRL carries it once more.
func TestRevokeExpired(t *testing.T) {
	dir := t.TempDir()
	if _, code := offline(t, "ca", "init", "--data", dir, "--pki-url", "http://pki.example"); code != exitOK {
		t.Fatal("ca init")
	}
	serial := issueShort(t, dir)
	out, code := offline(t, "cert", "revoke", serial, "--data", dir, "--reason", "superseded")
	if code != exitOK || !strings.Contains(out, "revoked; it had expired on ") {
		t.Fatalf("exit %d: %s", code, out)
	}
	out, code = offline(t, "ca", "crl", "--data", dir, "--der")
	list, err := pkix.ParseCRLHeader([]byte(out))
	if code != exitOK || err != nil {
		t.Fatalf("exit %d: %v", code, err)
	}
	listed := false
	if err := list.Walk(func(e pkix.CRLRecord) error {
		listed = listed || pkix.SerialFromBytes(e.Serial).String() == serial
		return nil
	}); err != nil || !listed {
		t.Errorf("the CRL does not carry the certificate: %v", err)
	}
}

// issueShort issues a certificate and waits until it has ended.
func issueShort(t *testing.T, dir string) (serial string) {
	t.Helper()
	h, err := openHouse(t.Context(), Config{Data: dir}.withDefaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	h.authority, err = ca.Open(t.Context(), ca.Config{Ledger: h.store, Keys: h.keys, PKIURL: "http://pki.example", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.ensureZone(t.Context()); err != nil {
		t.Fatal(err)
	}
	zones, err := h.store.Zones(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(4 * time.Second) // it must be made before it ends, however slow the machine
	row, _, err := h.authority.IssueWithKey(t.Context(), ca.IssueRequest{
		ZoneID: zones[0].ID, Profile: ca.ProfileClient, Subject: "CN=short", NotAfter: end, Actor: "test",
	}, pkix.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(row.NotAfter) + 10*time.Millisecond)
	return row.Serial.String()
}

// offline runs a command on a store without a server.
func offline(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), env{stdin: strings.NewReader(""), stdout: &out, stderr: io.Writer(&errs), getenv: func(string) string { return "" }}, args)
	if code != exitOK {
		t.Log(errs.String())
	}
	return out.String(), code
}
