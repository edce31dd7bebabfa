package ca

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/pkix"
)

const (
	maxOCSPCacheBytes = 64 << 20
	maxOCSPVariants   = 8 // ways to write one CertID: four hashes, parameters NULL or absent; pkix takes no others
	// ocspRecordBytes and ocspAnswerBytes are what a record and an answer take beside their texts: map, headers, rounding.
	ocspRecordBytes = 400
	ocspAnswerBytes = 400
)

// ocspCache holds what was said of certificates lately. All that it knows of a certificate leaves it at the moment the
// certificate changes, and what was found out before then does not enter it afterwards, so nothing in it is ever older
// than a transition. It is safe for concurrent use.
type ocspCache struct {
	mu    sync.RWMutex
	epoch uint64 // raised by every drop: what was found out before is not stored after
	ids   map[pkix.CertID]*ocspRecord
	bytes int
}

// ocspRecord is what is known of one certificate. Its fields are guarded by the cache's lock, but for asked.
type ocspRecord struct {
	status  pkix.OCSPSingle // of a certificate in the ledger: good or revoked; without an id and times
	known   bool            // status is set
	answers []*cachedAnswer
	asked   atomic.Int64 // Unix second of the last use of status
}

// cachedAnswer is an answer for one spelling of a CertID. It is never changed but for asked.
type cachedAnswer struct {
	raw    []byte // the CertID
	answer OCSPAnswer
	asked  atomic.Int64 // Unix second of the last question
}

func (c *ocspCache) init() { c.ids = map[pkix.CertID]*ocspRecord{} }

// answer finds the answer for a spelling of a CertID that is valid at now, whatever its age. The epoch is for keep.
func (c *ocspCache) answer(id pkix.CertID, raw []byte, now time.Time) (found *cachedAnswer, epoch uint64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r := c.ids[id]
	if r == nil {
		return nil, c.epoch
	}
	for _, a := range r.answers {
		// One of the future was signed before the clock was set back; nobody with the right time takes it.
		if bytes.Equal(a.raw, raw) && !now.Before(a.answer.ThisUpdate) && now.Before(a.answer.NextUpdate) {
			return a, c.epoch
		}
	}
	return nil, c.epoch
}

// touch notes the second, once in each: a store for every question would pass the line from core to core.
func touch(asked *atomic.Int64, now time.Time) {
	if second := now.Unix(); asked.Load() != second {
		asked.Store(second)
	}
}

// status finds what the ledger said of a certificate. The epoch is for keepStatus.
func (c *ocspCache) status(id pkix.CertID, now time.Time) (status pkix.OCSPSingle, epoch uint64, found bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r := c.ids[id]
	if r == nil || !r.known {
		return pkix.OCSPSingle{}, c.epoch, false
	}
	touch(&r.asked, now)
	return r.status, c.epoch, true
}

// keepStatus keeps what the ledger said unless a certificate changed since the epoch was read: it might be this one.
func (c *ocspCache) keepStatus(id pkix.CertID, epoch uint64, status pkix.OCSPSingle, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	r := c.recordLocked(id)
	r.status, r.known = status, true
	r.asked.Store(now.Unix())
	c.shrinkLocked()
}

// keep keeps an answer unless a certificate changed since the epoch was read.
func (c *ocspCache) keep(id pkix.CertID, epoch uint64, fresh *cachedAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	r := c.recordLocked(id)
	for i, old := range r.answers {
		if bytes.Equal(old.raw, fresh.raw) {
			c.bytes += fresh.size() - old.size()
			r.answers[i] = fresh
			return
		}
	}
	if len(r.answers) == maxOCSPVariants {
		return
	}
	r.answers = append(r.answers, fresh)
	c.bytes += fresh.size()
	c.shrinkLocked()
}

func (c *ocspCache) recordLocked(id pkix.CertID) *ocspRecord {
	r := c.ids[id]
	if r == nil {
		r = &ocspRecord{}
		c.ids[id] = r
		c.bytes += ocspRecordBytes
	}
	return r
}

// forget drops everything: another signs now.
func (c *ocspCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.ids, c.bytes = map[pkix.CertID]*ocspRecord{}, 0
}

// shrinkLocked makes room once there is too much.
func (c *ocspCache) shrinkLocked() {
	if c.bytes <= maxOCSPCacheBytes {
		return
	}
	for id := range c.ids { // Go's map order is as good as any choice
		if c.bytes <= maxOCSPCacheBytes*3/4 {
			return
		}
		c.removeLocked(id)
	}
}

// drop forgets what is known of a certificate that changed.
func (c *ocspCache) drop(id pkix.CertID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.removeLocked(id)
}

func (c *ocspCache) removeLocked(id pkix.CertID) {
	r := c.ids[id]
	if r == nil {
		return
	}
	for _, a := range r.answers {
		c.bytes -= a.size()
	}
	c.bytes -= ocspRecordBytes
	delete(c.ids, id)
}

func (a *cachedAnswer) size() int {
	return len(a.answer.DER) + len(a.raw) + len(a.answer.ETag) + ocspAnswerBytes
}

// ocspDue is an answer to be signed anew.
type ocspDue struct {
	id  pkix.CertID
	old *cachedAnswer
}

// sweep forgets what nobody asked for since, and lists at most limit answers that are in the second half of their life
// and were asked for since they were signed.
func (c *ocspCache) sweep(now, since time.Time, limit int) []ocspDue {
	idle, due := c.look(now, since, limit)
	if len(idle) == 0 {
		return due
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range idle {
		if r := c.ids[id]; r != nil && r.lastAsked() < since.Unix() {
			c.removeLocked(id)
		}
	}
	return due
}

func (c *ocspCache) look(now, since time.Time, limit int) (idle []pkix.CertID, due []ocspDue) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for id, r := range c.ids {
		if r.lastAsked() < since.Unix() {
			idle = append(idle, id)
			continue
		}
		for _, a := range r.answers {
			if len(due) < limit && a.asked.Load() >= a.answer.ThisUpdate.Unix() && now.After(a.answer.lifeAt(1, 2)) {
				due = append(due, ocspDue{id, a})
			}
		}
	}
	return idle, due
}

// lastAsked is the Unix second of the last question that the record was good for.
func (r *ocspRecord) lastAsked() int64 {
	last := r.asked.Load()
	for _, a := range r.answers {
		last = max(last, a.asked.Load())
	}
	return last
}

// lifeAt is when a part of a cacheable answer's life is over.
func (a OCSPAnswer) lifeAt(part, of time.Duration) time.Time {
	return a.ThisUpdate.Add(a.NextUpdate.Sub(a.ThisUpdate) * part / of)
}
