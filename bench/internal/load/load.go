// Package load is the load generator. It costs as little as it can, so that the server is the limit: crypto/tls for
// the handshakes, and HTTP/1.1 and HTTP/2 written and read by hand. It does not verify the server's chain.
//
// A handshake counts only once the server has answered our close_notify with its own end of stream: in TLS 1.3 the
// client is done before the server has looked at the client certificate. A request counts when its status is 200 and
// its body is whole. Anything else is an error, and a run with errors is worthless, so [Result] says how many.
//
//	result, err := load.Run(load.Config{Row: load.FullSeen, Addr: addr, Clients: certs, Seconds: 5, PID: pid})
package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"sekisho/bench/internal/pki"
	"sekisho/bench/internal/proc"
)

// Row is one kind of work.
type Row string

// The rows. Full handshakes are TLS 1.3 with ECDSA P-256 certificates and X25519.
const (
	FullNew  Row = "full-new"  // full handshakes, each with a certificate the server has never seen
	FullSeen Row = "full-seen" // full handshakes with 1,000 certificates, each seen before
	Resumed  Row = "resumed"   // resumed handshakes
	HTTP1    Row = "http1"     // keep-alive requests, HTTP/1.1
	HTTP2    Row = "http2"     // keep-alive requests, HTTP/2

	OCSPGet   Row = "ocsp-get"   // OCSP answers by GET, without a nonce, about 1,000 certificates in turn
	OCSPNonce Row = "ocsp-nonce" // OCSP answers by POST with a nonce, which must be signed for it
	Issue1    Row = "issue-1"    // certificates by API for one P-256 CSR, one in flight
	Issue16   Row = "issue-16"   // the same, 16 in flight
)

// Rows are all rows in the order of the table.
func Rows() []Row {
	return []Row{FullNew, FullSeen, Resumed, HTTP1, HTTP2, OCSPGet, OCSPNonce, Issue1, Issue16}
}

// Plain reports whether a row is over plain HTTP, by requests of its own.
func (r Row) Plain() bool {
	switch r {
	case OCSPGet, OCSPNonce, Issue1, Issue16:
		return true
	}
	return false
}

const (
	handshakers = 8    // handshakes in flight
	plainers    = 16   // requests in flight of the plain rows, but for Issue1
	connections = 64   // kept-alive connections, one request in flight on each
	seen        = 1000 // certificates of FullSeen
	warm        = 500 * time.Millisecond
)

// Config is one run.
type Config struct {
	Row     Row
	Addr    string            // HOST:PORT of the server
	Clients []tls.Certificate // at least seen; FullNew uses each once and ends early when they run out
	Seconds float64
	PID     int // of the server: its CPU time is read around the run
	// Requests is the file of the requests of a plain row; those need no Clients.
	Requests string
}

// Result is what one run measured.
type Result struct {
	Ops       int     `json:"ops"`
	Errors    int     `json:"errors"`
	FirstErr  string  `json:"first_error,omitempty"`
	Seconds   float64 `json:"seconds"`
	ServerCPU float64 `json:"server_cpu_seconds"`
	ClientCPU float64 `json:"client_cpu_seconds"`
	Resumed   int     `json:"resumed,omitempty"` // of Ops, when they are handshakes
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
}

// Rate is operations per second.
func (r Result) Rate() float64 { return float64(r.Ops) / r.Seconds }

// CPU is the server's CPU time per operation in µs.
func (r Result) CPU() float64 { return r.ServerCPU * 1e6 / float64(max(r.Ops, 1)) }

// worker does one kind of work on a thread of its own until told to stop.
type worker interface {
	// once does one operation; resumed is only of interest for handshakes.
	once() (resumed bool, err error)
	close()
}

// errExhausted ends a run early: there is no work left that would still be this row's.
var errExhausted = errors.New("no unused client certificates left")

// tally is what one worker did in the timed part.
type tally struct {
	ops, errs, resumed int
	first              error
	micros             []uint32
	last               time.Time
}

