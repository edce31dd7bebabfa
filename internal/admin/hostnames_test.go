package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/auditlog"
	"sekisho/internal/site"
)

const (
	tiesPath     = "/zones/" + testZone + "/certificate_authorities/hostname_associations"
	switchesPath = "/zones/" + testZone + "/access/certificates/settings"
)

// serve sets the hosts in force.
func (a *api) serve(hosts ...*site.Host) { a.hosts.Store(&hosts) }

func TestAssociations(t *testing.T) {
	a := newAPI(t)
	zone := site.Zone{ID: testZone, Name: "example.com"}
	a.serve(
		&site.Host{Name: "file.example.com", Zone: zone, ManagedByFile: true},
		&site.Host{Name: "api.example.com", Zone: zone, Names: []string{"192.0.2.7"}},
		&site.Host{Name: "other.example.org", Zone: site.Zone{ID: otherZone}},
	)
	for _, c := range []struct {
		name   string
		body   any
		status int
		code   int
		then   []string // what the API ties afterwards
	}{
		{"two", `{"hostnames":["API.example.com.","later.example.com"]}`, 200, 0, []string{"api.example.com", "later.example.com"}},
		{"an address of a host, twice", `{"hostnames":["192.0.2.7","192.0.2.7","*.example.com"]}`, 200, 0, []string{"*.example.com", "192.0.2.7"}},
		{"another zone's", `{"hostnames":["other.example.org"]}`, 400, codeInvalid, nil},
		{"a look-alike", `{"hostnames":["a.notexample.com"]}`, 400, codeInvalid, nil},
		{"no name", `{"hostnames":["api.example.com","a b.example.com"]}`, 400, codeInvalid, nil},
		{"a URL", `{"hostnames":["https://api.example.com"]}`, 400, codeInvalid, nil},
		{"empty name", `{"hostnames":[""]}`, 400, codeInvalid, nil},
		{"tied by the file", `{"hostnames":["api.example.com","file.example.com"]}`, 400, codeReadOnly, nil},
		{"an unknown CA", `{"hostnames":["api.example.com"],"mtls_certificate_id":"00000000-0000-4000-8000-000000000000"}`, 404, codeNotFound, nil},
		{"no id", `{"hostnames":["api.example.com"],"mtls_certificate_id":"managed"}`, 400, codeInvalid, nil},
		{"a thousand and one", `{"hostnames":["api.example.com"` + strings.Repeat(`,"api.example.com"`, 1000) + `]}`, 400, codeInvalid, nil},
		{"text", `{"hostnames":"api.example.com"}`, 400, codeInvalid, nil},
		{"the zone itself, unknown fields", `{"hostnames":["example.com"],"mtls_certificate_id":"","expires_on":"0001-01-01T00:00:00Z"}`, 200, 0, []string{"example.com"}},
		{"absent clears", `{}`, 200, 0, []string{}},
		{"one", `{"hostnames":["api.example.com"]}`, 200, 0, []string{"api.example.com"}},
		{"empty clears", `{"hostnames":[]}`, 200, 0, []string{}},
		{"null clears", `{"hostnames":null}`, 200, 0, []string{}},
	} {
		before := result[associationsObject](t, a.call("GET", tiesPath, nil)).Hostnames
		changes := a.siteChanged.Load()
		r := a.call("PUT", tiesPath, c.body)
		if r.Status != c.status || r.code() != c.code {
			t.Errorf("%s: %d %s", c.name, r.Status, r.Body)
		}
		want := c.then
		if c.status != http.StatusOK {
			want = before
		} else if diff := cmp.Diff(want, result[associationsObject](t, r).Hostnames); diff != "" {
			t.Errorf("%s answered (-want +got):\n%s", c.name, diff)
		}
		if got := a.siteChanged.Load() - changes; (got == 1) != (c.status == http.StatusOK) {
			t.Errorf("%s: the edge was told %d times", c.name, got)
		}
		get := a.call("GET", tiesPath+"?mtls_certificate_id=", nil)
		if diff := cmp.Diff(want, result[associationsObject](t, get).Hostnames); diff != "" {
			t.Errorf("%s, then (-want +got):\n%s", c.name, diff)
		}
		if len(get.Messages) != 1 || !strings.Contains(get.Messages[0].Message, "file.example.com") {
			t.Errorf("%s: messages %+v", c.name, get.Messages)
		}
	}
	r := a.call("PUT", tiesPath, `{"hostnames":["api.example.com","file.example.com"]}`)
	if r.Errors[0].Source.Pointer != "/hostnames/1" || !strings.Contains(r.text(), "client_auth of the host file.example.com") {
		t.Errorf("%s", r.Body)
	}
	if r := a.call("PUT", tiesPath, nil); r.Status != 400 {
		t.Errorf("a PUT without a body, which would clear: %d %s", r.Status, r.Body)
	}
}

