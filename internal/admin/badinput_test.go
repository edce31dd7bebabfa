package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"net/http"
	"strings"
	"testing"

	"sekisho/internal/pkix"
)

func csrWith(t *testing.T, subject x509pkix.Name, key any) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	check(t, err)
	return string(pkix.EncodeCSR(der))
}

// TestBadRequests: each is refused with HTTP 400, names the field and leaves no certificate behind.
func TestBadRequests(t *testing.T) {
	a := newAPI(t)
	good := newCSR(t, "good")
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	check(t, err)
	rsa1024, err := rsa.GenerateKey(rand.Reader, 1024)
	check(t, err)
	keyPEM, err := pkix.EncodePrivateKey(p256)
	check(t, err)
	broken, err := pkix.ParseCSR([]byte(good))
	check(t, err)
	der := append([]byte(nil), broken.Raw...)
	der[len(der)-3] ^= 1
	certificate := a.issue("first").Certificate

	cn := x509pkix.Name{CommonName: "x"}
	for name, c := range map[string]struct {
		body    any
		pointer string
		say     string
	}{
		"no csr":           {map[string]any{"validity_days": 1}, "/csr", "PEM"},
		"text":             {map[string]any{"csr": "hello", "validity_days": 1}, "/csr", ""},
		"bad signature":    {map[string]any{"csr": string(pkix.EncodeCSR(der)), "validity_days": 1}, "/csr", "signature"},
		"weak RSA":         {map[string]any{"csr": csrWith(t, cn, rsa1024), "validity_days": 1}, "/csr", "2048"},
		"wrong key type":   {map[string]any{"csr": csrWith(t, cn, p224), "validity_days": 1}, "/csr", ""},
		"huge":             {map[string]any{"csr": good + strings.Repeat("\n", 65<<10), "validity_days": 1}, "/csr", "65536"},
		"nobody":           {map[string]any{"csr": csrWith(t, x509pkix.Name{}, p256), "validity_days": 1}, "", "subject"},
		"a private key":    {map[string]any{"csr": string(keyPEM), "validity_days": 1}, "/csr", "private key"},
		"a certificate":    {map[string]any{"csr": certificate, "validity_days": 1}, "/csr", ""},
		"two requests":     {map[string]any{"csr": good + good, "validity_days": 1}, "/csr", ""},
		"trailing bytes":   {map[string]any{"csr": good + "and more", "validity_days": 1}, "/csr", ""},
		"no days":          {map[string]any{"csr": good, "validity_days": 0}, "/validity_days", "at least 1"},
		"too many days":    {map[string]any{"csr": good, "validity_days": 99999}, "/validity_days", ""},
		"days are text":    {map[string]any{"csr": good, "validity_days": "10"}, "/validity_days", "whole number"},
		"csr is a list":    {map[string]any{"csr": []string{good}}, "/csr", ""},
		"unknown profile":  {map[string]any{"csr": good, "validity_days": 1, "profile": "root"}, "/profile", "client and server"},
		"subject is no DN": {map[string]any{"csr": good, "validity_days": 1, "subject": "what"}, "/subject", ""},
	} {
		r := a.call("POST", certsPath, c.body)
		if r.Status != http.StatusBadRequest || len(r.Errors) != 1 || r.Errors[0].Source == nil {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
			continue
		}
		if c.pointer != "" && r.Errors[0].Source.Pointer != c.pointer {
			t.Errorf("%s: pointer %q, want %q: %s", name, r.Errors[0].Source.Pointer, c.pointer, r.text())
		}
		if !strings.Contains(strings.ToLower(r.text()), strings.ToLower(c.say)) {
			t.Errorf("%s: %q does not speak of %q", name, r.text(), c.say)
		}
		if strings.Contains(r.text(), "failed to") || strings.Contains(r.text(), strings.TrimSpace(string(keyPEM[60:100]))) {
			t.Errorf("%s: %s", name, r.text())
		}
	}
	if r := a.call("GET", certsPath, nil); r.ResultInfo.TotalCount != 1 {
		t.Errorf("%d certificates, want the first only", r.ResultInfo.TotalCount)
	}
}

