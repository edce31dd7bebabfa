package crlset_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/crlset"
	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// realSet is the member crl-set of a CRX3 file: "Cr24", the version 3, the
// length of a header, all little-endian, and after it a ZIP archive.
func realSet(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("SEKISHO_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	crx, err := os.ReadFile(filepath.Join(dir, "crlset", name))
	if err != nil {
		t.Skipf("no real CRLSet at hand (SEKISHO_DATA names the folder): %v", err)
	}
	archive := crx[12+binary.LittleEndian.Uint32(crx[8:]):]
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open("crl-set")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRealSets(t *testing.T) {
	for _, tt := range []struct {
		name                                           string
		sequence, notAfter                             int64
		parents, serials, blocked, known, blockedKnown int
	}{
		{"crlset-6376.crx", 6376, 1611561572, 188, 928, 28, 0, 1},
		{"crlset-9941.crx", 9941, 1754300059, 184, 850, 34, 0, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := realSet(t, tt.name)
			set, err := crlset.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if set.Sequence != tt.sequence || set.NotAfter.Unix() != tt.notAfter || set.NumParents() != tt.parents || set.NumSerials() != tt.serials ||
				len(set.BlockedSPKIs) != tt.blocked || len(set.BlockedInterceptionSPKIs) != tt.blockedKnown {
				t.Errorf("%+v, %d parents, %d serials", set.Header, set.NumParents(), set.NumSerials())
			}
			for _, key := range slices.Concat(set.BlockedSPKIs, set.BlockedInterceptionSPKIs) {
				if !set.Blocked(key) || set.Blocked(pkix.KeyID(bytes.Repeat([]byte{key[0]}, 32))) {
					t.Errorf("%s is not blocked, or something else is", key)
				}
			}
			checkLookups(t, set)
			if !bytes.Equal(set.Append([]byte("x")), append([]byte("x"), raw...)) {
				t.Error("appended, it is another set")
			}
			again, err := crlset.New(set.Header, parentsOf(set))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(set.Header, again.Header); diff != "" {
				t.Error(diff)
			}
			// Chromium's order is ours, so what follows the header is the same octet for octet.
			if !bytes.Equal(body(raw), body(again.Append(nil))) {
				t.Error("made anew, the lists are others")
			}
		})
	}
}

func body(raw []byte) []byte { return raw[2+binary.LittleEndian.Uint16(raw):] }

func parentsOf(set *crlset.Set) map[pkix.KeyID][]pkix.Serial {
	parents := map[pkix.KeyID][]pkix.Serial{}
	for parent, serials := range set.Parents() {
		parents[parent] = slices.Collect(serials)
	}
	return parents
}

// checkLookups asks for every serial number of a set, and for its neighbours, under every parent.
func checkLookups(t *testing.T, set *crlset.Set) {
	t.Helper()
	n := 0
	for parent, serials := range set.Parents() {
		in := map[pkix.Serial]bool{}
		for serial := range serials {
			in[serial] = true
			n++
		}
		for serial := range in {
			for _, delta := range []int64{-1, 0, 1} {
				near := pkix.SerialOf(new(big.Int).Add(serial.Big(), big.NewInt(delta)))
				if revoked, covered := set.Lookup(parent, near); !covered || revoked != in[near] {
					t.Errorf("%s under %s: revoked %v, covered %v", near, parent, revoked, covered)
				}
			}
		}
		parent[31] ^= 1
		if revoked, covered := set.Lookup(parent, pkix.SerialOf(big.NewInt(1))); revoked || covered {
			t.Errorf("%s, which is not in the set: revoked %v, covered %v", parent, revoked, covered)
		}
	}
	if n != set.NumSerials() {
		t.Errorf("%d serials, NumSerials says %d", n, set.NumSerials())
	}
}

// rawSet is a set of a header as written and parents as they are.
func rawSet(header string, parents ...[]byte) []byte {
	raw := append(binary.LittleEndian.AppendUint16(nil, uint16(len(header))), header...)
	return append(raw, bytes.Join(parents, nil)...)
}

// parent is one parent, named by a repeated octet.
func parent(key byte, count int, serials ...string) []byte {
	b := binary.LittleEndian.AppendUint32(bytes.Repeat([]byte{key}, 32), uint32(count))
	for _, s := range serials {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

const plain = `{"Version":0,"ContentType":"CRLSet","Sequence":1}`

func header(more string) string { return plain[:len(plain)-1] + "," + more + "}" }

func hash(key byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{key}, 32)) }

// brokenSets names what is wrong in a set, and the words of its error.
func brokenSets() map[string]struct {
	raw  []byte
	want string
} {
	type broken = struct {
		raw  []byte
		want string
	}
	return map[string]broken{
		"empty":                  {nil, "before the header"},
		"one octet":              {[]byte{1}, "before the header"},
		"header cut":             {rawSet(plain)[:20], "ends in the header"},
		"no header":              {rawSet(""), "not a JSON object"},
		"not JSON":               {rawSet("x"), "not a JSON object"},
		"an array":               {rawSet("[]"), "not a JSON object"},
		"null":                   {rawSet("null"), "Version"},
		"two objects":            {rawSet(plain + plain), "not a JSON object"},
		"deep":                   {rawSet(header(`"x":` + strings.Repeat("[", 60000))), "not a JSON object"},
		"two commas":             {rawSet(`{"Version":0,,}`), "not a JSON object"},
		"a comma alone":          {rawSet(`{,}`), "not a JSON object"},
		"a comma in a list":      {rawSet(header(`"BlockedSPKIs":[,]`)), "not a JSON object"},
		"Version 1":              {rawSet(strings.Replace(plain, "0", "1", 1)), "Version is not 0"},
		"no Version":             {rawSet(`{"ContentType":"CRLSet","Sequence":1}`), "Version is not 0"},
		"Version in other case":  {rawSet(`{"version":0,"ContentType":"CRLSet","Sequence":1}`), "Version is not 0"},
		"a delta":                {rawSet(`{"Version":0,"ContentType":"CRLSetDelta","Sequence":2,"DeltaFrom":1}`), "delta"},
		"another type":           {rawSet(`{"Version":0,"ContentType":"X","Sequence":2}`), "ContentType"},
		"no Sequence":            {rawSet(`{"Version":0,"ContentType":"CRLSet"}`), "Sequence"},
		"Sequence -1":            {rawSet(`{"Version":0,"ContentType":"CRLSet","Sequence":-1}`), "Sequence"},
		"Sequence of 2^64":       {rawSet(`{"Version":0,"ContentType":"CRLSet","Sequence":18446744073709551616}`), "Sequence"},
		"Sequence a text":        {rawSet(`{"Version":0,"ContentType":"CRLSet","Sequence":"1"}`), "Sequence"},
		"NotAfter -1":            {rawSet(header(`"NotAfter":-1`)), "NotAfter"},
		"NotAfter far":           {rawSet(header(`"NotAfter":9223372036854775807`)), "NotAfter"},
		"hash of 31":             {rawSet(header(`"BlockedSPKIs":["` + base64.StdEncoding.EncodeToString(make([]byte, 31)) + `"]`)), "BlockedSPKIs"},
		"hash no base64":         {rawSet(header(`"BlockedInterceptionSPKIs":["!"]`)), "BlockedInterceptionSPKIs"},
		"subject no hash":        {rawSet(header(`"LimitedSubjects":{"x":[]}`)), "LimitedSubjects"},
		"subject's key no hash":  {rawSet(header(`"LimitedSubjects":{"` + hash(1) + `":["x"]}`)), "LimitedSubjects"},
		"list a text":            {rawSet(header(`"BlockedSPKIs":"x"`)), "BlockedSPKIs"},
		"one octet after":        {rawSet(plain, []byte{1}), "parent 1: it is cut short"},
		"parent cut":             {rawSet(plain, parent(1, 0)[:35]), "parent 1: it is cut short"},
		"count too high":         {rawSet(plain, parent(1, 3, "a", "b")), "which are not there"},
		"count 2^32-1":           {rawSet(plain, parent(1, 1<<32-1, "a", "b")), "which are not there"},
		"serial cut":             {rawSet(plain, parent(1, 1, "abc")[:38]), "cut short"},
		"serial length missing":  {rawSet(plain, parent(1, 2, "abcd")), "cut short"},
		"serial empty":           {rawSet(plain, parent(1, 1, "", "x")), "empty"},
		"after the last serial":  {rawSet(plain, parent(1, 1, "a"), []byte("more")), "parent 2: it is cut short"},
		"parent twice":           {rawSet(plain, parent(1, 1, "a"), parent(2, 0), parent(1, 1, "b")), "comes twice"},
		"cut between parents":    {rawSet(header(`"NumParents":2`), parent(1, 1, "a")), "it has 1 parents, and says 2"},
		"more parents than said": {rawSet(header(`"NumParents":0`), parent(1, 1, "a")), "it has 1 parents, and says 0"},
		"second parent is short": {rawSet(plain, parent(1, 1, "a"), parent(2, 0)[:34]), "parent 2"},
	}
}

func TestInvariant13Malformed(t *testing.T) {
	for name, tt := range brokenSets() {
		set, err := crlset.Parse(tt.raw)
		if set != nil || !errors.Is(err, crlset.ErrMalformed) || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 500 {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
	if _, err := crlset.Parse(make([]byte, crlset.MaxBytes+1)); !errors.Is(err, crlset.ErrMalformed) || !strings.Contains(err.Error(), "at most") {
		t.Errorf("huge: %v", err)
	}
	many := rawSet(plain)
	for i := range crlset.MaxParents + 1 {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i)))
		many = append(append(many, sum[:]...), 0, 0, 0, 0)
	}
	if _, err := crlset.Parse(many); err == nil || !strings.Contains(err.Error(), "more than 65536") {
		t.Errorf("parents: %v", err)
	}
	if _, err := crlset.Parse(many[:len(many)-36]); err != nil {
		t.Errorf("as many parents as may be: %v", err)
	}
	serials := append(rawSet(plain, parent(1, crlset.MaxSerials+1)), bytes.Repeat([]byte{1, 7}, crlset.MaxSerials+1)...)
	if _, err := crlset.Parse(serials); err == nil || !strings.Contains(err.Error(), "more than 16777216") {
		t.Errorf("serials: %v", err)
	}
}

