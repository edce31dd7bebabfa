package edge

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// bodyRest is how long a client has for the rest of a body that was answered early; then its connection is closed.
const bodyRest = 2 * time.Second

// clientBody is the body of an HTTP/1 request as the origin's side reads it, on a goroutine that may outlast the answer.
// net/http closes the body itself after the handler.
type clientBody struct {
	mu    sync.Mutex // held while body is read
	body  io.Reader
	whole bool // read to its end
	over  bool // no more is read
}

// Read reads from the body until end is called.
func (b *clientBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.body.Read(p)
	b.whole = b.whole || err == io.EOF
	return n, err
}

// Close does nothing: net/http's Close waits for a Read under way, and then for the rest.
func (b *clientBody) Close() error { return nil }

// end waits until nobody reads, interrupting who does, and reports whether all of the body was read.
func (b *clientBody) end(client *http.ResponseController) (whole bool) {
	if !b.mu.TryLock() {
		_ = client.SetReadDeadline(time.Unix(1, 0)) // errors mean a wrapper
		b.mu.Lock()
		_ = client.SetReadDeadline(time.Time{})
	}
	defer b.mu.Unlock()
	b.over = true
	return b.whole
}

// endBody bounds the wait for a rest of the body that nobody reads: net/http takes it off the connection without a limit
// in time, before it sends a refusal even. It sets its own deadline for the next request, but also when it finds a Read
// under way, so there must be none.
func (x *exchange) endBody() {
	if x.r.ProtoMajor != 1 || x.r.ContentLength == 0 {
		return
	}
	client := http.NewResponseController(x.w)
	if x.body == nil || !x.body.end(client) {
		_ = client.SetReadDeadline(time.Now().Add(bodyRest)) // errors mean a wrapper
	}
}
