package outbound

import (
	"context"
	"sync"
)

// How many exchanges are under way at most.
const (
	maxTotal       = 32
	maxCertificate = 24 // for certificates, so that strangers leave some to the operator
	maxPerHost     = 4  // with one host
)

// slots bounds the exchanges that are under way.
type slots struct {
	total, certificate chan struct{}

	mu    sync.Mutex
	hosts map[string]*hostSlots
}

// hostSlots are the slots of one host. They exist while somebody holds one or
// waits for one.
type hostSlots struct {
	busy  chan struct{}
	users int
}

func newSlots() *slots {
	return &slots{
		total: make(chan struct{}, maxTotal), certificate: make(chan struct{}, maxCertificate),
		hosts: map[string]*hostSlots{},
	}
}

// acquire waits for a slot: first with the host, so that whoever waits for a
// slow one takes nothing from others. Nobody who holds a slot waits for
// another host's: no two can wait for each other.
func (s *slots) acquire(ctx context.Context, host string, origin Trust) (release func(), err error) {
	chain := []chan struct{}{s.enter(host), s.total}
	if origin != FromOperator {
		chain = []chan struct{}{chain[0], s.certificate, s.total}
	}
	for i, slot := range chain {
		select {
		case slot <- struct{}{}:
		case <-ctx.Done():
			s.leave(host, chain[:i])
			return nil, ctx.Err()
		}
	}
	return func() { s.leave(host, chain) }, nil
}

// enter finds or makes the slots of a host.
func (s *slots) enter(host string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[host]
	if h == nil {
		h = &hostSlots{busy: make(chan struct{}, maxPerHost)}
		s.hosts[host] = h
	}
	h.users++
	return h.busy
}

// leave gives back slots that are held, and forgets a host that nobody uses.
func (s *slots) leave(host string, held []chan struct{}) {
	for _, slot := range held {
		<-slot
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[host]
	h.users--
	if h.users == 0 {
		delete(s.hosts, host)
	}
}
