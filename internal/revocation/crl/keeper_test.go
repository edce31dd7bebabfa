package crl

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// clock is a clock that stands still until it is set.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(moment().UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// source answers for one address. It counts and can be changed.
type origin struct {
	*httptest.Server
	asked   atomic.Int64
	mu      sync.Mutex
	handler http.HandlerFunc
}

func newOrigin(t *testing.T, h http.HandlerFunc) *origin {
	t.Helper()
	o := &origin{handler: h}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		o.mu.Lock()
		h := o.handler
		o.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) set(h http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handler = h
}

func serve(der []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(der) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// newKeeper makes a keeper that may ask this machine. Its client's deadline is a second.
func newKeeper(t *testing.T, c KeeperConfig) *Keeper {
	t.Helper()
	client := outbound.New(outbound.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: time.Second})
	t.Cleanup(client.Close)
	if c.Client == nil {
		c.Client = client
	}
	c.Logger = slog.New(slog.DiscardHandler)
	k := NewKeeper(c)
	t.Cleanup(k.Close)
	return k
}

// runKeeper runs the keeper with a short beat until the test ends.
func runKeeper(t *testing.T, k *Keeper) {
	t.Helper()
	k.beat = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("in vain waited for: %s", what)
}

func place(address string, cas ...*testpki.CA) Place {
	p := Place{Address: address, Origin: outbound.FromOperator}
	for _, ca := range cas {
		p.Issuers = append(p.Issuers, ca.Cert)
	}
	return p
}

// point is a place that a certificate names.
func point(address string, cas ...*testpki.CA) Place {
	p := place(address, cas...)
	p.Origin = outbound.FromCertificate
	return p
}

