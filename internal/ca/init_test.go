package ca_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// TestInit: nothing before, two CAs after, and no second time.
func TestInit(t *testing.T) {
	f := newFixture(t)
	if f.Ready() || f.Root() != nil || f.Issuing() != nil {
		t.Error("there is a CA before Init")
	}
	if _, err := f.Issue(t.Context(), ca.IssueRequest{Profile: ca.ProfileClient}); !errors.Is(err, ca.ErrNotReady) {
		t.Errorf("Issue: %v, want ErrNotReady", err)
	}
	req := ca.InitRequest{KeyType: pkix.ECDSAP384, RootSubject: "CN=My Root,O=Kame,C=JP", IssuingSubject: "/C=JP/O=Kame/CN=My Issuing"}
	if err := f.Init(t.Context(), "test", req); err != nil {
		t.Fatal(err)
	}
	if got := pkix.DNString(f.Root().RawSubject); got != "CN=My Root,O=Kame,C=JP" {
		t.Errorf("root %s", got)
	}
	if got := pkix.DNString(f.Issuing().RawSubject); got != "CN=My Issuing,O=Kame,C=JP" {
		t.Errorf("issuing CA %s", got)
	}
	if i := f.Issuing(); !i.IsCA || i.MaxPathLen != 0 || !i.MaxPathLenZero || pkix.KeyTypeOf(i.PublicKey) != "ecdsa-p384" {
		t.Errorf("issuing CA: %v, path length %d, %s", i.IsCA, i.MaxPathLen, pkix.KeyTypeOf(i.PublicKey))
	}
	if err := f.Init(t.Context(), "test", ca.InitRequest{}); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("second Init: %v, want ErrConflict", err)
	}
}

// TestInitRefusals: nothing is made.
func TestInitRefusals(t *testing.T) {
	f := newFixture(t)
	for field, req := range map[string]ca.InitRequest{
		"key_type": {KeyType: "rsa-512"}, "subject": {RootSubject: "XX=1"},
	} {
		err := f.Init(t.Context(), "test", req)
		if bad, ok := errors.AsType[*ca.RequestError](err); !ok || bad.Field != field {
			t.Errorf("%+v: %v, want a RequestError of %s", req, err, field)
		}
	}
	if err := f.Init(t.Context(), "test", ca.InitRequest{RootSubject: "/"}); err == nil {
		t.Error("a CA without a name was made")
	}
	if records, err := f.CAs(t.Context()); err != nil || len(records) != 0 {
		t.Errorf("%d CAs, %v", len(records), err)
	}
}

// TestInitAfterCrash: a crash between root and issuing CA; the next Init finishes below the same root.
func TestInitAfterCrash(t *testing.T) {
	f := newFixture(t)
	commits := 0
	crash := func(point string) error {
		if point == "before-commit" {
			if commits++; commits == 2 {
				return syscall.EIO
			}
		}
		return nil
	}
	f.fault.Store(&crash)
	if err := f.Init(t.Context(), "test", ca.InitRequest{}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Init: %v", err)
	}
	f.fault.Store(nil)
	root := f.Root()
	if root == nil || f.Ready() {
		t.Fatal("the root should be there and the issuing CA not")
	}
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	f.open()
	if f.Ready() || !f.Root().Equal(root) {
		t.Fatal("after the restart the root is another")
	}
	if err := f.Init(t.Context(), "test", ca.InitRequest{IssuingSubject: "CN=Second try"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Issuing().CheckSignatureFrom(root); err != nil {
		t.Error(err)
	}
}

// TestOpenRefusals: a configuration that cannot work, and a key that is gone or another's.
func TestOpenRefusals(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	for text, edit := range map[string]func(*ca.Config){
		"ledger and keys": func(c *ca.Config) { c.Ledger = nil },
		"PKI URL":         func(c *ca.Config) { c.PKIURL = "ftp://x" },
		"shorter":         func(c *ca.Config) { c.CRLLifetime = time.Second },
		"overlap":         func(c *ca.Config) { c.CRLOverlap = 25 * time.Hour },
		"no such key":     func(c *ca.Config) { c.Keys = newKeys(t, t.TempDir()) },
	} {
		cfg := f.cfg
		edit(&cfg)
		if _, err := ca.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want one about %q", err, text)
		}
	}
	others := newKeys(t, t.TempDir())
	records, err := f.CAs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if _, err := others.Create(r.KeyName, pkix.ECDSAP256); err != nil {
			t.Fatal(err)
		}
	}
	f.cfg.Keys = others
	if _, err := ca.Open(t.Context(), f.cfg); err == nil || !strings.Contains(err.Error(), "is not the key of the certificate") {
		t.Errorf("error %v, want one about the wrong key", err)
	}
}

// TestInvariant08LeafNeverOutlivesIssuer: however long is asked for and however late.
func TestInvariant08LeafNeverOutlivesIssuer(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256, config(func(c *ca.Config) { c.RootLifetime, c.IssuingLifetime = 900*24*time.Hour, 1000*24*time.Hour }))
	if f.Issuing().NotAfter.After(f.Root().NotAfter) {
		t.Error("the issuing CA outlives the root")
	}
	for range 40 {
		for _, profile := range []string{ca.ProfileClient, ca.ProfileServer} {
			for _, days := range []int{1, 30, 90, 400, 825, 5475} {
				row, _, err := f.IssueWithKey(t.Context(), ca.IssueRequest{Profile: profile, Subject: "CN=a.example", ValidDays: days}, pkix.ECDSAP256)
				if err != nil {
					if !errors.Is(err, ca.ErrInvalid) {
						t.Fatal(err)
					}
					continue
				}
				if row.NotAfter.After(f.Issuing().NotAfter) || row.NotBefore.Before(f.Issuing().NotBefore) {
					t.Fatalf("%d days: from %v to %v, the issuer from %v to %v", days, row.NotBefore, row.NotAfter, f.Issuing().NotBefore, f.Issuing().NotAfter)
				}
			}
		}
		f.clock.Add(int64(25 * 24 * time.Hour))
	}
	row := ca.IssueRequest{Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 1}
	if _, _, err := f.IssueWithKey(t.Context(), row, pkix.ECDSAP256); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("an ended CA issues: %v", err)
	}
}

// TestInvariant09SerialsAreIntegers: every spelling of a serial number finds the certificate.
func TestInvariant09SerialsAreIntegers(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	for range 40 { // some serial numbers begin with a zero digit
		row := f.issue("x")
		plain := row.Serial.String()
		if len(plain) != 40 || plain[:2] == "00" || plain[0] >= '8' {
			t.Fatalf("serial %s has not 20 octets of a positive number", plain)
		}
		var colons strings.Builder
		for i := 0; i < len(plain); i += 2 {
			if i > 0 {
				colons.WriteByte(':')
			}
			colons.WriteString(plain[i : i+2])
		}
		for _, spelling := range []string{
			plain, strings.ToUpper(plain), "0x" + plain, "00" + plain, "0000" + strings.ToUpper(plain), strings.TrimLeft(plain, "0"), colons.String(),
		} {
			serial, err := pkix.ParseSerial(spelling)
			if err != nil {
				t.Fatal(err)
			}
			rows, _, err := f.Certificates(t.Context(), ca.Filter{Serial: &serial})
			if err != nil || len(rows) != 1 || rows[0].ID != row.ID {
				t.Errorf("serial %q: %d rows, %v", spelling, len(rows), err)
			}
		}
	}
}
