package ca

import (
	"context"
	"errors"
	"time"
)

// Errors of a search, to branch on.
var (
	// ErrTooWide: the search would have to read or sort more certificates than it may. The text says what to leave out or add.
	ErrTooWide = errors.New("the search is too wide")
	// ErrNamesPending: the names of certificates from before an upgrade are still being indexed.
	ErrNamesPending = errors.New("the names of older certificates are still being indexed")
)

// MaxTotal is how many matches of a search are counted, or sorted, where no index has their number or their order.
const MaxTotal = 10_000

// Order is the order of what a search finds; empty: soonest to end first with a range of ends, else newest first.
type Order string

// The orders. Equal dates are ordered by which was recorded last, or first with Soonest.
const (
	Newest  Order = "newest"  // issued last comes first; what a serial number, key or name selects: recorded last comes first
	Soonest Order = "expires" // what ends first comes first
)

// Range is the part of a Filter that only long lists need. Zero fields do not filter.
type Range struct {
	Final        bool // those revoked for good alone
	IssuedFrom   time.Time
	IssuedBefore time.Time // From is included, Before is not
	Order        Order
	Archived     bool // those in the archive, instead of those that are not
}

// Found is what a search found.
type Found struct {
	Rows []Certificate
	// Total is how many match in all. With AtLeast only that many are known to: more than MaxTotal may match, and counting
	// them is not cheap. It is always more than the rows up to and including this page while there may be another.
	Total   int
	AtLeast bool
}

// Search returns a page of the certificates that match, and what is known of their number.
func (a *Authority) Search(ctx context.Context, f Filter) (Found, error) {
	return a.cfg.Ledger.Search(ctx, f)
}
