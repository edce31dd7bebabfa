package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// TestInvariant01OtherPrograms lets the programs of other people judge certificates of ours by our list and our
// responder: all of them good; then one revoked and two on hold; then one of the two reactivated. Each program must accept
// and refuse in each of the last two rounds, and say of what it refuses that it was revoked.
func TestInvariant01OtherPrograms(t *testing.T) {
	f := newForeigners(t)
	programs := foreignPrograms()
	for _, round := range []struct {
		name    string
		change  func()
		refused []string
	}{
		{"all good", func() {}, nil},
		{"revoked and on hold", func() {
			f.change("DELETE", "revoked", "?reason=superseded")
			f.change("DELETE", "held", "")
			f.change("DELETE", "reactivated", "")
		}, []string{"revoked", "held", "reactivated"}},
		{"one reactivated", func() { f.change("PATCH", "reactivated", "") }, []string{"revoked", "held"}},
	} {
		round.change()
		f.refused = make(map[string]bool)
		for _, who := range round.refused {
			f.refused[who] = true
		}
		f.fetchLists()
		for _, program := range programs {
			t.Run(round.name+"/"+program.name, func(t *testing.T) {
				r := &foreignRound{foreigners: f, t: t, dir: t.TempDir()}
				judge := program.open(r)
				for _, who := range foreignNames() {
					said, accepted := judge(who)
					switch refused := f.refused[who]; {
					case accepted == refused:
						t.Errorf("%s: %s accepts it: %v\n%s", who, program.name, accepted, said)
					case refused && !strings.Contains(strings.ToLower(said), "revoked"):
						t.Errorf("%s: %s refuses it, but not for being revoked:\n%s", who, program.name, said)
					}
				}
			})
		}
	}
	f.p.stop()
}

// foreignNames are the certificates by what becomes of them; there is a client's and a server's of each.
func foreignNames() []string { return []string{"untouched", "revoked", "held", "reactivated"} }

// foreigners is what the programs of other people are given: files, servers with our certificates, and the address of
// our responder.
type foreigners struct {
	t       *testing.T
	p       *process
	dir     string
	cas     map[string]caView // root and issuing
	ids     map[string]string // by kind and name: client-held
	serials map[string]string
	servers map[string]string // HOST:PORT of a server by the name of its certificate
	refused map[string]bool   // now
}

func newForeigners(t *testing.T) *foreigners {
	f := &foreigners{
		t: t, p: startDev(t, t.TempDir()), dir: t.TempDir(), ids: make(map[string]string), serials: make(map[string]string),
		servers: make(map[string]string),
	}
	f.cas = f.p.authorities()
	root, issuing := f.cas["root"].Certificate, f.cas["issuing"].Certificate
	f.write("root.pem", root)
	f.write("issuing.pem", issuing)
	f.write("all.pem", issuing+root)
	for _, who := range foreignNames() {
		f.issue("client", who)
		pair := f.issue("server", who)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "let in\n") }))
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // clients that refuse are no errors here
		server.StartTLS()
		t.Cleanup(server.Close)
		f.servers[who] = server.Listener.Addr().String()
	}
	return f
}

// authorities are the CAs by their names.
func (p *process) authorities() map[string]caView {
	p.t.Helper()
	status, env := p.api("GET", "/sekisho/ca", nil)
	var views []caView
	if err := json.Unmarshal(env.Result, &views); err != nil || status != http.StatusOK {
		p.t.Fatalf("list the CAs: %d %+v %v", status, env.Errors, err)
	}
	cas := make(map[string]caView)
	for _, v := range views {
		cas[v.Name] = v
	}
	return cas
}

// issue makes a certificate and its files: NAME.pem, NAME-chain.pem, NAME-key.pem and, for HAProxy, NAME-all.pem.
func (f *foreigners) issue(profile, who string) tls.Certificate {
	f.t.Helper()
	name := profile + "-" + who
	csr, key, err := makeCSR(issueFlags{subject: "CN=" + name, keyType: "ecdsa-p256", dns: []string{"localhost"}, ips: []string{"127.0.0.1"}})
	if err != nil {
		f.t.Fatal(err)
	}
	status, env := f.p.api("POST", f.p.certificates(), map[string]any{"csr": string(csr), "validity_days": 30, "profile": profile})
	var c clientCertificate
	if err := json.Unmarshal(env.Result, &c); err != nil || status != http.StatusOK {
		f.t.Fatalf("issue %s: %d %+v %v", name, status, env.Errors, err)
	}
	keyPEM, err := pkix.EncodePrivateKey(key)
	if err != nil {
		f.t.Fatal(err)
	}
	chain := c.Certificate + f.cas["issuing"].Certificate
	f.ids[name], f.serials[name] = c.ID, c.Serial
	f.write(name+".pem", c.Certificate)
	f.write(name+"-chain.pem", chain)
	f.write(name+"-key.pem", string(keyPEM))
	f.write(name+"-all.pem", chain+string(keyPEM))
	return keyPair(f.t, []byte(chain), key)
}

