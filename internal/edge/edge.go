// Package edge is the checkpoint: the TLS listener, session tickets, the table of live connections, the request
// pipeline and the reverse proxy.
//
// A connection is let in by [site.Host] and [verify.Verifier] from memory alone, is entered in the live table once its
// handshake proved the key and the sources of revocation that the CA's policy demands were asked, and is cut the moment
// its certificate is revoked, expires or loses its CA ([Server.Cut], [Server.RevocationChanged], [Server.SnapshotChanged]).
// Every request checks again, which costs one atomic load when nothing changed.
package edge

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"sekisho/internal/site"
	"sekisho/internal/verify"
)

// Config is what an edge needs. Fields without a default must be set.
type Config struct {
	Snapshot  func() *site.Snapshot // the current one; called per connection and per request
	Verifier  *verify.Verifier
	Tickets   TicketStore      // where sealed ticket keys are kept; nil: in memory only
	Seal      Sealer           // seals ticket keys for the store; nil when Tickets is nil
	Logger    *slog.Logger     // events; nil: slog.Default()
	AccessLog *slog.Logger     // one line per request; nil: none
	Now       func() time.Time // nil: time.Now
	Limits    Limits
}

// Limits bound what clients may cost. Zero fields take the default given.
type Limits struct {
	HandshakeTimeout   time.Duration // 10 s
	HeaderTimeout      time.Duration // 10 s, to read a request's headers
	IdleTimeout        time.Duration // 120 s between requests
	DrainTimeout       time.Duration // 10 s for requests in flight at shutdown
	MaxHeaderBytes     int           // 64 KiB
	HandshakesPerIP    int           // 256 in progress at once
	MaxConnections     int           // 100,000
	MaxConcurrentH2    uint32        // 250 streams a connection
	MaxIdentityHeaders int           // 16 KiB of identity headers in all, then the fingerprint only
}

// TicketStore keeps sealed session ticket keys, one per epoch (an hour, counted from 1970-01-01T00:00Z), so that a
// restart, or another node, resumes sessions. store implements it.
type TicketStore interface {
	// TicketKeys returns the sealed keys of the given epoch and later.
	TicketKeys(ctx context.Context, from int64) (map[int64][]byte, error)
	// AddTicketKey stores a sealed key durably if the epoch has none yet, and returns the one that is stored.
	AddTicketKey(ctx context.Context, epoch int64, sealed []byte) ([]byte, error)
	// DropTicketKeys deletes the keys before an epoch.
	DropTicketKeys(ctx context.Context, before int64) error
}

// Sealer encrypts and authenticates small secrets for storage.
type Sealer interface {
	Seal(plaintext, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}

// withDefaults returns c with zero fields filled in, or an error that names what is missing.
func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Snapshot == nil:
		return c, errors.New("edge: Config.Snapshot is not set")
	case c.Verifier == nil:
		return c, errors.New("edge: Config.Verifier is not set")
	case c.Tickets != nil && c.Seal == nil:
		return c, errors.New("edge: Config.Tickets is set without Config.Seal: ticket keys are never stored in clear")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	l := &c.Limits
	l.HandshakeTimeout = cmp.Or(l.HandshakeTimeout, 10*time.Second)
	l.HeaderTimeout = cmp.Or(l.HeaderTimeout, 10*time.Second)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 120*time.Second)
	l.DrainTimeout = cmp.Or(l.DrainTimeout, 10*time.Second)
	l.MaxHeaderBytes = cmp.Or(l.MaxHeaderBytes, 64<<10)
	l.HandshakesPerIP = cmp.Or(l.HandshakesPerIP, 256)
	l.MaxConnections = cmp.Or(l.MaxConnections, 100_000)
	l.MaxConcurrentH2 = cmp.Or(l.MaxConcurrentH2, 250)
	l.MaxIdentityHeaders = cmp.Or(l.MaxIdentityHeaders, 16<<10)
	return c, nil
}
