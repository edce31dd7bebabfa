// Command bench measures sekisho beside nginx, Caddy and a bare Go proxy on the same work in the same run, and writes
// one table. See internal/load for what counts, internal/peer for how each server is configured.
//
//	make bench
//	make bench BENCHARGS='-only full-seen,http1 -runs 1 -seconds 2 -servers sekisho,bare'
//	make bench BENCHARGS='-only crl'
//	make bench BENCHARGS='-only ocsp-get,ocsp-nonce,issue-1,issue-16 -runs 1'
//
// The rows of crl are about revocation lists: how lists are loaded, looked up, and what they cost handshakes.
//
// It needs two CPUs and taskset. It refuses to compare a server that lets clients without a certificate in.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"sekisho/bench/internal/bare"
	"sekisho/bench/internal/load"
	"sekisho/bench/internal/peer"
	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/upstream"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run is the benchmark, or one of the parts that it starts as processes of their own to pin them to a core.
func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "upstream":
			return runUpstream(ctx)
		case "bare":
			if len(args) != 6 {
				return errors.New("usage: bench bare ADDR ORIGIN CA CERT KEY")
			}
			return bare.Run(ctx, args[1], args[2], pki.Files{CA: args[3], Cert: args[4], Key: args[5]})
		case "load":
			return runLoad(args[1:])
		case "crl-load":
			return runCRLLoad(ctx, args[1:])
		}
	}
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	return measure(ctx, o)
}

// options are what a person chooses.
type options struct {
	rows     []load.Row
	crl      bool // what is about revocation lists, too
	servers  []string
	runs     int
	seconds  float64
	peer     peer.Config
	out      string // results are written to OUT/RESULTS.md and OUT/results.json; empty: only printed
	serverAt string // CPU of the server
	loadAt   string // CPU of load generator and upstream
}

// parseOptions reads the flags.
func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	all := make([]string, 0, len(load.Rows()))
	for _, r := range load.Rows() {
		all = append(all, string(r))
	}
	all = append(all, crlRows)
	only := fs.String("only", strings.Join(all, ","), "rows to measure")
	servers := fs.String("servers", strings.Join(append(peer.Names(), "openssl", "cfssl"), ","), "servers to measure, where they can do a row")
	fs.IntVar(&o.runs, "runs", 5, "runs of each row and server, interleaved")
	fs.Float64Var(&o.seconds, "seconds", 3, "length of each run")
	fs.StringVar(&o.peer.Sekisho, "sekisho", "../bin/sekisho", "path of sekisho")
	fs.StringVar(&o.peer.Caddy, "caddy", "../bin/tools/caddy", "path of caddy")
	fs.StringVar(&o.peer.Nginx, "nginx", "/usr/sbin/nginx", "path of nginx")
	fs.StringVar(&o.peer.CFSSL, "cfssl", "../bin/tools/cfssl", "path of cfssl, for the rows of OCSP and of issuing")
	fs.StringVar(&o.peer.OpenSSL, "openssl", "openssl", "path of openssl, for the rows of crl and of OCSP")
	fs.StringVar(&o.out, "out", "", "directory for RESULTS.md and results.json; empty: print only")
	fs.StringVar(&o.serverAt, "server-cpu", "0", "CPU of the server")
	fs.StringVar(&o.loadAt, "load-cpu", "1", "CPU of load generator and upstream")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	for name := range strings.SplitSeq(*only, ",") {
		if name == crlRows {
			o.crl = true
			continue
		}
		o.rows = append(o.rows, load.Row(name))
	}
	o.servers = strings.Split(*servers, ",")
	if fs.NArg() > 0 || o.runs < 1 || o.seconds <= 0 {
		return o, errors.New("usage: bench [-only ROWS] [-servers NAMES] [-runs N] [-seconds S]; -h lists all flags")
	}
	return o, nil
}

// runUpstream serves until it is told to stop. Its first line of output is its address.
func runUpstream(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return upstream.Serve(l)
}

// runLoad is one run of the load generator; it writes a load.Result as JSON.
func runLoad(args []string) error {
	var c load.Config
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	row := fs.String("row", "", "")
	dir := fs.String("dir", "", "where pki.Make wrote")
	fs.StringVar(&c.Addr, "addr", "", "")
	fs.IntVar(&c.PID, "pid", 0, "")
	fs.Float64Var(&c.Seconds, "seconds", 5, "")
	fs.StringVar(&c.Requests, "requests", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	c.Row = load.Row(*row)
	var err error
	if !c.Row.Plain() {
		if c.Clients, err = pki.LoadClients(*dir); err != nil {
			return err
		}
	}
	result, err := load.Run(c)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
