// Package site turns zones and hosts, as configured and as set by API, into the immutable [Snapshot] that the edge reads.
//
// The edge finds a host by the name of the listener and the server name of the client; nothing on that path reads a
// database. A new snapshot replaces the old one whole, or nothing changes. The package opens no files and no sockets.
package site

import (
	"context"
	"crypto/tls"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/trust"
)

// Mode is how a host treats client certificates.
type Mode string

// The modes.
const (
	Off     Mode = "off"     // never asked for
	Request Mode = "request" // asked for; anyone in, the identity of a verified one is passed on
	Require Mode = "require" // refused without a valid, unrevoked one
)

// Zone is a group of hosts with one set of API objects, as in Cloudflare's API.
type Zone struct {
	ID        string // 32 lower hex
	Name      string // a domain
	AccountID string
	CreatedOn time.Time
	ReadOnly  bool // from the configuration file
}

// Forward says which identity headers a host's upstream gets.
type Forward struct {
	RFC9440      bool // Client-Cert and Client-Cert-Chain (RFC 9440)
	DERBase64    bool // Cf-Client-Cert-Der-Base64 and Cf-Client-Cert-Sha256
	XFCC         bool // X-Forwarded-Client-Cert: Hash, Subject, URI, DNS
	XFCCWithCert bool // XFCC also carries Cert and Chain
}

// Upstream is where a host's requests go. It is data only; the edge makes a transport of it.
type Upstream struct {
	URLs       []string // http://, https://, h2c://, h2s://, unix:///path
	CAFile     string   // PEM of the origin's CA; empty: the system's roots
	CertFile   string   // client certificate towards the origin
	KeyFile    string
	ServerName string
	Roots      []byte // content of CAFile, read when the snapshot was made
	CertPEM    []byte
	KeyPEM     []byte

	DialTimeout   time.Duration // to connect, TLS handshake included; 0: 5 s
	HeaderTimeout time.Duration // for the response header once the request is sent, and to take a piece of the request; 0: 60 s
}

// Host is one name (or *.name) on one or all listeners. It is immutable.
type Host struct {
	Name              string   // lower case, no trailing dot; may begin with "*."
	Names             []string // more names of the same host (addresses, ...)
	Zone              Zone
	Listeners         []string // names of listeners; empty: all
	Mode              Mode
	RefuseInHandshake bool       // refuse by TLS alert instead of an HTTP 403 that says why
	Trust             *trust.Set // whom to trust for client certificates; nil when Mode is Off
	ManagedByFile     bool       // the configuration file ties the host to the managed CA, so the API cannot untie it
	Forward           Forward
	Upstream          Upstream
	Echo              bool // the built-in echo upstream instead of Upstream
	AllowedOrigins    []string
	CrossOriginGuard  bool // refuse unsafe cross-origin browser requests (net/http.CrossOriginProtection)
	MinVersion        uint16
	// Certificate returns the host's certificate; it is called in each full handshake and reads memory only.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	policy  Key // set by NewSnapshot
	session Key
}

// Association ties a hostname of a zone to a CA whose client certificates it accepts.
type Association struct {
	ZoneID   string
	CAID     string // "" is the managed CA
	Hostname string // lower case
}

// Settings are the per-hostname switches of access/certificates/settings.
type Settings struct {
	ZoneID                      string
	Hostname                    string
	ChinaNetwork                bool
	ClientCertificateForwarding bool
}

// Records is where zones, associations, settings and CAs are kept; store implements it. Writes are durable and recorded
// in the audit log in the same transaction, or leave nothing behind.
type Records interface {
	TrustedCARecords
	// Zones returns all zones by name.
	Zones(ctx context.Context) ([]Zone, error)
	// EnsureZone stores a zone if none of that name exists, and returns the stored one.
	EnsureZone(ctx context.Context, z Zone) (Zone, error)
	// Associations returns all associations of all zones.
	Associations(ctx context.Context) ([]Association, error)
	// ReplaceAssociations makes hostnames the whole list of one zone and CA. It returns ErrNoTrustedCA for a CA that is
	// neither the managed one nor stored.
	ReplaceAssociations(ctx context.Context, zoneID, caID string, hostnames []string, entry auditlog.Entry) error
	// AllSettings returns the settings of all zones.
	AllSettings(ctx context.Context) ([]Settings, error)
	// PutSettings stores the given settings of a zone; others are left as they are.
	PutSettings(ctx context.Context, zoneID string, settings []Settings, entry auditlog.Entry) error
}