// TestTolerated: what Chromium takes and JSON does not, and other oddities.
func TestTolerated(t *testing.T) {
	for name, text := range map[string]string{
		"trailing comma":     plain[:len(plain)-1] + ",}",
		"with white space":   plain[:len(plain)-1] + " , \n\t\r }",
		"in lists":           header(`"BlockedSPKIs":["` + hash(7) + `" , ],"LimitedSubjects":{"` + hash(1) + `":["` + hash(2) + `",],},`),
		"not in strings":     header(`"x":",]","y":"\",}","z":"\\",`),
		"unknown keys":       header(`"X":{"Y":[1,2,{}]}`),
		"null lists":         header(`"BlockedSPKIs":null,"KnownInterceptionSPKIs":null,"LimitedSubjects":null`),
		"DeltaFrom":          header(`"DeltaFrom":5`),
		"NumParents that is": header(`"NumParents":1`),
		"NotAfter 0":         header(`"NotAfter":0`),
	} {
		set, err := crlset.Parse(rawSet(text, parent(1, 1, "a")))
		if err != nil || set.Sequence != 1 || !set.NotAfter.IsZero() || set.Blocked(pkix.KeyID(bytes.Repeat([]byte{7}, 32))) != (name == "in lists") {
			t.Errorf("%s: %+v, %v", name, set, err)
		}
	}
}

