package ca_test

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestCRLFollows: each transition shows in the CRL within a quarter of a second, with its reason, time and number.
func TestCRLFollows(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	f.run()
	row := f.issue("x")
	if e := entry(t, f.crl(), row); e != nil {
		t.Fatal("an active certificate is in the CRL")
	}
	held := f.hold(row.ID)
	steps := []struct {
		name string
		want func(*x509.RevocationListEntry) bool
		next func() ca.Certificate
	}{
		{"hold", func(e *x509.RevocationListEntry) bool {
			return e != nil && e.ReasonCode == 6 && e.RevocationTime.Equal(held.RevokedAt)
		}, func() ca.Certificate { return f.reactivate(row.ID) }},
		{"reactivate", func(e *x509.RevocationListEntry) bool { return e == nil }, func() ca.Certificate { return f.hold(row.ID) }},
		{
			"hold again", func(e *x509.RevocationListEntry) bool { return e != nil && e.ReasonCode == 6 },
			func() ca.Certificate { return f.revoke(row.ID, pkix.Superseded) },
		},
		{"revoke", func(e *x509.RevocationListEntry) bool { return e != nil && e.ReasonCode == 4 }, nil},
	}
	now, soonest := held, time.Hour
	for _, s := range steps {
		soonest = min(soonest, f.waitCRL(func(list *x509.RevocationList) bool { return list.Number.Int64() >= now.CRLNumber }))
		if e := entry(t, f.crl(), row); !s.want(e) {
			t.Errorf("%s: entry %+v", s.name, e)
		}
		if s.next != nil {
			now = s.next()
		}
	}
	if soonest > 250*time.Millisecond { // of some: others may use the machine
		t.Errorf("the CRL came after %v", soonest)
	}
}

