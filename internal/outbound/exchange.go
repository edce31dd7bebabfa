package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxInterim bounds the responses of status 1xx before the real one.
const maxInterim = 5

// exchange is one HTTP request and its response on a connection of its own. As
// an io.ReadCloser it is the body of the response.
type exchange struct {
	resp    *http.Response
	conn    net.Conn
	stop    func() bool // takes back that the end of the context closes conn
	release func()      // gives the slot back

	// Of one that is handed out:
	left    int64             // octets of body that may still be read
	err     error             // what reading the body ended with
	explain func(error) error // makes the reason of an error that of the context, where that is the cause
	finish  func(error)       // ends and counts the request
	once    sync.Once         // of finish
	ended   atomic.Pointer[error]
}

// exchange waits for its turn, dials, and sends and reads one message; of the
// response, the header.
func (c *Client) exchange(ctx context.Context, u *url.URL, req Request) (*exchange, error) {
	msg, err := c.message(ctx, u, req)
	if err != nil {
		return nil, err
	}
	release, err := c.slots.acquire(ctx, strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), req.Origin)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx, u, req.Origin)
	if err != nil {
		release()
		return nil, err
	}
	x := &exchange{conn: conn, release: release}
	x.stop = context.AfterFunc(ctx, func() { sever(conn) })
	if err := x.send(msg); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// send writes the message and reads the header of the response.
func (x *exchange) send(msg *http.Request) error {
	if err := msg.Write(x.conn); err != nil {
		return err
	}
	header := &io.LimitedReader{R: x.conn, N: maxHeaderBytes}
	reader := bufio.NewReader(header)
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(reader, msg) //nolint:bodyclose // the exchange owns the body, and ends it
		switch {
		case err != nil && header.N <= 0:
			return fmt.Errorf("%w: a header of more than %d bytes", ErrTooLarge, maxHeaderBytes)
		case err != nil:
			return err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return &StatusError{Code: resp.StatusCode}
		case resp.StatusCode < 200:
			continue
		}
		header.N = math.MaxInt64 // the rest is the body, which counts for itself
		x.resp = resp
		return nil
	}
	return fmt.Errorf("more than %d interim responses", maxInterim)
}

// close ends the connection. The rest of the body is not read, so
// resp.Body.Close, which would, is not called.
func (x *exchange) close() {
	x.stop()
	sever(x.conn)
	x.release()
}

// sever closes a connection at once. The close of a TLS connection would wait
// to tell the peer.
func sever(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	conn.Close()
}

// Read reads the body.
func (x *exchange) Read(p []byte) (int, error) {
	if ended := x.ended.Load(); ended != nil && x.err == nil {
		x.err = *ended
	}
	if x.err != nil || len(p) == 0 {
		return 0, x.err
	}
	n, err := x.resp.Body.Read(p[:min(int64(len(p)), x.left+1)])
	switch {
	case int64(n) > x.left:
		n, err = int(x.left), ErrTooLarge
	case err != nil && !errors.Is(err, io.EOF):
		err = x.explain(err)
	}
	x.left -= int64(n)
	switch x.err = err; {
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		x.end(nil, err)
	case err != nil:
		x.end(err, err)
	}
	return n, err
}

// Close ends the request, read to the end or not.
func (x *exchange) Close() error {
	x.end(nil, http.ErrBodyReadAfterClose)
	return nil
}

// end ends the request and counts it by its first reason. Reads that come
// after it say readErr.
func (x *exchange) end(reason, readErr error) {
	x.once.Do(func() {
		x.ended.Store(&readErr)
		x.close()
		x.finish(reason)
	})
}

// check refuses an answer that is neither the resource nor "not modified".
func (x *exchange) check(req Request) error {
	conditional := req.Method == http.MethodGet && req.ETag+req.LastModified != ""
	switch {
	case x.resp.StatusCode == http.StatusNotModified && conditional:
		return nil
	case x.resp.StatusCode != http.StatusOK:
		return &StatusError{Code: x.resp.StatusCode, RetryAfter: seconds(x.resp.Header.Get("Retry-After"))}
	case x.resp.ContentLength > req.MaxBytes:
		return fmt.Errorf("%w: %d bytes; at most %d", ErrTooLarge, x.resp.ContentLength, req.MaxBytes)
	}
	if encoding := x.resp.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fmt.Errorf("content encoding %.20q, which was not asked for", encoding)
	}
	return nil
}

// seconds reads a number of seconds, at most a year of them; 0 where there is none.
func seconds(text string) time.Duration {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, int64(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter)
}

// answer is the Response of an exchange that passed.
func (x *exchange) answer(req Request) *Response {
	r := &Response{Status: x.resp.StatusCode, Body: x}
	if v := x.resp.Header.Get("ETag"); len(v) <= maxValidator {
		r.ETag = v
	}
	if v := x.resp.Header.Get("Last-Modified"); len(v) <= maxValidator {
		r.LastModified = v
	}
	x.left = req.MaxBytes
	if r.Status == http.StatusNotModified {
		r.NotModified, r.Body = true, http.NoBody
		x.end(errNotModified, io.EOF)
	}
	return r
}
