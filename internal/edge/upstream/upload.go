package upstream

import (
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	// uploadSettle is how long the end of a response waits for an upload
	// that is nearly done, to keep the connection.
	uploadSettle = 50 * time.Millisecond
	// uploadGrace is how long the end of an exchange waits for its upload
	// after the connection has been closed.
	uploadGrace = 100 * time.Millisecond
	// maxEmptyReads is how many reads of a body in a row may yield nothing.
	maxEmptyReads = 100
)

// upload sends a streamed request body on its own goroutine, because the
// response may come before the body's end.
type upload struct {
	body    io.ReadCloser
	length  int64       // -1: chunked
	trailer http.Header // filled in by the time the body ends

	close  func()       // closes body, once
	origin atomic.Int64 // since when the origin's part is all that is waited for, in Unix nanoseconds; 0: the body's
	done   chan struct{}

	started bool // run was called; owned by the exchange

	// Written before done is closed.
	err     error
	bodyErr bool // err came from the body, not from the connection
}

func newUpload(body io.ReadCloser, length int64, trailer http.Header) *upload {
	return &upload{
		body: body, length: length, trailer: trailer,
		close: sync.OnceFunc(func() { body.Close() }), done: make(chan struct{}),
	}
}

// run sends the body to c. When the body fails, it cuts c, because the request
// can no longer be completed.
func (u *upload) run(c *conn, t *Transport) {
	defer close(u.done)
	defer u.close()
	buf := t.copies.Get().(*[]byte)
	defer t.copies.Put(buf)
	if u.length >= 0 {
		u.err = u.sendLength(c, *buf)
	} else {
		u.err = u.sendChunks(c, *buf)
	}
	u.origin.Store(time.Now().UnixNano())
	if u.bodyErr {
		c.cut()
	}
}

// read reads from the body; n is 0 only with an error.
func (u *upload) read(p []byte) (int, error) {
	for range maxEmptyReads {
		n, err := u.body.Read(p)
		if err != nil && !isEOF(err) {
			u.bodyErr = true
			return 0, err
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	u.bodyErr = true
	return 0, io.ErrNoProgress
}

// write sends a piece to c. While it lasts, the time that the origin has for its
// response runs: one that neither reads nor answers must not hold the client.
func (u *upload) write(c *conn, p []byte) error {
	u.origin.Store(time.Now().UnixNano())
	_, err := c.nc.Write(p)
	u.origin.Store(0)
	return err
}

func (u *upload) sendLength(c *conn, buf []byte) error {
	for left := u.length; left > 0; {
		n, err := u.read(buf[:min(int64(len(buf)), left)])
		left -= int64(n)
		if n > 0 {
			if err := u.write(c, buf[:n]); err != nil {
				return err
			}
		}
		if isEOF(err) && left > 0 {
			u.bodyErr = true
			return fmt.Errorf("request body ended %d bytes short of Content-Length: %w", left, io.ErrUnexpectedEOF)
		}
		if err != nil && !isEOF(err) {
			return err
		}
	}
	return nil
}

// sendChunks sends each read as one chunk in one write.
func (u *upload) sendChunks(c *conn, buf []byte) error {
	const front, back = len("7fff\r\n"), len("\r\n")
	for {
		n, err := u.read(buf[front : len(buf)-back])
		if err != nil && !isEOF(err) {
			return err
		}
		if n > 0 {
			var size [front]byte
			head := append(strconv.AppendInt(size[:0], int64(n), 16), '\r', '\n')
			start := front - len(head)
			copy(buf[start:], head)
			copy(buf[front+n:], "\r\n")
			if err := u.write(c, buf[start:front+n+back]); err != nil {
				return err
			}
		}
		if isEOF(err) {
			break
		}
	}
	end, err := appendTrailer(append(buf[:0], "0\r\n"...), u.trailer)
	if err != nil {
		u.bodyErr = true
		return err
	}
	return u.write(c, end)
}

func appendTrailer(b []byte, trailer http.Header) ([]byte, error) {
	for k, vv := range trailer {
		for _, v := range vv {
			if !httpguts.ValidHeaderFieldName(k) || isFraming(k) || !httpguts.ValidHeaderFieldValue(v) {
				return nil, fmt.Errorf("bad request trailer field %.40q", k)
			}
			b = append(append(append(b, k...), ": "...), textproto.TrimString(v)...)
			b = append(b, "\r\n"...)
		}
	}
	return append(b, "\r\n"...), nil
}

// waitsSince returns since when only the origin is waited for: the end of the
// upload, the beginning of a write that lasts, or now.
func (u *upload) waitsSince(now time.Time) time.Time {
	if at := u.origin.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return now
}

// wait reports whether the upload ends within d.
func (u *upload) wait(d time.Duration) bool {
	select {
	case <-u.done:
		return true
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-u.done:
		return true
	case <-timer.C:
		return false
	}
}

// abandon ends the upload after its connection has been closed. Closing the
// body ends the Read of a pipe; that of an HTTP/1 server waits for its Read,
// so it has a goroutine of its own, which ends with that Read.
func (u *upload) abandon() {
	select {
	case <-u.done:
	default:
		go u.close()
		u.wait(uploadGrace)
	}
}

// complete reports that the whole body was sent, waiting a little for its end.
func (u *upload) complete() bool { return u.wait(uploadSettle) && u.err == nil }

// cause returns what ended the upload, if it has ended: the stage and the error.
func (u *upload) cause() (op string, err error) {
	select {
	case <-u.done:
	default:
		return "", nil
	}
	switch {
	case u.err == nil:
		return "", nil
	case u.bodyErr:
		return OpBody, u.err
	}
	return OpWrite, u.err
}
