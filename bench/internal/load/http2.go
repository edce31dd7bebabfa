package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/upstream"
)

// window is the flow-control window that we give; a connection's is topped up when half is used.
const window = 1 << 30

// http2Conn keeps one connection busy with one stream at a time.
type http2Conn struct {
	conn   net.Conn
	out    *bufio.Writer
	framer *http2.Framer
	block  []byte // the request's header block; it uses no dynamic entry, so it is good again and again
	stream uint32
	used   int // bytes of the connection's window
}

// newHTTP2 sends the preface and our settings.
func newHTTP2(conn net.Conn) (worker, error) {
	out := bufio.NewWriterSize(conn, 4096)
	h := &http2Conn{conn: conn, out: out, framer: http2.NewFramer(out, bufio.NewReaderSize(conn, 16<<10)), stream: 1}
	h.framer.SetReuseFrames()
	var err error
	if h.block, err = requestBlock(); err != nil {
		return nil, err
	}
	_, err = out.WriteString(http2.ClientPreface)
	return h, errors.Join(err,
		h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}, http2.Setting{ID: http2.SettingEnablePush, Val: 0}),
		h.framer.WriteWindowUpdate(0, window), out.Flush())
}

// requestBlock encodes the request without entries for the dynamic table. The first encoding begins with the change of
// that table's size, which the server need not hear of: it just never gets an entry.
func requestBlock() ([]byte, error) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSize(0)
	for range 2 {
		block.Reset()
		for _, f := range [][2]string{
			{":method", "GET"},
			{":scheme", "https"},
			{":authority", pki.Host},
			{":path", "/hello"},
			{"user-agent", "bench"},
			{"accept", "*/*"},
		} {
			if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				return nil, err
			}
		}
	}
	return block.Bytes(), nil
}

func (h *http2Conn) once() (bool, error) {
	id := h.stream
	h.stream += 2
	if err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.block, EndStream: true, EndHeaders: true}); err != nil {
		return false, err
	}
	if err := h.out.Flush(); err != nil {
		return false, err
	}
	body, ok := 0, false
	for {
		f, err := h.framer.ReadFrame()
		if err != nil {
			return false, err
		}
		if f.Header().StreamID == 0 {
			if err := h.connectionFrame(f); err != nil {
				return false, err
			}
			continue
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			ok = ok || isOK(f.HeaderBlockFragment())
		case *http2.DataFrame:
			body += len(f.Data())
			h.used += int(f.Length)
		case *http2.RSTStreamFrame:
			return false, fmt.Errorf("stream reset: %v", f.ErrCode)
		}
		if f.Header().Flags.Has(http2.FlagDataEndStream) && f.Header().Type <= http2.FrameHeaders {
			break
		}
	}
	if !ok || body != upstream.BodySize {
		return false, fmt.Errorf("status 200 is %v, body %d bytes, want %d", ok, body, upstream.BodySize)
	}
	return false, h.topUp()
}

// connectionFrame answers what concerns the connection.
func (h *http2Conn) connectionFrame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		return errors.Join(h.framer.WriteSettingsAck(), h.out.Flush())
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		return errors.Join(h.framer.WritePing(true, f.Data), h.out.Flush())
	case *http2.GoAwayFrame:
		return fmt.Errorf("the server said GOAWAY: %v %q", f.ErrCode, f.DebugData())
	}
	return nil
}

// topUp gives the connection's window back once half of it is used.
func (h *http2Conn) topUp() error {
	if h.used < window/2 {
		return nil
	}
	used := h.used
	h.used = 0
	return errors.Join(h.framer.WriteWindowUpdate(0, uint32(used)), h.out.Flush())
}

func (h *http2Conn) close() { h.conn.Close() }

// isOK reads the first field of a header block, which is :status; 200 is entry 8 of the static table (RFC 7541,
// Appendix A). A change of the dynamic table's size may come before it.
func isOK(block []byte) bool {
	for len(block) > 0 && block[0]&0xe0 == 0x20 {
		block = block[1:]
	}
	return len(block) > 0 && block[0] == 0x88
}
