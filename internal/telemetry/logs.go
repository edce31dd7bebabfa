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
		buffered := newFlusher(f)
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
}

func newFlusher(file io.WriteCloser) *flusher {
	f := &flusher{done: make(chan struct{}), buffer: bufio.NewWriterSize(file, 64<<10), file: file}
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
			f.mu.Lock()
			_ = f.buffer.Flush() // a full disk shows at the next Write, whose error slog drops: requests go on
			f.mu.Unlock()
		}
	}
}

// Write implements io.Writer; a line is never split between two calls.
func (f *flusher) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.buffer.Write(p)
}

// Close writes out what is buffered and closes the file.
func (f *flusher) Close() error {
	close(f.done)
	f.wait.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.buffer.Flush(), f.file.Close())
}
