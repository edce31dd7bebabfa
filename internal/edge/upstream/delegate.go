package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// newDelegate returns the net/http Transport that carries what this package
// leaves to net/http: HTTP/2 when h2 is set, HTTP/1.1 for Upgrade requests
// otherwise.
func newDelegate(cfg *Config, o *origin, h2 bool) *http.Transport {
	protocol := "http/1.1"
	protocols := new(http.Protocols)
	switch {
	case h2 && o.target.tls:
		protocol = "h2"
		protocols.SetHTTP2(true)
	case h2:
		protocols.SetUnencryptedHTTP2(true)
	default:
		protocols.SetHTTP1(true)
	}
	dial := func(cfg *tls.Config) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, _, err := o.dialNet(ctx, cfg)
			return nc, err
		}
	}
	return &http.Transport{
		Proxy:                  nil, // the environment does not choose where requests go
		DialContext:            dial(nil),
		DialTLSContext:         dial(cfg.tlsConfig(o.target, protocol)),
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    cfg.MaxIdlePerHost,
		MaxConnsPerHost:        cfg.MaxConns,
		IdleConnTimeout:        cfg.IdleTimeout,
		ResponseHeaderTimeout:  cfg.ResponseHeaderTimeout,
		MaxResponseHeaderBytes: int64(cfg.MaxResponseHeaderBytes),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second,
			PingTimeout:     15 * time.Second,
		},
	}
}

// delegate sends req by net/http, to the next origin when one cannot be dialled
// and the body was not touched.
func (t *Transport) delegate(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &stallWatch{limit: t.cfg.ResponseHeaderTimeout, cancel: cancel}
	out := req.WithContext(ctx)
	if out.Host == "" {
		out.Host = req.URL.Host
	}
	upgrade := len(req.Header["Upgrade"]) > 0
	out.Header = delegateHeader(req.Header, !upgrade)
	var held *heldBody
	if req.Body != nil && req.Body != http.NoBody {
		held = &heldBody{body: req.Body, watch: w}
		out.Body, out.GetBody = held, nil
	}
	//nolint:contextcheck // out carries the request's context to the dial
	resp, err := t.failover(req, func(o *origin) (*http.Response, error) {
		attempt := out.WithContext(ctx) // net/http may still look at the last one
		attempt.URL = o.urlFor(req.URL)
		w.await(t.cfg.DialTimeout + t.cfg.ResponseHeaderTimeout)
		resp, err := o.delegateFor(upgrade).RoundTrip(attempt)
		if err != nil {
			if context.Cause(ctx) == errHeaderTimeout { //nolint:errorlint // the watch's own
				err = errHeaderTimeout
			}
			e := o.fail(req.Context(), OpRead, err)
			e.unreached = e.unreached && (held == nil || !held.touched.Load())
			return nil, e
		}
		resp.Request = req
		return resp, nil
	})
	w.end()
	if held != nil {
		held.settle()
	}
	if err != nil {
		cancel(nil) // with a response, the end of req's context does it
	}
	return resp, err
}

func (o *origin) delegateFor(upgrade bool) *http.Transport {
	if upgrade {
		return o.upgrade
	}
	return o.h2
}

// stallWatch ends a request of net/http whose origin neither reads nor answers:
// net/http's own timeout begins when all of the request is sent.
type stallWatch struct {
	limit  time.Duration
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	ended bool
}

// await gives the origin d from now on to take more of the request or to answer.
func (w *stallWatch) await(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
	case w.timer == nil:
		w.timer = time.AfterFunc(d, w.fire)
	default:
		w.timer.Reset(d)
	}
}

func (w *stallWatch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.cancel(errHeaderTimeout)
	}
}

// pause is while the request's body is waited for.
func (w *stallWatch) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

// end is when there is an answer.
func (w *stallWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
}

// urlFor returns u with the origin's scheme and address.
func (o *origin) urlFor(u *url.URL) *url.URL {
	out := &url.URL{
		Scheme: "http", Host: o.target.host, Opaque: u.Opaque,
		Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery, ForceQuery: u.ForceQuery,
	}
	if o.target.tls {
		out.Scheme = "https"
	}
	if o.target.network == "tcp" {
		out.Host = o.target.addr
	}
	return out
}

// delegateHeader returns a copy of h without the framing fields in any
// spelling, and with the User-Agent that net/http would add switched off.
func delegateHeader(h http.Header, h2 bool) http.Header {
	out := make(http.Header, len(h)+1)
	for k, vv := range h {
		if isFraming(k) && (h2 || !strings.EqualFold(k, "Connection")) {
			continue
		}
		out[k] = vv
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = []string{""}
	}
	return out
}

// isFraming reports whether k is a field that only this package may write, in
// any spelling that some origin takes for it: CGI and its heirs make one
// variable of Content-Length and Content_Length, and the last one wins.
func isFraming(k string) bool {
	switch len(k) {
	case len("Host"):
		return spells(k, "host")
	case len("Trailer"):
		return spells(k, "trailer")
	case len("Connection"):
		return spells(k, "connection")
	case len("Content-Length"):
		return spells(k, "content-length")
	case len("Transfer-Encoding"):
		return spells(k, "transfer-encoding")
	}
	return false
}

// spells compares a field name of the same length with one in lower case:
// letters in either case, any other byte for the dash.
func spells(k, name string) bool {
	for i := range len(name) {
		c := k[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case c < 'a' || c > 'z':
			c = '-'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}

// heldBody lets a body survive the Close of an attempt that read nothing of it,
// so that the next origin can be tried.
type heldBody struct {
	body    io.ReadCloser
	watch   *stallWatch
	touched atomic.Bool

	mu      sync.Mutex
	settled bool // no other attempt follows
	closed  bool // an attempt has closed it
}

func (h *heldBody) Read(p []byte) (int, error) {
	h.touched.Store(true)
	h.watch.pause()
	defer h.watch.await(h.watch.limit)
	return h.body.Read(p)
}

// Close closes a body that was read from, or that no other attempt will read.
func (h *heldBody) Close() error {
	h.mu.Lock()
	h.closed = true
	hold := !h.settled && !h.touched.Load()
	h.mu.Unlock()
	if hold {
		return nil
	}
	return h.body.Close()
}

// settle ends the holding; what an attempt has closed is closed now.
func (h *heldBody) settle() {
	h.mu.Lock()
	h.settled = true
	closed := h.closed
	h.mu.Unlock()
	if closed && !h.touched.Load() {
		h.body.Close()
	}
}