// TestInvariant09SerialsAreIntegers: leading zeros, the high bit, zero, and lists that are not sorted.
func TestInvariant09SerialsAreIntegers(t *testing.T) {
	set, err := crlset.Parse(rawSet(plain, parent(1, 7, "\x80", "\x00\x81", "\x00", "\x00\x00\x02", "z", "a", "a"), parent(2, 0)))
	if err != nil {
		t.Fatal(err)
	}
	one := pkix.KeyID(bytes.Repeat([]byte{1}, 32))
	for text, want := range map[string]bool{
		"80": true, "0080": true, "81": true, "0": true, "2": true, "000002": true, "61": true, "7a": true,
		"8000": false, "1": false, "62": false, "6161": false, "82": false,
	} {
		serial, err := pkix.ParseSerial(text)
		if err != nil {
			t.Fatal(err)
		}
		if revoked, covered := set.Lookup(one, serial); revoked != want || !covered {
			t.Errorf("%s: revoked %v, covered %v", text, revoked, covered)
		}
	}
	if revoked, covered := set.Lookup(pkix.KeyID(bytes.Repeat([]byte{2}, 32)), pkix.Serial{}); revoked || !covered {
		t.Error("a parent without serial numbers does not cover")
	}
	checkLookups(t, set)
}

func TestKeysAndSubjects(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t)
	allowed, blocked, intercepting, known := pkix.KeyIDOf(ca.Cert), pkix.KeyID{1}, pkix.KeyID{2}, pkix.KeyID{3}
	notAfter := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	leaf := ca.Client("x")
	set, err := crlset.New(crlset.Header{
		Sequence: 7, NotAfter: notAfter, BlockedSPKIs: []pkix.KeyID{{9}, blocked}, BlockedInterceptionSPKIs: []pkix.KeyID{intercepting},
		KnownInterceptionSPKIs: []pkix.KeyID{known},
		LimitedSubjects:        map[[32]byte][]pkix.KeyID{sha256.Sum256(ca.Cert.RawSubject): {allowed}, sha256.Sum256(leaf.Cert.RawSubject): nil},
	}, map[pkix.KeyID][]pkix.Serial{allowed: {pkix.SerialOf(leaf.Cert.SerialNumber), pkix.SerialOf(leaf.Cert.SerialNumber)}})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[pkix.KeyID]bool{blocked: true, intercepting: true, {9}: true, known: false, allowed: false} {
		if set.Blocked(key) != want {
			t.Errorf("%s: blocked is not %v", key, want)
		}
	}
	if set.SubjectBlocked(ca.Cert.RawSubject, allowed) || !set.SubjectBlocked(other.Cert.RawSubject, pkix.KeyIDOf(other.Cert)) {
		t.Error("the subject is not limited to its key")
	}
	if !set.SubjectBlocked(leaf.Cert.RawSubject, pkix.KeyIDOf(leaf.Cert)) || set.SubjectBlocked([]byte("another"), allowed) {
		t.Error("a subject without keys is not blocked, or one that is not listed is")
	}
	if set.Expired(notAfter) || !set.Expired(notAfter.Add(time.Second)) || new(crlset.Set).Expired(notAfter) {
		t.Error("it expires at another time")
	}
	id := pkix.CertIDOf(leaf.Cert, ca.Cert)
	if revoked, covered := set.Lookup(id.Issuer, id.Serial); !revoked || !covered || set.NumSerials() != 1 {
		t.Error("the leaf is not revoked once")
	}
}

