package edge

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/site"
)

// conn is one accepted connection whose handshake is complete. It is made by the listener side (serve.go), found by
// requests through the context, and owned by the goroutine that serves it; the fields say who else may touch them.
type conn struct {
	server   *Server
	raw      net.Conn // the TCP connection below tls
	tls      *tls.Conn
	listener string              // name of the listener it came in by
	host     *site.Host          // the host its handshake was for; never changes
	state    tls.ConnectionState // after the handshake; never changes
	remote   string              // client address without the port
	started  time.Time
	resumed  bool

	current  atomic.Pointer[standing] // replaced by check, read by anyone
	inflight atomic.Int32             // requests being served
	cut      atomic.Bool              // set once, before the connection is closed by decision
	warned   atomic.Bool              // that the identity headers are too large was logged
	closers  closers                  // WebSocket and other hijacked streams to end gracefully when cut
}

// standing is an identity as it was judged at some epoch and snapshot.
type standing struct {
	identity identity.Identity
	epoch    uint64                          // of the revocation index when judged
	snapshot *site.Snapshot                  // current when judged
	headers  atomic.Pointer[identityHeaders] // what the upstream is told; made by the first request that needs it
}

type connKey struct{}

// connOf returns the connection a request came in by; nil outside the edge.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}