// TestInvariant08CRLNumbersOnlyGrow: under racing transitions every CRL has a larger number than the one before, and
// the CRL with number N tells of every transition up to N.
func TestInvariant08CRLNumbersOnlyGrow(t *testing.T) {
	var mu sync.Mutex
	history := map[int64]ca.Certificate{} // by CRL number
	f := newCA(t, pkix.ECDSAP256)
	f.run()
	rows := make([]ca.Certificate, 20)
	for i := range rows {
		rows[i] = f.issue(fmt.Sprint("c", i))
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 60 {
				row := rows[rand.IntN(len(rows))]
				after, err := f.Hold(t.Context(), ca.ChangeRequest{ID: row.ID})
				if err != nil {
					after, err = f.Reactivate(t.Context(), ca.ChangeRequest{ID: row.ID})
				}
				if err == nil {
					mu.Lock()
					history[after.CRLNumber] = after
					mu.Unlock()
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	var lists []*x509.RevocationList
	for busy := true; busy; {
		select {
		case <-done:
			busy = false
		case <-time.After(3 * time.Millisecond):
		}
		lists = append(lists, f.crl())
	}
	mu.Lock()
	defer mu.Unlock()
	f.waitCRL(func(list *x509.RevocationList) bool {
		lists = append(lists, list)
		return history[list.Number.Int64()+1].ID == ""
	})
	before := int64(0)
	for _, list := range lists {
		n := list.Number.Int64()
		if n < before {
			t.Fatalf("CRL number %d after %d", n, before)
		}
		if n == before {
			continue
		}
		before = n
		last := map[string]ca.Certificate{}
		for number := int64(0); number <= n; number++ {
			if row := history[number]; row.ID != "" {
				last[row.ID] = row
			}
		}
		for _, row := range last {
			if found := entry(t, list, row) != nil; found != (row.Status == ca.Revoked) {
				t.Errorf("CRL %d: certificate %s listed %v, but it is %s since number %d", n, row.CommonName, found, row.Status, row.CRLNumber)
			}
		}
	}
}

// TestCRLRestart: after a start the list is complete and its number larger.
func TestCRLRestart(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	f.revoke(row.ID, pkix.KeyCompromise)
	before := f.crl()
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
	after := f.crl()
	if after.Number.Cmp(before.Number) <= 0 {
		t.Errorf("CRL number %v after %v", after.Number, before.Number)
	}
	if e := entry(t, after, row); e == nil || e.ReasonCode != 1 {
		t.Errorf("entry %+v", e)
	}
}

// TestCRLExpiry: RFC 5280, Section 3.3: an entry leaves after the certificate has ended and one more CRL has told of it.
func TestCRLExpiry(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row, _, err := f.IssueWithKey(t.Context(), ca.IssueRequest{
		ZoneID: zone, Profile: ca.ProfileClient, Subject: "CN=x", NotAfter: time.Now().Add(2 * time.Hour),
	}, pkix.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	stays := f.issue("stays")
	f.revoke(row.ID, pkix.Superseded)
	f.revoke(stays.ID, pkix.Superseded)
	for i, want := range []bool{true, true, false, false} { // renewed every 13 hours; it ends in the first
		list := f.crl()
		if found := entry(t, list, row) != nil; found != want {
			t.Errorf("CRL %d (number %v): entry there %v, want %v", i, list.Number, found, want)
		}
		if entry(t, list, stays) == nil {
			t.Errorf("CRL %d: the entry of a valid certificate is gone", i)
		}
		f.clock.Add(int64(13 * time.Hour))
	}
}

// TestCRLRenewal: Run renews before nextUpdate with a new number, the root's too.
func TestCRLRenewal(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	first := f.crl()
	f.clock.Add(int64(12*time.Hour + time.Minute))
	f.run()
	f.waitCRL(func(list *x509.RevocationList) bool {
		return list.Number.Cmp(first.Number) > 0 && list.NextUpdate.After(first.NextUpdate)
	})
	records, err := f.CAs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	crl, err := f.CRL(t.Context(), records[0].ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(crl.DER)
	if err != nil || list.CheckSignatureFrom(f.Root()) != nil || len(list.RevokedCertificateEntries) != 0 {
		t.Errorf("root's CRL: %v", err)
	}
	for _, shard := range []int{-1, 1} {
		if _, err := f.CRL(t.Context(), records[0].ID, shard); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("shard %d: %v, want ErrNotFound", shard, err)
		}
	}
	if _, err := f.CRL(t.Context(), "nobody", 0); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("unknown CA: %v, want ErrNotFound", err)
	}
}

// TestCRLDiskFull: while the ledger cannot be written the CRL stays, and catches up afterwards.
func TestCRLDiskFull(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row := f.issue("x")
	f.run()
	first := f.waitNumber(big.NewInt(0))
	full := func(string) error { return syscall.ENOSPC }
	f.fault.Store(&full)
	f.clock.Add(int64(13 * time.Hour)) // a renewal is due, which raises the number in the ledger
	time.Sleep(50 * time.Millisecond)
	if got := f.crl(); got.Number.Cmp(first) != 0 {
		t.Errorf("CRL number %v with a full disk", got.Number)
	}
	f.fault.Store(nil)
	f.revoke(row.ID, pkix.Superseded)
	f.waitNumber(first)
	f.waitCRL(func(list *x509.RevocationList) bool { return entry(t, list, row) != nil })
}

func (f *fixture) waitNumber(above *big.Int) (number *big.Int) {
	f.t.Helper()
	f.waitCRL(func(list *x509.RevocationList) bool { number = list.Number; return number.Cmp(above) > 0 })
	return number
}

// millionLedger adds a million revoked rows to what the ledger yields.
type millionLedger struct {
	ca.Ledger
	key pkix.KeyID
}

func (l millionLedger) Revoked(ctx context.Context, caID string, shard int, since time.Time) (int64, iter.Seq2[ca.RevokedRow, error], error) {
	number, rows, err := l.Ledger.Revoked(ctx, caID, shard, since)
	return number, func(yield func(ca.RevokedRow, error) bool) {
		rows(yield)
		at := time.Now()
		for i := range uint64(1_000_000) {
			serial := binary.BigEndian.AppendUint64([]byte("a serial no."), i)
			if !yield(ca.RevokedRow{ID: pkix.CertID{Issuer: l.key, Serial: pkix.SerialFromBytes(serial)}, Reason: pkix.Superseded, At: at}, nil) {
				return
			}
		}
	}, err
}

// TestCRLMillion: with a million entries a revocation shows within a second.
func TestCRLMillion(t *testing.T) {
	if os.Getenv("SEKISHO_LONG") == "" {
		t.Skip("a million entries take some seconds; SEKISHO_LONG=1 runs this")
	}
	f := newCA(t, pkix.ECDSAP256)
	cfg := f.cfg
	cfg.Ledger = millionLedger{f.store, pkix.KeyIDOf(f.Issuing())}
	authority, err := ca.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.Authority = authority
	start := time.Now()
	id := f.issuingID()
	if _, err := f.CRL(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("first CRL after %v", time.Since(start))
	f.run()
	row := f.issue("x")
	for _, step := range []func(){
		func() { f.hold(row.ID) }, func() { f.reactivate(row.ID) }, func() { f.revoke(row.ID, pkix.Superseded) },
	} {
		start := time.Now()
		step()
		stored, err := f.Certificate(t.Context(), zone, row.ID)
		if err != nil {
			t.Fatal(err)
		}
		for {
			crl, err := f.CRL(t.Context(), id, 0)
			if err != nil {
				t.Fatal(err)
			}
			if crl.Number.Int64() >= stored.CRLNumber {
				t.Logf("CRL %v of %d bytes after %v", crl.Number, len(crl.DER), time.Since(start))
				break
			}
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the CRL came after %v", took)
		}
	}
	if list := f.crl(); len(list.RevokedCertificateEntries) != 1_000_001 || entry(t, list, row) == nil {
		t.Errorf("%d entries", len(list.RevokedCertificateEntries))
	}
}

// TestCanceledRequest: who asks for a list and goes away leaves nothing behind for others.
func TestCanceledRequest(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, shards(2))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = f.FullCRL(gone, f.issuingID())
	_, _ = f.CRL(gone, f.issuingID(), 0)
	if _, err := f.FullCRL(t.Context(), f.issuingID()); err != nil {
		t.Errorf("the list of all shards, for the next: %v", err)
	}
	resp, err := http.Get(f.CRLURL(f.issuingID(), ca.AllShards))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if _, parseErr := pkix.ParseCRLHeader(body); err != nil || resp.StatusCode != http.StatusOK || parseErr != nil {
		t.Errorf("HTTP %d with %d octets, %v, %v", resp.StatusCode, len(body), err, parseErr)
	}
}

// noticedLedger tells of every list that is read.
type noticedLedger struct {
	ca.Ledger
	read func(caID string, shard int) error
}

func (l noticedLedger) Revoked(ctx context.Context, caID string, shard int, since time.Time) (int64, iter.Seq2[ca.RevokedRow, error], error) {
	if err := l.read(caID, shard); err != nil {
		return 0, nil, err
	}
	return l.Ledger.Revoked(ctx, caID, shard, since)
}

// TestChangesBeforeRenewals: a revocation does not wait until the lists of all shards before its own are renewed.
func TestChangesBeforeRenewals(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, shards(8))
	row := f.issue("x")
	for row.Shard != 7 {
		row = f.issue("x")
	}
	id, reads := f.issuingID(), make(chan int, 100)
	cfg := f.cfg
	cfg.Ledger = noticedLedger{f.store, func(caID string, shard int) error {
		if caID == id {
			reads <- shard
		}
		return nil
	}}
	var err error
	if f.Authority, err = ca.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	f.revoke(row.ID, pkix.Superseded)
	f.run()
	if first, second := <-reads, <-reads; first != 7 && second != 7 {
		t.Errorf("the lists of shards %d and %d came before that of 7", first, second)
	}
}

// TestFullCRLNowWaits: the list tells of what was revoked before also when a publication has taken that, but is not at its
// end, or fails.
func TestFullCRLNowWaits(t *testing.T) {
	for _, n := range []int{1, 2} {
		for _, outcome := range []error{nil, errors.New("the disk is gone")} {
			t.Run(fmt.Sprint(n, " shards, ", outcome), func(t *testing.T) {
				f := newCA(t, pkix.ECDSAP256, shards(n))
				row := f.issue("x")
				var armed atomic.Bool
				begun, end := make(chan bool), make(chan bool)
				cfg := f.cfg
				cfg.Ledger = noticedLedger{f.store, func(caID string, shard int) error {
					if caID == row.CAID && shard == row.Shard && armed.CompareAndSwap(true, false) {
						begun <- true
						<-end
						return outcome
					}
					return nil
				}}
				var err error
				if f.Authority, err = ca.Open(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
				f.run()
				f.must(f.FullCRLNow(t.Context(), row.CAID))
				time.Sleep(1200 * time.Millisecond) // so that the next list may be made at once
				armed.Store(true)
				f.clock.Add(int64(13 * time.Hour)) // a renewal reads the ledger
				f.revoke(row.ID, pkix.Superseded)
				<-begun
				time.AfterFunc(300*time.Millisecond, func() { close(end) })
				if list := f.read(f.must(f.FullCRLNow(t.Context(), row.CAID)).DER); len(list.entries) != 1 {
					t.Errorf("list %v has %d entries, want the one that was revoked before", list.Number, len(list.entries))
				}
			})
		}
	}
}

// TestNoListYet: while the first list cannot be made, those who ask for it do not try in the publisher's place.
func TestNoListYet(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	var tried atomic.Int64
	full := func(string) error { tried.Add(1); return syscall.ENOSPC }
	f.fault.Store(&full)
	f.run()
	eventually(t, "a try", func() bool { return tried.Load() >= 2 }) // the root's list and ours
	for range 50 {
		if _, err := f.CRL(t.Context(), f.issuingID(), 0); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if n := tried.Load(); n > 10 {
		t.Errorf("%d tries for 50 who asked", n)
	}
	f.fault.Store(nil)
	eventually(t, "a list", func() bool { _, err := f.CRL(t.Context(), f.issuingID(), 0); return err == nil })
}
