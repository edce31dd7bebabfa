package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sekisho/bench/internal/load"
	"sekisho/bench/internal/peer"
	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/report"
)

// handshakesPerSecond bounds how many never-seen certificates a run can use.
const handshakesPerSecond = 4500

// measure runs every row on every server in turn and writes the report.
func measure(ctx context.Context, o options) error {
	if runtime.NumCPU() < 2 {
		return errors.New("the server and the load generator need a CPU each: this machine has one")
	}
	if _, err := exec.LookPath("taskset"); err != nil {
		return fmt.Errorf("taskset pins processes to CPUs; install util-linux: %w", err)
	}
	dir, err := os.MkdirTemp("", "sekisho-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := o.setUp(ctx, dir); err != nil {
		return err
	}
	origin, stop, err := startUpstream(ctx, o)
	if err != nil {
		return err
	}
	defer stop()
	o.peer.Origin = origin

	r := report.Report{
		Date: time.Now().UTC().Format(time.DateOnly), Machine: machine(), Seconds: o.seconds, Versions: map[string]string{},
	}
	for _, name := range o.servers {
		r.Versions[name] = peer.Version(ctx, name, o.peer)
	}
	for _, row := range o.rows {
		cells, err := o.row(ctx, row, dir)
		r.Cells = append(r.Cells, cells...)
		if err != nil {
			return err
		}
	}
	if o.crl {
		r.Versions["openssl"] = openSSLVersion(ctx, o.peer.OpenSSL)
		if r.CRL, err = o.measureCRL(ctx, dir); err != nil {
			return err
		}
	}
	return o.write(r)
}

// setUp makes paths absolute and the certificates.
func (o *options) setUp(ctx context.Context, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.peer.Self, o.peer.CPU = self, o.serverAt
	for _, p := range []*string{&o.peer.Sekisho, &o.peer.Caddy, &o.peer.Nginx, &o.peer.CFSSL} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	n := 1000
	if o.crl || slices.Contains(o.rows, load.FullNew) {
		n = max(n, int(handshakesPerSecond*(o.seconds+1)))
	}
	fmt.Fprintf(os.Stderr, "making %d client certificates\n", n)
	if o.peer.Files, err = pki.Make(dir, n); err != nil {
		return err
	}
	clients, err := pki.LoadClients(dir)
	if err != nil {
		return err
	}
	o.peer.Client = clients[n-1]
	return ctx.Err()
}

// startUpstream starts the origin on the load generator's CPU.
func startUpstream(ctx context.Context, o options) (addr string, stop func(), err error) {
	cmd := exec.CommandContext(ctx, "taskset", "-c", o.loadAt, o.peer.Self, "upstream")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill() // it keeps nothing
		_ = cmd.Wait()         // says that it was killed
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("the upstream said no address: %w", err)
	}
	return strings.TrimSpace(line), stop, nil
}

// row measures one row, server after server, o.runs times. A server that fails is noted and the others go on.
func (o options) row(ctx context.Context, row load.Row, dir string) ([]report.Cell, error) {
	var cells []report.Cell
	for _, name := range able(row) {
		if slices.Contains(o.servers, name) {
			cells = append(cells, report.Cell{Row: row, Server: name})
		}
	}
	for run := range o.runs {
		for i := range cells {
			c := &cells[i]
			if c.Error != "" {
				continue
			}
			result, err := o.once(ctx, *c, filepath.Join(dir, fmt.Sprintf("%s-%s-%d", row, c.Server, run)), dir, nil)
			if ctx.Err() != nil {
				return cells, ctx.Err()
			}
			ran(c, "", result, err)
		}
	}
	return cells, nil
}

// able are the servers that can do a row.
func able(row load.Row) []string {
	if row.Plain() {
		return peer.PlainNames(row)
	}
	return peer.Names()
}

// once starts a server anew, so that it has seen no certificate, and loads it once. after, if it is not nil, sees the
// server once more before it ends.
func (o options) once(ctx context.Context, c report.Cell, work, certs string, after func(*peer.Peer) error) (load.Result, error) {
	var result load.Result
	if err := os.Mkdir(work, 0o755); err != nil {
		return result, err
	}
	o.peer.Dir = work
	server, requests, err := o.start(ctx, c, work)
	if err != nil {
		return result, err
	}
	defer server.Stop()
	cmd := exec.CommandContext(ctx, "taskset", "-c", o.loadAt, o.peer.Self, "load", "-row", string(c.Row), "-addr", server.Addr,
		"-pid", strconv.Itoa(server.PID), "-dir", certs, "-seconds", fmt.Sprint(o.seconds), "-requests", requests)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return result, fmt.Errorf("load generator: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	if err := json.Unmarshal(out, &result); err != nil || after == nil {
		return result, err
	}
	return result, after(server)
}

// start starts a server; of a plain row it also writes the file of requests.
func (o options) start(ctx context.Context, c report.Cell, work string) (server *peer.Peer, requests string, err error) {
	if !c.Row.Plain() {
		server, err = peer.Start(ctx, c.Server, o.peer)
		return server, "", err
	}
	server, all, err := peer.StartPlain(ctx, c.Server, c.Row, o.peer)
	if err != nil {
		return nil, "", err
	}
	requests = filepath.Join(work, "requests.bin")
	if err := load.WriteRequests(requests, all); err != nil {
		server.Stop()
		return nil, "", err
	}
	return server, requests, nil
}

// write prints the table and keeps it.
func (o options) write(r report.Report) error {
	out := io.Writer(os.Stdout)
	if o.out == "" {
		return r.Markdown(out)
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "results.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	var table bytes.Buffer
	if err := r.Markdown(io.MultiWriter(out, &table)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "RESULTS.md"), table.Bytes(), 0o644)
}

// machine is the processor and kernel, in one line.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "unknown kernel"
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = "Linux " + strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%d CPUs (%s), %s", runtime.NumCPU(), model, kernel)
}
