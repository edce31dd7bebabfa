package store

import "sync"

// remembered is what a small table says, read at first use and again after a write. Whoever calls the API asks for a
// token and a zone each time, and the answers hardly ever change. This process alone writes the database.
type remembered[T any] struct {
	mu     sync.Mutex
	value  T
	known  bool
	writes int // so that what was read before a write is not kept after it
}

// get returns the value, which the caller must not change. An error of load is not kept.
func (r *remembered[T]) get(load func() (T, error)) (T, error) {
	r.mu.Lock()
	value, known, writes := r.value, r.known, r.writes
	r.mu.Unlock()
	if known {
		return value, nil
	}
	value, err := load()
	if err != nil {
		return value, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writes == writes {
		r.value, r.known = value, true
	}
	return value, nil
}

// forget is called after a write to the table has come to its end, well or not, and before its caller hears of it.
func (r *remembered[T]) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var none T
	r.value, r.known = none, false
	r.writes++
}
