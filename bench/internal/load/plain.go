package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// WriteRequests keeps whole HTTP/1.1 requests for a run.
func WriteRequests(file string, requests [][]byte) error {
	var all []byte
	for _, r := range requests {
		all = append(binary.BigEndian.AppendUint32(all, uint32(len(r))), r...)
	}
	return os.WriteFile(file, all, 0o600)
}

// ReadRequests reads what WriteRequests wrote.
func ReadRequests(file string) ([][]byte, error) {
	all, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var requests [][]byte
	for len(all) > 0 {
		if len(all) < 4 || len(all)-4 < int(binary.BigEndian.Uint32(all)) {
			return nil, fmt.Errorf("%s is cut short", file)
		}
		n := int(binary.BigEndian.Uint32(all))
		requests = append(requests, all[4:4+n])
		all = all[4+n:]
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("%s holds no request", file)
	}
	return requests, nil
}

// Post is a POST over plain HTTP.
func Post(path, header string, body []byte) []byte {
	return append([]byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n", path, header, len(body))), body...)
}

// Get is a GET over plain HTTP.
func Get(path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

// plain sends requests over plain HTTP, one at a time, round and round. The connection is kept where the server keeps it.
type plain struct {
	addr     string
	requests [][]byte
	next     int
	mark     []byte // every answer has it
	conn     net.Conn
	buf      []byte
}

// marks are what the answers of a row must have: OCSP's "good" with the tag of thisUpdate behind it; a certificate in PEM.
func mark(row Row) []byte {
	switch row {
	case OCSPGet, OCSPNonce:
		return []byte("\x80\x00\x18\x0f")
	}
	return []byte("BEGIN CERTIFICATE")
}

// newPlain makes the workers of a row.
func newPlain(c Config, n int) ([]worker, error) {
	requests, err := ReadRequests(c.Requests)
	if err != nil {
		return nil, err
	}
	var workers []worker
	for i := range n {
		workers = append(workers, &plain{addr: c.Addr, requests: requests, next: i * len(requests) / n, mark: mark(c.Row), buf: make([]byte, 16<<10)})
	}
	return workers, nil
}

// Ask sends one request of a row and says what is wrong with its answer.
func Ask(addr string, row Row, request []byte) ([]byte, error) {
	p := &plain{addr: addr, requests: [][]byte{request}, mark: mark(row), buf: make([]byte, 16<<10)}
	defer p.close()
	return p.ask(request)
}

func (p *plain) once() (bool, error) {
	request := p.requests[p.next]
	p.next = (p.next + 1) % len(p.requests)
	_, err := p.ask(request)
	return false, err
}

// ask sends a request and returns the answer, header block and all; it is good until the next call.
func (p *plain) ask(request []byte) ([]byte, error) {
	if p.conn == nil {
		conn, err := net.DialTimeout("tcp", p.addr, 5*time.Second)
		if err != nil {
			return nil, err
		}
		// Bounds the whole run; a deadline for each request would cost a timer.
		if err := conn.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
			conn.Close()
			return nil, err
		}
		p.conn = conn
	}
	answer, kept, err := p.exchange(request)
	if err != nil || !kept {
		p.close()
	}
	switch {
	case err != nil:
		return nil, err
	case !bytes.HasPrefix(answer[len("HTTP/1.x"):], []byte(" 200")) || !bytes.Contains(answer, p.mark):
		return nil, fmt.Errorf("answered %.200q", answer)
	}
	return answer, nil
}

func (p *plain) exchange(request []byte) (answer []byte, kept bool, err error) {
	if _, err := p.conn.Write(request); err != nil {
		return nil, false, err
	}
	n := 0
	for {
		if n == len(p.buf) {
			return nil, false, fmt.Errorf("an answer over %d bytes", n)
		}
		m, err := p.conn.Read(p.buf[n:])
		n += m
		if err == nil || errors.Is(err, io.EOF) {
			if whole, kept := wholeAnswer(p.buf[:n]); whole {
				return p.buf[:n], kept && err == nil, nil
			}
		}
		if err != nil {
			return nil, false, fmt.Errorf("after %d bytes of the answer: %w", n, err)
		}
	}
}

// wholeAnswer reports whether an answer is there to its end, and whether the connection can be used again.
func wholeAnswer(b []byte) (whole, kept bool) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < len("HTTP/1.x 200") {
		return false, false
	}
	kept = b[len("HTTP/1.")] == '1'
	size := -1
	for line := range bytes.SplitSeq(b[:end], []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			size, _ = strconv.Atoi(string(value)) // 0: then the answer has not what it must have
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return bytes.HasSuffix(b, []byte("\r\n0\r\n\r\n")), kept
		case bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")):
			kept = false
		}
	}
	return size >= 0 && len(b) == end+4+size, kept
}

func (p *plain) close() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}
