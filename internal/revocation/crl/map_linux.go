package crl

import "golang.org/x/sys/unix"

// adviseLargePages asks for pages of 2 MiB where the index fills some.
func adviseLargePages(memory []byte) {
	if len(memory) >= 4<<20 {
		_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // advice: nothing is lost without it
	}
}
