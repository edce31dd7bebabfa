package main

import (
	"bufio"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/pkix"
)

// oneConnection is a connection to the edge that is used for one request after the other.
type oneConnection struct {
	t    *testing.T
	conn *tls.Conn
	in   *bufio.Reader
}

func (p *process) oneConnection(pair tls.Certificate) *oneConnection {
	p.t.Helper()
	conn, err := tls.Dial("tcp", p.edgeAddress(), p.tlsConfig(pair))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return &oneConnection{p.t, conn, bufio.NewReader(conn)}
}

// get asks on the connection, which must still be there.
func (c *oneConnection) get() int {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatalf("the connection was cut: %v", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode
}

// keyText is the key of a pair in PEM.
func keyText(t *testing.T, pair tls.Certificate) []byte {
	t.Helper()
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatalf("a key of type %T", pair.PrivateKey)
	}
	text, err := pkix.EncodePrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// rootNow is /ca.pem's certificate in force, as a file.
func (p *process) rootNow(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(p.ready.CA)
	if err != nil {
		p.t.Fatal(err)
	}
	certs, err := pkix.ParseCertificates(data)
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.t.TempDir(), name)
	if err := os.WriteFile(path, pkix.EncodeCertificate(certs[0].Raw), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// TestRotateLocksNobodyOut rotates twice on a running server, the second time with a new root. Connections that are open go
// on; old and new clients come in, by curl and by openssl, whichever root they trust; revoking one of the old cuts it.
func TestRotateLocksNobodyOut(t *testing.T) {
	p := startDev(t, t.TempDir())
	oldRoot := p.rootNow("old.pem")
	oldPair, oldID := p.issue("old")
	live := p.oneConnection(oldPair)
	if got := live.get(); got != http.StatusOK {
		t.Fatalf("before: %d", got)
	}
	data := []string{"--data", p.dir}
	run := func(args ...string) string {
		t.Helper()
		out, errs, code := sekisho(t, "", append(args, data...)...)
		if code != 0 {
			t.Fatalf("sekisho %s: %d\n%s%s", strings.Join(args, " "), code, out, errs)
		}
		return out
	}
	if out := run("ca", "rotate", "--dry-run"); !strings.Contains(out, "would be retired") || strings.Contains(run("ca", "show"), "G2") {
		t.Errorf("the dry run: %s", out)
	}
	run("ca", "rotate")
	newPair, _ := p.issue("new")
	both := map[string]tls.Certificate{"old": oldPair, "new": newPair}
	for name, pair := range both {
		if status, body := p.get(p.client(pair), "/hello"); status != http.StatusOK {
			t.Errorf("%s client after the rotation: %d %s", name, status, body)
		}
	}
	lived := p.oneConnection(newPair)
	run("ca", "rotate", "--root", "--key-type", "ecdsa-p384")
	newRoot := p.rootNow("new.pem")
	both["newest"], _ = p.issue("newest")
	waitUntil(t, "the edge has a certificate of the new CA", func() bool { return p.servedIssuer() == "sekisho Issuing CA G3" })
	for rootName, root := range map[string]string{"old": oldRoot, "new": newRoot, "both": p.ready.CA} {
		for name, pair := range both {
			p.curlAndOpenSSL(fmt.Sprintf("%s client, %s root", name, rootName), root, pair)
		}
	}
	if live.get() != http.StatusOK || lived.get() != http.StatusOK {
		t.Error("a live connection was refused")
	}
	if status, env := p.api("DELETE", p.certificates()+"/"+oldID+"?reason=superseded", nil); status != http.StatusOK {
		t.Fatalf("revoke: %d %+v", status, env.Errors)
	}
	if status, _ := p.get(p.client(oldPair), "/hello"); status != http.StatusForbidden {
		t.Errorf("a revoked client of the old CA: %d", status)
	}
	if pem := run("ca", "show", "--pem"); strings.Count(pem, "BEGIN CERTIFICATE") != 7 { // two roots, three issuing CAs, two cross certificates
		t.Errorf("ca show --pem: %d certificates", strings.Count(pem, "BEGIN CERTIFICATE"))
	}
	p.fetchesExtra(run("ca", "show", "--json"))
	before := p.servedIssuer()
	p.stop()
	p = startDev(t, p.dir)
	if after := p.servedIssuer(); after != before {
		t.Errorf("after a restart the edge's certificate is of %s, not %s", after, before)
	}
	if status, body := p.get(p.client(newPair), "/hello"); status != http.StatusOK {
		t.Errorf("after a restart: %d %s", status, body)
	}
}

// servedIssuer is the CA of the certificate that the edge shows.
func (p *process) servedIssuer() string {
	p.t.Helper()
	conn, err := tls.Dial("tcp", p.edgeAddress(), p.tlsConfig())
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Issuer.CommonName
}

// curlAndOpenSSL has both let in with a client certificate while they trust one file of roots.
func (p *process) curlAndOpenSSL(what, root string, pair tls.Certificate) {
	p.t.Helper()
	dir := p.t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := os.WriteFile(cert, pkix.EncodeCertificate(pair.Certificate[0]), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(key, keyText(p.t, pair), 0o600); err != nil {
		p.t.Fatal(err)
	}
	out, err := exec.Command("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", root, "--cert", cert, "--key", key, p.ready.Edge+"/hello").CombinedOutput()
	if err != nil || string(out) != "200" {
		p.t.Errorf("%s: curl: %s %v", what, out, err)
	}
	cmd := exec.Command("openssl", "s_client", "-connect", p.edgeAddress(), "-servername", "localhost", "-CAfile", root, "-cert", cert, "-key", key, "-verify_return_error", "-quiet", "-ign_eof")
	cmd.Stdin = strings.NewReader("GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	out, err = cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "200 OK") {
		p.t.Errorf("%s: openssl: %v\n%s", what, err, out)
	}
}

// fetchesExtra gets every cross certificate from where ca show says that it is.
func (p *process) fetchesExtra(shown string) {
	p.t.Helper()
	var cas []caView
	if err := json.Unmarshal([]byte(shown), &cas); err != nil {
		p.t.Fatal(err)
	}
	found := 0
	for _, c := range cas {
		for _, extra := range c.Extra {
			resp, err := http.Get(extra.URL)
			if err != nil {
				p.t.Fatal(err)
			}
			der, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(pkix.EncodeCertificate(der)) != extra.Certificate {
				p.t.Errorf("%s: %s, another certificate or none (%v)", extra.URL, resp.Status, err)
			}
			found++
		}
	}
	if found != 2 {
		p.t.Errorf("%d cross certificates, want 2", found)
	}
}
