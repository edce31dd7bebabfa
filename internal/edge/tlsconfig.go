package edge

import (
	"crypto/tls"
	"sync"
	"time"

	"sekisho/internal/site"
)

// hostConfigs remembers the part of the TLS configuration that is the same for all connections to a host. Hosts are
// immutable, so the pointer is the key.
type hostConfigs struct {
	now     func() time.Time
	configs sync.Map // *site.Host -> *tls.Config
}

// base returns the configuration of a host. It must be cloned before it is changed.
func (c *hostConfigs) base(h *site.Host) *tls.Config {
	if known, ok := c.configs.Load(h); ok {
		return known.(*tls.Config)
	}
	config, _ := c.configs.LoadOrStore(h, newHostConfig(h, c.now))
	return config.(*tls.Config)
}

// keep forgets the hosts that a snapshot no longer has.
func (c *hostConfigs) keep(s *site.Snapshot) {
	live := make(map[*site.Host]bool)
	for _, h := range s.Hosts() {
		live[h] = true
	}
	c.configs.Range(func(h, _ any) bool {
		if !live[h.(*site.Host)] {
			c.configs.Delete(h)
		}
		return true
	})
}

func newHostConfig(h *site.Host, now func() time.Time) *tls.Config {
	config := &tls.Config{
		MinVersion:     max(tls.VersionTLS12, h.MinVersion),
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: h.Certificate,
		Time:           now,
	}
	if h.AsksForCertificate() {
		// crypto/tls verifies nothing: a certificate that does not verify must reach the rules, and the path must be
		// judged on resumption and later as well. VerifyConnection decides.
		config.ClientAuth = tls.RequestClientCert
		config.ClientCAs = h.Trust.Hints()
	}
	if refusesInHandshake(h) {
		config.ClientAuth = tls.RequireAnyClientCert
	}
	return config
}

// refusesInHandshake reports whether a client without a verified certificate gets a TLS alert.
func refusesInHandshake(h *site.Host) bool { return h.Mode == site.Require && h.RefuseInHandshake }

// newFrontConfig is what every connection starts with until its ClientHello names the host. Its tickets are off so
// that crypto/tls makes no ticket keys for it; the host's own configuration has them on.
func newFrontConfig() *tls.Config {
	unknown := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			hs := hello.Conn.(*socket).handshake
			if config := hs.choose(hello); config != nil {
				return config, nil
			}
			// Without a certificate crypto/tls answers unrecognized_name (RFC 6066, Section 3); an error from here
			// would be internal_error.
			return unknown, nil
		},
	}
}
