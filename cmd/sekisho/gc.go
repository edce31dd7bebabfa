package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// gcPercent lets the heap grow to five times what is live before it is collected. An edge's live heap is small and its
	// garbage, one handshake after the other, is not: at Go's default of 100 collecting takes a tenth of the CPU.
	gcPercent = 400
	// gcGarbage bounds what that comes to where much is live, as with the lists of a million revoked certificates. They have
	// no pointers: to collect more often costs next to nothing.
	gcGarbage = 128 << 20
	// gcLook is how often the live heap is looked at.
	gcLook = 5 * time.Second
)

// collectorPercent is GOGC for a live heap of so many bytes.
func collectorPercent(live uint64) int {
	return int(min(max(gcGarbage*100/max(live, 1), 10), gcPercent))
}

// tuneCollector keeps the garbage within bounds while the live heap grows and shrinks, until ctx ends.
func tuneCollector(ctx context.Context) error {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ticker := time.NewTicker(gcLook)
	defer ticker.Stop()
	for set := 0; ; {
		metrics.Read(sample)
		// Each change stops the world for a moment.
		if percent := collectorPercent(sample[0].Value.Uint64()); percent < set*9/10 || percent > set*11/10 {
			debug.SetGCPercent(percent)
			set = percent
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
