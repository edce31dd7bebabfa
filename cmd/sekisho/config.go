package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"sekisho/internal/admin"
	"sekisho/internal/pkix"
)

// Config is the whole of sekisho.yaml. Unknown keys are refused with their line and column; every key left out has the
// default given here. Secrets are never in the file, only the paths of files that hold them.
type Config struct {
	Listen   Listen         `yaml:"listen"`
	Data     string         `yaml:"data"`    // directory of all state; default ./sekisho-data. The flag --data wins
	Journal  string         `yaml:"journal"` // directory of the revocation journal, best on another disk; default DATA/journal
	Log      LogConfig      `yaml:"log"`
	PKI      PKIConfig      `yaml:"pki"`
	Keys     KeysConfig     `yaml:"keys"`
	Admin    AdminConfig    `yaml:"admin"`
	Limits   LimitsConfig   `yaml:"limits"`
	Outbound OutboundConfig `yaml:"outbound"`
	Trust    []TrustConfig  `yaml:"trust"`
	Zones    []ZoneConfig   `yaml:"zones"`
	Hosts    []HostConfig   `yaml:"hosts"`
	Drain    time.Duration  `yaml:"drain"` // how long requests in flight may take at shutdown; default 10s
}

// Listen names the addresses, HOST:PORT each; port 0 takes a free one, "off" closes a listener that may be closed.
type Listen struct {
	Edge    EdgeListeners `yaml:"edge"`    // one address, or a map from a listener's name to its address; default ":8443"
	Admin   string        `yaml:"admin"`   // default 127.0.0.1:8440; other than loopback demands admin.tls
	PKI     string        `yaml:"pki"`     // CRL, OCSP and CA certificates over plain HTTP; default ":8441"
	Metrics string        `yaml:"metrics"` // default 127.0.0.1:9440; "off" closes it
}

// EdgeListener is one TLS listener of the edge. A host may be bound to some of them by name.
type EdgeListener struct {
	Name    string
	Address string
}

// EdgeListeners are the edge's listeners in the order of the file.
type EdgeListeners []EdgeListener

// UnmarshalYAML takes a single address, which becomes the listener "edge", or a map.
func (l *EdgeListeners) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if err := unmarshal(&one); err == nil {
		*l = EdgeListeners{{Name: "edge", Address: one}}
		return nil
	}
	var many yaml.MapSlice
	if err := unmarshal(&many); err != nil {
		return errors.New("listen.edge takes an address such as \":8443\", or a map from names to addresses")
	}
	for _, item := range many {
		name, okName := item.Key.(string)
		address, okAddress := item.Value.(string)
		if !okName || !okAddress {
			return fmt.Errorf("listen.edge: %v: %v: both must be text; quote the address", item.Key, item.Value)
		}
		*l = append(*l, EdgeListener{name, address})
	}
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (l EdgeListeners) MarshalYAML() (any, error) { //nolint:unparam // the interface is the decoder's
	out := make(yaml.MapSlice, len(l))
	for i, e := range l {
		out[i] = yaml.MapItem{Key: e.Name, Value: e.Address}
	}
	return out, nil
}

// LogConfig says what is logged, how and where to.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // text (default) or json
	Access string `yaml:"access"` // one line per request: stderr (default), off, or the path of a file
}

