package upstream

import (
	"bytes"
	"errors"
	"fmt"
)

// maxFields bounds the number of fields in one header or trailer section.
const maxFields = 512

var (
	errTooLarge = errors.New("response header section is too large")
	errMany     = fmt.Errorf("response has more than %d header fields", maxFields)
	errFolded   = errors.New("response header has a folded line (RFC 9112, Section 5.2)")
)

// span and field hold offsets from the start of a section.
type span struct{ start, end int }

type field struct{ name, value span }

// readSection reads a header section, with the status line in front if status
// is set, or a trailer section, up to and including its empty line. It brings
// field names into canonical form in the buffer and leaves the offsets in first
// and fields. The section is c.buf[c.r : c.r+size]; the caller moves c.r on.
func (c *conn) readSection(status bool, limit int) (size int, err error) {
	c.fields = c.fields[:0]
	start, seen := 0, 0 // of the current line, and how far it was searched
	for {
		i := bytes.IndexByte(c.buf[c.r+seen:c.w], '\n')
		if i < 0 {
			seen = c.buffered()
			if seen >= limit {
				return 0, errTooLarge
			}
			if err := c.fill(); err != nil {
				return 0, unexpected(err)
			}
			continue
		}
		next := seen + i + 1
		if next > limit {
			return 0, errTooLarge
		}
		end := next - 1
		// RFC 9112, Section 2.2: a lone LF ends a line too; a lone CR is
		// refused with the other control characters.
		if end > start && c.buf[c.r+end-1] == '\r' {
			end--
		} else if !status {
			return 0, errChunk // in a chunked body CRLF is the rule
		}
		switch {
		case status && start == 0:
			c.first = span{0, end}
			if c.minor, c.code, err = parseStatus(c.buf[c.r : c.r+end]); err != nil {
				return 0, err
			}
		case end == start:
			return next, nil
		default:
			if len(c.fields) == maxFields {
				return 0, errMany
			}
			f, err := parseField(c.buf[c.r+start : c.r+end])
			if err != nil {
				return 0, err
			}
			c.fields = append(c.fields, f.shift(start))
		}
		start, seen = next, next
	}
}

func (f field) shift(n int) field {
	return field{span{f.name.start + n, f.name.end + n}, span{f.value.start + n, f.value.end + n}}
}

// parseField splits "name: value", makes the name canonical in place and
// refuses what RFC 9110, Section 5.5 and RFC 9112, Section 5 do.
func parseField(line []byte) (field, error) {
	if line[0] == ' ' || line[0] == '\t' {
		return field{}, errFolded
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !canonicalize(line[:colon]) {
		return field{}, fmt.Errorf("malformed response header line %.60q", line)
	}
	start, end := colon+1, len(line)
	for start < end && isBlank(line[start]) {
		start++
	}
	for end > start && isBlank(line[end-1]) {
		end--
	}
	if !validText(line[start:end]) {
		return field{}, fmt.Errorf("response header %s has a control character in its value", line[:colon])
	}
	return field{span{0, colon}, span{start, end}}, nil
}

// canonicalize writes a field name as net/textproto does (Content-Type) and
// reports whether it is a token.
func canonicalize(name []byte) bool {
	upper := true
	for i, b := range name {
		if !isToken(b) {
			return false
		}
		if upper && 'a' <= b && b <= 'z' {
			name[i] = b - ('a' - 'A')
		} else if !upper && 'A' <= b && b <= 'Z' {
			name[i] = b + ('a' - 'A')
		}
		upper = b == '-'
	}
	return true
}

// isToken reports a tchar of RFC 9110, Section 5.6.2.
func isToken(b byte) bool {
	const low = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' |
		(1<<10-1)<<'0'
	const high = 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64) |
		(1<<26-1)<<('a'-64) | (1<<26-1)<<('A'-64)
	switch {
	case b < 64:
		return uint64(low)>>b&1 != 0
	case b < 128:
		return uint64(high)>>(b-64)&1 != 0
	}
	return false
}

func isBlank(b byte) bool { return b == ' ' || b == '\t' }

// validText reports that p holds no control character but tab.
func validText(p []byte) bool {
	for _, b := range p {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// parseStatus reads a status line, "HTTP/1.1 200 OK" (RFC 9112, Section 4).
func parseStatus(line []byte) (minor, code int, err error) {
	bad := func() (int, int, error) { return 0, 0, fmt.Errorf("malformed status line %.60q", line) }
	const proto = "HTTP/1."
	if len(line) < len("HTTP/1.1 200") || string(line[:len(proto)]) != proto || line[8] != ' ' || !validText(line) {
		return bad()
	}
	minor = int(line[7] - '0')
	if line[7] != '0' && line[7] != '1' {
		return bad()
	}
	for _, d := range line[9:12] {
		if d < '0' || d > '9' {
			return bad()
		}
		code = code*10 + int(d-'0')
	}
	if code < 100 || len(line) > 12 && line[12] != ' ' {
		return bad()
	}
	return minor, code, nil
}

// parseLength reads a Content-Length value: digits only, below 2^63.
func parseLength(s string) (int64, error) {
	const limit = (1<<63 - 1) / 10
	var n int64
	if s == "" {
		return 0, errors.New("empty Content-Length")
	}
	for _, d := range []byte(s) {
		if d < '0' || d > '9' || n > limit {
			return 0, fmt.Errorf("bad Content-Length %.30q", s)
		}
		if n = n*10 + int64(d-'0'); n < 0 {
			return 0, fmt.Errorf("bad Content-Length %.30q", s)
		}
	}
	return n, nil
}
