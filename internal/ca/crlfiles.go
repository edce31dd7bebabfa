package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"sekisho/internal/pkix"
)

// crlFiles keeps [Config.PublishDir]: files of the form
//
//	CA/0.crl CA/0-delta.crl ...   the CRL of a shard, the delta to it
//	CA.crl                        the list of all shards
//	CA.cer                        the CA's certificate
//
// in DER, each replaced as a whole. A file with a CRL number that ours has not passed is left as it is: whoever has seen it
// would not go back, and it may know of revocations that we have forgotten, as after the restore of an old backup.
type crlFiles struct {
	a   *Authority
	dir string

	mu      sync.Mutex
	known   map[string]fileState // by path: what we know the file to be
	trouble map[string]string    // by path: what was logged last; gone when the file is written
	rest    time.Time            // until when nothing is written, see writeDue
}

// maxFilePause is the longest pause of writeDue.
const maxFilePause = time.Second

// fileState is a file that holds a list of ours, as it was when we wrote or read it.
type fileState struct {
	number int64
	size   int64
	mtime  time.Time
}

func newCRLFiles(a *Authority) *crlFiles {
	return &crlFiles{a: a, dir: a.cfg.PublishDir, known: map[string]fileState{}, trouble: map[string]string{}}
}

// path is the file of a list.
func (f *crlFiles) path(caID string, shard int, delta bool) string {
	switch {
	case shard == AllShards:
		return filepath.Join(f.dir, caID+".crl")
	case delta:
		return filepath.Join(f.dir, caID, strconv.Itoa(shard)+"-delta.crl")
	}
	return filepath.Join(f.dir, caID, strconv.Itoa(shard)+".crl")
}

// writeDue writes every list that is newer than its file and returns how long nothing more is to be done. In a stream of
// changes it rests twice as long as it writes: large lists would keep the disk busy that revocations wait for.
func (f *crlFiles) writeDue(ctx context.Context) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pause := time.Until(f.rest); pause > 0 {
		return pause
	}
	start := time.Now()
	defer func() { f.rest = time.Now().Add(min(2*time.Since(start), maxFilePause)) }()
	if f.writeLocked(ctx) {
		return publishRetry
	}
	return time.Minute
}

// writeLocked writes every list that is newer than its file, and reports whether one could not be written.
func (f *crlFiles) writeLocked(ctx context.Context) (failed bool) {
	try := func(path string, err error) {
		if err != nil {
			failed = true
		}
		f.report(ctx, path, err)
	}
	p := &f.a.publisher
	for _, c := range f.a.cas.Load().all() {
		path := filepath.Join(f.dir, c.record.ID+".cer")
		try(path, f.writeCertificate(path, c.record.DER))
		for n := range c.record.Shards {
			now := p.shard(shardKey{c.record.ID, n}).current.Load()
			if now == nil || ctx.Err() != nil {
				continue
			}
			for _, crl := range []*CRL{now.full, now.delta} {
				path := f.path(c.record.ID, n, crl.Base != nil)
				try(path, f.write(path, c, crl))
			}
			if c.record.Shards == 1 {
				path := f.path(c.record.ID, AllShards, false)
				try(path, f.write(path, c, now.full))
			}
		}
		if crl := p.whole(c.record.ID).current.Load(); crl != nil {
			path := f.path(c.record.ID, AllShards, false)
			try(path, f.write(path, c, crl))
		}
	}
	return failed
}

// report logs an error once, until it changes or is over.
func (f *crlFiles) report(ctx context.Context, path string, err error) {
	before := f.trouble[path]
	switch {
	case err == nil && before != "":
		delete(f.trouble, path)
		f.a.cfg.Logger.InfoContext(ctx, "CRL file written again", "path", path)
	case err != nil:
		f.a.counters.crlFileFailures.Add(1)
		if err.Error() != before {
			f.trouble[path] = err.Error()
			f.a.cfg.Logger.ErrorContext(ctx, "CRL file not written; it is served by HTTP all the same", "path", path, "error", err)
		}
	}
}

// errNewerFile: the file's CRL has a number above ours.
var errNewerFile = errors.New("the file is newer than the ledger")

// write replaces the file unless it holds the list already, or a newer one.
func (f *crlFiles) write(path string, issuer *authorityCA, crl *CRL) error {
	number := crl.Number.Int64()
	if known, ok := f.known[path]; ok && known.number <= number && known.same(path) {
		if known.number == number {
			return nil
		}
		return f.replace(path, crl) // to read it back and verify it would cost as much as to sign the next one
	}
	there, err := f.read(path, issuer)
	switch {
	case err != nil && !errors.Is(err, errForeignFile):
		return err
	case there == nil:
	case bytes.Equal(there.Raw, crl.DER):
		return f.remember(path, number)
	case there.Number.Cmp(crl.Number) >= 0: // of the same number and other octets: the ledger has forgotten it
		f.a.counters.crlFilesNewer.Add(1)
		return fmt.Errorf("it holds another CRL with number %v and the ledger is at %d: %w: was an old backup restored? Restore the "+
			"newest one; or, when what was revoked since is revoked again, move the file away", there.Number, number, errNewerFile)
	}
	return f.replace(path, crl)
}

// replace puts a list in place of what is there.
func (f *crlFiles) replace(path string, crl *CRL) error {
	if err := replaceFile(path, crl.DER); err != nil {
		return err
	}
	f.a.counters.crlFiles.Add(1)
	return f.remember(path, crl.Number.Int64())
}

func (f *crlFiles) remember(path string, number int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f.known[path] = fileState{number: number, size: info.Size(), mtime: info.ModTime()}
	return nil
}

// same reports whether the file is as it was.
func (s fileState) same(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() == s.size && info.ModTime().Equal(s.mtime)
}

// writeCertificate writes a CA's certificate, which never changes.
func (f *crlFiles) writeCertificate(path string, der []byte) error {
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, der) {
		return nil
	}
	return replaceFile(path, der)
}

// errForeignFile: what is in the file is no list of ours.
var errForeignFile = errors.New("not a CRL of this CA")

// read parses a published list; nil when there is no file. One that does not parse, that another key signed or that has
// no number is errForeignFile.
func (f *crlFiles) read(path string, issuer *authorityCA) (*pkix.CRL, error) {
	der, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	crl, err := pkix.ParseCRLHeader(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errForeignFile, err)
	}
	if err := crl.CheckSignature(issuer.cert.PublicKey); err != nil {
		return nil, fmt.Errorf("%w: %w", errForeignFile, err)
	}
	if crl.Number == nil || crl.Number.Cmp(big.NewInt(1<<62)) > 0 {
		return nil, fmt.Errorf("%w: it has no number that we give", errForeignFile)
	}
	return crl, nil
}

// makeDir makes a directory that is not there, readable for everybody whatever the umask is.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // what is in it is public
		return err
	}
	return os.Chmod(dir, 0o755) //nolint:gosec // the same
}

// replaceFile puts content in place of the file in one step, readable for everybody. What a crash leaves behind is
// overwritten by the next try.
func replaceFile(path string, content []byte) error {
	dir, name := filepath.Split(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+name+".new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // CRLs and CA certificates are public
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Chmod(0o644) // whatever the umask is
	}
	if err == nil {
		err = file.Sync() // or a power cut may leave the new name with nothing behind it
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
