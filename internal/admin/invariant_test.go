package admin

import (
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/principal"
	"sekisho/internal/site"
	"sekisho/internal/testpki"
)

// fill puts real ids into a route's pattern.
func fill(pattern, id string) string {
	return strings.NewReplacer("{zone}", testZone, "{account}", testAccount, "{id}", id, "{name}", "issuing", "{ca}", id, "{token}", testToken).Replace(pattern)
}

// bodyFor is a body with which the call would succeed.
func bodyFor(t *testing.T, r route) any {
	switch {
	case r.method == "POST" && strings.HasSuffix(r.pattern, "client_certificates"):
		return map[string]any{"csr": newCSR(t, "nobody"), "validity_days": 1}
	case r.method == "POST" && strings.HasSuffix(r.pattern, "tokens"):
		return `{"name":"stolen","role":"edit","email":"a@b.example"}`
	case strings.HasSuffix(r.pattern, "hostname_associations") && r.method == "PUT":
		return `{"hostnames":["a.example.com"]}`
	case r.method == "POST" && strings.HasSuffix(r.pattern, "mtls_certificates"):
		return map[string]any{"ca": true, "certificates": string(testpki.NewCA(t).PEM), "name": "stolen"}
	case r.method == "POST" && strings.HasSuffix(r.pattern, "access/certificates"):
		return map[string]any{"certificate": string(testpki.NewCA(t).PEM), "name": "stolen", "associated_hostnames": []string{"a.example.com"}}
	case r.method == "POST" && strings.HasSuffix(r.pattern, "/trust"):
		return map[string]any{"certificates": string(testpki.NewCA(t).PEM), "name": "stolen", "hostnames": []string{"a.example.com"}}
	case strings.HasSuffix(r.pattern, "{ca}/hostnames"), strings.HasSuffix(r.pattern, "access/certificates/{id}") && r.method == "PUT":
		return `{"hostnames":["a.example.com"]}`
	case strings.HasSuffix(r.pattern, "/policy"):
		return `{"on_failure":"soft"}`
	case strings.HasSuffix(r.pattern, "/crls"):
		return `{"crl":"http://evil.example/empty.crl"}`
	case strings.HasSuffix(r.pattern, "settings") && r.method == "PUT":
		return `{"settings":[{"hostname":"a.example.com","client_certificate_forwarding":true}]}`
	}
	return nil
}

// TestInvariant12AdminNeedsCredential walks the route table: no call does anything without a valid credential, and
// none that changes something does with a credential that may only read.
func TestInvariant12AdminNeedsCredential(t *testing.T) {
	reloads := 0
	var calls atomic.Int64 // the clock runs fast, so that wrong credentials are forgotten at once
	a := newAPI(t, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(calls.Add(1)) * forgiveness) }
		c.Reload = func(context.Context) error { reloads++; return nil }
	})
	id := a.issue("victim").ID
	check(t, a.store.AddTrustedCA(t.Context(), site.TrustedCA{ID: id, Product: site.MTLS, PEM: string(testpki.NewCA(t).PEM)}, nil, auditlog.Entry{}))
	before := len(a.audit("done"))
	callers := map[string]func(*http.Request){
		"nobody":      func(*http.Request) {},
		"wrong token": func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("x", 40)) },
		"wrong key":   func(r *http.Request) { r.Header.Set("X-Auth-Email", testEmail); r.Header.Set("X-Auth-Key", "x") },
		"wrong owner": func(r *http.Request) {
			r.Header.Set("X-Auth-Email", "eve@example.com")
			r.Header.Set("X-Auth-Key", a.edit)
		},
		"basic":         func(r *http.Request) { r.SetBasicAuth(testEmail, a.edit) },
		"read":          func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+a.read) },
		"token in path": func(r *http.Request) { r.URL.RawQuery = "token=" + a.edit },
	}
	badForm := map[string]bool{"wrong key": true, "basic": true} // Cloudflare answers 400 to what cannot be a credential
	for name, caller := range callers {
		for _, route := range a.server.routes() {
			if name == "read" && isSafe(route.method) {
				continue
			}
			for _, method := range []string{route.method, "HEAD", "OPTIONS", "PUT"} {
				if name == "read" && isSafe(method) {
					continue
				}
				r := a.do(method, fill(route.pattern, id), bodyFor(t, route), caller)
				if r.Status != http.StatusUnauthorized && r.Status != http.StatusForbidden && !(r.Status == 400 && badForm[name]) {
					t.Errorf("%s: %s %s: %d %s", name, method, route.pattern, r.Status, r.Body)
				}
				if r.Success || (len(r.Result) > 0 && string(r.Result) != "null") {
					t.Errorf("%s: %s %s answered with a result: %s", name, method, route.pattern, r.Body)
				}
			}
		}
		for _, path := range []string{"/", "/nowhere", "/zones/" + testZone + "/dns_records"} {
			if r := a.do("GET", path, nil, caller); name != "read" && (r.Status == 404 || r.Status == 200) {
				t.Errorf("%s learns about %s: %d", name, path, r.Status)
			}
		}
	}
	if done := a.audit("done"); len(done) != before || reloads != 0 || a.siteChanged.Load() != 0 {
		t.Errorf("something was done: %+v, %d reloads", done[before:], reloads)
	}
	if got := result[certificateObject](t, a.call("GET", certsPath+"/"+id, nil)); got.Status != "active" {
		t.Errorf("the certificate is %s", got.Status)
	}
	if _, err := a.store.TokenByHash(t.Context(), principal.HashSecret(a.read)); err != nil {
		t.Errorf("a token is gone: %v", err)
	}
	if refused := a.audit("refused"); len(refused) == 0 || refused[0].Actor != "read token" {
		t.Errorf("refusals on record: %+v", refused)
	}
}

