package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 8 << 20: 400, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 256 << 20: 50, 1 << 40: 10} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d bytes live: %d, want %d", live, got, want)
		}
	}
}

func TestTuneCollectorFollowsTheHeap(t *testing.T) {
	before := debug.SetGCPercent(gcPercent)
	defer debug.SetGCPercent(before)
	held := make([]byte, 256<<20)
	runtime.GC()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tuneCollector(ctx) }()
	waitUntil(t, "the heap was looked at", func() bool { return goGC() != gcPercent })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(held)
	if now := goGC(); now < 20 || now > 50 {
		t.Errorf("GOGC is %d with 256 MiB live, want a little below 50", now)
	}
}

// goGC is the value of GOGC in force.
func goGC() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}
