package crl

import (
	"math/rand/v2"
	"time"
)

// How often URLs are asked.
const (
	leastRefresh = 30 * time.Second // never sooner, unless the operator says so
	mostRefresh  = time.Hour        // never later
	firstBackoff = 10 * time.Second
	lastBackoff  = 10 * time.Minute
	copyRefresh  = 10 * time.Second // after the copy on disk was read, within this
)

// nextRefresh is when a URL is asked again that gave a list: when 80 to 90 % of the time to its nextUpdate have passed,
// drawn anew each time so that a fleet does not ask at once, or after the interval if that is sooner. A list near its
// end is asked for more often.
func nextRefresh(thisUpdate, nextUpdate, now time.Time, interval time.Duration) time.Time {
	least, most := leastRefresh, mostRefresh
	if interval > 0 {
		least, most = min(least, interval*9/10), interval
	}
	wait := most - part10(most)
	if !nextUpdate.IsZero() {
		life := nextUpdate.Sub(thisUpdate)
		ahead := thisUpdate.Add(life*8/10 + part10(life)).Sub(now)
		if ahead <= 0 {
			ahead = nextUpdate.Sub(now) / 4
		}
		wait = min(wait, ahead)
	}
	return now.Add(max(wait, least))
}

// part10 is some part of a tenth.
func part10(d time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(d/10)) //nolint:gosec // spreads requests; nothing is secret about it
}

// backoff is how long nothing is tried after some failures in a row: less by up to a tenth, for the same reason.
func backoff(fails int) time.Duration {
	d := min(firstBackoff<<min(fails-1, 10), lastBackoff)
	return d - part10(d)
}