// TestNotInForce: a change that is stored but that the edge cannot take is told as what it is.
func TestNotInForce(t *testing.T) {
	a := newAPI(t)
	text := "host \"x\": no certificate"
	a.siteError.Store(&text)
	r := a.call("PUT", tiesPath, `{"hostnames":["api.example.com"]}`)
	if r.Status != 500 || r.code() != codeNotInForce || r.Header.Get("X-Should-Retry") != "false" || !strings.Contains(r.text(), text) {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	if got := result[associationsObject](t, a.call("GET", tiesPath, nil)).Hostnames; len(got) != 1 {
		t.Errorf("stored: %v", got)
	}
}

// partRecords stores the settings of one zone only.
type partRecords struct{ site.Records }

func (p partRecords) PutSettings(ctx context.Context, zone string, settings []site.Settings, e auditlog.Entry) error {
	if zone == otherZone {
		return errors.New("broken")
	}
	return p.Records.PutSettings(ctx, zone, settings, e)
}

// TestSettingsInPart: of a call over two zones the second fails; what was stored for the first is in force.
func TestSettingsInPart(t *testing.T) {
	a := newAPI(t, func(c *Config) { c.Records = partRecords{c.Records} })
	body := `{"settings":[{"hostname":"a.example.com","china_network":true},{"hostname":"a.example.org"}]}`
	if r := a.call("PUT", "/accounts/"+testAccount+"/access/certificates/settings", body); r.Status != 500 {
		t.Error(r.Body)
	}
	if got := result[[]settingObject](t, a.call("GET", switchesPath, nil)); len(got) != 1 || a.siteChanged.Load() != 1 {
		t.Errorf("stored %v, the edge was told %d times; want 1 and 1", got, a.siteChanged.Load())
	}
}

func TestSettings(t *testing.T) {
	a := newAPI(t)
	put := func(path, body string) answer { return a.call("PUT", path, body) }
	account := "/accounts/" + testAccount + "/access/certificates/settings"
	r := put(switchesPath, `{"settings":[{"hostname":"B.example.com","client_certificate_forwarding":true},{"hostname":"a.example.com","china_network":true}]}`)
	want := []settingObject{{"b.example.com", false, true}, {"a.example.com", true, false}}
	if diff := cmp.Diff(want, result[[]settingObject](t, r)); diff != "" {
		t.Errorf("PUT (-want +got):\n%s", diff)
	}
	if r := put(account, `{"settings":[{"hostname":"c.example.org","client_certificate_forwarding":true},{"hostname":"b.example.com"}]}`); r.Status != 200 {
		t.Fatal(r.Body)
	}
	for path, want := range map[string][]settingObject{
		switchesPath: {{"a.example.com", true, false}, {"b.example.com", false, false}},
		account:      {{"a.example.com", true, false}, {"b.example.com", false, false}, {"c.example.org", false, true}},
		"/zones/" + otherZone + "/access/certificates/settings": {{"c.example.org", false, true}},
	} {
		if diff := cmp.Diff(want, result[[]settingObject](t, a.call("GET", path, nil))); diff != "" {
			t.Errorf("GET %s (-want +got):\n%s", path, diff)
		}
	}
	for name, c := range map[string]struct {
		path, body string
		code       int
		pointer    string
	}{
		"foreign hostname": {switchesPath, `{"settings":[{"hostname":"a.example.com"},{"hostname":"c.example.org"}]}`, codeForeignHostname, "/settings/1/hostname"},
		"nobody's":         {account, `{"settings":[{"hostname":"c.example.net"}]}`, codeForeignHostname, "/settings/0/hostname"},
		"no hostname":      {switchesPath, `{"settings":[{}]}`, codeForeignHostname, "/settings/0/hostname"},
		"twice":            {switchesPath, `{"settings":[{"hostname":"a.example.com"},{"hostname":"A.example.com"}]}`, codeInvalid, "/settings/1/hostname"},
		"no list":          {switchesPath, `{}`, codeInvalid, "/settings"},
		"wrong type":       {switchesPath, `{"settings":[{"hostname":"a.example.com","china_network":"no"}]}`, codeInvalid, "/settings/0/china_network"},
	} {
		r := put(c.path, c.body)
		if r.Status != 400 || r.code() != c.code || r.Errors[0].Source.Pointer != c.pointer {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if got := a.siteChanged.Load(); got != 2 {
		t.Errorf("the edge was told %d times, want 2", got)
	}
}
