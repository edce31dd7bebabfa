package upstream

import (
	"context"
	"errors"
	"net"
	"os"
)

// The values of Error.Op.
const (
	// OpDial: no connection to the origin, TLS handshake included. 502.
	OpDial = "dial"
	// OpWrite: the request could not be sent. 502.
	OpWrite = "write"
	// OpRead: the response was cut off or is not HTTP. 502.
	OpRead = "read"
	// OpTimeout: connecting, waiting for a free connection, for the origin to
	// take the request or for the response header took too long. 504.
	OpTimeout = "timeout"
	// OpBody: reading the request's own body failed; the origin is not at
	// fault. 400, or nothing when the client has gone.
	OpBody = "body"
)

// Error says what went wrong between the edge and an origin. When the request's
// context ended first, errors.Is(err, context.Canceled) (or its cause) is true
// and Op is the stage it interrupted.
type Error struct {
	Op   string // one of the Op constants
	Addr string // the origin as configured, such as http://127.0.0.1:9000
	Err  error  // the cause

	unreached bool // no connection: another origin may be tried
}

// Error returns "origin ADDR: OP: CAUSE".
func (e *Error) Error() string { return "origin " + e.Addr + ": " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether the origin took too long.
func (e *Error) Timeout() bool { return e.Op == OpTimeout }

var (
	errClosed        = errors.New("upstream transport is closed")
	errHeaderTimeout = errors.New("no response header in time")
	errBusy          = errors.New("no free connection in time (all of max_conns are in use)")
)

// isTimeout reports whether err says that time ran out, on a socket or in a
// context with a deadline.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, errHeaderTimeout) || errors.Is(err, errBusy) {
		return true
	}
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// fail wraps err with the stage op, unless it already is an *Error. The end of
// ctx explains every error that follows from it.
func (o *origin) fail(ctx context.Context, op string, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if op != OpBody && isTimeout(err) {
		op = OpTimeout
	}
	return &Error{Op: op, Addr: o.target.name, Err: err}
}
