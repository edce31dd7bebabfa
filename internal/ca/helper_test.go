package ca_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/ca/responder"
	"sekisho/internal/keystore"
	"sekisho/internal/pkix"
	"sekisho/internal/store"
)

const zone = "0123456789abcdef0123456789abcdef"

// fixture is an Authority over a real store, with its responder.
type fixture struct {
	*ca.Authority
	t     testing.TB
	dir   string
	store *store.Store
	keys  *keystore.Dir
	cfg   ca.Config
	clock atomic.Int64 // nanoseconds ahead of the real clock
	fault atomic.Pointer[func(string) error]
	url   string
	init  ca.InitRequest // how newCA makes the CAs; one shard unless a test says otherwise
	shard int            // the one that crl reads
}

type option func(*fixture)

// shards gives the issuing CA several.
func shards(n int) option { return func(f *fixture) { f.init.Shards = n } }

func config(edit func(*ca.Config)) option { return func(f *fixture) { edit(&f.cfg) } }

// newFixture makes an Authority without CAs and serves its responder.
func newFixture(t testing.TB, opts ...option) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), init: ca.InitRequest{Shards: 1}}
	f.keys = newKeys(t, filepath.Join(f.dir, "keys"))
	server := httptest.NewUnstartedServer(nil)
	f.url = "http://" + server.Listener.Addr().String()
	f.cfg = ca.Config{
		Keys: f.keys, PKIURL: f.url, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(f.clock.Load())) },
	}
	for _, o := range opts {
		o(f)
	}
	f.open()
	server.Config.Handler = responder.New(responder.Config{Authority: f.Authority, Logger: f.cfg.Logger, Now: f.cfg.Now})
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(func() { f.store.Close() })
	return f
}

func newKeys(t testing.TB, dir string) *keystore.Dir {
	t.Helper()
	keys, err := keystore.Open(keystore.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// open opens the store and the Authority over it.
func (f *fixture) open() {
	f.t.Helper()
	var err error
	f.store, err = store.Open(f.t.Context(), store.Config{Dir: f.dir, Logger: f.cfg.Logger, Fault: func(point string) error {
		if fault := f.fault.Load(); fault != nil {
			return (*fault)(point)
		}
		return nil
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.cfg.Ledger = f.store
	if f.Authority, err = ca.Open(f.t.Context(), f.cfg); err != nil {
		f.t.Fatal(err)
	}
}

// newCA is newFixture with a root and an issuing CA.
func newCA(t testing.TB, keyType pkix.KeyType, opts ...option) *fixture {
	t.Helper()
	f := newFixture(t, opts...)
	f.init.KeyType = keyType
	if err := f.Init(t.Context(), "test", f.init); err != nil {
		t.Fatal(err)
	}
	return f
}

// run runs the publisher until the test ends.
func (f *fixture) run() {
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("Run: %v", err)
		}
	})
}

// issue makes a client certificate with a new key.
func (f *fixture) issue(cn string) ca.Certificate {
	f.t.Helper()
	row, _, err := f.IssueWithKey(f.t.Context(), ca.IssueRequest{
		ZoneID: zone, Profile: ca.ProfileClient, Subject: "CN=" + cn, ValidDays: 30, Actor: "test",
	}, pkix.ECDSAP256)
	if err != nil {
		f.t.Fatal(err)
	}
	return row
}

func (f *fixture) revoke(id string, reason pkix.Reason) ca.Certificate {
	f.t.Helper()
	row, err := f.Revoke(f.t.Context(), ca.RevokeRequest{ID: id, ZoneID: zone, Actor: "test", Reason: reason})
	if err != nil {
		f.t.Fatal(err)
	}
	return row
}

func (f *fixture) hold(id string) ca.Certificate {
	f.t.Helper()
	row, err := f.Hold(f.t.Context(), ca.ChangeRequest{ID: id, ZoneID: zone, Actor: "test"})
	if err != nil {
		f.t.Fatal(err)
	}
	return row
}

func (f *fixture) reactivate(id string) ca.Certificate {
	f.t.Helper()
	row, err := f.Reactivate(f.t.Context(), ca.ChangeRequest{ID: id, ZoneID: zone, Actor: "test"})
	if err != nil {
		f.t.Fatal(err)
	}
	return row
}

// issuingID is the issuing CA's record id.
func (f *fixture) issuingID() string {
	f.t.Helper()
	records, err := f.CAs(f.t.Context())
	if err != nil || len(records) != 2 {
		f.t.Fatalf("CAs: %d, %v; want 2", len(records), err)
	}
	return records[1].ID
}

// crl is the issuing CA's CRL, parsed and its signature checked by crypto/x509.
func (f *fixture) crl() *x509.RevocationList {
	f.t.Helper()
	crl, err := f.CRL(f.t.Context(), f.issuingID(), f.shard)
	if err != nil {
		f.t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(crl.DER)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(f.Issuing()); err != nil {
		f.t.Fatal(err)
	}
	if list.Number.Cmp(crl.Number) != 0 {
		f.t.Fatalf("CRL number %v inside, %v outside", list.Number, crl.Number)
	}
	return list
}

// entry finds a certificate in a CRL; nil when it is not there. Twice is an error.
func entry(t testing.TB, list *x509.RevocationList, row ca.Certificate) *x509.RevocationListEntry {
	t.Helper()
	var found *x509.RevocationListEntry
	for i := range list.RevokedCertificateEntries {
		if pkix.SerialOf(list.RevokedCertificateEntries[i].SerialNumber) == row.Serial {
			if found != nil {
				t.Errorf("serial %s is in CRL %v twice", row.Serial, list.Number)
			}
			found = &list.RevokedCertificateEntries[i]
		}
	}
	return found
}

// waitCRL waits until the published CRL is as wanted and returns how long that took.
func (f *fixture) waitCRL(want func(*x509.RevocationList) bool) time.Duration {
	f.t.Helper()
	start := time.Now()
	for time.Since(start) < 30*time.Second {
		if want(f.crl()) {
			return time.Since(start)
		}
		time.Sleep(time.Millisecond)
	}
	f.t.Fatal("the CRL did not come to say it in 30 s")
	return 0
}

// csr makes a request in PEM.
func csr(t testing.TB, key crypto.Signer, template x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.EncodeCSR(der)
}

func named(cn string) x509.CertificateRequest {
	return x509.CertificateRequest{Subject: x509pkix.Name{CommonName: cn}}
}

func newKey(t testing.TB, kind pkix.KeyType) crypto.Signer {
	t.Helper()
	key, err := pkix.GenerateKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func parse(t testing.TB, row ca.Certificate) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(row.DER)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// file writes a file for a tool.
func (f *fixture) file(name string, content []byte) string {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// tool runs a program and returns what it printed; it may fail.
func tool(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is not installed; make test-tools installs it", name)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

// wants runs a program that must succeed and print each text.
func wants(t testing.TB, texts []string, name string, args ...string) string {
	t.Helper()
	out, err := tool(t, name, args...)
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("%s %s: no %q in\n%s", name, strings.Join(args, " "), text, out)
		}
	}
	return out
}
