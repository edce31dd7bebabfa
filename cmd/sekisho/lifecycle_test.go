package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/testpki"
)

// TestInvariant14TermDrains sends SIGTERM while a request is with the upstream: it gets its whole answer, nobody new gets
// in, and the process exits 0.
func TestInvariant14TermDrains(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			arrived, release := make(chan struct{}), make(chan struct{})
			upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					w.(http.Flusher).Flush()
					close(arrived)
					<-release
				}
				_, _ = io.WriteString(w, "whole")
			}))
			defer upstream.Close()
			p := startConfigured(t, t.TempDir(), upstream.URL, "")
			pair, _ := p.issue("drain")
			config := p.tlsConfig(pair)
			config.NextProtos = []string{protocol}
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: protocol == "h2"}, Timeout: 20 * time.Second}
			answer := make(chan string, 1)
			go func() {
				resp, err := client.Get(p.ready.Edge + "/slow")
				if err != nil {
					answer <- err.Error()
					return
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				answer <- fmt.Sprint(resp.Proto, " ", string(body), " ", err)
			}()
			<-arrived
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			waitUntil(t, "the edge stops taking connections", func() bool {
				conn, err := tls.Dial("tcp", p.edgeAddress(), config)
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
			select {
			case err := <-p.done:
				p.done <- err
				t.Fatalf("the process ended with a request in flight: %v\n%s", err, p.log)
			case <-time.After(100 * time.Millisecond):
			}
			close(release)
			want := map[string]string{"http/1.1": "HTTP/1.1 whole <nil>", "h2": "HTTP/2.0 whole <nil>"}[protocol]
			if got := <-answer; got != want {
				t.Errorf("answer %q, want %q", got, want)
			}
			p.stop()
		})
	}
}

// TestInvariant14StartAfterKillIsOrdinary kills a server and starts it again: same token, zone, CA and client
// certificate, which is let in; a session of before the kill resumes, and no longer once its certificate is revoked.
func TestInvariant14StartAfterKillIsOrdinary(t *testing.T) {
	dir := t.TempDir()
	p := startDev(t, dir)
	before := p.ready
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		pair, id := p.issue(tls.VersionName(version))
		config := p.tlsConfig(pair)
		config.MaxVersion, config.ClientSessionCache = version, tls.NewLRUClientSessionCache(8)
		if resumed, status := handshake(t, p, config); resumed || status != http.StatusOK {
			t.Fatalf("%s: first handshake: resumed %v, status %d", tls.VersionName(version), resumed, status)
		}
		p.kill()
		p = startDev(t, dir)
		if resumed, status := handshake(t, p, config); !resumed || status != http.StatusOK {
			t.Errorf("%s: after a restart: resumed %v, status %d\n%s", tls.VersionName(version), resumed, status, p.log)
		}
		if status, env := p.api("DELETE", p.certificates()+"/"+id, nil); status != http.StatusOK {
			t.Fatalf("revoke: %d %+v", status, env.Errors)
		}
		p.kill()
		p = startDev(t, dir)
		if resumed, status := handshake(t, p, config); resumed || status != http.StatusForbidden {
			t.Errorf("%s: after revocation and a restart: resumed %v, status %d", tls.VersionName(version), resumed, status)
		}
	}
	after := p.ready
	after.Edge, after.Admin, after.PKI, after.Metrics = before.Edge, before.Admin, before.PKI, before.Metrics
	if after != before {
		t.Errorf("a restart changed what the ready file says:\n%+v\n%+v", before, after)
	}
	if status, body := p.get(p.client(p.devClient()), "/hello"); status != http.StatusOK {
		t.Errorf("the ready certificate: %d %s", status, body)
	}
	p.stop()
}

// handshake makes one connection and one request, and reads on so that a ticket can arrive.
func handshake(t *testing.T, p *process, config *tls.Config) (resumed bool, status int) {
	t.Helper()
	config = config.Clone()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest("GET", "https://localhost/hello", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Host = strings.TrimPrefix(p.ready.Edge, "https://")
	config.ClientSessionCache = sameKey{config.ClientSessionCache}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.TLS.DidResume, resp.StatusCode
}

// sameKey keeps one session whatever the port.
type sameKey struct{ tls.ClientSessionCache }

func (c sameKey) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }
func (c sameKey) Put(_ string, s *tls.ClientSessionState)    { c.ClientSessionCache.Put("", s) }

