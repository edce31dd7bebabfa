// Package auditlog is the tamper-evident, append-only record of every decision that administrators and the CA make.
//
// Each [Record] carries the SHA-256 of the one before it, so removing or editing one breaks every later hash;
// [Verify] finds the first break. Records are stored by package store in the transaction of the decision they tell of:
// what cannot be recorded does not happen.
package auditlog

import "time"

// Entry is one decision, before it has a place in the record.
type Entry struct {
	At      time.Time         // when, UTC
	Actor   string            // who: a token's name, or "local:USER" for the command line on the store
	Action  string            // what: certificate.issue, certificate.revoke, ca.create, ...
	Object  string            // to what: a certificate id, a hostname, a token id
	Outcome string            // done or refused
	Detail  map[string]string // never a secret
}

// Record is an entry in its place.
type Record struct {
	Seq  int64 // 1, 2, 3, ... without gaps
	Prev [32]byte
	Hash [32]byte // SHA-256 over Prev, Seq and the canonical encoding of Entry
	Entry
}
