// Package proc reads from /proc what a process and its descendants cost: processor time and memory.
//
//	cpu, err := proc.CPUSeconds(pid)
//	memory, err := proc.MemoryOf(pid)
package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// Tree is the user and system time in seconds (steps of 10 ms) that a process and each of its descendants have used,
// by process id.
func Tree(pid int) (map[int]float64, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	type process struct{ parent, ticks int }
	all := map[int]process{}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended since
		}
		// proc(5): the command in parentheses may hold anything, so count from its end. Fields 4, 14 and 15.
		_, rest, _ := strings.Cut(string(b), " (")
		f := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if len(f) < 13 {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, _ := strconv.Atoi(f[1])
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		all[id] = process{parent, user + system}
	}
	if _, ok := all[pid]; !ok {
		return nil, fmt.Errorf("process %d is gone", pid)
	}
	tree := map[int]float64{}
	for id := range all {
		for at := id; at != 0; at = all[at].parent {
			if at == pid {
				tree[id] = float64(all[id].ticks) / ticksPerSecond
				break
			}
		}
	}
	return tree, nil
}

// CPUSeconds is the user and system time that a process and its descendants have used, in seconds (steps of 10 ms).
func CPUSeconds(pid int) (float64, error) {
	tree, err := Tree(pid)
	var sum float64
	for _, seconds := range tree {
		sum += seconds
	}
	return sum, err
}

// OwnCPU is the user and system time that this process has used, without its children.
func OwnCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
