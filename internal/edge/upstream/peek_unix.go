//go:build unix

package upstream

import "syscall"

// stale reports that an idle connection is of no use: the origin has closed it,
// or has sent something that no request asked for. It asks the kernel and never
// waits. Owned by whoever holds the connection.
func (c *conn) stale() bool {
	if c.rawConn == nil {
		return false
	}
	c.quiet = false
	err := c.rawConn.Control(c.peek)
	return err != nil || !c.quiet
}

// peekFD sets c.quiet when nothing can be read from fd, not even its end.
func (c *conn) peekFD(fd uintptr) {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			c.quiet = err == syscall.EAGAIN
			return
		}
	}
}
