package main

import (
	"net/http"
	"strings"
	"testing"
)

// TestUntrustOnARunningServer: the clients of a CA that was imported are refused when untrust returns, one that is connected
// too, also after a restart, and let in when trust returns. The CA in force is refused.
func TestUntrustOnARunningServer(t *testing.T) {
	p := startDev(t, t.TempDir())
	f := newForeignCA(t)
	p.command("ca", "import", "--cert", f.path("ca.pem"), "--key", f.path("ca-key.pem"), "--key-passphrase-file", f.path("pass"), "--name", "partner")
	good := f.pair("good")
	live := p.oneConnection(good)
	if fresh, open := p.status(good), live.get(); fresh != http.StatusOK || open != http.StatusOK {
		t.Fatalf("before: %d, %d", fresh, open)
	}
	if out := p.command("ca", "untrust", "partner"); !strings.Contains(out, "issuing, imported, not trusted") {
		t.Errorf("ca untrust: %s", out)
	}
	if got := p.status(good); got != http.StatusForbidden {
		t.Errorf("a client of a CA that is not trusted: %d", got)
	}
	if _, err := live.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection of its client lives on")
	}
	if out := p.command("ca", "show"); !strings.Contains(out, "issuing, imported, not trusted") {
		t.Errorf("ca show: %s", out)
	}
	if _, errs, code := sekisho(t, "", "ca", "untrust", "active", "--data", p.dir); code != exitRefused || !strings.Contains(errs, "sekisho ca rotate") {
		t.Errorf("the CA in force: %d %s", code, errs)
	}
	if status, _ := p.api("PUT", "/sekisho/ca/partner/trust", map[string]any{}); status != http.StatusBadRequest {
		t.Errorf("a body that does not say: %d", status)
	}
	p.stop()
	p = startDev(t, p.dir)
	if got := p.status(good); got != http.StatusForbidden {
		t.Errorf("after a restart: %d", got)
	}
	if out := p.command("ca", "trust", "partner"); !strings.Contains(out, "issuing, imported, trusted") {
		t.Errorf("ca trust: %s", out)
	}
	if got := p.status(good); got != http.StatusOK {
		t.Errorf("trusted again: %d", got)
	}
	p.stop()
	p.command("ca", "untrust", "partner")
	p = startDev(t, p.dir)
	if got := p.status(good); got != http.StatusForbidden {
		t.Errorf("untrusted while no server ran: %d", got)
	}
}
