package crlload

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/proc"
)

const (
	batches   = 32
	batchSize = 1 << 15 // look-ups at once: their serial numbers, a megabyte, are made between the timed parts
)

// measure looks up serial numbers drawn at random from the n from the first on: all of the list, or none.
func measure(x index, n, first int) (*Lookup, error) {
	want := 0
	if first == 0 {
		want = batchSize
	}
	draw := rand.New(rand.NewPCG(uint64(n), uint64(first)))
	serials := pki.NewSerials()
	batch := make([][16]byte, batchSize)
	var took time.Duration
	var allocs uint64
	var before, after runtime.MemStats
	for range batches {
		for i := range batch {
			batch[i] = serials.At(first + draw.IntN(n))
		}
		x.batch(batch)
		runtime.ReadMemStats(&before)
		start := proc.OwnCPU()
		found := x.lookup()
		took += proc.OwnCPU() - start
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
		if found != want {
			return nil, fmt.Errorf("%d of %d serial numbers found, want %d", found, batchSize, want)
		}
	}
	const lookups = batches * batchSize
	return &Lookup{Nanos: float64(took.Nanoseconds()) / lookups, Allocs: float64(allocs) / lookups}, nil
}
