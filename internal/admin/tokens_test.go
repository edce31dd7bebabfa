package admin

import (
	"net/http"
	"strings"
	"testing"

	"sekisho/internal/auditlog"
)

// TestInvariant12RevokeToken: a revoked token is refused from the answer on, the last of role edit cannot be revoked, and
// both are on record.
func TestInvariant12RevokeToken(t *testing.T) {
	a := newAPI(t)
	as := func(secret, method, path string) answer {
		return a.do(method, path, nil, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) })
	}
	made := result[tokenObject](t, a.call("POST", "/sekisho/tokens", `{"name":"ci","role":"edit"}`))
	first := result[tokenStatus](t, a.call("GET", "/user/tokens/verify", nil)).ID
	for _, c := range []struct {
		who, id      string
		status, code int
		say          string
	}{
		{a.read, made.ID, 403, codeAuthentication, "role"},
		{a.edit, "nothing", 404, codeNoRoute, ""},
		{a.edit, strings.Repeat("0", 32), 404, codeNotFound, "no token has the id 000"},
		{a.edit, testToken, 200, 0, ""},
		{a.edit, testToken, 404, codeNotFound, ""},
		{made.Value, made.ID, 200, 0, ""}, // its own
		{a.edit, first, 400, codeConflict, "make another first"},
	} {
		r := as(c.who, "DELETE", "/sekisho/tokens/"+c.id)
		if r.Status != c.status || r.code() != c.code || !strings.Contains(r.text(), c.say) {
			t.Errorf("%s: %d %s", c.id, r.Status, r.Body)
		}
		if c.status == 200 && result[tokenID](t, r).ID != c.id {
			t.Errorf("%s: %s", c.id, r.Body)
		}
	}
	for _, secret := range []string{a.read, made.Value} {
		if r := as(secret, "GET", "/zones"); r.Status != http.StatusUnauthorized {
			t.Errorf("a revoked token: %d %s", r.Status, r.Body)
		}
	}
	if r := a.call("GET", "/sekisho/tokens", nil); r.Status != 200 || r.ResultInfo.TotalCount != 1 {
		t.Errorf("tokens left: %s", r.Body)
	}
	count := func(entries []auditlog.Entry) (n int) {
		for _, e := range entries {
			if e.Action == "token.revoke" && (e.Outcome == "refused" || e.Detail["name"] != "") && len(e.Object) > 0 {
				n++
			}
		}
		return n
	}
	if done, refused := count(a.audit("done")), count(a.audit("refused")); done != 2 || refused != 5 {
		t.Errorf("%d revocations and %d refusals on record, want 2 and 5", done, refused)
	}
}
