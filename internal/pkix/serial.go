package pkix

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// MaxSerialBytes is the longest serial number ParseSerial takes, in octets.
// RFC 5280, Section 4.1.2.2 allows 20; certificates with twice that exist.
const MaxSerialBytes = 40

// maxSerialText bounds the text of a serial number before any work: 40 octets
// with colons, generous leading zeros and blanks.
const maxSerialText = 256

// Serial is a certificate's serial number as an unsigned integer. It is
// comparable and may be a map key: two spellings of one number, whatever their
// leading zeros, case or colons, are the same Serial. The zero Serial is the
// number 0.
type Serial struct {
	mag string // big-endian magnitude without leading zero octets; "" is zero
}

// SerialOf is n as a Serial; nil is zero. The sign is ignored: crypto/x509
// refuses certificates with negative serial numbers before they get here.
func SerialOf(n *big.Int) Serial {
	if n == nil {
		return Serial{}
	}
	return Serial{string(n.Bytes())}
}

// SerialFromBytes reads b as a big-endian unsigned integer of any length.
func SerialFromBytes(b []byte) Serial {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return Serial{string(b)}
}

// ParseSerial reads hexadecimal in either case, with or without a 0x prefix,
// leading zeros, or colons between whole octets, as openssl, nginx, browsers
// and Cloudflare print it. Blanks around it are ignored. A number above
// MaxSerialBytes octets is refused.
func ParseSerial(text string) (Serial, error) {
	if len(text) > maxSerialText {
		return Serial{}, fmt.Errorf("serial number has %d characters; at most %d are read", len(text), maxSerialText)
	}
	trimmed := strings.TrimSpace(text)
	digits := trimmed
	if len(digits) >= 2 && digits[0] == '0' && digits[1]|0x20 == 'x' {
		digits = digits[2:]
	}
	if digits == "" {
		return Serial{}, errors.New("serial number is empty; write it in hexadecimal")
	}
	plain := make([]byte, 0, len(digits)+1)
	offset := strings.Index(text, trimmed) + len(trimmed) - len(digits)
	for i := range len(digits) {
		c := digits[i]
		switch {
		case isHex(c):
			plain = append(plain, c)
		case c == ':' && i > 0 && i < len(digits)-1 && digits[i-1] != ':':
		case c == ':':
			return Serial{}, fmt.Errorf("serial number %q: misplaced colon at character %d", text, offset+i+1)
		default:
			return Serial{}, fmt.Errorf("serial number %q: character %d is not a hexadecimal digit", text, offset+i+1)
		}
	}
	if len(plain)%2 == 1 {
		plain = append([]byte{'0'}, plain...)
	}
	raw := make([]byte, len(plain)/2)
	if _, err := hex.Decode(raw, plain); err != nil {
		return Serial{}, fmt.Errorf("serial number %q: %w", text, err)
	}
	s := SerialFromBytes(raw)
	if len(s.mag) > MaxSerialBytes {
		return Serial{}, fmt.Errorf("serial number has %d octets; at most %d are allowed", len(s.mag), MaxSerialBytes)
	}
	return s, nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// Big is the serial number as a new big.Int.
func (s Serial) Big() *big.Int { return new(big.Int).SetBytes([]byte(s.mag)) }

// Bytes is the minimal big-endian magnitude, unsigned; zero is one 00 octet.
func (s Serial) Bytes() []byte {
	if s.mag == "" {
		return []byte{0}
	}
	return []byte(s.mag)
}

// String is lower-case hexadecimal in whole octets: "028a07", never "28a07".
// This is the spelling of the Cloudflare API.
func (s Serial) String() string { return hex.EncodeToString(s.Bytes()) }

// Upper is String in upper case, the spelling of headers and rules fields.
func (s Serial) Upper() string { return strings.ToUpper(s.String()) }

// IsZero reports whether the number is 0, which RFC 5280 forbids for a
// certificate and which is the Go zero value.
func (s Serial) IsZero() bool { return s.mag == "" }

// Compare orders serial numbers as integers: -1, 0 or +1.
func (s Serial) Compare(t Serial) int {
	if c := cmp.Compare(len(s.mag), len(t.mag)); c != 0 {
		return c
	}
	return strings.Compare(s.mag, t.mag)
}

// appendDER appends the DER INTEGER.
func (s Serial) appendDER(b []byte) []byte {
	if s.mag == "" || s.mag[0] >= 0x80 {
		b = appendHeader(b, 0x02, len(s.mag)+1)
		b = append(b, 0)
	} else {
		b = appendHeader(b, 0x02, len(s.mag))
	}
	return append(b, s.mag...)
}
