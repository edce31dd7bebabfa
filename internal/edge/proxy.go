package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"sekisho/internal/edge/upstream"
)

// proxy sends the request to the host's origin and its answer to the client, bodies as they come.
func (x *exchange) proxy(upgrade string) {
	resp, err := x.route.origin.transport.RoundTrip(x.outgoing())
	x.interims.end()
	defer x.endBody()
	if err != nil {
		x.fail(err)
		return
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusSwitchingProtocols:
		x.switchProtocols(resp, upgrade)
	case resp.StatusCode < 200 || resp.StatusCode > 999: // over HTTP/2 net/http takes any number
		x.fail(fmt.Errorf("the origin answered with status %d", resp.StatusCode))
	default:
		x.respond(resp)
	}
}

// outgoing is the request to the origin. It shares the header, which prepare has made, and the body. Trailers of the
// request are dropped: they could carry an identity after the header was cleared of it.
func (x *exchange) outgoing() *http.Request {
	r := x.r
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		// An origin that answers before the end of the body is heard at once. Errors mean HTTP/1.0 or a wrapper.
		_ = http.NewResponseController(x.w).EnableFullDuplex()
	}
	x.trace.Got1xxResponse = x.interim
	out := r.WithContext(httptrace.WithClientTrace(r.Context(), &x.trace))
	out.Trailer, out.TransferEncoding, out.Close, out.RequestURI = nil, nil, false, ""
	switch {
	case r.ContentLength == 0:
		out.Body = nil
	case r.ProtoMajor == 1:
		x.body = &clientBody{body: r.Body}
		out.Body = x.body
	}
	return out
}

const (
	maxInterims  = 32              // 1xx answers to one request
	interimWrite = 5 * time.Second // to send one: over HTTP/2 other clients' answers from the origin wait for it
)

// interims guards the passing on of 1xx answers. For HTTP/2 origins and upgrades it happens on a goroutine of net/http's,
// which may come too late: when the header of the final answer is being made, or the client's connection serves another
// request.
type interims struct {
	mu    sync.Mutex
	count int
	over  bool
}

func (i *interims) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over = true
}

// interim passes on a 1xx answer; 100 is the server's own matter (RFC 9110, Section 15.2).
func (x *exchange) interim(code int, header textproto.MIMEHeader) error {
	x.interims.mu.Lock()
	defer x.interims.mu.Unlock()
	x.interims.count++
	switch {
	case x.interims.over:
		return nil
	case code == http.StatusSwitchingProtocols: // over HTTP/2; to net/http it would be the final answer
		return errors.New("origin switched protocols without being asked to")
	case x.interims.count > maxInterims:
		return fmt.Errorf("origin sent more than %d interim answers", maxInterims)
	case code == http.StatusContinue || !x.r.ProtoAtLeast(1, 1):
		return nil
	}
	h := x.w.Header()
	for name, values := range header {
		h[name] = values
	}
	removeHopByHop(h, false)
	client := http.NewResponseController(x.w)
	_ = client.SetWriteDeadline(time.Now().Add(interimWrite)) // errors mean a wrapper
	x.w.WriteHeader(code)
	_ = client.SetWriteDeadline(time.Time{})
	clear(h)
	return nil
}

// respond sends the origin's answer. When its body breaks off, so does the client's: nobody may take a part for the
// whole.
func (x *exchange) respond(resp *http.Response) {
	h := x.w.Header()
	x.copyHeader(h, resp.Header)
	announced := len(resp.Trailer)
	for name := range resp.Trailer {
		h["Trailer"] = append(h["Trailer"], name)
	}
	x.status = resp.StatusCode
	x.w.WriteHeader(resp.StatusCode)
	// Of unknown length: it may go on for hours, and what is there may be all for now. Trailers need chunks.
	stream := resp.ContentLength < 0 || announced > 0 || strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
	if stream && x.r.Method == http.MethodHead {
		stream = false
	}
	if err := x.copyBody(resp.Body, stream); err != nil {
		x.broken(err)
		panic(http.ErrAbortHandler)
	}
	for name, values := range resp.Trailer {
		if len(resp.Trailer) != announced {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// copyHeader takes over the origin's header without what concerns its connection only.
func (x *exchange) copyHeader(h, from http.Header) {
	removeHopByHop(from, false)
	for name, values := range from {
		h[name] = values
	}
	if len(from["Content-Length"]) > 1 { // an HTTP/2 origin's, which net/http does not look at; they may differ
		delete(h, "Content-Length")
	}
	if _, ok := from["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one
	}
	h["X-Request-Id"] = x.idValue[:]
}

// errClient marks an error of writing to the client.
var errClient = errors.New("client gone")

// copyBody copies until the origin's body ends; with stream, each piece is sent on as soon as it is there.
func (x *exchange) copyBody(body io.Reader, stream bool) error {
	var flush func() error
	if stream {
		flush = http.NewResponseController(x.w).Flush
		if err := flush(); err != nil {
			return errors.Join(errClient, err)
		}
	}
	buffer := x.p.buffers.Get().(*[]byte)
	defer x.p.buffers.Put(buffer)
	for {
		n, err := body.Read(*buffer)
		if n > 0 {
			written, werr := x.w.Write((*buffer)[:n])
			x.bytes += int64(written)
			if werr == nil && stream {
				werr = flush()
			}
			if werr != nil {
				return errors.Join(errClient, werr)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// broken records that an answer ended early.
func (x *exchange) broken(err error) {
	if errors.Is(err, errClient) || x.r.Context().Err() != nil {
		x.failure = "client_gone"
		return
	}
	x.failure = "upstream_broke_off"
	x.upstreamError(err)
}

// fail answers for an origin that gave no answer. The client learns what kind of failure it was; the address and the
// cause are for the log.
func (x *exchange) fail(err error) {
	if x.r.Context().Err() != nil {
		x.status, x.failure = statusClientGone, "client_gone"
		panic(http.ErrAbortHandler)
	}
	x.upstreamError(err)
	r := refusal{
		status: http.StatusBadGateway, code: 5020, reason: "upstream", advice: adviceAgain,
		text: "the service behind this address did not answer as it should",
	}
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		switch e.Op {
		case upstream.OpDial:
			r.code, r.reason, r.text = 5021, "upstream_unreachable", "the service behind this address cannot be reached"
		case upstream.OpWrite, upstream.OpRead:
			r.code, r.reason, r.text = 5022, "upstream_broke_off", "the service behind this address broke off or did not answer in HTTP"
		case upstream.OpTimeout:
			r.status, r.code, r.reason = http.StatusGatewayTimeout, 5040, "upstream_timeout"
			r.text = "the service behind this address did not answer in time"
		case upstream.OpBody:
			r = refusal{
				status: http.StatusBadRequest, code: 4000, reason: "body", close: true, advice: adviceAgain,
				text: "the body of the request could not be read to its end",
			}
		}
	}
	x.failure = r.reason
	x.reply(r)
}

// upstreamError counts and logs a failure of an origin.
func (x *exchange) upstreamError(err error) {
	op := "other"
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		op = e.Op
	}
	x.p.counters.upstream.add(op)
	if op == upstream.OpBody {
		return // the client's doing; the access log has it
	}
	x.p.logger.WarnContext(context.WithoutCancel(x.r.Context()), "upstream failed", "host", x.host.Name,
		"request_id", x.id, "method", x.r.Method, "path", x.r.URL.Path, "stage", op, "error", err)
}
