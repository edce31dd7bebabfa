package edge

import (
	"sync"
	"sync/atomic"
)

// ConnectionMetrics are the counters of listeners, handshakes and live connections since the start. Every label set is
// closed.
type ConnectionMetrics struct {
	Accepted       uint64            // TCP connections taken
	Limited        map[string]uint64 // TCP connections closed at once, by limit: "connections", "address"
	Full           uint64            // handshakes that ran in full
	Resumed        uint64            // handshakes that resumed a session
	Refused        map[string]uint64 // handshakes refused for the client's certificate, by reason; "unproven": it did not hold the key
	Errors         map[string]uint64 // handshakes that failed otherwise: "unknown_host", "plain_http", "not_tls", "timeout", "closed", "protocol"
	Judged         map[string]uint64 // clients whose certificate has a path, by what was known of its revocation: "good", "unchecked", "unknown", "revoked", ...
	TicketsRefused map[string]uint64 // tickets that led to a full handshake instead, by reason
	Live           int               // connections whose handshake is complete and that are not closed
	Cut            map[string]uint64 // connections ended by decision: "revoked", "expired", "host_gone", "policy", "untrusted", "shutdown"
}

// counters is the state behind ConnectionMetrics. The zero value is ready.
type counters struct {
	accepted, full, resumed                       atomic.Uint64
	limited, refused, failed, ticketsRefused, cut tally
	judged                                        tally
}

// tally counts by label; the labels are constants, so there are few.
type tally struct{ byLabel sync.Map }

func (t *tally) add(label string) {
	n, ok := t.byLabel.Load(label)
	if !ok {
		n, _ = t.byLabel.LoadOrStore(label, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

func (t *tally) counts() map[string]uint64 {
	m := make(map[string]uint64)
	t.byLabel.Range(func(label, n any) bool {
		m[label.(string)] = n.(*atomic.Uint64).Load()
		return true
	})
	return m
}

// ConnectionMetrics returns the present counts.
func (s *Server) ConnectionMetrics() ConnectionMetrics {
	c := &s.counters
	return ConnectionMetrics{
		Accepted: c.accepted.Load(), Limited: c.limited.counts(),
		Full: c.full.Load(), Resumed: c.resumed.Load(),
		Judged: c.judged.counts(), Refused: c.refused.counts(), Errors: c.failed.counts(), TicketsRefused: c.ticketsRefused.counts(),
		Live: s.live.count(), Cut: c.cut.counts(),
	}
}
