package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/pkix"
	"sekisho/internal/site"
)

// socket is an accepted TCP connection. It leads crypto/tls's callbacks, which see the net.Conn, to the handshake.
type socket struct {
	net.Conn
	handshake *handshake // nil once the handshake is complete
}

// CloseWrite sends FIN where the connection can be closed by half.
func (s *socket) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// handshake is the state of one handshake. It belongs to the goroutine that runs it; crypto/tls calls back on that.
type handshake struct {
	server   *Server
	listener string
	remote   string

	name     string // SNI
	snapshot *site.Snapshot
	host     *site.Host // nil until the ClientHello, or when nobody has that name
	epoch    uint64     // of the revocation index when identity was judged
	identity identity.Identity
	staple   []byte   // the OCSP answer that the client sent with its certificate
	refused  bool     // by us, for the identity
	resumed  *binding // of the session that crypto/tls was last given; it counts when the connection did resume
}

// choose finds the host of a ClientHello and returns this connection's own configuration; nil when there is none.
func (hs *handshake) choose(hello *tls.ClientHelloInfo) *tls.Config {
	hs.name = hello.ServerName
	hs.snapshot = hs.server.cfg.Snapshot()
	hs.host = hs.snapshot.Host(hs.listener, hello.ServerName)
	if hs.host == nil {
		return nil
	}
	config := hs.server.hosts.base(hs.host).Clone()
	config.WrapSession, config.UnwrapSession = hs.wrap, hs.unwrap
	config.VerifyConnection = hs.verify
	return config
}

// refusedError ends a handshake with the alert bad_certificate.
type refusedError struct{ id identity.Identity }

func (e *refusedError) Error() string {
	if err := e.id.Err(); err != nil {
		return fmt.Sprintf("client certificate refused: %s: %v", e.id.Reason(), err)
	}
	return fmt.Sprintf("client certificate refused: %s", e.id.Reason())
}

// verify is the connection's tls.Config.VerifyConnection; it runs in full and in resumed handshakes. The client has not
// proved yet that it holds the key, so this decides from memory, fetches nothing and registers nothing.
func (hs *handshake) verify(cs tls.ConnectionState) error {
	if !hs.host.AsksForCertificate() {
		return nil
	}
	if cs.DidResume {
		if err := hs.sameCertificate(cs.PeerCertificates); err != nil {
			return err
		}
	}
	hs.staple = cs.OCSPResponse
	hs.epoch = hs.server.cfg.Verifier.Epoch()
	hs.identity = hs.server.cfg.Verifier.Check(hs.host.Trust, cs.PeerCertificates)
	if refusesInHandshake(hs.host) && !hs.identity.Verified() && !hs.waits() {
		hs.refused = true
		return &refusedError{hs.identity}
	}
	return nil
}

// waits reports whether the decision about the client is to be made once it has proved its key: the sources of revocation
// are to be asked then, or what it stapled is to be looked at.
func (hs *handshake) waits() bool {
	switch hs.identity.Reason() {
	case identity.RevocationPending:
		return true
	case identity.RevocationUnknown:
		return len(hs.staple) > 0
	default:
		return false
	}
}

// resolve asks the sources of revocation that the verification found missing. The client has proved its key by now.
func (hs *handshake) resolve() {
	if hs.identity.Reason() != identity.RevocationPending && len(hs.staple) == 0 {
		return
	}
	v := hs.server.cfg.Verifier
	hs.epoch = v.Epoch()
	hs.identity = v.Resolve(context.Background(), hs.host.Trust, hs.identity, hs.staple)
}

// sameCertificate holds a session to the certificate it was bound to.
func (hs *handshake) sameCertificate(certs []*x509.Certificate) error {
	var leaf pkix.Fingerprint
	if len(certs) > 0 {
		leaf = pkix.FingerprintOf(certs[0].Raw)
	}
	if hs.resumed == nil || hs.resumed.leaf != leaf {
		return errors.New("edge: resumed session carries another certificate than it was bound to")
	}
	return nil
}

// run performs the handshake within the time limit, a slow ClientHello included.
func (hs *handshake) run(raw *socket) (*tls.Conn, error) {
	// net deadlines are of the real clock, whatever Config.Now says.
	_ = raw.SetDeadline(time.Now().Add(hs.server.cfg.Limits.HandshakeTimeout)) // a closed socket fails below
	conn := tls.Server(raw, hs.server.front)
	if err := conn.Handshake(); err != nil { //nolint:noctx // the deadline ends it, and gate.abort at a shutdown; a context costs a goroutine
		return nil, err
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("edge: clear the handshake deadline: %w", err)
	}
	return conn, nil
}

// failed counts and logs a handshake that came to nothing, and answers clients that speak plain HTTP.
func (hs *handshake) failed(raw *socket, err error) {
	s := hs.server
	if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader) {
		s.counters.failed.add("plain_http")
		s.cfg.Logger.LogAttrs(context.Background(), slog.LevelDebug, "plain HTTP request on a TLS port", hs.attributes("plain_http", err)...)
		answerPlainHTTP(raw)
		return
	}
	if reason := hs.refusal(err); reason != "" {
		s.counters.refused.add(reason)
		s.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "handshake refused", hs.attributes(reason, err)...)
		s.gate.proved(raw)
		linger(raw, 250*time.Millisecond)
		return
	}
	reason := failureOf(hs, err)
	s.counters.failed.add(reason)
	s.cfg.Logger.LogAttrs(context.Background(), slog.LevelDebug, "handshake failed", hs.attributes(reason, err)...)
}

func (hs *handshake) attributes(reason string, err error) []slog.Attr {
	return []slog.Attr{
		slog.String("remote", hs.remote), slog.String("listener", hs.listener), slog.String("sni", hs.name),
		slog.String("reason", reason), slog.Any("error", err),
	}
}
