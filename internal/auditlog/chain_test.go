package auditlog

import (
	"encoding/hex"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func chain(n int) []Record {
	var records []Record
	var last Record
	for range n {
		last = Next(last, Entry{At: at, Actor: "ci", Action: "certificate.issue", Object: "id", Outcome: "done", Detail: map[string]string{"a": "b", "c": "d"}})
		records = append(records, last)
	}
	return records
}

func all(records []Record) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func TestVerify(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func([]Record) []Record
		broken int64 // 0: whole
	}{
		{"whole", func(r []Record) []Record { return r }, 0},
		{"empty", func([]Record) []Record { return nil }, 0},
		{"actor changed", func(r []Record) []Record { r[4].Actor = "root"; return r }, 5},
		{"time changed", func(r []Record) []Record { r[4].At = r[4].At.Add(time.Microsecond); return r }, 5},
		{"detail changed", func(r []Record) []Record { r[4].Detail = map[string]string{"a": "b", "c": "e"}; return r }, 5},
		{"detail dropped", func(r []Record) []Record { r[4].Detail = nil; return r }, 5},
		{"text moved between fields", func(r []Record) []Record { r[4].Actor, r[4].Action = "c", "icertificate.issue"; return r }, 5},
		{"first removed", func(r []Record) []Record { return r[1:] }, 1},
		{"one removed", func(r []Record) []Record { return slices.Delete(r, 4, 5) }, 5},
		{"two swapped", func(r []Record) []Record { r[4], r[5] = r[5], r[4]; return r }, 5},
		{"one doubled", func(r []Record) []Record { return slices.Insert(r, 5, r[4]) }, 6},
		{"rewritten with its own hash", func(r []Record) []Record {
			r[4].Actor = "root"
			r[4].Hash = Hash(r[4])
			return r
		}, 6},
		{"inserted and renumbered", func(r []Record) []Record {
			r = slices.Insert(r, 4, Next(r[3], Entry{Actor: "forger"}))
			r[5].Seq++
			return r[:6]
		}, 6},
	} {
		err := Verify(all(test.change(chain(10))))
		broken, ok := errors.AsType[*BreakError](err)
		if ok != (test.broken != 0) || ok && broken.Seq != test.broken {
			t.Errorf("%s: %v, want a break at %d", test.name, err, test.broken)
		}
	}
	fault := errors.New("fault")
	if err := Verify(func(yield func(Record, error) bool) { yield(Record{}, fault) }); !errors.Is(err, fault) {
		t.Errorf("the sequence's error: %v", err)
	}
}

// TestHash pins the encoding: logs that exist must verify for ever.
func TestHash(t *testing.T) {
	r := Next(Record{Seq: 41, Hash: [32]byte{1}}, Entry{At: at, Actor: "ci", Action: "a", Object: "o", Outcome: "done", Detail: map[string]string{"z": "1", "a": "2"}})
	const want = "b6d6ba8dfc9db13c967074aecadcf40b80d5d2dc0bce3298b78aa448e75c9f98"
	if got := hex.EncodeToString(r.Hash[:]); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
	if r.Seq != 42 || r.Prev != [32]byte{1} || !r.At.Equal(at.Truncate(time.Microsecond)) {
		t.Errorf("record %+v", r)
	}
}

func TestNextDoesNotChangeItsInput(t *testing.T) {
	detail := map[string]string{"k\x00": "v\xff"}
	r := Next(Record{}, Entry{Detail: detail})
	if detail["k\x00"] != "v\xff" || r.Detail["k\uFFFD"] != "v\uFFFD" {
		t.Errorf("input %q, record %q", detail, r.Detail)
	}
}
