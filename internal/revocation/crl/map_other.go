//go:build !unix

package crl

import (
	"errors"
	"os"
)

// canMap is false: lists are kept in memory.
const canMap = false

func mapFile(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func rest([]byte) {}

func unmap([]byte) {}

func mapMemory(int) ([]byte, error) { return nil, errors.ErrUnsupported }
