package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// usage is what a process holds and has used.
type usage struct {
	rss, anon, peak int // KiB
	cpu             time.Duration
}

func (u usage) String() string {
	return fmt.Sprintf("RSS %d MiB (anonymous %d, peak %d), CPU %v", u.rss>>10, u.anon>>10, u.peak>>10, u.cpu.Round(10*time.Millisecond))
}

// usage reads /proc.
func (p *process) usage() (u usage) {
	p.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch key {
		case "VmRSS":
			u.rss = kib
		case "RssAnon":
			u.anon = kib
		case "VmHWM":
			u.peak = kib
		}
	}
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		p.t.Fatal(err)
	}
	// What follows the name, which is in parentheses, begins with field 3; utime and stime are 14 and 15, in 1/100 s.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			p.t.Fatal(err)
		}
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	return u
}

// crowding is by how much others slow this machine down now: the time that a tenth of a second's work takes, measured in
// tenths of a second. Limits of times that pass on the wall are multiplied by it; on a machine of one's own it is 1.
func crowding(t *testing.T) float64 {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, used, block := time.Now(), threadTime(t), make([]byte, 4096)
	for threadTime(t)-used < 100*time.Millisecond {
		sum := sha256.Sum256(block)
		block[0] = sum[0]
	}
	return max(float64(time.Since(begin))/float64(threadTime(t)-used), 1)
}

func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(1 /* RUSAGE_THREAD */, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// within demands a limit of a time that passed on the wall while the machine was as crowded as it is now, or was before.
func within(t *testing.T, what string, got, limit time.Duration, crowded float64) {
	t.Helper()
	if got <= limit {
		return
	}
	crowded = max(crowded, crowding(t))
	if allowed := time.Duration(float64(limit) * crowded); got > allowed && !raceEnabled {
		t.Errorf("%s: %v, want at most %v (%v on a machine of its own; this one is crowded %.1f-fold)", what, got, allowed, limit, crowded)
	}
}

// sample is times of one thing.
type sample []time.Duration

func (s sample) String() string {
	sorted := slices.Clone(s)
	return fmt.Sprintf("p50 %v, p99 %v, max %v (%d)", percentile(sorted, 50).Round(10*time.Microsecond),
		percentile(sorted, 99).Round(10*time.Microsecond), percentile(sorted, 100).Round(10*time.Microsecond), len(s))
}

func (s sample) percentile(percent int) time.Duration { return percentile(slices.Clone(s), percent) }

// sizes adds up the files of a data directory by kind.
func sizes(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		kind := "other"
		switch name := d.Name(); {
		case name == "sekisho.db":
			kind = "database"
		case name == "sekisho.db-wal":
			kind = "WAL"
		case strings.Contains(path, "/journal/"):
			kind = "journal"
		case strings.HasSuffix(name, "-delta.crl"):
			kind = "deltas"
		case strings.HasSuffix(name, ".crl") && filepath.Base(filepath.Dir(path)) == "crl":
			kind = "whole lists"
		case strings.HasSuffix(name, ".crl"):
			kind = "shards"
		}
		out[kind] += info.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
