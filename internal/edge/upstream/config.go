package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// Config says how one host reaches its origin servers. The zero value of every
// field but URLs is its default.
type Config struct {
	// URLs names the origins, at least one: http://, https://, h2c:// and
	// h2s:// with host and optional port, unix:///path. Several are used in
	// turn; one that cannot be dialled is avoided for three seconds and the
	// next one is tried, as long as nothing of a streamed body was read.
	URLs []string

	RootCAs            *x509.CertPool    // for https and h2s; nil: the system's
	ClientCertificates []tls.Certificate // shown to an origin that asks for one
	ServerName         string            // for SNI and verification; default: the URL's host

	MaxIdlePerHost         int           // idle connections kept per origin; default 256
	MaxConns               int           // connections per origin; default 0, no limit. At the limit a request waits up to DialTimeout
	DialTimeout            time.Duration // TCP connect and TLS handshake together; default 5 s
	ResponseHeaderTimeout  time.Duration // from the end of the request to the end of the response header, and for the origin to take a piece of the request; default 60 s
	IdleTimeout            time.Duration // an idle connection is closed after it; default 90 s
	MaxResponseHeaderBytes int           // header section, and again trailer section; default 64 KiB
}

// withDefaults returns c with zero fields filled in, or an error that names the
// field that makes no sense.
func (c Config) withDefaults() (Config, error) {
	ints := []struct {
		name string
		v    *int
		def  int
	}{
		{"MaxIdlePerHost", &c.MaxIdlePerHost, 256},
		{"MaxConns", &c.MaxConns, 0},
		{"MaxResponseHeaderBytes", &c.MaxResponseHeaderBytes, 64 << 10},
	}
	for _, f := range ints {
		if *f.v < 0 {
			return c, fmt.Errorf("upstream: %s is %d, must not be negative", f.name, *f.v)
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	durations := []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"DialTimeout", &c.DialTimeout, 5 * time.Second},
		{"ResponseHeaderTimeout", &c.ResponseHeaderTimeout, 60 * time.Second},
		{"IdleTimeout", &c.IdleTimeout, 90 * time.Second},
	}
	for _, f := range durations {
		if *f.v < 0 {
			return c, fmt.Errorf("upstream: %s is %v, must not be negative", f.name, *f.v)
		}
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	return c, nil
}

// target is a checked origin URL.
type target struct {
	name    string // the URL as configured, for messages
	network string // "tcp" or "unix"
	addr    string // host:port or the socket's path
	host    string // host without port; for TLS and as the last resort for Host
	tls     bool
	h2      bool
}

// parseTarget checks one origin URL. Its errors name the URL, without any
// password in it.
func parseTarget(raw string) (target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return target{}, fmt.Errorf("upstream URL: %w (want scheme://host:port or unix:///path)", err)
	}
	bad := func(what string) (target, error) {
		return target{}, fmt.Errorf("upstream URL %q: %s", u.Redacted(), what)
	}
	t := target{name: raw, network: "tcp"}
	port := "80"
	switch u.Scheme {
	case "http":
	case "h2c":
		t.h2 = true
	case "https", "h2s":
		port, t.tls, t.h2 = "443", true, u.Scheme == "h2s"
	case "unix":
		return parseUnix(t, u, bad)
	case "":
		return bad("no scheme; write http://, https://, h2c://, h2s:// or unix:///path")
	default:
		return bad("unknown scheme " + u.Scheme + "; use http, https, h2c, h2s or unix")
	}
	switch {
	case u.User != nil:
		return bad("user info is not allowed; set an Authorization header by rule instead")
	case u.Opaque != "" || u.Hostname() == "":
		return bad("no host; write " + u.Scheme + "://host:port")
	case u.Path != "" && u.Path != "/":
		return bad("a path is not allowed; the request's own path is used")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return bad("a query or fragment is not allowed")
	}
	t.host = u.Hostname()
	if p := u.Port(); p != "" {
		port = p
	}
	t.addr = net.JoinHostPort(t.host, port)
	return t, nil
}

func parseUnix(t target, u *url.URL, bad func(string) (target, error)) (target, error) {
	switch {
	case u.User != nil:
		return bad("user info is not allowed")
	case u.Host != "" || u.Opaque != "" || u.Path == "" || u.Path == "/":
		return bad("write the socket's absolute path after three slashes, as in unix:///run/app.sock")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return bad("a query or fragment is not allowed")
	}
	t.network, t.addr, t.host = "unix", u.Path, "localhost"
	return t, nil
}

// tlsConfig returns what an origin over TLS is dialled with, nil for others.
func (c *Config) tlsConfig(t target, protocol string) *tls.Config {
	if !t.tls {
		return nil
	}
	name := c.ServerName
	if name == "" {
		name = t.host
	}
	return &tls.Config{
		RootCAs:            c.RootCAs,
		Certificates:       c.ClientCertificates,
		ServerName:         name,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{protocol},
		ClientSessionCache: tls.NewLRUClientSessionCache(16),
	}
}
