package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/pkix"
	"sekisho/internal/verify"
)

// amazonFile names a file of Amazon's demonstration certificates, which are beside the repository or where SEKISHO_DATA says.
func amazonFile(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("SEKISHO_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	file := filepath.Join(dir, "crl", "amazon", name)
	if _, err := os.Stat(file); err != nil {
		t.Skipf("the certificates and CRLs of Amazon are not here; set SEKISHO_DATA: %v", err)
	}
	return file
}

// amazonAt is inside the thisUpdate and nextUpdate of every CRL of the data.
const amazonAt = "2025-02-23T12:00:00Z"

func TestCertVerifyAmazon(t *testing.T) {
	const revoked, expired = "revoked.rootca1.demo.amazontrust.com.cer", "expired.rootca1.demo.amazontrust.com.cer"
	for _, tt := range []struct {
		name, leaf, at string
		intermediates  []string
		crls           []string
		reason         identity.Reason
		text           string // part of it
		revocation     string
		path           int
	}{
		{"revoked", revoked, amazonAt, []string{"r2m02.cer"}, []string{"r2m02.crl", "rootca1.crl"}, identity.Revoked, "revoked at 2024-04-01T21:19:02Z", "revoked", 3},
		{"revoked, CRLs the other way round", revoked, amazonAt, []string{"r2m02.cer"}, []string{"rootca1.crl", "r2m02.crl"}, identity.Revoked, "r2m02.crl", "revoked", 3},
		{"revoked, CRL expired", revoked, "2025-03-05T12:00:00Z", []string{"r2m02.cer"}, []string{"r2m02.crl", "rootca1.crl"}, identity.Revoked, "revoked at 2024-04-01", "revoked", 3},
		{"revoked, its CRL not given", revoked, amazonAt, []string{"r2m02.cer"}, []string{"rootca1.crl"}, identity.OK, "", "unchecked", 3},
		{"expired", expired, amazonAt, []string{"r2m02.cer"}, []string{"r2m02.crl", "rootca1.crl"}, identity.Expired, "expired at 2024-03-14T23:59:59Z", "", 0},
		{"expired, while it was not", expired, "2024-03-14T12:00:00Z", []string{"r2m02.cer"}, nil, identity.OK, "", "unchecked", 3},
		{"expired, before it was valid", expired, "2024-03-12T12:00:00Z", []string{"r2m02.cer"}, nil, identity.NotYetValid, "2024-03-13", "", 0},
		{"other intermediates", revoked, amazonAt, []string{"r2m01.cer", "r4m01.cer", "e2m02.cer"}, []string{"rootca1.crl"}, identity.Untrusted, "no trusted CA issued it", "", 0},
		{"issuing CA", "r2m02.cer", amazonAt, nil, []string{"rootca1.crl"}, identity.OK, "", "good", 2},
		{"another issuing CA", "r2m01.cer", amazonAt, nil, []string{"rootca1.crl"}, identity.OK, "", "good", 2},
		{"issuing CA, CRL expired", "r2m02.cer", "2025-12-16T12:00:00Z", nil, []string{"rootca1.crl"}, identity.RevocationUnknown, "no source says", "unknown", 2},
		{"issuing CA, CRL of the future", "r2m02.cer", "2024-12-17T12:00:00Z", nil, []string{"rootca1.crl"}, identity.RevocationUnknown, "no source says", "unknown", 2},
		{"issuing CA of another root", "r4m01.cer", amazonAt, nil, []string{"rootca1.crl"}, identity.Untrusted, "no trusted CA issued it", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{amazonFile(t, tt.leaf), "--roots", amazonFile(t, "AmazonRootCA1.cer"), "--at", tt.at, "--purpose", "server"}
			for _, name := range tt.intermediates {
				args = append(args, "--intermediates", amazonFile(t, name))
			}
			for _, name := range tt.crls {
				args = append(args, "--crls", amazonFile(t, name))
			}
			x := certVerify(t, tt.reason, args...)
			if !strings.Contains(x.Text, tt.text) || tt.text == "" && x.Text != "" {
				t.Errorf("the text is %q, want %q in it", x.Text, tt.text)
			}
			if x.Revocation != tt.revocation || len(x.Path) != tt.path {
				t.Errorf("revocation %q with a path of %d, want %q and %d", x.Revocation, len(x.Path), tt.revocation, tt.path)
			}
			if at := x.At.Format(time.RFC3339); at != tt.at {
				t.Errorf("judged as of %s, want %s", at, tt.at)
			}
		})
	}
}

