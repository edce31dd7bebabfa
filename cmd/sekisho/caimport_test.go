package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// foreignCA is a CA that openssl made, with a client and a CRL, in one directory.
type foreignCA struct {
	t   *testing.T
	dir string
}

func newForeignCA(t *testing.T) *foreignCA {
	t.Helper()
	f := &foreignCA{t, t.TempDir()}
	f.openssl("req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:sesame", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "3650",
		"-subj", "/O=Partner/CN=Partner CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
	f.write("pass", "sesame\n")
	for name, serial := range map[string]string{"good": "0x0A", "gone": "0x0B", "ocsp": "0x0C"} {
		f.sign(name, serial)
	}
	f.crl("10", "0B")
	return f
}

func (f *foreignCA) path(name string) string { return filepath.Join(f.dir, name) }

func (f *foreignCA) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// openssl runs in the directory of the CA.
func (f *foreignCA) openssl(args ...string) {
	f.t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = f.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// sign makes NAME.pem and NAME-key.pem.
func (f *foreignCA) sign(name, serial string) {
	f.t.Helper()
	f.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+"-key.pem", "-out", name+".csr", "-subj", "/O=Partner/CN="+name)
	f.write(name+".ext", map[bool]string{true: "extendedKeyUsage=OCSPSigning", false: "extendedKeyUsage=clientAuth"}[name == "ocsp"])
	f.openssl("x509", "-req", "-in", name+".csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-passin", "pass:sesame", "-set_serial", serial, "-days", "90",
		"-extfile", name+".ext", "-out", name+".pem")
}

// crl makes ca.crl.
func (f *foreignCA) crl(number string, serials ...string) {
	f.t.Helper()
	var index strings.Builder
	for _, s := range serials {
		fmt.Fprintf(&index, "R\t361231235959Z\t260101000000Z,superseded\t%s\tunknown\t/CN=x\n", s)
	}
	f.write("index.txt", index.String())
	f.write("number", number+"\n")
	f.write("crl.cnf", "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=30\n")
	f.openssl("ca", "-gencrl", "-config", "crl.cnf", "-keyfile", "ca-key.pem", "-passin", "pass:sesame", "-cert", "ca.pem", "-out", "ca.crl")
}

func (f *foreignCA) pair(name string) tls.Certificate {
	f.t.Helper()
	pair, err := tls.LoadX509KeyPair(f.path(name+".pem"), f.path(name+"-key.pem"))
	if err != nil {
		f.t.Fatal(err)
	}
	return pair
}

// command runs sekisho on the data directory and must succeed.
func (p *process) command(args ...string) string {
	p.t.Helper()
	out, errs, code := sekisho(p.t, "", append(args, "--data", p.dir)...)
	if code != 0 {
		p.t.Fatalf("sekisho %s: %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// status is what a client is answered.
func (p *process) status(pair tls.Certificate) int {
	p.t.Helper()
	status, _ := p.get(p.client(pair), "/hello")
	return status
}

// TestImportCAOnARunningServer: the clients of an imported CA come in at once, those that its CRL has revoked do not, and
// revoking one by command cuts its connection. Nothing of its key shows.
func TestImportCAOnARunningServer(t *testing.T) {
	p := startDev(t, t.TempDir())
	f := newForeignCA(t)
	if got := p.status(f.pair("good")); got != http.StatusForbidden {
		t.Fatalf("before the import: %d", got)
	}
	out := p.command("ca", "import", "--cert", f.path("ca.pem"), "--key", f.path("ca-key.pem"), "--key-passphrase-file", f.path("pass"), "--crl", f.path("ca.crl"), "--name", "partner")
	if !strings.Contains(out, "1 revoked by its CRL") || !strings.Contains(out, "issuing, issuing, imported, trusted") {
		t.Errorf("ca import: %s", out)
	}
	if got := p.status(f.pair("good")); got != http.StatusOK {
		t.Errorf("a client of the imported CA: %d", got)
	}
	if got := p.status(f.pair("gone")); got != http.StatusForbidden {
		t.Errorf("a client that the CRL has revoked: %d", got)
	}
	live := p.oneConnection(f.pair("good"))
	if got := live.get(); got != http.StatusOK {
		t.Fatal(got)
	}
	out = p.command("cert", "import", f.path("good.pem"), f.path("gone.pem"), "--ca", "partner")
	if !strings.Contains(out, "imported") || !strings.Contains(out, "completed") {
		t.Errorf("cert import: %s", out)
	}
	p.command("cert", "revoke", "good", "--reason", "superseded")
	if _, err := live.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection of a revoked client of the imported CA lives on")
	}
	if got := p.status(f.pair("good")); got != http.StatusForbidden {
		t.Errorf("revoked: %d", got)
	}
	base := filepath.Join(t.TempDir(), "fresh")
	p.command("cert", "issue", "--ca", "partner", "--subject", "CN=fresh", "--out", base)
	pair, err := tls.LoadX509KeyPair(base+".pem", base+"-key.pem")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.status(pair); got != http.StatusOK || pair.Leaf.Issuer.CommonName != "Partner CA" {
		t.Errorf("issued by the imported CA: %d, of %s", got, pair.Leaf.Issuer)
	}
	out, errs, code := sekisho(t, "", "ca", "import", "--cert", f.path("ca.pem"), "--key", f.path("ca-key.pem"), "--key-passphrase-file", f.path("pass"), "--data", p.dir)
	if code != exitRefused || !strings.Contains(errs, "here already, as partner") {
		t.Errorf("again: %d %s%s", code, out, errs)
	}
	if _, errs, code := sekisho(t, "", "ca", "import", "--cert", f.path("ca.pem"), "--key", f.path("ca-key.pem"), "--data", p.dir, "--name", "x"); code == exitOK || strings.Contains(errs, "PRIVATE KEY-----") {
		t.Errorf("without the passphrase: %d %s", code, errs)
	}
	if text := p.log.String() + p.command("audit", "list", "--json"); strings.Contains(text, "PRIVATE KEY-----") || strings.Contains(text, "sesame") {
		t.Error("a key or its passphrase is in the log or the audit log")
	}
	p.stop()
	p = startDev(t, p.dir)
	for what, test := range map[string]struct {
		pair tls.Certificate
		want int
	}{"fresh": {pair, http.StatusOK}, "good, revoked": {f.pair("good"), http.StatusForbidden}, "gone": {f.pair("gone"), http.StatusForbidden}} {
		if got := p.status(test.pair); got != test.want {
			t.Errorf("after a restart, %s: %d", what, got)
		}
	}
}

// TestImportCAWithoutItsKey: imported into a directory that no server has, not trusted and trusted; a newer CRL is in force
// when its command returns.
func TestImportCAWithoutItsKey(t *testing.T) {
	dir := t.TempDir()
	f, other := newForeignCA(t), newForeignCA(t)
	if out, errs, code := sekisho(t, "", "ca", "init", "--data", dir); code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
	pass := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	offline := func(more ...string) {
		t.Helper()
		if out, errs, code := sekisho(t, "", append([]string{"ca", "import", "--data", dir}, more...)...); code != 0 {
			t.Fatalf("%s%s", out, errs)
		}
	}
	offline("--cert", f.path("ca.pem"), "--ocsp-cert", f.path("ocsp.pem"), "--ocsp-key", f.path("ocsp-key.pem"), "--crl", f.path("ca.crl"), "--name", "partner")
	offline("--cert", other.path("ca.pem"), "--key", other.path("ca-key.pem"), "--key-passphrase-file", pass, "--trust=false")
	p := startDev(t, dir)
	if got := p.status(other.pair("good")); got != http.StatusForbidden {
		t.Errorf("a client of a CA that is not trusted: %d", got)
	}
	live := p.oneConnection(f.pair("good"))
	if got := live.get(); got != http.StatusOK {
		t.Fatalf("a client of a CA whose key is elsewhere: %d", got)
	}
	f.crl("11", "0A", "0B")
	if out := p.command("ca", "import-crl", "partner", f.path("ca.crl")); !strings.Contains(out, "1 newly revoked") {
		t.Errorf("ca import-crl: %s", out)
	}
	if _, err := live.conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lives on")
	}
	if got := p.status(f.pair("good")); got != http.StatusForbidden {
		t.Errorf("after the new CRL: %d", got)
	}
	if _, errs, code := sekisho(t, "", "ca", "import-crl", "partner", f.path("ca.crl"), "--data", dir); code != exitRefused || !strings.Contains(errs, "not newer") {
		t.Errorf("the same CRL: %d %s", code, errs)
	}
	if _, errs, code := sekisho(t, "", "ca", "crl", "--ca", "partner", "--data", dir); code == exitOK || !strings.Contains(errs, "is elsewhere, and so are its CRLs") {
		t.Errorf("a CRL of it: %d %s", code, errs)
	}
	out, err := exec.Command("openssl", "ocsp", "-issuer", f.path("ca.pem"), "-cert", f.path("good.pem"), "-url", p.ready.PKI+"/ocsp", "-CAfile", f.path("ca.pem")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "good.pem: revoked") {
		t.Errorf("openssl ocsp: %v\n%s", err, out)
	}
	f.sign("ocsp", "0x0D")
	if out := p.command("ca", "ocsp-signer", "partner", "--ocsp-cert", f.path("ocsp.pem"), "--ocsp-key", f.path("ocsp-key.pem")); !strings.Contains(out, "signer made elsewhere") {
		t.Errorf("ca ocsp-signer: %s", out)
	}
}

// TestSeveralCAs: what names a CA or a certificate means the same whatever CAs there are. Without --ca the list is of the CA
// in force; two CAs may have one serial number; of several files those before a bad one are reported.
func TestSeveralCAs(t *testing.T) {
	dir := t.TempDir()
	if _, code := offline(t, "ca", "init", "--data", dir); code != exitOK {
		t.Fatal("no CA")
	}
	var files []string
	pass := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte("sesame"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		f := newForeignCA(t)
		f.write("empty.crl", "")
		if _, errs, code := sekisho(t, "", "ca", "import", "--data", dir, "--cert", f.path("ca.pem"), "--key", f.path("ca-key.pem"), "--key-passphrase-file", pass,
			"--crl", f.path("empty.crl")); code != exitUsage || !strings.Contains(errs, "empty.crl is empty") {
			t.Errorf("a CRL that is empty: %d %s", code, errs)
		}
		if _, code := offline(t, "ca", "import", "--data", dir, "--cert", f.path("ca.pem"), "--key", f.path("ca-key.pem"), "--key-passphrase-file", pass, "--name", name); code != exitOK {
			t.Fatal(name)
		}
		files = append(files, f.path("good.pem"), f.path("ca.pem"))
	}
	out, code := offline(t, "cert", "import", "--data", dir, files[0], files[2], files[3])
	if code == exitOK || strings.Count(out, "imported") != 2 {
		t.Errorf("two certificates and a CA: %d\n%s", code, out)
	}
	_, errs, code := sekisho(t, "", "cert", "show", "0A", "--data", dir)
	if code == exitOK || !strings.Contains(errs, "2 certificates have the serial number 0A") || !strings.Contains(errs, "name one by its id: ") {
		t.Errorf("a serial number of two: %d %s", code, errs)
	}
	if out, code := offline(t, "ca", "rotate", "--data", dir); code != exitOK {
		t.Fatal(out)
	}
	text, code := offline(t, "ca", "crl", "--data", dir)
	block, _ := pem.Decode([]byte(text))
	if code != exitOK || block == nil {
		t.Fatalf("%d %s", code, text)
	}
	if list, err := x509.ParseRevocationList(block.Bytes); err != nil || list.Issuer.CommonName != "sekisho Issuing CA G2" {
		t.Errorf("the list is of %s, %v", list.Issuer, err)
	}
	if out, code := offline(t, "cert", "list", "--ca", "active", "--data", dir); code != exitOK {
		t.Errorf("those of the CA in force: %s", out)
	}
}
