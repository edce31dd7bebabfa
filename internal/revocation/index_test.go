package revocation

import (
	"errors"
	"iter"
	"math/big"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// issuer is a made-up issuer key.
func issuer(b byte) pkix.KeyID { return pkix.KeyID{b} }

// serial is the n-th serial number of the tests, 16 octets, no two alike.
func serial(n uint64) pkix.Serial {
	r := rand.New(rand.NewPCG(n, 7))
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return pkix.SerialFromBytes(append(b[:8:8], byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n)))
}

func id(n uint64) pkix.CertID { return pkix.CertID{Issuer: issuer(byte(n % 3)), Serial: serial(n)} }

func at(n uint64) time.Time { return time.Unix(1_800_000_000+int64(n%1_000_000), 0).UTC() }

func entry(n uint64) Entry {
	return Entry{ID: id(n), Reason: pkix.KeyCompromise, At: at(n)}
}

func entries(from, to uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for n := from; n < to; n++ {
			if !yield(entry(n), nil) {
				return
			}
		}
	}
}

func TestLoadAndLookup(t *testing.T) {
	x := NewIndex()
	n, err := x.Load(entries(0, 10_000))
	if err != nil || n != 10_000 || x.Len() != 10_000 || x.Epoch() == 0 {
		t.Fatalf("%d %v, Len %d, epoch %d", n, err, x.Len(), x.Epoch())
	}
	for n := range uint64(10_000) {
		if e, ok := x.Lookup(id(n)); !ok || e != entry(n) {
			t.Fatalf("entry %d: %v %v, want %v", n, e, ok, entry(n))
		}
		if _, ok := x.Lookup(pkix.CertID{Issuer: issuer(9), Serial: serial(n)}); ok {
			t.Fatalf("entry %d is revoked under another issuer too", n)
		}
	}
	for n := uint64(10_000); n < 20_000; n++ {
		if _, ok := x.Lookup(id(n)); ok {
			t.Fatalf("entry %d was never revoked", n)
		}
	}
}

func TestLoadFailsWhole(t *testing.T) {
	x := NewIndex()
	x.Apply(Change{Entry: entry(1), Revoked: true})
	epoch, broken := x.Epoch(), errors.New("disk gone")
	_, err := x.Load(func(yield func(Entry, error) bool) {
		_ = yield(entry(2), nil) && yield(Entry{}, broken)
	})
	if !errors.Is(err, broken) || x.Len() != 1 || x.Epoch() != epoch {
		t.Errorf("error %v, Len %d, epoch %d (was %d)", err, x.Len(), x.Epoch(), epoch)
	}
	if _, ok := x.Lookup(id(2)); ok {
		t.Error("half of a sequence was taken")
	}
}

// Serial numbers of every length, also those that no RFC allows, are told apart exactly.
func TestSerialsOfEveryLength(t *testing.T) {
	x := NewIndex()
	want := make(map[pkix.CertID]Entry)
	for octets := range 41 {
		for _, first := range []byte{1, 0x7f, 0x80, 0xff} {
			b := make([]byte, octets)
			if octets > 0 {
				b[0] = first
			}
			e := Entry{ID: pkix.CertID{Issuer: issuer(1), Serial: pkix.SerialFromBytes(b)}, Reason: pkix.Reason(octets % 7), At: at(1)}
			want[e.ID] = e
		}
	}
	for id, e := range want {
		if e.ID.Serial.Bytes()[0]%2 == 0 {
			x.Apply(Change{Entry: e, Revoked: true})
			continue
		}
		delete(want, id)
	}
	for range 3 { // overlay, then runs
		for octets := range 41 {
			for _, first := range []byte{1, 0x7f, 0x80, 0xff} {
				n := new(big.Int).SetBytes(append([]byte{first}, make([]byte, octets)...))
				id := pkix.CertID{Issuer: issuer(1), Serial: pkix.SerialOf(n)}
				got, ok := x.Lookup(id)
				e, revoked := want[id]
				if ok != revoked || got != e {
					t.Fatalf("%s: %v %v, want %v", id.Serial, got, ok, e)
				}
			}
		}
		for n := range uint64(300) {
			x.Apply(Change{Entry: entry(1_000_000 + n), Revoked: true}, Change{Entry: entry(1_000_000 + n)})
		}
	}
}