func number(h *Held) int64 {
	if h == nil || h.List == nil || h.List.Number() == nil {
		return -1
	}
	return h.List.Number().Int64()
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a new file in place of another at once.
func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	write(t, path+".new", data)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestDemandFailuresInvariant13 asks sources that fail in every way. Each failure must be told, remembered, and replaced by the
// list once the source gives one.
func TestDemandFailuresInvariant13(t *testing.T) {
	ca, other, namesake := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("other")), testpki.NewCA(t)
	good := sign(t, ca, template(ca, 5), pkix.CRLEntry{Serial: serialOf(1)})
	old := template(ca, 4)
	old.ThisUpdate, old.NextUpdate = moment().Add(-2*time.Hour), moment().Add(-time.Hour)
	tests := []struct {
		name string
		h    http.HandlerFunc
		want error
	}{
		{"500", status(500), outbound.ErrStatus},
		{"404", status(404), outbound.ErrStatus},
		{"slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, outbound.ErrTimeout},
		{"truncated", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write(good[:len(good)/2])
		}, nil},
		{"cut off", serve(good[:len(good)-1]), pkix.ErrCRLMalformed},
		{"HTML", serve([]byte("<html>")), pkix.ErrCRLMalformed},
		{"wrong key", serve(sign(t, namesake, template(namesake, 5))), ErrSignature},
		{"other CA", serve(sign(t, other, template(other, 5))), ErrIssuer},
		{"expired", serve(sign(t, ca, old)), ErrExpired},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte{0x30, 0x84, 0x7f, 0, 0, 0})
			for buf := make([]byte, 1<<16); ; {
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
		}, ErrTooLarge},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newClock()
			dir := t.TempDir()
			k := newKeeper(t, KeeperConfig{Dir: dir, Now: c.now, MaxBytesFromCertificate: 1 << 20})
			o := newOrigin(t, test.h)
			p := point(o.URL, ca)
			h, err := k.Demand(t.Context(), p)
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if !errors.Is(err, ErrExpired) && h.List != nil {
				t.Error("there is a list")
			}
			if held := k.Held(o.URL); held == nil || held.Err == nil {
				t.Errorf("held: %+v", held)
			}
			if _, again := k.Demand(t.Context(), p); again == nil || o.asked.Load() != 1 {
				t.Errorf("asked %d times during the backoff: %v", o.asked.Load(), again)
			}
			if wait := h.NextAttempt.Sub(c.now()); wait < 9*time.Second || wait > firstBackoff {
				t.Errorf("the first backoff is %v", wait)
			}
			o.set(serve(good))
			c.advance(firstBackoff)
			h, err = k.Demand(t.Context(), p)
			if err != nil || number(h) != 5 || h.Err != nil {
				t.Fatalf("after the failure: %v, number %d", err, number(h))
			}
			if left, _ := filepath.Glob(filepath.Join(dir, loadingPrefix+"*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestDemandDown(t *testing.T) {
	ca := testpki.NewCA(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + l.Addr().String() + "/ca.crl"
	l.Close()
	c := newClock()
	k := newKeeper(t, KeeperConfig{Now: c.now})
	var waits []time.Duration
	for range 10 {
		h, err := k.Demand(t.Context(), point(address, ca))
		if err == nil {
			t.Fatal("no error from a source that is down")
		}
		wait := h.NextAttempt.Sub(c.now())
		waits = append(waits, wait.Round(time.Second))
		if wait > lastBackoff {
			t.Errorf("backoff %v", wait)
		}
		c.advance(wait)
	}
	if !slices.IsSorted(waits[:6]) || waits[9] < lastBackoff*9/10 {
		t.Errorf("backoff does not grow to its end: %v", waits)
	}
	if m := k.Metrics(); m.Failed != 10 || m.Lists != 0 {
		t.Errorf("metrics %+v", m)
	}
}

// TestDemandOnce has a hundred clients ask for one list at once.
func TestDemandOnce(t *testing.T) {
	ca := testpki.NewCA(t)
	der := sign(t, ca, template(ca, 1))
	started := make(chan struct{})
	o := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		<-started
		_, _ = w.Write(der)
	})
	k := newKeeper(t, KeeperConfig{Dir: t.TempDir()})
	gone, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var ok, gaveUp atomic.Int64
	for i := range 100 {
		wg.Go(func() {
			ctx := t.Context()
			if i%10 == 0 {
				ctx = gone // who began the fetch may be among these
			}
			switch h, err := k.Demand(ctx, point(o.URL, ca)); {
			case err == nil && number(h) == 1:
				ok.Add(1)
			case errors.Is(err, context.Canceled):
				gaveUp.Add(1)
			default:
				t.Errorf("%v", err)
			}
		})
	}
	eventually(t, "the request", func() bool { return o.asked.Load() > 0 })
	time.Sleep(20 * time.Millisecond)
	cancel()
	eventually(t, "ten who give up", func() bool { return gaveUp.Load() == 10 })
	close(started)
	wg.Wait()
	if o.asked.Load() != 1 || ok.Load() != 90 {
		t.Errorf("%d requests, %d answers", o.asked.Load(), ok.Load())
	}
	h := k.Held(o.URL)
	if a := testing.AllocsPerRun(100, func() { k.Held(o.URL); k.HeldFor(o.URL, ca.Cert) }); a != 0 {
		t.Errorf("Held allocates %v times", a)
	}
	if h != k.HeldFor(o.URL, ca.Cert) || k.HeldFor(o.URL, testpki.NewCA(t).Cert) != nil {
		t.Error("HeldFor tells issuers not apart")
	}
}

// TestDemandOfOthers: what a certificate of one CA names must not hinder another CA's.
func TestDemandOfOthers(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("other"))
	o := newOrigin(t, serve(sign(t, ca, template(ca, 1))))
	k := newKeeper(t, KeeperConfig{})
	if _, err := k.Demand(t.Context(), point(o.URL, other)); !errors.Is(err, ErrIssuer) {
		t.Errorf("got %v, want %v", err, ErrIssuer)
	}
	if h, err := k.Demand(t.Context(), point(o.URL, ca)); err != nil || number(h) != 1 {
		t.Errorf("the CA whose list it is: %v", err)
	}
	if h := k.Held(o.URL); number(h) != 1 {
		t.Errorf("held: %+v", h)
	}
	if h := k.HeldFor(o.URL, other.Cert); h == nil || h.List != nil {
		t.Errorf("held for the other: %+v", h)
	}
}

