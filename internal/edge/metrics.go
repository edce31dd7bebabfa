package edge

import (
	"sync/atomic"
	"time"
)

// RequestMetrics are the counters of the request pipeline since the start. Every label set is closed.
type RequestMetrics struct {
	ByClass        [6]uint64         // by status class; 0 counts those that were broken off without an answer
	Refused        map[string]uint64 // by reason: "revoked", "no_certificate", "misdirected", "cross_origin", ...
	Anonymous      map[string]uint64 // let in without identity by hosts that only request one, by reason
	UpstreamErrors map[string]uint64 // by stage: "dial", "write", "read", "timeout", "body", "other"
	Duration       Histogram
	BytesSent      uint64 // of response bodies
	Upgraded       uint64 // connections that were switched to another protocol
}

// Histogram counts durations. Counts[i] are those of at most Bounds[i] seconds (and more than the bound before); the
// last count has no bound.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Sum    float64 // seconds
}

// durationBounds are the upper ends of the duration histogram.
func durationBounds() [numBounds]time.Duration {
	const us, ms = time.Microsecond, time.Millisecond
	return [numBounds]time.Duration{
		100 * us, 250 * us, 500 * us, 1 * ms, 2500 * us, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms,
		250 * ms, 500 * ms, time.Second, 2500 * ms, 5 * time.Second, 10 * time.Second, 60 * time.Second,
	}
}

const numBounds = 17

// requestCounters is the state behind RequestMetrics. The zero value is ready; safe for concurrent use.
type requestCounters struct {
	byClass   [6]atomic.Uint64
	refused   tally
	anonymous tally
	upstream  tally
	buckets   [numBounds + 1]atomic.Uint64
	nanos     atomic.Int64
	bytes     atomic.Uint64
	upgraded  atomic.Uint64
}

// request counts one finished request.
func (c *requestCounters) request(x *exchange, took time.Duration) {
	class := x.status / 100
	if class < 0 || class >= len(c.byClass) || x.status == statusClientGone {
		class = 0
	}
	c.byClass[class].Add(1)
	switch {
	case x.refused:
		c.refused.add(x.reason)
	case x.reason != "":
		c.anonymous.add(x.reason)
	}
	bucket := 0
	for _, bound := range durationBounds() {
		if took <= bound {
			break
		}
		bucket++
	}
	c.buckets[bucket].Add(1)
	c.nanos.Add(int64(took))
	c.bytes.Add(uint64(max(x.bytes, 0)))
}

// read returns the counters as they are now; counters of one request may be read apart.
func (c *requestCounters) read() RequestMetrics {
	m := RequestMetrics{
		Refused: c.refused.counts(), Anonymous: c.anonymous.counts(), UpstreamErrors: c.upstream.counts(),
		BytesSent: c.bytes.Load(), Upgraded: c.upgraded.Load(),
	}
	for i := range c.byClass {
		m.ByClass[i] = c.byClass[i].Load()
	}
	for _, bound := range durationBounds() {
		m.Duration.Bounds = append(m.Duration.Bounds, bound.Seconds())
	}
	for i := range c.buckets {
		m.Duration.Counts = append(m.Duration.Counts, c.buckets[i].Load())
	}
	m.Duration.Sum = time.Duration(c.nanos.Load()).Seconds()
	return m
}

// RequestMetrics returns the present counts.
func (s *Server) RequestMetrics() RequestMetrics {
	p, ok := s.handler.(*pipeline)
	if !ok {
		return RequestMetrics{}
	}
	return p.counters.read()
}
