package edge

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Errands may begin while somebody waits, from zero and again, which makes a sync.WaitGroup panic.
func TestErrandsBeginWhileSomebodyWaits(t *testing.T) {
	var e errands
	var running, most atomic.Int64
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 2000 {
				e.Go(func() {
					most.Store(max(most.Load(), running.Add(1)))
					running.Add(-1)
				})
				e.Wait()
			}
		})
	}
	callers.Wait()
	e.Wait()
	if running.Load() != 0 || most.Load() == 0 {
		t.Errorf("%d running after Wait, %d at most", running.Load(), most.Load())
	}
	begun, end := make(chan struct{}), make(chan struct{})
	e.Go(func() { close(begun); <-end })
	<-begun
	waited := make(chan struct{})
	go func() { e.Wait(); close(waited) }()
	select {
	case <-waited:
		t.Error("Wait returned while an errand ran")
	case <-time.After(20 * time.Millisecond):
	}
	close(end)
	<-waited
}
