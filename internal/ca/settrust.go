package ca

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// TrustRequest asks that hosts let the clients of a CA in, or no more.
type TrustRequest struct {
	Actor   string
	CA      string // name or id
	Trusted bool
}

// TrustResult is how a CA stands after it.
type TrustResult struct {
	CA State
	// Above are the names of trusted CAs that have signed one that is not: with its certificate in between, its clients
	// come to them.
	Above []string
}

// SetTrust has the clients of an issuing CA be let in as those of the managed CA, or no more. What the CA publishes and
// what is answered for it goes on. It returns a [*RequestError], or ErrConflict for the CA in force, whose clients are
// always let in. The caller has the hosts follow ([Authority.ClientAnchors]), also where nothing changed: an earlier call
// may have been stored and not put in force.
func (a *Authority) SetTrust(ctx context.Context, req TrustRequest) (TrustResult, error) {
	a.initMu.Lock()
	defer a.initMu.Unlock()
	if err := a.load(ctx); err != nil {
		return TrustResult{}, err
	}
	c, err := a.named(req.CA)
	if err != nil {
		return TrustResult{}, err
	}
	if err := a.checkTrust(c, req.Trusted); err != nil {
		return TrustResult{}, err
	}
	if record := c.record; record.Untrusted == req.Trusted {
		record.Untrusted = !req.Trusted
		entry := a.entry(req.Actor, "ca.trust", record.ID, map[string]string{"name": record.Name, "trusted": strconv.FormatBool(req.Trusted)})
		if err := a.storeCAs(ctx, CAChange{Update: []CARecord{record}}, entry); err != nil {
			return TrustResult{}, fmt.Errorf("record the trust in the CA %s: %w", record.Name, err)
		}
		a.cfg.Logger.InfoContext(ctx, "trust in a certificate authority changed", "actor", req.Actor, "ca", record.Name, "trusted", req.Trusted)
	}
	state, err := a.state(ctx, c.record.ID)
	return TrustResult{CA: state, Above: a.trustedAbove(state)}, err
}

// checkTrust refuses what would do nothing, or what it does not say.
func (a *Authority) checkTrust(c *authorityCA, trusted bool) error {
	switch name := c.record.Name; {
	case c.record.unfinished():
		return invalid("ca", "the import of %s was broken off, so nobody trusts it; import it again: sekisho ca import", name)
	case c.record.Role != RoleIssuing:
		return invalid("ca", "%s is a root: hosts trust issuing CAs, each by itself", name)
	case !trusted && c == a.cas.Load().issuing:
		return fmt.Errorf("%s is the CA in force; put another one in force first: sekisho ca rotate: %w", name, ErrConflict)
	case trusted && !a.cfg.Now().Before(c.cert.NotAfter):
		return invalid("ca", "%s ended at %s; nobody is let in by it", name, c.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// trustedAbove names the trusted CAs that have signed one that is not trusted.
func (a *Authority) trustedAbove(s State) (names []string) {
	if !s.Untrusted {
		return nil
	}
	for _, cert := range a.ClientAnchors() {
		for _, c := range a.cas.Load().list {
			if c.cert.Equal(cert) && c.signed(s.Cert) {
				names = append(names, c.record.Name)
			}
		}
	}
	return names
}
