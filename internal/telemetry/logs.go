// Package telemetry sets up logs, the metrics registry and the health endpoints. Only the command imports it: other
// packages get a *slog.Logger and expose their counters as plain values.
//
//	logs, err := telemetry.NewLogs(telemetry.LogConfig{Level: "info", Format: "text", Access: "off", Stderr: os.Stderr})
//	defer logs.Close()
package telemetry

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

// LogConfig says what is logged and where to.
type LogConfig struct {
	Level  string // debug, info, warn or error
	Format string // text or json
	Access string // stderr, off, or a file's path
	Stderr io.Writer
}

// Logs are the loggers of a process. Access is nil when access lines are off.
type Logs struct {
	Logger *slog.Logger
	Access *slog.Logger

	close func() error
}

// Close writes out what is buffered. The loggers must not be used afterwards.
func (l *Logs) Close() error { return l.close() }

// NewLogs opens the loggers. Its errors name the setting that is wrong.
func NewLogs(cfg LogConfig) (*Logs, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		return nil, fmt.Errorf("log.level %q: use debug, info, warn or error", cfg.Level)
	}
	var handler func(io.Writer) slog.Handler
	options := &slog.HandlerOptions{Level: level}
	switch cfg.Format {
	case "text":
		handler = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, options) }
	case "json":
		handler = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, options) }
	default:
		return nil, fmt.Errorf("log.format %q: use text or json", cfg.Format)
	}
	logs := &Logs{Logger: slog.New(handler(cfg.Stderr)), close: func() error { return nil }}
	switch cfg.Access {
	case "off":
	case "stderr":
		logs.Access = logs.Logger
	default:
		f, err := os.OpenFile(cfg.Access, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, fmt.Errorf("log.access: %w", err)
		}
		buffered := newFlusher(f, func(err error) {
			logs.Logger.Error("access log: lines are lost", "file", cfg.Access, "error", err)
		})
		logs.Access = slog.New(handler(buffered))
		logs.close = buffered.Close
	}
	return logs, nil
}

// flusher gathers lines and writes them at least once a second, so that a request does not pay for a write of its own.
type flusher struct {
	done chan struct{}
	wait sync.WaitGroup

	mu     sync.Mutex
	buffer *bufio.Writer
	file   io.WriteCloser
	lost   func(error) // told once when writing begins to fail
	failed bool
}

func newFlusher(file io.WriteCloser, lost func(error)) *flusher {
	f := &flusher{done: make(chan struct{}), buffer: bufio.NewWriterSize(file, 64<<10), file: file, lost: lost}
	f.wait.Go(f.run)
	return f
}

func (f *flusher) run() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-f.done:
			return
		case <-ticker.C:
			f.flush()
		}
	}
}

// Write implements io.Writer; a line is never split between two calls.
func (f *flusher) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.buffer.Write(p)
	if err != nil {
		f.dropLocked(err)
	}
	return n, err
}

// flush writes out what is buffered.
func (f *flusher) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch waiting, err := f.buffer.Buffered() > 0, f.buffer.Flush(); {
	case err != nil:
		f.dropLocked(err)
	case waiting:
		f.failed = false
	}
}

// dropLocked gives up what could not be written, and says so. Requests go on, and so does the log once there is space:
// a bufio.Writer by itself would refuse everything for ever.
func (f *flusher) dropLocked(err error) {
	f.buffer.Reset(f.file)
	if !f.failed {
		f.failed = true
		f.lost(err)
	}
}

// Close writes out what is buffered and closes the file.
func (f *flusher) Close() error {
	close(f.done)
	f.wait.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.buffer.Flush(), f.file.Close())
}