// certVerify runs `cert verify --json` and demands the reason, and the decision and exit code that go with it.
func certVerify(t *testing.T, want identity.Reason, args ...string) verify.Explanation {
	t.Helper()
	decision, exit := "refused", exitRefused
	if want == identity.OK {
		decision, exit = "valid", exitOK
	}
	stdout, stderr, code := sekisho(t, "", append([]string{"cert", "verify", "--json"}, args...)...)
	var x verify.Explanation
	if err := json.Unmarshal([]byte(stdout), &x); err != nil {
		t.Fatalf("exit code %d, no JSON: %v\n%s%s", code, err, stdout, stderr)
	}
	if code != exit || x.Decision != decision || x.Reason != want {
		t.Fatalf("exit code %d, %s %q, want %d, %s %q\n%s%s", code, x.Decision, x.Reason, exit, decision, want, stdout, stderr)
	}
	if told := "error: " + args[0] + ": " + string(want) + ": "; want == identity.OK && stderr != "" || want != identity.OK && !strings.HasPrefix(stderr, told) {
		t.Errorf("standard error is %q", stderr)
	}
	return x
}

// opensslCA is a CA that openssl keeps in a directory, with the client certificates good and bad, of which bad is revoked.
type opensslCA struct {
	t   *testing.T
	dir string
}

const opensslCAConfig = `
[ca]
default_ca = this
[this]
dir = %s
database = $dir/index.txt
serial = $dir/serial
crlnumber = $dir/crlnumber
new_certs_dir = $dir
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
policy = any
[any]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:good.example.com
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign,digitalSignature
[req]
distinguished_name = name
[name]
`

func newOpensslCA(t *testing.T, name string) *opensslCA {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skipf("openssl is not here: %v", err)
	}
	ca := &opensslCA{t, t.TempDir()}
	for file, content := range map[string]string{"openssl.cnf": fmt.Sprintf(opensslCAConfig, ca.dir), "index.txt": "", "serial": "1000\n", "crlnumber": "01\n"} {
		ca.write(file, []byte(content))
	}
	ca.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", ca.file("openssl.cnf"), "-extensions", "root",
		"-subj", "/CN="+name, "-days", "365", "-keyout", ca.file("ca.key"), "-out", ca.file("ca.pem"))
	for _, leaf := range []string{"good", "bad"} {
		ca.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", ca.file("openssl.cnf"),
			"-subj", "/CN="+leaf, "-keyout", ca.file(leaf+".key"), "-out", ca.file(leaf+".csr"))
		ca.ca("-batch", "-notext", "-extensions", "leaf", "-days", "90", "-in", ca.file(leaf+".csr"), "-out", ca.file(leaf+".pem"))
	}
	ca.ca("-revoke", ca.file("bad.pem"), "-crl_reason", "keyCompromise")
	return ca
}

func (ca *opensslCA) file(name string) string { return filepath.Join(ca.dir, name) }

func (ca *opensslCA) write(name string, data []byte) string {
	ca.t.Helper()
	if err := os.WriteFile(ca.file(name), data, 0o600); err != nil {
		ca.t.Fatal(err)
	}
	return ca.file(name)
}

func (ca *opensslCA) read(path string) []byte {
	ca.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		ca.t.Fatal(err)
	}
	return data
}

