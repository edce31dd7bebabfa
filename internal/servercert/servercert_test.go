package servercert_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/keystore"
	"sekisho/internal/servercert"
	"sekisho/internal/store"
	"sekisho/internal/testpki"
)

// write puts a file in place whole, so that nobody reads half of it.
func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// run starts the manager for a source and stops it with the test.
func run(t *testing.T, m *servercert.Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); wait.Wait() })
}

func soon(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("not within 15 s: %s", what)
}

// logLines collects log output.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func TestInvariant06FilesAreReloadedWholeOrNotAtAll(t *testing.T) {
	authority := testpki.NewCA(t)
	first, second := authority.Server("a.test"), authority.Server("a.test")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, certFile, first.CertPEM)
	write(t, keyFile, first.KeyPEM)
	source, err := servercert.FromFiles(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	log := &logLines{}
	m := &servercert.Manager{Logger: slog.New(slog.NewTextHandler(log, nil))}
	m.SetSources([]*servercert.Source{source})
	run(t, m)

	write(t, certFile, second.CertPEM) // does not match the key yet
	soon(t, "the mismatch is logged", func() bool { return log.count("old one stays") > 0 })
	if !source.Leaf().Equal(first.Cert) {
		t.Fatal("a pair that does not match was taken")
	}
	write(t, keyFile, second.KeyPEM)
	soon(t, "the new pair is served", func() bool { return source.Leaf().Equal(second.Cert) })
	if n := log.count("old one stays"); n != 1 {
		t.Errorf("one failure was logged %d times", n)
	}
	served, err := source.Certificate(nil)
	if err != nil || len(served.Certificate) == 0 || served.PrivateKey == nil {
		t.Errorf("served %v, %v", served, err)
	}
}

// A failure that came back is logged again, also for a source that is not a host's.
func TestFailureThatComesBackIsLogged(t *testing.T) {
	pair := testpki.NewCA(t).Server("a.test")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, certFile, pair.CertPEM)
	write(t, keyFile, pair.KeyPEM)
	source, err := servercert.FromFiles(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	log := &logLines{}
	m := &servercert.Manager{Logger: slog.New(slog.NewTextHandler(log, nil))}
	m.AddSource(source)
	for range 2 {
		if err := os.Rename(keyFile, keyFile+".away"); err != nil {
			t.Fatal(err)
		}
		servercert.RefreshAll(m, t.Context())
		servercert.RefreshAll(m, t.Context())
		if err := os.Rename(keyFile+".away", keyFile); err != nil {
			t.Fatal(err)
		}
		servercert.RefreshAll(m, t.Context())
	}
	if n := log.count("old one stays"); n != 2 {
		t.Errorf("two failures, each seen twice, were logged %d times", n)
	}
}

// TestInvariant06ChangeWithinOneTick: a pair that has the sizes and the times of the one before is seen all the same.
func TestInvariant06ChangeWithinOneTick(t *testing.T) {
	authority := testpki.NewCA(t)
	first, second := authority.Server("a.test"), authority.Server("a.test")
	sameSize := func() bool {
		return len(second.CertPEM) == len(first.CertPEM) && len(second.KeyPEM) == len(first.KeyPEM)
	}
	for n := 0; n < 100 && !sameSize(); n++ {
		second = authority.Server("a.test") // signatures differ in length
	}
	if !sameSize() {
		t.Fatal("no two of a hundred pairs have the same size")
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	tick := time.Now().Truncate(time.Second)
	put := func(pair testpki.Leaf) {
		write(t, certFile, pair.CertPEM)
		write(t, keyFile, pair.KeyPEM)
		if err := errors.Join(os.Chtimes(certFile, tick, tick), os.Chtimes(keyFile, tick, tick)); err != nil {
			t.Fatal(err)
		}
	}
	put(first)
	source, err := servercert.FromFiles(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	m := &servercert.Manager{Logger: slog.New(slog.DiscardHandler)}
	m.SetSources([]*servercert.Source{source})
	put(second)
	servercert.RefreshAll(m, t.Context())
	if !source.Leaf().Equal(second.Cert) {
		t.Error("the first pair is still served")
	}
}

func TestFromFilesNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := servercert.FromFiles(filepath.Join(dir, "no.pem"), "x"); err == nil || !strings.Contains(err.Error(), "no.pem") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestIssuedIsKeptAndRenewed(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	keys, err := keystore.Open(keystore.Config{Dir: filepath.Join(dir, "keys")})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Open(t.Context(), ca.Config{Ledger: db, Keys: keys, PKIURL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Init(t.Context(), "test", ca.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	clock := time.Now()
	cfg := servercert.IssuedConfig{
		Authority: authority, Keys: keys, Names: []string{"a.test", "127.0.0.1"}, ValidDays: 9,
		Now: func() time.Time { return clock },
	}
	first, err := servercert.Issued(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Root())
	intermediates := x509.NewCertPool()
	intermediates.AddCert(authority.Issuing())
	for _, name := range cfg.Names {
		if _, err := first.Leaf().Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	again, err := servercert.Issued(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Leaf().Equal(first.Leaf()) {
		t.Error("a restart issued a new certificate although the old one is fresh")
	}
	late := time.Now().Add(7 * 24 * time.Hour)
	m := &servercert.Manager{Now: func() time.Time { return late }}
	m.SetSources([]*servercert.Source{again})
	run(t, m)
	soon(t, "the certificate is renewed in its last third", func() bool { return !again.Leaf().Equal(first.Leaf()) })
	if _, err := servercert.Issued(t.Context(), servercert.IssuedConfig{Authority: authority, Keys: keys}); err == nil {
		t.Error("a certificate without a name was issued")
	}
}
