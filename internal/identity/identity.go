// Package identity is the value that says who a client certificate is, or why it is nobody.
//
// An [Identity] is made in one place only, package verify, after a path to a trusted CA was looked for. Its fields are
// unexported so that no other code can invent one; a test of the module allows the constructors to be called from
// verify alone. The zero Identity is anonymous: no certificate was presented, and a host that requires one refuses it.
//
//	id := verifier.Check(host.Trust, state.PeerCertificates)
//	if !id.Verified() {
//		return fmt.Errorf("refused: %s", id.Reason())
//	}
package identity

import (
	"crypto/x509"
	"time"

	"sekisho/internal/pkix"
)

// Reason says in one word why an identity is not verified. It is the label of metrics and logs, so the set is closed.
type Reason string

// The reasons, from no certificate at all to one that was good until it was revoked.
const (
	OK                Reason = ""                   // verified
	NoCertificate     Reason = "no_certificate"     // the client sent none
	Untrusted         Reason = "untrusted"          // no path to a CA of this host
	Expired           Reason = "expired"            // a certificate of the path is past its notAfter
	NotYetValid       Reason = "not_yet_valid"      // a certificate of the path is before its notBefore
	WrongUsage        Reason = "wrong_usage"        // usage extensions that rule client authentication out (RFC 5280, Sections 4.2.1.3 and 4.2.1.12)
	Revoked           Reason = "revoked"            // revoked or on hold, as some revocation source says
	RevocationPending Reason = "revocation_pending" // the sources that the CA's policy asks are to be asked first
	RevocationUnknown Reason = "revocation_unknown" // no source that the CA's policy asks says that it is not revoked
	WeakSignature     Reason = "weak_signature"     // a signature algorithm or key of the path that the CA's policy does not take
	TooComplex        Reason = "too_complex"        // path building ran out of its work budget
	Malformed         Reason = "malformed"          // the certificate could not be read or breaks a rule that verification needs
)

// Identity is who a client certificate says it is and how that was proved, or the [Reason] it was not.
// It is immutable and safe for concurrent use; copies share the certificates, which nobody may change.
type Identity struct {
	presented []*x509.Certificate // as the client sent them, leaf first; empty when anonymous
	path      []*x509.Certificate // leaf to trust anchor; empty when no path was found
	id        pkix.CertID         // valid when path is not empty
	notBefore time.Time           // latest of the path
	notAfter  time.Time           // earliest of the path
	reason    Reason
	err       error

	revocation string    // what was known of its revocation when it was judged
	until      time.Time // when to judge again although nothing changed; zero: need not be
}

// NewVerified returns the identity of a client whose certificate has a valid path: presented as the client sent it
// (leaf first, at least one), path from the leaf to the trust anchor (the anchor included, so at least one).
// Only package verify may call it.
func NewVerified(presented, path []*x509.Certificate) Identity {
	return newIdentity(presented, path, OK, nil)
}

// NewRefused returns an identity that is not verified, and why. path may be empty; when it is not, as for a revoked or
// an expired certificate, [Identity.CertID] names the certificate so that later changes find it. err explains, for
// logs; it may be nil. Only package verify may call it.
func NewRefused(presented, path []*x509.Certificate, reason Reason, err error) Identity {
	if reason == OK {
		panic("sekisho/identity: a refused identity needs a reason")
	}
	return newIdentity(presented, path, reason, err)
}

func newIdentity(presented, path []*x509.Certificate, reason Reason, err error) Identity {
	i := Identity{presented: presented, path: path, reason: reason, err: err}
	if len(path) == 0 {
		return i
	}
	issuer := path[0]
	if len(path) > 1 {
		issuer = path[1]
	}
	i.id = pkix.CertIDOf(path[0], issuer)
	i.notBefore, i.notAfter = path[0].NotBefore, path[0].NotAfter
	for _, c := range path[1:] {
		if c.NotBefore.After(i.notBefore) {
			i.notBefore = c.NotBefore
		}
		if c.NotAfter.Before(i.notAfter) {
			i.notAfter = c.NotAfter
		}
	}
	return i
}

// Presented reports whether the client sent a certificate at all.
func (i Identity) Presented() bool { return len(i.presented) > 0 }

// Verified reports whether the certificate was presented, has a path, and nothing speaks against it.
func (i Identity) Verified() bool { return len(i.path) > 0 && i.reason == OK }

// Reason says why the identity is not verified; [OK] when it is.
func (i Identity) Reason() Reason {
	if !i.Presented() {
		return NoCertificate
	}
	return i.reason
}

// Err explains the reason for a log; it may be nil.
func (i Identity) Err() error { return i.err }

// Leaf is the client's certificate, nil when anonymous. It must not be changed.
func (i Identity) Leaf() *x509.Certificate {
	if len(i.presented) == 0 {
		return nil
	}
	return i.presented[0]
}

// Chain is what the client sent, leaf first. It must not be changed.
func (i Identity) Chain() []*x509.Certificate { return i.presented }

// Path is the verified path from the leaf to the trust anchor, empty when there is none. It must not be changed.
func (i Identity) Path() []*x509.Certificate { return i.path }

// CertID names the certificate by issuer key and serial; ok is false when no path was found, as then the issuer is
// only claimed.
func (i Identity) CertID() (id pkix.CertID, ok bool) { return i.id, len(i.path) > 0 }

// ValidAt reports whether every certificate of the path is inside its validity at now, and the reason when not.
// It is meaningful only with a path.
func (i Identity) ValidAt(now time.Time) (bool, Reason) {
	switch {
	case now.Before(i.notBefore):
		return false, NotYetValid
	case now.After(i.notAfter):
		return false, Expired
	}
	return true, OK
}

// Judged returns the identity with what the sources of revocation said of it, in one word, and the moment until which
// that holds while none of them changes; zero: for good. Only package verify may call it.
func (i Identity) Judged(revocation string, until time.Time) Identity {
	i.revocation, i.until = revocation, until
	return i
}

// Revocation is what was known of the revocation of a verified identity when it was judged: "good", "unchecked" (no
// source speaks of it), or "unknown" (the policy lets it in all the same).
func (i Identity) Revocation() string { return i.revocation }

// Until is when the identity is to be judged again although no source changed; zero when it need not be.
func (i Identity) Until() time.Time { return i.until }

// NotAfter is the earliest end of validity of the path, the moment when the identity stops by itself.
func (i Identity) NotAfter() time.Time { return i.notAfter }
