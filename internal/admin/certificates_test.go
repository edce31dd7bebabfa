package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/pkix"
)

// TestCertificateLife walks one certificate through every state that Cloudflare's API knows.
func TestCertificateLife(t *testing.T) {
	a := newAPI(t)
	made := a.issue("Iwa Te")
	path := certsPath + "/" + made.ID
	checkObject(t, made)

	steps := []struct {
		method, query string
		body          any
		status        int
		answered      string // status in the answer
		then          string // status of the next GET
	}{
		{"PATCH", "", `{"reactivate":true}`, 400, "", "active"},
		{"DELETE", "", nil, 200, "pending_revocation", "revoked"},
		{"DELETE", "", nil, 400, "", "revoked"},
		{"PATCH", "", `{"reactivate":false}`, 400, "", "revoked"},
		{"PATCH", "", `{"reactivate":true}`, 200, "pending_reactivation", "active"},
		{"DELETE", "?reason=certificateHold", nil, 200, "pending_revocation", "revoked"},
		{"PATCH", "", nil, 200, "pending_reactivation", "active"},
		{"DELETE", "?reason=nonsense", nil, 400, "", "active"},
		{"DELETE", "", `{"reason":"removeFromCRL"}`, 400, "", "active"},
		{"DELETE", "", `{}`, 200, "pending_revocation", "revoked"},
		{"DELETE", "", `{"reason":"key-compromise"}`, 200, "pending_revocation", "revoked"},
		{"PATCH", "", `{"reactivate":true}`, 400, "", "revoked"},
		{"DELETE", "?reason=superseded", nil, 400, "", "revoked"},
	}
	for i, s := range steps {
		r := a.call(s.method, path+s.query, s.body)
		if r.Status != s.status {
			t.Fatalf("step %d %s: %d %s", i, s.method, r.Status, r.Body)
		}
		if s.status == http.StatusOK {
			if got := result[certificateObject](t, r); got.Status != s.answered || got.ID != made.ID {
				t.Errorf("step %d %s: status %q, want %q", i, s.method, got.Status, s.answered)
			}
		} else if !strings.Contains(r.text(), "reason") && !strings.Contains(r.text(), "reactivate") && !strings.Contains(r.text(), made.ID) {
			t.Errorf("step %d: the error does not say what is wrong: %s", i, r.text())
		}
		if got := result[certificateObject](t, a.call("GET", path, nil)); got.Status != s.then {
			t.Fatalf("step %d %s, then: status %q, want %q", i, s.method, got.Status, s.then)
		}
	}
	last := result[certificateObject](t, a.call("GET", path, nil))
	if last.RevocationReason == nil || *last.RevocationReason != "keyCompromise" || last.RevokedOn == nil {
		t.Errorf("revocation_reason %v, revoked_on %v", last.RevocationReason, last.RevokedOn)
	}
	if refused := a.audit("refused"); len(refused) != 7 || refused[0].Object != made.ID || refused[0].Action != "certificate.reactivate" || refused[0].Actor != "edit token" {
		t.Errorf("%d refusals on record, want 7: %+v", len(refused), refused)
	}
}

func TestRevokedTwiceSaysSo(t *testing.T) {
	a := newAPI(t)
	path := certsPath + "/" + a.issue("twice").ID
	a.call("DELETE", path, nil)
	r := a.call("DELETE", path, nil)
	if r.Status != http.StatusBadRequest || r.code() != codeConflict || r.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d %v %s", r.Status, r.Header, r.Body)
	}
	for _, part := range []string{"already revoked since 2", `PATCH {"reactivate":true} undoes`} {
		if !strings.Contains(r.text(), part) {
			t.Errorf("%q is not in %q", part, r.text())
		}
	}
}

// TestMisspelledReason: a final revocation that was meant must not become one that can be undone.
func TestMisspelledReason(t *testing.T) {
	a := newAPI(t)
	path := certsPath + "/" + a.issue("meant").ID
	for _, c := range []struct{ query, body, say string }{
		{"", `{"reasons":"keyCompromise"}`, `"reasons"`},
		{"", `{"reason":"superseded","reason":"certificateHold"}`, "twice"},
		{"", `{"reason":""}`, "reason"},
		{"?reason=", "", "empty"},
		{"?reason=superseded&reason=certificateHold", "", "twice"},
		{"?reason=superseded;x", "", "query"},
		{"?reason=%zz", "", "query"},
	} {
		if r := a.call("DELETE", path+c.query, c.body); r.Status != http.StatusBadRequest || !strings.Contains(r.text(), c.say) {
			t.Errorf("%s %s: %d %s", c.query, c.body, r.Status, r.Body)
		}
	}
	for _, query := range []string{"?serial_number=", "?common_name=", "?fingerprint_sha256=", "?common_name=a;b", "?serial_number=1&serial_number=2"} {
		if r := a.call("GET", certsPath+query, nil); r.Status != http.StatusBadRequest {
			t.Errorf("%s: %d, and a script that takes the first revokes whoever is newest", query, r.Status)
		}
	}
	if got := result[certificateObject](t, a.call("GET", path, nil)); got.Status != "active" {
		t.Errorf("the certificate is %s", got.Status)
	}
}

