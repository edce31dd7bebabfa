package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"sekisho/bench/internal/crlload"
	"sekisho/bench/internal/load"
	"sekisho/bench/internal/peer"
	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/proc"
	"sekisho/bench/internal/report"
)

// crlRows is the name for -only of everything about revocation lists.
const crlRows = "crl"

// The lengths of the lists. Only sekisho loads the longest: the others take minutes, or more memory than there is.
const (
	short   = 100_000
	long    = 1_000_000
	longest = 10_000_000
)

// lists are the lists of a run by their length, all by the root of the run.
type lists map[int]peer.CRL

// makeLists writes them to the run's folder.
func makeLists(dir string) (lists, error) {
	revoked, err := pki.LoadRevoked(dir)
	if err != nil {
		return nil, err
	}
	all := lists{report.NoList: {}}
	for _, n := range []int{0, short, long, longest} {
		fmt.Fprintf(os.Stderr, "making a list of %d entries\n", n)
		var l peer.CRL
		if l.List, err = pki.MakeList(dir, n); err != nil {
			return nil, err
		}
		if n < longest {
			if l.ListPEM, err = pki.ListPEM(l.List); err != nil {
				return nil, err
			}
		}
		if n > 0 {
			l.Revoked = &revoked
		}
		all[n] = l
	}
	debug.FreeOSMemory() // children must not be measured with what is left of it
	return all, nil
}

// measureCRL measures everything about lists. What was found before an error is returned with it.
func (o options) measureCRL(ctx context.Context, dir string) (*report.CRL, error) {
	all, err := makeLists(dir)
	if err != nil {
		return nil, err
	}
	// From here this program only asks and waits: not on the server's processor. Its children say for themselves.
	if out, err := exec.CommandContext(ctx, "taskset", "-a", "-c", "-p", o.loadAt, strconv.Itoa(os.Getpid())).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("taskset: %w: %s", err, bytes.TrimSpace(out))
	}
	r := new(report.CRL)
	for _, n := range []int{short, long, longest} {
		if r.Loads, err = o.loads(ctx, r.Loads, n, all[n], dir); err != nil {
			return r, err
		}
	}
	if err := os.Remove(all[longest].List); err != nil { // it is large
		return r, err
	}
	if r.Loads, err = o.starts(ctx, r.Loads, all, dir); err != nil {
		return r, err
	}
	r.Handshakes, err = o.handshakes(ctx, all, dir)
	return r, err
}

// loads measures the loaders that are processes of their own.
func (o options) loads(ctx context.Context, have []report.Load, n int, l peer.CRL, dir string) ([]report.Load, error) {
	info, err := os.Stat(l.List)
	if err != nil {
		return have, err
	}
	var cells []report.Load
	for _, by := range []string{crlload.Sekisho, crlload.Stdlib, crlload.OpenSSL} {
		if n < longest || by == crlload.Sekisho {
			cells = append(cells, report.Load{By: by, Entries: n, Bytes: info.Size()})
		}
	}
	for range o.runs {
		for i := range cells {
			c := &cells[i]
			if c.Error != "" {
				continue
			}
			result, err := o.loadOnce(ctx, *c, l.List, dir)
			if ctx.Err() != nil {
				return append(have, cells...), ctx.Err()
			}
			loaded(c, result, err)
		}
	}
	return append(have, cells...), nil
}

// loadOnce runs one loader in a process of its own, pinned to the server's processor.
func (o options) loadOnce(ctx context.Context, c report.Load, list, dir string) (crlload.Result, error) {
	var result crlload.Result
	work, err := os.MkdirTemp(dir, "load-")
	if err != nil {
		return result, err
	}
	defer os.RemoveAll(work)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "taskset", "-c", o.serverAt, o.peer.Self, "crl-load", "-by", c.By, "-list", list, "-ca", o.peer.Files.CA,
		"-entries", strconv.Itoa(c.Entries), "-dir", work, "-openssl", o.peer.OpenSSL)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return result, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return result, json.Unmarshal(out, &result)
}

