package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/admin"
	"sekisho/internal/ca"
	"sekisho/internal/ca/responder"
	"sekisho/internal/edge"
	"sekisho/internal/revocation"
	"sekisho/internal/servercert"
	"sekisho/internal/site"
	"sekisho/internal/telemetry"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// server is everything that `sekisho serve` holds together. The build methods run once, in order, on one goroutine;
// afterwards only the pieces, each safe for concurrent use, are shared.
type server struct {
	env    env
	flags  serveFlags
	cfg    Config
	logger *slog.Logger
	access *slog.Logger

	house *house // nil without state (--cert)

	index    *revocation.Index
	sources  sources
	ports    ownPorts
	verifier *verify.Verifier
	sites    *site.Source
	certs    *servercert.Manager
	edge     *edge.Server
	running  atomic.Pointer[edge.Server] // edge, once it is there: for those who report a change from goroutines of their own

	reloading sync.Mutex // held by reload: hosts and the sources of their certificates change together

	urls    map[string]string // by listener: edge, admin, pki, metrics
	pki     net.Listener
	tasks   []func(context.Context) error // served side by side until the context ends
	closers []func() error                // in reverse order
	ready   readyFile
}

// newServer returns a server with its loggers.
func newServer(e env, f serveFlags, cfg Config) (*server, error) {
	s := &server{env: e, flags: f, cfg: cfg, urls: make(map[string]string)}
	logs, err := telemetry.NewLogs(telemetry.LogConfig{Level: cfg.Log.Level, Format: cfg.Log.Format, Access: cfg.Log.Access, Stderr: e.stderr})
	if err != nil {
		return nil, &usageError{err: err}
	}
	s.logger, s.access = logs.Logger, logs.Access
	s.closers = append(s.closers, logs.Close)
	return s, nil
}

// close releases what the build methods opened, last first.
func (s *server) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		if err := s.closers[i](); err != nil {
			s.logger.Error("close", "error", err)
		}
	}
}

// stateless reports whether the server runs without a data directory, CA and API.
func (s *server) stateless() bool { return s.flags.cert != "" }

// buildHouse opens the data directory and makes the CA ready. The pki listener is opened in between because its address
// stands in the certificates.
func (s *server) buildHouse(ctx context.Context) error {
	s.index = revocation.NewIndex()
	if s.stateless() {
		return nil
	}
	var err error
	if s.house, err = openHouse(ctx, s.cfg, s.logger); err != nil {
		return err
	}
	s.closers = append(s.closers, s.house.close)
	if err := s.cfg.rememberJournal(); err != nil {
		return err
	}
	if err := s.openPKI(ctx); err != nil {
		return err
	}
	if err := s.house.openCA(ctx, s.cfg.PKI, s.certificateChanged); err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { return s.house.authority.Finish(context.WithoutCancel(ctx)) })
	s.tasks = append(s.tasks, s.house.authority.Run, func(ctx context.Context) error {
		return s.house.keepLedger(ctx, s.cfg.PKI.ArchiveAfter)
	})
	return nil
}

// openPKI opens the listener of CRL, OCSP and CA certificates and fixes their URL.
func (s *server) openPKI(ctx context.Context) error {
	if s.cfg.Listen.PKI == "off" {
		if s.cfg.PKI.URL == "" {
			return &usageError{err: errors.New("listen.pki is off and pki.url is not set"), hint: "certificates need an address for their CRL and OCSP answers: set pki.url"}
		}
		return nil
	}
	ln, err := listen(ctx, "pki", s.cfg.Listen.PKI)
	if err != nil {
		return err
	}
	s.pki = ln
	s.ports.add(ln.Addr())
	s.closers = append(s.closers, func() error { return ignoreClosed(ln.Close()) })
	s.urls["pki"] = "http://" + reachable(ln.Addr(), "127.0.0.1")
	if s.cfg.PKI.URL == "" {
		s.cfg.PKI.URL = s.urls["pki"]
	}
	s.tasks = append(s.tasks, func(ctx context.Context) error {
		handler := responder.New(responder.Config{Authority: s.house.authority, Logger: s.logger, OCSPMaxAge: s.cfg.PKI.OCSPMaxAge})
		return s.plainServer(ln, handler, pkiWriteTimeout).run(ctx)
	})
	return nil
}

// certificateChanged is called by the CA after a transition is durable and before the caller has its answer: the index
// first, so that every request and handshake from now on sees it, then the connections that are open.
func (s *server) certificateChanged(c ca.Certificate) {
	s.index.Apply(revocation.Change{
		Entry:   revocation.Entry{ID: c.CertID(), Reason: c.Reason, At: c.RevokedAt},
		Revoked: c.Status == ca.Revoked,
	})
	if e := s.running.Load(); e != nil && c.Status == ca.Revoked {
		e.Cut(c.CertID())
	}
}

