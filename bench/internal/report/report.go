// Package report turns the runs of a benchmark into one table: medians with their spread, and each server's rate and
// CPU time beside the bare Go proxy's from the same interleaved runs. It judges nothing; ratios are for people.
//
//	r.Markdown(os.Stdout)
package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"sekisho/bench/internal/load"
)

// Baseline is the server that every ratio of a row is taken against.
func Baseline(row load.Row) string {
	switch row {
	case load.OCSPGet, load.OCSPNonce:
		return "openssl"
	case load.Issue1, load.Issue16:
		return "cfssl"
	}
	return "bare"
}

// Report is everything a benchmark found; it is what results.json holds.
type Report struct {
	Date     string            `json:"date"`
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Seconds  float64           `json:"seconds"` // of each run
	Cells    []Cell            `json:"cells"`
	CRL      *CRL              `json:"crl,omitempty"`
}

// Cell is one server at one kind of work.
type Cell struct {
	Row    load.Row      `json:"row"`
	Server string        `json:"server"`
	Runs   []load.Result `json:"runs"`
	Error  string        `json:"error,omitempty"` // why there are no runs, or fewer
}

// title is a row for people.
func title(r load.Row) string {
	switch r {
	case load.FullNew:
		return "full mTLS handshakes, TLS 1.3, ECDSA P-256, certificates never seen"
	case load.FullSeen:
		return "full mTLS handshakes, TLS 1.3, ECDSA P-256, 1,000 certificates seen before"
	case load.Resumed:
		return "resumed handshakes, TLS 1.3"
	case load.HTTP1:
		return "keep-alive requests, HTTP/1.1, 64 connections, 1 KiB"
	case load.HTTP2:
		return "keep-alive requests, HTTP/2, 64 connections, 1 KiB"
	case load.OCSPGet:
		return "OCSP answers by GET about 1,000 certificates, 16 in flight, connections kept where the server keeps them"
	case load.OCSPNonce:
		return "OCSP answers by POST, signed live for a nonce, ECDSA P-256, 16 in flight"
	case load.Issue1:
		return "certificates by API for one P-256 CSR, one in flight (sekisho: linted, durable, audited; cfssl: none of them)"
	case load.Issue16:
		return "the same, 16 in flight"
	}
	return string(r)
}

// spread is a median with its extremes.
type spread struct{ mid, low, high float64 }

func (s spread) text(format string) string {
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.mid, s.low, s.high)
}

// over collects one figure of each run.
func (c Cell) over(figure func(load.Result) float64) spread { return over(c.Runs, figure) }

// beside is the median, with its extremes, of the ratios to another server round by round: the machine is as fast for the one
// as for the other in the same minute, and may be half as fast in the next.
func (c Cell) beside(base Cell, ratio func(own, other load.Result) float64) string {
	var ratios []float64
	for i := range min(len(c.Runs), len(base.Runs)) {
		if x := ratio(c.Runs[i], base.Runs[i]); x > 0 && !math.IsInf(x, 0) {
			ratios = append(ratios, x)
		}
	}
	if len(ratios) == 0 {
		return "–"
	}
	return over(ratios, func(x float64) float64 { return x }).text("%.2f")
}

func faster(own, other load.Result) float64 { return own.Rate() / other.Rate() }

func cheaper(own, other load.Result) float64 { return other.CPU() / own.CPU() }

func over[T any](runs []T, figure func(T) float64) spread {
	var v []float64
	for _, r := range runs {
		v = append(v, figure(r))
	}
	if len(v) == 0 {
		return spread{}
	}
	slices.Sort(v)
	return spread{v[len(v)/2], v[0], v[len(v)-1]}
}

// Markdown writes the report as RESULTS.md holds it.
func (r Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Results of `make bench`\n\n%s, %s. Each run %g s; medians of interleaved runs (min–max).\n", r.Date, r.Machine, r.Seconds)
	b.WriteString(`
The server alone on CPU 0 (taskset, GOMAXPROCS=1, one worker), load generator and upstream on CPU 1. **µs CPU** is the
server's own CPU time for each operation, children included: it holds when the rate sags. **× bare** is the ratio to
` + "`httputil.ReverseProxy` behind `RequireAndVerifyClientCert`" + ` in the same round, the median of the rounds: above 1.00 is
faster, cheaper. A handshake counts only once the server has answered our close_notify with its own end of stream.

`)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, cmp.Or(r.Versions[name], "unknown"))
	}
	var row load.Row
	for _, c := range r.Cells {
		if c.Row != row {
			row = c.Row
			fmt.Fprintf(&b, "\n## %s\n\n", title(row))
			fmt.Fprintf(&b, "| server | ops/s | × %[1]s | µs CPU/op | × %[1]s | p50 / p99 ms | server CPU | note |\n|---|---|---|---|---|---|---|---|\n", Baseline(row))
		}
		r.line(&b, c)
	}
	if r.CRL != nil {
		r.CRL.markdown(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// line writes one server's figures.
func (r Report) line(b *strings.Builder, c Cell) {
	if len(c.Runs) == 0 {
		fmt.Fprintf(b, "| %s | – | – | – | – | – | – | %s |\n", c.Server, oneLine(c.Error))
		return
	}
	base := r.find(c.Row, Baseline(c.Row))
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %.2f / %.2f | %.0f%% | %s |\n", c.Server,
		c.over(load.Result.Rate).text("%.0f"), c.beside(base, faster), c.over(load.Result.CPU).text("%.1f"), c.beside(base, cheaper),
		c.over(func(r load.Result) float64 { return r.P50 }).mid, c.over(func(r load.Result) float64 { return r.P99 }).mid,
		100*c.over(func(r load.Result) float64 { return r.ServerCPU / r.Seconds }).mid, c.note())
}

// note says what a reader must know to believe the figures.
func (c Cell) note() string {
	var notes []string
	resumed := c.over(func(r load.Result) float64 { return 100 * float64(r.Resumed) / float64(max(r.Ops, 1)) }).mid
	if c.Row == load.Resumed && resumed < 99.9 {
		notes = append(notes, fmt.Sprintf("resumed only %.0f%%: the rest were full handshakes", resumed))
	}
	errs := 0
	for _, r := range c.Runs {
		if errs += r.Errors; r.FirstErr != "" && len(notes) < 3 {
			notes = append(notes, oneLine(r.FirstErr))
		}
	}
	if errs > 0 {
		notes = append(notes, fmt.Sprintf("**%d errors**", errs))
	}
	if client := c.over(func(r load.Result) float64 { return r.ClientCPU / r.Seconds }).mid; client > 0.9 {
		notes = append(notes, fmt.Sprintf("the load generator's core was the limit too (%.0f%%)", 100*client))
	}
	if c.Error != "" {
		notes = append(notes, oneLine(c.Error))
	}
	return strings.Join(notes, "; ")
}

// find returns the cell of a row and server, empty when it was not measured.
func (r Report) find(row load.Row, server string) Cell {
	for _, c := range r.Cells {
		if c.Row == row && c.Server == server {
			return c
		}
	}
	return Cell{}
}

func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", a/b)
}

// oneLine makes a text fit a cell of the table.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "/")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}