func (ca *opensslCA) openssl(args ...string) {
	ca.t.Helper()
	if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
		ca.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (ca *opensslCA) ca(args ...string) {
	ca.t.Helper()
	ca.openssl(append([]string{"ca", "-config", ca.file("openssl.cnf")}, args...)...)
}

// crl makes a CRL that ends a while from now, in DER.
func (ca *opensslCA) crl(name string, ends time.Duration) string {
	ca.t.Helper()
	stamp := func(d time.Duration) string { return time.Now().Add(d).UTC().Format("20060102150405Z") }
	ca.ca("-gencrl", "-crl_lastupdate", stamp(-48*time.Hour), "-crl_nextupdate", stamp(ends), "-out", ca.file(name+".pem"))
	ca.openssl("crl", "-in", ca.file(name+".pem"), "-outform", "DER", "-out", ca.file(name))
	return ca.file(name)
}

// ocsp makes an OCSP answer about a leaf as the CA's index has it, without certificates, so that it ends in its signature.
func (ca *opensslCA) ocsp(leaf string) string {
	ca.t.Helper()
	ca.openssl("ocsp", "-issuer", ca.file("ca.pem"), "-cert", ca.file(leaf+".pem"), "-no_nonce", "-reqout", ca.file(leaf+".req"))
	ca.openssl("ocsp", "-index", ca.file("index.txt"), "-CA", ca.file("ca.pem"), "-rsigner", ca.file("ca.pem"), "-rkey", ca.file("ca.key"),
		"-ndays", "1", "-resp_no_certs", "-reqin", ca.file(leaf+".req"), "-respout", ca.file(leaf+".ocsp"))
	return ca.file(leaf + ".ocsp")
}

// changed copies a file with its last byte, which is the signature's, flipped.
func (ca *opensslCA) changed(name string) string {
	ca.t.Helper()
	data := ca.read(ca.file(name))
	data[len(data)-1] ^= 1
	return ca.write("changed-"+name, data)
}

// truncated copies the first half of a file.
func (ca *opensslCA) truncated(name string) string {
	ca.t.Helper()
	data := ca.read(ca.file(name))
	return ca.write("truncated-"+name, data[:len(data)/2])
}

func TestCertVerifyJudges(t *testing.T) {
	ca, other := newOpensslCA(t, "Verify CA"), newOpensslCA(t, "Other CA")
	fresh, stale := ca.crl("fresh.crl", 24*time.Hour), ca.crl("stale.crl", -time.Hour)
	foreign := other.crl("foreign.crl", 24*time.Hour)
	good, bad, roots := ca.file("good.pem"), ca.file("bad.pem"), ca.file("ca.pem")
	for _, tt := range []struct {
		name       string
		want       identity.Reason
		revocation string
		args       []string
	}{
		{"no CRL", identity.OK, "unchecked", []string{good}},
		{"good by CRL", identity.OK, "good", []string{good, "--crls", fresh}},
		{"good by CRL in PEM", identity.OK, "good", []string{good, "--crls", fresh + ".pem"}},
		{"revoked by CRL", identity.Revoked, "revoked", []string{bad, "--crls", fresh}},
		{"revoked by CRL in PEM", identity.Revoked, "revoked", []string{bad, "--crls", fresh + ".pem"}},
		{"revoked, softly", identity.Revoked, "revoked", []string{bad, "--crls", fresh, "--soft"}},
		{"revoked by the leaf's CRL", identity.Revoked, "revoked", []string{bad, "--crls", fresh, "--leaf-only"}},
		{"revoked by an expired CRL", identity.Revoked, "revoked", []string{bad, "--crls", stale}},
		{"CRL of another CA", identity.RevocationUnknown, "unknown", []string{good, "--crls", foreign}},
		{"CRL of another CA of the roots", identity.OK, "unchecked", []string{good, "--crls", foreign, "--roots", other.file("ca.pem")}},
		{"CRL of another CA beside its own", identity.OK, "good", []string{good, "--crls", foreign, "--crls", fresh}},
		{"CRL of another CA beside the one that revokes", identity.Revoked, "revoked", []string{bad, "--crls", foreign, "--crls", fresh}},
		{"expired CRL", identity.RevocationUnknown, "unknown", []string{good, "--crls", stale}},
		{"expired CRL, softly", identity.OK, "unknown", []string{good, "--crls", stale, "--soft"}},
		{"expired CRL, in grace", identity.OK, "good", []string{good, "--crls", stale, "--grace", "2h"}},
		{"expired CRL, past grace", identity.RevocationUnknown, "unknown", []string{good, "--crls", stale, "--grace", "30m"}},
		{"good by OCSP", identity.OK, "good", []string{good, "--ocsp", ca.ocsp("good")}},
		{"revoked by OCSP", identity.Revoked, "revoked", []string{bad, "--ocsp", ca.ocsp("bad")}},
		{"revoked by both", identity.Revoked, "revoked", []string{bad, "--crls", fresh, "--ocsp", ca.file("bad.ocsp")}},
		{"good by OCSP beside an expired CRL", identity.OK, "good", []string{good, "--crls", stale, "--ocsp", ca.file("good.ocsp")}},
		{"purpose server", identity.WrongUsage, "", []string{good, "--purpose", "server"}},
		{"purpose any", identity.OK, "unchecked", []string{good, "--purpose", "any"}},
		{"host", identity.OK, "unchecked", []string{good, "--host", "good.example.com"}},
		{"host mismatch", identity.Untrusted, "", []string{good, "--host", "evil.example.com"}},
		{"too deep", identity.TooComplex, "", []string{good, "--max-depth", "1"}},
		{"deep enough", identity.OK, "unchecked", []string{good, "--max-depth", "2"}},
		{"expired", identity.Expired, "", []string{good, "--at", time.Now().AddDate(0, 6, 0).Format(time.RFC3339)}},
		{"not yet valid", identity.NotYetValid, "", []string{good, "--at", "2020-01-01T00:00:00Z"}},
		{"leaf of another CA", identity.Untrusted, "", []string{other.file("good.pem"), "--crls", foreign}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := certVerify(t, tt.want, append(tt.args, "--roots", roots)...)
			if x.Revocation != tt.revocation {
				t.Errorf("revocation %q, want %q", x.Revocation, tt.revocation)
			}
		})
	}
}