// TestInvariant12AdminAddress: in clear on loopback only.
func TestInvariant12AdminAddress(t *testing.T) {
	for addr, plain := range map[string]bool{
		"127.0.0.1:8440": true, "localhost:0": true, "[::1]:8440": true, "127.9.9.9:1": true, "[::ffff:127.0.0.1]:1": true,
		":8440": false, "0.0.0.0:8440": false, "[::]:8440": false, "192.0.2.1:8440": false, "example.com:443": false,
		"localhost.example.com:1": false, "127.0.0.1.example.com:1": false,
	} {
		if err := CheckAddress(addr, false); (err == nil) != plain {
			t.Errorf("%s in clear: %v", addr, err)
		}
		if err := CheckAddress(addr, true); err != nil {
			t.Errorf("%s with TLS: %v", addr, err)
		}
	}
	if CheckAddress("8440", true) == nil {
		t.Error("an address without a port is taken")
	}
	inner, err := net.Listen("tcp", "0.0.0.0:0")
	check(t, err)
	ln := Listener(inner, nil)
	defer ln.Close()
	if conn, err := ln.Accept(); err == nil || conn != nil {
		t.Error("a listener on every address without TLS accepts")
	}
}

// TestInvariant11NothingSecretLeaves: no private key and no token in an answer or a log line, the one answer that
// creates a token aside.
func TestInvariant11NothingSecretLeaves(t *testing.T) {
	a := newAPI(t)
	id := a.issue("device").ID
	secrets := []string{a.edit, a.read, base64.StdEncoding.EncodeToString([]byte(a.edit))}
	keyPEM := "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZm9v\n-----END PRIVATE KEY-----\n"
	secrets = append(secrets, "MIGHAgEAMBMGByqGSM49")
	made := a.call("POST", "/sekisho/tokens", `{"name":"third","role":"read"}`)
	if made.Status != 200 {
		t.Fatal(made.Body)
	}
	secrets = append(secrets, result[tokenObject](t, made).Value)
	var seen strings.Builder
	for _, route := range a.server.routes() {
		if route.pattern == "/sekisho/tokens" && route.method == "POST" {
			continue
		}
		for _, who := range []string{a.edit, a.read, result[tokenObject](t, made).Value, "wrong"} {
			body := bodyFor(t, route)
			switch last := route.pattern[strings.LastIndexByte(route.pattern, '/')+1:]; {
			case route.method == "POST" && last == "client_certificates":
				body = map[string]any{"csr": keyPEM, "validity_days": 1}
			case route.method == "POST" && (last == "mtls_certificates" || last == "trust" || last == "certificates"):
				body = map[string]any{"ca": true, "name": "x", "certificates": keyPEM, "certificate": keyPEM}
			}
			r := a.do(route.method, fill(route.pattern, id), body, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+who) })
			seen.WriteString(r.Body)
		}
		r := a.do(route.method, fill(route.pattern, id), nil, func(r *http.Request) {
			r.Header.Set("X-Auth-Email", testEmail)
			r.Header.Set("X-Auth-Key", a.edit)
		})
		seen.WriteString(r.Body)
	}
	for _, secret := range secrets {
		if strings.Contains(seen.String(), secret) {
			t.Errorf("an answer holds a secret: %.12s…", secret)
		}
		if strings.Contains(a.logs.String(), secret) {
			t.Errorf("the log holds a secret: %.12s…", secret)
		}
		for _, e := range append(a.audit("done"), a.audit("refused")...) {
			for _, v := range e.Detail {
				if strings.Contains(v, secret) {
					t.Errorf("the audit log holds a secret: %.12s…", secret)
				}
			}
		}
	}
	if !strings.Contains(a.logs.String(), `"actor":"edit token"`) {
		t.Error("the log does not say who called")
	}
}