func TestNewRefuses(t *testing.T) {
	keys := make([]pkix.KeyID, 1400)
	if _, err := crlset.New(crlset.Header{BlockedSPKIs: keys}, nil); err == nil || !strings.Contains(err.Error(), "block fewer keys") {
		t.Errorf("1400 blocked keys: %v", err)
	}
	if _, err := crlset.New(crlset.Header{BlockedSPKIs: keys[:1380]}, nil); err != nil {
		t.Errorf("1380 blocked keys: %v", err)
	}
	long := map[pkix.KeyID][]pkix.Serial{{}: {pkix.SerialFromBytes(bytes.Repeat([]byte{1}, 256))}}
	if _, err := crlset.New(crlset.Header{}, long); err == nil || !strings.Contains(err.Error(), "256 octets") {
		t.Errorf("a long serial: %v", err)
	}
	if _, err := crlset.New(crlset.Header{Sequence: -1}, nil); err == nil {
		t.Error("a negative Sequence is taken")
	}
}

// TestInvariant13Memory: a million serial numbers, in no order, cost their octets and less than 5 more each.
func TestInvariant13Memory(t *testing.T) {
	const n = 1 << 20
	b := binary.LittleEndian.AppendUint32(bytes.Repeat([]byte{1}, 32), n)
	for i := range n {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i)))
		b = append(append(b, 16), sum[:16]...)
	}
	raw := rawSet(plain, b)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	set, err := crlset.Parse(raw)
	took := time.Since(begin)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 5*n {
		t.Errorf("%d bytes for %d serial numbers", grown, n)
	}
	if took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint32(nil, 5))
	if revoked, covered := set.Lookup(pkix.KeyID(bytes.Repeat([]byte{1}, 32)), pkix.SerialFromBytes(sum[:16])); !revoked || !covered {
		t.Error("a serial number is not found")
	}
	t.Logf("%d serial numbers read and sorted in %v", n, took)
}

func FuzzParse(f *testing.F) {
	for _, tt := range brokenSets() {
		if len(tt.raw) < 1000 {
			f.Add(tt.raw)
		}
	}
	f.Add(rawSet(plain, parent(1, 3, "\x80", "\x00\x81", "a"), parent(2, 0)))
	f.Add(rawSet(header(`"BlockedSPKIs":["`+hash(7)+`",],"LimitedSubjects":{"`+hash(1)+`":[]},"NotAfter":5,`), parent(1, 1, "a")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		set, err := crlset.Parse(raw)
		if err != nil {
			if !errors.Is(err, crlset.ErrMalformed) || len(err.Error()) > 1000 {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		checkLookups(t, set)
		again, err := crlset.New(set.Header, parentsOf(set))
		if err != nil {
			if strings.Contains(err.Error(), "block fewer keys") {
				return // a header that is longer in our spelling
			}
			t.Fatal(err)
		}
		if diff := cmp.Diff(normal(set), normal(again)); diff != "" {
			t.Error(diff)
		}
	})
}

// normal is what two spellings of one set share.
func normal(set *crlset.Set) string {
	text := fmt.Sprintf("%+v", set.Header)
	parents := parentsOf(set)
	for key, serials := range parents {
		parents[key] = slices.Compact(serials)
	}
	return text + fmt.Sprint(parents)
}

func BenchmarkLookup(b *testing.B) {
	set, err := crlset.Parse(realSet(b, "crlset-9941.crx"))
	if err != nil {
		b.Fatal(err)
	}
	var parent pkix.KeyID
	var serial pkix.Serial
	for p, serials := range set.Parents() {
		for s := range serials {
			parent, serial = p, s
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		set.Lookup(parent, serial)
	}
}
