package report

import (
	"fmt"
	"strings"

	"sekisho/bench/internal/crlload"
	"sekisho/bench/internal/load"
	"sekisho/bench/internal/proc"
)

// NoList is the number of entries where there is no list.
const NoList = -1

// Servers that load a list, beside the loaders of crlload.
const (
	SekishoStart = "sekisho serve, start"
	NginxStart   = "nginx, start"
	NginxReload  = "nginx, reload"
)

// crlBaseline is the loader that ratios of loads and look-ups are taken against; those of handshakes are against nginx.
const crlBaseline = crlload.Stdlib

// CRL is the part of a report about revocation lists.
type CRL struct {
	Loads      []Load   `json:"loads"`
	Handshakes []Listed `json:"handshakes"`
}

// Load is one way to load a list.
type Load struct {
	By      string           `json:"by"`
	Entries int              `json:"entries"`         // NoList: the server started without one
	Bytes   int64            `json:"bytes,omitempty"` // of the list in DER
	Runs    []crlload.Result `json:"runs"`
	Error   string           `json:"error,omitempty"`
}

// Listed is one server at handshakes with a list of a length.
type Listed struct {
	Cell

	Entries int           `json:"entries"` // NoList: its CA has none
	Memory  []proc.Memory `json:"memory"`  // at the end of each run
}

