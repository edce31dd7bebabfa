package main

import (
	"database/sql"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// archiveConfig is a configuration that archives.
func archiveConfig(t *testing.T, after string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sekisho.yaml")
	config := `
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
log: {access: "off"}
pki: {archive_after: ` + after + `, shards: 4}
hosts:
  - {name: localhost, names: ["127.0.0.1"], default: true, echo: true, client_auth: {mode: require}}
`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestArchiveEndToEnd: what ended two years ago leaves the ledger and is still found by API, command and OCSP, with the
// state it had, after a kill -9 too.
func TestArchiveEndToEnd(t *testing.T) {
	dir, file := t.TempDir(), archiveConfig(t, "8784h")
	p := start(t, dir, "--config", file, "--data", dir)
	_, good := p.issue("archived good")
	_, bad := p.issue("archived bad")
	_, kept := p.issue("kept")
	if status, env := p.api("DELETE", p.certificates()+"/"+bad+"?reason=superseded", nil); status != http.StatusOK {
		t.Fatalf("revoke: %d %+v", status, env.Errors)
	}
	p.stop()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.Join(dir, "sekisho.db")}).String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE certificates SET not_after = ? WHERE id IN (?, ?)`, time.Now().AddDate(-2, 0, 0).UnixMicro(), good, bad); err != nil {
		t.Fatal(err)
	}
	// No base of a delta is so old: each renewal keeps one, and the test has no time for eight.
	if _, err := db.ExecContext(t.Context(), `DELETE FROM crl_bases`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	p = start(t, dir, "--config", file, "--data", dir)
	wait(t, p, "certificates archived")
	checkArchived(t, p, good, bad, kept)
	p.kill()
	p = start(t, dir, "--config", file, "--data", dir)
	checkArchived(t, p, good, bad, kept)
	if status, env := p.api("PATCH", p.certificates()+"/"+bad, nil); status != http.StatusBadRequest || !strings.Contains(env.Errors[0].Message, "final") {
		t.Errorf("reactivate an archived certificate: %d %+v", status, env.Errors)
	}
	if status, env := p.api("DELETE", p.certificates()+"/"+good+"?reason=cessationOfOperation", nil); status != http.StatusOK {
		t.Errorf("revoke an archived certificate: %d %+v", status, env.Errors)
	}
	if out := askOCSP(t, p, good); !strings.Contains(out, ": revoked") {
		t.Errorf("OCSP after the revocation: %s", out)
	}
	p.stop()
	if out, errs, code := sekisho(t, "", "store", "verify", "--data", dir); code != 0 {
		t.Errorf("store verify: exit %d\n%s%s", code, out, errs)
	}
}

// wait waits for a line of the server's log.
func wait(t *testing.T, p *process, text string) {
	t.Helper()
	for begin := time.Now(); !strings.Contains(p.log.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("the log does not say %q within 30 s\n%s", text, p.log)
		}
	}
}

func checkArchived(t *testing.T, p *process, good, bad, kept string) {
	t.Helper()
	for id, want := range map[string]string{good: ": good", bad: ": revoked", kept: ": good"} {
		if status, env := p.api("GET", p.certificates()+"/"+id, nil); status != http.StatusOK || !strings.Contains(string(env.Result), id) {
			t.Errorf("GET %s: %d %+v", id, status, env.Errors)
		}
		if out := askOCSP(t, p, id); !strings.Contains(out, want) || !strings.Contains(out, "Response verify OK") {
			t.Errorf("OCSP about %s: want %q\n%s", id, want, out)
		}
	}
	for query, want := range map[string][]string{"": {kept}, "?archived=true": {good, bad}, "?archived=true&status=revoked": {bad}} {
		_, env := p.api("GET", p.certificates()+query, nil)
		if env.ResultInfo.TotalCount != len(want) {
			t.Errorf("list%s: %d found, want %d", query, env.ResultInfo.TotalCount, len(want))
		}
		for _, id := range want {
			if !strings.Contains(string(env.Result), id) {
				t.Errorf("list%s: %s is not in it", query, id)
			}
		}
	}
	out, errs, code := sekisho(t, "", "cert", "list", "--archived", "--cn", "archived bad", "--data", p.dir)
	if code != 0 || !strings.Contains(out, bad) || strings.Contains(out, good) {
		t.Errorf("cert list --archived: exit %d\n%s%s", code, out, errs)
	}
	if out, errs, code := sekisho(t, "", "cert", "show", bad, "--data", p.dir); code != 0 || !strings.Contains(out, "superseded") {
		t.Errorf("cert show: exit %d\n%s%s", code, out, errs)
	}
}

// askOCSP asks the responder with openssl about a certificate of the ledger.
func askOCSP(t *testing.T, p *process, id string) string {
	t.Helper()
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"cert.pem": {"cert", "show", id, "--pem", "--data", p.dir}, "chain.pem": {"ca", "show", "--pem", "--data", p.dir},
	} {
		out, errs, code := sekisho(t, "", args...)
		if code != 0 {
			t.Fatalf("%v: exit %d %s", args, code, errs)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	chain, err := os.ReadFile(filepath.Join(dir, "chain.pem"))
	if err != nil {
		t.Fatal(err)
	}
	issuing := string(chain)[strings.LastIndex(string(chain), "-----BEGIN"):]
	if err := os.WriteFile(filepath.Join(dir, "issuing.pem"), []byte(issuing), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "ocsp", "-issuer", filepath.Join(dir, "issuing.pem"), "-cert", filepath.Join(dir, "cert.pem"),
		"-url", p.ready.PKI+"/ocsp", "-CAfile", filepath.Join(dir, "chain.pem")).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl ocsp: %v\n%s", err, out)
	}
	return string(out)
}

// TestArchiveBound: a shorter time than a start must look back is refused, and the error says why.
func TestArchiveBound(t *testing.T) {
	out, errs, code := sekisho(t, "", "config", "check", archiveConfig(t, "2160h"))
	for _, want := range []string{"pki.archive_after 2160h", "8784h", "366 days", "clock"} {
		if code == 0 || !strings.Contains(errs, want) {
			t.Errorf("exit %d, want %q:\n%s%s", code, want, out, errs)
		}
	}
	if out, errs, code := sekisho(t, "", "config", "check", archiveConfig(t, "9000h")); code != 0 || !strings.Contains(out, "archive_after: 9000h") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
