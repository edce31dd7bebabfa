// Package storetest is the conformance suite of everything that implements the store's interfaces: what each method
// promises, tried on an open store. SQLite runs it, and any other database must.
//
// It is for tests only and refuses nothing. A store that can also die in the middle ([Crasher]) and fail on demand
// ([Faulty]) is tried for that as well.
//
//	storetest.Run(t, func(t *testing.T) storetest.Interface { return openIn(t, t.TempDir()) })
package storetest

import (
	"context"
	"testing"

	"sekisho/internal/auditlog"
	"sekisho/internal/ca"
	"sekisho/internal/principal"
	"sekisho/internal/site"
)

// Interface is everything that a store must do.
type Interface interface {
	ca.Ledger
	site.Records
	principal.Tokens
	Tokens
	Tickets
	Audit
	Meta(ctx context.Context, key string) (value string, ok bool, err error)
	SetMeta(ctx context.Context, key, value string) error
}

// Tokens is what the admin API needs of tokens.
type Tokens interface {
	AddToken(ctx context.Context, t principal.Token, entry auditlog.Entry) error
	ListTokens(ctx context.Context) ([]principal.Token, error)
	DeleteToken(ctx context.Context, id string, entry auditlog.Entry) error
}

// Tickets is the edge's ticket store.
type Tickets interface {
	TicketKeys(ctx context.Context, from int64) (map[int64][]byte, error)
	AddTicketKey(ctx context.Context, epoch int64, sealed []byte) ([]byte, error)
	DropTicketKeys(ctx context.Context, before int64) error
}

// Audit is the audit log as its readers see it.
type Audit interface {
	AppendAudit(ctx context.Context, e auditlog.Entry) error
	AuditRecords(ctx context.Context, from int64, limit int) ([]auditlog.Record, error)
	VerifyAudit(ctx context.Context) error
}

// Crasher is a store whose process can be killed: Crash returns a store that was opened on what a kill -9 at this
// moment leaves on the disk. The first store goes on.
type Crasher interface {
	Interface
	Crash(t *testing.T) Interface
}

// Faulty is a store whose commits can be made to fail: hook is called with "before-commit" and "after-commit" of each
// group of writes, nil ends that.
type Faulty interface {
	Interface
	SetFault(hook func(point string) error)
}

// Run tries every promise, each on a store of its own that open makes and that ends with its test.
func Run(t *testing.T, open func(t *testing.T) Interface) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Interface)
	}{
		{"CAs", testCAs},
		{"ChangeCAs", testChangeCAs},
		{"ImportCertificates", testImportCertificates},
		{"CompleteBlocked", testCompleteBlocked},
		{"ImportList", testImportList},
		{"CompromiseOfAnUnknownKey", testUnknownKey},
		{"RecordAndRead", testRecord},
		{"RecordRefuses", testRecordRefuses},
		{"Search", testSearch},
		{"Transitions", testTransitions},
		{"KeyCompromiseBlocksKey", testBlock},
		{"KeyCompromiseTakesAlongTheKey", testSameKey},
		{"CRLNumbers", testCRLNumbers},
		{"CRLBases", testCRLBases},
		{"Changed", testChanged},
		{"PKIURLs", testPKIURLs},
		{"Revoked", testRevoked},
		{"RevokedIsOneView", testRevokedView},
		{"Zones", testZones},
		{"Associations", testAssociations},
		{"TrustedCAs", testTrustedCAs},
		{"TrustedCATies", testTrustedCATies},
		{"TestInvariant08TrustedCAFailedCommit", testTrustedCAFault},
		{"Settings", testSettings},
		{"Tokens", testTokens},
		{"TestInvariant12RevokedToken", testDeleteToken},
		{"TicketKeys", testTickets},
		{"Meta", testMeta},
		{"AuditChain", testAudit},
		{"CancelledContext", testCancelled},
		{"TestInvariant08ConcurrentWrites", testConcurrent},
		{"TestInvariant08OneRefusedInAGroup", testGroup},
		{"TestInvariant08FailedCommit", testFailedCommit},
		{"TestInvariant08FailedButPersisted", testFailedButPersisted},
		{"TestInvariant08UncleanEnd", testUncleanEnd},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}
