package main

import (
	"fmt"
	"os"

	"sekisho/bench/internal/crlload"
	"sekisho/bench/internal/load"
	"sekisho/bench/internal/report"
)

// ran takes in what one run found, and says so. A cell with an error is not run again.
func ran(c *report.Cell, list string, r load.Result, err error) {
	if err != nil {
		c.Error = err.Error()
		fmt.Fprintf(os.Stderr, "%-9s %-8s %s%v\n", c.Row, c.Server, list, err)
		return
	}
	c.Runs = append(c.Runs, r)
	fmt.Fprintf(os.Stderr, "%-9s %-8s %s%8.0f/s %8.1f µs CPU  p99 %.2f ms  server %3.0f%%  load %3.0f%%  errors %d %s\n", c.Row, c.Server, list,
		r.Rate(), r.CPU(), r.P99, 100*r.ServerCPU/r.Seconds, 100*r.ClientCPU/r.Seconds, r.Errors, r.FirstErr)
}

// loaded is the same for one load of a list.
func loaded(l *report.Load, r crlload.Result, err error) {
	if err != nil {
		l.Error = err.Error()
		fmt.Fprintf(os.Stderr, "%-20s %s %v\n", l.By, listed(l.Entries), err)
		return
	}
	l.Runs = append(l.Runs, r)
	fmt.Fprintf(os.Stderr, "%-20s %s %8.1f ms %8.1f ms CPU  peak %.0f MiB  anonymous %.1f MiB  file %.1f MiB", l.By, listed(l.Entries),
		r.Wall, r.CPU, float64(r.Peak)/(1<<20), float64(r.Anon)/(1<<20), float64(r.File)/(1<<20))
	if r.Hit != nil && r.Miss != nil {
		fmt.Fprintf(os.Stderr, "  hit %.0f ns  miss %.0f ns", r.Hit.Nanos, r.Miss.Nanos)
	}
	fmt.Fprintln(os.Stderr)
}

// listed is the length of a list in a line of progress.
func listed(entries int) string {
	if entries == report.NoList {
		return "without a list  "
	}
	return fmt.Sprintf("%8d entries", entries)
}
