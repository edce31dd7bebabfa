package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
	"sekisho/internal/site"
)

// serveFlags are the flags of `sekisho serve`.
type serveFlags struct {
	dev                       bool
	config, data, readyFile   string
	cert, key, clientCA, to   string
	edge, admin, pki, metrics string
}

func newServe(e env) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the checkpoint: edge, CA, CRL and OCSP responder, admin API",
		Long: `serve runs the checkpoint until it is told to stop (SIGINT or SIGTERM drain it and exit 0).

Three ways to say what it serves:
  --dev                a first minute: state in ./sekisho-data, a CA, one host "localhost" in front of a
                       built-in echo upstream, one client certificate, and curl lines to paste
  --cert F --key F     one host in front of --upstream (default: the built-in echo) with that certificate;
                       --client-ca F asks for client certificates of that CA. No state, no API
  --config F           everything, as docs/operating.md describes; SIGHUP reads it again

--ready-file F writes one JSON object once everything listens. Every address takes port 0.`,
		Example: `  sekisho serve --dev
  sekisho serve --cert server.crt --key server.key --client-ca client-ca.crt --edge :9443
  sekisho serve --config sekisho.yaml --data /var/lib/sekisho`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c.Context(), e, f) },
	}
	fl := c.Flags()
	fl.BoolVar(&f.dev, "dev", false, "the first minute: no configuration, one host localhost, one client certificate")
	fl.StringVar(&f.config, "config", "", "configuration `FILE`")
	fl.StringVar(&f.data, "data", "", "`DIR` of all state (default ./sekisho-data)")
	fl.StringVar(&f.readyFile, "ready-file", "", "write the addresses as JSON to `FILE` once everything listens")
	fl.StringVar(&f.cert, "cert", "", "server certificate chain, PEM `FILE`")
	fl.StringVar(&f.key, "key", "", "its private key, PEM `FILE`")
	fl.StringVar(&f.clientCA, "client-ca", "", "demand client certificates of the CAs in this PEM `FILE` (with --cert)")
	fl.StringVar(&f.to, "upstream", "", "origin `URL` (with --cert; default: the built-in echo)")
	fl.StringVar(&f.edge, "edge", "", "`HOST:PORT` of the TLS edge (default :8443)")
	fl.StringVar(&f.admin, "admin", "", "`HOST:PORT` of the admin API (default 127.0.0.1:8440)")
	fl.StringVar(&f.pki, "pki", "", "`HOST:PORT` of CRL, OCSP and CA certificates (default :8441)")
	fl.StringVar(&f.metrics, "metrics", "", "`HOST:PORT` of metrics and health (default 127.0.0.1:9440, or off)")
	return c
}

// config resolves flags and file into the configuration in force.
func (f serveFlags) resolve() (Config, error) {
	var cfg Config
	switch ways := f.ways(); {
	case ways > 1:
		return cfg, &usageError{err: errors.New("--dev, --config and --cert exclude one another"), hint: "sekisho serve --help says what each is for"}
	case ways == 0:
		return cfg, &usageError{err: errors.New("nothing to serve"), hint: "try: sekisho serve --dev"}
	case f.config != "":
		var err error
		if cfg, err = loadConfig(f.config); err != nil {
			return cfg, &usageError{err: err}
		}
	case f.dev:
		cfg = devConfig()
	default:
		var err error
		if cfg, err = plainConfig(f); err != nil {
			return cfg, err
		}
	}
	if f.cert == "" && (f.clientCA != "" || f.to != "" || f.key != "") {
		return cfg, &usageError{err: errors.New("--key, --client-ca and --upstream go with --cert"), hint: "sekisho serve --cert server.crt --key server.key"}
	}
	if f.cert != "" && (f.data != "" || f.admin != "" || f.pki != "") {
		return cfg, &usageError{err: errors.New("--data, --admin and --pki do not go with --cert, which keeps no state and has no CA and no API"), hint: "write a sekisho.yaml and use --config, or leave them out"}
	}
	if f.edge != "" {
		if len(cfg.Listen.Edge) > 1 {
			return cfg, &usageError{err: errors.New("--edge cannot replace the several edge listeners of the file"), hint: "change listen.edge in the file"}
		}
		cfg.Listen.Edge = EdgeListeners{{Name: "edge", Address: f.edge}}
	}
	for _, o := range []struct {
		flag string
		into *string
	}{{f.admin, &cfg.Listen.Admin}, {f.pki, &cfg.Listen.PKI}, {f.metrics, &cfg.Listen.Metrics}, {f.data, &cfg.Data}} {
		if o.flag != "" {
			*o.into = o.flag
		}
	}
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		if f.config == "" {
			return cfg, &usageError{err: err}
		}
		return cfg, &usageError{err: fmt.Errorf("configuration %s: %w", f.config, err), hint: "sekisho config check FILE finds every mistake at once"}
	}
	return cfg, nil
}

func (f serveFlags) ways() int {
	n := 0
	for _, set := range []bool{f.dev, f.config != "", f.cert != ""} {
		if set {
			n++
		}
	}
	return n
}

