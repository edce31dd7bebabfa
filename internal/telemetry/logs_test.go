package telemetry

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// disk is a file on a disk that may be full.
type disk struct {
	strings.Builder
	err error
}

func (d *disk) Write(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	return d.Builder.Write(p)
}

func (d *disk) Close() error { return nil }

// A full disk costs lines, is told once, and is forgotten when there is space again.
func TestFullDiskLosesLinesOnlyWhileFull(t *testing.T) {
	d := &disk{}
	var told []error
	f := newFlusher(d, func(err error) { told = append(told, err) })
	write := func(line string) {
		_, _ = f.Write([]byte(line)) // as slog does
		f.flush()
	}
	write("one\n")
	d.err = errors.New("no space left on device")
	write("two\n")
	write("three\n")
	_, _ = f.Write(make([]byte, 1<<17)) // larger than the buffer: fails in Write
	d.err = nil
	write("four\n")
	d.err = errors.New("no space left on device")
	write("five\n")
	d.err = nil
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if d.String() != "one\nfour\n" || len(told) != 2 {
		t.Errorf("file %q, told %v", d.String(), told)
	}
}

func TestNewLogs(t *testing.T) {
	for _, tc := range []struct {
		cfg  LogConfig
		want string
	}{
		{LogConfig{Level: "loud", Format: "text", Access: "off"}, "log.level"},
		{LogConfig{Level: "info", Format: "xml", Access: "off"}, "log.format"},
		{LogConfig{Level: "info", Format: "text", Access: filepath.Join(t.TempDir(), "no", "file")}, "log.access"},
	} {
		if _, err := NewLogs(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want an error that names %s", tc.cfg, err, tc.want)
		}
	}
	path := filepath.Join(t.TempDir(), "access.log")
	var stderr strings.Builder
	logs, err := NewLogs(LogConfig{Level: "warn", Format: "json", Access: path, Stderr: &stderr})
	if err != nil {
		t.Fatal(err)
	}
	logs.Access.Warn("request", slog.Int("status", 200))
	logs.Logger.Info("not at this level")
	if err := logs.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), `"status":200`) || stderr.Len() > 0 {
		t.Errorf("file %q, %v; stderr %q", text, err, stderr.String())
	}
}
