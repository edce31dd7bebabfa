package ocsp

import (
	"sync"
	"time"
)

const (
	tripAfter   = 3    // failures in a row
	maxBreakers = 4096 // responders remembered
)

// breakers keep responders that failed several times in a row from being asked for a while, so that a dead responder
// costs each new certificate nothing.
type breakers struct {
	mu sync.Mutex
	of map[string]breaker
}

type breaker struct {
	fails int
	until time.Time
}

// open reports whether a responder is to be left alone, and until when.
func (b *breakers) open(responder string, now time.Time) (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.of[responder]
	return s.until, now.Before(s.until)
}

// record notes how an attempt ended.
func (b *breakers) record(responder string, now time.Time, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !failed {
		delete(b.of, responder)
		return
	}
	if b.of == nil || len(b.of) >= maxBreakers {
		b.of = make(map[string]breaker)
	}
	s := b.of[responder]
	s.fails++
	if s.fails >= tripAfter {
		s.until = now.Add(backoff(s.fails - tripAfter + 1))
	}
	b.of[responder] = s
}
