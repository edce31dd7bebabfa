package edge

import (
	"container/heap"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/pkix"
)

const liveShards = 32 // a power of two

// liveTable holds every connection whose handshake is complete: all of them, by each certificate of their path below
// the trust anchor (the leaf first of all, but a revoked intermediate CA ends its clients too), and by the moment
// their path ends.
type liveTable struct {
	n      atomic.Int64
	next   atomic.Uint32 // spreads connections over shards
	shards [liveShards]liveShard
	ids    [liveShards]idShard
	expiry expiryQueue
}

type liveShard struct {
	mu    sync.Mutex
	conns map[*conn]struct{}
}

type idShard struct {
	mu    sync.Mutex
	conns map[pkix.CertID]map[*conn]struct{}
}

// add enters a connection.
func (t *liveTable) add(c *conn, s *standing, now time.Time) {
	c.link.indexing.Lock()
	defer c.link.indexing.Unlock()
	t.n.Add(1)
	c.link.shard = t.next.Add(1) % liveShards
	shard := &t.shards[c.link.shard]
	shard.mu.Lock()
	if shard.conns == nil {
		shard.conns = make(map[*conn]struct{})
	}
	shard.conns[c] = struct{}{}
	shard.mu.Unlock()

	t.indexLocked(c, s, now)
}

// follow enters a connection under the path that its identity has now, instead of the one it had: a host that trusts
// another CA than before may know a client that it did not know, or by another path.
func (t *liveTable) follow(c *conn, s *standing, now time.Time) {
	c.link.indexing.Lock()
	defer c.link.indexing.Unlock()
	if !c.link.removed {
		t.unindexLocked(c)
		t.indexLocked(c, s, now)
	}
}

// remove takes a connection out.
func (t *liveTable) remove(c *conn) {
	c.link.indexing.Lock()
	defer c.link.indexing.Unlock()
	s := &t.shards[c.link.shard]
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.link.removed = true
	t.unindexLocked(c)
	t.n.Add(-1)
}

func (t *liveTable) indexLocked(c *conn, s *standing, now time.Time) {
	c.link.ids = idsOf(s.identity)
	for _, id := range c.link.ids {
		t.idShard(id).add(id, c)
	}
	if len(c.link.ids) > 0 && !now.After(s.identity.NotAfter()) {
		t.expiry.add(c, s.due())
	}
	if s.host != nil {
		c.link.release = c.server.cfg.Verifier.Hold(s.host.Trust, s.identity)
	}
}

func (t *liveTable) unindexLocked(c *conn) {
	for _, id := range c.link.ids {
		t.idShard(id).remove(id, c)
	}
	t.expiry.remove(c)
	if c.link.release != nil {
		c.link.release()
		c.link.release = nil
	}
}

// concerns reports whether a certificate of one of the issuers is in the connection's path; nil stands for every issuer.
func (t *liveTable) concerns(c *conn, issuers []pkix.KeyID) bool {
	c.link.indexing.Lock()
	defer c.link.indexing.Unlock()
	return slices.ContainsFunc(c.link.ids, func(id pkix.CertID) bool {
		return issuers == nil || slices.Contains(issuers, id.Issuer)
	})
}

// idsOf names the certificates of a path whose revocation ends the identity.
func idsOf(id identity.Identity) []pkix.CertID {
	leaf, ok := id.CertID()
	if !ok {
		return nil
	}
	ids := []pkix.CertID{leaf}
	path := id.Path()
	for i := 1; i < len(path)-1; i++ {
		ids = append(ids, pkix.CertIDOf(path[i], path[i+1]))
	}
	return ids
}

func (t *liveTable) count() int { return int(t.n.Load()) }

// all returns the connections of the moment.
func (t *liveTable) all() []*conn {
	conns := make([]*conn, 0, t.count())
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for c := range s.conns {
			conns = append(conns, c)
		}
		s.mu.Unlock()
	}
	return conns
}

// of returns the connections that have the certificate in their path.
func (t *liveTable) of(id pkix.CertID) []*conn {
	s := t.idShard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*conn, 0, len(s.conns[id]))
	for c := range s.conns[id] {
		conns = append(conns, c)
	}
	return conns
}

// idShard picks by the serial number's last byte, which is random in any certificate worth revoking.
func (t *liveTable) idShard(id pkix.CertID) *idShard {
	b := id.Serial.Bytes()
	return &t.ids[b[len(b)-1]%liveShards]
}

func (s *idShard) add(id pkix.CertID, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = make(map[pkix.CertID]map[*conn]struct{})
	}
	if s.conns[id] == nil {
		s.conns[id] = make(map[*conn]struct{})
	}
	s.conns[id][c] = struct{}{}
}

func (s *idShard) remove(id pkix.CertID, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns[id], c)
	if len(s.conns[id]) == 0 {
		delete(s.conns, id)
	}
}

// expiryQueue is a heap of connections by the end of their path's validity.
type expiryQueue struct {
	mu    sync.Mutex
	items expiryHeap
}

type expiryHeap []*conn

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].link.expires.Before(h[j].link.expires) }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].link.place, h[j].link.place = i+1, j+1
}

// Push implements heap.Interface.
func (h *expiryHeap) Push(x any) {
	c := x.(*conn)
	*h = append(*h, c)
	c.link.place = len(*h)
}

// Pop implements heap.Interface.
func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	c.link.place = 0
	return c
}

func (q *expiryQueue) add(c *conn, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c.link.expires = at
	heap.Push(&q.items, c)
}

func (q *expiryQueue) remove(c *conn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.link.place > 0 {
		heap.Remove(&q.items, c.link.place-1)
	}
}

// take removes and returns the connections whose end has passed.
func (q *expiryQueue) take(now time.Time) []*conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	var due []*conn
	for len(q.items) > 0 && now.After(q.items[0].link.expires) {
		due = append(due, heap.Pop(&q.items).(*conn))
	}
	return due
}
