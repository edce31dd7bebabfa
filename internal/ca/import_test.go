package ca_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// elsewhere is a CA that openssl made.
type elsewhere struct {
	t   testing.TB
	dir string
}

// newElsewhere makes a CA's key with the arguments of openssl genpkey, and a certificate with the lines of a configuration
// section as extensions.
func newElsewhere(t testing.TB, genpkey []string, extensions string, more ...string) *elsewhere {
	t.Helper()
	e := &elsewhere{t, t.TempDir()}
	e.run(append([]string{"genpkey", "-out", e.path("ca.key")}, genpkey...)...)
	e.write("ca.cnf", "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nO=Elsewhere\nCN=Old House CA\n[v3]\n"+extensions+"\n")
	e.run(append([]string{
		"req", "-x509", "-new", "-key", e.path("ca.key"), "-days", "3650", "-config", e.path("ca.cnf"), "-extensions", "v3", "-out", e.path("ca.pem"),
	}, more...)...)
	return e
}

const caExtensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash"

func ecKey() []string { return []string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"} }

func (e *elsewhere) path(name string) string { return filepath.Join(e.dir, name) }

func (e *elsewhere) write(name, text string) {
	e.t.Helper()
	if err := os.WriteFile(e.path(name), []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

func (e *elsewhere) read(name string) []byte {
	e.t.Helper()
	data, err := os.ReadFile(e.path(name))
	if err != nil {
		e.t.Fatal(err)
	}
	return data
}

func (e *elsewhere) run(args ...string) {
	e.t.Helper()
	if out, err := tool(e.t, "openssl", args...); err != nil {
		e.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// sign makes NAME.key and NAME.pem, signed by the CA.
func (e *elsewhere) sign(name, serial, extensions string) *x509.Certificate {
	e.t.Helper()
	e.run(append([]string{"genpkey", "-out", e.path(name + ".key")}, ecKey()...)...)
	e.run("req", "-new", "-key", e.path(name+".key"), "-subj", "/O=Elsewhere/CN="+name, "-out", e.path(name+".csr"))
	e.write(name+".ext", extensions)
	e.run("x509", "-req", "-in", e.path(name+".csr"), "-CA", e.path("ca.pem"), "-CAkey", e.path("ca.key"), "-set_serial", serial,
		"-days", "365", "-extfile", e.path(name+".ext"), "-out", e.path(name+".pem"))
	cert, err := pkix.ParseCertificate(e.read(name + ".pem"))
	if err != nil {
		e.t.Fatal(err)
	}
	return cert
}

// crl makes ca.crl of the given lines of openssl's database.
func (e *elsewhere) crl(number string, lines ...string) []byte {
	e.t.Helper()
	e.write("index.txt", strings.Join(lines, ""))
	e.write("number", number+"\n")
	e.write("crl.cnf", fmt.Sprintf("[ca]\ndefault_ca=d\n[d]\ndatabase=%s\ncrlnumber=%s\ndefault_md=sha256\ndefault_crl_days=30\n", e.path("index.txt"), e.path("number")))
	e.run("ca", "-gencrl", "-config", e.path("crl.cnf"), "-keyfile", e.path("ca.key"), "-cert", e.path("ca.pem"), "-out", e.path("ca.crl"))
	return e.read("ca.crl")
}

// revokedLine is a line of openssl's database.
func revokedLine(serial, reason string) string {
	return "R\t361231235959Z\t260101000000Z," + reason + "\t" + serial + "\tunknown\t/CN=" + serial + "\n"
}

func (e *elsewhere) request() ca.ImportRequest {
	return ca.ImportRequest{Actor: "test", ZoneID: zone, Certificate: e.read("ca.pem"), Key: e.read("ca.key")}
}

func (f *fixture) importCA(req ca.ImportRequest) ca.State {
	f.t.Helper()
	r, err := f.Import(f.t.Context(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	return r.CA
}

// issueBy issues a client certificate by a CA of a name.
func (f *fixture) issueBy(ref, cn string) ca.Certificate {
	f.t.Helper()
	row, _, err := f.IssueWithKey(f.t.Context(), ca.IssueRequest{ZoneID: zone, CA: ref, Profile: ca.ProfileClient, Subject: "CN=" + cn, ValidDays: 30}, pkix.ECDSAP256)
	if err != nil {
		f.t.Fatal(err)
	}
	return row
}

// TestImportedCA imports CAs of every kind of key and of form that openssl makes, issues by each, and has openssl verify
// the certificate, the CRL that we go on with and our OCSP answers.
func TestImportedCA(t *testing.T) {
	rsaKey := []string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}
	bare := "basicConstraints=CA:TRUE\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=none"
	for name, test := range map[string]struct {
		key        []string
		extensions string
		more       []string
		convert    []string // how the key is written for the import; nil: as it is
	}{
		"rsa in PKCS8":                    {rsaKey, caExtensions, nil, nil},
		"rsa in PKCS1":                    {rsaKey, caExtensions, nil, []string{"rsa", "-traditional"}},
		"rsa traditional encrypted":       {rsaKey, caExtensions, nil, []string{"rsa", "-traditional", "-aes256", "-passout", "pass:sesame"}},
		"rsa certificate by PSS":          {rsaKey, caExtensions, []string{"-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:max"}, nil},
		"ec no key usage and no SKI":      {ecKey(), bare, nil, nil},
		"ec in SEC1":                      {ecKey(), caExtensions, nil, []string{"ec"}},
		"ec in PKCS8 encrypted":           {ecKey(), caExtensions, nil, []string{"pkcs8", "-topk8", "-passout", "pass:sesame"}},
		"ec in PKCS8 by 3DES":             {ecKey(), caExtensions, nil, []string{"pkcs8", "-topk8", "-v2", "des3", "-passout", "pass:sesame"}},
		"p-521":                           {[]string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"}, caExtensions, nil, nil},
		"ed25519 no key usage and no SKI": {[]string{"-algorithm", "ED25519"}, bare, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newCA(t, pkix.ECDSAP256)
			e := newElsewhere(t, test.key, test.extensions, test.more...)
			if test.convert != nil {
				e.run(append(append([]string{}, test.convert...), "-in", e.path("ca.key"), "-out", e.path("given.key"))...)
			} else {
				e.write("given.key", string(e.read("ca.key")))
			}
			req := e.request()
			req.Key, req.Passphrase, req.CRL = e.read("given.key"), []byte("sesame"), e.crl("1000", revokedLine("0A", "superseded"))
			state := f.importCA(req)
			if state.Name != "old-house-ca" || !state.Imported || !state.Issues || state.InForce || state.Count.Revoked != 1 {
				t.Errorf("imported: %+v", state)
			}
			row := f.issueBy("old-house-ca", "device")
			leaf := f.file("leaf.pem", pkix.EncodeCertificate(row.DER))
			gone := f.issueBy("old-house-ca", "gone")
			f.revoke(gone.ID, pkix.Superseded)
			crl, err := f.CRL(t.Context(), state.ID, row.Shard)
			if err != nil {
				t.Fatal(err)
			}
			if crl.Number.Int64() <= 0x1000 {
				t.Errorf("CRL number %v does not go on above 0x1000", crl.Number)
			}
			list := f.file("ca.crl", crl.DER)
			wants(t, []string{": OK"}, "openssl", "verify", "-crl_check", "-CAfile", e.path("ca.pem"), "-CRLfile", list, leaf)
			out, err := tool(t, "openssl", "verify", "-crl_check", "-CAfile", e.path("ca.pem"), "-CRLfile", list, f.file("gone.pem", pkix.EncodeCertificate(gone.DER)))
			if err == nil || !strings.Contains(out, "certificate revoked") {
				t.Errorf("the revoked one: %v\n%s", err, out)
			}
			wants(t, []string{"0A"}, "openssl", "crl", "-inform", "der", "-in", list, "-noout", "-text")
			wants(t, []string{leaf + ": good"}, "openssl", "ocsp", "-issuer", e.path("ca.pem"), "-cert", leaf, "-url", f.OCSPURL(), "-CAfile", e.path("ca.pem"), "-no_nonce")
			wants(t, []string{"0x0A: revoked"}, "openssl", "ocsp", "-issuer", e.path("ca.pem"), "-serial", "0x0A", "-url", f.OCSPURL(), "-CAfile", e.path("ca.pem"))
			wants(t, []string{"0x0B: unknown"}, "openssl", "ocsp", "-issuer", e.path("ca.pem"), "-serial", "0x0B", "-url", f.OCSPURL(), "-CAfile", e.path("ca.pem"))
			f.reopen()
			if again := f.issueBy(state.ID, "after a restart"); again.CAID != state.ID {
				t.Errorf("issued by %s", again.CAID)
			}
		})
	}
}

// reopen is a restart.
func (f *fixture) reopen() {
	f.t.Helper()
	if err := f.store.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

// TestImportMLDSA: openssl 3.0 knows no ML-DSA, so crypto/x509 makes this one, and one of our own authorities the CA.
func TestImportMLDSA(t *testing.T) {
	other := newCA(t, pkix.MLDSA65)
	f := newCA(t, pkix.ECDSAP256)
	records, err := other.CAs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(other.dir, "keys", records[1].KeyName+".key"))
	if err != nil {
		t.Fatal(err)
	}
	state := f.importCA(ca.ImportRequest{Certificate: pkix.EncodeCertificate(records[1].DER), Key: key, Chain: pkix.EncodeCertificate(records[0].DER)})
	if err := parse(t, f.issueBy(state.Name, "x")).CheckSignatureFrom(state.Cert); err != nil {
		t.Error(err)
	}
	if len(state.Extra) != 0 {
		t.Errorf("%d certificates are sent along; a root is the client's to have", len(state.Extra))
	}
}

// importRefusal is an import that must change nothing.
type importRefusal struct {
	field, text string // field "": ErrConflict
	change      func(*ca.ImportRequest)
}

// TestImportRefusals: each mistake has an answer of its own, and nothing is stored: no CA, no certificate, no key.
func TestImportRefusals(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	other := newElsewhere(t, ecKey(), caExtensions)
	signer := e.sign("ocsp", "7", "extendedKeyUsage=OCSPSigning")
	client := e.sign("client", "8", "extendedKeyUsage=clientAuth")
	list := e.crl("05", revokedLine("07", "superseded"))
	foreign := other.crl("05")
	cert := func(key []string, extensions string, more ...string) func(*ca.ImportRequest) {
		made := newElsewhere(t, key, extensions, more...)
		return func(r *ca.ImportRequest) { r.Certificate, r.Key = made.read("ca.pem"), made.read("ca.key") }
	}
	e.run("pkcs8", "-topk8", "-passout", "pass:sesame", "-in", e.path("ca.key"), "-out", e.path("locked.key"))
	e.run("rsa", "-traditional", "-aes128", "-passout", "pass:sesame", "-in", rsaFile(t, e), "-out", e.path("old.key"))
	f.importCA(other.request())
	otherAgain := other.request()
	other.run("req", "-x509", "-new", "-key", other.path("ca.key"), "-days", "3650", "-subj", "/CN=Another name", "-out", other.path("same.pem"),
		"-addext", "keyUsage=keyCertSign,cRLSign")
	withSigner := func(cert, key string) func(*ca.ImportRequest) {
		return func(r *ca.ImportRequest) { r.Key, r.SignerCertificate, r.SignerKey = nil, e.read(cert), e.read(key) }
	}
	if !signer.NotAfter.After(client.NotBefore) {
		t.Fatal("openssl's dates")
	}
	before := f.inventory()
	for name, test := range map[string]importRefusal{
		"no certificate":               {"certificate", "give the certificate", func(r *ca.ImportRequest) { r.Certificate = nil }},
		"garbage":                      {"certificate", "no PEM block", func(r *ca.ImportRequest) { r.Certificate = []byte("hello") }},
		"garbage in DER":               {"certificate", "certificate:", func(r *ca.ImportRequest) { r.Certificate = []byte{0x30, 0x03, 1, 2, 3} }},
		"two certificates":             {"certificate", "go into chain", func(r *ca.ImportRequest) { r.Certificate = append(e.read("ca.pem"), other.read("ca.pem")...) }},
		"too large":                    {"certificate", "at most", func(r *ca.ImportRequest) { r.Certificate = bytes.Repeat([]byte("x"), pkix.MaxCertificateBytes+1) }},
		"a key instead":                {"certificate", "this is a private key", func(r *ca.ImportRequest) { r.Certificate = e.read("ca.key") }},
		"no CA":                        {"certificate", "CA:TRUE", cert(ecKey(), "basicConstraints=CA:FALSE")},
		"no basicConstraints":          {"certificate", "CA:TRUE", cert(ecKey(), "keyUsage=keyCertSign,cRLSign")},
		"no keyCertSign":               {"certificate", "keyCertSign", cert(ecKey(), "basicConstraints=CA:TRUE\nkeyUsage=cRLSign")},
		"no cRLSign":                   {"certificate", "cRLSign", cert(ecKey(), "basicConstraints=CA:TRUE\nkeyUsage=keyCertSign")},
		"weak key":                     {"certificate", "1024 bits", cert([]string{"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"}, caExtensions)},
		"key of an unknown kind":       {"certificate", "kind of its key", cert([]string{"-algorithm", "ED448"}, caExtensions)},
		"a curve that is not taken":    {"certificate", "", cert([]string{"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"}, caExtensions)},
		"unknown critical extension":   {"certificate", "1.2.3.4", cert(ecKey(), caExtensions+"\n1.2.3.4=critical,DER:0500")},
		"no key":                       {"key", "give the key", func(r *ca.ImportRequest) { r.Key = nil }},
		"key of another":               {"key", "is not the one of the certificate", func(r *ca.ImportRequest) { r.Key = other.read("ca.key") }},
		"a certificate as the key":     {"key", "this is a certificate", func(r *ca.ImportRequest) { r.Key = e.read("ca.pem") }},
		"missing passphrase":           {"passphrase", "missing or wrong", func(r *ca.ImportRequest) { r.Key = e.read("locked.key") }},
		"wrong passphrase":             {"passphrase", "missing or wrong", func(r *ca.ImportRequest) { r.Key, r.Passphrase = e.read("locked.key"), []byte("open") }},
		"missing passphrase, old":      {"passphrase", "missing or wrong", func(r *ca.ImportRequest) { r.Key = e.read("old.key") }},
		"wrong passphrase, old":        {"passphrase", "missing or wrong", func(r *ca.ImportRequest) { r.Key, r.Passphrase = e.read("old.key"), []byte("open") }},
		"key over the bound":           {"key", "at most", func(r *ca.ImportRequest) { r.Key = bytes.Repeat([]byte("x"), pkix.MaxPrivateKeyBytes+1) }},
		"imported already":             {"", "is here already", func(r *ca.ImportRequest) { *r = otherAgain }},
		"the same key":                 {"", "same key", func(r *ca.ImportRequest) { r.Certificate, r.Key = other.read("same.pem"), other.read("ca.key") }},
		"our own CA":                   {"", "is here already", func(r *ca.ImportRequest) { r.Certificate = pkix.EncodeCertificate(f.Issuing().Raw) }},
		"a name that is taken":         {"", "name issuing already", func(r *ca.ImportRequest) { r.Name = "issuing" }},
		"a name that is none":          {"name", "is no name", func(r *ca.ImportRequest) { r.Name = "../x" }},
		"the name of the one in force": {"name", "always means", func(r *ca.ImportRequest) { r.Name = "active" }},
		"shards":                       {"shards", "between 1 and 1024", func(r *ca.ImportRequest) { r.Shards = 5000 }},
		"chain of another":             {"chain", "has not signed", func(r *ca.ImportRequest) { r.Chain = other.read("ca.pem") }},
		"chain that is none":           {"chain", "is no CA", func(r *ca.ImportRequest) { r.Chain = e.read("client.pem") }},
		"CRL of another":               {"crl", "not signed by the CA", func(r *ca.ImportRequest) { r.CRL = foreign }},
		"CRL that is none":             {"crl", "no PEM block", func(r *ca.ImportRequest) { r.CRL = []byte("x") }},
		"signer of another": {"ocsp_certificate", "not signed by the CA", func(r *ca.ImportRequest) {
			r.SignerCertificate, r.SignerKey = other.read("ca.pem"), other.read("ca.key")
		}},
		"signer without the usage":    {"ocsp_certificate", "OCSPSigning", withSigner("client.pem", "client.key")},
		"signer with another key":     {"ocsp_key", "is not the one", withSigner("ocsp.pem", "client.key")},
		"signer without its key":      {"ocsp_key", "give the key", func(r *ca.ImportRequest) { r.SignerCertificate = e.read("ocsp.pem") }},
		"signer that the CRL revokes": {"ocsp_certificate", "is revoked", func(r *ca.ImportRequest) { withSigner("ocsp.pem", "ocsp.key")(r); r.CRL = list }},
	} {
		t.Run(name, func(t *testing.T) {
			req := e.request()
			test.change(&req)
			f.refuses(req, test)
		})
	}
	for name, shift := range map[string]time.Duration{"begins at": -24 * time.Hour, "ended at": 11 * 365 * 24 * time.Hour} {
		f.clock.Store(int64(shift))
		f.refuses(e.request(), importRefusal{"certificate", name, nil})
	}
	f.clock.Store(0)
	if after := f.inventory(); after != before {
		t.Errorf("the refusals left something behind: %s, before %s", after, before)
	}
}

func (f *fixture) refuses(req ca.ImportRequest, want importRefusal) {
	f.t.Helper()
	_, err := f.Import(f.t.Context(), req)
	bad, ok := errors.AsType[*ca.RequestError](err)
	switch {
	case err == nil || !strings.Contains(err.Error(), want.text):
		f.t.Errorf("%v; want one about %q", err, want.text)
	case want.field == "" && !errors.Is(err, ca.ErrConflict), want.field != "" && (!ok || bad.Field != want.field):
		f.t.Errorf("%v; want one of the field %q", err, want.field)
	case strings.Contains(err.Error(), "PRIVATE KEY-----"):
		f.t.Errorf("the error shows a key: %v", err)
	}
}

// inventory counts what is stored.
func (f *fixture) inventory() string {
	f.t.Helper()
	records, err := f.CAs(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	_, total, err := f.Certificates(f.t.Context(), ca.Filter{})
	if err != nil {
		f.t.Fatal(err)
	}
	keys, err := os.ReadDir(filepath.Join(f.dir, "keys"))
	if err != nil {
		f.t.Fatal(err)
	}
	return fmt.Sprintf("%d CAs, %d certificates, %d keys", len(records), total, len(keys))
}

// rsaFile makes an RSA key.
func rsaFile(t testing.TB, e *elsewhere) string {
	t.Helper()
	e.run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", e.path("rsa.key"))
	return e.path("rsa.key")
}

// TestImportChain: the issuers of an imported CA are sent along, but for a root, and must fit.
func TestImportChain(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	root := e.read("ca.pem")
	top := &elsewhere{t, t.TempDir()}
	middle := e.sub(top, "middle", "basicConstraints=CA:TRUE,pathlen:1\nsubjectKeyIdentifier=hash")
	low := middle.sub(&elsewhere{t, t.TempDir()}, "low", caExtensions)
	lowest := low.sub(&elsewhere{t, t.TempDir()}, "lowest", caExtensions)
	req := lowest.request()
	req.Chain = bytes.Join([][]byte{low.read("ca.pem"), middle.read("ca.pem"), root}, nil)
	f.refuses(req, importRefusal{"chain", "path length of certificate 2", nil})
	req = low.request()
	req.Chain = append(bytes.Clone(root), middle.read("ca.pem")...)
	f.refuses(req, importRefusal{"chain", "has not signed", nil})
	req.Chain = append(middle.read("ca.pem"), root...)
	state := f.importCA(req)
	chain, err := f.Chain(state.ID)
	if err != nil || len(chain) != 2 || pkix.CommonName(chain[1].RawSubject) != "middle" {
		t.Fatalf("chain of %d certificates, %v", len(chain), err)
	}
	row := f.issueBy(state.Name, "x")
	wants(t, []string{": OK"}, "openssl", "verify", "-CAfile", e.path("ca.pem"), "-untrusted", f.file("chain.pem", pkix.EncodeCertificates(chain)), f.file("leaf.pem", pkix.EncodeCertificate(row.DER)))
}

// sub makes a CA below this one, in another directory.
func (e *elsewhere) sub(below *elsewhere, name, extensions string) *elsewhere {
	e.t.Helper()
	e.sign(name, "77", extensions)
	below.write("ca.pem", string(e.read(name+".pem")))
	below.write("ca.key", string(e.read(name+".key")))
	return below
}

// TestInvariant08ImportCrash: a commit that fails leaves nothing, one that fails on its way back leaves everything, and what
// the CRL said is known before the CA is.
func TestInvariant08ImportCrash(t *testing.T) {
	for _, point := range []string{"before-commit", "after-commit"} {
		t.Run(point, func(t *testing.T) {
			told := map[pkix.Serial]bool{}
			f := newCA(t, pkix.ECDSAP256, config(func(c *ca.Config) { c.OnChange = func(row ca.Certificate) { told[row.Serial] = true } }))
			e := newElsewhere(t, ecKey(), caExtensions)
			req := e.request()
			req.CRL = e.crl("01", revokedLine("0A", "superseded"), revokedLine("0B", "certificateHold"))
			f.failAt(point)
			if _, err := f.Import(t.Context(), req); err == nil {
				t.Fatal("no error")
			}
			f.fault.Store(nil)
			if stored := point == "after-commit"; stored != (len(told) == 2) || stored != (len(f.ClientAnchors()) == 2) {
				t.Errorf("%d told, %d anchors", len(told), len(f.ClientAnchors()))
			}
			f.reopen()
			_, err := f.Import(t.Context(), req)
			if (point == "after-commit") != errors.Is(err, ca.ErrConflict) {
				t.Errorf("again: %v", err)
			}
			if _, total, err := f.Certificates(t.Context(), ca.Filter{Status: ca.Revoked}); err != nil || total != 2 {
				t.Errorf("%d revoked, %v", total, err)
			}
		})
	}
}

// TestInvariant08LongImportCrash: the CRL of an import is stored in parts. Where it is broken off, the CA does nothing and
// nobody trusts it; importing it again goes on, and at the end every entry is there once.
func TestInvariant08LongImportCrash(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	var lines []string
	for i := range 2500 {
		lines = append(lines, revokedLine(fmt.Sprintf("%06X", i+0x100000), "superseded"))
	}
	req := e.request()
	req.Name, req.CRL = "legacy", e.crl("0100", lines...)
	commits := 0
	fault := func(point string) error {
		if point == "before-commit" {
			if commits++; commits == 3 { // the CA, the first part, and not the second
				return syscall.EIO
			}
		}
		return nil
	}
	f.fault.Store(&fault)
	if _, err := f.Import(t.Context(), req); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "import it again") {
		t.Fatalf("a commit that fails: %v", err)
	}
	f.fault.Store(nil)
	f.reopen()
	if len(f.ClientAnchors()) != 1 {
		t.Error("a CA is trusted whose revocations are not known")
	}
	states, err := f.States(t.Context())
	if err != nil || !states[2].Broken || states[2].Count.Revoked != 1000 {
		t.Fatalf("%+v %v", states, err)
	}
	if _, err := f.CRL(t.Context(), states[2].ID, 0); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("its CRL: %v", err)
	}
	if _, err := f.Issue(t.Context(), ca.IssueRequest{CA: "legacy", Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 1}); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("it issues: %v", err)
	}
	other := req
	other.Key, other.SignerCertificate, other.SignerKey = nil, nil, nil
	f.refuses(other, importRefusal{"key", "give the key", nil})
	// Going on with less than it was begun with would let in whom the rest of the CRL revokes.
	other = req
	other.CRL = nil
	f.refuses(other, importRefusal{"crl", "begun with a CRL", nil})
	other.CRL = e.crl("FF", lines[:1]...)
	f.refuses(other, importRefusal{"crl", "begun with a newer CRL (number 256", nil})
	if _, err := f.ImportCRL(t.Context(), ca.ImportCRLRequest{CA: "legacy", CRL: req.CRL}); !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), "was broken off") {
		t.Errorf("a newer CRL of half a CA: %v", err)
	}
	if _, err := f.SetSigner(t.Context(), ca.SignerRequest{CA: "legacy"}); !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), "was broken off") {
		t.Errorf("an OCSP signer of half a CA: %v", err)
	}
	state := f.importCA(req)
	if state.Broken || state.Count.Revoked != 2500 || state.ID != states[2].ID || len(f.ClientAnchors()) != 2 || state.List.Number != "256" {
		t.Errorf("imported again: %+v", state)
	}
	crl, err := f.CRL(t.Context(), state.ID, 0)
	if err != nil || crl.Number.Int64() <= 0x100 {
		t.Fatalf("%+v %v", crl.Number, err)
	}
	list, err := x509.ParseRevocationList(crl.DER)
	if err != nil || len(list.RevokedCertificateEntries) != 2500 {
		t.Errorf("%d entries, %v", len(list.RevokedCertificateEntries), err)
	}
	f.issueBy("legacy", "x")
	f.refuses(req, importRefusal{"", "is here already", nil})
}