// PKIConfig is about what certificates say of their CA.
type PKIConfig struct {
	URL     string `yaml:"url"`      // base of the CRL, OCSP and issuer addresses in certificates; default http:// and the pki listener
	KeyType string `yaml:"key_type"` // of the root and issuing CA made at first start: ecdsa-p256 (default), ecdsa-p384, rsa-3072, rsa-4096, ed25519, ml-dsa-65
	Root    string `yaml:"root"`     // subject of the root; default CN=sekisho Root CA
	Issuing string `yaml:"issuing"`  // subject of the issuing CA; default CN=sekisho Issuing CA

	Shards       int           `yaml:"shards"`        // into how many CRLs certificates of an issuing CA made at first start go; default 16, at most 1024
	Publish      string        `yaml:"publish"`       // directory that CRLs are written to; default DATA/crl, "off" writes none
	CRLLifetime  time.Duration `yaml:"crl_lifetime"`  // nextUpdate of CRLs; default 24h, from 10m to 30 days
	CRLOverlap   time.Duration `yaml:"crl_overlap"`   // how long before nextUpdate a CRL is renewed; default half of crl_lifetime
	OCSPLifetime time.Duration `yaml:"ocsp_lifetime"` // nextUpdate of OCSP answers; default 1h, from 1m to 7 days
	// OCSPMaxAge is how long HTTP caches may keep an OCSP answer without asking, never beyond its nextUpdate; default 0: not at all.
	OCSPMaxAge time.Duration `yaml:"ocsp_max_age"`
	// ArchiveAfter is how long after their end certificates move from the ledger into the archive; default 0: never, at
	// least 8784h (366 days).
	ArchiveAfter time.Duration `yaml:"archive_after"`
}

// KeysConfig is about private keys at rest.
type KeysConfig struct {
	PassphraseFile string `yaml:"passphrase_file"` // encrypts the key files; default: none, they are protected by their mode 0600
}

// AdminConfig is about the admin API.
type AdminConfig struct {
	Email string      `yaml:"email"` // owner of the first token; default admin@localhost
	Names []string    `yaml:"names"` // host names the API answers to beside localhost and its addresses
	TLS   *CertConfig `yaml:"tls"`   // demanded when listen.admin is not on loopback
}

// LimitsConfig bounds what clients may cost; zero keeps the default in parentheses.
type LimitsConfig struct {
	HandshakeTimeout time.Duration `yaml:"handshake_timeout"` // (10s)
	HeaderTimeout    time.Duration `yaml:"header_timeout"`    // (10s)
	IdleTimeout      time.Duration `yaml:"idle_timeout"`      // (120s)
	HeaderBytes      int           `yaml:"header_bytes"`      // (65536) of a request
	HandshakesPerIP  int           `yaml:"handshakes_per_ip"` // (256) in progress at once
	Connections      int           `yaml:"connections"`       // (100000)
}

// OutboundConfig says to which addresses the server may connect for what certificates name: CRLs and OCSP responders.
// Loopback, link-local and cloud metadata addresses are refused unless allow has them, and our own listeners always; deny
// wins.
type OutboundConfig struct {
	Allow []string `yaml:"allow"` // prefixes such as 10.0.0.0/8, or single addresses
	Deny  []string `yaml:"deny"`  // the same
}

// TrustConfig is somebody else's CA, with how its clients are judged. The keys from sources on are those of its policy
// ([trust.Policy]); each that is left out has its default.
type TrustConfig struct {
	Name            string        `yaml:"name"`             // for client_auth.ca, which may name it instead of a file
	Certs           string        `yaml:"certs"`            // PEM file: roots, and intermediates that clients need not send
	Sources         []string      `yaml:"sources"`          // of crl, ocsp, crlset; default crl, ocsp, and crlset where crlsets are named
	Require         string        `yaml:"require"`          // any (default): one fresh good answer is enough; all: every source that a certificate has
	OnFailure       string        `yaml:"on_failure"`       // hard (default): refused without the answers; soft: let in and logged
	Scope           string        `yaml:"scope"`            // chain (default) or leaf
	Refresh         time.Duration `yaml:"refresh"`          // how often sources in use are asked again; default 5m for OCSP, nextUpdate for lists
	Grace           time.Duration `yaml:"grace"`            // how long after nextUpdate an answer counts as fresh; default 0
	CRLs            []string      `yaml:"crls"`             // files, which are watched, and http or https URLs
	CRLSets         []string      `yaml:"crlsets"`          // the same for CRLSets
	OCSPResponders  []string      `yaml:"ocsp_responders"`  // URLs, asked instead of those in certificates
	IgnoreCDP       bool          `yaml:"ignore_cdp"`       // do not fetch from the distribution points in certificates
	IgnoreAIA       bool          `yaml:"ignore_aia"`       // do not ask the responders in certificates
	OCSPNonce       bool          `yaml:"ocsp_nonce"`       // send a nonce, and take only answers that repeat it
	OCSPSHA256      bool          `yaml:"ocsp_sha256"`      // name the issuer by SHA-256 in requests
	IgnoreStaple    bool          `yaml:"ignore_staple"`    // do not use what clients staple
	EKU             string        `yaml:"eku"`              // demand (default) or ignore
	AllowAlgorithms []string      `yaml:"allow_algorithms"` // weak ones taken all the same: sha1-rsa, sha1-ecdsa
	DenyAlgorithms  []string      `yaml:"deny_algorithms"`  // of those that are not weak
	AllowedPolicies []string      `yaml:"allowed_policies"` // certificate policies (OIDs), one of which a path must be valid for
}

