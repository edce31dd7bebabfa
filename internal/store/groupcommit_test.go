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
func TestGroupCommit(t *testing.T) {
	const writers, each = 32, 8
	s := open(t, t.TempDir())
	storetest.AddCA(t, s)
	var commits atomic.Int64
	s.SetFault(func(point string) error {
		if point == "before-commit" {
			commits.Add(1)
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range each {
				c := storetest.Certificate(w*each + n)
				if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if n := commits.Load(); n < each || n > writers*each/4 {
		t.Errorf("%d commits for %d certificates of %d writers, want between %d and %d", n, writers*each, writers, each, writers*each/4)
	}
	t.Logf("%d commits for %d certificates of %d writers", commits.Load(), writers*each, writers)
}

// TestGroupCommitOnOneProcessor: where callers and the writer take turns on one processor, those that are at work come
// into the next commit too, and the writer does not commit each alone.
func TestGroupCommitOnOneProcessor(t *testing.T) {
	const writers, each = 16, 16
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := open(t, t.TempDir())
	storetest.AddCA(t, s)
	var commits atomic.Int64
	s.SetFault(func(point string) error {
		if point == "before-commit" {
			commits.Add(1)
		}
		return nil
	})
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range each {
				for begin := time.Now(); time.Since(begin) < 200*time.Microsecond; { // as a signature takes
				}
				c := storetest.Certificate(w*each + n)
				if err := s.RecordCertificate(t.Context(), c, storetest.Entry("certificate.issue", c.ID)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	t.Logf("%d commits for %d certificates of %d writers", commits.Load(), writers*each, writers)
	if n := commits.Load(); n < each || n > writers*each/10 {
		t.Errorf("%d commits for %d certificates of %d writers, want between %d and %d", n, writers*each, writers, each, writers*each/10)
	}
}
