package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
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
	return &http.Transport{
		Proxy: nil, // the environment does not choose where requests go
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, err := o.dialer.DialContext(ctx, o.target.network, o.target.addr)
			if err != nil {
				return nil, o.fail(ctx, OpDial, err)
			}
			return nc, nil
		},
		TLSClientConfig:        cfg.tlsConfig(o.target, protocol),
		TLSHandshakeTimeout:    cfg.DialTimeout,
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

// delegate sends req by net/http. reached reports that a connection was there,
// so that another origin must not be tried.
func (o *origin) delegate(tr *http.Transport, req *http.Request, h2 bool) (resp *http.Response, reached bool, err error) {
	out := req.WithContext(req.Context())
	out.URL = &url.URL{
		Scheme: "http", Host: o.target.host, Opaque: req.URL.Opaque,
		Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery, ForceQuery: req.URL.ForceQuery,
	}
	if o.target.tls {
		out.URL.Scheme = "https"
	}
	if o.target.network == "tcp" {
		out.URL.Host = o.target.addr
	}
	if out.Host == "" {
		out.Host = req.URL.Host
	}
	out.Header = delegateHeader(req.Header, h2)
	resp, err = tr.RoundTrip(out)
	if err != nil {
		err = o.fail(req.Context(), OpRead, err)
		return nil, err.(*Error).Op != OpDial, err
	}
	resp.Request = req
	return resp, true, nil
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

// isFraming reports whether k, in any spelling, is a field that only this
// package may write.
func isFraming(k string) bool {
	switch len(k) {
	case len("Host"):
		return strings.EqualFold(k, "Host")
	case len("Trailer"):
		return strings.EqualFold(k, "Trailer")
	case len("Connection"):
		return strings.EqualFold(k, "Connection")
	case len("Content-Length"):
		return strings.EqualFold(k, "Content-Length")
	case len("Transfer-Encoding"):
		return strings.EqualFold(k, "Transfer-Encoding")
	}
	return false
}

// heldBody lets a body survive the Close of an attempt that read nothing of it,
// so that the next origin can be tried.
type heldBody struct {
	body    io.ReadCloser
	touched atomic.Bool
}

func (h *heldBody) Read(p []byte) (int, error) {
	h.touched.Store(true)
	return h.body.Read(p)
}

// Close closes a body that was read from; an untouched one is closed by the
// Transport when it gives up.
func (h *heldBody) Close() error {
	if h.touched.Load() {
		return h.body.Close()
	}
	return nil
}
