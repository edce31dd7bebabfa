// Package verify turns the certificates a client presented into an [identity.Identity]: path, usage, validity and
// revocation.
//
// [Verifier.Check] decides from memory alone: it never fetches and never blocks, so it may run inside a handshake, before
// the client has proved that it holds the key. Where the policy of the CA wants an answer about revocation that nobody
// has asked for yet, it says [identity.RevocationPending], and [Verifier.Resolve] asks once the key is proved. Refused,
// by the identity's reason, is what has no path to the host's CAs, is outside its validity, may not be used for client
// authentication, is revoked, has no fresh answer where the policy wants one, breaks a rule of RFC 5280, or is more than
// a bounded amount of work. Certificates as openssl makes them without configuration are honoured: X.509 v1, no subject
// alternative name, no extended key usage (absent is any), CAs without key usage.
//
//	verifier := verify.New(verify.Config{Revocation: checker})
//	id := verifier.Check(host.Trust, state.PeerCertificates)
//	...
//	id = verifier.Recheck(host.Trust, id) // later, when the epoch has moved on
package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"sekisho/internal/identity"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation"
	"sekisho/internal/trust"
)

// Bounds on what a client may present before any of it is looked at closely.
const (
	maxPresented = 10      // certificates, the leaf included
	maxBytes     = 1 << 17 // DER in all; ten ML-DSA-87 certificates are 75 KiB
)

// Config is what a [Verifier] needs.
type Config struct {
	Revocation *revocation.Checker // nil: nothing is revoked
	Now        func() time.Time    // nil: time.Now
	CacheSize  int                 // paths remembered; 0: 16384, negative: none
}

// Verifier decides who a presented certificate is. It is safe for concurrent use.
type Verifier struct {
	checker *revocation.Checker
	now     func() time.Time
	cache   *cache
}

// New returns a verifier.
func New(c Config) *Verifier {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CacheSize == 0 {
		c.CacheSize = 16384
	}
	if c.Revocation == nil {
		c.Revocation = revocation.NewChecker(revocation.CheckerConfig{Now: c.Now})
	}
	return &Verifier{checker: c.Revocation, now: c.Now, cache: newCache(c.CacheSize)}
}

// Epoch counts the changes of every source of revocation. Read it before judging, remember it, and the judgement holds
// as long as it is the same and [identity.Identity.Until] has not passed.
func (v *Verifier) Epoch() uint64 { return v.checker.Epoch() }

// RevokedNow reports whether our own CA is known to have revoked a certificate.
func (v *Verifier) RevokedNow(id pkix.CertID) bool { return v.checker.RevokedNow(id) }

// Check judges the certificates a client presented, leaf first, against the CAs of set. None presented gives the zero
// Identity; the nil set trusts nobody. Of several paths (an intermediate CA may be certified by two others) the first
// that nothing speaks against counts. A path that was found before is not looked for again, but validity and revocation
// are judged each time.
func (v *Verifier) Check(set *trust.Set, presented []*x509.Certificate) identity.Identity {
	if len(presented) == 0 {
		return identity.Identity{}
	}
	if err := bounded(presented); err != nil {
		return identity.NewRefused(presented[:1], nil, identity.TooComplex, err)
	}
	now := v.now()
	key := keyOf(set, presented)
	if issuers, only, ok := v.cache.get(key); ok {
		known := v.judge(set, identity.NewVerified(presented, slices.Concat(presented[:1], issuers)), now, true)
		if known.Verified() || only && !outsideValidity(known) {
			return known
		}
	}
	paths, reason, err := findPaths(set, presented, now)
	if len(paths) == 0 {
		return identity.NewRefused(presented, nil, reason, err)
	}
	best, path := v.best(set, presented, paths, now)
	v.cache.put(key, path[1:], len(paths) == 1)
	return best
}

// best judges each path and returns the first verified identity, else the first that a fetch may make one, else the
// first.
func (v *Verifier) best(set *trust.Set, presented []*x509.Certificate, paths [][]*x509.Certificate, now time.Time) (identity.Identity, []*x509.Certificate) {
	var best identity.Identity
	var chosen []*x509.Certificate
	for i, path := range paths {
		id := v.judge(set, identity.NewVerified(presented, path), now, true)
		pending := id.Reason() == identity.RevocationPending && best.Reason() != identity.RevocationPending
		if i == 0 || id.Verified() || pending {
			best, chosen = id, path
		}
		if id.Verified() {
			break
		}
	}
	return best, chosen
}

func outsideValidity(id identity.Identity) bool {
	return id.Reason() == identity.Expired || id.Reason() == identity.NotYetValid
}

// Recheck judges an identity again at the present time and state of the sources, from its path alone: what was revoked
// may be verified again, and the reverse. Other paths are not looked for, which only [Verifier.Check] does. set must
// hold the CA that the path ends in. An identity without a path stays as it is.
func (v *Verifier) Recheck(set *trust.Set, id identity.Identity) identity.Identity {
	if len(id.Path()) == 0 {
		return id
	}
	return v.judge(set, id, v.now(), false)
}

