package edge

import "sync"

// errands are goroutines that anyone may begin at any time, also while Shutdown waits: whoever revokes does not ask
// whether the edge is about to stop. sync.WaitGroup forbids that once its count has reached zero. The zero value is ready.
type errands struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // closed when n becomes zero; nil when nobody waits
}

// Go runs f on a goroutine of its own.
func (e *errands) Go(f func()) {
	e.mu.Lock()
	e.n++
	e.mu.Unlock()
	go func() {
		defer e.done()
		f()
	}()
}

func (e *errands) done() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n--; e.n == 0 && e.idle != nil {
		close(e.idle)
		e.idle = nil
	}
}

// Wait returns at a moment when none is running.
func (e *errands) Wait() {
	e.mu.Lock()
	if e.n == 0 {
		e.mu.Unlock()
		return
	}
	if e.idle == nil {
		e.idle = make(chan struct{})
	}
	idle := e.idle
	e.mu.Unlock()
	<-idle
}
