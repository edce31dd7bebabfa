// Package admin is the JSON API of sekisho: Cloudflare's v4 calls for what a checkpoint has (zones, managed client
// certificates, hostname associations, Access settings, CAs of others), and a few of our own under /client/v4/sekisho.
//
// A call passes one adapter: authenticate, authorize, decode, do, answer in the envelope. Without a valid credential
// nothing is done and nothing is told, not even whether a path exists. The package refuses bodies over 1 MiB, requests
// that a browser was tricked into (a foreign origin, a foreign Host on loopback), and plain HTTP anywhere but on
// loopback. It never answers a deterministic failure with a status that official clients retry (408, 409, 429, 5xx).
//
//	api, err := admin.New(admin.Config{Authority: authority, Records: db, Authenticator: auth, AccountID: id, …})
//	err = (&http.Server{Handler: api}).Serve(admin.Listener(ln, tlsConfig))
//
// docs/api.md lists every route.
package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/principal"
	"sekisho/internal/site"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// Config is what the API works on. Authority, Records, Authenticator, Audit and AccountID are required.
type Config struct {
	Authority     *ca.Authority            // issues and revokes
	Records       site.Records             // zones, associations, settings, CAs of others
	Authenticator *principal.Authenticator // who calls
	Tokens        TokenStore               // for the calls that list and create tokens; nil: those answer 404

	// Audit records a decision that no other transaction records: a refusal, a reload. Durable when it
	// returns nil.
	Audit func(ctx context.Context, e auditlog.Entry) error
	// AuditRecords returns at most limit records with Seq >= from, oldest first; nil: the call answers 404.
	AuditRecords func(ctx context.Context, from int64, limit int) ([]auditlog.Record, error)
	// SiteChanged puts changed associations and settings into force before it returns; nil: nothing to do.
	SiteChanged func(ctx context.Context) error
	// CAsChanged puts the CAs of the house into force at the hosts, after one was rotated, imported, trusted or distrusted, before it returns;
	// nil: nothing to do.
	CAsChanged func(ctx context.Context) error
	// Hosts returns the hosts in force, to tell which names the configuration file ties; nil: none.
	Hosts func() []*site.Host
	// Base returns the configuration in force, for the CAs that the file names; nil: none.
	Base func() site.Base
	// Explain returns what a caller may be told of a failure that is not of its making (a full disk), "" for what is
	// for the log only; nil: nothing.
	Explain func(err error) string
	// Judge explains how a certificate chain, leaf first, is judged as a client of a host; nil: the call answers 404.
	Judge func(host string, chain []*x509.Certificate) (verify.Explanation, error)
	// Refusal returns why a request was refused for its client's certificate; nil: the call answers 404.
	Refusal func(requestID string) (verify.Explanation, bool)
	// Usage reports whom a CA lets in only while its policy ignores extended key usages; nil: the call answers 404.
	Usage func(ca trust.CA) verify.UsageReport
	// Reload reads the configuration file again, or changes nothing and says why; nil: the call answers 404.
	Reload      func(ctx context.Context) error
	AccountID   string   // 32 lower hex; the one account
	AccountName string   // default "sekisho"
	Hostnames   []string // names under which the API may be called on loopback, beside localhost and the addresses
	Version     string   // for answers; default "dev"

	Logger *slog.Logger     // default slog.Default()
	Now    func() time.Time // default time.Now
}

// TokenStore is what the token calls need of the place where tokens are kept.
type TokenStore interface {
	// AddToken stores a token and, in the same transaction, entry in the audit log; both are durable when it returns nil.
	AddToken(ctx context.Context, t principal.Token, entry auditlog.Entry) error
	// DeleteToken removes a token and records entry in the same transaction. It returns principal.ErrNoToken, or
	// principal.ErrLastEditToken for the last of role edit that works at entry.At.
	DeleteToken(ctx context.Context, id string, entry auditlog.Entry) error
	// ListTokens returns all tokens ordered by creation.
	ListTokens(ctx context.Context) ([]principal.Token, error)
}

// server is the API: an immutable Config and the limiter of failed authentications.
type server struct {
	Config
	failures *failures
	trusting sync.Mutex // held from reading the CAs of others until what depends on it is stored and in force
}

var hexID = regexp.MustCompile(`^[0-9a-f]{32}$`)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// New checks the Config and returns the handler of the API. It starts nothing.
func New(c Config) (http.Handler, error) {
	s, err := newServer(c)
	if err != nil {
		return nil, err
	}
	return s.handler(), nil
}

func newServer(c Config) (*server, error) {
	switch {
	case c.Authority == nil:
		return nil, errors.New("admin: no certificate authority given")
	case c.Records == nil:
		return nil, errors.New("admin: no records of zones given")
	case c.Authenticator == nil:
		return nil, errors.New("admin: no authenticator given: the API would have no caller")
	case c.Audit == nil:
		return nil, errors.New("admin: no audit log given: what cannot be recorded does not happen")
	case !hexID.MatchString(c.AccountID):
		return nil, errors.New("admin: account id " + c.AccountID + ": want 32 lower hex digits")
	}
	if c.AccountName == "" {
		c.AccountName = "sekisho"
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Hosts == nil {
		c.Hosts = func() []*site.Host { return nil }
	}
	if c.Base == nil {
		c.Base = func() site.Base { return site.Base{} }
	}
	if c.Explain == nil {
		c.Explain = func(error) string { return "" }
	}
	if c.SiteChanged == nil {
		c.SiteChanged = func(context.Context) error { return nil }
	}
	if c.CAsChanged == nil {
		c.CAsChanged = func(context.Context) error { return nil }
	}
	return &server{Config: c, failures: newFailures(c.Now)}, nil
}
