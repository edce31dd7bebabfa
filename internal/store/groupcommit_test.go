package store_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/store/storetest"
)

// TestGroupCommit: certificates that are recorded at the same time share commits, and so the syncs of the disk. Each commit
// is made to take a millisecond, as on a disk, so that the others wait meanwhile.
func TestGroupCommit(t *testing.T) { groupCommit(t, 32, 8, 4, time.Millisecond, 0) }

// TestGroupCommitOnOneProcessor: where callers and the writer take turns on one processor, those that are at work come
// into the next commit too, and the writer does not commit each alone.
func TestGroupCommitOnOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	groupCommit(t, 16, 16, 10, 0, 200*time.Microsecond) // as a signature takes
}

// groupCommit has writers record certificates, each after some work, and demands that a commit, which takes longer by a
// pause, has at least so many of them.
func groupCommit(t *testing.T, writers, each, together int, pause, work time.Duration) {
	t.Helper()
	s := open(t, t.TempDir())
	storetest.AddCA(t, s)
	var commits atomic.Int64
	s.SetFault(func(point string) error {
		if point == "before-commit" {
			commits.Add(1)
			time.Sleep(pause)
		}
		return nil
	})
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range each {
				for begin := time.Now(); time.Since(begin) < work; {
				}
				c := storetest.Certificate(w*each + n)
				if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	most := int64(writers * each / together)
	t.Logf("%d commits for %d certificates of %d writers", commits.Load(), writers*each, writers)
	if n := commits.Load(); n < int64(each) || n > most {
		t.Errorf("%d commits for %d certificates of %d writers, want between %d and %d", n, writers*each, writers, each, most)
	}
}
