// Package pkix holds the values and codecs of the X.509 world that every
// other part shares: serial numbers, fingerprints and key ids, distinguished
// names as text, PEM in and out, and the encoders for CRLs (RFC 5280) and OCSP
// (RFC 6960) that the standard library lacks or has only in part (issuing
// distribution points, deltas, nonces, Ed25519 and ML-DSA signatures).
//
// It is pure: bytes in, values out. It reads no clock, no file and no socket;
// times are arguments. Its one impurity is crypto/rand, for keys and
// signatures.
//
// It refuses rather than guesses: a PEM text with a private key where a
// certificate is asked, two certificates where one is asked, bytes after the
// block, an unknown attribute in a name, a serial number that is not
// hexadecimal, an OCSP request with an extension marked critical that it does
// not know. Every parser bounds the size of what it reads before it reads it.
//
// Example:
//
//	serial, err := pkix.ParseSerial("02:8A:07:ff") // the same as "28a07ff"
//	name, err := pkix.ParseDN("CN=Iwa Te,O=Sekisho\\, Inc.,C=JP")
//	pkix.DNLegacy(name)                            // /C=JP/O=Sekisho, Inc./CN=Iwa Te
//	entry := pkix.AppendCRLEntry(nil, pkix.CRLEntry{Serial: serial, At: at})
//	der, err := pkix.SignCRL(pkix.CRLTemplate{Issuer: ca, Number: n, ThisUpdate: at, NextUpdate: next}, entry, key)
package pkix
