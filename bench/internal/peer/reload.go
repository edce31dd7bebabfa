package peer

import (
	"context"
	"errors"
	"syscall"
	"time"

	"sekisho/bench/internal/load"
	"sekisho/bench/internal/proc"
)

// Reload makes nginx read its configuration again: it begins with SIGHUP and ends when the workers there were have left
// and a new one answers. What it took is returned in time and in the server's CPU seconds. each, if it is not nil, is
// called again and again until the end; it costs the server time.
func (p *Peer) Reload(ctx context.Context, each func()) (took time.Duration, cpu float64, err error) {
	before, err := proc.Tree(p.PID)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return 0, 0, err
	}
	for {
		if each != nil {
			each()
		}
		switch after, err := proc.Tree(p.PID); {
		case err != nil:
			return 0, 0, err
		case !replaced(before, after, p.PID):
		case load.Answers(p.Addr) == nil:
			took = time.Since(start)
			return took, used(before, after, p.PID), nil
		}
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(start) > time.Minute {
			return 0, 0, errors.New("the old workers have not left within a minute of SIGHUP")
		}
	}
}

// replaced reports whether all of the master's children are other ones.
func replaced(before, after map[int]float64, master int) bool {
	for id := range after {
		if _, there := before[id]; there && id != master {
			return false
		}
	}
	return len(after) > 1
}

// used is what the master has used since, and the new workers.
func used(before, after map[int]float64, master int) float64 {
	sum := -before[master]
	for _, seconds := range after {
		sum += seconds
	}
	return sum
}