// devConfig is the configuration of --dev.
func devConfig() Config {
	return Config{Hosts: []HostConfig{{
		Name: "localhost", Names: []string{"127.0.0.1", "::1"}, Default: true, Echo: true,
		// The CA comes by an association of the API, so that it can be taken away by API.
		ClientAuth: ClientAuthConfig{Mode: "require", CA: []string{}},
	}}}
}

// plainConfig is the configuration of --cert: one host, no state.
func plainConfig(f serveFlags) (Config, error) {
	if f.key == "" {
		return Config{}, &usageError{err: errors.New("--cert without --key"), hint: "give the certificate's private key with --key FILE"}
	}
	h := HostConfig{
		Name: "localhost", Names: []string{"127.0.0.1", "::1"}, Default: true,
		Certificate: CertConfig{Cert: f.cert, Key: f.key},
	}
	names, err := certificateNames(f.cert)
	if err != nil {
		return Config{}, &usageError{err: err}
	}
	for _, n := range names {
		if n != h.Name && n != "127.0.0.1" && n != "::1" {
			h.Names = append(h.Names, n)
		}
	}
	if f.clientCA != "" {
		h.ClientAuth = ClientAuthConfig{Mode: "require", CA: []string{f.clientCA}}
	}
	if h.Echo = f.to == ""; !h.Echo {
		h.Upstreams = []string{f.to}
	}
	return Config{
		Hosts:  []HostConfig{h},
		Listen: Listen{Admin: "off", PKI: "off", Metrics: "off"},
	}, nil
}

// runServe is the server's life: build in order, serve, drain in the opposite order.
func runServe(ctx context.Context, e env, f serveFlags) error {
	cfg, err := f.resolve()
	if err != nil {
		return err
	}
	// Every file that the configuration names, before anything is made on disk.
	if _, err := (&baseBuilder{cfg: cfg}).build(ctx); err != nil {
		return &usageError{err: err}
	}
	s, err := newServer(e, f, cfg)
	if err != nil {
		return err
	}
	defer s.close()
	if e.getenv("GOGC") == "" { // which wins
		debug.SetGCPercent(gcPercent)
		s.tasks = append(s.tasks, tuneCollector)
	}
	hangup := make(chan os.Signal, 1) // from here on SIGHUP waits its turn; it would end a process that is still starting
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for _, step := range []func(context.Context) error{
		s.buildHouse, s.buildRevocation, s.buildSites, s.buildEdge, s.buildAdmin, s.buildMetrics, s.buildDev,
	} {
		if err := step(ctx); err != nil && ctx.Err() != nil {
			s.logger.Info("stopped before it was ready")
			return nil
		} else if err != nil {
			return err
		}
	}
	runtime.GC() // what the start left over would let the heap grow to five times its size
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, serving := errgroup.WithContext(ctx)
	for _, task := range s.tasks {
		group.Go(func() error { return task(serving) })
	}
	group.Go(func() error { return s.reloadOnHangup(serving, hangup) })
	if err := s.announce(); err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}
	err = group.Wait()
	s.logger.Info("stopped")
	return err
}

// reloadOnHangup reads the configuration again at each SIGHUP.
func (s *server) reloadOnHangup(ctx context.Context, hangup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			err := s.reload(ctx)
			if err != nil {
				s.logger.ErrorContext(ctx, "configuration not reloaded, the old one stays", "error", err)
			}
			s.recordReload(context.WithoutCancel(ctx), err)
		}
	}
}

// maxAuditReason bounds what the audit log keeps of an error.
const maxAuditReason = 400

// recordReload writes a reload by signal to the audit log, as the API does with those that it is asked for.
func (s *server) recordReload(ctx context.Context, reloaded error) {
	if s.house == nil {
		return
	}
	entry := auditlog.Entry{At: time.Now().UTC(), Actor: "signal", Action: "config.reload", Object: "config", Outcome: "done"}
	if reloaded != nil {
		reason := reloaded.Error()
		entry.Outcome, entry.Detail = "refused", map[string]string{"reason": reason[:min(len(reason), maxAuditReason)]}
	}
	if err := s.house.store.AppendAudit(ctx, entry); err != nil {
		s.logger.ErrorContext(ctx, "a reload could not be recorded", "error", err)
	}
}

// listen opens an address, with advice when it is taken.
func listen(ctx context.Context, what, address string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err == nil {
		return ln, nil
	}
	err = fmt.Errorf("listen for %s on %s: %w", what, address, err)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &hinted{err: err, hint: fmt.Sprintf("another process has that port; stop it, or choose another with --%s HOST:PORT (port 0 takes a free one)", what)}
	}
	return nil, err
}

// writePrivate writes a file that only its owner may read, whole or not at all.
func writePrivate(path string, data []byte) error { return writeWhole(path, data, 0o600) }

// writeWhole writes a file whole or not at all.
func writeWhole(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// certificateNames returns the DNS names and addresses of the first certificate in a file; one without a subject
// alternative name is known by its common name, as openssl's and curl's checks have it.
func certificateNames(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--cert: %w", err)
	}
	certs, err := pkix.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("--cert %s: %w", path, err)
	}
	leaf := certs[0]
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 && site.CanonicalName(leaf.Subject.CommonName) != "" {
		names = append(names, leaf.Subject.CommonName)
	}
	return names, nil
}