// TestCompromisedKey: one call for one certificate revokes all of its key, also one of another zone, and a final reason
// can still become keyCompromise.
func TestCompromisedKey(t *testing.T) {
	a := newAPI(t)
	request := map[string]any{"csr": newCSR(t, "copied"), "validity_days": 365}
	otherCerts := "/zones/" + otherZone + "/client_certificates"
	first := result[certificateObject](t, a.call("POST", certsPath, request))
	paths := []string{
		certsPath + "/" + result[certificateObject](t, a.call("POST", certsPath, request)).ID,
		otherCerts + "/" + result[certificateObject](t, a.call("POST", otherCerts, request)).ID,
	}
	if r := a.call("DELETE", certsPath+"/"+first.ID+"?reason=superseded", nil); r.Status != 200 {
		t.Fatal(r.Body)
	}
	if r := a.call("DELETE", certsPath+"/"+first.ID+"?reason=unspecified", nil); r.Status != 400 || !strings.Contains(r.text(), "only the reason keyCompromise") {
		t.Errorf("another reason: %d %s", r.Status, r.Body)
	}
	if r := a.call("DELETE", certsPath+"/"+first.ID+"?reason=keyCompromise", nil); r.Status != 200 {
		t.Fatal(r.Body)
	}
	for _, path := range append(paths, certsPath+"/"+first.ID) {
		got := result[certificateObject](t, a.call("GET", path, nil))
		if got.Status != "revoked" || got.RevocationReason == nil || *got.RevocationReason != "keyCompromise" {
			t.Errorf("%s: %s %v", path, got.Status, got.RevocationReason)
		}
		if r := a.call("PATCH", path, nil); r.Status != 400 {
			t.Errorf("%s was reactivated: %s", path, r.Body)
		}
	}
	if r := a.call("DELETE", certsPath+"/"+first.ID+"?reason=keyCompromise", nil); r.Status != 400 || r.code() != codeConflict {
		t.Errorf("again: %s", r.Body)
	}
	if r := a.call("POST", certsPath, request); r.Status != 400 || !strings.Contains(r.text(), "blocked") {
		t.Errorf("a new certificate for the key: %s", r.Body)
	}
}

func checkObject(t *testing.T, made certificateObject) {
	t.Helper()
	cert, err := pkix.ParseCertificate([]byte(made.Certificate))
	check(t, err)
	want := certificateObject{
		ID: made.ID, Certificate: made.Certificate, CertificateAuthority: certifier{made.CertificateAuthority.ID, "sekisho Issuing CA"},
		CommonName: "Iwa Te", Country: "JP", State: "Tokyo", Location: "Minato", Organization: "Daidai Co.", OrganizationalUnit: "IT",
		CSR: made.CSR, FingerprintSHA256: pkix.FingerprintOf(cert.Raw).String(), SerialNumber: pkix.SerialOf(cert.SerialNumber).String(),
		Signature: "ECDSAWithSHA256", SKI: fmt.Sprintf("%x", cert.SubjectKeyId), Status: "active", ValidityDays: 365, Profile: "client",
		ExpiresOn: cert.NotAfter.UTC().Format("2006-01-02T15:04:05Z"), IssuedOn: made.IssuedOn, Subject: made.Subject,
	}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("object (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(made.CSR, "-----BEGIN CERTIFICATE REQUEST-----") || !uuid.MatchString(made.ID) || len(made.SerialNumber)%2 != 0 {
		t.Errorf("csr %q id %q serial %q", made.CSR, made.ID, made.SerialNumber)
	}
}

