package load

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// CPUSeconds is the user and system time that a process and its descendants have used, in seconds (steps of 10 ms).
func CPUSeconds(pid int) (float64, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
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
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	ticks := 0
	for id := range all {
		for at := id; at != 0; at = all[at].parent {
			if at == pid {
				ticks += all[id].ticks
				break
			}
		}
	}
	return float64(ticks) / ticksPerSecond, nil
}

// ownCPU is what this process has used, in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}