// ZoneConfig is a domain under which hosts and client certificates are grouped, as in Cloudflare's API.
type ZoneConfig struct {
	Name string `yaml:"name"`
	ID   string `yaml:"id"` // 32 lower hex digits; default: made at first start and kept
}

// HostConfig is one name that the edge answers for.
type HostConfig struct {
	Name           string           `yaml:"name"`              // "api.example.com" or "*.example.com"
	Names          []string         `yaml:"names"`             // further names and addresses of the same host
	Zone           string           `yaml:"zone"`              // default: the longest zone that the name ends in, else a zone of the host's own name
	Listeners      []string         `yaml:"listeners"`         // names of edge listeners; default: all
	Default        bool             `yaml:"default"`           // serves clients that send no server name; at most one name
	Upstreams      []string         `yaml:"upstreams"`         // http, https, h2c, h2s URLs or unix:///path; exactly one of upstreams and echo
	Echo           bool             `yaml:"echo"`              // answer with what the upstream would have got
	UpstreamTLS    UpstreamTLS      `yaml:"upstream_tls"`      // for https and h2s upstreams
	UpstreamWait   UpstreamTimeouts `yaml:"upstream_timeouts"` // how long origins may keep clients waiting
	Certificate    CertConfig       `yaml:"certificate"`       // default: issued and renewed by our own CA
	ClientAuth     ClientAuthConfig `yaml:"client_auth"`       // default: off
	Forward        []string         `yaml:"forward"`           // rfc9440, cf, xfcc, xfcc-cert, or none; default [rfc9440]
	AllowedOrigins []string         `yaml:"allowed_origins"`   // browser origins that may send unsafe cross-origin requests
	NoOriginGuard  bool             `yaml:"no_origin_guard"`   // let cross-origin browser requests through; by default a host that asks for certificates refuses unsafe ones
	MinTLS         string           `yaml:"min_tls"`           // "1.2" (default) or "1.3"
}

// UpstreamTLS is how the edge speaks TLS to origins.
type UpstreamTLS struct {
	CA         string `yaml:"ca"`          // PEM file of the origin's CA; default: the system's
	Cert       string `yaml:"cert"`        // client certificate shown to the origin
	Key        string `yaml:"key"`         // its key
	ServerName string `yaml:"server_name"` // default: the host of the URL
}

// UpstreamTimeouts bound how long a host's origins may keep clients waiting; zero keeps the default in parentheses. An
// origin that takes longer is answered for with 504.
type UpstreamTimeouts struct {
	Dial   time.Duration `yaml:"dial"`   // (5s) to connect, TLS handshake included
	Header time.Duration `yaml:"header"` // (60s) for the response header once the request is sent, and to take a piece of the request; bodies may take longer
}

// CertConfig is a certificate chain and its key in PEM files.
type CertConfig struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// ClientAuthConfig is how a host treats client certificates.
type ClientAuthConfig struct {
	Mode   string   `yaml:"mode"`   // off, request or require
	CA     []string `yaml:"ca"`     // names of the list trust, PEM files, or "managed" for our own CA; default [managed]
	Refuse string   `yaml:"refuse"` // http (default): an HTTP 403 that says why; handshake: a TLS alert. Only with mode require
}

