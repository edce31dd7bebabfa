package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// outside is a CA of somebody else, with the list and the responder that it publishes.
type outside struct {
	*testpki.CA
	t        *testing.T
	url      string
	requests atomic.Int64 // to list and responder
	down     atomic.Bool  // the server answers 500

	mu      sync.Mutex
	number  int64
	revoked []pkix.Serial
}

func newOutside(t *testing.T) *outside {
	o := &outside{CA: testpki.NewCA(t, testpki.Name("Outside Root")), t: t}
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	o.url = server.URL
	return o
}

// revoke adds to what the CA says from now on.
func (o *outside) revoke(leaves ...testpki.Leaf) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range leaves {
		o.revoked = append(o.revoked, pkix.SerialOf(l.Cert.SerialNumber))
	}
}

// crl is the next list.
func (o *outside) crl() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.number++
	var entries []byte
	for _, s := range o.revoked {
		entries = pkix.AppendCRLEntry(entries, pkix.CRLEntry{Serial: s, At: time.Now(), Reason: pkix.KeyCompromise})
	}
	der, err := pkix.SignCRL(pkix.CRLTemplate{
		Issuer: o.Cert, Number: big.NewInt(o.number), ThisUpdate: time.Now().Add(-time.Second), NextUpdate: time.Now().Add(time.Hour),
	}, entries, o.Key)
	if err != nil {
		o.t.Error(err)
	}
	return der
}

// set is a CRLSet in raw format.
func (o *outside) set() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.number++
	header := fmt.Sprintf(`{"Version":0,"ContentType":"CRLSet","Sequence":%d,"DeltaFrom":0,"NumParents":1,"BlockedSPKIs":[%q]}`,
		o.number, base64.StdEncoding.EncodeToString(make([]byte, sha256.Size)))
	raw := []byte{byte(len(header)), byte(len(header) >> 8)}
	raw = append(raw, header...)
	issuer := pkix.KeyIDOf(o.Cert)
	raw = append(raw, issuer[:]...)
	raw = append(raw, byte(len(o.revoked)), 0, 0, 0)
	for _, s := range o.revoked {
		raw = append(append(raw, byte(len(s.Bytes()))), s.Bytes()...)
	}
	return raw
}

// ServeHTTP answers GET /ca.crl, and OCSP requests below /ocsp.
func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.requests.Add(1)
	if o.down.Load() {
		http.Error(w, "down", http.StatusInternalServerError)
		return
	}
	if r.URL.Path == "/ca.crl" {
		_, _ = w.Write(o.crl())
		return
	}
	der, err := io.ReadAll(r.Body)
	if r.Method == http.MethodGet {
		der, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(r.URL.Path, "/ocsp/"))
	}
	if err != nil {
		o.t.Error(err)
		return
	}
	request, err := pkix.ParseOCSPRequest(der)
	if err != nil {
		o.t.Errorf("%s %s: %v", r.Method, r.URL, err)
		return
	}
	single := pkix.OCSPSingle{
		ID: request.Certs[0], Status: pkix.OCSPGood, ThisUpdate: time.Now().Add(-time.Second), NextUpdate: time.Now().Add(time.Hour),
	}
	o.mu.Lock()
	for _, s := range o.revoked {
		if s == request.Certs[0].Serial {
			single.Status, single.RevokedAt, single.Reason = pkix.OCSPRevoked, time.Now(), pkix.KeyCompromise
		}
	}
	o.mu.Unlock()
	answer, err := pkix.SignOCSP(pkix.OCSPTemplate{Responder: o.Cert, ProducedAt: time.Now(), Nonce: request.Nonce, Responses: []pkix.OCSPSingle{single}}, o.Key)
	if err != nil {
		o.t.Error(err)
	}
	_, _ = w.Write(answer)
}

// trusting starts a server whose host localhost trusts the CA, with a policy in the words of the configuration file.
func (o *outside) trusting(policy string) *process {
	o.t.Helper()
	dir := o.t.TempDir()
	certs := filepath.Join(dir, "outside.pem")
	if err := os.WriteFile(certs, o.PEM, 0o600); err != nil {
		o.t.Fatal(err)
	}
	file := filepath.Join(dir, "sekisho.yaml")
	config := fmt.Sprintf(`
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
outbound: {allow: [127.0.0.0/8]}
log: {access: "off"}
trust:
  - {name: outside, certs: %q, %s}
hosts:
  - name: localhost
    names: ["127.0.0.1"]
    default: true
    echo: true
    client_auth: {mode: require, ca: [outside]}
`, certs, policy)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return start(o.t, dir, "--config", file, "--data", dir)
}

