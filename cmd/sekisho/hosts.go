package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"sekisho/internal/edge"
	"sekisho/internal/servercert"
	"sekisho/internal/site"
	"sekisho/internal/trust"
)

// baseBuilder turns the configuration into a site.Base: it reads the files that the configuration names and has
// certificates issued. Its zero funcs mean "only check".
type baseBuilder struct {
	cfg     Config
	managed trust.CA                                                              // our own CA; no anchors when there is none
	zone    func(ctx context.Context, z site.Zone) (site.Zone, error)             // stores a zone; nil: as it is
	issue   func(ctx context.Context, names []string) (*servercert.Source, error) // nil: no certificate is issued

	trusted  []trust.CA // of the list trust
	sources  []*servercert.Source
	warnings []string
}

// build returns the base, or every mistake found, joined.
func (b *baseBuilder) build(ctx context.Context) (site.Base, error) {
	base := site.Base{Managed: b.managed}
	var errs []error
	errs = append(errs, b.readTrust()...)
	base.Trust = b.trusted
	zones := make(map[string]site.Zone)
	for _, z := range b.cfg.Zones {
		zone, err := b.addZone(ctx, zones, site.Zone{ID: z.ID, Name: site.CanonicalName(z.Name), ReadOnly: true})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		base.Zones = append(base.Zones, zone)
	}
	for i, h := range b.cfg.Hosts {
		host, err := b.host(ctx, zones, h)
		if err != nil {
			errs = append(errs, fmt.Errorf("hosts[%d] %q: %w", i, h.Name, err))
			continue
		}
		if h.Default {
			if base.Fallback != "" && base.Fallback != host.Name {
				errs = append(errs, fmt.Errorf("hosts[%d] %q: default: %q is the default already; only one name can be", i, h.Name, base.Fallback))
			}
			base.Fallback = host.Name
		}
		base.Hosts = append(base.Hosts, host)
	}
	if len(errs) > 0 {
		return site.Base{}, errors.Join(errs...)
	}
	_, err := site.Compile(base, site.Applied{})
	return base, err
}

func (b *baseBuilder) addZone(ctx context.Context, zones map[string]site.Zone, z site.Zone) (site.Zone, error) {
	if z.Name == "" {
		return z, errors.New("zones: a zone needs a name, such as example.com")
	}
	if have, ok := zones[z.Name]; ok {
		return have, nil
	}
	if b.zone != nil {
		stored, err := b.zone(ctx, z)
		if err != nil {
			return z, fmt.Errorf("zone %q: %w", z.Name, err)
		}
		z = stored
	}
	zones[z.Name] = z
	return z, nil
}

func (b *baseBuilder) host(ctx context.Context, zones map[string]site.Zone, h HostConfig) (site.BaseHost, error) {
	name := site.CanonicalName(h.Name)
	if name == "" {
		return site.BaseHost{}, fmt.Errorf("name %q is no host name; write it without scheme, port or path", h.Name)
	}
	zone, err := b.zoneOf(ctx, zones, name, h.Zone)
	if err != nil {
		return site.BaseHost{}, err
	}
	out := site.BaseHost{Host: site.Host{
		Name: name, Names: h.Names, Zone: zone, Listeners: h.Listeners, Echo: h.Echo, AllowedOrigins: h.AllowedOrigins,
	}}
	for _, l := range h.Listeners {
		if !slices.ContainsFunc(b.cfg.Listen.Edge, func(e EdgeListener) bool { return e.Name == l }) {
			return out, fmt.Errorf("listeners: there is no edge listener %q; listen.edge names %s", l, listenerNames(b.cfg.Listen.Edge))
		}
	}
	steps := []func() error{
		func() error { return b.upstream(h, &out.Host) },
		func() error { return b.clientAuth(h, &out) },
		func() error { return forward(h, &out.Host) },
		func() error { return minTLS(h, &out.Host) },
		func() error { return b.certificate(ctx, h, &out.Host) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return out, err
		}
	}
	out.CrossOriginGuard = out.Mode != site.Off && !h.NoOriginGuard
	return out, nil
}

func (b *baseBuilder) zoneOf(ctx context.Context, zones map[string]site.Zone, host, named string) (site.Zone, error) {
	if named != "" {
		if z, ok := zones[site.CanonicalName(named)]; ok {
			return z, nil
		}
		return site.Zone{}, fmt.Errorf("zone %q is not one of the zones in the file", named)
	}
	best := ""
	bare := strings.TrimPrefix(host, "*.")
	for name := range zones {
		if (bare == name || strings.HasSuffix(bare, "."+name)) && len(name) > len(best) {
			best = name
		}
	}
	if best != "" {
		return zones[best], nil
	}
	return b.addZone(ctx, zones, site.Zone{Name: bare, ReadOnly: true})
}

