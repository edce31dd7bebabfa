package auditlog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// domain separates these hashes from every other use of SHA-256 and names the version of the encoding.
const domain = "sekisho audit v1\x00"

// Next returns the record of e in its place after prev; the zero Record is the place before the first. It makes e
// canonical first: time in UTC and whole microseconds, text valid UTF-8 without NUL, an empty Detail nil, so that what a
// store gives back hashes to the same.
func Next(prev Record, e Entry) Record {
	r := Record{Seq: prev.Seq + 1, Prev: prev.Hash, Entry: canonical(e)}
	r.Hash = Hash(r)
	return r
}

// Hash is the SHA-256 over Prev, Seq and the canonical encoding of the record's entry. It does not look at r.Hash.
//
//	domain ‖ prev (32) ‖ seq (8) ‖ at, µs (8) ‖ actor ‖ action ‖ object ‖ outcome ‖ pairs (8) ‖ key ‖ value ‖ …
//
// Numbers are big-endian; each text has its length before it (8); keys are in byte order.
func Hash(r Record) [32]byte {
	b := make([]byte, 0, 512)
	b = append(b, domain...)
	b = append(b, r.Prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(r.At.UnixMicro()))
	for _, text := range []string{r.Actor, r.Action, r.Object, r.Outcome} {
		b = appendText(b, text)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(len(r.Detail)))
	for _, key := range slices.Sorted(maps.Keys(r.Detail)) {
		b = appendText(appendText(b, key), r.Detail[key])
	}
	return sha256.Sum256(b)
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(len(text))), text...)
}

func canonical(e Entry) Entry {
	e.At = e.At.UTC().Truncate(time.Microsecond)
	e.Actor, e.Action, e.Object, e.Outcome = clean(e.Actor), clean(e.Action), clean(e.Object), clean(e.Outcome)
	if len(e.Detail) == 0 {
		e.Detail = nil
		return e
	}
	detail := make(map[string]string, len(e.Detail))
	for k, v := range e.Detail {
		detail[clean(k)] = clean(v)
	}
	e.Detail = detail
	return e
}

func clean(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// BreakError says where the chain does not hold.
type BreakError struct {
	Seq    int64  // the number that should have come and did not, or the record that was changed
	Reason string // what does not fit
}

// Error implements error.
func (e *BreakError) Error() string {
	return fmt.Sprintf("audit log: record %d: %s; the log was changed there or later", e.Seq, e.Reason)
}

// Verify checks records, which must begin with the first, and returns a *[BreakError] for the first that does not fit,
// or the error of the sequence. A log cut off at its end is a valid shorter log: compare its last hash with one that was
// kept elsewhere.
func Verify(records iter.Seq2[Record, error]) error {
	var last Record
	for r, err := range records {
		if err != nil {
			return err
		}
		switch {
		case r.Seq != last.Seq+1:
			return &BreakError{last.Seq + 1, fmt.Sprintf("missing; number %d follows number %d", r.Seq, last.Seq)}
		case r.Prev != last.Hash:
			return &BreakError{r.Seq, "it does not carry the hash of the record before it"}
		case r.Hash != Hash(r):
			return &BreakError{r.Seq, "its content does not have its hash"}
		}
		last = r
	}
	return nil
}
