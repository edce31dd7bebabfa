// Package upstream carries requests from the edge to origin servers.
//
// A [Transport] is an [net/http.RoundTripper] for one host's origins. HTTP/1.1
// over TCP, TLS and Unix sockets is written here: the request is written and
// the response is read on the calling goroutine, from a LIFO pool of idle
// connections, without a goroutine per connection. HTTP/2 and requests with an
// Upgrade header (WebSocket) go through a [net/http.Transport] configured
// alike.
//
// The scheme of an origin URL chooses the protocol:
//
//	http://host:port    HTTP/1.1 over TCP
//	https://host:port   HTTP/1.1 over TLS (ALPN http/1.1 only)
//	unix:///path        HTTP/1.1 over a Unix socket
//	h2c://host:port     HTTP/2 over TCP with prior knowledge (gRPC without TLS)
//	h2s://host:port     HTTP/2 over TLS (gRPC)
//
// An Upgrade request to an h2c or h2s origin is sent as HTTP/1.1 to the same
// address, because HTTP/2 has no Upgrade (RFC 9113, Section 8.6).
//
// The caller strips hop-by-hop fields. The framing fields are written here and
// nowhere else, whatever spelling the caller's map holds: Host, Content-Length,
// Transfer-Encoding, Connection and Trailer. No User-Agent and no
// Accept-Encoding is added. Expect: 100-continue is passed on, and the body is
// sent at once without waiting for the 100; a final answer that comes early is
// returned early.
//
// It refuses: CONNECT; field names and values that net/http refuses; responses
// with both Content-Length and Transfer-Encoding, conflicting Content-Length,
// folded lines, bare CR, a transfer coding other than chunked, more than 512
// fields or Config.MaxResponseHeaderBytes of them, 101 without Upgrade. It
// never uses proxies from the environment and never follows redirects.
//
//	t, err := upstream.New(upstream.Config{URLs: []string{"http://127.0.0.1:9000"}})
//	if err != nil {
//		return err
//	}
//	defer t.Close()
//	proxy := &httputil.ReverseProxy{Transport: t, Rewrite: rewrite}
package upstream
