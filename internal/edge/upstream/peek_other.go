//go:build !unix

package upstream

// stale cannot be known here; a request that may be sent again is.
func (c *conn) stale() bool { return false }

func (c *conn) peekFD(uintptr) {}
