//go:build unix

package crl

import (
	"os"

	"golang.org/x/sys/unix"
)

const canMap = true

// mapFile maps a whole file to be read from its beginning to its end.
func mapFile(f *os.File, size int) ([]byte, error) {
	der, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	_ = unix.Madvise(der, unix.MADV_SEQUENTIAL) // advice: nothing is lost without it
	return der, nil
}

// rest gives back the pages that were read, and says that from now on single entries are.
func rest(der []byte) {
	_ = unix.Madvise(der, unix.MADV_RANDOM)
	_ = unix.Madvise(der, unix.MADV_DONTNEED)
}

func unmap(der []byte) { _ = unix.Munmap(der) }

// mapMemory is memory of the system's, zeroed. Where it can be, it is in large pages: an index is read at random.
func mapMemory(size int) ([]byte, error) {
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	adviseLargePages(memory)
	return memory, nil
}
