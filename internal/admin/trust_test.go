package admin

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

const (
	mtlsPath   = "/accounts/" + testAccount + "/mtls_certificates"
	accessPath = "/zones/" + testZone + "/access/certificates"
	trustPath  = "/sekisho/trust"
)

// openssl runs openssl in a directory and returns the content of a file that it made there.
func openssl(t *testing.T, dir, file string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	check(t, err)
	return string(data)
}

// opensslCA is a root as people make it: openssl req -x509.
func opensslCA(t *testing.T, args ...string) string {
	t.Helper()
	all := append([]string{"req", "-x509", "-nodes", "-keyout", "key.pem", "-out", "ca.pem", "-days", "10", "-subj", "/C=JP/ST=Tokyo/L=Minato/O=Daidai Co."}, args...)
	if !slices.Contains(all, "-newkey") && !slices.Contains(all, "-key") {
		all = append(all, "-newkey", "rsa:2048")
	}
	return openssl(t, t.TempDir(), "ca.pem", all...)
}

// addMTLS adds a CA by the API of API Shield.
func (a *api) addMTLS(name, certificates string) mtlsObject {
	a.t.Helper()
	r := a.call("POST", mtlsPath, map[string]any{"ca": true, "certificates": certificates, "name": name})
	if r.Status != http.StatusOK {
		a.t.Fatalf("add %s: %d %s", name, r.Status, r.Body)
	}
	return result[mtlsObject](a.t, r)
}