// buildRevocation loads every revoked certificate before anything listens for clients.
func (s *server) buildRevocation(ctx context.Context) error {
	if err := s.buildSources(); err != nil { //nolint:contextcheck // what a change has asked ends by its own budget, and Shutdown waits for it
		return err
	}
	s.verifier = verify.New(verify.Config{Revocation: s.sources.checker})
	if s.house == nil {
		return nil
	}
	start := time.Now()
	// Those that ended within a year are loaded too: a clock that is ahead at start and set right afterwards must not let
	// revoked ones in that had only seemed to have ended.
	n, err := s.index.Load(entries(s.house.store.AllRevoked(ctx, start.AddDate(-1, 0, 0))))
	if err != nil {
		return fmt.Errorf("load revoked certificates: %w", err)
	}
	if n > 100_000 {
		debug.FreeOSMemory() // what the load left behind is several times what stays
	}
	s.logger.InfoContext(ctx, "revoked certificates loaded", "count", n, "seconds", time.Since(start).Seconds())
	return nil
}

func entries(rows iter.Seq2[ca.RevokedRow, error]) iter.Seq2[revocation.Entry, error] {
	return func(yield func(revocation.Entry, error) bool) {
		for row, err := range rows {
			if !yield(revocation.Entry{ID: row.ID, Reason: row.Reason, At: row.At}, err) {
				return
			}
		}
	}
}

// buildSites reads the files that the configuration names, has certificates issued, and makes the first snapshot.
func (s *server) buildSites(ctx context.Context) error {
	var records site.Records
	if s.house != nil {
		records = s.house.store
	}
	s.certs = &servercert.Manager{Logger: s.logger}
	s.tasks = append(s.tasks, s.certs.Run)
	s.sites = site.NewSource(records, func() {
		s.sources.checker.ForgetCAs()
		if e := s.running.Load(); e != nil {
			e.SnapshotChanged()
		}
	})
	s.sites.Prepare(s.casInForce)
	return s.applyConfig(ctx, s.cfg)
}

// applyConfig makes the hosts of a configuration the ones in force, or changes nothing.
func (s *server) applyConfig(ctx context.Context, cfg Config) error {
	b := &baseBuilder{cfg: cfg}
	if s.house != nil {
		b.managed = managedCA(s.house.authority)
		b.zone = func(ctx context.Context, z site.Zone) (site.Zone, error) {
			z.AccountID, z.CreatedOn = s.house.accountID, time.Now().UTC()
			if z.ID == "" {
				z.ID = newID()
			}
			return s.house.store.EnsureZone(ctx, z)
		}
		b.issue = func(ctx context.Context, names []string) (*servercert.Source, error) {
			return servercert.Issued(ctx, servercert.IssuedConfig{Authority: s.house.authority, Keys: s.house.keys, Names: names})
		}
	}
	base, err := b.build(ctx)
	if err != nil {
		return err
	}
	if s.flags.dev {
		if err := s.seedAssociation(ctx, base.Hosts[0].Zone); err != nil {
			return err
		}
	}
	for _, w := range b.warnings {
		s.logger.WarnContext(ctx, "configuration", "warning", w)
	}
	if err := s.sites.SetBase(ctx, base); err != nil {
		return err
	}
	s.certs.SetSources(b.sources)
	return nil
}

// reload reads the configuration file again. Listeners, data directory and limits stay as they were at start.
func (s *server) reload(ctx context.Context) error {
	if s.flags.config == "" {
		return errors.New("there is no configuration file to reload: the server runs with --dev or --cert")
	}
	s.reloading.Lock()
	defer s.reloading.Unlock()
	cfg, err := s.flags.resolve()
	if err != nil {
		return err
	}
	if err := s.applyConfig(ctx, cfg); err != nil {
		return err
	}
	s.logger.InfoContext(ctx, "configuration reloaded", "hosts", len(s.sites.Load().Hosts()))
	return nil
}

// managedCA is the house's own CAs as hosts trust them: paths end at an issuing CA, so the root needs not be sent, and
// our ledger knows what is revoked before any list or responder does. CAs that issue no more are among them, until they end.
func managedCA(a *ca.Authority) trust.CA {
	return trust.CA{
		Name: "managed", Anchors: a.ClientAnchors(), Policy: trust.Policy{Sources: []trust.Source{trust.Ledger}},
	}
}

// casChanged puts the house's CAs into force at the hosts after one was rotated or imported, or its trust changed. A reload meanwhile would
// bring the CAs of before back, so the two wait for each other.
func (s *server) casChanged(ctx context.Context) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	return errors.Join(s.sites.SetManaged(ctx, managedCA(s.house.authority)), s.house.writeRoots())
}

