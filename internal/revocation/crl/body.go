package crl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"sekisho/internal/pkix"
)

// body is the DER of a list: mapped from a file of ours, or in memory. der is valid as long as the body is reachable.
type body struct {
	der    []byte
	mapped bool
	file   *ownFile // nil: none
}

// ownFile is the file under a mapping. Until it is kept under a name of its own it goes with the mapping.
type ownFile struct {
	mu   sync.Mutex
	path string // "": it has no name any more
	kept bool
}

// loadingPrefix begins the names of files that are not kept yet. What is left of them by a crash is swept.
const loadingPrefix = ".loading-"

func (b *body) size() int64 { return int64(len(b.der)) }

// chunk is how much of a list is copied at once.
const chunk = 256 << 10

// textShare is the part of a list's limit that one in PEM may have. It passes through memory, whole and more than once,
// and who names a list in a certificate can have many read at once. Lists behind distribution points are in DER
// (RFC 5280, Section 4.2.1.13); PEM is for files of operators.
const textShare = 8

// readBody copies a list in DER or PEM from r into a file in dir, and maps it; with dir "" or where there are no mappings
// it is in memory. At most limit octets are read.
func readBody(r io.Reader, dir string, limit int64) (*body, error) {
	limited := &io.LimitedReader{R: r, N: limit + 1}
	head := make([]byte, min(chunk, limit+1))
	n, err := io.ReadFull(limited, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read: %w", err)
	}
	if n < 2 {
		return nil, fmt.Errorf("%w: it is empty", pkix.ErrCRLMalformed)
	}
	inDER := head[0] == 0x30 && head[1] >= 0x80 // a list in DER is longer than 127 octets
	if dir != "" && canMap && inDER {
		return copyBody(head, n, limited, dir)
	}
	if !inDER {
		limited.N = min(limited.N, max(chunk, limit/textShare))
	}
	data, err := io.ReadAll(io.MultiReader(bytes.NewReader(head[:n]), limited))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if limited.N <= 0 && !inDER {
		return nil, fmt.Errorf("%w: in PEM it may have an eighth of the octets that it may have in DER", ErrTooLarge)
	} else if limited.N <= 0 {
		return nil, ErrTooLarge
	}
	der, err := pkix.ParsePEMOrDERCRL(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", pkix.ErrCRLMalformed, err)
	case dir != "" && canMap:
		return copyBody(der, len(der), &io.LimitedReader{R: bytes.NewReader(nil), N: 1}, dir)
	}
	return &body{der: der}, nil
}

// copyBody writes n octets of buf and what limited still has into a new file and maps it.
func copyBody(buf []byte, n int, limited *io.LimitedReader, dir string) (*body, error) {
	f, err := os.CreateTemp(dir, loadingPrefix) // mode 0600
	if err != nil {
		return nil, fmt.Errorf("copy of the list: %w", err)
	}
	defer f.Close()
	b, err := fillBody(f, buf, n, limited)
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	return b, nil
}

func fillBody(f *os.File, buf []byte, n int, limited *io.LimitedReader) (*body, error) {
	var size int64
	for {
		if _, err := f.Write(buf[:n]); err != nil {
			return nil, fmt.Errorf("copy of the list: %w", err)
		}
		size += int64(n)
		var err error
		n, err = io.ReadFull(limited, buf)
		switch {
		case limited.N <= 0:
			return nil, ErrTooLarge
		case errors.Is(err, io.EOF):
			return mapBody(f, size)
		case err != nil && (n == 0 || !errors.Is(err, io.ErrUnexpectedEOF)): // that is also what a short rest makes of the end
			return nil, fmt.Errorf("read: %w", err)
		}
	}
}

// openBody maps a file that was kept, name in dir.
func openBody(dir, name string, limit int64) (*body, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", f.Name())
	case info.Size() > limit:
		return nil, ErrTooLarge
	case info.Size() == 0:
		return nil, fmt.Errorf("%w: it is empty", pkix.ErrCRLMalformed)
	case !canMap:
		return readBody(f, "", limit)
	}
	b, err := mapBody(f, info.Size())
	if err != nil {
		return nil, err
	}
	b.file.kept = true
	return b, nil
}

// mapping is what is left to do when the last list that reads a body is gone.
type mapping struct {
	der  []byte
	file *ownFile
}

func mapBody(f *os.File, size int64) (*body, error) {
	der, err := mapFile(f, int(size))
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	b := &body{der: der, mapped: true, file: &ownFile{path: f.Name()}}
	// A reader may be in the middle of the body when the list is replaced: the collector alone knows when none is left.
	runtime.AddCleanup(b, func(m mapping) {
		unmap(m.der)
		m.file.forget()
	}, mapping{der, b.file})
	return b, nil
}

// forget removes the file unless it is kept. The mapping stays as it is.
func (o *ownFile) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.path != "" && !o.kept {
		_ = os.Remove(o.path) // one that is left is swept at the next start
		o.path = ""
	}
}

// keep gives the file its name in its folder, in place of the one that had it. Its content is on the disk before it has
// the name, so that a crash leaves the old file or the new one.
func (o *ownFile) keep(name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.kept || o.path == "" {
		return nil
	}
	if err := syncFile(o.path); err != nil {
		return fmt.Errorf("keep the list: %w", err)
	}
	dir := filepath.Dir(o.path)
	if err := os.Rename(o.path, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("keep the list: %w", err)
	}
	o.path, o.kept = filepath.Join(dir, name), true
	if err := syncFile(dir); err != nil {
		return fmt.Errorf("keep the list: %w", err)
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Keep gives the copy of the list in Options.Dir a name, in place of the copy that had it, so that it outlives the
// process. It waits for the disk. A list in memory, or one that was kept before, is left as it is. Copies that are not
// kept are removed when their list is not used any more.
func (l *List) Keep(name string) error {
	if l.base.body.file == nil {
		return nil
	}
	return l.base.body.file.keep(name)
}

// discard takes the copy's name away: the list serves on, and nothing is left of it after.
func (l *List) discard() {
	if file := l.base.body.file; file != nil {
		file.forget()
	}
}
