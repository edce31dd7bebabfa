package verify

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"

	"sekisho/internal/pkix"
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

// cache remembers which issuers vouch for what was presented. What it holds was verified once by signature; it says
// nothing of validity or revocation now. It keeps no leaf and one copy of each issuer, so that an entry is some 100
// bytes however large the certificates are. Bounded; the one that was not used for longest, roughly, goes first (CLOCK).
type cache struct {
	shards  [cacheShards]shard
	issuers issuers
}

// maxIssuers bounds the issuers kept for sharing.
const maxIssuers = 1024

// issuers keeps one copy of each issuer's certificate, since every handshake parses what the client sends anew.
type issuers struct {
	mu    sync.Mutex
	known map[pkix.Fingerprint]*x509.Certificate
}

// share returns the issuers of a path with the copies that are known in place of equal ones.
func (i *issuers) share(path []*x509.Certificate) []*x509.Certificate {
	shared := make([]*x509.Certificate, len(path))
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known == nil || len(i.known) > maxIssuers {
		i.known = make(map[pkix.Fingerprint]*x509.Certificate)
	}
	for n, c := range path {
		print := pkix.FingerprintOf(c.Raw)
		if i.known[print] == nil {
			i.known[print] = c
		}
		shared[n] = i.known[print]
	}
	return shared
}

type shard struct {
	mu    sync.Mutex
	size  int
	index map[cacheKey]int // position in slots
	slots []slot
	hand  int
}

type slot struct {
	key     cacheKey
	issuers []*x509.Certificate // the path above the leaf, nearest first
	only    bool                // no other path was found
	used    bool
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

// get returns the path's issuers, nearest first, and whether there was no other path when it was found.
func (c *cache) get(k cacheKey) (issuers []*x509.Certificate, only, ok bool) {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.index[k]
	if !ok {
		return nil, false, false
	}
	s.slots[i].used = true
	return s.slots[i].issuers, s.slots[i].only, true
}

// put remembers the issuers of a path, nearest first, and whether it is the only one.
func (c *cache) put(k cacheKey, path []*x509.Certificate, only bool) {
	s := c.shard(k)
	if s.size == 0 {
		return
	}
	path = c.issuers.share(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.index[k]; ok {
		s.slots[i].issuers, s.slots[i].only = path, only
		return
	}
	if len(s.slots) < s.size {
		s.index[k] = len(s.slots)
		s.slots = append(s.slots, slot{key: k, issuers: path, only: only})
		return
	}
	for s.slots[s.hand].used {
		s.slots[s.hand].used = false
		s.hand = (s.hand + 1) % len(s.slots)
	}
	delete(s.index, s.slots[s.hand].key)
	s.index[k] = s.hand
	s.slots[s.hand] = slot{key: k, issuers: path, only: only}
	s.hand = (s.hand + 1) % len(s.slots)
}