// buildEdge opens the edge's listeners. Everything a handshake needs is in memory by now.
func (s *server) buildEdge(ctx context.Context) error {
	l := s.cfg.Limits
	cfg := edge.Config{
		Snapshot: s.sites.Load, Verifier: s.verifier, Logger: s.logger, AccessLog: s.access,
		Limits: edge.Limits{
			HandshakeTimeout: l.HandshakeTimeout, HeaderTimeout: l.HeaderTimeout, IdleTimeout: l.IdleTimeout,
			DrainTimeout: s.cfg.Drain, MaxHeaderBytes: l.HeaderBytes, HandshakesPerIP: l.HandshakesPerIP, MaxConnections: l.Connections,
		},
	}
	if s.house != nil {
		sealer, err := s.house.keys.Sealer()
		if err != nil {
			return err
		}
		cfg.Tickets, cfg.Seal = s.house.store, sealer
	}
	var err error
	if s.edge, err = edge.New(cfg); err != nil {
		return err
	}
	s.running.Store(s.edge)
	s.tasks = append(s.tasks, s.edge.Run, func(ctx context.Context) error {
		<-ctx.Done()
		return s.edge.Shutdown(context.WithoutCancel(ctx))
	})
	for i, l := range s.cfg.Listen.Edge {
		ln, err := listen(ctx, "edge", l.Address)
		if err != nil {
			return err
		}
		s.closers = append(s.closers, func() error { return ignoreClosed(ln.Close()) })
		s.ports.add(ln.Addr())
		if i == 0 {
			s.urls["edge"] = "https://" + reachable(ln.Addr(), "localhost")
		}
		s.logger.Info("edge listens", "listener", l.Name, "address", ln.Addr().String())
		s.tasks = append(s.tasks, func(ctx context.Context) error { return s.edge.Serve(ctx, l.Name, ln) })
	}
	return nil
}

// buildAdmin opens the admin API.
func (s *server) buildAdmin(ctx context.Context) error {
	if s.cfg.Listen.Admin == "off" || s.house == nil {
		return nil
	}
	c := s.house.adminConfig()
	c.CAsChanged = s.casChanged
	c.SiteChanged, c.Reload, c.Hostnames = s.sites.Refresh, s.reload, s.cfg.Admin.Names
	c.Hosts = func() []*site.Host { return s.sites.Load().Hosts() }
	c.Base = s.sites.Base
	c.Judge, c.Refusal, c.Usage = s.judge, s.edge.Refusal, s.usage
	handler, err := admin.New(c)
	if err != nil {
		return err
	}
	if err := admin.CheckAddress(s.cfg.Listen.Admin, s.cfg.Admin.TLS != nil); err != nil {
		return &usageError{err: err, hint: "set admin.tls with cert and key, or listen on 127.0.0.1"}
	}
	config, err := s.adminTLS(ctx)
	if err != nil {
		return err
	}
	ln, err := listen(ctx, "admin", s.cfg.Listen.Admin)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { return ignoreClosed(ln.Close()) })
	s.ports.add(ln.Addr())
	scheme := "http://"
	if s.cfg.Admin.TLS != nil {
		scheme = "https://"
	}
	s.urls["admin"] = scheme + reachable(ln.Addr(), "127.0.0.1")
	wrapped := admin.Listener(ln, config)
	if s.cfg.Admin.TLS != nil {
		wrapped = tls.NewListener(ln, config)
	}
	s.tasks = append(s.tasks, s.plainServer(wrapped, handler, writeTimeout).run)
	return nil
}

// adminTLS is the configuration of the admin port: the operator's certificate, or one of our CA for localhost.
func (s *server) adminTLS(ctx context.Context) (*tls.Config, error) {
	var source *servercert.Source
	var err error
	if c := s.cfg.Admin.TLS; c != nil {
		source, err = servercert.FromFiles(c.Cert, c.Key)
	} else {
		source, err = servercert.Issued(ctx, servercert.IssuedConfig{
			Authority: s.house.authority, Keys: s.house.keys, Names: []string{"localhost", "127.0.0.1", "::1"},
		})
	}
	if err != nil {
		return nil, fmt.Errorf("certificate of the admin API: %w", err)
	}
	s.certs.AddSource(source)
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: source.Certificate, NextProtos: []string{"h2", "http/1.1"}}, nil
}

// buildMetrics opens the listener of metrics and health.
func (s *server) buildMetrics(ctx context.Context) error {
	if s.cfg.Listen.Metrics == "off" {
		return nil
	}
	ln, err := listen(ctx, "metrics", s.cfg.Listen.Metrics)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() error { return ignoreClosed(ln.Close()) })
	s.ports.add(ln.Addr())
	s.urls["metrics"] = "http://" + reachable(ln.Addr(), "127.0.0.1") + "/metrics"
	handler := telemetry.Handler(telemetry.Sources{
		Connections: s.edge.ConnectionMetrics, Requests: s.edge.RequestMetrics, CA: s.authorityMetrics(), Revoked: s.index.Len,
		Revocation: s.revocationMetrics,
	})
	s.tasks = append(s.tasks, s.plainServer(ln, handler, writeTimeout).run)
	return nil
}

func (s *server) authorityMetrics() func() ca.Metrics {
	if s.house == nil {
		return nil
	}
	return s.house.authority.Metrics
}

func (s *server) plainServer(ln net.Listener, handler http.Handler, write time.Duration) plainServer {
	return plainServer{listener: ln, handler: handler, logger: s.logger, drain: s.cfg.Drain, write: write}
}

// reachable is a listener's address as a client on this machine writes it; a wildcard address becomes host.
func reachable(addr net.Addr, host string) string {
	h, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(h); ip == nil || ip.IsUnspecified() || (host == "localhost" && ip.IsLoopback()) {
		h = host
	}
	return net.JoinHostPort(h, port)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
