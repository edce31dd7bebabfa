package ca

import (
	"bytes"
	"testing"
	"time"

	"sekisho/internal/pkix"
)

// TestOCSPCacheSweep: what is asked for and half over is due, what nobody asked for in time leaves, and the sum of the
// octets is right all the while.
func TestOCSPCacheSweep(t *testing.T) {
	var c ocspCache
	c.init()
	start := time.Unix(1_800_000_000, 0)
	id := func(n byte) pkix.CertID { return pkix.CertID{Serial: pkix.SerialFromBytes([]byte{n})} }
	put := func(n byte, asked time.Time, raw string) {
		a := &cachedAnswer{raw: []byte(raw), answer: OCSPAnswer{DER: make([]byte, 100), ThisUpdate: start, NextUpdate: start.Add(time.Hour)}}
		a.asked.Store(asked.Unix())
		c.keep(id(n), 0, a)
	}
	put(1, start, "asked once")
	put(2, start.Add(-time.Minute), "asked before it was signed")
	put(2, start.Add(-time.Minute), "the same in another spelling")
	c.keepStatus(id(3), 0, pkix.OCSPSingle{Status: pkix.OCSPGood}, start)
	check := func(when string, at time.Duration, due, left int) {
		t.Helper()
		now := start.Add(at)
		if got := c.sweep(now, now.Add(-time.Hour), 10); len(got) != due {
			t.Errorf("%s: %d are due, want %d", when, len(got), due)
		}
		sum := 0
		for _, r := range c.ids {
			sum += ocspRecordBytes
			for _, a := range r.answers {
				sum += a.size()
			}
		}
		if len(c.ids) != left || c.bytes != sum {
			t.Errorf("%s: %d certificates, want %d; %d octets counted, there are %d", when, len(c.ids), left, c.bytes, sum)
		}
	}
	check("at first", time.Minute, 0, 3)
	check("half over", 31*time.Minute, 1, 3)
	check("an hour after some were asked for", 59*time.Minute+30*time.Second, 1, 2)
	check("an hour after all were", time.Hour+time.Second, 0, 0)
	if got := c.sweep(start, start, 0); len(got) != 0 {
		t.Errorf("%d over the limit", len(got))
	}
}

// TestInvariant13OCSPCacheBound: it never holds more than it may, however many certificates are asked about.
func TestInvariant13OCSPCacheBound(t *testing.T) {
	var c ocspCache
	c.init()
	now := time.Unix(1_800_000_000, 0)
	der := make([]byte, 64<<10)
	most := 0
	for n := range 3000 {
		id := pkix.CertID{Serial: pkix.SerialFromBytes([]byte{1, byte(n >> 8), byte(n)})}
		for raw := range 20 {
			c.keep(id, 0, &cachedAnswer{raw: bytes.Repeat([]byte{1}, raw+1), answer: OCSPAnswer{DER: der, ThisUpdate: now, NextUpdate: now}})
		}
		c.keepStatus(id, 0, pkix.OCSPSingle{}, now)
		if r := c.ids[id]; r != nil && len(r.answers) > maxOCSPVariants {
			t.Fatalf("%d spellings of one CertID", len(r.answers))
		}
		most = max(most, c.bytes)
	}
	if most > maxOCSPCacheBytes+maxOCSPVariants*(len(der)+1000) || len(c.ids) == 0 {
		t.Errorf("%d octets at most, %d certificates at the end", most, len(c.ids))
	}
	for id := range c.ids {
		c.drop(id)
	}
	if c.bytes != 0 {
		t.Errorf("%d octets are counted in an empty cache", c.bytes)
	}
}

// TestOCSPCacheEpoch: what was found out before a change does not enter after it, whichever certificate changed.
func TestOCSPCacheEpoch(t *testing.T) {
	var c ocspCache
	c.init()
	now := time.Unix(1_800_000_000, 0)
	id := pkix.CertID{Serial: pkix.SerialFromBytes([]byte{1})}
	_, before, _ := c.status(id, now)
	c.drop(pkix.CertID{Serial: pkix.SerialFromBytes([]byte{2})})
	c.keepStatus(id, before, pkix.OCSPSingle{Status: pkix.OCSPGood}, now)
	c.keep(id, before, &cachedAnswer{answer: OCSPAnswer{ThisUpdate: now, NextUpdate: now.Add(time.Hour)}})
	if _, _, found := c.status(id, now); found {
		t.Error("a status from before the change is kept")
	}
	if found, _ := c.answer(id, nil, now); found != nil {
		t.Error("an answer from before the change is kept")
	}
}