// runCRLLoad is that process; it writes a crlload.Result as JSON.
func runCRLLoad(ctx context.Context, args []string) error {
	var c crlload.Config
	fs := flag.NewFlagSet("crl-load", flag.ContinueOnError)
	fs.StringVar(&c.By, "by", "", "")
	fs.StringVar(&c.List, "list", "", "")
	fs.StringVar(&c.CA, "ca", "", "")
	fs.IntVar(&c.Entries, "entries", 0, "")
	fs.StringVar(&c.Dir, "dir", "", "")
	fs.StringVar(&c.OpenSSL, "openssl", "openssl", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	result, err := crlload.Run(ctx, c)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// starts measures how long servers take until they answer with a list, and nginx to take it in anew.
func (o options) starts(ctx context.Context, have []report.Load, all lists, dir string) ([]report.Load, error) {
	var cells []report.Load
	for _, n := range []int{report.NoList, short, long} {
		for _, by := range []string{report.SekishoStart, report.NginxStart, report.NginxReload} {
			if c := (report.Load{By: by, Entries: n}); slices.Contains(o.servers, c.Server()) {
				cells = append(cells, c)
			}
		}
	}
	empty := map[string]proc.Memory{} // of a server without a list, in the same round
	for range o.runs {
		for i := range cells {
			c := &cells[i]
			if c.Error != "" {
				continue
			}
			l := all[c.Entries]
			result, memory, err := o.startOnce(ctx, *c, l, dir)
			if ctx.Err() != nil {
				return append(have, cells...), ctx.Err()
			}
			if c.Entries == report.NoList {
				empty[c.By] = memory
			}
			result.Anon, result.File = memory.PSSAnon-empty[c.By].PSSAnon, memory.RssFile-empty[c.By].RssFile
			loaded(c, result, err)
		}
	}
	return append(have, cells...), nil
}

// startOnce starts a server, and makes it reload if that is what is measured.
func (o options) startOnce(ctx context.Context, c report.Load, l peer.CRL, dir string) (r crlload.Result, m proc.Memory, err error) {
	if o.peer.Dir, err = os.MkdirTemp(dir, "start-"); err != nil {
		return r, m, err
	}
	defer os.RemoveAll(o.peer.Dir)
	o.peer.CRL = &l
	o.peer.Answered = func(p *peer.Peer) error {
		cpu, err := proc.CPUSeconds(p.PID)
		if err != nil {
			return err
		}
		if m, err = proc.MemoryOf(p.PID); err != nil {
			return err
		}
		r = crlload.Result{Wall: float64(p.Started.Microseconds()) / 1000, CPU: 1000 * cpu, Peak: max(m.PSS, m.Peak)}
		return nil
	}
	server, err := peer.Start(ctx, c.Server(), o.peer)
	if err != nil {
		return r, m, err
	}
	defer server.Stop()
	if c.By == report.NginxReload {
		return reload(ctx, server)
	}
	return r, m, nil
}

// reload measures the time of one reload, and the memory at its worst in another, because to look costs time.
func reload(ctx context.Context, server *peer.Peer) (r crlload.Result, m proc.Memory, err error) {
	took, cpu, err := server.Reload(ctx, nil)
	if err != nil {
		return r, m, err
	}
	r = crlload.Result{Wall: float64(took.Microseconds()) / 1000, CPU: 1000 * cpu}
	var failed error
	_, _, err = server.Reload(ctx, func() {
		now, err := proc.MemoryOf(server.PID)
		failed = errors.Join(failed, err)
		r.Peak = max(r.Peak, now.PSS)
	})
	if err = errors.Join(err, failed); err != nil {
		return r, m, err
	}
	m, err = proc.MemoryOf(server.PID)
	return r, m, err
}

// handshakes measures full handshakes under lists of every length, sekisho beside nginx. What certificates seen before
// save is measured without a list and with the longest.
func (o options) handshakes(ctx context.Context, all lists, dir string) ([]report.Listed, error) {
	var cells []report.Listed
	for _, n := range []int{report.NoList, 0, short, long} {
		for _, c := range []report.Cell{
			{Row: load.FullNew, Server: "sekisho"}, {Row: load.FullSeen, Server: "sekisho"}, {Row: load.FullNew, Server: "nginx"},
		} {
			if slices.Contains(o.servers, c.Server) && (c.Row == load.FullNew || n == report.NoList || n == long) {
				cells = append(cells, report.Listed{Cell: c, Entries: n})
			}
		}
	}
	for run := range o.runs {
		for i := range cells {
			c := &cells[i]
			if c.Error != "" {
				continue
			}
			l := all[c.Entries]
			o.peer.CRL = &l
			work := filepath.Join(dir, fmt.Sprintf("crl-%s-%s-%d-%d", c.Row, c.Server, c.Entries, run))
			result, err := o.once(ctx, c.Cell, work, dir, func(p *peer.Peer) error {
				m, err := proc.MemoryOf(p.PID)
				c.Memory = append(c.Memory, m)
				return err
			})
			if ctx.Err() != nil {
				return cells, ctx.Err()
			}
			ran(&c.Cell, listed(c.Entries)+" ", result, err)
		}
	}
	return cells, nil
}

// openSSLVersion is what the command says of itself.
func openSSLVersion(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "version").Output()
	if err != nil {
		return "not there"
	}
	return string(bytes.TrimSpace(out))
}
