package admin

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/principal"
	"sekisho/internal/site"
	"sekisho/internal/store"
	"sekisho/internal/testpki"
)

const (
	testAccount = "0123456789abcdef0123456789abcdef"
	testZone    = "1111111111111111111111111111aaaa"
	otherZone   = "2222222222222222222222222222bbbb"
	testToken   = "3333333333333333333333333333cccc" // id of the read token
	testEmail   = "admin@example.com"
)

// api is a running API over a real store and a real CA.
type api struct {
	t       *testing.T
	store   *store.Store
	server  *server
	base    string // http://127.0.0.1:PORT/client/v4
	address string
	edit    string // secrets of two tokens
	read    string
	caFile  string // PEM of the CA of the API's own certificate
	logs    *syncBuffer

	siteChanged atomic.Int64
	siteError   atomic.Pointer[string]
	diskFull    atomic.Bool // writes of the store fail
	lateError   atomic.Bool // they fail when they are stored
	hosts       atomic.Pointer[[]*site.Host]
}

// newAPI starts an API whose Config change may change.
func newAPI(t *testing.T, change ...func(*Config)) *api {
	t.Helper()
	a := &api{t: t, logs: &syncBuffer{}}
	logger := slog.New(slog.NewJSONHandler(a.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	a.store, err = store.Open(t.Context(), store.Config{Dir: t.TempDir(), Logger: logger, Fault: a.onWrite})
	check(t, err)
	t.Cleanup(func() { check(t, a.store.Close()) })
	authority, err := ca.Open(t.Context(), ca.Config{Ledger: a.store, Keys: memoryKeys{}, PKIURL: "http://127.0.0.1:8441", Logger: logger})
	check(t, err)
	check(t, authority.Init(t.Context(), "test", ca.InitRequest{}))
	for id, name := range map[string]string{testZone: "example.com", otherZone: "example.org"} {
		_, err := a.store.EnsureZone(t.Context(), site.Zone{ID: id, Name: name, AccountID: testAccount, CreatedOn: time.Unix(1700000000, 0)})
		check(t, err)
	}
	a.edit, a.read = a.token("edit token", principal.Edit), a.token("read token", principal.Read)
	a.hosts.Store(&[]*site.Host{})
	cfg := Config{
		Authority: authority, Records: a.store, Authenticator: principal.NewAuthenticator(a.store), Tokens: a.store,
		Audit: a.store.AppendAudit, AuditRecords: a.store.AuditRecords, SiteChanged: a.onSiteChanged,
		Hosts:     func() []*site.Host { return *a.hosts.Load() },
		AccountID: testAccount, AccountName: "Example", Version: "test", Logger: logger,
	}
	for _, f := range change {
		f(&cfg)
	}
	a.server, err = newServer(cfg)
	check(t, err)
	a.listen()
	return a
}

func (a *api) onSiteChanged(context.Context) error {
	a.siteChanged.Add(1)
	if text := a.siteError.Load(); text != nil {
		return errors.New(*text)
	}
	return nil
}

func (a *api) onWrite(point string) error {
	if a.diskFull.Load() && point == "before-commit" {
		return fmt.Errorf("secret detail: %w", store.ErrDiskFull)
	}
	if a.lateError.Load() && point == "after-commit" {
		return errors.New("the answer of the disk is lost")
	}
	return nil
}

// listen serves on a loopback port that answers TLS and plain HTTP, until the test ends.
func (a *api) listen() {
	pki := testpki.NewCA(a.t)
	a.caFile = filepath.Join(a.t.TempDir(), "ca.pem")
	check(a.t, os.WriteFile(a.caFile, pkix.EncodeCertificate(pki.Cert.Raw), 0o600))
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pki.Server("localhost", "127.0.0.1").TLS()}}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	check(a.t, err)
	ln := Listener(inner, config)
	a.address = inner.Addr().String()
	a.base = "http://" + a.address + prefix
	httpServer := &http.Server{Handler: a.server.handler(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(a.server.Logger.Handler(), slog.LevelDebug)}
	done := make(chan error, 1)
	go func() { done <- httpServer.Serve(ln) }()
	a.t.Cleanup(func() {
		check(a.t, httpServer.Close())
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			a.t.Errorf("serve: %v", err)
		}
	})
}

