package ocsp

import (
	"sync"
	"time"

	"sekisho/internal/pkix"
)

const (
	tripAfter   = 3    // failures in a row
	maxBreakers = 4096 // responders remembered
)

// breakers keep responders that failed several times in a row from being asked for a while, so that a dead responder
// costs each new certificate nothing.
type breakers struct {
	mu sync.Mutex
	of map[breakerKey]breaker
}

// breakerKey is a responder, asked about the certificates of one issuer.
type breakerKey struct {
	issuer pkix.KeyID
	url    string
}

type breaker struct {
	fails int
	until time.Time
}

// open reports whether a responder is to be left alone, and until when.
func (b *breakers) open(key breakerKey, now time.Time) (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of[key]
	return s.until, now.Before(s.until)
}

// record notes how an attempt ended.
func (b *breakers) record(key breakerKey, now time.Time, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !failed {
		delete(b.of, key)
		return
	}
	if b.of == nil || len(b.of) >= maxBreakers {
		b.of = make(map[breakerKey]breaker)
	}
	s := b.of[key]
	s.fails++
	if s.fails >= tripAfter {
		s.until = now.Add(backoff(s.fails - tripAfter + 1))
	}
	b.of[key] = s
}
