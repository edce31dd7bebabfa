package ca_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// published is a CA of three shards that publishes to a directory.
type published struct {
	*fixture
	log *logBuffer
	dir string
	id  string
}

func newPublished(t *testing.T, opts ...option) *published {
	t.Helper()
	p := &published{log: &logBuffer{}, dir: filepath.Join(t.TempDir(), "pki", "crl")}
	p.fixture = newCA(t, pkix.ECDSAP256, append([]option{shards(3), config(func(c *ca.Config) {
		c.PublishDir, c.Logger = p.dir, slog.New(slog.NewTextHandler(p.log, nil))
	})}, opts...)...)
	p.id = p.issuingID()
	return p
}

// start runs the publisher until stop.
func (p *published) start() (stop func()) {
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		p.t.Helper()
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	}
}

// places are the files of the issuing CA's lists and what they should hold.
func (p *published) places() map[string]ca.CRL {
	p.t.Helper()
	lists := map[string]ca.CRL{p.id + ".crl": p.must(p.FullCRL(p.t.Context(), p.id))}
	for n := range 3 {
		lists[fmt.Sprintf("%s/%d.crl", p.id, n)] = p.must(p.CRL(p.t.Context(), p.id, n))
		lists[fmt.Sprintf("%s/%d-delta.crl", p.id, n)] = p.must(p.DeltaCRL(p.t.Context(), p.id, n))
	}
	return lists
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// settled waits until the directory holds every list, the one of all shards with n entries.
func (p *published) settled(n int) {
	p.t.Helper()
	eventually(p.t, "the directory is what is served", func() bool {
		if len(p.all().entries) != n {
			return false
		}
		for name, crl := range p.places() {
			if file, err := os.ReadFile(filepath.Join(p.dir, name)); err != nil || !bytes.Equal(file, crl.DER) {
				return false
			}
		}
		return true
	})
}

// reopen ends the process, as it were, and starts another.
func (p *published) reopen() {
	p.t.Helper()
	if err := p.store.Close(); err != nil {
		p.t.Fatal(err)
	}
	p.open()
}

// TestPublishDir: the directory has every list and certificate, readable for a web server, and nothing else.
func TestPublishDir(t *testing.T) {
	p := newPublished(t)
	stop := p.start()
	p.settled(0)
	rows := []ca.Certificate{p.issue("a"), p.issue("b"), p.issue("c")}
	for _, row := range rows {
		p.revoke(row.ID, pkix.Superseded)
	}
	p.settled(3)
	stop()
	want := map[string]bool{}
	records, err := p.CAs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		for n := range r.Shards {
			want[fmt.Sprintf("%s/%d.crl", r.ID, n)], want[fmt.Sprintf("%s/%d-delta.crl", r.ID, n)] = true, true
		}
		want[r.ID+".crl"], want[r.ID+".cer"] = true, true
		if der, err := os.ReadFile(filepath.Join(p.dir, r.ID+".cer")); err != nil || !bytes.Equal(der, r.DER) {
			t.Errorf("certificate of %s: %v", r.Name, err)
		}
	}
	err = filepath.WalkDir(p.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(p.dir, path)
		if !want[name] {
			t.Errorf("%s is in the directory", name)
		}
		delete(want, name)
		if info, err := d.Info(); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v; missing: %v", err, want)
	}
}

// TestRestartTakesOver: a start signs nothing when what was published is what the ledger says, and goes on from there.
func TestRestartTakesOver(t *testing.T) {
	p := newPublished(t)
	row, held := p.issue("a"), p.issue("b")
	stop := p.start()
	p.revoke(row.ID, pkix.Superseded)
	p.hold(held.ID)
	p.reactivate(held.ID)
	p.settled(1)
	before := p.places()
	stop()
	p.reopen()
	stop = p.start()
	defer stop()
	for name, crl := range p.places() {
		if !bytes.Equal(crl.DER, before[name].DER) || crl.ETag != before[name].ETag {
			t.Errorf("%s: number %v after %v", name, crl.Number, before[name].Number)
		}
	}
	if n := p.Metrics().CRLPublished; n != 0 {
		t.Errorf("%d lists were signed at start", n)
	}
	// What comes next builds on what was read.
	after := p.hold(held.ID)
	eventually(t, "the hold is published", func() bool { return p.full(held.Shard).Number.Int64() >= after.CRLNumber })
	full, delta := p.full(held.Shard), p.delta(held.Shard)
	old := p.read(before[fmt.Sprintf("%s/%d.crl", p.id, held.Shard)].DER)
	if delta.BaseNumber.Cmp(p.read(before[fmt.Sprintf("%s/%d-delta.crl", p.id, held.Shard)].DER).BaseNumber) != 0 {
		t.Errorf("base %v after the restart", delta.BaseNumber)
	}
	wantSame(t, "the list of before the restart and the delta of after it", old.plus(t, delta), full.entries)
	p.settled(2)
}