// Run warms the server up, measures, and returns the figures.
func Run(c Config) (Result, error) {
	if !c.Row.Plain() && len(c.Clients) < seen {
		return Result{}, fmt.Errorf("%d client certificates, want at least %d", len(c.Clients), seen)
	}
	workers, err := prepare(c)
	if err != nil {
		return Result{}, err
	}
	defer func() {
		for _, w := range workers {
			w.close()
		}
	}()
	drive(workers, time.Now().Add(warm))

	server0, err := proc.CPUSeconds(c.PID)
	if err != nil {
		return Result{}, err
	}
	client0, start := proc.OwnCPU(), time.Now()
	tallies := drive(workers, start.Add(time.Duration(c.Seconds*float64(time.Second))))
	server1, err := proc.CPUSeconds(c.PID)
	if err != nil {
		return Result{}, err
	}
	r := merge(tallies, start)
	r.ServerCPU, r.ClientCPU = server1-server0, (proc.OwnCPU() - client0).Seconds()
	return r, nil
}

// prepare makes the workers of a row and does what must be done before the warm-up.
func prepare(c Config) ([]worker, error) {
	var workers []worker
	switch c.Row {
	case FullNew, FullSeen, Resumed:
		pool := &certPool{certs: c.Clients, again: c.Row != FullNew}
		if pool.again {
			pool.certs = c.Clients[:seen]
		}
		for i := range handshakers {
			workers = append(workers, newHandshaker(c.Addr, i, pool, c.Row == Resumed))
		}
		if c.Row == FullSeen { // each certificate once
			for range seen {
				if _, err := workers[0].once(); err != nil {
					return nil, fmt.Errorf("seeing the certificates: %w", err)
				}
			}
		}
		return workers, nil
	case HTTP1, HTTP2:
		for i := range connections {
			w, err := newRequester(c, c.Clients[i])
			if err != nil {
				return nil, err
			}
			workers = append(workers, w)
		}
		return workers, nil
	case Issue1:
		return newPlain(c, 1)
	case OCSPGet, OCSPNonce, Issue16:
		return newPlain(c, plainers)
	}
	return nil, fmt.Errorf("no row %q; rows are %v", c.Row, Rows())
}

// drive runs every worker until the deadline and returns what each did.
func drive(workers []worker, deadline time.Time) []tally {
	tallies := make([]tally, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { tallies[i] = work(w, deadline) })
	}
	wg.Wait()
	return tallies
}

// work repeats one worker's operation. Two failures in a row end it: the connection is gone.
func work(w worker, deadline time.Time) tally {
	t := tally{last: time.Now()}
	failed := false
	for t.last.Before(deadline) {
		begin := t.last
		resumed, err := w.once()
		t.last = time.Now()
		switch {
		case errors.Is(err, errExhausted):
			return t
		case err != nil:
			t.errs++
			if t.first == nil {
				t.first = err
			}
			if failed {
				return t
			}
			failed = true
			continue
		}
		failed = false
		t.ops++
		if resumed {
			t.resumed++
		}
		t.micros = append(t.micros, uint32(t.last.Sub(begin).Microseconds()))
	}
	return t
}

// merge adds the workers' tallies up. The run ends with the last operation.
func merge(tallies []tally, start time.Time) Result {
	var r Result
	var all []uint32
	end := start
	for _, t := range tallies {
		r.Ops += t.ops
		r.Errors += t.errs
		r.Resumed += t.resumed
		if t.first != nil && r.FirstErr == "" {
			r.FirstErr = t.first.Error()
		}
		if t.last.After(end) {
			end = t.last
		}
		all = append(all, t.micros...)
	}
	r.Seconds = end.Sub(start).Seconds()
	slices.Sort(all)
	if len(all) > 0 {
		r.P50 = float64(all[len(all)/2]) / 1000
		r.P99 = float64(all[len(all)*99/100]) / 1000
	}
	return r
}

// Probe asks the server once over HTTP/1.1, with a certificate or nil, and returns nil when the answer was 200.
func Probe(addr string, cert *tls.Certificate) error {
	cfg := clientConfig("http/1.1")
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	raw, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	conn := tls.Client(raw, cfg)
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = newHTTP1(conn).once()
	return err
}

// Answers shakes hands once without a certificate. In TLS 1.3 that succeeds for the client as soon as the server has sent
// its part, whatever it thinks of the client, and costs the server no look at a list.
func Answers(addr string) error {
	raw, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	return tls.Client(raw, clientConfig("http/1.1")).Handshake()
}

// clientConfig is what every connection of the load generator has in common.
func clientConfig(protocol string) *tls.Config {
	return &tls.Config{
		ServerName:         pki.Host,
		InsecureSkipVerify: true, // measured is the server; the client's own verification would only cost its core
		MinVersion:         tls.VersionTLS13,
		CurvePreferences:   []tls.CurveID{tls.X25519},
		NextProtos:         []string{protocol},
	}
}