func (b *baseBuilder) upstream(h HostConfig, out *site.Host) error {
	if h.Echo != (len(h.Upstreams) == 0) {
		return errors.New("give either upstreams or echo: true")
	}
	if h.Echo {
		if h.UpstreamWait != (UpstreamTimeouts{}) {
			return errors.New("upstream_timeouts with echo: true: there is nothing to wait for")
		}
		return nil
	}
	t := h.UpstreamTLS
	u := site.Upstream{
		URLs: h.Upstreams, ServerName: t.ServerName, CAFile: t.CA, CertFile: t.Cert, KeyFile: t.Key,
		DialTimeout: h.UpstreamWait.Dial, HeaderTimeout: h.UpstreamWait.Header,
	}
	for _, f := range []struct {
		path string
		into *[]byte
	}{{t.CA, &u.Roots}, {t.Cert, &u.CertPEM}, {t.Key, &u.KeyPEM}} {
		if f.path == "" {
			continue
		}
		data, err := os.ReadFile(f.path)
		if err != nil {
			return fmt.Errorf("upstream_tls: %w", err)
		}
		*f.into = data
	}
	out.Upstream = u
	return edge.CheckUpstream(u)
}

func (b *baseBuilder) clientAuth(h HostConfig, out *site.BaseHost) error {
	a := h.ClientAuth
	switch out.Mode = site.Mode(a.Mode); out.Mode {
	case "":
		out.Mode = site.Off
	case site.Off, site.Request, site.Require:
	default:
		return fmt.Errorf("client_auth.mode %q: use off, request or require", a.Mode)
	}
	switch {
	case a.Refuse == "handshake" && out.Mode == site.Require:
		out.RefuseInHandshake = true
	case a.Refuse == "" || a.Refuse == "http":
	default:
		return fmt.Errorf("client_auth.refuse %q with mode %s: use http, or handshake with mode require", a.Refuse, out.Mode)
	}
	if out.Mode == site.Off {
		if len(a.CA) > 0 {
			return errors.New("client_auth.ca without a mode: say mode: require or mode: request")
		}
		return nil
	}
	if a.CA == nil {
		a.CA = []string{"managed"}
	}
	for _, name := range a.CA {
		if name == "managed" {
			out.Managed, out.ManagedByFile = true, true
			continue
		}
		ca, err := b.clientCA(name)
		if err != nil {
			return err
		}
		out.CAs = append(out.CAs, ca)
	}
	return nil
}

func forward(h HostConfig, out *site.Host) error {
	if h.Forward == nil {
		out.Forward.RFC9440 = true
	}
	for _, f := range h.Forward {
		switch f {
		case "rfc9440":
			out.Forward.RFC9440 = true
		case "cf":
			out.Forward.DERBase64 = true
		case "xfcc":
			out.Forward.XFCC = true
		case "xfcc-cert":
			out.Forward.XFCC, out.Forward.XFCCWithCert = true, true
		case "none":
		default:
			return fmt.Errorf("forward %q: use rfc9440, cf, xfcc, xfcc-cert or none", f)
		}
	}
	return nil
}

func minTLS(h HostConfig, out *site.Host) error {
	switch h.MinTLS {
	case "", "1.2":
		out.MinVersion = tls.VersionTLS12
	case "1.3":
		out.MinVersion = tls.VersionTLS13
	default:
		return fmt.Errorf("min_tls %q: use \"1.2\" or \"1.3\"", h.MinTLS)
	}
	return nil
}

func (b *baseBuilder) certificate(ctx context.Context, h HostConfig, out *site.Host) error {
	c := h.Certificate
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("certificate: give both cert and key, or neither to have one issued")
	}
	if c.Cert == "" {
		if b.issue == nil {
			out.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("not issued in a check") }
			return nil
		}
		source, err := b.issue(ctx, append([]string{out.Name}, out.Names...))
		if err != nil {
			return err
		}
		b.sources = append(b.sources, source)
		out.Certificate = source.Certificate
		return nil
	}
	source, err := servercert.FromFiles(c.Cert, c.Key)
	if err != nil {
		return err
	}
	b.sources = append(b.sources, source)
	out.Certificate = source.Certificate
	b.warnAbout(out.Name, c.Cert, source.Leaf())
	return nil
}

// warnAbout says what clients will object to in a certificate that we serve all the same.
func (b *baseBuilder) warnAbout(host, file string, leaf *x509.Certificate) {
	warn := func(format string, args ...any) {
		b.warnings = append(b.warnings, fmt.Sprintf("host %s: certificate %s: ", host, file)+fmt.Sprintf(format, args...))
	}
	switch {
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		warn("it has no subject alternative name, only CN=%s: current browsers and Go clients refuse it (RFC 9525), curl takes it", leaf.Subject.CommonName)
	case leaf.VerifyHostname(strings.Replace(host, "*", "any", 1)) != nil:
		warn("it is not for this host but for %s", strings.Join(leaf.DNSNames, ", "))
	}
	if leaf.Version == 1 {
		warn("it is X.509 version 1: clients that demand version 3 refuse it")
	}
}

func listenerNames(l EdgeListeners) string {
	names := make([]string, len(l))
	for i, e := range l {
		names[i] = e.Name
	}
	return strings.Join(names, ", ")
}