// Resolve asks the sources about an identity that is [identity.RevocationPending], and judges it by what they say; any
// other is returned as it is, unless the client sent something new about it: staple is the OCSP answer that came with its
// certificate, if any. It takes as long as the checker's budget lets it, and must be called only for clients that have
// proved their key.
func (v *Verifier) Resolve(ctx context.Context, set *trust.Set, id identity.Identity, staple []byte) identity.Identity {
	ctx, cancel := v.checker.WithBudget(ctx) // for all of them
	defer cancel()
	for range 3 { // other paths, which Check finds when this one comes to nothing
		ca := caOf(set, id)
		if ca == nil {
			return id
		}
		var stapleErr error
		if len(staple) > 0 {
			if stapleErr = v.checker.Offer(id.Path(), ca, staple); stapleErr == nil {
				id = v.judge(set, id, v.now(), true)
			}
		}
		pending := id.Reason() == identity.RevocationPending
		if pending {
			id = v.conclude(id, v.checker.Resolve(ctx, id.Path(), ca), false)
		}
		if stapleErr != nil && id.Reason() == identity.RevocationUnknown {
			err := fmt.Errorf("%w; stapled: %w", id.Err(), stapleErr)
			id = identity.NewRefused(id.Chain(), id.Path(), id.Reason(), err).Judged(id.Revocation(), id.Until())
		}
		if id.Verified() || !pending {
			return id
		}
		other := v.Check(set, id.Chain())
		if slices.Equal(other.Path(), id.Path()) || !other.Verified() && other.Reason() != identity.RevocationPending {
			return id
		}
		id = other
	}
	return id
}

// Hold says that a connection lives by an identity, so that the sources about it are kept current until release is
// called, once; release is nil when there is nothing to keep current.
func (v *Verifier) Hold(set *trust.Set, id identity.Identity) (release func()) {
	ca := caOf(set, id)
	if ca == nil {
		return nil
	}
	return v.checker.Hold(id.Path(), ca)
}

// caOf is the CA whose policy an identity is judged by; nil without a path or when the set does not have it.
func caOf(set *trust.Set, id identity.Identity) *trust.CA {
	path := id.Path()
	if len(path) == 0 {
		return nil
	}
	return set.CAOf(path[len(path)-1])
}

// errNoCA is why a path is not trusted that was found under another set.
var errNoCA = errors.New("the host does not trust the CA any more")

// judge decides on an identity that has a path: validity first, then the revocation of each certificate below the
// trust anchor. With first set, an answer that can be had must be waited for, however lenient the policy is.
func (v *Verifier) judge(set *trust.Set, id identity.Identity, now time.Time, first bool) identity.Identity {
	if valid, reason := id.ValidAt(now); !valid {
		return refuse(id, reason, func() error { return validityError(id.Path(), now) })
	}
	ca := caOf(set, id)
	if ca == nil {
		return refuse(id, identity.Untrusted, func() error { return errNoCA })
	}
	return v.conclude(id, v.checker.Judge(id.Path(), ca, now), first)
}

// conclude makes an identity of a verdict.
func (v *Verifier) conclude(id identity.Identity, verdict revocation.Verdict, first bool) identity.Identity {
	cert := id.Path()[verdict.Index]
	switch {
	case verdict.State == revocation.Revoked:
		id = refuse(id, identity.Revoked, func() error { return revokedError(cert, verdict) })
	case verdict.State == revocation.Unknown && verdict.Pending && (first || !verdict.Soft):
		id = refuse(id, identity.RevocationPending, func() error { return pendingError(cert) })
	case !verdict.Allows():
		id = refuse(id, identity.RevocationUnknown, func() error { return unknownError(cert) })
	case !id.Verified():
		id = identity.NewVerified(id.Chain(), id.Path())
	}
	return id.Judged(string(verdict.State), verdict.Until)
}

// refuse keeps an identity that was refused for the same reason, so that judging again allocates nothing.
func refuse(id identity.Identity, reason identity.Reason, err func() error) identity.Identity {
	if id.Reason() == reason {
		return id
	}
	return identity.NewRefused(id.Chain(), id.Path(), reason, err())
}

func bounded(presented []*x509.Certificate) error {
	if len(presented) > maxPresented {
		return fmt.Errorf("%d certificates presented; at most %d are looked at", len(presented), maxPresented)
	}
	size := 0
	for _, c := range presented {
		size += len(c.Raw)
	}
	if size > maxBytes {
		return fmt.Errorf("%d bytes of certificates presented; at most %d are looked at", size, maxBytes)
	}
	return nil
}

func revokedError(c *x509.Certificate, verdict revocation.Verdict) error {
	e := verdict.Entry
	return fmt.Errorf("certificate %q serial %s: revoked at %s: %s (%s)", pkix.DNString(c.RawSubject), pkix.SerialOf(c.SerialNumber),
		e.At.Format(time.RFC3339), e.Reason, verdict.Source)
}

func unknownError(c *x509.Certificate) error {
	return fmt.Errorf("certificate %q serial %s: no source says, freshly, that it is not revoked",
		pkix.DNString(c.RawSubject), pkix.SerialOf(c.SerialNumber))
}

func pendingError(c *x509.Certificate) error {
	return fmt.Errorf("certificate %q serial %s: the sources of its revocation are asked when its client connects",
		pkix.DNString(c.RawSubject), pkix.SerialOf(c.SerialNumber))
}

func validityError(path []*x509.Certificate, now time.Time) error {
	for _, c := range path {
		switch {
		case now.After(c.NotAfter):
			return fmt.Errorf("certificate %q expired at %s", pkix.DNString(c.RawSubject), c.NotAfter.Format(time.RFC3339))
		case now.Before(c.NotBefore):
			return fmt.Errorf("certificate %q is not valid before %s", pkix.DNString(c.RawSubject), c.NotBefore.Format(time.RFC3339))
		}
	}
	return errors.New("validity periods of the path do not overlap")
}
