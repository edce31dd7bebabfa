package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sekisho.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadConfig(path)
}

// TestInvariant15ConfigErrorsNameThePlace gives every kind of mistake and expects the place and the way out.
func TestInvariant15ConfigErrorsNameThePlace(t *testing.T) {
	for _, c := range []struct{ what, text, want string }{
		{"unknown key", "listen:\n  egde: \":8443\"\n", "[2:3]"},
		{"unknown key in a host", "hosts:\n  - name: a.test\n    echo: true\n    upstream: x\n", "[4:5]"},
		{"wrong type", "limits:\n  connections: many\n", "[2:16]"},
		{"no YAML", "listen: [\n", "[1:9]"},
		{"edge as number", "listen:\n  edge: [1]\n", "listen.edge takes an address"},
		{"no duration", "hosts:\n  - name: a.test\n    upstreams: [\"http://x\"]\n    upstream_timeouts: {header: 60}\n", "[4:33] 60 is no duration"},
		{"duplicate key", "data: a\ndata: b\n", "[2:1]"},
	} {
		if _, err := load(t, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want it to say %q", c.what, err, c.want)
		}
	}
	for _, c := range []struct{ what, text, want string }{
		{"no host", "", "hosts: none"},
		{"neither upstream nor echo", "hosts: [{name: a.test}]", "either upstreams or echo"},
		{"both", "hosts: [{name: a.test, echo: true, upstreams: [\"http://x\"]}]", "either upstreams or echo"},
		{"timeouts of nothing", "hosts: [{name: a.test, echo: true, upstream_timeouts: {dial: 1s}}]", "nothing to wait for"},
		{"mode", "hosts: [{name: a.test, echo: true, client_auth: {mode: on}}]", "use off, request or require"},
		{"CA without mode", "hosts: [{name: a.test, echo: true, client_auth: {ca: [x.pem]}}]", "client_auth.ca without a mode"},
		{"missing CA file", "hosts: [{name: a.test, echo: true, client_auth: {mode: require, ca: [nowhere.pem]}}]", "nowhere.pem"},
		{"refuse", "hosts: [{name: a.test, echo: true, client_auth: {mode: request, refuse: handshake}}]", "with mode require"},
		{"forward", "hosts: [{name: a.test, echo: true, forward: [nginx]}]", "use rfc9440, cf, xfcc, xfcc-cert or none"},
		{"TLS version", "hosts: [{name: a.test, echo: true, min_tls: \"1.1\"}]", "min_tls"},
		{"listener", "hosts: [{name: a.test, echo: true, listeners: [b]}]", "there is no edge listener \"b\""},
		{"zone", "hosts: [{name: a.test, echo: true, zone: b.test}]", "not one of the zones"},
		{"two hosts", "hosts: [{name: a.test, echo: true}, {name: A.test, echo: true}]", "two hosts of one name"},
		{"two defaults", "hosts: [{name: a.test, echo: true, default: true}, {name: b.test, echo: true, default: true}]", "is the default already"},
		{"half a certificate", "hosts: [{name: a.test, echo: true, certificate: {cert: x}}]", "both cert and key"},
		{"upstream scheme", "hosts: [{name: a.test, upstreams: [\"ftp://x\"]}]", "ftp"},
		{"host name", "hosts: [{name: \"https://a.test\", echo: true}]", "without scheme"},
		{"admin address", "listen: {admin: \"0.0.0.0:8440\"}\nhosts: [{name: a.test, echo: true}]", "listen.admin"},
		{"pki URL", "pki: {url: \"https://x\"}\nhosts: [{name: a.test, echo: true}]", "pki.url"},
		{"key type", "pki: {key_type: dsa}\nhosts: [{name: a.test, echo: true}]", "pki.key_type"},
		{"too many shards", "pki: {shards: 1025}\nhosts: [{name: a.test, echo: true}]", "pki.shards 1025: it is 1 to 1024"},
		{"negative shards", "pki: {shards: -1}\nhosts: [{name: a.test, echo: true}]", "pki.shards -1"},
		{"short CRLs", "pki: {crl_lifetime: 1m}\nhosts: [{name: a.test, echo: true}]", "pki.crl_lifetime 1m0s: it is 10m0s to 720h0m0s"},
		{"long CRLs", "pki: {crl_lifetime: 721h}\nhosts: [{name: a.test, echo: true}]", "pki.crl_lifetime 721h0m0s"},
		{"overlap of the whole life", "pki: {crl_lifetime: 1h, crl_overlap: 1h}\nhosts: [{name: a.test, echo: true}]", "pki.crl_overlap 1h0m0s: it is 1m to a minute less than crl_lifetime, 1h0m0s"},
		{"overlap of more than the default life", "pki: {crl_overlap: 25h}\nhosts: [{name: a.test, echo: true}]", "pki.crl_overlap 25h0m0s"},
		{"short answers", "pki: {ocsp_lifetime: 10s}\nhosts: [{name: a.test, echo: true}]", "pki.ocsp_lifetime 10s: it is 1m0s to 168h0m0s"},
		{"log level", "log: {level: loud}\nhosts: [{name: a.test, echo: true}]", "log.level"},
		{"negative limit", "limits: {connections: -1}\nhosts: [{name: a.test, echo: true}]", "limits.connections"},
	} {
		cfg, err := load(t, c.text)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		cfg = cfg.withDefaults()
		err = cfg.problems(t.Context(), &baseBuilder{cfg: cfg})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want it to say %q", c.what, err, c.want)
		}
	}
}

