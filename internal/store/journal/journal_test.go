package journal_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
	"sekisho/internal/store/journal"
)

func signer() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

// compareSerials lets cmp look at serial numbers.
func compareSerials() cmp.Option {
	return cmp.Comparer(func(a, b pkix.Serial) bool { return a == b })
}

func create(t testing.TB) (*journal.File, journal.Config) {
	t.Helper()
	cfg := journal.Config{Path: filepath.Join(t.TempDir(), "revocations.log"), Signer: signer()}
	f, err := journal.Create(cfg, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, cfg
}

func reopen(t testing.TB, cfg journal.Config) *journal.File {
	t.Helper()
	f, err := journal.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func commit(t testing.TB, f *journal.File, records ...journal.Record) {
	t.Helper()
	p, err := f.Prepare(records)
	if err == nil {
		err = f.Write(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Keep(p)
}

// text is a random name, of every form that ids have.
func text(r *rand.Rand) string {
	raw := make([]byte, 16)
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	switch r.IntN(6) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("%x", raw)
	case 2:
		return fmt.Sprintf("%X", raw)
	case 3:
		return fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
	case 4:
		return fmt.Sprintf("%x+%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
	}
	return string(raw[:r.IntN(16)])
}

func moment(r *rand.Rand) time.Time {
	if r.IntN(4) == 0 {
		return time.Time{}
	}
	return time.UnixMicro(r.Int64N(1<<54) - 1<<50).UTC()
}

func hash(r *rand.Rand) (h [32]byte) {
	for i := range h {
		h[i] = byte(r.Uint32())
	}
	return h
}

func randomRecord(r *rand.Rand) journal.Record {
	switch r.IntN(8) {
	case 0:
		return journal.Record{CA: &ca.CARecord{
			ID: fmt.Sprintf("%032x", r.Uint64()), Name: "issuing", Parent: "p", KeyName: "k", DER: make([]byte, 1+r.IntN(2000)), CreatedOn: moment(r), Shards: r.IntN(128),
		}}
	case 1:
		return journal.Record{Number: &journal.Number{CAID: text(r), Shard: r.IntN(130) - 2, Number: r.Int64()}}
	case 2:
		return journal.Record{Epoch: &journal.Epoch{Reason: text(r)}}
	}
	h := hash(r)
	s := &journal.State{Certificate: ca.Certificate{
		ID: text(r), ZoneID: text(r), CAID: text(r), Profile: "client", IssuerKey: hash(r), Serial: pkix.SerialFromBytes(h[:r.IntN(21)]),
		Shard: r.IntN(128), KeyHash: hash(r), Fingerprint: hash(r), CommonName: text(r), NotBefore: moment(r), NotAfter: moment(r),
		IssuedOn: moment(r), ValidDays: r.IntN(4000), Status: ca.Active, Reason: pkix.Reason(r.IntN(11)), RevokedAt: moment(r),
		InvalidityDate: moment(r), CRLNumber: r.Int64(),
	}}
	if r.IntN(2) == 0 {
		s.Certificate.Status = ca.Revoked
	}
	if r.IntN(3) == 0 {
		s.Blocked, s.BlockedOn = true, moment(r)
	}
	return journal.Record{State: s}
}

// TestRoundTrip: what was written in any blocks is what is read, in order, with numbers that have no gap.
func TestRoundTrip(t *testing.T) {
	f, cfg := create(t)
	r := rand.New(rand.NewPCG(1, 2))
	var want []journal.Record
	for range 100 {
		block := make([]journal.Record, 1+r.IntN(40))
		for i := range block {
			block[i] = randomRecord(r)
		}
		commit(t, f, block...)
		want = append(want, block...)
	}
	again := reopen(t, cfg)
	var got []journal.Record
	for b, err := range again.Blocks() {
		if err != nil {
			t.Fatal(err)
		}
		if b.First != uint64(len(got))+1 {
			t.Errorf("a block begins with record %d behind %d records", b.First, len(got))
		}
		got = append(got, b.Records...)
	}
	if diff := cmp.Diff(want, got, compareSerials()); diff != "" {
		t.Error(diff)
	}
	if again.Head() != f.Head() || again.ID() != f.ID() || again.Epoch() != 3 {
		t.Errorf("head %+v, id %x, epoch %d", again.Head(), again.ID(), again.Epoch())
	}
	if err := reopen(t, cfg).Seek(f.Head()); err != nil {
		t.Error(err)
	}
}

// TestEveryOctetCounts changes each octet of a journal: reading it all never succeeds, and never yields another record.
func TestEveryOctetCounts(t *testing.T) {
	f, cfg := create(t)
	r := rand.New(rand.NewPCG(3, 4))
	for range 4 {
		commit(t, f, journal.Record{Number: &journal.Number{CAID: text(r), Number: r.Int64()}}, journal.Record{Epoch: &journal.Epoch{Reason: text(r)}})
	}
	whole, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	read := func() (n int, err error) {
		f, err := journal.Open(cfg)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		for b, err := range f.Blocks() {
			if err != nil {
				return n, err
			}
			n += len(b.Records)
		}
		return n, nil
	}
	for i := range whole {
		changed := append([]byte(nil), whole...)
		changed[i] ^= 1
		if err := os.WriteFile(cfg.Path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := read(); err == nil || errors.Is(err, journal.ErrTorn) {
			t.Errorf("octet %d changed: %d records, %v", i, n, err)
		}
	}
}

// TestTorn cuts a journal off at each octet of its last block, and leaves each sector of that unwritten: the blocks
// before are read, and ErrTorn ends it. Undo makes a whole journal of it.
func TestTorn(t *testing.T) {
	f, cfg := create(t)
	r := rand.New(rand.NewPCG(5, 6))
	for range 3 {
		commit(t, f, randomRecord(r), randomRecord(r))
	}
	records := make([]journal.Record, 60)
	for i := range records {
		records[i] = randomRecord(r)
	}
	before := f.Head()
	commit(t, f, records...)
	whole, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(cfg.Path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f := reopen(t, cfg)
		defer f.Close()
		var last error
		for _, last = range f.Blocks() {
			if last != nil {
				break
			}
		}
		if !errors.Is(last, journal.ErrTorn) || f.Head() != before || !strings.Contains(last.Error(), cfg.Path) {
			t.Fatalf("%s: %v, head at record %d; want ErrTorn behind record %d", what, last, f.Head().Seq, before.Seq)
		}
		if err := f.Undo(); err != nil {
			t.Fatal(err)
		}
		if left, err := f.Pending(); err != nil || left != 0 {
			t.Errorf("%s: %d octets are left, %v", what, left, err)
		}
	}
	start := int(f.Head().Offset)
	for n := start + 1; n < len(whole); n += 1 + n%31 {
		try(fmt.Sprint("cut off at ", n), whole[:n])
	}
	for at := (start + 511) / 512 * 512; at+512 <= len(whole); at += 512 {
		holed := append([]byte(nil), whole...)
		clear(holed[at : at+512])
		try(fmt.Sprint("a hole at ", at), holed)
	}
	holed := append([]byte(nil), whole...)
	clear(holed[start:])
	try("nothing but length", holed)
}

// TestSeek: the head that a database has is found, or it is said what is wrong, without reading the rest.
func TestSeek(t *testing.T) {
	f, cfg := create(t)
	r := rand.New(rand.NewPCG(7, 8))
	var heads []journal.Head
	for range 3 {
		commit(t, f, randomRecord(r))
		heads = append(heads, f.Head())
	}
	other, otherCfg := create(t)
	commit(t, other, randomRecord(r))
	wrongHash, wrongSeq, beyond, inHeader := heads[1], heads[1], heads[1], heads[1]
	wrongHash.Hash[0] ^= 1
	wrongSeq.Seq++
	beyond.Offset = 1 << 20
	inHeader.Offset = 0
	for _, test := range []struct {
		name string
		head journal.Head
		want error
	}{
		{"first", heads[0], nil},
		{"last", heads[2], nil},
		{"another hash", wrongHash, journal.ErrDamaged},
		{"another number", wrongSeq, journal.ErrDamaged},
		{"behind the end", beyond, journal.ErrBehind},
		{"in the header", inHeader, journal.ErrDamaged},
		{"another journal", other.Head(), journal.ErrForeign},
	} {
		err := reopen(t, cfg).Seek(test.head)
		if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), cfg.Path) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	// A block of another journal by the same key does not fit.
	theirs, err := os.ReadFile(otherCfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(cfg.Path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(theirs[other.Head().Offset:]); err != nil {
		t.Fatal(err)
	}
	file.Close()
	f = reopen(t, cfg)
	var last error
	for _, last = range f.Blocks() {
		if last != nil {
			break
		}
	}
	if !errors.Is(last, journal.ErrDamaged) || f.Head() != heads[2] {
		t.Errorf("a foreign block: %v at record %d", last, f.Head().Seq)
	}
}

func TestOpenRefuses(t *testing.T) {
	_, cfg := create(t)
	missing := journal.Config{Path: cfg.Path + "x", Signer: signer()}
	otherKey := journal.Config{Path: cfg.Path, Signer: ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", 32)))}
	empty := journal.Config{Path: filepath.Join(t.TempDir(), "empty"), Signer: signer()}
	if err := os.WriteFile(empty.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		cfg  journal.Config
		want error
	}{{"missing", missing, journal.ErrMissing}, {"another key", otherKey, journal.ErrForeign}, {"empty", empty, journal.ErrDamaged}} {
		if _, err := journal.Open(test.cfg); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.cfg.Path) {
			t.Errorf("%s: %v, want %v with the path", test.name, err, test.want)
		}
	}
	if _, err := journal.Create(cfg, 1); !errors.Is(err, os.ErrExist) {
		t.Errorf("made over another: %v", err)
	}
}

// TestBounds: what could not be read again is not written.
func TestBounds(t *testing.T) {
	f, _ := create(t)
	long := journal.Record{Epoch: &journal.Epoch{Reason: strings.Repeat("x", journal.MaxTextBytes+1)}}
	big := journal.Record{CA: &ca.CARecord{DER: make([]byte, journal.MaxRecordBytes)}}
	many := make([]journal.Record, 350)
	for i := range many {
		many[i] = journal.Record{CA: &ca.CARecord{DER: make([]byte, 150<<10)}}
	}
	for name, records := range map[string][]journal.Record{"text": {long}, "record": {big}, "block": many, "nothing": {{}}} {
		if _, err := f.Prepare(records); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if _, err := f.Prepare(many); !errors.Is(err, journal.ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}

// TestFaults: after a write that failed Undo leaves the journal as it was; the next write goes well.
func TestFaults(t *testing.T) {
	cfg := journal.Config{Path: filepath.Join(t.TempDir(), "j"), Signer: signer()}
	at := ""
	cfg.Fault = func(point string) error {
		if point == at {
			return syscall.ENOSPC
		}
		return nil
	}
	f, err := journal.Create(cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(9, 10))
	commit(t, f, randomRecord(r))
	head := f.Head()
	for _, at = range []string{"journal-write", "journal-sync"} {
		p, err := f.Prepare([]journal.Record{randomRecord(r)})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Write(p); !errors.Is(err, syscall.ENOSPC) || !f.Dirty() {
			t.Errorf("%s: %v, dirty %t", at, err, f.Dirty())
		}
		at = "journal-truncate"
		if err := f.Undo(); !errors.Is(err, syscall.ENOSPC) || !f.Dirty() {
			t.Errorf("undo: %v, dirty %t", err, f.Dirty())
		}
		at = ""
		if err := f.Undo(); err != nil || f.Dirty() || f.Head() != head {
			t.Errorf("undo: %v, dirty %t", err, f.Dirty())
		}
	}
	commit(t, f, randomRecord(r))
	n := 0
	for _, err := range reopen(t, cfg).Blocks() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("%d blocks, want 2", n)
	}
}
