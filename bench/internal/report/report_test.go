package report_test

import (
	"strings"
	"testing"

	"sekisho/bench/internal/load"
	"sekisho/bench/internal/report"
)

// TestRatiosAreOfRounds: a machine that is half as fast in one round changes no ratio, though it changes every figure.
func TestRatiosAreOfRounds(t *testing.T) {
	runs := func(ops ...int) (all []load.Result) {
		for _, n := range ops {
			all = append(all, load.Result{Ops: n, Seconds: 1, ServerCPU: 1})
		}
		return all
	}
	r := report.Report{Cells: []report.Cell{
		{Row: load.FullSeen, Server: "sekisho", Runs: runs(1200, 600, 2600)},
		{Row: load.FullSeen, Server: "bare", Runs: runs(1000, 500, 2000)},
		{Row: load.FullSeen, Server: "caddy", Runs: runs(100)},
	}}
	var b strings.Builder
	if err := r.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| sekisho | 1200 (600–2600) | 1.20 (1.20–1.30) |",
		"| bare | 1000 (500–2000) | 1.00 (1.00–1.00) |",
		"| caddy | 100 (100–100) | 0.10 (0.10–0.10) |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q\n%s", want, b.String())
		}
	}
}
