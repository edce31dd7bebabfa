package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// response is what one exchange allocates for its response.
type response struct {
	http.Response
	b  body
	te [1]string
}

// framing is what the header section says about the body (RFC 9112, Section 6).
type framing struct {
	length    int64 // -1: no Content-Length
	chunked   bool
	close     bool
	keepAlive bool
	trailer   []string
}

// readResponse reads status line and header, past interim responses, and sets
// up the body.
func (c *conn) readResponse(req *http.Request) (*response, error) {
	limit := c.o.t.cfg.MaxResponseHeaderBytes
	for {
		size, err := c.readSection(true, limit)
		if err != nil {
			return nil, err
		}
		switch {
		case c.code == http.StatusSwitchingProtocols:
			return nil, errors.New("origin switched protocols without being asked to")
		case c.code < 200:
			// All interim responses together stay within one limit.
			limit -= size
			if err := c.interim(req, size); err != nil {
				return nil, err
			}
			continue
		}
		return c.newResponse(req, size)
	}
}

// interim skips a 1xx response, or hands it to the Got1xxResponse hook.
func (c *conn) interim(req *http.Request, size int) error {
	defer func() { c.r += size }()
	trace := httptrace.ContextClientTrace(req.Context())
	if trace == nil || trace.Got1xxResponse == nil {
		return nil
	}
	h, _, err := c.header(string(c.buf[c.r : c.r+size]))
	if err != nil {
		return err
	}
	return trace.Got1xxResponse(c.code, textproto.MIMEHeader(h))
}

func (c *conn) newResponse(req *http.Request, size int) (*response, error) {
	head := string(c.buf[c.r : c.r+size])
	c.r += size
	h, f, err := c.header(head)
	if err != nil {
		return nil, err
	}
	if f.chunked && f.length >= 0 {
		return nil, errors.New("response has both Content-Length and Transfer-Encoding")
	}
	if f.chunked && c.minor == 0 {
		return nil, errors.New("HTTP/1.0 response has Transfer-Encoding")
	}
	r := &response{}
	r.Status, r.StatusCode = head[len("HTTP/1.1 "):c.first.end], c.code
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, c.minor
	if c.minor == 0 {
		r.Proto = "HTTP/1.0"
	}
	r.Header, r.Request, r.TLS = h, req, c.tls
	r.Close = f.close || c.minor == 0 && !f.keepAlive
	r.b.t, r.b.resp, r.b.c = c.o.t, &r.Response, c
	return r, r.frame(f)
}

// frame chooses how the body is read: RFC 9112, Section 6.3.
func (r *response) frame(f framing) error {
	r.ContentLength = f.length
	b := &r.b
	switch {
	case r.Request.Method == http.MethodHead:
	case r.StatusCode == http.StatusNoContent || r.StatusCode == http.StatusNotModified:
		r.ContentLength = 0
	case f.chunked:
		b.mode = chunked
		r.te[0] = "chunked"
		r.TransferEncoding = r.te[:]
		return r.announce(f.trailer)
	case f.length >= 0:
		b.left = f.length
	default:
		b.mode = untilClose
		r.Close = true
	}
	b.keep = !r.Close && !r.Request.Close
	return nil
}

// announce sets the keys of the trailer fields that the header promises.
func (r *response) announce(lists []string) error {
	r.b.keep = !r.Close && !r.Request.Close
	if len(lists) == 0 {
		return nil
	}
	delete(r.Header, "Trailer")
	r.Trailer = make(http.Header)
	for _, list := range lists {
		for key := range strings.SplitSeq(list, ",") {
			key = textproto.TrimString(key)
			if key == "" {
				continue
			}
			if isFraming(key) || !httpguts.ValidHeaderFieldName(key) {
				return fmt.Errorf("bad trailer field name %.40q", key)
			}
			r.Trailer[http.CanonicalHeaderKey(key)] = nil
		}
	}
	return nil
}

// header makes the map of the last section, whose text is head: one string
// holds all names and values, and one slice all single values.
func (c *conn) header(head string) (http.Header, framing, error) {
	f := framing{length: -1}
	h := make(http.Header, len(c.fields))
	values := make([]string, len(c.fields))
	for i, fd := range c.fields {
		key, v := head[fd.name.start:fd.name.end], head[fd.value.start:fd.value.end]
		switch key {
		case "Content-Length":
			n, err := parseLength(v)
			if err != nil {
				return nil, f, err
			}
			if f.length >= 0 {
				if n != f.length {
					return nil, f, errors.New("response has conflicting Content-Length fields")
				}
				continue // RFC 9110, Section 8.6: the same value twice is one
			}
			f.length = n
		case "Transfer-Encoding":
			if f.chunked || !strings.EqualFold(v, "chunked") {
				return nil, f, fmt.Errorf("unsupported transfer coding %.40q", v)
			}
			f.chunked = true
			continue
		case "Connection":
			f.close = f.close || httpguts.HeaderValuesContainsToken([]string{v}, "close")
			f.keepAlive = f.keepAlive || httpguts.HeaderValuesContainsToken([]string{v}, "keep-alive")
		}
		if vv, ok := h[key]; ok {
			h[key] = append(vv, v)
			continue
		}
		values[i] = v
		h[key] = values[i : i+1 : i+1]
	}
	f.trailer = h["Trailer"]
	return h, f, nil
}
