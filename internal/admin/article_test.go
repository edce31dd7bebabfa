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

// TestArticleOwnCA runs the article's lines for bringing a CA, by API Shield and by Access, as printed: the host replaced,
// and in the line for Access, where the shell would cut the PEM at its first space, the variable quoted.
func TestArticleOwnCA(t *testing.T) {
	a := newAPI(t)
	host := "https://" + strings.Replace(a.address, "127.0.0.1", "localhost", 1)
	out := a.shell(host, `exec 3>&1 >/dev/null 2>&1
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out root.pem -subj "/C=JP/ST=Tokyo/O=IT/CN=Oreno Root" -days 30
openssl req -new -newkey rsa:2048 -nodes -keyout inter.key -out inter.csr -subj "/C=JP/ST=Tokyo/O=IT/CN=Oreno Inter"
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n' > ext
openssl x509 -req -in inter.csr -CA root.pem -CAkey ca.key -CAcreateserial -out inter.pem -days 20 -extfile ext
cat inter.pem root.pem > chain.pem
CERTFILE=chain.pem
CHAIN=$(perl -pe 's/\n/\\n/g' $CERTFILE)
CERTNAME=oreno
echo -E '{"ca":true,"certificates":"'"$CHAIN"'","name":"'"$CERTNAME"'"}' > chain.upload
curl "https://api.cloudflare.com/client/v4/accounts/$ACCOUNT_ID/mtls_certificates" -H "X-Auth-Email: $EMAIL" -H "X-Auth-Key: $API_KEY" -H "Content-Type: application/json" -d '@chain.upload'
CERTID=`+"`"+`curl "https://api.cloudflare.com/client/v4/accounts/$ACCOUNT_ID/mtls_certificates" -H "X-Auth-Email: $EMAIL" -H "X-Auth-Key: $API_KEY" -s | jq -r '.result[]|select(.name == "'$CERTNAME'").id'`+"`"+`
TLSHOST=mtls-fw.example.com
curl "https://api.cloudflare.com/client/v4/zones/$ZONE_ID/certificate_authorities/hostname_associations" -H "X-Auth-Email: $EMAIL" -H "X-Auth-Key: $API_KEY" -H "Content-Type: application/json" -d '{"hostnames":["'"$TLSHOST"'"],"mtls_certificate_id":"'"$CERTID"'"}' -X PUT
exec >&3
echo "$CERTID"
curl -s "https://api.cloudflare.com/client/v4/zones/$ZONE_ID/certificate_authorities/hostname_associations?mtls_certificate_id=$CERTID" -H "X-Auth-Email: $EMAIL" -H "X-Auth-Key: $API_KEY" | jq -c .result
curl "https://api.cloudflare.com/client/v4/zones/$ZONE_ID/access/certificates" -H "X-Auth-Email: $EMAIL" -H "X-Auth-Key: $API_KEY" -s -X POST -d '{"associated_hostnames": ["mtls.example.com"],  "certificate":"'$CHAIN'", "name": "rootCA"}' -H "Content-Type: application/json" 2>/dev/null | jq -r 'select(.errors)|.errors[0].message' 2>/dev/null | head -1 | grep -o 'first space'
curl "https://api.cloudflare.com/client/v4/zones/$ZONE_ID/access/certificates" -H "X-Auth-Email: $EMAIL" -H "X-Auth-Key: $API_KEY" -s -X POST -d '{"associated_hostnames": ["mtls.example.com"],  "certificate":"'"$CHAIN"'", "name": "rootCA"}' -H "Content-Type: application/json" | jq -c '[.success, .result.name, .result.associated_hostnames]'`)
	lines := strings.Split(out, "\n")
	want := []string{"", `{"hostnames":["mtls-fw.example.com"]}`, "first space", `[true,"rootCA",["mtls.example.com"]]`}
	for i, line := range want {
		if len(lines) != len(want) || i == 0 && !uuid.MatchString(lines[0]) || i > 0 && lines[i] != line {
			t.Fatalf("%s\nwant an id and\n%s", out, strings.Join(want[1:], "\n"))
		}
	}
	cas, err := a.store.TrustedCAs(t.Context())
	check(t, err)
	for _, ca := range cas {
		parsed, err := ca.Parse()
		check(t, err)
		if len(parsed.Anchors) != 1 || len(parsed.Intermediates) != 1 || parsed.Anchors[0].Subject.CommonName != "Oreno Root" {
			t.Errorf("%s: anchors %v, intermediates %v", ca.Name, parsed.Anchors, parsed.Intermediates)
		}
	}
	if len(cas) != 2 {
		t.Errorf("%d CAs, want 2", len(cas))
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
