package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// maxInline is the largest body that is read into the request before a
// connection is taken: it fits any socket's send buffer, so writing it cannot
// wait for an origin that answers without reading.
const maxInline = 4 << 10

// keepWire is the largest request buffer that is pooled.
const keepWire = 64 << 10

// exchange is one request on its way. It is pooled with its buffer.
type exchange struct {
	req      *http.Request
	wire     []byte  // request line, header and inline body
	upload   *upload // streamed body, or nil
	bodyless bool
	wrote    bool // some of wire may have reached the origin
}

// newExchange encodes req. When it fails, the body is closed.
func (t *Transport) newExchange(req *http.Request) (*exchange, error) {
	x := t.exchanges.Get().(*exchange)
	x.req = req
	length := outgoingLength(req)
	x.bodyless = length == 0
	b, err := appendRequest(x.wire[:0], req, length, t.origins[0].target.host)
	switch {
	case err != nil:
		closeBody(req)
	case length == 0:
		closeBody(req)
	case length > 0 && length <= maxInline:
		b, err = t.appendBody(b, req, int(length))
	default:
		x.upload = newUpload(req.Body, length, req.Trailer)
	}
	x.wire = b
	if err != nil {
		x.recycle(t)
		return nil, err
	}
	return x, nil
}

// appendBody reads a short body to its end and closes it.
func (t *Transport) appendBody(b []byte, req *http.Request, n int) ([]byte, error) {
	defer req.Body.Close()
	start := len(b)
	b = slices.Grow(b, n)[:start+n]
	if _, err := io.ReadFull(req.Body, b[start:]); err != nil {
		if isEOF(err) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("request body is shorter than its Content-Length: %w", io.ErrUnexpectedEOF)
		}
		return b, t.origins[0].fail(req.Context(), OpBody, err)
	}
	return b, nil
}

// release ends the use of the exchange; an upload that never began gives up its
// body.
func (x *exchange) release(t *Transport, err error) {
	if err != nil && x.upload != nil && !x.upload.started {
		x.upload.close()
	}
	x.recycle(t)
}

func (x *exchange) recycle(t *Transport) {
	if cap(x.wire) <= keepWire {
		*x = exchange{wire: x.wire}
		t.exchanges.Put(x)
	}
}

// replayable reports whether the request may be sent again after a reused
// connection failed without a byte of response.
func (x *exchange) replayable() bool {
	if !x.wrote {
		return true
	}
	if !x.bodyless {
		return false
	}
	switch x.req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// outgoingLength returns the length of req's body: 0 for none, -1 for unknown.
func outgoingLength(req *http.Request) int64 {
	switch {
	case req.Body == nil || req.Body == http.NoBody:
		return 0
	case req.ContentLength > 0 && !slices.Contains(req.TransferEncoding, "chunked"):
		return req.ContentLength
	}
	return -1
}

// appendRequest appends request line and header section.
func appendRequest(b []byte, req *http.Request, length int64, defaultHost string) ([]byte, error) {
	method := req.Method
	if method == "" {
		method = http.MethodGet
	}
	b = append(append(b, method...), ' ')
	b, err := appendTarget(b, req.URL)
	if err != nil {
		return b, err
	}
	host, err := cleanHost(req, defaultHost)
	if err != nil {
		return b, err
	}
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), host...), "\r\n"...)
	if req.Close {
		b = append(b, "Connection: close\r\n"...)
	}
	switch {
	case length > 0:
		b = strconv.AppendInt(append(b, "Content-Length: "...), length, 10)
		b = append(b, "\r\n"...)
	case length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if b, err = appendAnnounced(b, req.Trailer); err != nil {
			return b, err
		}
	case method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	if b, err = appendHeader(b, req.Header); err != nil {
		return b, err
	}
	return append(b, "\r\n"...), nil
}

// appendTarget appends the origin-form of u (RFC 9112, Section 3.2.1). What
// would end the request line early is refused, a blank in the query escaped.
func appendTarget(b []byte, u *url.URL) ([]byte, error) {
	start := len(b)
	path := u.Opaque
	if path == "" {
		path = u.EscapedPath()
	}
	if path == "" {
		path = "/"
	}
	if path[0] != '/' && path != "*" || strings.HasPrefix(u.Opaque, "//") {
		return b, fmt.Errorf("upstream: request target %.60q is not an absolute path", path)
	}
	b = append(b, path...)
	if u.ForceQuery || u.RawQuery != "" {
		b = append(b, '?')
		if strings.IndexByte(u.RawQuery, ' ') < 0 {
			b = append(b, u.RawQuery...)
		} else {
			b = append(b, strings.ReplaceAll(u.RawQuery, " ", "%20")...)
		}
	}
	for _, c := range b[start:] {
		if c <= ' ' || c == 0x7f {
			return b, fmt.Errorf("upstream: request target has a control character: %.60q", b[start:])
		}
	}
	return b, nil
}

// cleanHost returns the Host field, as net/http would send it, but never empty.
func cleanHost(req *http.Request, defaultHost string) (string, error) {
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	if host == "" {
		host = defaultHost
	}
	if !plainHost(host) {
		var err error
		if host, err = httpguts.PunycodeHostPort(host); err != nil {
			return "", fmt.Errorf("upstream: host %.60q: %w", host, err)
		}
		if !httpguts.ValidHostHeader(host) {
			return "", fmt.Errorf("upstream: host %.60q is not valid", host)
		}
	}
	// RFC 6874: an IPv6 zone is not for others.
	if strings.HasPrefix(host, "[") {
		if i := strings.LastIndexByte(host, ']'); i >= 0 {
			if z := strings.LastIndexByte(host[:i], '%'); z >= 0 {
				host = host[:z] + host[i:]
			}
		}
	}
	return host, nil
}

// plainHost reports a host that needs no further look.
func plainHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == ':':
		default:
			return false
		}
	}
	return true
}

// appendHeader appends all fields but the framing ones.
func appendHeader(b []byte, h http.Header) ([]byte, error) {
	for k, vv := range h {
		if isFraming(k) {
			continue
		}
		if !httpguts.ValidHeaderFieldName(k) {
			return b, fmt.Errorf("upstream: header field name %.40q is not valid", k)
		}
		for _, v := range vv {
			if !httpguts.ValidHeaderFieldValue(v) {
				// The value may be a secret: not in the text.
				return b, fmt.Errorf("upstream: header field %q has a control character in its value", k)
			}
			if v == "" && k == "User-Agent" { // net/http's way to say none
				continue
			}
			b = append(append(append(b, k...), ": "...), textproto.TrimString(v)...)
			b = append(b, "\r\n"...)
		}
	}
	return b, nil
}

// appendAnnounced appends the Trailer field for the keys of trailer.
func appendAnnounced(b []byte, trailer http.Header) ([]byte, error) {
	if len(trailer) == 0 {
		return b, nil
	}
	keys := make([]string, 0, len(trailer))
	for k := range trailer {
		if !httpguts.ValidHeaderFieldName(k) || isFraming(k) {
			return b, errors.New("upstream: bad trailer field name " + strconv.Quote(k))
		}
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b = append(append(b, "Trailer: "...), strings.Join(keys, ", ")...)
	return append(b, "\r\n"...), nil
}
