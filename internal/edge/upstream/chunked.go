package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxChunkLine bounds a chunk-size line with its extensions. It is the smallest
// read buffer, so that a line never makes the buffer grow.
const maxChunkLine = readBufferSize

var errChunk = errors.New("malformed chunked coding")

// chunkState is where in the chunked coding a body is (RFC 9112, Section 7.1).
type chunkState struct {
	crlf   bool  // the CRLF after chunk data comes next
	last   bool  // the trailer section comes next
	excess int64 // bytes that were not data, beyond what is allowed for
}

// readChunked reads data of one or more chunks into p. It waits for the network
// only when it has no data to return.
func (b *body) readChunked(p []byte) (n int, err error) {
	for {
		if b.left == 0 {
			if n > 0 && !b.chunkReady() {
				return n, nil
			}
			if err := b.nextChunk(); err != nil {
				return n, err
			}
			continue
		}
		if len(p) == 0 || n > 0 && b.c.buffered() == 0 {
			return n, nil
		}
		m, err := b.c.readSome(p[:min(int64(len(p)), b.left)])
		n += m
		p = p[m:]
		if b.left -= int64(m); b.left == 0 && m > 0 {
			b.chunk.crlf = true
		}
		if err != nil {
			return n, unexpected(err)
		}
	}
}

// chunkReady reports that nextChunk will not wait for the network.
func (b *body) chunkReady() bool {
	p := b.c.buf[b.c.r:b.c.w]
	if b.chunk.last {
		return bytes.HasPrefix(p, []byte("\r\n"))
	}
	if b.chunk.crlf && len(p) >= 2 {
		p = p[2:]
	}
	return bytes.IndexByte(p, '\n') >= 0
}

// nextChunk reads up to the data of the next chunk and sets b.left; after the
// last one it reads the trailer and returns io.EOF. It does one step at a time,
// so that readChunked can stop in between.
func (b *body) nextChunk() error {
	if b.chunk.last {
		return b.readTrailer()
	}
	if b.chunk.crlf {
		for b.c.buffered() < 2 {
			if err := b.c.fill(); err != nil {
				return unexpected(err)
			}
		}
		if b.c.buf[b.c.r] != '\r' || b.c.buf[b.c.r+1] != '\n' {
			return errChunk
		}
		b.c.r += 2
		b.chunk.crlf = false
	}
	line, err := b.c.chunkLine()
	if err != nil {
		return err
	}
	size, err := chunkSize(line)
	if err != nil {
		return err
	}
	// As net/http does: small chunks are fine, 16 KiB of extensions and
	// framing beyond 16 bytes a chunk and twice the data are not.
	b.chunk.excess = max(b.chunk.excess+int64(len(line))+4-16-2*min(size, 1<<40), 0)
	if b.chunk.excess > 16<<10 {
		return errors.New("chunked coding has too much that is not data")
	}
	b.left, b.chunk.last = size, size == 0
	return nil
}

// chunkLine reads a line that ends in CRLF and returns it without, as part of
// the buffer.
func (c *conn) chunkLine() ([]byte, error) {
	seen := 0
	for {
		if i := bytes.IndexByte(c.buf[c.r+seen:c.w], '\n'); i >= 0 {
			line := c.buf[c.r : c.r+seen+i]
			n := len(line) - 1
			if n < 0 || line[n] != '\r' || bytes.IndexByte(line[:n], '\r') >= 0 {
				return nil, errChunk
			}
			c.r += seen + i + 1
			return line[:n], nil
		}
		if seen = c.buffered(); seen >= maxChunkLine {
			return nil, errChunk
		}
		if err := c.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
}

// chunkSize reads the hexadecimal size and ignores extensions after a
// semicolon.
func chunkSize(line []byte) (int64, error) {
	if i := bytes.IndexByte(line, ';'); i >= 0 {
		line = line[:i]
	}
	line = bytes.TrimRight(line, " \t")
	if len(line) == 0 || len(line) > 15 { // below 2^60
		return 0, errChunk
	}
	var n int64
	for _, d := range line {
		switch {
		case '0' <= d && d <= '9':
			d -= '0'
		case 'a' <= d && d <= 'f':
			d -= 'a' - 10
		case 'A' <= d && d <= 'F':
			d -= 'A' - 10
		default:
			return 0, errChunk
		}
		n = n<<4 | int64(d)
	}
	return n, nil
}

// readTrailer reads the trailer section into the response and returns io.EOF.
func (b *body) readTrailer() error {
	c := b.c
	size, err := c.readSection(false, c.o.t.cfg.MaxResponseHeaderBytes)
	if err != nil {
		return err
	}
	text := string(c.buf[c.r : c.r+size])
	c.r += size
	for _, f := range c.fields {
		key := text[f.name.start:f.name.end]
		if isFraming(key) {
			return fmt.Errorf("trailer section has %s", key)
		}
		if b.resp.Trailer == nil {
			b.resp.Trailer = make(http.Header, len(c.fields))
		}
		b.resp.Trailer[key] = append(b.resp.Trailer[key], text[f.value.start:f.value.end])
	}
	return io.EOF
}
