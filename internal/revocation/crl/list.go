// Package crl holds certificate revocation lists in force and keeps them current (RFC 5280, Section 5).
//
// A [List] is one complete CRL, whose signature was checked, with an index of all its entries, and at most one delta
// on top. The index is exact and takes 7 octets an entry; the entries themselves stay in a file of our own that is
// mapped into memory, so that a list of a million entries costs 7 MB and a look-up reads one entry. The operator's
// file is never mapped: to touch a page behind the end of a file that somebody truncates is SIGBUS.
//
// A [Keeper] loads lists from files and URLs and fetches them anew ahead of their nextUpdate; see there.
//
// What is refused: a list that none of the candidate certificates has signed, or whose signer may not sign lists; a
// signature algorithm that the policy does not take; a list that is malformed anywhere; one over the size limit; a delta
// to another base; a list that is older than the one in force, or no successor of it. A look-up never fails: should the
// mapped file not be readable any more, the list is no longer fresh.
//
//	list, err := crl.Load(file, crl.Options{Issuers: []*x509.Certificate{ca}, Dir: dir})
//	if reasons, ok := list.Covers(cert, points, false); ok && reasons == pkix.AllReasons {
//		entry, revoked := list.Lookup(cert.RawIssuer, pkix.SerialOf(cert.SerialNumber))
//	}
package crl

import (
	"crypto/x509"
	"errors"
	"math/big"
	"time"

	"sekisho/internal/pkix"
)

// The reasons why a list is not taken; what is wrapped says more. Malformed lists are [pkix.ErrCRLMalformed] or
// [pkix.ErrCRLCritical].
var (
	ErrTooLarge  = errors.New("the list is larger than allowed")
	ErrIssuer    = errors.New("the list is not by one of these CAs")
	ErrKeyUsage  = errors.New("the CA's key usage does not allow it to sign lists")
	ErrAlgorithm = errors.New("the list's signature algorithm is not taken")
	ErrSignature = errors.New("the list's signature is wrong")
	ErrScope     = errors.New("the delta has another scope than the list")
	ErrBase      = errors.New("the delta does not fit the list")
	ErrOlder     = errors.New("the list is older than the one in force")
	ErrDelta     = errors.New("it is a delta where a complete list belongs")
	ErrSuccessor = errors.New("the list cannot follow the one in force")
)

// List is one complete CRL with its index, and at most one delta on top. It is immutable and safe for concurrent use.
// A list that is a delta itself ([List.IsDelta]) serves only [List.WithDelta].
type List struct {
	base  *part
	delta *part // nil: none
}

// Entry is what a list says of a revoked certificate.
type Entry struct {
	Reason         pkix.Reason
	At             time.Time
	InvalidityDate time.Time // zero: not given
	Delta          bool      // the delta says so
}

// Lookup finds a certificate by its issuer, the raw Name in the certificate, which matters for indirect lists only, and
// its serial number. It allocates nothing. Whether the list speaks of the certificate at all is for [List.Covers] to
// say. An entry with removeFromCRL in the delta hides that of the base (RFC 5280, Section 5.3.1).
func (l *List) Lookup(issuer []byte, serial pkix.Serial) (e Entry, revoked bool) {
	if l.delta != nil && l.delta.find(issuer, serial, &e) {
		e.Delta = true
		return e, e.Reason != pkix.RemoveFromCRL
	}
	revoked = l.base.find(issuer, serial, &e)
	return e, revoked
}

// skew is how far the clock of who signs a list may be ahead of ours.
const skew = 5 * time.Minute

// Fresh reports whether the list counts at now: its nextUpdate, or that of the delta, is not longer ago than grace. RFC
// 5280, Section 6.3.3 (a): a base whose nextUpdate has passed serves on with a delta that is current. A list without
// nextUpdate is fresh until another one comes.
func (l *List) Fresh(now time.Time, grace time.Duration) bool {
	if l.delta == nil {
		return l.base.fresh(now, grace)
	}
	if l.base.broken.Load() || l.delta.broken.Load() {
		return false
	}
	return l.base.fresh(now, grace) || l.delta.fresh(now, grace)
}

func (p *part) fresh(now time.Time, grace time.Duration) bool {
	return !p.broken.Load() && !p.crl.ThisUpdate.After(now.Add(skew)) &&
		(p.crl.NextUpdate.IsZero() || !now.After(p.crl.NextUpdate.Add(grace)))
}

// Taken reports whether a policy takes the signature algorithms of the list and its delta.
func (l *List) Taken(allows func(algorithm string) bool) bool {
	return takes(allows, l.base.algorithm) && (l.delta == nil || takes(allows, l.delta.algorithm))
}

// Readable reports whether every look-up so far could read the entry it needed. Once false, the list is not fresh any
// more, and has to be loaded again.
func (l *List) Readable() bool {
	return !l.base.broken.Load() && (l.delta == nil || !l.delta.broken.Load())
}

// IsDelta reports whether the list is a delta on its own, without a base.
func (l *List) IsDelta() bool { return l.base.crl.BaseNumber != nil }

// Issuer is the certificate whose key signed the list.
func (l *List) Issuer() *x509.Certificate { return l.base.issuer }

// IssuerName is the Name in DER of who issued the list.
func (l *List) IssuerName() []byte { return l.base.name }

// Indirect reports whether the list speaks of certificates of other issuers too.
func (l *List) Indirect() bool { return l.base.indirect() }

// Number is the CRL number; nil: not given.
func (l *List) Number() *big.Int { return l.base.crl.Number }

// BaseNumber is the number of the list that a delta builds upon; nil: the list is complete.
func (l *List) BaseNumber() *big.Int { return l.base.crl.BaseNumber }

// DeltaNumber is the CRL number of the delta; nil: there is none.
func (l *List) DeltaNumber() *big.Int {
	if l.delta == nil {
		return nil
	}
	return l.delta.crl.Number
}

// ThisUpdate is when what the list says was true: the delta's time if there is one.
func (l *List) ThisUpdate() time.Time {
	if l.delta != nil {
		return l.delta.crl.ThisUpdate
	}
	return l.base.crl.ThisUpdate
}

// NextUpdate is until when the list is fresh, see [List.Fresh]; zero: not given.
func (l *List) NextUpdate() time.Time {
	next := l.base.crl.NextUpdate
	if l.delta == nil || next.IsZero() {
		return next
	}
	if d := l.delta.crl.NextUpdate; d.IsZero() || d.After(next) {
		return d
	}
	return next
}

// SignatureAlgorithm is the name of the signature algorithm, of those in [trust.Algorithms] and [trust.WeakAlgorithms].
func (l *List) SignatureAlgorithm() string { return l.base.algorithm }

// IDP is the scope of the list; nil: everything that its issuer issued. It must not be changed.
func (l *List) IDP() *pkix.IssuingDistributionPoint { return l.base.idp }

// Freshest are the http and https URLs where deltas to the list are to be had.
func (l *List) Freshest() []string { return l.base.freshest }

// Len is how many certificates the list names, and the delta on top of it.
func (l *List) Len() int {
	n := l.base.index.count
	if l.delta != nil {
		n += l.delta.index.count
	}
	return n
}

// Size is the length of the list and its delta in DER.
func (l *List) Size() int64 {
	n := l.base.body.size()
	if l.delta != nil {
		n += l.delta.body.size()
	}
	return n
}

// Duplicates is how many entries name a certificate that an entry before them had named.
func (l *List) Duplicates() int {
	n := l.base.index.duplicates
	if l.delta != nil {
		n += l.delta.index.duplicates
	}
	return n
}
