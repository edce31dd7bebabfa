package edge

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// appendFrame is an unfragmented WebSocket frame, written by the book (RFC 6455, Section 5.2).
func appendFrame(b []byte, opcode byte, masked bool, payload []byte) []byte {
	b = append(b, 0x80|opcode)
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = append(b, mask|126, byte(n>>8), byte(n))
	default:
		b = append(b, mask|127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	if masked {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, payload...)
}

func TestFramesFindBoundaries(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var wire []byte
		ends := map[int]bool{0: true}
		for range 1 + random.IntN(20) {
			size := []int{0, 1, 125, 126, 127, 65535, 65536, 70000}[random.IntN(8)]
			wire = appendFrame(wire, byte(1+random.IntN(2)), random.IntN(2) == 0, bytes.Repeat([]byte{0x81}, size))
			ends[len(wire)] = true
		}
		var f frames
		for at := 0; at < len(wire); {
			piece := wire[at:min(len(wire), at+1+random.IntN(1+random.IntN(70000)))]
			for len(piece) > 0 {
				n := f.next(piece)
				if n == 0 {
					t.Fatal("no progress")
				}
				at, piece = at+n, piece[n:]
				if f.boundary() != ends[at] {
					t.Fatalf("boundary at %d is %v, want %v", at, f.boundary(), ends[at])
				}
			}
		}
	}
}

func TestFramesSeeClose(t *testing.T) {
	var f frames
	for _, b := range appendFrame(appendFrame(nil, 1, false, []byte("x")), 8, false, []byte{0x03, 0xe8}) {
		f.next([]byte{b})
	}
	if !f.closed || !f.boundary() {
		t.Errorf("closed %v, boundary %v, want both", f.closed, f.boundary())
	}
}
