package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"

	"sekisho/internal/identity"
	"sekisho/internal/trust"
)

// cacheShards is how many locks the cache has; a power of two.
const cacheShards = 16

// cacheKey is a SHA-256 over the set's digest and the presented certificates in their order, each with its length.
type cacheKey [32]byte

func keyOf(set *trust.Set, presented []*x509.Certificate) cacheKey {
	h := sha256.New()
	digest := set.Digest()
	h.Write(digest[:])
	var length [4]byte
	for _, c := range presented {
		binary.BigEndian.PutUint32(length[:], uint32(len(c.Raw)))
		h.Write(length[:])
		h.Write(c.Raw)
	}
	var k cacheKey
	h.Sum(k[:0])
	return k
}

// cache remembers verified identities, which carry their path. What it holds was verified once by signature; it says
// nothing of validity or revocation now. Bounded; the one that was not used for longest, roughly, goes first (CLOCK).
type cache struct {
	shards [cacheShards]shard
}

type shard struct {
	mu    sync.Mutex
	size  int
	index map[cacheKey]int // position in slots
	slots []slot
	hand  int
}

type slot struct {
	key  cacheKey
	id   identity.Identity
	used bool
}

func newCache(size int) *cache {
	c := &cache{}
	for i := range c.shards {
		if size > 0 {
			c.shards[i].size = max(1, size/cacheShards)
			c.shards[i].index = make(map[cacheKey]int)
		}
	}
	return c
}

// shard picks by the first byte: the key is a hash, so the shards fill evenly.
func (c *cache) shard(k cacheKey) *shard { return &c.shards[k[0]%cacheShards] }

func (c *cache) get(k cacheKey) (identity.Identity, bool) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[k]
	if !ok {
		return identity.Identity{}, false
	}
	s.slots[i].used = true
	return s.slots[i].id, true
}

func (c *cache) put(k cacheKey, id identity.Identity) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size == 0 {
		return
	}
	if i, ok := s.index[k]; ok {
		s.slots[i].id = id
		return
	}
	if len(s.slots) < s.size {
		s.index[k] = len(s.slots)
		s.slots = append(s.slots, slot{key: k, id: id})
		return
	}
	for s.slots[s.hand].used {
		s.slots[s.hand].used = false
		s.hand = (s.hand + 1) % len(s.slots)
	}
	delete(s.index, s.slots[s.hand].key)
	s.index[k] = s.hand
	s.slots[s.hand] = slot{key: k, id: id}
	s.hand = (s.hand + 1) % len(s.slots)
}