// TestImportGoesOnWithKnownSigner: an import that was broken off goes on when its OCSP signer came by another way meanwhile,
// unless that was revoked.
func TestImportGoesOnWithKnownSigner(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	e.sign("ocsp", "7", "extendedKeyUsage=OCSPSigning")
	e.sign("next", "8", "extendedKeyUsage=OCSPSigning")
	var lines []string
	for i := range 1001 {
		lines = append(lines, revokedLine(fmt.Sprintf("%06X", i+0x100000), "superseded"))
	}
	req := e.request()
	req.Key, req.SignerCertificate, req.SignerKey, req.CRL = nil, e.read("ocsp.pem"), e.read("ocsp.key"), e.crl("0100", lines...)
	commits := 0
	fault := func(point string) error {
		if point == "before-commit" {
			if commits++; commits == 2 {
				return syscall.EIO
			}
		}
		return nil
	}
	f.fault.Store(&fault)
	if _, err := f.Import(t.Context(), req); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a commit that fails: %v", err)
	}
	f.fault.Store(nil)
	for _, name := range []string{"ocsp.pem", "next.pem"} {
		done, err := f.ImportCertificates(t.Context(), ca.ImportCertificatesRequest{ZoneID: zone, Certificates: e.read(name)})
		if err != nil {
			t.Fatal(err)
		}
		if name == "next.pem" {
			f.revoke(done[0].Row.ID, pkix.Superseded)
		}
	}
	revoked := req
	revoked.SignerCertificate, revoked.SignerKey = e.read("next.pem"), e.read("next.key")
	f.refuses(revoked, importRefusal{"ocsp_certificate", "revoked since", nil})
	if state := f.importCA(req); state.Broken || state.Count.Revoked != 1002 {
		t.Errorf("%+v", state)
	}
}