// TestRestartDistrusts: what was published is made anew when anything of it is not as it must be, and says why.
func TestRestartDistrusts(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(p *published, list, delta string)
		want  string
	}{
		"a bit of the list":  {func(p *published, list, _ string) { p.edit(list, func(b []byte) []byte { b[len(b)-9] ^= 1; return b }) }, "not a CRL of this CA"},
		"a bit of the delta": {func(p *published, _, delta string) { p.edit(delta, func(b []byte) []byte { b[40] ^= 1; return b }) }, "not a CRL of this CA"},
		"half a list":        {func(p *published, list, _ string) { p.edit(list, func(b []byte) []byte { return b[:len(b)/2] }) }, "not a CRL of this CA"},
		"no delta":           {func(p *published, _, delta string) { p.edit(delta, nil) }, "missing"},
		"the delta as list": {func(p *published, list, delta string) {
			p.edit(list, func([]byte) []byte { b, _ := os.ReadFile(delta); return b })
		}, "place of its delta"},
		"another address":  {func(p *published, _, _ string) { p.cfg.PKIURL = "http://moved.example" }, "addresses of today"},
		"another lifetime": {func(p *published, _, _ string) { p.cfg.CRLLifetime = 30 * time.Hour; p.cfg.CRLOverlap = 0 }, "dates"},
		"too old":          {func(p *published, _, _ string) { p.clock.Add(int64(13 * time.Hour)) }, "due for renewal"},
		"of the future":    {func(p *published, _, _ string) { p.clock.Add(-int64(time.Hour)) }, "due for renewal"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPublished(t, config(func(c *ca.Config) { c.CRLLifetime = 24 * time.Hour }))
			row := p.issue("a")
			stop := p.start()
			p.revoke(row.ID, pkix.Superseded)
			p.settled(1)
			stop()
			before := p.full(row.Shard)
			if err := p.store.Close(); err != nil {
				t.Fatal(err)
			}
			base := filepath.Join(p.dir, p.id, fmt.Sprint(row.Shard))
			test.spoil(p, base+".crl", base+"-delta.crl")
			p.open()
			after := p.full(row.Shard)
			if _, ok := after.entries[row.Serial]; !ok || after.Number.Cmp(before.Number) <= 0 {
				t.Errorf("list %v after %v, entry there %v", after.Number, before.Number, ok)
			}
			if !p.log.has(test.want) {
				t.Errorf("the log does not say %q:\n%s", test.want, p.log.text.String())
			}
		})
	}
}