func TestConfigIsRead(t *testing.T) {
	cfg, err := load(t, `
listen: {edge: {public: ":8443", devices: ":9443"}, metrics: "off"}
limits: {idle_timeout: 90s}
zones: [{name: example.com}]
hosts:
  - {name: api.example.com, listeners: [devices], echo: true, client_auth: {mode: require}, forward: [cf, xfcc-cert]}
  - {name: "*.example.com", default: true, upstreams: ["unix:///run/x.sock"]}
`)
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.withDefaults()
	if cfg.Limits.IdleTimeout != 90*time.Second || len(cfg.Listen.Edge) != 2 || cfg.Listen.Edge[1] != (EdgeListener{"devices", ":9443"}) {
		t.Errorf("read %+v", cfg)
	}
	base, err := (&baseBuilder{cfg: cfg}).build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	api := base.Hosts[0]
	if !api.Managed || !api.ManagedByFile || !api.Forward.DERBase64 || !api.Forward.XFCCWithCert || api.Forward.RFC9440 || !api.CrossOriginGuard || api.Zone.Name != "example.com" {
		t.Errorf("host %+v", api)
	}
	if base.Trust != nil {
		t.Errorf("CAs from nowhere: %+v", base.Trust)
	}
	if base.Fallback != "*.example.com" || base.Hosts[1].CrossOriginGuard {
		t.Errorf("fallback %q, host %+v", base.Fallback, base.Hosts[1])
	}
}

// TestConfigTrust: a CA of the list has every key of its policy, and the host that names it gets that.
func TestConfigTrust(t *testing.T) {
	root := testpki.NewCA(t, testpki.Name("root"), testpki.V1())
	inter := testpki.NewCA(t).Intermediate("inter")
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("ca.pem", append(append([]byte{}, root.PEM...), inter.PEM...), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := load(t, `
trust:
  - name: partner
    certs: ca.pem
    sources: [crl, ocsp, crlset]
    require: all
    on_failure: soft
    scope: leaf
    grace: 1h
    refresh: 1m
    crls: [a.crl, "http://crl.example/a.crl"]
    crlsets: [sub/set]
    ocsp_responders: ["http://ocsp.example"]
    ignore_cdp: true
    ignore_aia: true
    ocsp_nonce: true
    ocsp_sha256: true
    ignore_staple: true
    eku: ignore
    allow_algorithms: [sha1-ecdsa]
    deny_algorithms: [ed25519]
    allowed_policies: ["1.2.3"]
hosts:
  - {name: a.test, echo: true, client_auth: {mode: require, ca: [partner, ca.pem]}}
  - {name: b.test, echo: true, client_auth: {mode: request, ca: [partner]}}
`)
	if err != nil {
		t.Fatal(err)
	}
	base, err := (&baseBuilder{cfg: cfg.withDefaults()}).build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := trust.Policy{
		Sources: []trust.Source{trust.CRL, trust.OCSP, trust.CRLSet}, Require: trust.RequireAll, OnFailure: trust.Soft, Scope: trust.Leaf,
		Refresh: time.Minute, Grace: time.Hour,
		CRLs: []string{filepath.Join(here, "a.crl"), "http://crl.example/a.crl"}, CRLSets: []string{filepath.Join(here, "sub/set")},
		OCSPResponders: []string{"http://ocsp.example"}, IgnoreCDP: true, IgnoreAIA: true, OCSPNonce: true, OCSPSHA256: true, IgnoreStaple: true,
		EKU: trust.EKUIgnore, AllowAlgorithms: []string{"sha1-ecdsa"}, DenyAlgorithms: []string{"ed25519"}, AllowedPolicies: []string{"1.2.3"},
	}
	for _, ca := range []trust.CA{base.Trust[0], base.Hosts[0].CAs[0], base.Hosts[1].CAs[0]} {
		if diff := cmp.Diff(want, ca.Policy); diff != "" || ca.ID != "partner" || len(ca.Anchors) != 2 {
			t.Errorf("%q with %d anchors, policy (-want +got):\n%s", ca.ID, len(ca.Anchors), diff)
		}
	}
	if v := reflect.ValueOf(want); slices.ContainsFunc(reflect.VisibleFields(v.Type()), func(f reflect.StructField) bool { return v.FieldByIndex(f.Index).IsZero() }) {
		t.Error("a field of the policy has no key in this test")
	}
	if path := base.Hosts[0].CAs[1]; path.ID != "ca.pem" || len(path.Anchors) != 2 || !cmp.Equal(path.Policy, trust.Policy{}) {
		t.Errorf("a file: %+v", path)
	}
}