// TestBothCredentials: a Bearer token, or the same secret as a key with its owner's e-mail; and what a wrong form gets.
func TestBothCredentials(t *testing.T) {
	a := newAPI(t)
	header := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	for name, c := range map[string]struct {
		edit         func(*http.Request)
		status, code int
		chain        int
	}{
		"bearer":        {header("Authorization", "Bearer "+a.edit), 200, 0, 0},
		"lower bearer":  {header("Authorization", "bearer "+a.edit), 200, 0, 0},
		"key":           {header("X-Auth-Email", testEmail, "X-Auth-Key", a.edit), 200, 0, 0},
		"none":          {header(), 401, codeAuthentication, 0},
		"wrong":         {header("Authorization", "Bearer "+strings.Repeat("x", 40)), 401, codeAuthentication, 0},
		"no scheme":     {header("Authorization", a.edit), 400, codeHeaders, codeAuthorization},
		"empty bearer":  {header("Authorization", "Bearer"), 400, codeHeaders, codeAuthorization},
		"e-mail alone":  {header("X-Auth-Email", testEmail), 400, codeHeaders, codeKey},
		"key alone":     {header("X-Auth-Key", a.edit), 400, codeHeaders, codeEmail},
		"no e-mail":     {header("X-Auth-Email", "admin", "X-Auth-Key", a.edit), 400, codeHeaders, codeEmail},
		"another owner": {header("X-Auth-Email", "eve@example.com", "X-Auth-Key", a.edit), 401, codeAuthentication, 0},
	} {
		r := a.do("GET", "/user/tokens/verify", nil, c.edit)
		chain := 0
		if len(r.Errors) > 0 && len(r.Errors[0].Chain) > 0 {
			chain = r.Errors[0].Chain[0].Code
		}
		if r.Status != c.status || r.code() != c.code || chain != c.chain {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
		if r.Status == 401 && r.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: 401 without WWW-Authenticate (RFC 9110, Section 11.6.1)", name)
		}
	}
}

// TestBrowserGuard: a page of another origin, and a name that was made to point at loopback.
func TestBrowserGuard(t *testing.T) {
	a := newAPI(t, func(c *Config) { c.Hostnames = []string{"admin.example.com"} })
	send := func(method string, edit func(*http.Request)) answer {
		return a.do(method, "/zones", nil, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+a.edit)
			edit(r)
		})
	}
	for host, status := range map[string]int{
		"localhost": 200, "localhost:8440": 200, "127.0.0.1": 200, "[::1]:8440": 200, "LOCALHOST.": 200, "admin.example.com:1": 200,
		"evil.example": 403, "127.0.0.1.evil.example": 403, "localhost.evil.example": 403, "evil.example:8440": 403,
	} {
		r := send("GET", func(r *http.Request) { r.Host = host })
		if r.Status != status {
			t.Errorf("Host %s: %d %s", host, r.Status, r.Body)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Type": "application/json"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("Host %s: %s: %q", host, name, got)
			}
		}
	}
	if r := send("POST", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }); r.Status != 403 {
		t.Errorf("cross-site: %d %s", r.Status, r.Body)
	}
	if r := send("POST", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }); r.Status != 403 {
		t.Errorf("foreign origin: %d %s", r.Status, r.Body)
	}
}

// TestPatience: wrong credentials are held back after a while, right ones from the same address never are.
func TestPatience(t *testing.T) {
	a := newAPI(t)
	wrong := func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong-but-well-formed-0123456789abcdef") }
	for range patience {
		a.do("GET", "/zones", nil, wrong)
	}
	start := a.server.Now()
	if r := a.do("GET", "/zones", nil, wrong); r.Status != 401 {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	if waited := a.server.Now().Sub(start); waited < holdBack/2 {
		t.Errorf("not held back: %v", waited)
	}
	start = a.server.Now()
	if r := a.call("GET", "/zones", nil); r.Status != 200 || a.server.Now().Sub(start) > holdBack/2 {
		t.Errorf("a right credential: %d after %v", r.Status, a.server.Now().Sub(start))
	}
}
