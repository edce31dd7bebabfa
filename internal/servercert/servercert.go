// Package servercert says where a host's own certificate comes from and keeps it fresh: files that somebody else
// renews, or certificates that our own CA issues and this package renews before they end.
//
// A [Source] answers from memory. A file that cannot be read, or a pair that does not match, changes nothing: the old
// certificate is served on and the error is logged once per attempt.
//
//	src, err := servercert.FromFiles("server.crt", "server.key")
//	host.Certificate = src.Certificate
//	go manager.Run(ctx) // renews every source given to it
package servercert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// checkInterval is how often files are looked at and renewals are considered.
const checkInterval = 2 * time.Second

// Source is one certificate that is kept fresh. It is safe for concurrent use.
type Source struct {
	name    string
	current atomic.Pointer[tls.Certificate]

	mu     sync.Mutex // serialises refresh
	reload func(ctx context.Context, now time.Time) (*tls.Certificate, error)
}

// Certificate returns the current certificate; it has the signature of [tls.Config.GetCertificate] and never blocks.
func (s *Source) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load(), nil
}

// Leaf returns the current leaf.
func (s *Source) Leaf() *x509.Certificate { return s.current.Load().Leaf }

// refresh asks for a newer certificate; nil means that the current one stays.
func (s *Source) refresh(ctx context.Context, now time.Time) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.reload(ctx, now)
	if err != nil || next == nil {
		return false, err
	}
	s.current.Store(next)
	return true, nil
}

// Manager keeps sources fresh. The zero Manager is ready; Logger nil means slog.Default().
type Manager struct {
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now

	mu      sync.Mutex
	sources []*Source
	fixed   []*Source
	failed  map[*Source]string // last error of a source, so that it is logged once
}

// SetSources replaces the hosts' sources that [Manager.Run] looks after.
func (m *Manager) SetSources(sources []*Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources, m.failed = sources, make(map[*Source]string)
}

// AddSource adds a source that stays when the hosts' sources are replaced.
func (m *Manager) AddSource(s *Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fixed = append(m.fixed, s)
}

// Run refreshes the sources until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			m.refreshAll(ctx)
		}
	}
}

func (m *Manager) refreshAll(ctx context.Context) {
	logger, now := m.Logger, time.Now
	if logger == nil {
		logger = slog.Default()
	}
	if m.Now != nil {
		now = m.Now
	}
	m.mu.Lock()
	sources := slices.Concat(m.fixed, m.sources)
	m.mu.Unlock()
	for _, s := range sources {
		changed, err := s.refresh(ctx, now())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if m.firstTime(s, err.Error()) {
				logger.ErrorContext(ctx, "server certificate not renewed, the old one stays", "certificate", s.name, "error", err, "not_after", s.Leaf().NotAfter)
			}
			continue
		case changed:
			logger.InfoContext(ctx, "server certificate renewed", "certificate", s.name, "not_after", s.Leaf().NotAfter)
		}
		m.firstTime(s, "") // should it fail again, that is news
	}
}

func (m *Manager) firstTime(s *Source, text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed[s] == text {
		return false
	}
	if m.failed == nil {
		m.failed = make(map[*Source]string)
	}
	m.failed[s] = text
	return true
}