func TestDemandForgets(t *testing.T) {
	ca := testpki.NewCA(t)
	o := newOrigin(t, serve(sign(t, ca, template(ca, 1))))
	c := newClock()
	k := newKeeper(t, KeeperConfig{MaxPlaces: 3, Now: c.now})
	for i := range 4 {
		if _, err := k.Demand(t.Context(), point(fmt.Sprintf("%s/%d", o.URL, i), ca)); err != nil {
			t.Fatal(err)
		}
		c.advance(time.Minute)
		k.coarse.Store(c.now().Unix())
		k.Held(o.URL + "/0") // asked for all the time
	}
	for i, want := range []bool{true, false, true, true} {
		if got := k.Held(fmt.Sprintf("%s/%d", o.URL, i)) != nil; got != want {
			t.Errorf("place %d: held %v", i, got)
		}
	}
	if m := k.Metrics(); m.Places != 3 || m.Lists != 3 || m.Fetched != 4 {
		t.Errorf("metrics %+v", m)
	}
}

// TestLoopback: where certificates point is not where the server may go.
func TestLoopback(t *testing.T) {
	ca := testpki.NewCA(t)
	o := newOrigin(t, serve(sign(t, ca, template(ca, 1))))
	client := outbound.New(outbound.Config{})
	t.Cleanup(client.Close)
	k := newKeeper(t, KeeperConfig{Client: client})
	if _, err := k.Demand(t.Context(), point(o.URL, ca)); !errors.Is(err, outbound.ErrAddress) || o.asked.Load() != 0 {
		t.Errorf("got %v after %d requests", err, o.asked.Load())
	}
	k.SetPlaces("ca", []Place{place(o.URL, ca)})
	if err := k.LoadAll(t.Context()); err != nil || number(k.Lists("ca")[0]) != 1 {
		t.Errorf("the operator's own URL: %v", err)
	}
}

