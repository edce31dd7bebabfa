package edge

import (
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/pkix"
	"sekisho/internal/site"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// Bounds of what is remembered for the report on extended key usages.
const (
	maxUsageClients = 4096
	maxUsageHosts   = 16 // of one client
)

// usages remembers the clients that a CA lets in only while its policy ignores extended key usages, so that an operator
// sees whom a stricter or laxer policy concerns before it is in force. Clients are there once they proved their key; a
// host that refuses in the handshake refuses them before that, which only its log tells.
type usages struct {
	mu      sync.Mutex
	since   time.Time
	seen    map[pkix.Fingerprint]*verify.SeenClient // by the leaf
	leftOut uint64
}

// noteUsage remembers the client of a connection, if it is one of those.
func (s *Server) noteUsage(st *standing, now time.Time) {
	id := st.identity
	certs := id.Path()
	if id.Reason() == identity.WrongUsage { // it has no path
		certs = id.Chain()
	}
	if st.host != nil && (id.Verified() || id.Reason() == identity.WrongUsage) && verify.LackingClientAuth(certs) != nil {
		s.usages.note(s.cfg.Verifier, st.host, id.Chain(), now)
	}
}

func (u *usages) note(v *verify.Verifier, host *site.Host, chain []*x509.Certificate, now time.Time) {
	print := pkix.FingerprintOf(chain[0].Raw)
	if u.again(print, host, now) {
		return
	}
	ca, lacking, ok := v.NeedsEKUIgnored(host.Trust, chain)
	if !ok {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.seen[print] == nil && len(u.seen) >= maxUsageClients {
		if u.forgetExpired(now); len(u.seen) >= maxUsageClients {
			u.leftOut++
			return
		}
	}
	if u.seen == nil {
		u.seen = make(map[pkix.Fingerprint]*verify.SeenClient)
	}
	u.seen[print] = &verify.SeenClient{CA: ca.ID, Leaf: chain[0], Lacking: lacking, Hosts: []string{host.Name}, Connections: 1, First: now, Last: now}
}

// again counts one more connection of a client that is known, and reports whether it is. When its CA is not one of the
// host's any more, it may be another one's by now.
func (u *usages) again(print pkix.Fingerprint, host *site.Host, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.seen[print]
	if one == nil || !slices.ContainsFunc(host.Trust.CAs(), func(ca trust.CA) bool { return ca.ID == one.CA }) {
		return false
	}
	one.Last = now
	one.Connections++
	if len(one.Hosts) < maxUsageHosts && !slices.Contains(one.Hosts, host.Name) {
		one.Hosts = append(one.Hosts, host.Name)
	}
	return true
}

// forgetExpired makes room. It runs at most once for each client that comes in while the table is full of others.
func (u *usages) forgetExpired(now time.Time) {
	for print, one := range u.seen {
		if now.After(one.Leaf.NotAfter) {
			delete(u.seen, print)
		}
	}
}

// WithoutClientAuth returns the clients seen since a time whom a CA lets in only while its policy ignores extended key
// usages, at most 4096, and how many connections came from others that there was no room for.
func (s *Server) WithoutClientAuth() (clients []verify.SeenClient, since time.Time, leftOut uint64) {
	u := &s.usages
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, one := range u.seen {
		c := *one
		c.Hosts = slices.Clone(one.Hosts)
		clients = append(clients, c)
	}
	return clients, u.since, u.leftOut
}
