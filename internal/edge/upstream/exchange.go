package upstream

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// exchange sends x to this origin, once more when an idle connection turned out
// to be closed.
func (o *origin) exchange(x *exchange) (*http.Response, error) {
	ctx := x.req.Context()
	for fresh := false; ; fresh = true {
		c, err := o.take(ctx, fresh)
		if err != nil {
			return nil, err
		}
		reused := c.reused
		resp, e := c.do(ctx, x)
		if e == nil {
			return resp, nil
		}
		if fresh || !reused || c.got || e.Op == OpTimeout || e.Op == OpBody || ctx.Err() != nil || !x.replayable() {
			return nil, e
		}
	}
}

// do sends x on c and reads the response header. The connection ends with an
// error, or with the response's body.
func (c *conn) do(ctx context.Context, x *exchange) (*http.Response, *Error) {
	stop := c.watch(ctx)
	r, op, err := c.send(x)
	if err != nil {
		stopWatch(stop)
		c.abandon()
		if x.upload != nil && x.upload.started {
			x.upload.abandon()
			if uop, uerr := x.upload.cause(); uerr != nil && (uop == OpBody || !c.got) && !errors.Is(err, errHeaderTimeout) {
				op, err = uop, uerr
			}
		}
		return nil, c.o.fail(ctx, op, err)
	}
	c.headerStart = time.Time{}
	b := &r.b
	// No body to come, and nothing of the request to go: over already.
	if b.mode == byLength && b.left == 0 && x.upload == nil {
		b.c = nil
		c.finish(stop, nil, b.keep && c.buffered() == 0)
		r.Body = http.NoBody
		return &r.Response, nil
	}
	b.stop, b.up = stop, x.upload
	r.Body = b
	return &r.Response, nil
}

// send writes the request and reads the response header; op is the stage that
// failed.
func (c *conn) send(x *exchange) (r *response, op string, err error) {
	if err := errors.Join(c.startWait(x.upload), c.limitWrite()); err != nil {
		return nil, OpWrite, err
	}
	n, err := c.nc.Write(x.wire)
	x.wrote = n > 0
	if err != nil {
		return nil, OpWrite, err
	}
	if x.upload != nil {
		if err := c.unlimitWrite(); err != nil { // the wait for the header has an eye on it
			return nil, OpWrite, err
		}
		x.upload.started = true
		go x.upload.run(c, c.o.t)
	}
	r, err = c.readResponse(x.req)
	return r, OpRead, err
}

// finish ends an exchange whose response is complete or given up.
func (c *conn) finish(stop func() bool, u *upload, reuse bool) {
	if reuse && u != nil {
		reuse = u.complete()
	}
	alive := stopWatch(stop)
	c.upload = nil
	if reuse && alive && !c.leftover() {
		c.o.put(c)
		return
	}
	c.abandon()
	if u != nil {
		u.abandon()
	}
}

// watch cuts the connection when ctx ends.
func (c *conn) watch(ctx context.Context) (stop func() bool) {
	if ctx.Done() == nil {
		return nil
	}
	return context.AfterFunc(ctx, c.cutFunc)
}

// stopWatch reports whether the connection was left alone.
func stopWatch(stop func() bool) bool { return stop == nil || stop() }
