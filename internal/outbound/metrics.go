package outbound

import (
	"errors"
	"sync/atomic"
)

// Metrics counts the requests since the start by how they ended. A request ends
// when its body is closed or was read to its end.
type Metrics struct {
	OK             uint64
	NotModified    uint64
	RefusedAddress uint64
	TooLarge       uint64
	Timeout        uint64
	Status         uint64
	Redirect       uint64
	Error          uint64 // everything else
}

// Metrics are the counts by now.
func (c *Client) Metrics() Metrics {
	k := &c.counters
	return Metrics{
		OK: k.ok.Load(), NotModified: k.notModified.Load(), RefusedAddress: k.address.Load(), TooLarge: k.tooLarge.Load(),
		Timeout: k.timeout.Load(), Status: k.status.Load(), Redirect: k.redirect.Load(), Error: k.other.Load(),
	}
}

// counters is the state behind Metrics.
type counters struct {
	ok, notModified, address, tooLarge, timeout, status, redirect, other atomic.Uint64
}

// errNotModified is how an answer of 304 ends.
var errNotModified = errors.New("not modified")

// add counts a request by the reason that it ended for.
func (c *counters) add(reason error) {
	switch {
	case reason == nil:
		c.ok.Add(1)
	case errors.Is(reason, errNotModified):
		c.notModified.Add(1)
	case errors.Is(reason, ErrAddress):
		c.address.Add(1)
	case errors.Is(reason, ErrTooLarge):
		c.tooLarge.Add(1)
	case errors.Is(reason, ErrTimeout):
		c.timeout.Add(1)
	case errors.Is(reason, ErrStatus):
		c.status.Add(1)
	case errors.Is(reason, ErrRedirect):
		c.redirect.Add(1)
	default:
		c.other.Add(1)
	}
}
