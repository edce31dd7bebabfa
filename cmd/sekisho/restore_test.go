package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/store"
)

// freePorts are the arguments of serve that take any ports.
func freePorts() []string {
	return []string{"--edge", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pki", "127.0.0.1:0", "--metrics", "127.0.0.1:0"}
}

// day is a server whose database is put back to what it was the day before.
type day struct {
	t         *testing.T
	dir       string
	yesterday []byte
	crlNumber int64 // the highest that was published
	clients   map[string]tls.Certificate
	ids       map[string]string
}

// TestInvariant01RestoreDoesNotUnrevoke puts yesterday's database back after a day of revocations. The server refuses
// at the edge, in its CRL and by OCSP what was revoked since, also a certificate that was issued since; what was
// reactivated is active; the CRL number has grown. Without the journal it does not start, says what to do, and that works.
func TestInvariant01RestoreDoesNotUnrevoke(t *testing.T) {
	d := &day{t: t, dir: t.TempDir(), clients: map[string]tls.Certificate{}, ids: map[string]string{}}
	d.live()
	d.restore()
	p := startDev(t, d.dir)
	// The line comes through a pipe, and the ready file does not wait for it.
	waitUntil(t, "the log says that the database is old", func() bool { return strings.Contains(p.log.String(), "older than the revocation journal") })
	d.expect(p, map[string]string{"revoked": "revoked", "compromised": "revoked", "reactivated": "good", "issued and revoked": "revoked", "issued": "unknown", "untouched": "good"})
	p.stop()
	d.verify(0)
	d.restore()
	journal := store.JournalPath(filepath.Join(d.dir, "journal"))
	if err := os.Remove(journal); err != nil {
		t.Fatal(err)
	}
	d.refused(journal)
	d.verify(1)
	if _, stderr, code := sekisho(t, "", "store", "new-journal", "--data", d.dir); code != exitUsage || !strings.Contains(stderr, "--yes") || !strings.Contains(stderr, "lost") {
		t.Errorf("new-journal without --yes: exit %d, %s", code, stderr)
	}
	stdout, stderr, code := sekisho(t, "", "store", "new-journal", "--data", d.dir, "--yes")
	if code != exitOK || !strings.Contains(stdout, "lost") {
		t.Fatalf("new-journal: exit %d, %s %s", code, stdout, stderr)
	}
	p = startDev(t, d.dir)
	d.expect(p, map[string]string{"revoked": "good", "reactivated": "revoked", "issued and revoked": "unknown", "untouched": "good"})
	if d.crlNumber <= 1_000_000 {
		t.Errorf("the CRL number is %d, want over 1,000,000", d.crlNumber)
	}
	d.change(p, "DELETE", "revoked", "?reason=superseded", nil)
	d.expect(p, map[string]string{"revoked": "revoked"})
	p.stop()
	d.verify(0)
}

// live is the day: certificates of before, a backup, and what happens after it.
func (d *day) live() {
	p := startDev(d.t, d.dir)
	for _, name := range []string{"revoked", "compromised", "reactivated", "untouched"} {
		d.clients[name], d.ids[name] = p.issue(name)
	}
	d.change(p, "DELETE", "reactivated", "", nil)
	d.readCRL(p)
	p.stop()
	var err error
	if d.yesterday, err = os.ReadFile(d.database()); err != nil {
		d.t.Fatal(err)
	}
	p = startDev(d.t, d.dir)
	d.change(p, "DELETE", "revoked", "?reason=superseded", nil)
	d.change(p, "DELETE", "compromised", "?reason=keyCompromise", nil)
	d.change(p, "PATCH", "reactivated", "", map[string]bool{"reactivate": true})
	for _, name := range []string{"issued and revoked", "issued"} {
		d.clients[name], d.ids[name] = p.issue(name)
	}
	d.change(p, "DELETE", "issued and revoked", "", nil)
	d.readCRL(p)
	p.stop()
}

func (d *day) database() string { return filepath.Join(d.dir, "sekisho.db") }

// restore puts the database of the backup in place of the one that is there.
func (d *day) restore() {
	d.t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(d.database() + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			d.t.Fatal(err)
		}
	}
	if err := os.WriteFile(d.database(), d.yesterday, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *day) change(p *process, method, name, query string, body any) {
	d.t.Helper()
	if status, env := p.api(method, p.certificates()+"/"+d.ids[name]+query, body); status != http.StatusOK {
		d.t.Fatalf("%s %s: %d %+v", method, name, status, env.Errors)
	}
}

// readCRL reads the issuing CA's CRL, whose number has not fallen.
func (d *day) readCRL(p *process) (serials map[string]bool) {
	d.t.Helper()
	der, err := fetchCRL(p)
	if err != nil {
		d.t.Fatal(err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		d.t.Fatal(err)
	}
	if crl.Number.Int64() < d.crlNumber {
		d.t.Errorf("the CRL number fell from %d to %d", d.crlNumber, crl.Number)
	}
	d.crlNumber = crl.Number.Int64()
	serials = map[string]bool{}
	for _, e := range crl.RevokedCertificateEntries {
		serials[e.SerialNumber.String()] = true
	}
	return serials
}

// expect compares edge, CRL and OCSP with what each certificate is to be: good, revoked or unknown.
func (d *day) expect(p *process, want map[string]string) {
	d.t.Helper()
	for name, state := range want {
		leaf := d.clients[name].Leaf
		status, body := p.get(p.client(d.clients[name]), "/")
		if refused := status == http.StatusForbidden; refused != (state == "revoked") || !refused && status != http.StatusOK {
			d.t.Errorf("%s: the edge answers %d %s, want it %s", name, status, body, state)
		}
		// A change is in the CRL within 200 ms.
		waitUntil(d.t, fmt.Sprintf("%s is %s in the CRL", name, state), func() bool {
			return d.readCRL(p)[leaf.SerialNumber.String()] == (state == "revoked")
		})
		if got := d.ocsp(p, leaf); got != state {
			d.t.Errorf("%s: OCSP says %s, want %s", name, got, state)
		}
	}
}

// ocsp has openssl ask the responder.
func (d *day) ocsp(p *process, leaf *x509.Certificate) string {
	d.t.Helper()
	_, env := p.api("GET", "/sekisho/ca", nil)
	var cas []caView
	if err := json.Unmarshal(env.Result, &cas); err != nil {
		d.t.Fatal(err)
	}
	chain := filepath.Join(d.t.TempDir(), "chain.pem")
	issuer := filepath.Join(d.t.TempDir(), "issuer.pem")
	for _, c := range cas {
		if c.Name == "issuing" {
			if err := os.WriteFile(issuer, []byte(c.Certificate), 0o600); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	root, err := os.ReadFile(p.ready.CA)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(chain, root, 0o600); err != nil {
		d.t.Fatal(err)
	}
	serial := "0x" + leaf.SerialNumber.Text(16)
	out, err := exec.Command("openssl", "ocsp", "-issuer", issuer, "-serial", serial, "-url", p.ready.PKI+"/ocsp", "-CAfile", chain, "-no_nonce").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Response verify OK") {
		d.t.Fatalf("openssl ocsp: %v\n%s", err, out)
	}
	_, after, _ := strings.Cut(string(out), serial+": ")
	state, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(state)
}

// refused demands that the server does not start and says what is wrong and what to do.
func (d *day) refused(journal string) {
	d.t.Helper()
	_, stderr, code := sekisho(d.t, "", append([]string{"serve", "--dev", "--data", d.dir}, freePorts()...)...)
	for _, part := range []string{"error:", "does not go with its revocation journal", journal, "hint:", "sekisho store new-journal --data " + d.dir} {
		if !strings.Contains(stderr, part) {
			d.t.Errorf("the refusal does not say %q:\n%s", part, stderr)
		}
	}
	if code != exitRefused {
		d.t.Errorf("exit code %d, want 1", code)
	}
}

// verify runs store verify, in words and as JSON.
func (d *day) verify(want int) {
	d.t.Helper()
	stdout, stderr, code := sekisho(d.t, "", "store", "verify", "--data", d.dir)
	if code != want {
		d.t.Errorf("store verify: exit %d, want %d\n%s%s", code, want, stdout, stderr)
	}
	stdout, _, jsonCode := sekisho(d.t, "", "store", "verify", "--json", "--data", d.dir)
	var report store.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || jsonCode != code || (len(report.Findings) > 0) != (code == exitRefused) {
		d.t.Errorf("store verify --json: exit %d, %v: %s", jsonCode, err, stdout)
	}
}

// TestJournalElsewhere keeps the journal on another disk. Commands without the configuration find it; the server that
// runs is not disturbed by store verify, which says what to do.
func TestJournalElsewhere(t *testing.T) {
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "other disk")
	file := filepath.Join(t.TempDir(), "sekisho.yaml")
	config := fmt.Sprintf("journal: %q\nlog: {access: \"off\"}\nhosts: [{name: localhost, default: true, echo: true}]\n", elsewhere)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--config", file, "--data", dir}, freePorts()...)
	p := start(t, dir, args...)
	_, id := p.issue("one")
	if _, stderr, code := sekisho(t, "", "store", "verify", "--data", dir); code != exitRefused || !strings.Contains(stderr, "in use by another process") || !strings.Contains(stderr, "stop the server") {
		t.Errorf("beside a server: exit %d, %s", code, stderr)
	}
	p.stop()
	if _, err := os.Stat(filepath.Join(dir, "journal")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a journal in the data directory: %v", err)
	}
	if _, stderr, code := sekisho(t, "", "cert", "revoke", id, "--data", dir); code != exitOK {
		t.Fatalf("revoke without a server: exit %d, %s", code, stderr)
	}
	if stdout, stderr, code := sekisho(t, "", "store", "verify", "--data", dir); code != exitOK || !strings.Contains(stdout, elsewhere) || !strings.Contains(stdout, "1 certificates compared") {
		t.Errorf("verify: exit %d, %s%s", code, stdout, stderr)
	}
	start(t, dir, args...).stop()
}
