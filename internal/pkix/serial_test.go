package pkix_test

import (
	"math/big"
	"strings"
	"testing"

	"sekisho/internal/pkix"
)

func TestInvariant09SerialsCompareAsIntegers(t *testing.T) {
	same := [][]string{
		{"ab", "AB", "00AB", "0x00ab", "00:ab", "00:00:AB", " ab\n", "0Xab"},
		{"28a07", "028a07", "02:8A:07", "0x28A07"},
		{"0", "00", "0x0", "00:00"},
		{"ff00", "FF:00", "00ff00"},
		{strings.Repeat("ff", pkix.MaxSerialBytes), "0x" + strings.Repeat("F", 2*pkix.MaxSerialBytes)},
	}
	seen := map[pkix.Serial]int{}
	for group, texts := range same {
		for _, text := range texts {
			s, err := pkix.ParseSerial(text)
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if before, ok := seen[s]; ok && before != group {
				t.Errorf("%q equals a serial of group %d", text, before)
			}
			seen[s] = group
			if other := pkix.SerialOf(s.Big()); other != s || other.Compare(s) != 0 {
				t.Errorf("%q: through big.Int it is %s", text, other)
			}
			if other := pkix.SerialFromBytes(append([]byte{0, 0}, s.Bytes()...)); other != s {
				t.Errorf("%q: through bytes it is %s", text, other)
			}
		}
	}
	if len(seen) != len(same) {
		t.Errorf("%d distinct serials, want %d", len(seen), len(same))
	}
}

func TestSerialText(t *testing.T) {
	for _, tt := range []struct{ in, lower, upper string }{
		{"28a07", "028a07", "028A07"},
		{"0", "00", "00"},
		{"00ff", "ff", "FF"},
		{"7B:0C", "7b0c", "7B0C"},
	} {
		s, err := pkix.ParseSerial(tt.in)
		if err != nil || s.String() != tt.lower || s.Upper() != tt.upper {
			t.Errorf("%q: %q and %q (%v), want %q and %q", tt.in, s.String(), s.Upper(), err, tt.lower, tt.upper)
		}
	}
	if !(pkix.Serial{}).IsZero() || !pkix.SerialOf(nil).IsZero() || pkix.SerialOf(big.NewInt(7)).IsZero() {
		t.Error("IsZero")
	}
	small, large := pkix.SerialOf(big.NewInt(0xff)), pkix.SerialOf(big.NewInt(0x100))
	if small.Compare(large) != -1 || large.Compare(small) != 1 {
		t.Error("ff must sort before 100")
	}
}

func TestParseSerialErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "empty"},
		{"  ", "empty"},
		{"0x", "empty"},
		{"12g4", "character 3"},
		{" 0x12-4", "character 6"},
		{":12", "colon at character 1"},
		{"12:", "colon at character 3"},
		{"12::34", "colon at character 4"},
		{"-5", "character 1"},
		{strings.Repeat("f", 2*pkix.MaxSerialBytes+2), "41 octets"},
		{strings.Repeat("0", 1000), "1000 characters"},
	} {
		if s, err := pkix.ParseSerial(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.20q: %v, %v; want an error with %q", tt.in, s, err, tt.want)
		}
	}
}

func FuzzParseSerial(f *testing.F) {
	for _, seed := range []string{"00AB", "ab", "02:8a:07", "0x1", "", ":", "0x", "zz", " 1 ", strings.Repeat("f", 81)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := pkix.ParseSerial(text)
		if err != nil {
			return
		}
		again, err := pkix.ParseSerial(s.Upper())
		if err != nil || again != s || pkix.SerialOf(s.Big()) != s || len(s.Bytes()) > pkix.MaxSerialBytes {
			t.Errorf("%q: %s, then %s (%v)", text, s, again, err)
		}
	})
}
