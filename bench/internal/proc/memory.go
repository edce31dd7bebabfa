package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is what a process and its descendants take, in bytes. What two of them share counts twice in the Rss fields
// and once in the PSS fields.
type Memory struct {
	RssAnon int64 `json:"rss_anon"`
	RssFile int64 `json:"rss_file"` // pages of mapped files: programs, and lists that are mapped
	PSS     int64 `json:"pss"`
	PSSAnon int64 `json:"pss_anon"`
	Peak    int64 `json:"peak"` // VmHWM: the highest RSS that one of them has had
}

// MemoryOf adds up the process and its descendants.
func MemoryOf(pid int) (Memory, error) {
	tree, err := Tree(pid)
	if err != nil {
		return Memory{}, err
	}
	var sum Memory
	for id := range tree {
		one, err := memoryOfOne(id)
		switch {
		case err == nil:
			sum.RssAnon += one.RssAnon
			sum.RssFile += one.RssFile
			sum.PSS += one.PSS
			sum.PSSAnon += one.PSSAnon
			sum.Peak = max(sum.Peak, one.Peak)
		case id == pid:
			return sum, err
		} // a descendant has ended since
	}
	return sum, nil
}

// memoryOfOne reads one process. The kernel counts RssAnon and RssFile as it goes and walks the pages for the rest.
func memoryOfOne(pid int) (Memory, error) {
	status, err := fields(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	rollup, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return Memory{}, err
	}
	return Memory{
		RssAnon: status["RssAnon"], RssFile: status["RssFile"], Peak: status["VmHWM"],
		PSS: rollup["Pss"], PSSAnon: rollup["Pss_Anon"],
	}, nil
}

// fields reads the lines "Name: N kB" of a file; the values are in bytes.
func fields(file string) (map[string]int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	values := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if number, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB"); ok {
			if kb, err := strconv.ParseInt(number, 10, 64); err == nil {
				values[name] = kb << 10
			}
		}
	}
	return values, nil
}