// edit changes a file; nil removes it.
func (p *published) edit(path string, change func([]byte) []byte) {
	p.t.Helper()
	content, err := os.ReadFile(path)
	if err == nil && change == nil {
		err = os.Remove(path)
	} else if err == nil {
		err = os.WriteFile(path, change(content), 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// backUp copies the ledger, and returns how to restore it; the store is closed for both.
func (p *published) backUp() (restore func()) {
	p.t.Helper()
	if err := p.store.Close(); err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.fixture.dir, "sekisho.db")
	copied, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.open()
	return func() {
		p.t.Helper()
		if err := p.store.Close(); err != nil {
			p.t.Fatal(err)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(path + suffix) // of the database that is replaced; closed, it has none
		}
		if err := os.WriteFile(path, copied, 0o600); err != nil {
			p.t.Fatal(err)
		}
		p.open()
	}
}

// TestRestoredBackup: a file that is newer than the ledger stays, loudly, and is replaced when the ledger has passed it;
// and a file of the ledger's number with other changes in it is not taken for ours.
func TestRestoredBackup(t *testing.T) {
	p := newPublished(t)
	rows := p.sameShard(3)
	shard := rows[0].Shard
	path := filepath.Join(p.dir, p.id, fmt.Sprint(shard)+".crl")
	stop := p.start()
	p.settled(0)
	stop()
	restore := p.backUp()
	stop = p.start()
	p.hold(rows[2].ID)
	p.reactivate(rows[2].ID)
	last := p.revoke(rows[0].ID, pkix.KeyCompromise)
	eventually(t, "the file has it", func() bool { return p.read(p.content(path)).Number.Int64() >= last.CRLNumber })
	p.settled(1)
	stop()
	file, deltaPath := p.content(path), strings.TrimSuffix(path, ".crl")+"-delta.crl"
	delta := p.content(deltaPath)
	number := p.read(file).Number.Int64()

	restore()
	stop = p.start()
	eventually(t, "the error is counted", func() bool { return p.Metrics().CRLFilesNewer > 0 })
	if got := p.full(shard).Number.Int64(); got >= number {
		t.Fatalf("the list served has number %d, the file %d: the test tests nothing", got, number)
	}
	if !bytes.Equal(p.content(path), file) || !p.log.has("old backup restored") {
		t.Errorf("the file was replaced, or the log does not say so:\n%s", p.log.text.String())
	}
	for p.full(shard).Number.Int64() <= number { // the ledger passes it
		p.hold(rows[2].ID)
		p.reactivate(rows[2].ID)
		p.publishedAgain(shard)
	}
	eventually(t, "the file is replaced", func() bool { return p.read(p.content(path)).Number.Int64() > number })
	stop()

	// The same number by other changes, while nothing is written.
	restore()
	p.edit(path, func([]byte) []byte { return file })
	p.edit(deltaPath, func([]byte) []byte { return delta })
	row := p.revoke(rows[1].ID, pkix.Superseded)
	for row.CRLNumber < number {
		row = p.hold(rows[2].ID)
		if row.CRLNumber < number {
			row = p.reactivate(rows[2].ID)
		}
	}
	p.reopen()
	if _, ok := p.full(shard).entries[rows[1].Serial]; !ok {
		t.Error("the revocation in the ledger is not in the list: the file of another history was taken for ours")
	}
	if !p.log.has("its delta") {
		t.Errorf("the log does not say why the file was left:\n%s", p.log.text.String())
	}
}

// publishedAgain waits until the shard's list has everything.
func (p *published) publishedAgain(shard int) {
	p.t.Helper()
	number, _, err := p.store.CRLBases(p.t.Context(), p.id, shard)
	if err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, "the list has everything", func() bool { return p.full(shard).Number.Int64() >= number })
}

// content reads a file.
func (p *published) content(path string) []byte {
	p.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return content
}

// TestPublishDirFinish: what is revoked just before the stop, or while the last calls are answered after it, is in the
// directory: nobody writes it while the server is down.
func TestPublishDirFinish(t *testing.T) {
	p := newPublished(t)
	stop := p.start()
	rows := []ca.Certificate{p.issue("a"), p.issue("b")}
	p.settled(0)
	p.revoke(rows[0].ID, pkix.Superseded)
	stop()
	p.revoke(rows[1].ID, pkix.KeyCompromise)
	if err := p.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		for _, name := range []string{p.id + ".crl", fmt.Sprintf("%s/%d.crl", p.id, row.Shard), fmt.Sprintf("%s/%d-delta.crl", p.id, row.Shard)} {
			der, err := os.ReadFile(filepath.Join(p.dir, name))
			if err != nil {
				t.Fatal(err)
			}
			list, err := x509.ParseRevocationList(der)
			if err != nil || entry(t, list, row) == nil {
				t.Errorf("%s is not in %s, %v", row.CommonName, name, err)
			}
		}
	}
}

// TestPublishDirFails: while nothing can be written the lists are served by HTTP, and the directory catches up afterwards.
func TestPublishDirFails(t *testing.T) {
	p := newPublished(t)
	row := p.issue("a")
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(p.dir, p.id) // a file where a directory must be
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop := p.start()
	defer stop()
	after := p.revoke(row.ID, pkix.Superseded)
	eventually(t, "it is served", func() bool { return p.full(row.Shard).Number.Int64() >= after.CRLNumber })
	eventually(t, "the failure is counted", func() bool { return p.Metrics().CRLFileFailures > 0 })
	if !p.log.has("CRL file not written") {
		t.Error("the log does not say so")
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	p.settled(1)
	if !p.log.has("CRL file written again") {
		t.Error("the log does not say that it is over")
	}
}

// TestPublishDirFull is the same with a file system that is full.
func TestPublishDirFull(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("sekisho", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no file system can be mounted here (%v); TestPublishDirFails stands in", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(disk, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 1<<20), 0o600) // until it is full
	p := newPublished(t, config(func(c *ca.Config) { c.PublishDir = filepath.Join(disk, "crl") }))
	p.dir = p.cfg.PublishDir
	row := p.issue("a")
	stop := p.start()
	defer stop()
	after := p.revoke(row.ID, pkix.Superseded)
	eventually(t, "it is served", func() bool { return p.full(row.Shard).Number.Int64() >= after.CRLNumber })
	eventually(t, "the log says that the disk is full", func() bool { return p.log.has("no space left on device") })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	p.settled(1)
}

// TestPublishDirReadable: a web server that is another user reads what is published, whatever the umask is.
func TestPublishDirReadable(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	p := newPublished(t)
	stop := p.start()
	defer stop()
	path := filepath.Join(p.cfg.PublishDir, p.issuingID(), "0.crl")
	eventually(t, path, func() bool { _, err := os.Stat(path); return err == nil })
	for _, dir := range []string{p.cfg.PublishDir, filepath.Dir(path)} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
}
