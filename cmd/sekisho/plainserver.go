package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// writeTimeout is how long a client of the admin API and of the metrics may take for an answer, from its request on.
	writeTimeout = time.Minute
	// pkiWriteTimeout is for CRLs, which are large and asked for over slow lines. It is the last resort: the responder sets
	// a deadline of its own by the size of each answer, which may be later.
	pkiWriteTimeout = 10 * time.Minute
)

// plainServer serves a handler on a listener of ours that is not the edge. Every wait for a client has an end, so that
// one that sends or reads nothing holds neither a connection nor a goroutine for good.
type plainServer struct {
	listener net.Listener
	handler  http.Handler
	logger   *slog.Logger
	drain    time.Duration // what requests in flight get when run ends
	write    time.Duration // from the end of the request's header to the end of the answer
}

// run serves until ctx ends, then drains.
func (p plainServer) run(ctx context.Context) error {
	srv := &http.Server{
		Handler: p.handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		WriteTimeout: p.write, MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(p.logger.Handler(), slog.LevelDebug),
		// In HTTP/2 WriteTimeout ends the stream; this ends the connection of a client that takes nothing at all.
		HTTP2: &http.HTTP2Config{WriteByteTimeout: p.write},
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(p.listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	drained, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.drain)
	defer cancel()
	if err := srv.Shutdown(drained); err != nil {
		_ = srv.Close() // the drain ran out of time: what is left is cut
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