func TestCertVerifyJSON(t *testing.T) {
	ca := newOpensslCA(t, "Verify CA")
	crl := ca.crl("fresh.crl", 24*time.Hour)
	x := certVerify(t, identity.Revoked, ca.file("bad.pem"), "--roots", ca.file("ca.pem"), "--crls", crl)
	certs, err := readCertificates([]string{ca.file("bad.pem"), ca.file("ca.pem")})
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Path) != 2 || x.Certificate == nil || x.CA == nil || x.Presented != 1 || len(x.Sources) != 1 {
		t.Fatalf("the explanation lacks something: %+v", x)
	}
	for i, c := range certs {
		if got, want := x.Path[i].Fingerprint, pkix.FingerprintOf(c.Raw).String(); got != want {
			t.Errorf("path %d is %s, want %s", i, got, want)
		}
	}
	if x.Certificate.Subject != "CN=bad" || x.Certificate.Issuer != "CN=Verify CA" || x.Certificate.Serial != "1001" {
		t.Errorf("the certificate is %+v", x.Certificate)
	}
	report := x.Sources[0]
	if report.State != "revoked" || report.DecidedBy != "crl "+crl || report.RevokedAt == nil || !strings.EqualFold(report.Reason, "keyCompromise") {
		t.Errorf("the report is %+v", report)
	}
	if !strings.Contains(x.Text, "revoked at ") || !strings.Contains(x.Text, crl) {
		t.Errorf("the text is %q", x.Text)
	}
}

func TestCertVerifyText(t *testing.T) {
	ca := newOpensslCA(t, "Verify CA")
	for leaf, want := range map[string]struct {
		code int
		line string
	}{"good": {exitOK, "decision     valid\n"}, "bad": {exitRefused, "decision     refused: revoked\n"}} {
		stdout, stderr, code := sekisho(t, "", "cert", "verify", ca.file(leaf+".pem"), "--roots", ca.file("ca.pem"), "--crls", ca.crl("fresh.crl", 24*time.Hour))
		if code != want.code || !strings.HasPrefix(stdout, want.line) || (code == exitOK) != (stderr == "") {
			t.Errorf("%s: exit code %d\n%s%s", leaf, code, stdout, stderr)
		}
	}
}