// loadConfig reads a file strictly. Its errors name the line and column.
func loadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	var c Config
	decoder := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict(), yaml.DisallowUnknownField(), yaml.CustomUnmarshaler(readDuration))
	if err := decoder.Decode(&c); err != nil && len(bytes.TrimSpace(data)) > 0 {
		return Config{}, fmt.Errorf("configuration %s: %s", path, explainYAML(data, err))
	}
	var second any
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("configuration %s: a second document follows a line of ---; one file is one configuration", path)
	}
	return c, nil
}

// durationError is a value that is no duration. A bare number is none: the decoder would take it for nanoseconds.
type durationError struct{ text string }

func (e *durationError) Error() string {
	return fmt.Sprintf("%s is no duration; write 500ms, 10s, 2m or 1h30m", e.text)
}

func readDuration(d *time.Duration, data []byte) error {
	text := strings.TrimSpace(string(data))
	value, err := time.ParseDuration(strings.Trim(text, `"'`))
	if err != nil || value < 0 {
		return &durationError{text}
	}
	*d = value
	return nil
}

// explainYAML is a decoder's error with its line and column, in words for people who do not write Go.
func explainYAML(data []byte, err error) string {
	var duration *durationError
	if errors.As(err, &duration) {
		before, _, _ := bytes.Cut(data, []byte(": "+duration.text))
		line := 1 + bytes.Count(before, []byte("\n"))
		column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + len(": ") + 1
		return fmt.Sprintf("[%d:%d] %v", line, column, err)
	}
	text := strings.TrimRight(yaml.FormatError(err, false, true), "\n")
	wrong := regexp.MustCompile(`cannot unmarshal (.+?) into Go (?:struct field \S+|value) of type (\S+)`)
	return wrong.ReplaceAllStringFunc(text, func(found string) string {
		types := wrong.FindStringSubmatch(found)
		return "want " + yamlType(types[2]) + ", not " + yamlType(types[1])
	})
}

// yamlType is what a Go type is in a YAML file.
func yamlType(name string) string {
	switch {
	case strings.HasPrefix(name, "[]"):
		return "a list"
	case strings.HasPrefix(name, "map"), strings.HasPrefix(name, "main."):
		return "a map of keys"
	case strings.Contains(name, "int"), strings.HasPrefix(name, "float"):
		return "a number"
	case name == "bool":
		return "true or false"
	}
	return "text"
}

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	if len(c.Listen.Edge) == 0 {
		c.Listen.Edge = EdgeListeners{{Name: "edge", Address: ":8443"}}
	}
	set(&c.Listen.Admin, "127.0.0.1:8440")
	set(&c.Listen.PKI, ":8441")
	set(&c.Listen.Metrics, "127.0.0.1:9440")
	set(&c.Data, "sekisho-data")
	set(&c.Log.Level, "info")
	set(&c.Log.Format, "text")
	set(&c.Log.Access, "stderr")
	c.PKI = c.PKI.withDefaults()
	set(&c.Admin.Email, "admin@localhost")
	if c.Drain == 0 {
		c.Drain = 10 * time.Second
	}
	l := &c.Limits
	l.HandshakeTimeout = cmp.Or(l.HandshakeTimeout, 10*time.Second)
	l.HeaderTimeout = cmp.Or(l.HeaderTimeout, 10*time.Second)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 2*time.Minute)
	l.HeaderBytes = cmp.Or(l.HeaderBytes, 64<<10)
	l.HandshakesPerIP = cmp.Or(l.HandshakesPerIP, 256)
	l.Connections = cmp.Or(l.Connections, 100_000)
	c.Hosts = slices.Clone(c.Hosts)
	for i := range c.Hosts {
		c.Hosts[i] = c.Hosts[i].withDefaults()
	}
	return c
}