// A long random history agrees with a map.
func TestAgreesWithMap(t *testing.T) {
	x := NewIndex()
	if _, err := x.Load(entries(0, 1000)); err != nil {
		t.Fatal(err)
	}
	want := make(map[pkix.CertID]Entry)
	for n := range uint64(1000) {
		want[id(n)] = entry(n)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for step := range 20_000 {
		n := r.Uint64N(5000)
		c := Change{Entry: Entry{ID: id(n), Reason: pkix.Reason(r.IntN(7)), At: at(r.Uint64())}, Revoked: r.IntN(3) > 0}
		if c.Revoked {
			want[c.ID] = c.Entry
		} else {
			delete(want, c.ID)
		}
		x.Apply(c)
		probe := id(r.Uint64N(5000))
		got, ok := x.Lookup(probe)
		if e, revoked := want[probe]; ok != revoked || got != e {
			t.Fatalf("step %d: %v %v, want %v %v", step, got, ok, e, revoked)
		}
		if x.Len() != len(want) {
			t.Fatalf("step %d: Len %d, want %d", step, x.Len(), len(want))
		}
	}
	for issuer, runs := range x.current.Load().issuers {
		if len(runs) > 12 {
			t.Errorf("issuer %x has %d runs", issuer[:1], len(runs))
		}
	}
}

// Who reads an epoch sees everything that was applied before it.
func TestEpochIsRaisedAfterTheDataIsVisible(t *testing.T) {
	x := NewIndex()
	var stop atomic.Bool
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for !stop.Load() {
				if n := x.Epoch(); n > 0 {
					if _, ok := x.Lookup(id(n)); !ok {
						t.Errorf("epoch %d does not show its change", n)
						return
					}
				}
			}
		})
	}
	for n := range uint64(3000) {
		x.Apply(Change{Entry: entry(n + 1), Revoked: true})
	}
	stop.Store(true)
	work.Wait()
	if x.Epoch() != 3000 {
		t.Errorf("epoch %d", x.Epoch())
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	x := NewIndex()
	if _, err := x.Load(entries(0, 1000)); err != nil {
		t.Fatal(err)
	}
	x.Apply(Change{Entry: entry(5000), Revoked: true})
	for _, n := range []uint64{1, 5000, 9000} {
		id := id(n)
		if allocs := testing.AllocsPerRun(100, func() { x.Lookup(id) }); allocs != 0 {
			t.Errorf("entry %d: %v allocations", n, allocs)
		}
	}
}

// An index keeps 32 bytes for each certificate, whatever its growth took.
func TestMemoryOfLoad(t *testing.T) {
	const n = 300_000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	x := NewIndex()
	if _, err := x.Load(entries(0, n)); err != nil {
		t.Fatal(err)
	}
	each := float64(heap()-before) / n
	t.Logf("%.1f bytes an entry", each)
	if each > 33 {
		t.Errorf("%.1f bytes an entry, want 32", each)
	}
	runtime.KeepAlive(x)
}

// One more revocation costs the same after many: the median of an Apply on a large index.
func TestApplyDoesNotGrowWithHistory(t *testing.T) {
	x := NewIndex()
	if _, err := x.Load(entries(0, 200_000)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for n := range uint64(2000) {
		x.Apply(Change{Entry: entry(1_000_000 + n), Revoked: true})
	}
	if each := time.Since(start) / 2000; each > 2*time.Millisecond {
		t.Errorf("%v an Apply", each)
	}
}

func BenchmarkLoad(b *testing.B) {
	all := make([]Entry, 1_000_000)
	for n := range all {
		all[n] = entry(uint64(n))
	}
	for b.Loop() {
		if _, err := NewIndex().Load(func(yield func(Entry, error) bool) {
			for _, e := range all {
				if !yield(e, nil) {
					return
				}
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	x := NewIndex()
	const n = 1_000_000
	if _, err := x.Load(entries(0, n)); err != nil {
		b.Fatal(err)
	}
	for name, from := range map[string]uint64{"hit": 0, "miss": n} {
		ids := make([]pkix.CertID, 4096)
		for i := range ids {
			ids[i] = id(from + uint64(i)*199%n)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				x.Lookup(ids[i&4095])
				i++
			}
		})
	}
}
