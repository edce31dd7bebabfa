package upstream

import (
	"io"
	"net/http"
	"sync"
)

type bodyMode uint8

const (
	byLength   bodyMode = iota // left bytes
	chunked                    // left bytes of the current chunk
	untilClose                 // whatever comes
)

// body is a response body. At its end the connection goes back to the pool;
// closed before, the connection is closed. Close may be called while a Read
// waits, and ends it.
type body struct {
	t     *Transport
	resp  *http.Response
	mode  bodyMode
	keep  bool // the origin keeps the connection open after this response
	left  int64
	chunk chunkState
	stop  func() bool // ends the watch on the context
	up    *upload     // or nil

	mu      sync.Mutex
	c       *conn // nil when the exchange is over
	reading bool  // a Read or WriteTo uses c
	closed  bool
	err     error // what the last Read returned, kept for the next
}

// Read reads from the body. The end of the request's context ends it.
func (b *body) Read(p []byte) (int, error) {
	if err := b.enter(); err != nil {
		return 0, err
	}
	n, err := b.read(p)
	return n, b.leave(err)
}

// WriteTo writes the rest of the body to w: what is in the connection's buffer
// without a copy, and the rest through a pooled buffer.
func (b *body) WriteTo(w io.Writer) (int64, error) {
	var total int64
	if b.mode == byLength {
		if err := b.enter(); err != nil {
			if isEOF(err) {
				err = nil
			}
			return 0, err
		}
		var err error
		if k := min(int64(b.c.buffered()), b.left); k > 0 {
			var n int
			n, err = w.Write(b.c.buf[b.c.r : b.c.r+int(k)])
			total = int64(n)
			b.c.r += n
			b.left -= total
		}
		if err != nil {
			_ = b.leave(nil)
			return total, err
		}
		if b.left == 0 {
			_ = b.leave(io.EOF)
			return total, nil
		}
		_ = b.leave(nil)
	}
	buf := b.t.copies.Get().(*[]byte)
	defer b.t.copies.Put(buf)
	n, err := copyBody(w, b, *buf)
	return total + n, err
}

// copyBody is io.CopyBuffer without the look for WriterTo.
func copyBody(w io.Writer, b *body, buf []byte) (total int64, err error) {
	for {
		n, rerr := b.Read(buf)
		if n > 0 {
			m, err := w.Write(buf[:n])
			total += int64(m)
			if err != nil {
				return total, err
			}
			if m < n {
				return total, io.ErrShortWrite
			}
		}
		if isEOF(rerr) {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

func (b *body) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return http.ErrBodyReadAfterClose
	case b.err != nil:
		return b.err
	}
	b.reading = true
	return nil
}

// leave ends what enter began and returns err as the caller is to see it. Any
// error ends the exchange.
func (b *body) leave(err error) error {
	b.mu.Lock()
	b.reading = false
	closed := b.closed
	c := b.c
	if err != nil || closed {
		b.c = nil
	} else {
		c = nil
	}
	if err != nil && !isEOF(err) {
		err = c.o.fail(b.resp.Request.Context(), OpRead, err)
	}
	b.err = err
	b.mu.Unlock()
	if c != nil {
		c.finish(b.stop, b.up, isEOF(err) && b.keep && !closed && c.buffered() == 0)
	}
	return err
}

func (b *body) read(p []byte) (int, error) {
	switch b.mode {
	case chunked:
		return b.readChunked(p)
	case untilClose:
		return b.c.readSome(p)
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.c.readSome(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil {
		return n, unexpected(err)
	}
	if b.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

// Close ends the exchange. The connection is kept when all of the body has come
// already.
func (b *body) Close() error {
	b.mu.Lock()
	if b.closed || b.c == nil {
		b.closed = true
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	c := b.c
	if b.reading { // leave does the rest
		b.mu.Unlock()
		c.cut()
		return nil
	}
	b.c = nil
	b.mu.Unlock()
	c.finish(b.stop, b.up, b.keep && b.mode == byLength && int64(c.buffered()) == b.left)
	return nil
}
