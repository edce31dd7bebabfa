package keystore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// writeNew writes a file that must not exist, mode 0600, and returns when it and its name are on disk. Whoever is killed
// in between leaves the whole file or none of that name: it is written under another name and linked.
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, tempName(filepath.Base(path)))
	if err := writeSynced(temp, data); err != nil {
		return errors.Join(err, remove(temp))
	}
	err := os.Link(temp, path)
	if isNoLinks(err) {
		if _, statErr := os.Lstat(path); statErr == nil {
			err = fs.ErrExist
		} else {
			err = os.Rename(temp, path)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%s: %w", path, ErrExists)
	}
	return errors.Join(err, remove(temp), syncDir(dir))
}

// tempName is the name under which a file is written: .NAME.key.RANDOM.
func tempName(base string) string { return "." + base + "." + rand.Text() }

// isTempName reports whether tempName made it.
func isTempName(name string) bool {
	end := len(name) - len(rand.Text())
	return end > 0 && name[0] == '.' && strings.HasSuffix(name[:end], keySuffix+".") &&
		strings.Trim(name[end:], "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// removeLeftovers removes what writeNew was writing when its process was killed. Files of other names stay.
func removeLeftovers(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && isTempName(e.Name()) {
			err = errors.Join(err, remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// isNoLinks reports whether the file system has no hard links.
func isNoLinks(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS)
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// shellQuote writes a path as one word for a POSIX shell.
func shellQuote(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-+:@%", r))
	}) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
