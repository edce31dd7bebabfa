package edge

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"
)

// log writes the access record: what was asked, what was decided and why, what was sent and what went wrong with it. It
// names the path only, as queries carry secrets.
func (x *exchange) log(took time.Duration) {
	ctx := context.WithoutCancel(x.r.Context())
	if !x.p.access.Enabled(ctx, slog.LevelInfo) {
		return
	}
	decision := "allow"
	if x.refused {
		decision = "refuse"
	}
	attrs := [...]slog.Attr{
		slog.String("request_id", x.id),
		slog.String("host", x.name),
		slog.String("listener", x.c.listener),
		slog.String("remote", x.c.remote),
		slog.String("method", x.r.Method),
		slog.String("path", x.r.URL.Path),
		slog.String("proto", x.r.Proto),
		slog.Int("status", x.status),
		slog.Int64("bytes", x.bytes),
		slog.Duration("duration", took),
		slog.String("tls", tls.VersionName(x.c.state.Version)),
		slog.Bool("resumed", x.c.resumed),
		slog.String("decision", decision),
		slog.String("reason", x.reason),
		slog.String("revocation", x.revocation()),
		slog.String("failure", x.failure),
		slog.String("subject", x.subject()),
		slog.String("serial", x.serial()),
	}
	x.p.access.LogAttrs(ctx, slog.LevelInfo, "request", attrs[:]...)
}

// revocation is what was known of the revocation of the client's certificate: "good", "revoked", "unknown" (let in or
// refused by the policy of its CA), "unchecked" (no source speaks of it); empty without a path to a CA.
func (x *exchange) revocation() string {
	if x.standing == nil {
		return ""
	}
	return x.standing.identity.Revocation()
}

// subject is the distinguished name of the certificate that the client presented, verified or not (reason says which),
// as RFC 4514 text.
func (x *exchange) subject() string {
	if x.told == nil {
		return ""
	}
	return x.told.client.subject
}

func (x *exchange) serial() string {
	if x.told == nil {
		return ""
	}
	return x.told.client.serial
}
