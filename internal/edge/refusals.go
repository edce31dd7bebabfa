package edge

import (
	"sync"

	"sekisho/internal/verify"
)

// maxRefusals is how many refusals are remembered, a few KiB each; the oldest goes first.
const maxRefusals = 1024

// refusals remembers the latest refusals by request id. The zero value is ready.
type refusals struct {
	mu   sync.Mutex
	byID map[string]*verify.Explanation
	ring [maxRefusals]*verify.Explanation
	next int
}

func (r *refusals) add(one *verify.Explanation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = make(map[string]*verify.Explanation)
	}
	if old := r.ring[r.next]; old != nil {
		delete(r.byID, old.RequestID)
	}
	r.ring[r.next], r.byID[one.RequestID] = one, one
	r.next = (r.next + 1) % maxRefusals
}

func (r *refusals) get(id string) (verify.Explanation, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one := r.byID[id]; one != nil {
		return *one, true
	}
	return verify.Explanation{}, false
}

// Refusal returns what is remembered of a request that was refused for its client's certificate, by the request id that
// the client and the access log have.
func (s *Server) Refusal(requestID string) (verify.Explanation, bool) {
	return s.refusals.get(requestID)
}

// explain remembers how a refusal came about.
func (x *exchange) explain() {
	s := x.c.server
	if s == nil || x.standing == nil || x.host == nil {
		return
	}
	why := s.cfg.Verifier.ExplainIdentity(x.standing.host.Trust, x.standing.identity)
	why.RequestID, why.Host, why.Mode, why.Remote = x.id, x.name, string(x.host.Mode), x.c.remote
	s.refusals.add(&why)
}
