package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// controlVariable makes the test program a `sekisho serve` whose memory can be looked at: it names a Unix socket.
const controlVariable = "SEKISHO_TEST_CONTROL"

// held is what a process holds, after two collections and after it gave back what it could.
type held struct {
	Goroutines  int
	Descriptors int
	Heap        uint64 // live bytes
	RSS         uint64 // bytes
}

func measure() (held, error) {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return held{}, err
	}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return held{}, err
	}
	var size, resident uint64
	if _, err := fmt.Sscan(string(statm), &size, &resident); err != nil {
		return held{}, err
	}
	return held{runtime.NumGoroutine(), len(files), m.HeapAlloc, resident * uint64(os.Getpagesize())}, nil
}

// serveUnderControl is main with a socket that answers with what the process holds.
func serveUnderControl(socket string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitRefused
	}
	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h, err := measure()
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_ = json.NewEncoder(w).Encode(h)
		}))
	}()
	return run(ctx, env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}, args)
}

// TestConnectionsLeaveNothingBehind opens and closes connections twice, with a request on each, and compares what the
// server holds: SEKISHO_LONG=1 takes 10,000 connections.
func TestConnectionsLeaveNothingBehind(t *testing.T) {
	n := 400
	if long() {
		n = 10_000
	}
	o := newOrigin(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "control.sock")
	p := startProgram(t, dir, os.Args[0], []string{controlVariable + "=" + socket}, "--config", configFile(t, o.url, ""), "--data", dir)
	control := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	look := func() (h held) {
		t.Helper()
		resp, err := control.Get("http://control/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	pair, _ := p.issue("many")
	openAndClose(t, p, p.tlsConfig(pair), 10) // whatever is made at first use
	start := look()
	const idle = 64 // connections to the origin and the admin API that are kept for the next request
	var rounds [2]held
	for i := range rounds {
		openAndClose(t, p, p.tlsConfig(pair), n)
		waitUntil(t, "every connection is over", func() bool { return p.metric("sekisho_connections") == "0" })
		time.Sleep(2 * time.Second) // goroutines that wait for another handshake, idle origin connections
		rounds[i] = look()
		for end := time.Now().Add(30 * time.Second); rounds[i].Goroutines > start.Goroutines+idle/16 && time.Now().Before(end); rounds[i] = look() {
			time.Sleep(time.Second) // they end later on a busy machine
		}
	}
	t.Logf("%d connections twice: at start %+v, then %+v and %+v", n, start, rounds[0], rounds[1])
	if g := rounds[1].Goroutines; g > start.Goroutines+idle/16 {
		t.Errorf("%d goroutines, %d at the start", g, start.Goroutines)
	}
	if d := rounds[1].Descriptors; d > start.Descriptors+idle {
		t.Errorf("%d descriptors, %d at the start", d, start.Descriptors)
	}
	if a, b := rounds[0].Heap, rounds[1].Heap; b > a+a/20 {
		t.Errorf("live heap %d bytes after the second round, %d after the first", b, a)
	}
	// The race detector keeps shadow memory of everything that was ever touched.
	if rss := rounds[1].RSS; rss > start.RSS+64<<20 && !raceEnabled {
		t.Errorf("RSS %d MiB, %d MiB at the start", rss>>20, start.RSS>>20)
	}
	p.stop()
}

// openAndClose holds n connections open at once, each having had an answer, and closes them.
func openAndClose(t *testing.T, p *process, config *tls.Config, n int) {
	t.Helper()
	config.NextProtos = []string{"http/1.1"}
	conns := make([]*tls.Conn, n)
	var group errgroup.Group
	group.SetLimit(32)
	for i := range conns {
		group.Go(func() (err error) {
			if conns[i], err = tls.Dial("tcp", p.edgeAddress(), config); err != nil {
				return err
			}
			if _, err := io.WriteString(conns[i], "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				return err
			}
			answer := make([]byte, 4096)
			read, err := conns[i].Read(answer)
			if err == nil && !strings.HasPrefix(string(answer[:read]), "HTTP/1.1 200") {
				err = fmt.Errorf("answer %q", answer[:read])
			}
			return err
		})
	}
	err := group.Wait()
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, p.log)
	}
}

// metric returns a metric's value as text, "" when there is none.
func (p *process) metric(name string) string {
	p.t.Helper()
	resp, err := http.Get(p.ready.Metrics)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			return value
		}
	}
	return ""
}
