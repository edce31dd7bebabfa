package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	lockName  = "lock"
	lockRetry = 20 * time.Millisecond
	// lockWait is how long a start waits for the lock: as long as the kernel may take to bury a killed predecessor, and
	// far longer than [Held] keeps it.
	lockWait = 500 * time.Millisecond
)

// lockDir takes the exclusive lock of a data directory and writes our process id into it. The kernel drops the lock
// with the process, so a start after kill -9 finds it free; the file itself stays.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: lock of the data directory: %w", err)
	}
	for deadline := time.Now().Add(lockWait); ; {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("store: lock %s: %w", path, err)
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			pid := lockHolder(f)
			f.Close()
			return nil, fmt.Errorf("store: %w: %s is held by process %s; stop that one, talk to it through its admin API, or choose another data directory",
				ErrLocked, dir, pid)
		}
		time.Sleep(lockRetry)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		f.Close()
		return nil, fmt.Errorf("store: lock %s: %w", path, err)
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

func lockHolder(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return pid
	}
	return "(unknown)"
}

// Held reports whether a process, this one included, has the store in dir open. A directory that does not exist or
// holds no store is not held.
func Held(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return errors.Is(err, syscall.EWOULDBLOCK)
}
