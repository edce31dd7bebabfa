package main

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/testpki"
	"sekisho/internal/verify"
)

// What the report on extended key usages forecasts happens when the policy is changed: who is listed breaks under
// demand and comes in under ignore, nobody else does, and strangers are not listed.
func TestTrustEKUForecast(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("Partner Root"))
	narrow := root.Intermediate("Server Only", testpki.Edit(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))
	stranger := testpki.NewCA(t, testpki.Name("Elsewhere"))
	clients := map[string]testpki.Leaf{
		"dropped": root.Client("dropped", testpki.WrongEKU()),
		"below":   narrow.Client("below"),
		"proper":  root.Client("proper"),
	}
	breaks := map[string]bool{"dropped": true, "below": true}
	dir := t.TempDir()
	file := filepath.Join(dir, "partner.pem")
	if err := os.WriteFile(file, root.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	p := startConfigured(t, dir, newOrigin(t).url, "")
	command := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := sekisho(t, "", append(args, "--data", dir)...)
		if code != exitOK {
			t.Fatalf("%v: exit %d\n%s", args, code, stderr)
		}
		return stdout
	}
	command("trust", "add", "partner", file, "--host", "localhost")
	visit := func(ignore bool) {
		t.Helper()
		for name, leaf := range clients {
			want := http.StatusOK
			if breaks[name] && !ignore {
				want = http.StatusForbidden
			}
			if status, body := p.get(p.client(leaf.TLS()), "/hello"); status != want {
				t.Errorf("%s, ignore %v: %d %s, want %d", name, ignore, status, body, want)
			}
		}
		p.get(p.client(stranger.Client("stranger", testpki.WrongEKU()).TLS()), "/hello")
	}
	for _, eku := range []string{"demand", "ignore", "demand"} {
		command("trust", "policy", "partner", "--eku", eku)
		visit(eku == "ignore")
		var report verify.UsageReport
		if err := json.Unmarshal([]byte(command("trust", "eku", "partner", "--json")), &report); err != nil {
			t.Fatal(err)
		}
		if report.EKU != eku || len(report.Clients) != len(breaks) {
			t.Fatalf("eku %s: %+v", eku, report)
		}
		for _, c := range report.Clients {
			if name := strings.TrimPrefix(c.Subject, "CN="); !breaks[name] || c.Connections == 0 || len(c.Usages) != 1 || c.Usages[0] != "serverAuth" {
				t.Errorf("eku %s: %+v", eku, c)
			}
		}
	}
	text := command("trust", "eku", "partner")
	for _, want := range []string{"partner: eku is demand; 2 clients", "refused, and would be let in under ignore", "CN=dropped", "serverAuth of its issuer CN=Server Only"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	p.stop()
}
