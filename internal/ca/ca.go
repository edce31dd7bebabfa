// Package ca issues, revokes, holds and reactivates certificates, and publishes what it revoked.
//
// A certificate is checked, linted, recorded in the ledger and only then returned. A revocation is one transaction of
// the ledger; everything that follows (the edge's index, the CRL, cached OCSP answers) happens through
// [Config.OnChange] before the caller has its answer or within a second after it.
package ca
