package crl

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Copies of lists from URLs are kept under the SHA-256 of the URL. They are not trusted: their signature is checked when
// they are read back.
const (
	copySuffix = ".crl"
	copyAge    = 30 * 24 * time.Hour // nobody wanted it for so long: it is removed
)

func copyName(url string) string {
	sum := sha256.Sum256([]byte(url))
	return hex.EncodeToString(sum[:]) + copySuffix
}

// prepare makes the folder and removes what a process that was killed left half loaded in it.
func (k *Keeper) prepare(ctx context.Context) {
	k.prepared.Do(func() {
		if k.cfg.Dir == "" {
			return
		}
		err := os.MkdirAll(k.cfg.Dir, 0o700)
		left, _ := filepath.Glob(filepath.Join(k.cfg.Dir, loadingPrefix+"*"))
		for _, name := range left {
			err = errors.Join(err, os.Remove(name))
		}
		if err != nil {
			k.cfg.Logger.WarnContext(ctx, "folder of CRL copies", "error", err)
		}
	})
}

// readCopy puts the copy that an earlier process kept in force, if the caller wants it. Failing that, the list is fetched
// as if there were none.
func (k *Keeper) readCopy(ctx context.Context, src *source, url string, o Options, wanted func(*List) error) {
	if src.copyTried || src.list != nil || k.cfg.Dir == "" {
		return
	}
	src.copyTried = true
	info, err := os.Stat(filepath.Join(k.cfg.Dir, copyName(url)))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var list *List
	if err == nil {
		list, err = k.checked(ctx, func() (*List, error) { return open(copyName(url), o) })
	}
	if err == nil {
		err = wanted(list)
	}
	if err != nil {
		k.cfg.Logger.WarnContext(ctx, "CRL copy on disk not used", "address", url, "error", err)
		return
	}
	src.hold(list)
	src.unkept, src.fromDisk, src.success = false, true, info.ModTime()
	if now := k.cfg.Now(); list.Fresh(now, 0) {
		src.next = now.Add(part10(10 * copyRefresh)) // soon, but a fleet that starts does not ask at once
	}
}

// keepCopy gives the copy of a list that was fetched its name. The list is in force already: the disk is slow.
func (k *Keeper) keepCopy(ctx context.Context, src *source, url string) {
	if !src.unkept || src.list == nil {
		return
	}
	src.unkept = false
	if err := src.list.Keep(copyName(url)); err != nil {
		k.cfg.Logger.WarnContext(ctx, "CRL copy", "address", url, "error", err)
	}
}

// sweepCopies removes copies that nobody has wanted for long, and says of the others that they are wanted.
func (k *Keeper) sweepCopies(ctx context.Context, now time.Time) {
	if k.cfg.Dir == "" {
		return
	}
	wanted := make(map[string]time.Time) // and when its source was reached last
	k.mu.RLock()
	for _, s := range k.slots {
		h := s.held.Load()
		wanted[copyName(s.key.address)] = h.LastSuccess
		if h.List != nil {
			for _, url := range h.List.Freshest() {
				wanted[copyName(url)] = h.LastSuccess
			}
		}
	}
	k.mu.RUnlock()
	entries, err := os.ReadDir(k.cfg.Dir)
	for _, e := range entries {
		path := filepath.Join(k.cfg.Dir, e.Name())
		info, statErr := e.Info()
		success, isWanted := wanted[e.Name()]
		switch {
		case statErr != nil || !strings.HasSuffix(e.Name(), copySuffix):
		case isWanted && success.After(info.ModTime()):
			err = errors.Join(err, os.Chtimes(path, success, success))
		case isWanted:
		case now.Sub(info.ModTime()) > copyAge:
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		k.cfg.Logger.WarnContext(ctx, "folder of CRL copies", "error", err)
	}
}

// removeCopies removes the copies of URLs of which nobody has a list any more.
func (k *Keeper) removeCopies(urls []string) {
	if k.cfg.Dir == "" {
		return
	}
	for _, url := range urls {
		k.mu.RLock()
		wanted := len(k.at[url]) > 0
		k.mu.RUnlock()
		if wanted {
			continue
		}
		if err := os.Remove(filepath.Join(k.cfg.Dir, copyName(url))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.cfg.Logger.Warn("CRL copy", "address", url, "error", err)
		}
	}
}