func TestCertVerifyInput(t *testing.T) {
	ca, namesake, other := newOpensslCA(t, "Verify CA"), newOpensslCA(t, "Verify CA"), newOpensslCA(t, "Other CA")
	fresh := ca.crl("fresh.crl", 24*time.Hour)
	ca.ocsp("good")
	garbage := ca.write("garbage", bytes.Repeat([]byte("no certificate\n"), 10))
	missing := ca.file("missing")
	roots := []string{"--roots", ca.file("ca.pem")}
	for _, tt := range []struct {
		name, want string // want is in standard error
		args       []string
	}{
		{"CRL with a wrong signature", "changed-fresh.crl: the list's signature is wrong", append(roots, "--crls", ca.changed("fresh.crl"))},
		{"CRL by a namesake", "the list's signature is wrong", append(roots, "--crls", namesake.crl("namesake.crl", 24*time.Hour))},
		{"truncated CRL", "truncated-fresh.crl: ", append(roots, "--crls", ca.truncated("fresh.crl"))},
		{"truncated CRL in PEM", "truncated-fresh.crl.pem: ", append(roots, "--crls", ca.truncated("fresh.crl.pem"))},
		{"truncated CRL beside a good one", "truncated-fresh.crl: ", append(roots, "--crls", fresh, "--crls", ca.file("truncated-fresh.crl"))},
		{"empty CRL", "empty.crl: ", append(roots, "--crls", ca.write("empty.crl", nil))},
		{"garbage for a CRL", garbage + ": ", append(roots, "--crls", garbage)},
		{"no such CRL", missing, append(roots, "--crls", missing)},
		{"OCSP answer with a wrong signature", "OCSP answer", append(roots, "--ocsp", ca.changed("good.ocsp"))},
		{"OCSP answer truncated", "OCSP answer", append(roots, "--ocsp", ca.truncated("good.ocsp"))},
		{"OCSP answer about another", "OCSP answer", append(roots, "--ocsp", ca.ocsp("bad"))},
		{"OCSP answer of another CA", "OCSP answer", append(roots, "--ocsp", other.ocsp("good"))},
		{"OCSP answer empty", "empty", append(roots, "--ocsp", ca.write("empty.ocsp", nil))},
		{"no such OCSP answer", missing, append(roots, "--ocsp", missing)},
		{"purpose", `--purpose "x": use client, server or any`, append(roots, "--purpose", "x")},
		{"at", `--at "x": write it like 2025-02-22T12:00:00Z`, append(roots, "--at", "x")},
		{"max-depth", "--max-depth 0", append(roots, "--max-depth", "0")},
		{"max-depth below", "--max-depth -1", append(roots, "--max-depth=-1")},
		{"max-depth no number", "max-depth", append(roots, "--max-depth", "x")},
		{"grace", "grace", append(roots, "--grace", "1000h")},
		{"grace below", "grace", append(roots, "--grace=-1h")},
		{"unknown flag", "--bogus", append(roots, "--bogus")},
		{"no roots", "no --roots", nil},
		{"no such roots", missing, []string{"--roots", missing}},
		{"garbage for roots", garbage + ": ", []string{"--roots", garbage}},
		{"garbage for intermediates", garbage + ": ", append(roots, "--intermediates", garbage)},
		{"a second leaf", "2 arguments", append(roots, ca.file("bad.pem"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := sekisho(t, "", append([]string{"cert", "verify", ca.file("good.pem"), "--json"}, tt.args...)...)
			if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "error: ") || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, want %d and %q\n%s%s", code, exitUsage, tt.want, stdout, stderr)
			}
		})
	}
	for _, leaf := range []string{garbage, missing} {
		if _, stderr, code := sekisho(t, "", append([]string{"cert", "verify", leaf}, roots...)...); code != exitUsage || !strings.Contains(stderr, leaf) {
			t.Errorf("leaf %s: exit code %d\n%s", leaf, code, stderr)
		}
	}
	if _, stderr, code := sekisho(t, "", append([]string{"cert", "verify"}, roots...)...); code != exitUsage {
		t.Errorf("no leaf: exit code %d\n%s", code, stderr)
	}
}