// TestTrustUploads: which bundles are taken and which not, and why.
func TestTrustUploads(t *testing.T) {
	a := newAPI(t)
	root := testpki.NewCA(t, testpki.Name("Root"))
	inter := root.Intermediate("Inter")
	other := testpki.NewCA(t, testpki.Name("Other"))
	key, err := pkix.EncodePrivateKey(root.Key)
	check(t, err)
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	check(t, err)
	pemOf := func(cas ...*testpki.CA) string {
		var text strings.Builder
		for _, ca := range cas {
			text.Write(ca.PEM)
		}
		return text.String()
	}
	// Two CAs that have certified each other and nobody else: neither is a root.
	crossed := func(ca, by *testpki.CA) string {
		der, err := x509.CreateCertificate(rand.Reader, ca.Cert, by.Cert, ca.Cert.PublicKey, by.Key)
		check(t, err)
		return string(pkix.EncodeCertificate(der))
	}
	md5 := testpki.NewCA(t, testpki.KeyType(pkix.RSA2048)).Cert.Raw
	md5 = slices.Clone(md5)
	for i := range len(md5) - 10 { // sha256WithRSAEncryption becomes md5WithRSAEncryption, wherever it stands
		if string(md5[i:i+9]) == "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b" {
			md5[i+8] = 4
		}
	}
	for _, c := range []struct {
		name, text string
		say        string // of the error; "" for a bundle that is taken
		anchors    int
		helpers    int
		note       string
	}{
		{"a root", pemOf(root), "", 1, 0, ""},
		{"root and intermediate", pemOf(inter, root), "", 1, 1, ""},
		{"an intermediate alone", pemOf(inter), "", 1, 0, ""},
		{"two roots", pemOf(root, other), "", 2, 0, ""},
		{"everything twice", pemOf(root, inter, root, inter), "", 1, 1, ""},
		{"words between", "my root\n" + pemOf(root) + "the end", "", 1, 0, ""},
		{"CRLF", strings.ReplaceAll(pemOf(root), "\n", "\r\n"), "", 1, 0, ""},
		{"openssl without keyUsage", opensslCA(t), "", 1, 0, ""},
		{"RSA-PSS", opensslCA(t, "-sigopt", "rsa_padding_mode:pss"), "", 1, 0, ""},
		{"Ed25519", opensslCA(t, "-newkey", "ed25519"), "", 1, 0, ""},
		{"ML-DSA", pemOf(testpki.NewCA(t, testpki.KeyType(pkix.MLDSA65))), "", 1, 0, ""},
		{"ECDSA P-384", pemOf(testpki.NewCA(t, testpki.KeyType(pkix.ECDSAP384))), "", 1, 0, ""},
		{"expired", pemOf(testpki.NewCA(t, testpki.Name("Old"), testpki.NotBefore(time.Now().AddDate(-2, 0, 0)), testpki.NotAfter(time.Now().AddDate(-1, 0, 0)))), "", 1, 0, "(CN=Old) expired on 20"},
		{"not yet valid", pemOf(testpki.NewCA(t, testpki.NotBefore(time.Now().AddDate(0, 0, 2)))), "", 1, 0, "valid only from"},
		{"SHA-1 and RSA", opensslCA(t, "-sha1"), "", 1, 0, "allow_algorithms of this CA's policy has sha1-rsa now"},
		{"SHA-1 and ECDSA", opensslCA(t, "-sha1", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"), "", 1, 0, "sha1-ecdsa"},

		{"nothing", "", "empty", 0, 0, ""},
		{"words", "hello", "no PEM block", 0, 0, ""},
		{"\\n for line ends", strings.ReplaceAll(pemOf(root), "\n", `\n`), "real line ends", 0, 0, ""},
		{"a private key", string(key), "private key", 0, 0, ""},
		{"a private key behind", pemOf(root) + string(key), "private key", 0, 0, ""},
		{"a request", newCSR(t, "x"), "CERTIFICATE REQUEST", 0, 0, ""},
		{"cut off", pemOf(root)[:200], "cut off", 0, 0, ""},
		{"no DER", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hello")})), "certificate 1 of 1", 0, 0, ""},
		{"a client's certificate", string(root.Client("me").CertPEM), "CA must have CA:TRUE", 0, 0, ""},
		{"a leaf behind its CA", pemOf(root) + string(root.Client("me").CertPEM), "certificate 2 of 2 (CN=me): CA must have CA:TRUE", 0, 0, ""},
		{"X.509 v1", pemOf(testpki.NewCA(t, testpki.V1())), "X.509 version 1 cannot say so", 0, 0, ""},
		{"CA:FALSE", opensslCA(t, "-addext", "basicConstraints=critical,CA:FALSE"), "CA must have CA:TRUE", 0, 0, ""},
		{"no keyCertSign", opensslCA(t, "-addext", "keyUsage=digitalSignature"), "keyCertSign", 0, 0, ""},
		{"RSA-1024", pemOf(testpki.NewCA(t, testpki.Key(weakKey))), "1024 bits: want 2048", 0, 0, ""},
		{"MD5", string(pkix.EncodeCertificate(md5)), "signed with MD5", 0, 0, ""},
		{"RSA-PSS with SHA-1", opensslCA(t, "-sha1", "-sigopt", "rsa_padding_mode:pss"), "it is signed with", 0, 0, ""},
		{"DSA", dsaCA(t), "want RSA, ECDSA, Ed25519 or ML-DSA", 0, 0, ""},
		{"no root", crossed(root, other) + crossed(other, root), "each is issued by another", 0, 0, ""},
		{"too many", strings.Repeat(pemOf(root), 501), "501 certificates are too many", 0, 0, ""},
	} {
		before := len(a.audit("done"))
		for _, route := range []struct {
			path, field string
			body        map[string]any
		}{
			{mtlsPath, "certificates", map[string]any{"ca": true, "name": c.name}},
			{accessPath, "certificate", map[string]any{"name": c.name}},
			{trustPath, "certificates", map[string]any{"name": c.name}},
		} {
			route.body[route.field] = c.text
			r := a.call("POST", route.path, route.body)
			if c.say != "" {
				if r.Status != 400 || !strings.Contains(r.text(), c.say) || r.Errors[0].Source == nil || r.Errors[0].Source.Pointer != "/"+route.field {
					t.Errorf("%s by %s: %d %s, want an error that says %q", c.name, route.path, r.Status, r.Body, c.say)
				}
				continue
			}
			if r.Status != 200 {
				t.Errorf("%s by %s: %d %s", c.name, route.path, r.Status, r.Body)
				continue
			}
			made := result[trustObject](t, a.call("GET", trustPath+"/"+result[struct{ ID string }](t, r).ID, nil))
			if len(made.Anchors) != c.anchors || len(made.Intermediates) != c.helpers {
				t.Errorf("%s: %d anchors, %d helpers; want %d and %d", c.name, len(made.Anchors), len(made.Intermediates), c.anchors, c.helpers)
			}
			noted := len(r.Messages) > 0 && strings.Contains(r.Messages[0].Message, c.note)
			if noted != (c.note != "") || len(r.Messages) > 1 {
				t.Errorf("%s: messages %+v, want one with %q", c.name, r.Messages, c.note)
			}
			if want := strings.Contains(c.name, "SHA-1"); want != (len(made.Policy.AllowAlgorithms) == 1) {
				t.Errorf("%s: policy %+v", c.name, made.Policy)
			}
			if n := strings.Count(made.Certificates, "BEGIN"); n != c.anchors+c.helpers {
				t.Errorf("%s: %d certificates are stored", c.name, n)
			}
		}
		if done := len(a.audit("done")) - before; c.say != "" && done != 0 || c.say == "" && done != 3 {
			t.Errorf("%s: %d changes on record", c.name, done)
		}
	}
	secret := strings.Split(string(key), "\n")[1]
	all, err := a.store.TrustedCAs(t.Context())
	check(t, err)
	for _, ca := range all {
		if strings.Contains(ca.PEM, "PRIVATE") {
			t.Error("a private key is stored")
		}
	}
	if strings.Contains(a.logs.String(), secret) {
		t.Error("a private key is in the log")
	}
}

// dsaCA is a root of a DSA key.
func dsaCA(t *testing.T) string {
	dir := t.TempDir()
	openssl(t, dir, "param.pem", "genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:2048", "-pkeyopt", "dsa_paramgen_q_bits:256", "-out", "param.pem")
	openssl(t, dir, "key.pem", "genpkey", "-paramfile", "param.pem", "-out", "key.pem")
	return openssl(t, dir, "ca.pem", "req", "-x509", "-key", "key.pem", "-out", "ca.pem", "-subj", "/CN=dsa")
}

// TestMTLSCertificates walks a CA of API Shield through its life.
func TestMTLSCertificates(t *testing.T) {
	a := newAPI(t)
	a.serve(&site.Host{Name: "api.example.com", Zone: site.Zone{ID: testZone}}, &site.Host{Name: "*.apps.example.com", Zone: site.Zone{ID: testZone}})
	text := opensslCA(t)
	made := a.addMTLS("first", text)
	cert, err := pkix.ParseCertificate([]byte(text))
	check(t, err)
	want := mtlsObject{
		ID: made.ID, Name: "first", CA: true, Certificates: text, Issuer: "O=Daidai Co.,L=Minato,ST=Tokyo,C=JP", SerialNumber: cert.SerialNumber.String(),
		Signature: "SHA256WithRSA", Type: "custom", ExpiresOn: stamp(cert.NotAfter), UploadedOn: made.UploadedOn, UpdatedAt: made.UploadedOn,
	}
	if diff := cmp.Diff(want, made); diff != "" || !uuid.MatchString(made.ID) || made.UploadedOn == nil {
		t.Errorf("POST (-want +got):\n%s", diff)
	}
	want.UpdatedAt = nil
	second := a.addMTLS("second", string(testpki.NewCA(t).PEM))
	list := a.call("GET", mtlsPath, nil)
	got := result[[]mtlsObject](t, list)
	if len(got) != 2 || list.ResultInfo.TotalCount != 2 || got[0].ID != made.ID || got[1].ID != second.ID {
		t.Errorf("list: %s", list.Body)
	}
	if page := a.call("GET", mtlsPath+"?per_page=1&page=2", nil); result[[]mtlsObject](t, page)[0].ID != second.ID || page.ResultInfo.TotalPages != 2 {
		t.Errorf("page 2: %s", page.Body)
	}
	if diff := cmp.Diff(want, result[mtlsObject](t, a.call("GET", mtlsPath+"/"+made.ID, nil))); diff != "" {
		t.Errorf("GET (-want +got):\n%s", diff)
	}

	changes := a.siteChanged.Load()
	ties := fmt.Sprintf(`{"hostnames":["API.example.com","new.example.com","x.apps.example.com"],"mtls_certificate_id":%q}`, made.ID)
	r := a.call("PUT", tiesPath, ties)
	if diff := cmp.Diff([]string{"api.example.com", "new.example.com", "x.apps.example.com"}, result[associationsObject](t, r).Hostnames); diff != "" || a.siteChanged.Load() != changes+1 {
		t.Errorf("PUT hostnames: %s, the edge was told %d times", diff, a.siteChanged.Load()-changes)
	}
	if len(r.Messages) != 1 || !strings.HasPrefix(r.Messages[0].Message, "new.example.com waits") {
		t.Errorf("messages: %+v", r.Messages)
	}
	for id, n := range map[string]int{made.ID: 3, second.ID: 0, "": 0} {
		if got := result[associationsObject](t, a.call("GET", tiesPath+"?mtls_certificate_id="+id, nil)).Hostnames; len(got) != n {
			t.Errorf("hostnames of %q: %v", id, got)
		}
	}
	other := "/zones/" + otherZone + "/certificate_authorities/hostname_associations"
	if r := a.call("PUT", other, fmt.Sprintf(`{"hostnames":["a.example.org"],"mtls_certificate_id":%q}`, made.ID)); r.Status != 200 {
		t.Error(r.Body)
	}
	if got := string(a.call("GET", mtlsPath+"/"+made.ID+"/associations", nil).Result); got != `[{"service":"hostname_associations","status":"active"},{"service":"hostname_associations","status":"active"}]` {
		t.Errorf("associations: %s", got)
	}
	if got := string(a.call("GET", mtlsPath+"/"+second.ID+"/associations", nil).Result); got != `[]` {
		t.Errorf("associations of one that is not tied: %s", got)
	}
	r = a.call("DELETE", mtlsPath+"/"+made.ID, nil)
	if r.Status != 400 || r.code() != codeConflict || !strings.Contains(r.text(), "still associated with hostnames: a.example.org, api.example.com, new") {
		t.Errorf("DELETE of one that is tied: %d %s", r.Status, r.Body)
	}
	for _, path := range []string{tiesPath, other} { // absent hostnames clear
		if r := a.call("PUT", path, fmt.Sprintf(`{"mtls_certificate_id":%q}`, made.ID)); r.Status != 200 {
			t.Error(r.Body)
		}
	}
	if diff := cmp.Diff(want, result[mtlsObject](t, a.call("DELETE", mtlsPath+"/"+made.ID, nil))); diff != "" {
		t.Errorf("DELETE (-want +got):\n%s", diff)
	}
	for _, c := range []struct{ method, path string }{{"GET", ""}, {"DELETE", ""}, {"GET", "/associations"}} {
		if r := a.call(c.method, mtlsPath+"/"+made.ID+c.path, nil); r.Status != 404 {
			t.Errorf("%s %s after DELETE: %d", c.method, c.path, r.Status)
		}
	}
	if r := a.call("PUT", tiesPath, ties); r.Status != 404 || r.code() != codeNotFound {
		t.Errorf("tied to one that is gone: %d %s", r.Status, r.Body)
	}
}

// TestMTLSRefuses is the bodies that are not about certificates.
func TestMTLSRefuses(t *testing.T) {
	a := newAPI(t)
	ca := string(testpki.NewCA(t).PEM)
	for name, c := range map[string]struct {
		path    string
		body    any
		status  int
		pointer string
	}{
		"no ca":           {mtlsPath, map[string]any{"certificates": ca}, 400, "/ca"},
		"ca is false":     {mtlsPath, map[string]any{"ca": false, "certificates": ca}, 400, "/ca"},
		"a key":           {mtlsPath, map[string]any{"ca": true, "certificates": ca, "private_key": "secret"}, 400, "/private_key"},
		"a long name":     {mtlsPath, map[string]any{"ca": true, "certificates": ca, "name": strings.Repeat("x", 256)}, 400, "/name"},
		"two lines":       {mtlsPath, map[string]any{"ca": true, "certificates": ca, "name": "a\nb"}, 400, "/name"},
		"another account": {"/accounts/" + otherZone + "/mtls_certificates", map[string]any{"ca": true, "certificates": ca}, 404, ""},
		"no body":         {mtlsPath, nil, 400, ""},
		"a bad name":      {accessPath, map[string]any{"name": "a\tb", "certificate": ca}, 400, "/name"},
		"no name":         {accessPath, map[string]any{"certificate": ca}, 400, "/name"},
		"another zone":    {"/zones/" + testAccount + "/access/certificates", map[string]any{"name": "x", "certificate": ca}, 404, ""},
	} {
		r := a.call("POST", c.path, c.body)
		pointer := ""
		if r.Errors[0].Source != nil {
			pointer = r.Errors[0].Source.Pointer
		}
		if r.Status != c.status || pointer != c.pointer || strings.Contains(r.Body, "secret") {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if all, err := a.store.TrustedCAs(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("stored: %v, %v", all, err)
	}
	if r := a.call("POST", mtlsPath, map[string]any{"ca": true, "certificates": ca, "private_key": "", "expires_on": "0001-01-01T00:00:00Z"}); r.Status != 200 {
		t.Errorf("what the old SDK sends: %s", r.Body)
	}
}

// TestAccessCertificates walks a CA of Access through its life, of a zone and of the account.
func TestAccessCertificates(t *testing.T) {
	a := newAPI(t)
	dir := t.TempDir()
	text := opensslCA(t)
	check(t, os.WriteFile(filepath.Join(dir, "ca.pem"), []byte(text), 0o600))
	fingerprint, err := exec.CommandContext(t.Context(), "openssl", "x509", "-in", filepath.Join(dir, "ca.pem"), "-noout", "-fingerprint", "-md5").Output()
	check(t, err)
	print := strings.Replace(strings.TrimSpace(string(fingerprint)), "md5", "MD5", 1)

	r := a.call("POST", accessPath, map[string]any{"name": "rootCA", "certificate": text, "associated_hostnames": []string{"MTLS.example.com"}})
	made := result[accessObject](t, r)
	want := accessObject{
		ID: made.ID, Name: "rootCA", Fingerprint: print, AssociatedHostnames: []string{"mtls.example.com"},
		CreatedAt: made.CreatedAt, UpdatedAt: made.CreatedAt, ExpiresOn: made.ExpiresOn,
	}
	if diff := cmp.Diff(want, made); diff != "" || made.CreatedAt == nil || made.ExpiresOn == nil || strings.Contains(r.Body, "BEGIN") {
		t.Fatalf("POST (-want +got):\n%s\n%s", diff, r.Body)
	}
	if diff := cmp.Diff(want, result[accessObject](t, a.call("GET", accessPath+"/"+made.ID, nil))); diff != "" {
		t.Errorf("GET (-want +got):\n%s", diff)
	}
	account := "/accounts/" + testAccount + "/access/certificates"
	r = a.call("POST", account, map[string]any{"name": "wide", "certificate": string(testpki.NewCA(t).PEM), "associated_hostnames": []string{"a.example.com", "a.example.org"}})
	wide := result[accessObject](t, r)
	if diff := cmp.Diff([]string{"a.example.com", "a.example.org"}, wide.AssociatedHostnames); diff != "" {
		t.Fatalf("account: %s %s", diff, r.Body)
	}
	for path, id := range map[string]string{accessPath: made.ID, account: wide.ID} {
		r := a.call("GET", path+"?per_page=25", nil)
		if got := result[[]accessObject](t, r); len(got) != 1 || got[0].ID != id || r.ResultInfo.PerPage != 25 {
			t.Errorf("GET %s: %s", path, r.Body)
		}
	}
	for _, c := range []struct{ method, path string }{
		{"GET", accessPath + "/" + wide.ID},
		{"GET", account + "/" + made.ID},
		{"DELETE", accessPath + "/" + wide.ID},
		{"GET", mtlsPath + "/" + made.ID},
		{"DELETE", "/zones/" + otherZone + "/access/certificates/" + made.ID},
		{"GET", tiesPath + "?mtls_certificate_id=" + made.ID},
	} {
		if r := a.call(c.method, c.path, nil); r.Status != 404 {
			t.Errorf("%s %s of another place: %d %s", c.method, c.path, r.Status, r.Body)
		}
	}
	for name, hostnames := range map[string]string{"foreign": "a.example.org", "nobody's": "example.net", "no name": "a b"} {
		for method, path := range map[string]string{"POST": accessPath, "PUT": accessPath + "/" + made.ID} {
			r := a.call(method, path, map[string]any{"name": "x", "certificate": text, "associated_hostnames": []string{"b.example.com", hostnames}})
			if r.Status != 400 || r.code() != codeForeignHostname || r.Errors[0].Source.Pointer != "/associated_hostnames/1" || !strings.Contains(r.text(), "hostnames_must_belong_to_your_domain") {
				t.Errorf("%s %s: %d %s", method, name, r.Status, r.Body)
			}
		}
	}
	if r := a.call("DELETE", accessPath+"/"+made.ID, nil); r.Status != 400 || r.code() != codeConflict || !strings.Contains(r.text(), "mtls.example.com") {
		t.Errorf("DELETE of one that is tied: %d %s", r.Status, r.Body)
	}
	for _, step := range []struct {
		body, name string
		hostnames  []string
	}{
		{`{"associated_hostnames":["b.example.com","a.example.com"],"name":"renamed","expires_on":"0001-01-01T00:00:00Z"}`, "renamed", []string{"a.example.com", "b.example.com"}},
		{`{}`, "renamed", []string{}},
		{`{"associated_hostnames":["c.example.com"],"name":""}`, "renamed", []string{"c.example.com"}},
		{`{"associated_hostnames":[]}`, "renamed", []string{}},
	} {
		r := a.call("PUT", accessPath+"/"+made.ID, step.body)
		got, then := result[accessObject](t, r), result[accessObject](t, a.call("GET", accessPath+"/"+made.ID, nil))
		if diff := cmp.Diff(step.hostnames, got.AssociatedHostnames); diff != "" || got.Name != step.name || !cmp.Equal(got, then) {
			t.Errorf("PUT %s: %s\n%s", step.body, diff, r.Body)
		}
	}
	if r := a.call("PUT", accessPath+"/"+made.ID, nil); r.Status != 400 {
		t.Errorf("a PUT without a body, which would clear: %d", r.Status)
	}
	if r := a.call("DELETE", accessPath+"/"+made.ID, nil); string(r.Result) != `{"id":"`+made.ID+`"}` {
		t.Errorf("DELETE: %s", r.Body)
	}
	if r := a.call("GET", accessPath+"/"+made.ID, nil); r.Status != 404 {
		t.Errorf("after DELETE: %d", r.Status)
	}
}

// TestTrustQuotas: each product has its own bound and its own code.
func TestTrustQuotas(t *testing.T) {
	a := newAPI(t)
	ca := testpki.NewCA(t)
	id := a.addMTLS("first", string(ca.PEM)).ID
	for i := range maxTrustedCAs - 1 {
		check(t, a.store.AddTrustedCA(t.Context(), site.TrustedCA{ID: fmt.Sprint("m", i), Product: site.MTLS, PEM: string(ca.PEM)}, nil, auditlog.Entry{}))
	}
	access := map[string]any{"name": "x", "certificate": string(ca.PEM)}
	if r := a.call("POST", mtlsPath, map[string]any{"ca": true, "certificates": string(ca.PEM)}); r.Status != 400 || r.code() != 1489 || !strings.HasPrefix(r.text(), "Hit maximum CA cert allocation.") {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	if r := a.call("POST", accessPath, access); r.Status != 200 {
		t.Errorf("the other product: %s", r.Body)
	}
	for i := range maxTrustedCAs - 1 {
		check(t, a.store.AddTrustedCA(t.Context(), site.TrustedCA{ID: fmt.Sprint("a", i), Product: site.Access, PEM: string(ca.PEM)}, nil, auditlog.Entry{}))
	}
	if r := a.call("POST", accessPath, access); r.Status != 400 || r.code() != 12130 {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	if r := a.call("GET", trustPath+"?per_page=1000", nil); r.ResultInfo.TotalCount != 2*maxTrustedCAs+1 {
		t.Errorf("listed: %+v", r.ResultInfo)
	}
	ties := make([]site.Association, maxTies)
	for i := range ties {
		ties[i] = site.Association{ZoneID: otherZone, Hostname: fmt.Sprintf("%d.example.org", i)}
	}
	check(t, a.store.UpdateTrustedCA(t.Context(), site.TrustedCA{ID: "m0"}, ties, auditlog.Entry{}))
	for path, body := range map[string]string{
		tiesPath:                            `{"hostnames":["a.example.com"],"mtls_certificate_id":"` + id + `"}`,
		trustPath + "/" + id + "/hostnames": `{"hostnames":["a.example.com"]}`,
	} {
		if r := a.call("PUT", path, body); r.Status != 400 || !strings.Contains(r.text(), "all CAs together would have 10001") {
			t.Errorf("%s above the bound: %d %s", path, r.Status, r.Body)
		}
	}
	many := `{"hostnames":["a.example.com"` + strings.Repeat(`,"a.example.com"`, maxHostnames) + `]}`
	if r := a.call("PUT", trustPath+"/"+id+"/hostnames", many); r.Status != 400 || !strings.Contains(r.text(), "1001 are too many") {
		t.Errorf("%d hostnames: %d %s", maxHostnames+1, r.Status, r.Body)
	}
}

// TestTrustCalls: our own calls, over CAs of every origin.
func TestTrustCalls(t *testing.T) {
	file, lone := testpki.NewCA(t, testpki.Name("File Root")), testpki.NewCA(t, testpki.Name("Lone Root"))
	listed := trust.CA{ID: "partner", Name: "partner", Anchors: []*x509.Certificate{file.Cert}, Policy: trust.Policy{Scope: trust.Leaf}}
	path := trust.CA{ID: "lone.pem", Name: "lone.pem", Anchors: []*x509.Certificate{lone.Cert}}
	a := newAPI(t, func(c *Config) {
		c.Base = func() site.Base {
			return site.Base{Trust: []trust.CA{listed}, Hosts: []site.BaseHost{{CAs: []trust.CA{path, listed}}}}
		}
	})
	zone := site.Zone{ID: testZone, Name: "example.com"}
	set, err := trust.NewSet([]trust.CA{listed})
	check(t, err)
	a.serve(&site.Host{Name: "file.example.com", Zone: zone, Trust: set})
	body := map[string]any{
		"name": "ours", "certificates": string(testpki.NewCA(t, testpki.Name("Ours")).PEM), "product": "access",
		"policy": map[string]any{"grace": 3600000000000, "crls": []string{"/etc/ours.crl"}}, "hostnames": []string{"file.example.com", "b.example.org"},
	}
	r := a.call("POST", trustPath, body)
	made := result[trustObject](t, r)
	if r.Status != 200 || made.Policy.Grace != time.Hour || made.Product != "access" || made.Certificates == "" || len(r.Messages) != 1 ||
		!cmp.Equal(made.Hostnames, []string{"b.example.org", "file.example.com"}) || !cmp.Equal(made.Waiting, []string{"b.example.org"}) {
		t.Fatalf("POST: %s", r.Body)
	}
	ids := []string{}
	for _, o := range result[[]trustObject](t, a.call("GET", trustPath, nil)) {
		ids = append(ids, o.ID+" "+o.Origin+" "+o.Anchors[0].Subject+" "+strings.Join(o.Hosts, ","))
	}
	want := []string{
		"managed managed CN=sekisho Issuing CA ", "partner file CN=File Root file.example.com", "lone.pem file CN=Lone Root ", made.ID + " api CN=Ours ",
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	for _, id := range []string{"managed", "partner"} {
		if o := result[trustObject](t, a.call("GET", trustPath+"/"+id, nil)); o.ID != id || strings.Count(o.Certificates, "BEGIN") != 1 {
			t.Errorf("%s: %+v", id, o)
		}
		for _, c := range []struct{ method, path, body string }{
			{"DELETE", "", ""}, {"PATCH", "/policy", `{}`}, {"PUT", "/policy", `{}`}, {"PUT", "/hostnames", `{"hostnames":[]}`}, {"POST", "/crls", `{"crl":"http://x/y"}`},
		} {
			if r := a.call(c.method, trustPath+"/"+id+c.path, c.body); r.Status != 400 || r.code() != codeReadOnly {
				t.Errorf("%s %s%s: %d %s", c.method, id, c.path, r.Status, r.Body)
			}
		}
	}
	if r := a.call("PATCH", trustPath+"/nobody/policy", `{}`); r.Status != 404 {
		t.Errorf("nobody: %d", r.Status)
	}
	if r := a.call("DELETE", trustPath+"/"+made.ID, nil); r.Status != 400 || r.code() != codeConflict {
		t.Errorf("DELETE of one that is tied: %s", r.Body)
	}
	changes := a.siteChanged.Load()
	if r := a.call("PUT", trustPath+"/"+made.ID+"/hostnames", `{"hostnames":[]}`); len(result[trustObject](t, r).Hostnames) != 0 || a.siteChanged.Load() != changes+1 {
		t.Errorf("untied: %s", r.Body)
	}
	for body, status := range map[string]int{`{}`: 400, `{"hostnames":["example.net"]}`: 400, `{"hostnames":[],"x":1}`: 400, `{"hostnames":"a"}`: 400} {
		if r := a.call("PUT", trustPath+"/"+made.ID+"/hostnames", body); r.Status != status {
			t.Errorf("hostnames %s: %d %s", body, r.Status, r.Body)
		}
	}
	if r := a.call("DELETE", trustPath+"/"+made.ID, nil); string(r.Result) != `{"id":"`+made.ID+`"}` {
		t.Errorf("DELETE: %s", r.Body)
	}
	for name, change := range map[string]func(map[string]any){
		"/name": func(m map[string]any) { m["name"] = " " }, "/product": func(m map[string]any) { m["product"] = "zero" },
		"/policy/scope": func(m map[string]any) { m["policy"] = map[string]any{"scope": "x"} }, "/hostnames/0": func(m map[string]any) { m["hostnames"] = []string{"x"} },
		"/policy/crls": func(m map[string]any) { m["policy"] = map[string]any{"crls": []string{"relative.crl"}} },
	} {
		bad := map[string]any{"name": "ours", "certificates": body["certificates"]}
		change(bad)
		if r := a.call("POST", trustPath, bad); r.Status != 400 || r.Errors[0].Source.Pointer != name {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
}

// TestTrustPolicy: PUT sets a policy, PATCH some of its fields, and every mistake changes nothing.
func TestTrustPolicy(t *testing.T) {
	a := newAPI(t)
	id := a.addMTLS("ca", string(testpki.NewCA(t).PEM)).ID
	policy := func() trust.Policy {
		t.Helper()
		return result[trustObject](t, a.call("GET", trustPath+"/"+id, nil)).Policy
	}
	if diff := cmp.Diff(trust.Policy{}, policy()); diff != "" {
		t.Errorf("a new CA's policy is not the default: %s", diff)
	}
	for _, step := range []struct {
		method, path, body string
		want               trust.Policy
	}{
		{"PATCH", "/policy", `{"scope":"leaf","crls":["/a.crl"]}`, trust.Policy{Scope: trust.Leaf, CRLs: []string{"/a.crl"}}},
		{"POST", "/crls", `{"crl":"http://crl.example/b"}`, trust.Policy{Scope: trust.Leaf, CRLs: []string{"/a.crl", "http://crl.example/b"}}},
		{"POST", "/crls", `{"crl":"/a.crl"}`, trust.Policy{Scope: trust.Leaf, CRLs: []string{"/a.crl", "http://crl.example/b"}}},
		{"PATCH", "/policy", `{"crls":["/c.crl"],"grace":1000000000}`, trust.Policy{Scope: trust.Leaf, CRLs: []string{"/c.crl"}, Grace: time.Second}},
		{"PATCH", "/policy", `{"crls":null,"scope":""}`, trust.Policy{Grace: time.Second}},
		{"PATCH", "/policy", `{}`, trust.Policy{Grace: time.Second}},
		{"PUT", "/policy", `{"ocsp_nonce":true,"sources":["ocsp"]}`, trust.Policy{OCSPNonce: true, Sources: []trust.Source{trust.OCSP}}},
	} {
		changes := a.siteChanged.Load()
		r := a.call(step.method, trustPath+"/"+id+step.path, step.body)
		if diff := cmp.Diff(step.want, result[trustObject](t, r).Policy); diff != "" || a.siteChanged.Load() != changes+1 {
			t.Errorf("%s %s: %d %s\nthe edge was told %d times", step.method, step.body, r.Status, diff, a.siteChanged.Load()-changes)
		}
		if diff := cmp.Diff(step.want, policy()); diff != "" {
			t.Errorf("%s %s, then: %s", step.method, step.body, diff)
		}
	}
	before := policy()
	for _, c := range []struct{ method, path, body, pointer string }{
		{"PATCH", "/policy", `{"scope":"everything"}`, "/scope"},
		{"PATCH", "/policy", `{"on_failure":"later"}`, "/on_failure"},
		{"PUT", "/policy", `{"sources":["dns"]}`, "/sources"},
		{"PUT", "/policy", `{"grace":-1}`, "/grace"},
		{"PUT", "/policy", `{"crls":["a.crl"]}`, "/crls"},
		{"PUT", "/policy", `{"crlsets":["sub/set"]}`, "/crlsets"},
		{"PUT", "/policy", `{"crls":["ftp://x/y"]}`, "/crls"},
		{"PUT", "/policy", `{"sources":["ocsp"],"crls":["/a.crl"]}`, "/crls"},
		{"PUT", "/policy", `{"grace":"1h"}`, "/grace"},
		{"PUT", "/policy", `{"on_faliure":"hard"}`, ""},
		{"PATCH", "/policy", `{"scope":"leaf","scope":"chain"}`, "/scope"},
		{"PATCH", "/policy", `[]`, ""},
		{"PATCH", "/policy", `null`, ""},
		{"PATCH", "/policy", ``, ""},
		{"POST", "/crls", `{"crl":"relative.crl"}`, "/crl"},
		{"POST", "/crls", `{"crl":""}`, "/crl"},
		{"POST", "/crls", `{"crl":"/a.crl"}`, "/crl"}, // sources names ocsp alone
		{"POST", "/crls", `{"url":"/a.crl"}`, ""},
	} {
		changes := a.siteChanged.Load()
		r := a.call(c.method, trustPath+"/"+id+c.path, c.body)
		pointer := ""
		if len(r.Errors) > 0 && r.Errors[0].Source != nil {
			pointer = r.Errors[0].Source.Pointer
		}
		if r.Status != 400 || pointer != c.pointer || a.siteChanged.Load() != changes {
			t.Errorf("%s %s: %d %s, want the pointer %q", c.method, c.body, r.Status, r.Body, c.pointer)
		}
	}
	r := a.call("PUT", trustPath+"/"+id+"/policy", `{"scope":"x","require":"y"}`)
	if len(r.Errors) != 2 {
		t.Errorf("two mistakes are answered with %d errors: %s", len(r.Errors), r.Body)
	}
	if diff := cmp.Diff(before, policy()); diff != "" {
		t.Errorf("a mistake changed the policy: %s", diff)
	}
}

// TestTrustNotReadable: a record that cannot be read any more is shown with its error, and can be deleted.
func TestTrustNotReadable(t *testing.T) {
	a := newAPI(t)
	const id = "00000000-0000-4000-8000-000000000001"
	check(t, a.store.AddTrustedCA(t.Context(), site.TrustedCA{ID: id, Product: site.MTLS, Name: "broken", PEM: "rot"}, nil, auditlog.Entry{}))
	if o := result[trustObject](t, a.call("GET", trustPath+"/"+id, nil)); o.Error == "" || o.Name != "broken" || o.ExpiresOn != nil {
		t.Errorf("%+v", o)
	}
	if r := a.call("GET", mtlsPath, nil); r.Status != 200 || !strings.Contains(r.Body, `"expires_on":null`) {
		t.Errorf("list: %s", r.Body)
	}
	if r := a.call("DELETE", mtlsPath+"/"+id, nil); r.Status != 200 {
		t.Errorf("DELETE: %s", r.Body)
	}
}

// TestTrustNotInForce: what the edge cannot take is told as stored.
func TestTrustNotInForce(t *testing.T) {
	a := newAPI(t)
	id := a.addMTLS("ca", string(testpki.NewCA(t).PEM)).ID
	text := "no"
	a.siteError.Store(&text)
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"POST", mtlsPath, map[string]any{"ca": true, "certificates": string(testpki.NewCA(t).PEM)}},
		{"PATCH", trustPath + "/" + id + "/policy", `{"scope":"leaf"}`},
		{"DELETE", mtlsPath + "/" + id, nil},
	} {
		if r := a.call(c.method, c.path, c.body); r.Status != 500 || r.code() != codeNotInForce {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.Status, r.Body)
		}
	}
	if all, err := a.store.TrustedCAs(t.Context()); err != nil || len(all) != 1 || all[0].ID == id {
		t.Errorf("stored: %+v, %v", all, err)
	}
}

// noCAs is a store that cannot read its CAs.
type noCAs struct{ site.Records }

func (noCAs) TrustedCAs(context.Context) ([]site.TrustedCA, error) { return nil, errors.New("broken") }

// TestTrustStoreBroken: a failure of the store is no answer about a CA.
func TestTrustStoreBroken(t *testing.T) {
	a := newAPI(t, func(c *Config) { c.Records = noCAs{c.Records} })
	const id = "00000000-0000-4000-8000-000000000001"
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"GET", mtlsPath, nil},
		{"GET", mtlsPath + "/" + id, nil},
		{"DELETE", mtlsPath + "/" + id, nil},
		{"GET", accessPath, nil},
		{"POST", mtlsPath, map[string]any{"ca": true, "certificates": string(testpki.NewCA(t).PEM)}},
		{"GET", trustPath, nil},
		{"GET", trustPath + "/x", nil},
		{"PUT", tiesPath, `{"mtls_certificate_id":"` + id + `"}`},
		{"PATCH", trustPath + "/" + id + "/policy", `{}`},
	} {
		if r := a.call(c.method, c.path, c.body); r.Status != 500 || r.code() != codeInternal {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.Status, r.Body)
		}
	}
}
