package admin

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
)

// TestCAsInForceAfterAnError: a change of CAs that is stored though it fails comes into force at the hosts; one that was
// refused before it began does not trouble them.
func TestCAsInForceAfterAnError(t *testing.T) {
	var changed atomic.Int64
	a := newAPI(t, func(c *Config) {
		c.CAsChanged = func(context.Context) error { changed.Add(1); return nil }
	})
	for i, step := range []struct {
		late   bool
		path   string
		body   any
		status int
		want   int64
	}{
		{false, "/sekisho/ca/rotate", map[string]any{"key_type": "no such"}, http.StatusBadRequest, 0},
		{true, "/sekisho/ca/rotate", nil, http.StatusInternalServerError, 1},
		{false, "/sekisho/ca/rotate", nil, http.StatusOK, 2},
	} {
		a.lateError.Store(step.late)
		got := a.call(http.MethodPost, step.path, step.body)
		if got.Status != step.status || changed.Load() != step.want {
			t.Errorf("step %d: %d %+v, %d changes; want %d and %d", i, got.Status, got.Errors, changed.Load(), step.status, step.want)
		}
	}
}
