package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sekisho/internal/testpki"
)

// TestInvariant02UntiedCACutsLiveConnections holds live connections of every kind by clients of two CAs that came by API,
// unties one CA, and demands that exactly its clients' connections close, fast, and that they come in no more.
func TestInvariant02UntiedCACutsLiveConnections(t *testing.T) {
	o := newOrigin(t)
	p := startConfigured(t, t.TempDir(), o.url, "")
	clients := map[string]*testpki.CA{"kept": testpki.NewCA(t, testpki.Name("Kept Root")), "untied": testpki.NewCA(t, testpki.Name("Untied Root"))}
	ids := map[string]string{}
	conns := map[string][]*liveConn{}
	for name, ca := range clients {
		status, answer := p.api("POST", "/sekisho/trust", map[string]any{"name": name, "certificates": string(ca.PEM), "hostnames": []string{"localhost"}})
		if status != http.StatusOK {
			t.Fatalf("add %s: %d %+v", name, status, answer.Errors)
		}
		var made trustedCA
		if err := json.Unmarshal(answer.Result, &made); err != nil {
			t.Fatal(err)
		}
		ids[name] = made.ID
		config := p.tlsConfig(ca.Client(name).TLS())
		for _, k := range kinds {
			c, err := dialLive(p, config, k)
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, p.log)
			}
			conns[name] = append(conns[name], c)
		}
	}
	crowded, start := crowding(t), time.Now()
	if status, answer := p.api("PUT", "/sekisho/trust/"+ids["untied"]+"/hostnames", map[string]any{"hostnames": []string{}}); status != http.StatusOK {
		t.Fatalf("untie: %d %+v", status, answer.Errors)
	}
	for _, c := range conns["untied"] {
		close(c.drain)
	}
	if status, body := p.get(p.client(clients["untied"].Client("late").TLS()), "/hello"); status != http.StatusForbidden {
		t.Errorf("a client of the untied CA is answered with %d %s", status, body)
	}
	var slowest time.Duration
	for _, c := range conns["untied"] {
		select {
		case <-c.done:
		case <-time.After(10 * time.Second):
			t.Fatalf("a %s connection of the untied CA is open after 10 s\n%s", c.kind, p.log)
		}
		slowest = max(slowest, time.Unix(0, c.closed.Load()).Sub(start))
		c.conn.Close()
	}
	within(t, "every connection of the untied CA is closed", slowest, time.Second, crowded)
	for _, c := range conns["kept"] {
		if !c.alive() {
			t.Errorf("a %s connection of the other CA was closed", c.kind)
		}
		c.conn.Close()
	}
	if status, _ := p.get(p.client(clients["kept"].Client("still").TLS()), "/hello"); status != http.StatusOK {
		t.Errorf("a client of the other CA is answered with %d", status)
	}
	p.stop()
}

// TestTrustSurvivesRestart: a CA that was added by command is in force at once, and again after a kill -9.
func TestTrustSurvivesRestart(t *testing.T) {
	o := newOrigin(t)
	dir := t.TempDir()
	ca := testpki.NewCA(t)
	file := filepath.Join(t.TempDir(), "partner.pem")
	if err := os.WriteFile(file, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	p := startConfigured(t, dir, o.url, "")
	if _, stderr, code := sekisho(t, "", "trust", "add", "partner", file, "--host", "localhost", "--data", dir); code != exitOK {
		t.Fatal(stderr)
	}
	if status, body := p.get(p.client(ca.Client("first").TLS()), "/hello"); status != http.StatusOK {
		t.Errorf("after the command: %d %s\n%s", status, body, p.log)
	}
	p.kill()
	p = startConfigured(t, dir, o.url, "")
	if status, body := p.get(p.client(ca.Client("device").TLS()), "/hello"); status != http.StatusOK {
		t.Errorf("after a restart: %d %s\n%s", status, body, p.log)
	}
	p.stop()
}
