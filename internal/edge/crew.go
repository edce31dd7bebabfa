package edge

import (
	"sync"
	"time"
)

// crewIdle is how long a goroutine waits for another handshake before it ends.
const crewIdle = time.Second

// crew runs handshakes. A handshake needs a deep stack, and growing one for each connection costs more than the rest of
// what an edge adds to it, so a goroutine that is done waits a moment for the next connection.
type crew struct {
	next chan *socket
	quit chan struct{} // closed by stop
	once sync.Once
}

func newCrew() *crew { return &crew{next: make(chan *socket), quit: make(chan struct{})} }

// do has run called with the connection by a goroutine that waits, or by a new one that work counts.
func (c *crew) do(sock *socket, work *sync.WaitGroup, run func(*socket)) {
	select {
	case c.next <- sock:
	default:
		work.Go(func() { c.serve(sock, run) })
	}
}

func (c *crew) serve(sock *socket, run func(*socket)) {
	idle := time.NewTimer(crewIdle)
	defer idle.Stop()
	for {
		run(sock)
		idle.Reset(crewIdle)
		select {
		case sock = <-c.next:
		case <-idle.C:
			return
		case <-c.quit:
			return
		}
	}
}

// stop ends the goroutines that wait, and those that work after their work. It may be called again.
func (c *crew) stop() { c.once.Do(func() { close(c.quit) }) }