func (h HostConfig) withDefaults() HostConfig {
	a := &h.ClientAuth
	switch a.Mode = cmp.Or(a.Mode, "off"); {
	case a.Mode == "off":
	case a.CA == nil:
		a.CA = []string{"managed"}
	}
	if a.Mode == "require" {
		a.Refuse = cmp.Or(a.Refuse, "http")
	}
	if h.Forward == nil {
		h.Forward = []string{"rfc9440"}
	}
	h.MinTLS = cmp.Or(h.MinTLS, "1.2")
	if !h.Echo {
		h.UpstreamWait.Dial = cmp.Or(h.UpstreamWait.Dial, 5*time.Second)
		h.UpstreamWait.Header = cmp.Or(h.UpstreamWait.Header, time.Minute)
	}
	return h
}

// problems reads everything that the configuration names and returns every mistake found, nil when there is none.
func (c Config) problems(ctx context.Context, b *baseBuilder) error {
	_, err := b.build(ctx)
	return errors.Join(c.check(), err)
}

// check finds the contradictions that no single field shows.
func (c Config) check() error {
	var errs []error
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, strings.ToLower(c.Log.Level)) {
		errs = append(errs, fmt.Errorf("log.level %q: use debug, info, warn or error", c.Log.Level))
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		errs = append(errs, fmt.Errorf("log.format %q: use text or json", c.Log.Format))
	}
	errs = append(errs, c.PKI.check(), c.checkListeners(), c.Outbound.check())
	for _, l := range []struct {
		key   string
		value int64
	}{
		{"handshake_timeout", int64(c.Limits.HandshakeTimeout)},
		{"header_timeout", int64(c.Limits.HeaderTimeout)},
		{"idle_timeout", int64(c.Limits.IdleTimeout)},
		{"header_bytes", int64(c.Limits.HeaderBytes)},
		{"handshakes_per_ip", int64(c.Limits.HandshakesPerIP)},
		{"connections", int64(c.Limits.Connections)},
	} {
		if l.value < 0 {
			errs = append(errs, fmt.Errorf("limits.%s must not be negative; 0 keeps the default", l.key))
		}
	}
	if len(c.Hosts) == 0 {
		errs = append(errs, errors.New("hosts: none; the edge would answer for no name"))
	}
	return errors.Join(errs...)
}

// checkListeners looks at the addresses without opening them.
func (c Config) checkListeners() error {
	var errs []error
	address := func(key, value string) {
		if _, port, err := net.SplitHostPort(value); err != nil || !isPort(port) {
			errs = append(errs, fmt.Errorf("%s %q: write HOST:PORT, such as 127.0.0.1:8440, or :8443 for every address", key, value))
		}
	}
	for _, l := range c.Listen.Edge {
		address("listen.edge", l.Address)
	}
	for _, l := range [][2]string{{"listen.pki", c.Listen.PKI}, {"listen.metrics", c.Listen.Metrics}} {
		if l[1] != "off" {
			address(l[0], l[1])
		}
	}
	if c.Listen.Admin != "off" {
		before := len(errs)
		address("listen.admin", c.Listen.Admin)
		if err := admin.CheckAddress(c.Listen.Admin, c.Admin.TLS != nil); err != nil && len(errs) == before {
			errs = append(errs, fmt.Errorf("listen.admin: %w", err))
		}
	}
	return errors.Join(errs...)
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

// check is for the configuration and for the flags of `ca init`.
func (c PKIConfig) check() error {
	var errs []error
	if _, err := pkix.ParseKeyType(c.KeyType); err != nil {
		errs = append(errs, fmt.Errorf("pki.key_type: %w", err))
	}
	for _, s := range [][2]string{{"pki.root", c.Root}, {"pki.issuing", c.Issuing}} {
		if s[1] == "" {
			continue
		}
		if _, err := pkix.ParseDN(s[1]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s[0], err))
		}
	}
	if c.URL != "" {
		if u, err := url.Parse(c.URL); err != nil || u.Scheme != "http" || u.Host == "" {
			errs = append(errs, fmt.Errorf("pki.url %q: use http://HOST[:PORT] without TLS (RFC 5280, Section 8: fetching a CRL must not need a certificate)", c.URL))
		}
	}
	return errors.Join(append(errs, c.checkLists(), c.checkArchive())...)
}
