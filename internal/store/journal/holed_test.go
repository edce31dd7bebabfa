package journal_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"sekisho/internal/store/journal"
)

// TestHoleBeforeWholeBlocks: a sector that was lost in the middle is damage, not the end of a crash: blocks follow it that
// somebody was told of.
func TestHoleBeforeWholeBlocks(t *testing.T) {
	f, cfg := create(t)
	r := rand.New(rand.NewPCG(11, 12))
	var starts []int64
	for range 12 {
		commit(t, f, randomRecord(r), randomRecord(r))
		starts = append(starts, f.Head().Offset)
	}
	whole, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 512; int64(at+512) <= starts[len(starts)-1]; at += 512 {
		holed := append([]byte(nil), whole...)
		clear(holed[at : at+512])
		if err := os.WriteFile(cfg.Path, holed, 0o600); err != nil {
			t.Fatal(err)
		}
		f := reopen(t, cfg)
		var last error
		for _, last = range f.Blocks() {
			if last != nil {
				break
			}
		}
		if !errors.Is(last, journal.ErrDamaged) || errors.Is(last, journal.ErrTorn) {
			t.Errorf("a hole at %d of %d: %v, want ErrDamaged", at, len(whole), last)
		}
		f.Close()
	}
}
