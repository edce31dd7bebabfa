package report_test

import (
	"strings"
	"testing"

	"sekisho/bench/internal/crlload"
	"sekisho/bench/internal/load"
	"sekisho/bench/internal/proc"
	"sekisho/bench/internal/report"
)

// TestCRLTables pins which way the ratios of the tables of lists go, and what they are taken against.
func TestCRLTables(t *testing.T) {
	runs := func(wall ...float64) (all []crlload.Result) {
		for _, w := range wall {
			all = append(all, crlload.Result{
				Wall: w, CPU: w, Peak: int64(w) << 20, Anon: int64(w) * 1000, File: 1 << 20, Used: 3 << 20,
				Hit: &crlload.Lookup{Nanos: w, Allocs: 0}, Miss: &crlload.Lookup{Nanos: w / 2, Allocs: 2},
			})
		}
		return all
	}
	cell := func(row load.Row, server string, entries, ops int) report.Listed {
		return report.Listed{
			Cell:    report.Cell{Row: row, Server: server, Runs: []load.Result{{Ops: ops, Seconds: 1, ServerCPU: 1}}},
			Entries: entries, Memory: []proc.Memory{{RssAnon: 4 << 20, RssFile: 3 << 20, PSS: 2 << 20, PSSAnon: 1 << 20}},
		}
	}
	r := report.Report{CRL: &report.CRL{
		Loads: []report.Load{
			{By: crlload.Sekisho, Entries: 1000, Bytes: 35_000, Runs: runs(12, 10, 11)},
			{By: crlload.Stdlib, Entries: 1000, Bytes: 35_000, Runs: runs(110)},
			{By: report.NginxStart, Entries: report.NoList, Error: "no program | nginx"},
		},
		Handshakes: []report.Listed{
			cell(load.FullNew, "sekisho", report.NoList, 1000), cell(load.FullNew, "sekisho", 1_000_000, 500), cell(load.FullNew, "nginx", 1_000_000, 10),
		},
	}}
	var b strings.Builder
	if err := r.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"### 1,000 entries, 0.0 MB in DER\n",
		"| sekisho | 11.0 (10.0–12.0) | 10.00 | 11.0 (10.0–12.0) | 10.00 | 11.0 (10.0–12.0) | 10.00 | 11.0 (10.0–12.0) | 10.00 | 1.0, 3.0 |  |\n",
		"| nginx, start | – | – | – | – | – | – | – | – | – | no program / nginx |\n",
		"| sekisho | 1,000 | 11 (10–12) | 10.00 | 0.00 | 6 (5–6) | 10.00 | 2.00 |\n",
		"| sekisho, certificates never seen | 1,000,000 entries | 500 (500–500) | 50.00 (50.00–50.00) | 2000.0 (2000.0–2000.0) | 50.00 (50.00–50.00) | 0.50 (0.50–0.50) | 0.00 / 0.00 | 100% | 2.0, 1.0 | 4.0, 3.0 |  |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks %q\n%s", want, b.String())
		}
	}
}
