package ca_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// failAt makes every commit fail at a point.
func (f *fixture) failAt(point string) {
	fault := func(p string) error {
		if p == point {
			return syscall.EIO
		}
		return nil
	}
	f.fault.Store(&fault)
}

func (f *fixture) rotate(req ca.RotateRequest) ca.Rotation {
	f.t.Helper()
	r, err := f.Rotate(f.t.Context(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// TestRotate: the new CA issues, the old one does not and goes on publishing; both are trusted.
func TestRotate(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	old, oldID := f.issue("old"), f.issuingID()
	oldCert := f.Issuing()
	dry := f.rotate(ca.RotateRequest{DryRun: true})
	if len(dry.New) != 1 || len(dry.Retired) != 1 || dry.Retired[0].ID != oldID || dry.Retired[0].Count.Active != 1 || !f.Issuing().Equal(oldCert) {
		t.Errorf("dry run: %+v", dry)
	}
	r := f.rotate(ca.RotateRequest{Actor: "test"})
	if r.New[0].Name != dry.New[0].Name || pkix.DNString(r.New[0].Cert.RawSubject) != "CN=sekisho Issuing CA G2" || !r.New[0].InForce || !r.Retired[0].Retired {
		t.Errorf("rotated: %+v", r)
	}
	if !r.New[0].Cert.NotAfter.Equal(dry.New[0].Cert.NotAfter) || r.New[0].KeyType != dry.New[0].KeyType {
		t.Errorf("the dry run foretold %v and %s, not %v and %s", dry.New[0].Cert.NotAfter, dry.New[0].KeyType, r.New[0].Cert.NotAfter, r.New[0].KeyType)
	}
	fresh := f.issue("new")
	if fresh.CAID != r.New[0].ID || fresh.CAID == oldID {
		t.Errorf("issued by %s", fresh.CAID)
	}
	if _, err := f.Issue(t.Context(), ca.IssueRequest{CA: "issuing", Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 1}); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("the old CA issues: %v", err)
	}
	if anchors := f.ClientAnchors(); len(anchors) != 2 || !anchors[0].Equal(f.Issuing()) || !anchors[1].Equal(oldCert) {
		t.Errorf("%d anchors", len(anchors))
	}
	f.revoke(old.ID, pkix.Superseded)
	crl, err := f.CRL(t.Context(), oldID, old.Shard)
	if err != nil {
		t.Fatal(err)
	}
	root, issuer := f.file("root.pem", pkix.EncodeCertificate(f.Root().Raw)), f.file("old.pem", pkix.EncodeCertificate(oldCert.Raw))
	wants(t, []string{old.Serial.Upper()}, "openssl", "crl", "-inform", "der", "-in", f.file("x.crl", crl.DER), "-noout", "-text", "-CAfile", issuer)
	wants(t, []string{": revoked"}, "openssl", "ocsp", "-issuer", issuer, "-serial", "0x"+old.Serial.String(), "-url", f.OCSPURL(), "-CAfile", root, "-verify_other", issuer)
	// The delegate of the old CA is renewed too.
	f.clock.Add(int64(25 * 24 * time.Hour))
	wants(t, []string{"Reason: superseded"}, "openssl", "ocsp", "-issuer", issuer, "-serial", "0x"+old.Serial.String(), "-url", f.OCSPURL(), "-noverify")
	f.reopen()
	if !f.Issuing().Equal(r.New[0].Cert) {
		t.Error("after a restart another CA is in force")
	}
	second := f.rotate(ca.RotateRequest{KeyType: pkix.Ed25519})
	if got := pkix.DNString(second.New[0].Cert.RawSubject); got != "CN=sekisho Issuing CA G3" || second.New[0].Name != "issuing-3" || second.New[0].KeyType != "ed25519" || len(f.ClientAnchors()) != 3 {
		t.Errorf("the second rotation of the day: %s %s, %d anchors", got, second.New[0].Name, len(f.ClientAnchors()))
	}
}

// TestRotateRoot: who trusts only the old root verifies new certificates through the cross certificate, and the other way
// round, also after a second rotation.
func TestRotateRoot(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	oldLeaf, oldChain := f.issue("old"), f.sent("issuing")
	roots := [][]byte{pkix.EncodeCertificate(f.Root().Raw)}
	for n, keyType := range []pkix.KeyType{pkix.ECDSAP384, pkix.RSA2048} {
		r := f.rotate(ca.RotateRequest{Root: true, KeyType: keyType})
		if len(r.New) != 2 || len(r.Retired) != 2 || len(r.Cross) != n+2 {
			t.Fatalf("%d new, %d retired, %d cross certificates", len(r.New), len(r.Retired), len(r.Cross))
		}
		roots = append(roots, pkix.EncodeCertificate(f.Root().Raw))
		leaf := f.file("leaf.pem", pkix.EncodeCertificate(f.issue("new").DER))
		chain := f.file("chain.pem", f.sent(ca.ActiveName))
		for i, root := range roots {
			wants(t, []string{": OK"}, "openssl", "verify", "-CAfile", f.file("root.pem", root), "-untrusted", chain, leaf)
			// GnuTLS sees past one cross certificate to a root that it knows, not past two: there it wants all of ca.pem.
			trusted := root
			if i > 1 {
				trusted = pkix.EncodeCertificates(f.Roots())
			}
			wants(t, []string{"The certificate is trusted"}, "certtool", "--verify", "--load-ca-certificate", f.file("root.pem", trusted), "--infile",
				f.file("all.pem", append(pkix.EncodeCertificate(f.issue("gnutls").DER), f.sent(ca.ActiveName)...)))
			if i < len(roots)-1 {
				continue
			}
			// The other way round the client is given what ca show --pem has.
			wants(t, []string{": OK"}, "openssl", "verify", "-CAfile", f.file("root.pem", root), "-untrusted",
				f.file("all.pem", append(oldChain, f.everything()...)), f.file("old.pem", pkix.EncodeCertificate(oldLeaf.DER)))
		}
		if got := len(f.Roots()); got != n+2 {
			t.Errorf("%d roots, want %d", got, n+2)
		}
		for _, cross := range r.Cross {
			answer, err := f.AnswerOCSP(t.Context(), pkix.OCSPRequest{Certs: []pkix.OCSPCertID{pkix.NewOCSPCertID(5, f.IssuerOf(cross), pkix.SerialOf(cross.SerialNumber))}}.Marshal())
			if err != nil || answer.Status != "good" {
				t.Errorf("OCSP about a cross certificate: %s, %v", answer.Status, err)
			}
		}
	}
}

// sent is what a server sends after a certificate of a CA.
func (f *fixture) sent(ref string) []byte {
	f.t.Helper()
	chain, err := f.Chain(f.ResolveCA(ref))
	if err != nil {
		f.t.Fatal(err)
	}
	return pkix.EncodeCertificates(chain)
}

// everything is all CA certificates and what is sent along.
func (f *fixture) everything() []byte {
	f.t.Helper()
	states, err := f.States(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	var all []byte
	for _, s := range states {
		all = append(append(all, pkix.EncodeCertificates(s.Extra)...), pkix.EncodeCertificate(s.DER)...)
	}
	return all
}

// TestRotateRefusals: nothing changes.
func TestRotateRefusals(t *testing.T) {
	f := newFixture(t)
	if _, err := f.Rotate(t.Context(), ca.RotateRequest{}); !errors.Is(err, ca.ErrNotReady) {
		t.Errorf("without a CA: %v", err)
	}
	if err := f.Init(t.Context(), "test", ca.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	before := f.inventory()
	for field, req := range map[string]ca.RotateRequest{
		"key_type": {KeyType: "rsa-512"}, "subject": {Subject: "XX=1"}, "root_subject": {RootSubject: "CN=x"},
	} {
		_, err := f.Rotate(t.Context(), req)
		if bad, ok := errors.AsType[*ca.RequestError](err); !ok || bad.Field != field {
			t.Errorf("%+v: %v", req, err)
		}
	}
	if _, err := f.Rotate(t.Context(), ca.RotateRequest{Subject: "CN=sekisho Root CA"}); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("the name of the root: %v", err)
	}
	if after := f.inventory(); after != before {
		t.Errorf("%s, before %s", after, before)
	}
}

// TestInvariant08RotateCrash: a rotation whose commit fails is none, and rotating again is one; whose answer got lost is
// there, and the old CA issues no more.
func TestInvariant08RotateCrash(t *testing.T) {
	for _, point := range []string{"before-commit", "after-commit"} {
		for _, root := range []bool{false, true} {
			f := newCA(t, pkix.ECDSAP256)
			before := f.Issuing()
			f.failAt(point)
			if _, err := f.Rotate(t.Context(), ca.RotateRequest{Root: root}); !errors.Is(err, syscall.EIO) {
				t.Fatalf("%s: %v", point, err)
			}
			f.fault.Store(nil)
			changed := !f.Issuing().Equal(before)
			if changed != (point == "after-commit") {
				t.Errorf("%s: another CA in force: %t", point, changed)
			}
			inForce := f.Issuing()
			f.reopen()
			if !f.Issuing().Equal(inForce) {
				t.Errorf("%s: a restart changed which CA is in force", point)
			}
			f.issue("x")
			f.rotate(ca.RotateRequest{Root: root})
			if f.Issuing().Equal(inForce) {
				t.Errorf("%s: rotating again did nothing", point)
			}
			f.issue("y")
		}
	}
}

// TestRotateWhileIssuing: nobody is refused, and each certificate is of a CA that is trusted.
func TestRotateWhileIssuing(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	f.run()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				row, _, err := f.IssueWithKey(t.Context(), ca.IssueRequest{ZoneID: zone, Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 30}, pkix.ECDSAP256)
				if err != nil {
					t.Error(err)
					return
				}
				if f.IssuerOf(parse(t, row)) == nil {
					t.Errorf("certificate %s is of no CA", row.ID)
				}
			}
		})
	}
	for range 3 {
		f.rotate(ca.RotateRequest{Root: true})
	}
	cancel()
	wg.Wait()
}

// TestRotateEndedRoot: a CA below a root that has ended would be none; with a new root it goes on.
func TestRotateEndedRoot(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	f.clock.Add(int64(26 * 365 * 24 * time.Hour))
	before := f.Issuing()
	for _, dry := range []bool{true, false} {
		if _, err := f.Rotate(t.Context(), ca.RotateRequest{DryRun: dry}); !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), "--root") || !f.Issuing().Equal(before) {
			t.Errorf("below the root that has ended: %v", err)
		}
	}
	if _, err := f.Rotate(t.Context(), ca.RotateRequest{Root: true, Subject: "CN=X", RootSubject: "CN=X"}); !errors.Is(err, ca.ErrInvalid) || !f.Issuing().Equal(before) {
		t.Errorf("one name for two: %v", err)
	}
	f.rotate(ca.RotateRequest{Root: true})
	f.issue("new")
}