// Server is the name of the server that loads, if it is one.
func (l Load) Server() string {
	return strings.FieldsFunc(l.By, func(c rune) bool { return c == ' ' || c == ',' })[0]
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// markdown writes the tables of loads, look-ups and handshakes.
func (c CRL) markdown(b *strings.Builder) {
	b.WriteString(`
## revocation lists: loading

One process for each load, alone on CPU 0; serial numbers of 16 octets; signed with ECDSA P-256, signature checked. **peak**
is the highest RSS of the process, file pages included (nginx, reload: the highest PSS of master and workers, looked for in a
second reload). **anonymous** and **file** are how much more memory of either kind there is after than before, garbage
collected (servers: than without a list); what is a page of a mapped file the kernel can take back. openssl's time, and a
server's, begins with the start of the program; a server's ends with its first answer, and a reload's with the first answer
of the new worker after the old one has left. nginx reads PEM, the others DER; openssl frees what it loaded.
`)
	last := NoList - 1
	for _, l := range c.ordered() {
		if l.Entries != last {
			last = l.Entries
			fmt.Fprintf(b, "\n### %s%s\n\n", entries(last), size(l.Bytes))
			b.WriteString("| loader | wall ms | × crypto/x509 | CPU ms | × crypto/x509 | peak MiB | × crypto/x509 | anonymous B/entry | × crypto/x509 | file MiB, after look-ups | note |\n" +
				"|---|---|---|---|---|---|---|---|---|---|---|\n")
		}
		c.loadLine(b, l)
	}
	b.WriteString(`
## revocation lists: looking up

In the same processes: a million look-ups of serial numbers drawn from the whole list, and a million of others, in
processor time. What has to be mapped in on the way is in it: sekisho reads the entry of a hit from its mapped copy.

| index | entries | hit ns | × crypto/x509 | allocations | miss ns | × crypto/x509 | allocations |
|---|---|---|---|---|---|---|---|
`)
	for _, l := range c.Loads {
		c.lookupLine(b, l)
	}
	if len(c.Handshakes) > 0 {
		c.handshakes(b)
	}
}

// handshakes writes their table.
func (c CRL) handshakes(b *strings.Builder) {
	b.WriteString(`
## full mTLS handshakes with a revocation list, TLS 1.3, ECDSA P-256

Clients whose certificates are not on the list; that one on it is refused is checked before each run. **× none** is the
server's own CPU time without a list to that with it. Memory at the end of the run: PSS counts once what nginx's master and
worker share, RssAnon and RssFile twice.

| server | list | ops/s | × nginx | µs CPU/op | × nginx | × none | p50 / p99 ms | server CPU | PSS, its anonymous part, MiB | RssAnon, RssFile MiB | note |
|---|---|---|---|---|---|---|---|---|---|---|---|
`)
	for _, l := range c.Handshakes {
		c.handshakeLine(b, l)
	}
}

// ordered are the loads by the length of the list, in the order of each length.
func (c CRL) ordered() []Load {
	var all []Load
	seen := map[int]bool{}
	for _, first := range c.Loads {
		for _, l := range c.Loads {
			if l.Entries == first.Entries && !seen[first.Entries] {
				all = append(all, l)
			}
		}
		seen[first.Entries] = true
	}
	return all
}

func (c CRL) loadLine(b *strings.Builder, l Load) {
	if len(l.Runs) == 0 {
		fmt.Fprintf(b, "| %s | – | – | – | – | – | – | – | – | – | %s |\n", l.By, oneLine(l.Error))
		return
	}
	base := c.load(crlBaseline, l.Entries)
	column := func(figure func(crlload.Result) float64) {
		mine := over(l.Runs, figure)
		fmt.Fprintf(b, " %s | %s |", mine.text("%.1f"), ratio(over(base.Runs, figure).mid, mine.mid))
	}
	fmt.Fprintf(b, "| %s |", l.By)
	column(func(r crlload.Result) float64 { return r.Wall })
	column(func(r crlload.Result) float64 { return r.CPU })
	column(func(r crlload.Result) float64 { return mib(r.Peak) })
	if l.By == crlload.OpenSSL || l.Entries <= 0 {
		b.WriteString(" – | – | – |")
	} else {
		column(func(r crlload.Result) float64 { return float64(r.Anon) / float64(l.Entries) })
		fmt.Fprintf(b, " %.1f", over(l.Runs, func(r crlload.Result) float64 { return mib(r.File) }).mid)
		if used := over(l.Runs, func(r crlload.Result) float64 { return mib(r.Used) }).mid; used > 0 {
			fmt.Fprintf(b, ", %.1f", used)
		}
		b.WriteString(" |")
	}
	fmt.Fprintf(b, " %s |\n", oneLine(l.Error))
}

func (c CRL) lookupLine(b *strings.Builder, l Load) {
	if len(l.Runs) == 0 || l.Runs[0].Hit == nil || l.Runs[0].Miss == nil {
		return
	}
	base := c.load(crlBaseline, l.Entries)
	fmt.Fprintf(b, "| %s | %s |", l.By, thousands(l.Entries))
	for _, kind := range []func(crlload.Result) crlload.Lookup{
		func(r crlload.Result) crlload.Lookup { return *r.Hit }, func(r crlload.Result) crlload.Lookup { return *r.Miss },
	} {
		nanos := func(r crlload.Result) float64 { return kind(r).Nanos }
		mine := over(l.Runs, nanos)
		fmt.Fprintf(b, " %s | %s | %.2f |", mine.text("%.0f"), ratio(over(base.Runs, nanos).mid, mine.mid),
			over(l.Runs, func(r crlload.Result) float64 { return kind(r).Allocs }).mid)
	}
	b.WriteString("\n")
}

func (c CRL) handshakeLine(b *strings.Builder, l Listed) {
	name := l.Server
	if l.Server == "sekisho" {
		name += map[bool]string{true: ", certificates never seen", false: ", 1,000 seen before"}[l.Row == load.FullNew]
	}
	if len(l.Runs) == 0 {
		fmt.Fprintf(b, "| %s | %s | – | – | – | – | – | – | – | – | – | %s |\n", name, entries(l.Entries), oneLine(l.Error))
		return
	}
	nginx := c.listed(load.FullNew, "nginx", l.Entries)
	memory := func(figure func(proc.Memory) int64) string {
		return fmt.Sprintf("%.1f", over(l.Memory, func(m proc.Memory) float64 { return mib(figure(m)) }).mid)
	}
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %.2f / %.2f | %.0f%% | %s, %s | %s, %s | %s |\n", name, entries(l.Entries),
		l.over(load.Result.Rate).text("%.0f"), l.beside(nginx.Cell, faster),
		l.over(load.Result.CPU).text("%.1f"), l.beside(nginx.Cell, cheaper), l.beside(c.listed(l.Row, l.Server, NoList).Cell, cheaper),
		l.over(func(r load.Result) float64 { return r.P50 }).mid, l.over(func(r load.Result) float64 { return r.P99 }).mid,
		100*l.over(func(r load.Result) float64 { return r.ServerCPU / r.Seconds }).mid,
		memory(func(m proc.Memory) int64 { return m.PSS }), memory(func(m proc.Memory) int64 { return m.PSSAnon }),
		memory(func(m proc.Memory) int64 { return m.RssAnon }), memory(func(m proc.Memory) int64 { return m.RssFile }), l.note())
}

// load returns the cell of a loader and a length, empty when it was not measured.
func (c CRL) load(by string, entries int) Load {
	for _, l := range c.Loads {
		if l.By == by && l.Entries == entries {
			return l
		}
	}
	return Load{}
}

// listed returns the cell of a server and a length, empty when it was not measured.
func (c CRL) listed(row load.Row, server string, entries int) Listed {
	for _, l := range c.Handshakes {
		if l.Row == row && l.Server == server && l.Entries == entries {
			return l
		}
	}
	return Listed{}
}

// entries is the length of a list for people.
func entries(n int) string {
	if n == NoList {
		return "none"
	}
	return thousands(n) + " entries"
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func size(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf(", %.1f MB in DER", float64(bytes)/1e6)
}