// TestPaging lists 23 certificates in every way there is: each exactly once, [] past the end.
func TestPaging(t *testing.T) {
	a := newAPI(t)
	var want []string
	for i := range 23 {
		want = append(want, a.issue(fmt.Sprintf("device-%d", i)).ID)
	}
	slices.Sort(want)
	for name, query := range map[string]string{
		"page": "per_page=5&page=%d", "limit": "limit=5&page=%d", "page and offset 0": "limit=5&offset=0&page=%d",
	} {
		var got []string
		for n := 1; ; n++ {
			if n > 6 {
				t.Fatalf("%s: the list does not end", name)
			}
			r := a.call("GET", certsPath+"?"+fmt.Sprintf(query, n), nil)
			rows := result[[]certificateObject](t, r)
			info := resultInfo{Page: n, PerPage: 5, Count: len(rows), TotalCount: 23, TotalPages: 5}
			if r.ResultInfo == nil || *r.ResultInfo != info {
				t.Fatalf("%s %d: result_info %+v, want %+v", name, n, r.ResultInfo, info)
			}
			if len(rows) == 0 {
				if string(r.Result) != "[]" {
					t.Errorf("%s: past the end: %s", name, r.Result)
				}
				break
			}
			for _, row := range rows {
				got = append(got, row.ID)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	r := a.call("GET", certsPath+"?limit=10&offset=20", nil)
	if rows := result[[]certificateObject](t, r); len(rows) != 3 || r.ResultInfo.Page != 3 || r.ResultInfo.PerPage != 10 {
		t.Errorf("limit and offset: %d rows, %+v", len(rows), r.ResultInfo)
	}
	if r := a.call("GET", certsPath, nil); len(result[[]certificateObject](t, r)) != 23 || r.ResultInfo.PerPage != defaultPerPage {
		t.Errorf("no paging asked for: %+v", r.ResultInfo)
	}
	for _, query := range []string{"page=0", "per_page=0", "per_page=x", "limit=-1", "offset=-1", "page=99999999999999999999", "status=dead"} {
		name, _, _ := strings.Cut(query, "=")
		if r := a.call("GET", certsPath+"?"+query, nil); r.Status != 400 || r.Errors[0].Source == nil || r.Errors[0].Source.Parameter != name {
			t.Errorf("%s: %d %s", query, r.Status, r.Body)
		}
	}
}

func TestFilters(t *testing.T) {
	a := newAPI(t)
	one, two := a.issue("one"), a.issue("two")
	a.call("DELETE", certsPath+"/"+two.ID, nil)
	colons := strings.ToUpper(one.SerialNumber[:2])
	for i := 2; i < len(one.SerialNumber); i += 2 {
		colons += ":" + strings.ToUpper(one.SerialNumber[i:i+2])
	}
	for query, want := range map[string][]string{
		"":                                  {two.ID, one.ID},
		"status=all":                        {two.ID, one.ID},
		"status=active":                     {one.ID},
		"status=revoked":                    {two.ID},
		"status=pending_revocation":         {},
		"status=pending_reactivation":       {},
		"serial_number=" + one.SerialNumber: {one.ID},
		"serial_number=" + url.QueryEscape(colons):                     {one.ID},
		"serial_number=0x000" + one.SerialNumber:                       {one.ID},
		"serial_number=01":                                             {},
		"fingerprint_sha256=" + strings.ToUpper(two.FingerprintSHA256): {two.ID},
		"common_name=one":                                              {one.ID},
		"common_name=one&status=revoked":                               {},
		"profile=server":                                               {},
		"reason=certificateHold":                                       {two.ID},
		"ca=issuing&status=active":                                     {one.ID},
		"ca=root":                                                      {},
		"expires_from=2020-01-01T00:00:00Z":                            {two.ID, one.ID},
		"expires_before=2020-01-01T00:00:00Z":                          {},
		"san=nobody.example":                                           {},
		"state=active":                                                 {one.ID},
		"state=on_hold":                                                {two.ID},
		"state=on_hold&status=revoked&reason=certificateHold":          {two.ID},
		"state=revoked":                                                {},
		"state=expired":                                                {},
		"state=active&expires_before=2020-01-01T00:00:00Z":             {},
		"issued_from=2020-01-01T00:00:00Z&order=expires":               {two.ID, one.ID},
		"issued_before=2020-01-01T00:00:00Z":                           {},
		"archived=true":                                                {},
		"archived=false&order=newest":                                  {two.ID, one.ID},
	} {
		got := []string{}
		for _, row := range result[[]certificateObject](t, a.call("GET", certsPath+"?"+query, nil)) {
			got = append(got, row.ID)
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
	for _, query := range []string{
		"serial_number=xyz", "fingerprint_sha256=12", "reason=superseded", "expires_from=soon", "ca=nobody", "san=",
		"state=pending", "state=active&status=revoked", "state=revoked&reason=certificateHold", "order=size", "archived=yes", "issued_from=now", "state=active&state=active",
	} {
		if r := a.call("GET", certsPath+"?"+query, nil); r.Status != 400 {
			t.Errorf("%s: %d %s", query, r.Status, r.Body)
		}
	}
	if r := a.call("GET", "/zones/"+otherZone+"/client_certificates", nil); string(r.Result) != "[]" || r.ResultInfo.TotalCount != 0 {
		t.Errorf("the other zone: %s", r.Body)
	}
}

// TestIssueExtensions: a subject of the caller's choice, more names, the server profile.
func TestIssueExtensions(t *testing.T) {
	a := newAPI(t)
	r := a.call("POST", certsPath, map[string]any{
		"csr": newCSR(t, "api.example.com"), "validity_days": 90, "profile": "server", "subject": "/C=JP/CN=api.example.com",
		"hosts": []string{"api.example.com", "192.0.2.1"},
	})
	if r.Status != 200 {
		t.Fatal(r.Body)
	}
	object := result[certificateObject](t, r)
	for _, san := range []string{"API.example.com", "192.0.2.1"} {
		if found := result[[]certificateObject](t, a.call("GET", certsPath+"?san="+san, nil)); len(found) != 1 || found[0].ID != object.ID {
			t.Errorf("san=%s: %+v", san, found)
		}
	}
	cert, err := pkix.ParseCertificate([]byte(object.Certificate))
	check(t, err)
	if object.Profile != "server" || object.Organization != "" || !slices.Contains(cert.DNSNames, "api.example.com") || len(cert.IPAddresses) != 1 {
		t.Errorf("%+v, names %v %v", object, cert.DNSNames, cert.IPAddresses)
	}
}