// TestBadBodies: what is no JSON says at which byte, and what a shell did to it.
func TestBadBodies(t *testing.T) {
	a := newAPI(t)
	for name, c := range map[string]struct {
		body   string
		status int
		say    []string
	}{
		"cut at the first space": {`{"csr":"-----BEGIN`, 400, []string{"byte 18 of 18", `'"$VALUE"'`, "first space"}},
		"empty":                  {"", 400, []string{"no body"}},
		"blank":                  {" \n", 400, []string{"no body"}},
		"a form":                 {"csr=abc&validity_days=3", 400, []string{"byte 1 of"}},
		"single quotes":          {`{'csr':'x'}`, 400, []string{"byte 2 of 11", "quote"}},
		"a file name":            {"@csr.json", 400, []string{"byte 1"}},
		"line ends":              {"{\"csr\":\"-----BEGIN CERTIFICATE REQUEST-----\nMII\"}", 400, []string{"byte 44 of", `\n`}},
		"two objects":            {`{"csr":"a"}{"csr":"b"}`, 400, []string{"byte 12 of 22"}},
		"a name twice":           {`{"csr":"a","validity_days":1,"csr":"b"}`, 400, []string{"/csr", "twice", "byte 30"}},
		"a name twice inside":    {`{"x":[{"a":1,"a":2}]}`, 400, []string{"/x/0/a", "twice"}},
		"a long name twice":      {`{"` + strings.Repeat("a", 300_000) + `":1,"` + strings.Repeat("a", 300_000) + `":2}`, 400, []string{"aaa… is in the body twice"}},
		"no UTF-8":               {"{\"csr\":\"a\xff\"}", 400, []string{"UTF-8", "byte 10 of 12"}},
		"a list":                 {`[]`, 400, []string{"object"}},
		"null":                   {`null`, 400, []string{"object"}},
		"a number":               {`17`, 400, []string{"object"}},
		"deep":                   {`{"x":` + strings.Repeat("[", 20000), 400, []string{"depth"}},
		"too long":               {`{"csr":"` + strings.Repeat("a", 1<<20) + `"}`, 413, []string{"1 MiB"}},
	} {
		r := a.call("POST", certsPath, c.body)
		if r.Status != c.status {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
		for _, part := range c.say {
			if !strings.Contains(r.text(), part) {
				t.Errorf("%s: %q is not in %q", name, part, r.text())
			}
		}
	}
}

// TestLost: paths, ids and zones that are not.
func TestLost(t *testing.T) {
	a := newAPI(t)
	id := a.issue("here").ID
	const nobody = "00000000-0000-4000-8000-000000000000"
	for _, c := range []struct {
		method, path string
		status, code int
	}{
		{"GET", certsPath + "/" + id, 200, 0},
		{"GET", certsPath + "/" + id + "/", 200, 0},
		{"GET", "/" + certsPath + "//" + id + "///", 200, 0},
		{"HEAD", certsPath + "/" + id, 200, 0},
		{"GET", certsPath + "/" + nobody, 404, codeNotFound},
		{"DELETE", certsPath + "/" + nobody, 404, codeNotFound},
		{"DELETE", certsPath + "/" + nobody + "?reason=keyCompromise", 404, codeNotFound},
		{"PATCH", certsPath + "/" + nobody, 404, codeNotFound},
		{"GET", "/zones/" + otherZone + "/client_certificates/" + id, 404, codeNotFound},
		{"DELETE", "/zones/" + otherZone + "/client_certificates/" + id, 404, codeNotFound},
		{"DELETE", "/zones/" + otherZone + "/client_certificates/" + id + "?reason=1", 404, codeNotFound},
		{"PATCH", "/zones/" + otherZone + "/client_certificates/" + id, 404, codeNotFound},
		{"GET", "/zones/" + strings.Repeat("0", 32), 404, codeNoZone},
		{"DELETE", "/zones/" + strings.Repeat("0", 32) + "/client_certificates/" + id, 404, codeNoZone},
		{"GET", "/zones/example.com", 404, codeNoRoute},
		{"GET", "/zones/" + strings.ToUpper(testZone), 404, codeNoRoute},
		{"GET", certsPath + "/" + strings.ToUpper(id), 404, codeNoRoute},
		{"GET", certsPath + "/1", 404, codeNoRoute},
		{"GET", certsPath + "/..%2f" + id, 404, codeNoRoute},
		{"GET", "/zones/" + testZone + "/dns_records", 404, codeNoRoute},
		{"GET", "/accounts/" + strings.Repeat("0", 32), 404, codeNotFound},
		{"PUT", certsPath + "/" + id, 405, codeMethod},
		{"POST", certsPath + "/" + id, 405, codeMethod},
		{"OPTIONS", "/zones", 405, codeMethod},
		{"POST", "/sekisho/config/reload", 404, codeNoRoute},
	} {
		r := a.call(c.method, c.path, nil)
		if r.Status != c.status || r.code() != c.code {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.Status, r.Body)
		}
		if r.Status == 405 && r.Header.Get("Allow") == "" {
			t.Errorf("%s %s: 405 without Allow", c.method, c.path)
		}
	}
	if got := result[certificateObject](t, a.call("GET", certsPath+"/"+id, nil)); got.Status != "active" {
		t.Errorf("the certificate is %s", got.Status)
	}
}
