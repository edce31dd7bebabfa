// Package certpath finds certification paths from a certificate to a trust anchor and validates them (RFC 5280,
// Section 6.1), with a bound on the work that hostile certificates can cause.
//
// [Build] looks for paths among what a peer presented and what the caller knows; [Validate] judges one given path. Both
// check the same rules: signatures, names, validity, basicConstraints, keyUsage, extendedKeyUsage (nested, as
// crypto/x509 does), pathLenConstraint, name constraints of every form that has a meaning here, and certificate
// policies with mappings (the graph of RFC 9618, which does not grow exponentially). Revocation is not their concern.
//
// A signature is checked only with a key that already leads to an anchor, from the anchor downwards, and each pair of
// certificate and issuer once, so that a stranger's certificates cost almost nothing. What is refused, by [Reason]:
//
//   - signatures with algorithms that [Options.Allows] does not take (SHA-1 by default; MD5 and DSA always), RSA keys
//     below 1024 or above 16384 bits;
//   - an issuer that is no CA: an intermediate must be v3 with CA:TRUE, an anchor must not say CA:FALSE, either must
//     have keyCertSign where it has a key usage;
//   - critical extensions that nobody reads, an extended key usage without a usage, numbers that are negative;
//   - name constraints with a minimum or maximum, and names of a form that is constrained but cannot be compared
//     (otherName, registeredID, x400Address, ediPartyName): RFC 5280, Section 4.2.1.10 wants them processed or refused;
//   - more than MaxDepth certificates in a path, more than 128 or 512 KiB presented, and what exceeds the budgets for
//     signatures, comparisons of names, and steps.
//
// Names are compared as RFC 5280, Section 7.1 says: case and insignificant blanks do not count, nor which string type
// was used. Unicode normalisation (NFKC) is not done. A trust anchor is judged like any certificate but for its own
// signature: it must be valid, and its constraints hold (RFC 5937). A leaf that is itself an anchor is a path of one.
//
//	paths, err := certpath.Build(presented[0], presented[1:], certpath.Options{
//		Anchors: anchors, Intermediates: known, At: now, IgnoreValidity: true,
//	})
//	if e, ok := errors.AsType[*certpath.Error](err); ok {
//		return refused(e.Reason, e)
//	}
//	for _, path := range paths { // the first that nothing speaks against
package certpath