func (a *api) token(name string, role principal.Role) string {
	secret, token, err := principal.NewToken(name, testEmail, role)
	check(a.t, err)
	if role == principal.Read {
		token.ID = testToken
	}
	check(a.t, a.store.AddToken(a.t.Context(), token, auditlog.Entry{Action: "token.create", Object: token.ID}))
	return secret
}

// answer is what came back.
type answer struct {
	Status int         `json:"-"`
	Header http.Header `json:"-"`
	Body   string      `json:"-"`

	Success    bool            `json:"success"`
	Errors     []problem       `json:"errors"`
	Messages   []message       `json:"messages"`
	Result     json.RawMessage `json:"result"`
	ResultInfo *resultInfo     `json:"result_info"`
}

// code is the first error's.
func (r answer) code() int {
	if len(r.Errors) == 0 {
		return 0
	}
	return r.Errors[0].Code
}

// text is all error messages.
func (r answer) text() string {
	var texts []string
	for _, p := range r.Errors {
		texts = append(texts, p.Message)
	}
	return strings.Join(texts, "; ")
}

// call sends a request with the edit token; body is sent as it is when a string, as JSON otherwise.
func (a *api) call(method, path string, body any) answer {
	a.t.Helper()
	return a.do(method, path, body, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+a.edit) })
}

func (a *api) do(method, path string, body any, edit func(*http.Request)) answer {
	a.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		check(a.t, err)
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.base+path, reader)
	check(a.t, err)
	edit(req)
	resp, err := http.DefaultClient.Do(req)
	check(a.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	check(a.t, err)
	r := answer{Status: resp.StatusCode, Header: resp.Header, Body: string(data)}
	if method != http.MethodHead {
		if err := json.Unmarshal(data, &r); err != nil {
			a.t.Fatalf("%s %s: %d: the answer is no JSON: %v\n%s", method, path, resp.StatusCode, err, data)
		}
	}
	return r
}

// issue makes a certificate of the test zone.
func (a *api) issue(cn string) certificateObject {
	a.t.Helper()
	r := a.call("POST", certsPath, map[string]any{"csr": newCSR(a.t, cn), "validity_days": 365})
	if r.Status != http.StatusOK {
		a.t.Fatalf("issue %s: %s", cn, r.Body)
	}
	return result[certificateObject](a.t, r)
}

const certsPath = "/zones/" + testZone + "/client_certificates"

func result[T any](t *testing.T, r answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(r.Result, &v); err != nil {
		t.Fatalf("result: %v\n%s", err, r.Body)
	}
	return v
}

// newCSR makes a key and a request with a full subject.
func newCSR(t *testing.T, cn string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: x509pkix.Name{
		CommonName: cn, Country: []string{"JP"}, Province: []string{"Tokyo"}, Locality: []string{"Minato"},
		Organization: []string{"Daidai Co."}, OrganizationalUnit: []string{"IT"},
	}}, key)
	check(t, err)
	return string(pkix.EncodeCSR(der))
}

// audit returns the audit log's entries with an outcome.
func (a *api) audit(outcome string) []auditlog.Entry {
	a.t.Helper()
	records, err := a.store.AuditRecords(a.t.Context(), 0, 0)
	check(a.t, err)
	var entries []auditlog.Entry
	for _, r := range records {
		if r.Outcome == outcome {
			entries = append(entries, r.Entry)
		}
	}
	return entries
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// memoryKeys is a keystore that forgets.
type memoryKeys map[string]crypto.Signer

func (m memoryKeys) Create(name string, kind pkix.KeyType) (crypto.Signer, error) {
	key, err := pkix.GenerateKey(kind)
	m[name] = key
	return key, err
}

func (m memoryKeys) Add(name string, key crypto.Signer) (crypto.Signer, error) {
	m[name] = key
	return key, nil
}

func (m memoryKeys) Signer(name string) (crypto.Signer, error) {
	if key, ok := m[name]; ok {
		return key, nil
	}
	return nil, errors.New("no key " + name)
}

// syncBuffer collects log lines from many goroutines.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