// TestLoadAll: one place that is bad keeps no other from being loaded, and each is told of.
func TestLoadAll(t *testing.T) {
	ca := testpki.NewCA(t)
	dir := t.TempDir()
	o := newOrigin(t, serve(sign(t, ca, template(ca, 2))))
	stuck := newOrigin(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	file := filepath.Join(dir, "ca.crl")
	write(t, file, sign(t, ca, template(ca, 1)))
	missing, bad := filepath.Join(dir, "missing.crl"), filepath.Join(dir, "bad.crl")
	write(t, bad, []byte("nothing"))
	var changes atomic.Int64
	// The client has longer than the budget.
	client := outbound.New(outbound.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Timeout: time.Minute})
	t.Cleanup(client.Close)
	k := newKeeper(t, KeeperConfig{Client: client, Dir: filepath.Join(dir, "copies"), OnChange: func(issuers []pkix.KeyID) {
		if !slices.Equal(issuers, []pkix.KeyID{pkix.KeyIDOf(ca.Cert)}) {
			t.Errorf("issuers %v", issuers)
		}
		changes.Add(1)
	}})
	k.SetPlaces("a", []Place{place(file, ca), place(missing, ca), place(bad, ca), place(dir, ca), place(o.URL, ca), place(stuck.URL, ca)})
	k.SetPlaces("b", []Place{place(o.URL, ca)})
	for _, h := range k.Lists("a") {
		if !errors.Is(h.Err, ErrNotLoaded) || h.List != nil {
			t.Errorf("%s: %v", h.Address, h.Err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	err := k.LoadAll(ctx)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("LoadAll took %v, its budget was 2 s", took)
	}
	for _, part := range []string{"missing.crl", "bad.crl", "no regular file", stuck.URL} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	var numbers []int64
	for _, h := range k.Lists("a") {
		numbers = append(numbers, number(h))
	}
	if !slices.Equal(numbers, []int64{1, -1, -1, -1, 2, -1}) || number(k.Lists("b")[0]) != 2 {
		t.Errorf("lists %v, and of b %d", numbers, number(k.Lists("b")[0]))
	}
	if o.asked.Load() != 1 || changes.Load() < 2 {
		t.Errorf("%d requests, %d changes", o.asked.Load(), changes.Load())
	}
	k.SetPlaces("a", nil)
	if k.Lists("a") != nil || number(k.Lists("b")[0]) != 2 {
		t.Error("the lists of a CA that is gone")
	}
	k.SetPlaces("b", []Place{place(o.URL, ca), {Address: o.URL, Issuers: []*x509.Certificate{ca.Cert}, Allows: func(string) bool { return false }}})
	if h := k.Lists("b")[1]; !errors.Is(h.Err, ErrAlgorithm) || h.List != nil {
		t.Errorf("a policy that does not take the algorithm: %+v", h)
	}
}

// TestFileInvariant06 changes a file in every way under a keeper that watches it and readers that look into its list.
func TestFileInvariant06(t *testing.T) {
	ca := testpki.NewCA(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.crl")
	list := func(n int64, entries int) []byte { return many(t, ca, template(ca, n), entries) }
	write(t, file, list(1, 3000))
	k := newKeeper(t, KeeperConfig{Dir: filepath.Join(dir, "copies")})
	k.SetPlaces("ca", []Place{place(file, ca)})
	runKeeper(t, k)
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	held := func() *Held { return k.Lists("ca")[0] }
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, found := held().List.Lookup(nil, serialOf(i%3000)); !found {
				t.Errorf("serial %d is not found", i%3000)
				return
			}
		}
	})
	defer readers.Wait()
	defer close(stop)

	replace(t, file, list(2, 3001))
	eventually(t, "the file that was renamed into place", func() bool { return number(held()) == 2 && held().Err == nil })

	whole := list(3, 3002)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0) // in place, and in two halves
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(whole[:len(whole)/2]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "half a file", func() bool { return errors.Is(held().Err, pkix.ErrCRLMalformed) && number(held()) == 2 })
	if _, err := f.Write(whole[len(whole)/2:]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other half", func() bool { return number(held()) == 3 && held().Err == nil })

	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file that was cut off", func() bool { return held().Err != nil && number(held()) == 3 })

	replace(t, file, list(2, 3003))
	eventually(t, "an older list", func() bool { return errors.Is(held().Err, ErrOlder) && number(held()) == 3 })
	replace(t, file, list(4, 3004))
	eventually(t, "a newer list", func() bool { return number(held()) == 4 && held().Err == nil })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no file", func() bool { return errors.Is(held().Err, os.ErrNotExist) && number(held()) == 4 })
	replace(t, file, list(5, 3005))
	eventually(t, "a file again", func() bool { return number(held()) == 5 && held().Err == nil })

	eventually(t, "no copies of the file", func() bool { // it may be read once more, for it was written just now
		left, err := os.ReadDir(filepath.Join(dir, "copies"))
		return err == nil && len(left) == 0
	})
}

// TestRestart starts again while the source is down.
func TestRestart(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("other"))
	dir := t.TempDir()
	o := newOrigin(t, serve(sign(t, ca, template(ca, 1), pkix.CRLEntry{Serial: serialOf(1)})))
	first := newKeeper(t, KeeperConfig{Dir: dir})
	first.SetPlaces("ca", []Place{place(o.URL, ca)})
	if err := first.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first.Lists("ca")[0].FromDisk {
		t.Error("the first list is from disk")
	}
	first.Close()
	if _, err := first.Demand(t.Context(), point(o.URL+"/x", ca)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	write(t, filepath.Join(dir, loadingPrefix+"123"), []byte("left by kill -9"))
	o.set(status(503))
	second := newKeeper(t, KeeperConfig{Dir: dir})
	second.SetPlaces("ca", []Place{place(o.URL, ca)})
	second.SetPlaces("other", []Place{place(o.URL, other)})
	asked := o.asked.Load()
	err := second.LoadAll(t.Context())
	h := second.Lists("ca")[0]
	if number(h) != 1 || !h.FromDisk || h.Err != nil {
		t.Errorf("after the restart: %+v", h)
	}
	if second.Lists("other")[0].List != nil || !errors.Is(err, outbound.ErrStatus) || o.asked.Load() != asked+1 {
		t.Errorf("a copy was taken for another CA's, or the network asked without need: %d requests, %v", o.asked.Load()-asked, err)
	}
	if _, found := h.List.Lookup(nil, serialOf(1)); !found {
		t.Error("the entry is not found")
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
	if h, err := second.Demand(t.Context(), point(o.URL, ca)); err != nil || !h.FromDisk || o.asked.Load() != asked+1 {
		t.Errorf("demanded: %v after %d requests", err, o.asked.Load()-asked)
	}
	second.Close()

	name := filepath.Join(dir, copyName(o.URL))
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-5] ^= 1
	write(t, name, raw)
	third := newKeeper(t, KeeperConfig{Dir: dir})
	third.SetPlaces("ca", []Place{place(o.URL, ca)})
	if err := third.LoadAll(t.Context()); !errors.Is(err, outbound.ErrStatus) || third.Lists("ca")[0].List != nil {
		t.Errorf("a copy that was changed: %v", err)
	}
}

