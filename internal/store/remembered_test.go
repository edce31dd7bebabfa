package store

import (
	"errors"
	"testing"
)

// TestRemembered: a value is loaded once; what was read before a write ended is not kept after it; nor is an error.
func TestRemembered(t *testing.T) {
	var r remembered[int]
	loads := 0
	get := func(value int, err error, meanwhile func()) (int, error) {
		return r.get(func() (int, error) {
			loads++
			meanwhile()
			return value, err
		})
	}
	idle := func() {}
	broken := errors.New("broken")
	for i, step := range []struct {
		value     int
		err       error
		meanwhile func()
		want      int
		loads     int
	}{
		{1, broken, idle, 1, 1},
		{2, nil, r.forget, 2, 2}, // a write ends while it is read
		{3, nil, idle, 3, 3},
		{4, nil, idle, 3, 3},
	} {
		if got, err := get(step.value, step.err, step.meanwhile); got != step.want || !errors.Is(err, step.err) || loads != step.loads {
			t.Errorf("step %d: %d, %v after %d loads; want %d, %v after %d", i, got, err, loads, step.want, step.err, step.loads)
		}
	}
	r.forget()
	if got, _ := get(5, nil, idle); got != 5 {
		t.Errorf("after a write: %d, want 5", got)
	}
}
