package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/store"
	"sekisho/internal/testpki"
)

// TestGolden pins the whole bodies of answers, with what differs from run to run replaced by its kind. Run the test with
// -update to write the files.
func TestGolden(t *testing.T) {
	a := newAPI(t)
	made := a.issue("Iwa Te")
	brought := string(testpki.NewCA(t, testpki.Name("Partner Root")).PEM)
	for _, c := range []struct {
		name, method, path string
		body               any
	}{
		{"zone", "GET", "/zones/" + testZone, nil},
		{"zones", "GET", "/zones?name=example.com&status=active&account.id=" + testAccount + "&match=all", nil},
		{"zones-none", "GET", "/zones?name=example.net", nil},
		{"accounts", "GET", "/accounts", nil},
		{"token", "GET", "/user/tokens/verify", nil},
		{"certificate", "GET", certsPath + "/" + made.ID, nil},
		{"certificates", "GET", certsPath, nil},
		{"certificates-past-the-end", "GET", certsPath + "?page=2", nil},
		{"revoke", "DELETE", certsPath + "/" + made.ID, nil},
		{"revoke-again", "DELETE", certsPath + "/" + made.ID, nil},
		{"reactivate", "PATCH", certsPath + "/" + made.ID, `{"reactivate":true}`},
		{"associations", "PUT", tiesPath, `{"hostnames":["api.example.com"]}`},
		{"settings", "PUT", switchesPath, `{"settings":[{"hostname":"api.example.com","client_certificate_forwarding":true}]}`},
		{"settings-foreign", "PUT", switchesPath, `{"settings":[{"hostname":"api.example.org"}]}`},
		{"mtls-add", "POST", mtlsPath, map[string]any{"ca": true, "certificates": brought, "name": "partner"}},
		{"mtls", "GET", mtlsPath, nil},
		{"mtls-refused", "POST", mtlsPath, map[string]any{"ca": false, "certificates": brought}},
		{"access-add", "POST", accessPath, map[string]any{"certificate": brought, "name": "partner", "associated_hostnames": []string{"api.example.com"}}},
		{"access", "GET", accessPath, nil},
		{"trust", "GET", "/sekisho/trust", nil},
		{"no-route", "GET", "/zones/example.com", nil},
		{"no-object", "GET", certsPath + "/00000000-0000-4000-8000-000000000000", nil},
		{"invalid", "POST", certsPath, `{"csr":"x","validity_days":0}`},
		{"malformed", "POST", certsPath, `{"csr":"-----BEGIN`},
		{"method", "PUT", "/zones", nil},
		{"ca", "GET", "/sekisho/ca", nil},
		{"crl", "GET", "/sekisho/ca/issuing/crl", nil},
		{"version", "GET", "/sekisho/version", nil},
		{"tokens", "GET", "/sekisho/tokens", nil},
	} {
		r := a.call(c.method, c.path, c.body)
		if strings.Contains(r.Body, `"errors":null`) || strings.Contains(r.Body, `"messages":null`) || !strings.Contains(r.Body, `"result":`) {
			t.Errorf("%s: an envelope without its arrays: %s", c.name, r.Body)
		}
		if r.Success != (r.Status < 400) {
			t.Errorf("%s: success %t with status %d", c.name, r.Success, r.Status)
		}
		golden(t, c.name, masked(t, r.Body))
	}
}

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".json")
	if *update {
		check(t, os.MkdirAll("testdata", 0o755))
		check(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// masked replaces ids, times, PEM and hexadecimal by what they are, and indents.
func masked(t *testing.T, body string) string {
	t.Helper()
	for _, m := range []struct{ pattern, by string }{
		{`-----BEGIN ([A-Z0-9 ]+)-----(\\n|[A-Za-z0-9+/=])+-----END [A-Z0-9 ]+-----\\n`, "PEM of $1"},
		{`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`, "UUID"},
		{`20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z`, "TIME"},
		{`"[0-9a-f]{64}"`, `"HEX64"`},
		{`(=|:)[0-9A-F:]{47}"`, `${1}MD5"`},
		{`"serial_number":"[0-9a-f]+"`, `"serial_number":"HEX"`},
		{`"[0-9a-f]{40}"`, `"HEX40"`},
		{`"der":"[^"]+"`, `"der":"BASE64"`},
		{`[0-9a-f]{32}`, "ID"},
	} {
		if m.by == "ID" {
			body = strings.NewReplacer(testZone, "ZONE", testAccount, "ACCOUNT").Replace(body)
		}
		body = regexp.MustCompile(m.pattern).ReplaceAllString(body, m.by)
	}
	var buf bytes.Buffer
	check(t, json.Indent(&buf, []byte(body), "", "  "))
	return buf.String()
}

// TestDiskFull: a failure that is nobody's mistake is told by reference, and as what it is where callers may know it;
// nothing is left behind, and a change that cannot be recorded does not happen.
func TestDiskFull(t *testing.T) {
	a := newAPI(t, func(c *Config) {
		c.Explain = func(err error) string {
			if errors.Is(err, store.ErrDiskFull) {
				return store.ErrDiskFull.Error() + ": nothing was stored"
			}
			return ""
		}
	})
	made := a.issue("before")
	recorded := len(a.audit("done"))
	a.diskFull.Store(true)
	var r answer
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"POST", certsPath, map[string]any{"csr": newCSR(t, "lost"), "validity_days": 1}},
		{"DELETE", certsPath + "/" + made.ID, nil},
		{"PUT", tiesPath, `{"hostnames":["api.example.com"]}`},
		{"PUT", switchesPath, `{"settings":[{"hostname":"api.example.com"}]}`},
		{"POST", "/sekisho/tokens", `{"name":"lost","role":"edit"}`},
		{"DELETE", "/sekisho/tokens/" + testToken, nil},
	} {
		r = a.call(c.method, c.path, c.body)
		if r.Status != 500 || r.code() != codeInternal || !strings.Contains(r.text(), "no space left") || strings.Contains(r.Body, "secret detail") ||
			r.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.Status, r.Body)
		}
	}
	a.diskFull.Store(false)
	if list := a.call("GET", certsPath+"?status=active", nil); list.ResultInfo.TotalCount != 1 {
		t.Errorf("certificates: %s", list.Body)
	}
	if list := a.call("GET", "/sekisho/tokens", nil); list.ResultInfo.TotalCount != 2 || a.siteChanged.Load() != 0 {
		t.Errorf("tokens: %s", list.Body)
	}
	if n := len(a.audit("done")); n != recorded {
		t.Errorf("the audit log has %d changes more, and none was made", n-recorded)
	}
	_, reference, _ := strings.Cut(r.text(), "under the reference ")
	if len(reference) != 12 || !strings.Contains(a.logs.String(), reference) || !strings.Contains(a.logs.String(), "secret detail") {
		t.Errorf("the log does not have %q", reference)
	}
}