func TestSweepCopies(t *testing.T) {
	dir := t.TempDir()
	k := newKeeper(t, KeeperConfig{Dir: dir})
	now := time.Now()
	k.SetPlaces("ca", []Place{{Address: "http://ca/wanted"}})
	for name, age := range map[string]time.Duration{
		copyName("http://ca/wanted"): 40 * 24 * time.Hour, copyName("http://ca/new"): 20 * 24 * time.Hour,
		copyName("http://ca/old"): 31 * 24 * time.Hour, "notes.txt": 99 * 24 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		write(t, path, nil)
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	k.sweepCopies(t.Context(), now)
	for name, want := range map[string]bool{
		copyName("http://ca/wanted"): true, copyName("http://ca/new"): true, copyName("http://ca/old"): false, "notes.txt": true,
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRefresh follows a URL through its life on a clock of its own: 304, a newer list, an older one, the same number
// with other content, and an end.
func TestRefresh(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	list := func(n int64, ago time.Duration, entries ...pkix.CRLEntry) []byte {
		d := template(ca, n)
		d.ThisUpdate, d.NextUpdate = c.now().Add(-ago), c.now().Add(-ago).Add(24*time.Hour)
		return sign(t, ca, d, entries...)
	}
	tagged := func(tag string, der []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			_, _ = w.Write(der)
		}
	}
	var changes atomic.Int64
	o := newOrigin(t, tagged(`"1"`, list(1, time.Minute)))
	k := newKeeper(t, KeeperConfig{Dir: t.TempDir(), Now: c.now, OnChange: func([]pkix.KeyID) { changes.Add(1) }})
	k.SetPlaces("ca", []Place{place(o.URL, ca)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	runKeeper(t, k)
	held := func() *Held { return k.Lists("ca")[0] }
	next := func() { // to the next attempt, and until it is over
		t.Helper()
		before := o.asked.Load()
		time.Sleep(25 * time.Millisecond)
		if o.asked.Load() != before {
			t.Fatal("asked ahead of time")
		}
		c.advance(held().NextAttempt.Sub(c.now()))
		eventually(t, "an attempt", func() bool { return held().LastAttempt.Equal(c.now()) })
	}
	if wait := held().NextAttempt.Sub(c.now()); wait > mostRefresh || wait < mostRefresh*9/10 {
		t.Errorf("first wait %v", wait)
	}
	first := held().List
	next()
	if m := k.Metrics(); held().List.base != first.base || m.Unchanged != 1 || held().Err != nil || !held().LastSuccess.Equal(c.now()) {
		t.Errorf("304: %+v, %+v", held(), m)
	}
	o.set(tagged(`"2"`, list(2, 0)))
	next()
	if number(held()) != 2 || changes.Load() != 2 {
		t.Errorf("number %d, %d changes", number(held()), changes.Load())
	}
	o.set(serve(list(1, 0)))
	next()
	if number(held()) != 2 || !errors.Is(held().Err, ErrOlder) {
		t.Errorf("a smaller number: %d, %v", number(held()), held().Err)
	}
	forged := held().List.ThisUpdate()
	o.set(serve(list(2, c.now().Sub(forged), pkix.CRLEntry{Serial: serialOf(9)})))
	next()
	if !errors.Is(held().Err, ErrOlder) || changes.Load() != 2 {
		t.Errorf("the same number and time: %v", held().Err)
	}
	o.set(serve(list(2, c.now().Sub(forged)-time.Second, pkix.CRLEntry{Serial: serialOf(9)})))
	next()
	if held().Err != nil || held().List.Len() != 1 || changes.Load() != 3 {
		t.Errorf("the same number, later: %v", held().Err)
	}
	o.set(status(500))
	for i := range 4 {
		next()
		wait := held().NextAttempt.Sub(c.now())
		if want := firstBackoff << i; wait > want || wait < want*9/10 || held().List.Len() != 1 {
			t.Errorf("failure %d: wait %v", i+1, wait)
		}
	}
	c.advance(25 * time.Hour)
	eventually(t, "one more failure", func() bool { return held().LastAttempt.Equal(c.now()) })
	if held().List.Fresh(c.now(), 0) || number(held()) != 2 {
		t.Error("an expired list is fresh, or gone")
	}
}

func TestNextRefresh(t *testing.T) {
	now := moment()
	for _, test := range []struct {
		name            string
		ago, life       time.Duration
		interval        time.Duration
		atLeast, atMost time.Duration
	}{
		{"a week", 0, 7 * 24 * time.Hour, 0, 54 * time.Minute, time.Hour},
		{"half an hour", 0, 30 * time.Minute, 0, 24 * time.Minute, 27 * time.Minute},
		{"half an hour, half over", 15 * time.Minute, 30 * time.Minute, 0, 9 * time.Minute, 12 * time.Minute},
		{"ten seconds", 0, 10 * time.Second, 0, leastRefresh, leastRefresh},
		{"near its end", 99 * time.Hour, 100 * time.Hour, 0, 15 * time.Minute, 15 * time.Minute},
		{"over", 2 * time.Hour, time.Hour, 0, leastRefresh, leastRefresh},
		{"told", 0, 7 * 24 * time.Hour, 10 * time.Minute, 9 * time.Minute, 10 * time.Minute},
		{"told often", 0, 7 * 24 * time.Hour, 5 * time.Second, 4500 * time.Millisecond, 5 * time.Second},
		{"told seldom", 0, 7 * 24 * time.Hour, 12 * time.Hour, 648 * time.Minute, 12 * time.Hour},
	} {
		seen := make(map[time.Duration]bool)
		for range 200 {
			wait := nextRefresh(now.Add(-test.ago), now.Add(test.life-test.ago), now, test.interval).Sub(now)
			seen[wait] = true
			if wait < min(test.atLeast, test.atMost) || wait > test.atMost {
				t.Errorf("%s: %v is not between %v and %v", test.name, wait, test.atLeast, test.atMost)
				break
			}
		}
		if (test.atLeast != test.atMost) != (len(seen) > 1) {
			t.Errorf("%s: %d different waits", test.name, len(seen))
		}
	}
}

// TestFreshestCRL follows the deltas that a list names.
func TestFreshestCRL(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	dir := t.TempDir()
	deltas := newOrigin(t, status(500))
	list := func(n, on int64, life time.Duration, entries ...pkix.CRLEntry) []byte {
		d := template(ca, n)
		d.ThisUpdate, d.NextUpdate = c.now(), c.now().Add(life)
		if on > 0 {
			d.BaseNumber = big.NewInt(on)
		} else {
			d.FreshestCRL = []string{deltas.URL}
		}
		return sign(t, ca, d, entries...)
	}
	hold := pkix.CRLEntry{Serial: serialOf(1), Reason: pkix.CertificateHold}
	lists := newOrigin(t, serve(list(10, 0, 24*time.Hour, hold)))
	var changes atomic.Int64
	k := newKeeper(t, KeeperConfig{Dir: dir, Now: c.now, OnChange: func([]pkix.KeyID) { changes.Add(1) }})
	h, err := k.Demand(t.Context(), point(lists.URL, ca))
	if err != nil || h.Err == nil || h.List.DeltaNumber() != nil {
		t.Fatalf("without its delta the list is good all the same: %v, %v", err, h.Err)
	}
	deltas.set(serve(list(11, 10, 10*time.Minute, pkix.CRLEntry{Serial: serialOf(1), Reason: pkix.RemoveFromCRL}, pkix.CRLEntry{Serial: serialOf(2)})))
	runKeeper(t, k)
	c.advance(firstBackoff)
	held := func() *Held { return k.Held(lists.URL) }
	eventually(t, "the delta", func() bool { return held().List.DeltaNumber() != nil && held().Err == nil })
	for i, want := range []bool{false, false, true} {
		if _, found := held().List.Lookup(nil, serialOf(i)); found != want {
			t.Errorf("serial %d: found %v", i, found)
		}
	}
	if wait := held().NextAttempt.Sub(c.now()); wait < 8*time.Minute-firstBackoff || wait > 9*time.Minute || changes.Load() != 2 {
		t.Errorf("the delta is fetched again after %v; %d changes", wait, changes.Load())
	}
	deltas.set(serve(list(12, 11, 10*time.Minute))) // of a list that is not there yet
	lists.set(serve(list(11, 0, 24*time.Hour, pkix.CRLEntry{Serial: serialOf(3)})))
	c.advance(held().NextAttempt.Sub(c.now()))
	eventually(t, "the trouble with the base", func() bool { return errors.Is(held().Err, ErrBase) })
	c.advance(leastRefresh)
	eventually(t, "the new base", func() bool { return number(held()) == 11 })
	eventually(t, "its delta", func() bool {
		c.advance(time.Second)
		return held().List.DeltaNumber() != nil && held().List.DeltaNumber().Int64() == 12
	})
	if _, found := held().List.Lookup(nil, serialOf(3)); !found || held().Err != nil {
		t.Errorf("found %v, %v", found, held().Err)
	}

	eventually(t, "both copies", func() bool { files, _ := os.ReadDir(dir); return len(files) == 2 })
	lists.set(status(500))
	deltas.set(status(500))
	again := newKeeper(t, KeeperConfig{Dir: dir, Now: c.now})
	if h, err := again.Demand(t.Context(), point(lists.URL, ca)); err != nil || h.List.DeltaNumber() == nil || !h.FromDisk {
		t.Errorf("after a restart: %v", err)
	}
}

// TestConfiguredDelta has a list and a delta side by side among the places of a CA.
func TestConfiguredDelta(t *testing.T) {
	ca := testpki.NewCA(t)
	dir := t.TempDir()
	base, delta := filepath.Join(dir, "base.crl"), filepath.Join(dir, "delta.crl")
	c := template(ca, 11)
	c.BaseNumber = big.NewInt(10)
	write(t, delta, sign(t, ca, c, pkix.CRLEntry{Serial: serialOf(2)}))
	k := newKeeper(t, KeeperConfig{})
	k.SetPlaces("ca", []Place{place(base, ca), place(delta, ca)})
	runKeeper(t, k)
	if err := k.LoadAll(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the base: %v", err)
	}
	if lists := k.Lists("ca"); len(lists) != 2 || !errors.Is(lists[1].Err, ErrNoBase) || lists[1].List != nil {
		t.Errorf("the delta alone: %+v", lists)
	}
	replace(t, base, sign(t, ca, template(ca, 10), pkix.CRLEntry{Serial: serialOf(1)}))
	combined := func() *List {
		if lists := k.Lists("ca"); len(lists) == 1 {
			return lists[0].List
		}
		return nil
	}
	eventually(t, "both", func() bool { return combined() != nil && combined().DeltaNumber() != nil })
	for i, want := range []bool{false, true, true} {
		if _, found := combined().Lookup(nil, serialOf(i)); found != want {
			t.Errorf("serial %d: found %v", i, found)
		}
	}
	replace(t, base, sign(t, ca, template(ca, 12), pkix.CRLEntry{Serial: serialOf(1)}))
	eventually(t, "a list that is newer than the delta", func() bool { return combined() != nil && combined().DeltaNumber() == nil })
}

// TestRunEndsInvariant14: nothing goes on after Run.
func TestRunEndsInvariant14(t *testing.T) {
	ca := testpki.NewCA(t)
	o := newOrigin(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	client := outbound.New(outbound.Config{Timeout: time.Minute})
	t.Cleanup(client.Close)
	k := newKeeper(t, KeeperConfig{Client: client})
	k.beat = time.Millisecond
	k.SetPlaces("ca", []Place{place(o.URL, ca)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	eventually(t, "the request", func() bool { return o.asked.Load() > 0 })
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not end while a source is slow")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.flights) > 0 {
		t.Errorf("%d attempts go on", len(k.flights))
	}
}

// TestChangeOfIndirectList: it speaks of the certificates of every candidate.
func TestChangeOfIndirectList(t *testing.T) {
	ca, other := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("other"))
	c := template(ca, 1)
	c.Indirect = true
	file := filepath.Join(t.TempDir(), "ca.crl")
	write(t, file, sign(t, ca, c))
	changed := make(map[pkix.KeyID]bool)
	k := newKeeper(t, KeeperConfig{OnChange: func(issuers []pkix.KeyID) {
		for _, id := range issuers {
			changed[id] = true
		}
	}})
	k.SetPlaces("ca", []Place{place(file, ca, other)})
	if err := k.LoadAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !changed[pkix.KeyIDOf(ca.Cert)] || !changed[pkix.KeyIDOf(other.Cert)] || len(changed) != 2 {
		t.Errorf("changed: %v", changed)
	}
}

// TestDemandedIsKept: what certificates in use name is fetched ahead of its end, what nobody asks for any more is not.
func TestDemandedIsKept(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	o := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		d := template(ca, c.now().Unix())
		d.ThisUpdate, d.NextUpdate = c.now(), c.now().Add(30*time.Minute)
		_, _ = w.Write(sign(t, ca, d))
	})
	k := newKeeper(t, KeeperConfig{Now: c.now})
	first, err := k.Demand(t.Context(), point(o.URL, ca))
	if err != nil {
		t.Fatal(err)
	}
	runKeeper(t, k)
	c.advance(28 * time.Minute)
	eventually(t, "a list ahead of the end of the first", func() bool { return number(k.Held(o.URL)) > number(first) })
	asked := o.asked.Load()
	c.advance(2 * time.Hour)
	time.Sleep(50 * time.Millisecond)
	if o.asked.Load() != asked {
		t.Errorf("%d requests for a list that nobody asked for in two hours", o.asked.Load()-asked)
	}
	if h, err := k.Demand(t.Context(), point(o.URL, ca)); err != nil || !h.List.Fresh(c.now(), 0) || o.asked.Load() != asked+1 {
		t.Errorf("demanded again: %v after %d requests", err, o.asked.Load()-asked)
	}
}

// TestFileLeftAlone: a file that stays as it is and would meet with the same error is not read again.
func TestFileLeftAlone(t *testing.T) {
	ca := testpki.NewCA(t)
	dir := t.TempDir()
	bad, missing := filepath.Join(dir, "bad.crl"), filepath.Join(dir, "missing.crl")
	write(t, bad, []byte("no list"))
	if err := os.Chtimes(bad, time.Time{}, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := newClock()
	k := newKeeper(t, KeeperConfig{Now: c.now})
	k.SetPlaces("ca", []Place{place(bad, ca), place(missing, ca)})
	if err := k.LoadAll(t.Context()); !errors.Is(err, pkix.ErrCRLMalformed) || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	runKeeper(t, k)
	began := c.now()
	c.advance(time.Hour)
	eventually(t, "another look at the file that is missing", func() bool { return k.Lists("ca")[1].LastAttempt.Equal(c.now()) })
	if h := k.Lists("ca")[0]; !h.LastAttempt.Equal(began) {
		t.Errorf("the bad file was read again after %v", h.LastAttempt.Sub(began))
	}
	replace(t, bad, sign(t, ca, template(ca, 1)))
	eventually(t, "the good file", func() bool { return number(k.Lists("ca")[0]) == 1 })
}

// TestRetryAfter: a server that says when to come again is asked again then.
func TestRetryAfter(t *testing.T) {
	ca := testpki.NewCA(t)
	c := newClock()
	for seconds, want := range map[string]time.Duration{"1": firstBackoff, "300": 5 * time.Minute, "86400": mostRefresh} {
		o := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", seconds)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		k := newKeeper(t, KeeperConfig{Now: c.now})
		h, _ := k.Demand(t.Context(), point(o.URL, ca))
		if wait := h.NextAttempt.Sub(c.now()); wait > want || wait < want*9/10 {
			t.Errorf("Retry-After %s: wait %v", seconds, wait)
		}
	}
}