// TestCertVerifyLeafOnly has a CRL of the root that speaks of the issuing CA and is not in force yet.
func TestCertVerifyLeafOnly(t *testing.T) {
	args := []string{
		amazonFile(t, "expired.rootca1.demo.amazontrust.com.cer"), "--roots", amazonFile(t, "AmazonRootCA1.cer"),
		"--intermediates", amazonFile(t, "r2m02.cer"), "--crls", amazonFile(t, "rootca1.crl"), "--at", "2024-03-14T12:00:00Z", "--purpose", "server",
	}
	certVerify(t, identity.RevocationUnknown, args...)
	certVerify(t, identity.OK, append(args, "--leaf-only")...)
}

// Of several OCSP answers the latest counts, in whatever order they are named; one that is out of date is a source that
// says nothing, unless it says revoked.
func TestCertVerifyOCSPAnswers(t *testing.T) {
	ca := newOpensslCA(t, "Answering CA")
	roots, good, bad := ca.file("ca.pem"), ca.file("good.pem"), ca.file("bad.pem")
	index := ca.read(ca.file("index.txt"))
	later := ca.ocsp("good")
	// The same responder before the revocation: the line says V, and has no time of revocation.
	before := regexp.MustCompile(`(?m)^R\t(\S+)\t\S+\t`).ReplaceAllString(string(index), "V\t$1\t\t")
	if before == string(index) {
		t.Fatalf("nothing is revoked in %s", index)
	}
	ca.write("index.txt", []byte(before))
	older := ca.write("older.ocsp", ca.read(ca.ocsp("bad")))
	ca.write("index.txt", index)
	time.Sleep(1100 * time.Millisecond) // the times in answers are whole seconds
	newer := ca.ocsp("bad")
	after := time.Now().Add(72 * time.Hour).Format(time.RFC3339) // the answers are for a day
	for name, tt := range map[string]struct {
		want identity.Reason
		args []string
	}{
		"older alone":             {identity.OK, []string{bad, "--ocsp", older}},
		"older, newer":            {identity.Revoked, []string{bad, "--ocsp", older, "--ocsp", newer}},
		"newer, older":            {identity.Revoked, []string{bad, "--ocsp", newer, "--ocsp", older}},
		"good, out of date":       {identity.RevocationUnknown, []string{good, "--ocsp", later, "--at", after}},
		"good, in grace":          {identity.OK, []string{good, "--ocsp", later, "--at", after, "--grace", "72h"}},
		"good, out of date, soft": {identity.OK, []string{good, "--ocsp", later, "--at", after, "--soft"}},
		"revoked, out of date":    {identity.Revoked, []string{bad, "--ocsp", newer, "--at", after}},
	} {
		_, stderr, code := sekisho(t, "", append([]string{"cert", "verify", "--roots", roots}, tt.args...)...)
		if want := map[bool]int{true: 0, false: 1}[tt.want == identity.OK]; code != want || !strings.Contains(stderr, string(tt.want)) {
			t.Errorf("%s: exit %d, want %d and %q: %s", name, code, want, tt.want, stderr)
		}
	}
}

func TestCertVerifyAllowSHA1(t *testing.T) {
	ca := newOpensslCA(t, "Old CA")
	leaf := ca.file("sha1.pem")
	ca.openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", ca.file("sha1.key"), "-subj", "/CN=sha1", "-out", ca.file("sha1.csr"))
	ca.openssl("x509", "-req", "-sha1", "-in", ca.file("sha1.csr"), "-CA", ca.file("ca.pem"), "-CAkey", ca.file("ca.key"), "-set_serial", "77", "-days", "2", "-out", leaf)
	if _, stderr, code := sekisho(t, "", "cert", "verify", leaf, "--roots", ca.file("ca.pem")); code != 1 || !strings.Contains(stderr, string(identity.WeakSignature)) {
		t.Errorf("without the flag: exit %d: %s", code, stderr)
	}
	if _, stderr, code := sekisho(t, "", "cert", "verify", leaf, "--roots", ca.file("ca.pem"), "--allow-sha1"); code != 0 {
		t.Errorf("with the flag: exit %d: %s", code, stderr)
	}
}
