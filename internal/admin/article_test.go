package admin

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// shell runs a script as a reader of the article would: bash, with the variables of DATA/env.
func (a *api) shell(host, script string) string {
	a.t.Helper()
	for _, program := range []string{"bash", "curl", "jq", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			a.t.Fatalf("%s is missing: apt-get install %s", program, program)
		}
	}
	cmd := exec.CommandContext(a.t.Context(), "bash", "-c", strings.ReplaceAll(script, "https://api.cloudflare.com", host))
	cmd.Dir = a.t.TempDir()
	cmd.Env = append(os.Environ(), "EMAIL="+testEmail, "API_KEY="+a.edit, "ZONEID="+testZone, "ZONE_ID="+testZone,
		"ACCOUNT_ID="+testAccount, "CURL_CA_BUNDLE="+a.caFile, "no_proxy=*")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		a.t.Fatalf("%v: %s\n%s", err, stderr.String(), script)
	}
	return strings.TrimSpace(string(out))
}

// TestArticleLines runs the lines of the article on revocation as printed, the host replaced, over TLS and in clear on
// one port.
func TestArticleLines(t *testing.T) {
	for _, scheme := range []string{"https", "http"} {
		t.Run(scheme, func(t *testing.T) {
			a := newAPI(t)
			host := scheme + "://" + strings.Replace(a.address, "127.0.0.1", "localhost", 1)
			serial := a.issue("article " + scheme).SerialNumber
			id := a.shell(host, ` curl --request GET \
  --url https://api.cloudflare.com/client/v4/zones/$ZONEID/client_certificates\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s| jq -r '.result[]|select(.serial_number == "`+serial+`")|.id'`)
			if !uuid.MatchString(id) {
				t.Fatalf("id %q", id)
			}
			step := func(script string) string { return a.shell(host, "CERTID="+id+"\n"+script) }
			status := func() string {
				return step(` curl --request GET \
  --url https://api.cloudflare.com/client/v4/zones/$ZONEID/client_certificates/$CERTID\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s| jq '.result.status'`)
			}
			if out := step(` curl --request DELETE \
  --url https://api.cloudflare.com/client/v4/zones/$ZONEID/client_certificates/$CERTID\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s| jq '.'`); !strings.Contains(out, `    "status": "pending_revocation"`) {
				t.Errorf("DELETE: %s", out)
			}
			if got := status(); got != `"revoked"` {
				t.Errorf("after DELETE: %s", got)
			}
			if out := step(` curl --request PATCH \
  --url https://api.cloudflare.com/client/v4/zones/$ZONEID/client_certificates/$CERTID\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s -d '{"reactivate":true}'| jq '.'`); !strings.Contains(out, `    "status": "pending_reactivation"`) {
				t.Errorf("PATCH: %s", out)
			}
			if got := status(); got != `"active"` {
				t.Errorf("after PATCH: %s", got)
			}
		})
	}
}

// TestArticleSettings is the article's PUT that switches the forwarding of certificates on.
func TestArticleSettings(t *testing.T) {
	a := newAPI(t)
	out := a.shell("http://"+a.address, `curl --request PUT \
  --url "https://api.cloudflare.com/client/v4/zones/$ZONE_ID/access/certificates/settings" \
  --header 'content-type: application/json' \
  --header "x-auth-email: $EMAIL" \
  --header "x-auth-key: $API_KEY" \
  --data '{
    "settings": [
        {
            "hostname": "mtls-fw.example.com",
            "client_certificate_forwarding": true
        }
    ]
}' -s | jq -c .result`)
	if want := `[{"hostname":"mtls-fw.example.com","china_network":false,"client_certificate_forwarding":true}]`; out != want {
		t.Errorf("%s, want %s", out, want)
	}
}

// TestArticleQuoting is the article's slip: an unquoted variable with a PEM in it ends the body at its first space.
func TestArticleQuoting(t *testing.T) {
	a := newAPI(t)
	out := a.shell("http://"+a.address, `
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj /CN=shell 2>/dev/null
CHAIN=$(perl -pe 's/\n/\\n/g' csr.pem)
curl "https://api.cloudflare.com/client/v4/zones/$ZONE_ID/client_certificates" -H "X-Auth-Email: $EMAIL" -H "X-Auth-Key: $API_KEY" -s -X POST -d '{"validity_days": 30, "csr":"'$CHAIN'"}' -H "Content-Type: application/json" 2>/dev/null | jq -r 'select(.errors)|.errors[0].message' 2>/dev/null | head -1
curl "https://api.cloudflare.com/client/v4/zones/$ZONE_ID/client_certificates" -H "X-Auth-Email: $EMAIL" -H "X-Auth-Key: $API_KEY" -s -X POST -d '{"validity_days": 30, "csr":"'"$CHAIN"'"}' | jq -r .result.common_name`)
	cut, issued, _ := strings.Cut(out, "\n")
	for _, part := range []string{"Malformed JSON", "byte 39 of 39", "first space"} {
		if !strings.Contains(cut, part) {
			t.Errorf("%q is not in %q", part, cut)
		}
	}
	if issued != "shell" {
		t.Errorf("quoted: %q", issued)
	}
}

// TestTLSAndPlainByCurl asks one port both ways, HTTP/2 included.
func TestTLSAndPlainByCurl(t *testing.T) {
	a := newAPI(t)
	_, port, _ := strings.Cut(a.address, ":")
	out := a.shell("", fmt.Sprintf(`for u in http://localhost:%[1]s https://localhost:%[1]s https://127.0.0.1:%[1]s; do
curl -4 -s -o /dev/null -w '%%{http_code} %%{http_version} %%{scheme}\n' -H "Authorization: Bearer $API_KEY" $u/client/v4/user/tokens/verify; done`, port))
	want := "200 1.1 HTTP\n200 2 HTTPS\n200 2 HTTPS"
	if strings.ToUpper(out) != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}
