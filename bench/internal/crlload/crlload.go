// Package crlload loads one revocation list in one of the ways that are compared, its signature checked, and looks
// serial numbers up in what came of it. It is made to be called once in a process: the figures are the process's own,
// and what an earlier list left behind would be in them.
//
//	result, err := crlload.Run(ctx, crlload.Config{By: crlload.Sekisho, List: "list.crl", CA: "ca.pem", Entries: 1_000_000, Dir: dir})
package crlload

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"sekisho/bench/internal/proc"
)

// The ways to load a list.
const (
	Sekisho = "sekisho"
	Stdlib  = "crypto/x509 + map" // ParseRevocationList, CheckSignatureFrom, and a map of all serial numbers
	OpenSSL = "openssl crl"       // the command, which has no look-up
)

// Config is one load.
type Config struct {
	By      string
	List    string // path, DER
	CA      string // path, PEM
	Entries int    // that the list has: serial numbers 0 to Entries-1 of pki.Serials
	Dir     string // for the copy of a loader that keeps one
	OpenSSL string // path of the program
}

// Result is what one load cost. Anon and File are how much more the process takes after it, once garbage is collected
// and given back; Peak is the highest RSS of the whole process, program and file pages included.
type Result struct {
	Wall float64 `json:"wall_ms"`
	CPU  float64 `json:"cpu_ms"`
	Peak int64   `json:"peak"`
	Anon int64   `json:"anon"`
	File int64   `json:"file"`
	Used int64   `json:"file_used,omitempty"` // File once a million entries were looked up
	Hit  *Lookup `json:"hit,omitempty"`       // nil: the loader has none
	Miss *Lookup `json:"miss,omitempty"`      // the same
}

// Lookup is the cost of one look-up, page faults included.
type Lookup struct {
	Nanos  float64 `json:"ns"` // of processor time, which holds on a busy machine
	Allocs float64 `json:"allocs"`
}

// index is a loaded list.
type index interface {
	// lookup counts the serial numbers of the batch that are on the list.
	lookup() (found int)
	// batch sets what lookup looks up, in the form that costs the index least.
	batch(serials [][16]byte)
}

// Run loads the list and measures.
func Run(ctx context.Context, c Config) (Result, error) {
	var load func(Config) (index, error)
	switch c.By {
	case Sekisho:
		load = loadSekisho
	case Stdlib:
		load = loadStdlib
	case OpenSSL:
		return runOpenSSL(ctx, c)
	default:
		return Result{}, fmt.Errorf("no way %q to load a list", c.By)
	}
	debug.FreeOSMemory()
	before, err := proc.MemoryOf(os.Getpid())
	if err != nil {
		return Result{}, err
	}
	cpu, start := proc.OwnCPU(), time.Now()
	x, err := load(c)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", c.By, err)
	}
	r := Result{Wall: millis(time.Since(start)), CPU: millis(proc.OwnCPU() - cpu)}
	debug.FreeOSMemory()
	after, err := proc.MemoryOf(os.Getpid())
	if err != nil {
		return r, err
	}
	r.Peak, r.Anon, r.File = after.Peak, after.RssAnon-before.RssAnon, after.RssFile-before.RssFile
	if r.Hit, err = measure(x, c.Entries, 0); err != nil {
		return r, err
	}
	if r.Miss, err = measure(x, c.Entries, c.Entries); err != nil {
		return r, err
	}
	after, err = proc.MemoryOf(os.Getpid())
	r.Used = after.RssFile - before.RssFile
	runtime.KeepAlive(x)
	return r, err
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