// change sends DELETE or PATCH for the client's and the server's certificate of a name.
func (f *foreigners) change(method, who, query string) {
	f.t.Helper()
	for _, profile := range []string{"client-", "server-"} {
		if status, env := f.p.api(method, f.p.certificates()+"/"+f.ids[profile+who]+query, nil); status != http.StatusOK {
			f.t.Fatalf("%s %s%s: %d %+v", method, profile, who, status, env.Errors)
		}
	}
}

// fetchLists writes issuing.crl and root.crl, in PEM too, and both of them in lists.pem, once the issuing CA's list says
// what is so.
func (f *foreigners) fetchLists() {
	f.t.Helper()
	waitUntil(f.t, "the list of the issuing CA tells of every change", func() bool {
		f.write("issuing.crl", string(f.list("issuing")))
		list, err := x509.ParseRevocationList(f.read("issuing.crl"))
		if err != nil {
			f.t.Fatal(err)
		}
		return len(list.RevokedCertificateEntries) == 2*len(f.refused)
	})
	f.write("root.crl", string(f.list("root")))
	var both strings.Builder
	for _, name := range []string{"issuing", "root"} {
		text := string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: f.read(name + ".crl")}))
		f.write(name+"-crl.pem", text)
		both.WriteString(text)
	}
	f.write("lists.pem", both.String())
}

// list fetches a CA's list for clients that know one list for each CA.
func (f *foreigners) list(name string) []byte {
	f.t.Helper()
	der, err := fetch(f.p.ready.PKI + "/crl/" + f.cas[name].ID + ".crl")
	if err != nil {
		f.t.Fatalf("CRL of the %s CA: %v\n%s", name, err, f.p.log)
	}
	return der
}

// fetch gets what is at a URL.
func fetch(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

func (f *foreigners) path(name string) string { return filepath.Join(f.dir, name) }

func (f *foreigners) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *foreigners) read(name string) []byte {
	f.t.Helper()
	data, err := os.ReadFile(f.path(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// foreignRound is one program's turn.
type foreignRound struct {
	*foreigners
	t   *testing.T
	dir string // for files of its own
}

// run runs a program to its end, a minute at most, and returns what it printed and whether its exit code was 0.
func (r *foreignRound) run(name string, args ...string) (said string, ok bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, installed(r.t, name), args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		r.t.Fatalf("%s %s did not end within a minute\n%s", name, strings.Join(args, " "), out)
	}
	return name + " " + strings.Join(args, " ") + "\n" + string(out), err == nil
}

// must is run for what has to work.
func (r *foreignRound) must(name string, args ...string) string {
	r.t.Helper()
	said, ok := r.run(name, args...)
	if !ok {
		r.t.Fatal(said)
	}
	return said
}

// installed finds a program, also where Debian has servers.
func installed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf("%s is not installed; make test-tools installs it", name)
	}
	return path
}

// foreignProgram is one program of somebody else. open prepares it with the files as they are now; the func that it
// returns has it judge one certificate.
type foreignProgram struct {
	name string
	open func(r *foreignRound) func(who string) (said string, accepted bool)
}

func foreignPrograms() []foreignProgram {
	return []foreignProgram{
		{"nginx", (*foreignRound).nginx},
		{"HAProxy", (*foreignRound).haproxy},
		{"curl", (*foreignRound).curl},
		{"openssl s_client", (*foreignRound).sClient},
		{"openssl verify", (*foreignRound).opensslVerify},
		{"gnutls-cli", (*foreignRound).gnutlsCLI},
		{"certtool", (*foreignRound).certtool},
		{"NSS", (*foreignRound).nss},
		{"openssl ocsp", (*foreignRound).opensslOCSP},
		{"ocsptool", (*foreignRound).ocsptool},
	}
}
