//go:build unix && !linux

package crl

func adviseLargePages([]byte) {}