// TestReadyFilePortZero: with port 0 everywhere the ready file names every listener, each of which answers.
func TestReadyFilePortZero(t *testing.T) {
	p := startDev(t, t.TempDir())
	for name, address := range map[string]string{
		"admin": p.ready.Admin + "/client/v4/zones", "pki": p.ready.PKI + "/ca.pem", "metrics": p.ready.Metrics,
		"health": strings.TrimSuffix(p.ready.Metrics, "/metrics") + "/healthz", "readiness": strings.TrimSuffix(p.ready.Metrics, "/metrics") + "/readyz",
	} {
		u, err := url.Parse(address)
		if err != nil || u.Port() == "" || u.Port() == "0" {
			t.Errorf("%s: %q names no port", name, address)
			continue
		}
		req, err := http.NewRequest("GET", address, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+p.ready.Token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	p.stop()
}

// articleCalls are the three calls of the article's section on the CA that Cloudflare manages, with only the host replaced.
const articleCalls = `
set -eu
. "$DATA/env"
curl --request GET \
  --url $HOST/client/v4/zones/$ZONEID/client_certificates\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s| jq -r '.result[]|select(.serial_number == "'$SERIAL'")|.id' > id
CERTID=$(cat id)
curl --request DELETE \
  --url $HOST/client/v4/zones/$ZONEID/client_certificates/$CERTID\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s| jq '.result.status'
curl --request GET \
  --url $HOST/client/v4/zones/$ZONEID/client_certificates/$CERTID\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s| jq '.result.status'
curl --request PATCH \
  --url $HOST/client/v4/zones/$ZONEID/client_certificates/$CERTID\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s -d '{"reactivate":true}'| jq '.result.status'
curl --request GET \
  --url $HOST/client/v4/zones/$ZONEID/client_certificates/$CERTID\
  --header 'Content-Type: application/json' \
  --header 'X-Auth-Email: '$EMAIL'' \
  --header 'X-Auth-Key: '$API_KEY'' -s| jq '.result.status'
`

// TestArticleCallsFromTheShell sources DATA/env and runs the article's lines in bash, over plain HTTP and over TLS, where
// CURL_CA_BUNDLE of the same file makes curl trust the admin port.
func TestArticleCallsFromTheShell(t *testing.T) {
	p := startDev(t, t.TempDir())
	_, id := p.issue("article")
	_, env := p.api("GET", p.certificates()+"/"+id, nil)
	var c clientCertificate
	if err := json.Unmarshal(env.Result, &c); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{p.ready.Admin, strings.NewReplacer("http://127.0.0.1", "https://localhost").Replace(p.ready.Admin)} {
		cmd := exec.Command("bash", "-c", articleCalls)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "DATA="+p.dir, "HOST="+host, "SERIAL="+c.Serial)
		out, err := cmd.CombinedOutput()
		want := "\"pending_revocation\"\n\"revoked\"\n\"pending_reactivation\"\n\"active\"\n"
		if err != nil || string(out) != want {
			t.Errorf("%s: %v, printed %q, want %q\n%s", host, err, out, want, p.log)
		}
	}
	p.stop()
}

// TestServeCertificateFiles is `serve --cert --key`, with and without --client-ca, and a certificate that is renewed on disk.
func TestServeCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	ca := testpki.NewCA(t)
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first, second, client := ca.Server("localhost", "127.0.0.1"), ca.Server("localhost", "127.0.0.1"), ca.Client("Script Client")
	cert, key, clientCA := write("server.crt", first.CertPEM), write("server.key", first.KeyPEM), write("ca.crt", ca.PEM)
	get := func(p *process, certs ...tls.Certificate) (int, string, *x509.Certificate) {
		config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: certs}
		resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}).Get(p.ready.Edge + "/hello")
		if err != nil {
			t.Fatalf("%v\n%s", err, p.log)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, strings.TrimSpace(string(body)), resp.TLS.PeerCertificates[0]
	}
	open := start(t, dir, "--cert", cert, "--key", key, "--edge", "127.0.0.1:0")
	if status, body, _ := get(open); status != http.StatusOK || body != "Hello World" {
		t.Errorf("without --client-ca: %d %s", status, body)
	}
	open.stop()
	p := start(t, dir, "--cert", cert, "--key", key, "--client-ca", clientCA, "--edge", "127.0.0.1:0")
	if status, body, _ := get(p); status != http.StatusForbidden {
		t.Errorf("without a certificate: %d %s", status, body)
	}
	if status, body, _ := get(p, client.TLS()); status != http.StatusOK {
		t.Errorf("with a certificate: %d %s", status, body)
	}
	if p.ready.Admin != "" || p.ready.Token != "" {
		t.Errorf("a server without state names an API: %+v", p.ready)
	}
	// Half of a renewal must not show; both halves are served within a few seconds.
	write("server.crt", second.CertPEM)
	waitUntil(t, "the log tells of the half renewal", func() bool { return strings.Contains(p.log.String(), "server certificate not renewed") })
	if _, _, leaf := get(p, client.TLS()); !leaf.Equal(first.Cert) {
		t.Error("half a renewal replaced the certificate")
	}
	write("server.key", second.KeyPEM)
	waitUntil(t, "the renewed certificate is served", func() bool { _, _, leaf := get(p, client.TLS()); return leaf.Equal(second.Cert) })
	p.stop()
}

// TestShutdownDoesNotWaitForSources: a client whose source of revocation never answers is no reason to stop late.
func TestShutdownDoesNotWaitForSources(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	o := newOutside(t)
	p := o.trusting("on_failure: hard")
	leaf := o.Client("client", testpki.Edit(func(c *x509.Certificate) {
		c.CRLDistributionPoints = []string{"http://" + silent.Addr().String() + "/ca.crl"}
	}))
	conn, err := tls.Dial("tcp", p.edgeAddress(), p.tlsConfig(leaf.TLS()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked, err := silent.Accept() // the edge waits for the list now
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	crowded, begin := crowding(t), time.Now()
	p.stop()
	within(t, "the server stops", time.Since(begin), 2*time.Second, crowded)
}
