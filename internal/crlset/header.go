package crlset

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"sekisho/internal/pkix"
)

// wireHeader is the header as JSON, in the order that Chromium's tools write it.
type wireHeader struct {
	Version                  int
	ContentType              string
	Sequence                 int64
	DeltaFrom                int64
	NumParents               int
	BlockedSPKIs             []string
	LimitedSubjects          map[string][]string
	KnownInterceptionSPKIs   []string
	BlockedInterceptionSPKIs []string
	NotAfter                 int64 `json:",omitempty"` // seconds since 1970
}

// parseHeader reads the header. Keys are compared with their case, which
// decoding into a struct would not do.
// parents is how many parents it promises, -1 when it does not say.
func (h *Header) parseHeader(text []byte) (parents int, err error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(withoutTrailingCommas(text), &keys); err != nil {
		return 0, fmt.Errorf("not a JSON object: %w", err)
	}
	w := wireHeader{NumParents: -1}
	for _, field := range []struct {
		key string
		to  any
	}{
		{"Version", &w.Version},
		{"ContentType", &w.ContentType},
		{"Sequence", &w.Sequence},
		{"NumParents", &w.NumParents},
		{"BlockedSPKIs", &w.BlockedSPKIs},
		{"LimitedSubjects", &w.LimitedSubjects},
		{"KnownInterceptionSPKIs", &w.KnownInterceptionSPKIs},
		{"BlockedInterceptionSPKIs", &w.BlockedInterceptionSPKIs},
		{"NotAfter", &w.NotAfter},
	} {
		if value, ok := keys[field.key]; ok {
			if err := json.Unmarshal(value, field.to); err != nil {
				return 0, fmt.Errorf("%s: %w", field.key, err)
			}
		}
	}
	switch {
	case keys["Version"] == nil || w.Version != 0:
		return 0, errors.New("the Version is not 0")
	case w.ContentType == "CRLSetDelta":
		return 0, errors.New("it is a delta; only full sets are read")
	case w.ContentType != "CRLSet":
		return 0, fmt.Errorf("the ContentType is %.40q, not CRLSet", w.ContentType)
	case keys["Sequence"] == nil || w.Sequence < 0:
		return 0, errors.New("there is no Sequence of 0 or more")
	case w.NotAfter < 0 || w.NotAfter > math.MaxUint32*100: // year 15583: time.Time and its texts hold that
		return 0, fmt.Errorf("NotAfter is %d", w.NotAfter)
	}
	return w.NumParents, h.fromWire(w)
}

func (h *Header) fromWire(w wireHeader) error {
	h.Sequence = w.Sequence
	if w.NotAfter != 0 {
		h.NotAfter = time.Unix(w.NotAfter, 0).UTC()
	}
	for _, list := range []struct {
		key  string
		from []string
		to   *[]pkix.KeyID
	}{
		{"BlockedSPKIs", w.BlockedSPKIs, &h.BlockedSPKIs},
		{"KnownInterceptionSPKIs", w.KnownInterceptionSPKIs, &h.KnownInterceptionSPKIs},
		{"BlockedInterceptionSPKIs", w.BlockedInterceptionSPKIs, &h.BlockedInterceptionSPKIs},
	} {
		keys, err := parseHashes(list.from)
		if err != nil {
			return fmt.Errorf("%s: %w", list.key, err)
		}
		*list.to = keys
	}
	for subject, keys := range w.LimitedSubjects {
		hash, err := parseHash(subject)
		if err != nil {
			return fmt.Errorf("LimitedSubjects: %w", err)
		}
		allowed, err := parseHashes(keys)
		if err != nil {
			return fmt.Errorf("LimitedSubjects: %w", err)
		}
		if h.LimitedSubjects == nil {
			h.LimitedSubjects = map[[sha256.Size]byte][]pkix.KeyID{}
		}
		h.LimitedSubjects[hash] = allowed
	}
	return nil
}

func parseHashes(texts []string) ([]pkix.KeyID, error) {
	var keys []pkix.KeyID
	for _, text := range texts {
		key, err := parseHash(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// parseHash reads a SHA-256 in base64.
func parseHash(text string) (pkix.KeyID, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != sha256.Size {
		return pkix.KeyID{}, fmt.Errorf("%.60q is not a SHA-256 in base64", text)
	}
	return pkix.KeyID(b), nil
}

// withoutTrailingCommas takes out each comma that only white space separates
// from the bracket that closes its list, which JSON does not allow and
// Chromium does.
func withoutTrailingCommas(text []byte) []byte {
	out := make([]byte, 0, len(text))
	inString, comma := false, -1 // comma: where in out the last one is, if nothing but white space followed
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString:
			if c == '\\' && i+1 < len(text) {
				out = append(out, c)
				i++
				c = text[i]
			} else if c == '"' {
				inString = false
			}
		case c == ',':
			comma = len(out)
		case c == ' ', c == '\t', c == '\n', c == '\r':
		default:
			if (c == '}' || c == ']') && comma >= 0 && follows(out[:comma]) {
				out[comma] = ' '
			}
			comma, inString = -1, c == '"'
		}
		out = append(out, c)
	}
	return out
}

// follows reports whether a value ends here, so that a comma may follow it.
func follows(before []byte) bool {
	before = bytes.TrimRight(before, " \t\n\r")
	return len(before) > 0 && !bytes.ContainsRune([]byte(",[{:"), rune(before[len(before)-1]))
}

// appendTo appends the header with its length.
func (h Header) appendTo(b []byte, parents int) ([]byte, error) {
	w := wireHeader{
		ContentType: "CRLSet", Sequence: h.Sequence, NumParents: parents,
		BlockedSPKIs: formatHashes(h.BlockedSPKIs), LimitedSubjects: map[string][]string{},
		KnownInterceptionSPKIs: formatHashes(h.KnownInterceptionSPKIs), BlockedInterceptionSPKIs: formatHashes(h.BlockedInterceptionSPKIs),
	}
	for subject, keys := range h.LimitedSubjects {
		w.LimitedSubjects[base64.StdEncoding.EncodeToString(subject[:])] = formatHashes(keys)
	}
	if !h.NotAfter.IsZero() {
		w.NotAfter = h.NotAfter.Unix()
	}
	text, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("CRLSet: %w", err)
	}
	if len(text) > math.MaxUint16 {
		return nil, fmt.Errorf("CRLSet: a header of %d octets; at most %d: block fewer keys", len(text), math.MaxUint16)
	}
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(text))), text...), nil
}

func formatHashes(keys []pkix.KeyID) []string {
	texts := make([]string, 0, len(keys))
	for _, key := range keys {
		texts = append(texts, base64.StdEncoding.EncodeToString(key[:]))
	}
	return texts
}
