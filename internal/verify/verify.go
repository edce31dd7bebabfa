// Package verify turns the certificates a client presented into an [identity.Identity]: path, usage, validity and
// revocation, decided from memory alone.
//
// [Verifier.Check] never fetches and never blocks, so it may run inside a handshake, before the client has proved that
// it holds the key. It refuses, by the identity's reason: what has no path to the host's CAs, is outside its validity,
// may not be used for client authentication (by extended key usage, or by a key usage without digitalSignature and
// keyAgreement), is revoked, breaks a rule of crypto/x509, or is more than a bounded amount
// of work. Certificates as openssl makes them without configuration are honoured: X.509 v1, no subject alternative
// name, no extended key usage (absent is any), CAs without key usage.
//
//	verifier := verify.New(verify.Config{Revocation: index})
//	id := verifier.Check(host.Trust, state.PeerCertificates)
//	...
//	id = verifier.Recheck(id) // later, when the index's epoch has moved on
package verify

import (
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
	Revocation *revocation.Index // nil: nothing is revoked
	Now        func() time.Time  // nil: time.Now
	CacheSize  int               // paths remembered; 0: 16384, negative: none
}

// Verifier decides who a presented certificate is. It is safe for concurrent use.
type Verifier struct {
	index *revocation.Index
	now   func() time.Time
	cache *cache
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
		c.Revocation = revocation.NewIndex()
	}
	return &Verifier{index: c.Revocation, now: c.Now, cache: newCache(c.CacheSize)}
}

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
	if issuers, ok := v.cache.get(key); ok {
		known := v.judge(identity.NewVerified(presented, slices.Concat(presented[:1], issuers)), now)
		if known.Verified() || v.leafRevoked(known) {
			return known
		}
	}
	paths, reason, err := findPaths(set, presented, now)
	if len(paths) == 0 {
		return identity.NewRefused(presented, nil, reason, err)
	}
	var first identity.Identity
	for i, path := range paths {
		id := v.judge(identity.NewVerified(presented, path), now)
		if id.Verified() || v.leafRevoked(id) {
			v.cache.put(key, path[1:])
			return id
		}
		if i == 0 {
			first = id
		}
	}
	return first
}

// leafRevoked reports a refusal that no other path would change, although the path is valid.
func (v *Verifier) leafRevoked(id identity.Identity) bool {
	if id.Reason() != identity.Revoked {
		return false
	}
	leaf, _ := id.CertID()
	_, revoked := v.index.Lookup(leaf)
	return revoked
}

// Recheck judges an identity again at the present time and state of the revocation index, from its path alone: what
// was revoked may be verified again, and the reverse. Other paths are not looked for, which only [Verifier.Check] does.
// An identity without a path stays as it is.
func (v *Verifier) Recheck(id identity.Identity) identity.Identity {
	if len(id.Path()) == 0 {
		return id
	}
	return v.judge(id, v.now())
}

// judge decides on an identity that has a path: validity first, then the revocation of each certificate below the
// trust anchor.
func (v *Verifier) judge(id identity.Identity, now time.Time) identity.Identity {
	path := id.Path()
	if valid, reason := id.ValidAt(now); !valid {
		return refuse(id, reason, validityError(path, now))
	}
	leaf, _ := id.CertID()
	if e, ok := v.index.Lookup(leaf); ok {
		return refuse(id, identity.Revoked, revokedError(path[0], e))
	}
	for i := 1; i < len(path)-1; i++ {
		if e, ok := v.index.Lookup(pkix.CertIDOf(path[i], path[i+1])); ok {
			return refuse(id, identity.Revoked, revokedError(path[i], e))
		}
	}
	if id.Verified() {
		return id
	}
	return identity.NewVerified(id.Chain(), path)
}

// refuse keeps an identity that was refused for the same reason, so that judging again allocates nothing.
func refuse(id identity.Identity, reason identity.Reason, err error) identity.Identity {
	if id.Reason() == reason {
		return id
	}
	return identity.NewRefused(id.Chain(), id.Path(), reason, err)
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

func revokedError(c *x509.Certificate, e revocation.Entry) error {
	return fmt.Errorf("certificate %q serial %s: revoked at %s: %s", pkix.DNString(c.RawSubject), e.ID.Serial,
		e.At.Format(time.RFC3339), e.Reason)
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