// inPlace writes a file as an operator's tool does: beside it, then renamed.
func inPlace(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// A source that is down refuses (hard) or lets in (soft), and explain says which and why.
func TestInvariant06SourceDown(t *testing.T) {
	for _, tc := range []struct {
		policy string
		status int
		state  string
	}{
		{"on_failure: hard", http.StatusForbidden, "unknown"},
		{"on_failure: soft", http.StatusOK, "unknown"},
	} {
		t.Run(tc.policy, func(t *testing.T) {
			o := newOutside(t)
			o.down.Store(true)
			p := o.trusting(tc.policy)
			leaf := o.Client("client", testpki.Edit(func(c *x509.Certificate) {
				c.CRLDistributionPoints, c.OCSPServer = []string{o.url + "/ca.crl"}, []string{o.url + "/ocsp"}
			}))
			if status, body := p.get(p.client(leaf.TLS()), "/"); status != tc.status {
				t.Errorf("answered %d %s, want %d", status, body, tc.status)
			}
			status, answer := p.api("POST", "/sekisho/explain", map[string]string{"certificate": string(leaf.CertPEM), "host": "localhost"})
			var x struct {
				Sources []struct {
					State   string `json:"state"`
					Sources []struct{ Source, Error string }
				} `json:"revocation_reports"`
			}
			if err := json.Unmarshal(answer.Result, &x); err != nil || status != http.StatusOK || len(x.Sources) != 1 || x.Sources[0].State != tc.state {
				t.Fatalf("explain: %d %v %s", status, err, answer.Result)
			}
			for _, source := range x.Sources[0].Sources {
				if source.Source != "ledger" && !strings.Contains(source.Error, "500") {
					t.Errorf("%s: error %q does not say 500", source.Source, source.Error)
				}
			}
			p.stop()
		})
	}
}

// A certificate of which no source speaks comes in, and is marked unchecked; one whose source is there is good.
func TestUncheckedAndGood(t *testing.T) {
	o := newOutside(t)
	p := o.trusting("require: any")
	plain := o.Client("plain")
	good := o.Client("good", testpki.Edit(func(c *x509.Certificate) { c.OCSPServer = []string{o.url + "/ocsp"} }))
	for leaf, want := range map[*testpki.Leaf]string{&plain: "unchecked", &good: "good"} {
		if status, body := p.get(p.client(leaf.TLS()), "/"); status != http.StatusOK {
			t.Errorf("%s: %d %s", want, status, body)
		}
		_, answer := p.api("POST", "/sekisho/explain", map[string]string{"certificate": string(leaf.CertPEM)})
		if !bytes.Contains(answer.Result, []byte(`"revocation":"`+want+`"`)) {
			t.Errorf("want %s: %s", want, answer.Result)
		}
	}
	p.stop()
}

// Who holds a certificate without its key can make the edge fetch nothing.
func TestInvariant13StolenCertificateFetchesNothing(t *testing.T) {
	o := newOutside(t)
	p := o.trusting("require: all")
	leaf := o.Client("client", testpki.Edit(func(c *x509.Certificate) {
		c.CRLDistributionPoints, c.OCSPServer = []string{o.url + "/ca.crl"}, []string{o.url + "/ocsp"}
	}))
	stolen := leaf
	stolen.Key = o.Client("thief").Key
	for range 5 {
		resp, err := p.client(stolen.TLS()).Get(p.ready.Edge + "/")
		if err == nil {
			resp.Body.Close()
			t.Fatalf("a stolen certificate is answered with %s", resp.Status)
		}
	}
	if n := o.requests.Load(); n != 0 {
		t.Errorf("%d requests were made for a client without the key", n)
	}
	if status, body := p.get(p.client(leaf.TLS()), "/"); status != http.StatusOK {
		t.Errorf("the owner is answered %d %s", status, body)
	}
	if o.requests.Load() == 0 {
		t.Error("nothing was fetched for the owner")
	}
	p.stop()
}
