package journal

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
)

// How a name is written: most are UUIDs or 32 hexadecimal digits, which fit into 16 octets.
const (
	nameText = 0
	nameUUID = 1
	nameHex  = 2
)

// encoder appends values; the first that does not fit is kept in err.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("%w: "+format, append([]any{errRecord}, args...)...)
	}
}

func (e *encoder) unsigned(v uint64)  { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) signed(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) time(t time.Time)   { e.signed(t.UnixMicro()) }
func (e *encoder) octets(data []byte) { e.unsigned(uint64(len(data))); e.b = append(e.b, data...) }

func (e *encoder) text(s string) {
	if len(s) > MaxTextBytes {
		e.fail("a text of %d octets; at most %d are read", len(s), MaxTextBytes)
	}
	e.octets([]byte(s))
}

// name is an id.
func (e *encoder) name(s string) {
	var raw [16]byte
	_, err := hex.Decode(raw[:], []byte(compact(s)))
	switch {
	case err == nil && uuidText(raw) == s:
		e.b = append(append(e.b, nameUUID), raw[:]...)
	case err == nil && hex.EncodeToString(raw[:]) == s:
		e.b = append(append(e.b, nameHex), raw[:]...)
	default:
		e.b = append(e.b, nameText)
		e.text(s)
	}
}

// compact is a UUID without its dashes, any other text as it is, and 0 digits where neither can be meant.
func compact(s string) string {
	switch {
	case len(s) == 36:
		return s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	case len(s) == 32:
		return s
	}
	return ""
}

func uuidText(raw [16]byte) string {
	s := hex.EncodeToString(raw[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// decoder reads what encoder wrote and nothing else: numbers in their shortest form, names in their compact one. After
// the first error it yields zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{errRecord}, args...)...)
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail("it is cut off")
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) octet() byte {
	if b := d.take(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (d *decoder) hash() (h [32]byte) {
	copy(h[:], d.take(len(h)))
	return h
}

func (d *decoder) unsigned() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.fail("a number cannot be read")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) signed() int64 {
	v := d.unsigned()
	return int64(v>>1) ^ -int64(v&1)
}

func (d *decoder) time() time.Time { return time.UnixMicro(d.signed()).UTC() }

func (d *decoder) octets() []byte {
	n := d.unsigned()
	if n > MaxTextBytes {
		d.fail("a text of %d octets; at most %d are read", n, MaxTextBytes)
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) text() string { return string(d.octets()) }

func (d *decoder) name() string {
	switch form := d.octet(); form {
	case nameText:
		s := d.text()
		e := encoder{}
		if e.name(s); d.err == nil && e.b[0] != nameText {
			d.fail("a name is not in its short form")
		}
		return s
	case nameUUID:
		return d.uuid()
	case nameHex:
		return hex.EncodeToString(d.take(16))
	default:
		d.fail("form %d of a name is not known", form)
		return ""
	}
}

func (d *decoder) uuid() string {
	raw := d.take(16)
	if len(raw) != 16 {
		return ""
	}
	return uuidText([16]byte(raw))
}