// TestSekishoCalls: tokens, audit and reload, which the command line uses.
func TestSekishoCalls(t *testing.T) {
	reloads := 0
	broken := ""
	a := newAPI(t, func(c *Config) {
		c.Reload = func(context.Context) error {
			if broken != "" {
				return errors.New(broken)
			}
			reloads++
			return nil
		}
	})
	r := a.call("POST", "/sekisho/tokens", `{"name":"ci","role":"read","expires_on":"2999-01-01T00:00:00Z"}`)
	token := result[tokenObject](t, r)
	if r.Status != 200 || token.Value == "" || token.Email != testEmail || *token.ExpiresOn != "2999-01-01T00:00:00Z" {
		t.Fatal(r.Body)
	}
	a.edit, token.Value = token.Value, a.edit
	if r := a.call("GET", "/user/tokens/verify", nil); r.Status != 200 || result[tokenStatus](t, r).ID != token.ID {
		t.Error(r.Body)
	}
	if r := a.call("POST", "/sekisho/config/reload", nil); r.Status != 403 || reloads != 0 {
		t.Errorf("a token of role read reloads: %s", r.Body)
	}
	a.edit = token.Value
	for _, body := range []string{
		`{"role":"read"}`, `{"name":"x","role":"admin"}`, `{"name":"x"}`, `{"name":"x\ny","role":"read"}`, `{"name":"x","role":"read","email":"nobody"}`,
		`{"name":"x","role":"read","expires_on":"2001-01-01T00:00:00Z"}`, `{"name":"x","role":"read","expires_on":"tomorrow"}`,
		`{"name":"x","role":"read","expiresOn":"2999-01-01T00:00:00Z"}`,
	} {
		if r := a.call("POST", "/sekisho/tokens", body); r.Status != 400 {
			t.Errorf("%s: %d %s", body, r.Status, r.Body)
		}
	}
	if r := a.call("GET", "/sekisho/tokens", nil); len(result[[]tokenObject](t, r)) != 3 || strings.Contains(r.Body, `"value"`) {
		t.Error(r.Body)
	}
	if r := a.call("POST", "/sekisho/config/reload", nil); r.Status != 200 || reloads != 1 {
		t.Error(r.Body)
	}
	broken = "sekisho.yaml:3:5: unknown key"
	if r := a.call("POST", "/sekisho/config/reload", nil); r.Status != 400 || !strings.Contains(r.text(), broken) {
		t.Error(r.Body)
	}
	records := result[[]recordObject](t, a.call("GET", "/sekisho/audit?from=2&per_page=2", nil))
	if len(records) != 2 || records[0].Seq != 2 || records[1].Prev != records[0].Hash {
		t.Errorf("%+v", records)
	}
	if next := result[[]recordObject](t, a.call("GET", "/sekisho/audit?from=2&per_page=2&page=2", nil)); len(next) == 0 || next[0].Seq != 4 {
		t.Errorf("page 2: %+v", next)
	}
	if r := a.call("GET", "/sekisho/audit?from=9223372036854775807&page=1000", nil); r.Status != 200 || len(result[[]recordObject](t, r)) != 0 {
		t.Error(r.Body)
	}
	if at, err := time.Parse(time.RFC3339Nano, records[0].At); err != nil || time.Since(at) > time.Hour {
		t.Errorf("at %q: %v", records[0].At, err)
	}
}
