package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation"
	"sekisho/internal/revocation/crl"
	"sekisho/internal/revocation/ocsp"
	"sekisho/internal/site"
	"sekisho/internal/telemetry"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// sources is everything beside our own ledger that says whether a certificate is revoked.
type sources struct {
	http    *outbound.Client
	lists   *crl.Keeper
	sets    *revocation.SetKeeper
	ocsp    *ocsp.Client
	checker *revocation.Checker
}

// firstLoad bounds how long lists and CRLSets that are new in the configuration may hold up the start or a reload. What
// is not there by then counts as missing, by the policy of its CA, until Run has fetched it.
const firstLoad = 10 * time.Second

// buildSources makes the keepers of revocation lists, responders and CRLSets. They fetch nothing yet.
func (s *server) buildSources() error {
	dir := ""
	if !s.stateless() {
		dir = filepath.Join(s.cfg.Data, "revocation")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("directory for copies of CRLs: %w", err)
		}
	}
	allow, err := prefixes(s.cfg.Outbound.Allow)
	if err != nil {
		return err
	}
	deny, err := prefixes(s.cfg.Outbound.Deny)
	if err != nil {
		return err
	}
	if s.flags.dev {
		allow = append(allow, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	}
	x := &s.sources
	x.http = outbound.New(outbound.Config{Allow: allow, Deny: deny, Self: s.ports.all, UserAgent: "sekisho/" + version})
	s.closers = append(s.closers, func() error { x.http.Close(); return nil })
	changed := func(issuers []pkix.KeyID) { x.checker.Changed(issuers) }
	x.lists = crl.NewKeeper(crl.KeeperConfig{Dir: dir, Client: x.http, Logger: s.logger, OnChange: changed})
	x.sets = revocation.NewSetKeeper(revocation.SetKeeperConfig{HTTP: x.http, Logger: s.logger, OnChange: changed})
	x.ocsp = ocsp.New(ocsp.Config{HTTP: x.http, Logger: s.logger, Revoked: func(delegate, issuer *x509.Certificate) bool {
		return x.checker.KnownRevoked(delegate, issuer)
	}})
	x.checker = revocation.NewChecker(revocation.CheckerConfig{
		Index: s.index, Lists: x.lists, Sets: x.sets, OCSP: x.ocsp, Logger: s.logger,
		OnChange: func(issuers []pkix.KeyID) {
			e := s.running.Load()
			if e == nil {
				return // nobody is connected yet
			}
			if n := e.RevocationChanged(issuers); n > 0 {
				s.logger.Info("connections cut", "reason", "a source of revocation changed", "count", n)
			}
		},
	})
	s.tasks = append(s.tasks, x.lists.Run, x.sets.Run, x.checker.Run)
	return nil
}

// casInForce tells the keepers which lists and sets the hosts of a snapshot name, before the snapshot is in force.
func (s *server) casInForce(ctx context.Context, snapshot *site.Snapshot) {
	var cas []trust.CA
	for _, h := range snapshot.Hosts() {
		for _, ca := range h.Trust.CAs() {
			if !slices.ContainsFunc(cas, func(have trust.CA) bool { return have.ID == ca.ID }) {
				cas = append(cas, ca)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, firstLoad)
	defer cancel()
	s.sources.checker.SetCAs(ctx, cas)
}

// judge explains how certificates are judged for the host of a name, "" for the default host or the only one.
func (s *server) judge(name string, chain []*x509.Certificate) (verify.Explanation, error) {
	snapshot := s.sites.Load()
	var host *site.Host
	for _, h := range snapshot.Hosts() {
		switch {
		case name != "" && slices.ContainsFunc(append([]string{h.Name}, h.Names...), func(n string) bool {
			return site.CanonicalName(n) == site.CanonicalName(name)
		}):
			host = h
		case name == "" && len(snapshot.Hosts()) == 1:
			host = h
		}
	}
	if host == nil {
		for _, l := range s.cfg.Listen.Edge {
			if host = snapshot.Host(l.Name, name); host != nil {
				break
			}
		}
	}
	if host == nil {
		return verify.Explanation{}, fmt.Errorf("no host serves %q", name)
	}
	x := s.verifier.Explain(host.Trust, chain)
	x.Host, x.Mode = host.Name, string(host.Mode)
	return x, nil
}

// usage reports whom a CA lets in only while its policy ignores extended key usages.
func (s *server) usage(ca trust.CA) verify.UsageReport {
	seen, since, leftOut := s.edge.WithoutClientAuth()
	report := verify.UsageOf(ca, seen)
	report.Since, report.LeftOut = since.UTC(), leftOut
	return report
}

// revocationMetrics are the counters of the sources.
func (s *server) revocationMetrics() telemetry.Revocation {
	return telemetry.Revocation{
		Lists: s.sources.lists.Metrics(), Sets: s.sources.sets.Metrics(), OCSP: s.sources.ocsp.Metrics(), Outbound: s.sources.http.Metrics(),
	}
}

// prefixes reads prefixes and single addresses, which the check of the configuration has read before.
func prefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("outbound: %w", err)
		}
		out = append(out, prefix)
	}
	return out, nil
}

// ownPorts is where this server listens, so that nothing fetched from elsewhere can lead back to it.
type ownPorts struct {
	mu    sync.Mutex
	addrs []netip.AddrPort
}

func (p *ownPorts) add(addr net.Addr) {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.addrs = append(p.addrs, tcp.AddrPort())
	}
}

func (p *ownPorts) all() []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.addrs)
}
