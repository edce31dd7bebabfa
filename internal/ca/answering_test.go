package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/keystore"
	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
)

// answering is a CA whose key stays with openssl, imported with an OCSP signer.
func answering(t *testing.T, opts ...option) (*fixture, *elsewhere, ca.State) {
	t.Helper()
	f := newCA(t, pkix.ECDSAP256, opts...)
	e := newElsewhere(t, ecKey(), caExtensions)
	e.sign("ocsp", "0x70", "extendedKeyUsage=OCSPSigning\nkeyUsage=digitalSignature")
	req := e.request()
	req.Key, req.SignerCertificate, req.SignerKey, req.Name = nil, e.read("ocsp.pem"), e.read("ocsp.key"), "partner"
	req.CRL = e.crl("10", revokedLine("0A", "superseded"), revokedLine("0B", "certificateHold"), revokedLine("0C", "keyCompromise"))
	return f, e, f.importCA(req)
}

// ocspSays asks by openssl what is said of a serial number, and verifies the answer by the CA's certificate.
func (f *fixture) ocspSays(e *elsewhere, serial string) string {
	f.t.Helper()
	out := wants(f.t, []string{"Response verify OK"}, "openssl", "ocsp", "-issuer", e.path("ca.pem"), "-serial", serial, "-url", f.OCSPURL(), "-CAfile", e.path("ca.pem"))
	_, says, _ := strings.Cut(out, serial+": ")
	says, _, _ = strings.Cut(says, "\n")
	return says
}

// TestInvariant07AnsweringCA: for a CA whose key is elsewhere we answer by its signer what its CRL and the ledger say, and
// never good of what nobody told us of; nothing is signed for it.
func TestInvariant07AnsweringCA(t *testing.T) {
	f, e, state := answering(t)
	f.run()
	if state.HasKey || state.Issues || state.Count.Revoked != 3 || len(f.ClientAnchors()) != 2 {
		t.Errorf("imported: %+v", state)
	}
	client := e.sign("client", "0x0D", "extendedKeyUsage=clientAuth")
	for serial, want := range map[string]string{"0x0A": "revoked", "0x0B": "revoked", "0x0D": "unknown", "0x70": "good"} {
		if got := f.ocspSays(e, serial); got != want {
			t.Errorf("OCSP of %s: %s, want %s", serial, got, want)
		}
	}
	done, err := f.ImportCertificates(t.Context(), ca.ImportCertificatesRequest{ZoneID: zone, Certificates: e.read("client.pem"), CA: "partner"})
	if err != nil || len(done) != 1 || done[0].Outcome != ca.ImportStored || done[0].Row.Serial != pkix.SerialOf(client.SerialNumber) {
		t.Fatalf("%+v %v", done, err)
	}
	if got := f.ocspSays(e, "0x0D"); got != "good" {
		t.Errorf("after the import: %s", got)
	}
	if _, err := f.CRL(t.Context(), state.ID, 0); !errors.Is(err, ca.ErrNotFound) || !strings.Contains(err.Error(), "key") {
		t.Errorf("CRL: %v", err)
	}
	if _, err := f.Issue(t.Context(), ca.IssueRequest{CA: "partner", Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 1}); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("issue: %v", err)
	}
	id := done[0].Row.ID
	if _, err := f.Hold(t.Context(), ca.ChangeRequest{ID: id}); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("hold: %v", err)
	}
	f.revoke(id, pkix.KeyCompromise)
	if got := f.ocspSays(e, "0x0D"); got != "revoked" {
		t.Errorf("after our own revocation: %s", got)
	}
	own := f.issue("ours")
	f.hold(own.ID)
	f.reactivate(own.ID)
}

// TestImportCRL: a newer list revokes what it has and gives back the holds that it does not have; what is final stays, an
// older list changes nothing.
func TestImportCRL(t *testing.T) {
	told := map[string]ca.Status{}
	f, e, _ := answering(t, config(func(c *ca.Config) { c.OnChange = func(row ca.Certificate) { told[row.Serial.String()] = row.Status } }))
	clear(told)
	bring := func(list []byte) (ca.ImportCRLResult, error) {
		return f.ImportCRL(t.Context(), ca.ImportCRLRequest{CA: "partner", ZoneID: zone, CRL: list})
	}
	for name, list := range map[string][]byte{"the same": e.read("ca.crl"), "an older one": e.crl("0F", revokedLine("0D", "superseded"))} {
		if _, err := bring(list); !errors.Is(err, ca.ErrConflict) || !strings.Contains(err.Error(), "not newer") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := bring(newElsewhere(t, ecKey(), caExtensions).crl("20")); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("of another CA: %v", err)
	}
	if _, err := f.ImportCRL(t.Context(), ca.ImportCRLRequest{CA: "issuing", CRL: e.read("ca.crl")}); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("for our own CA: %v", err)
	}
	if len(told) > 0 {
		t.Errorf("refused lists changed %v", told)
	}
	// 0A is left out: revoked for good all the same. 0B is left out: its hold ends. 0D is new.
	newest := e.crl("11", revokedLine("0C", "keyCompromise"), revokedLine("0D", "affiliationChanged"))
	f.failAt("before-commit")
	if _, err := bring(newest); err == nil {
		t.Fatal("no error")
	}
	f.fault.Store(nil)
	r, err := bring(newest)
	if err != nil || r.Revoked != 1 || r.Reactivated != 1 || r.Entries != 2 || r.List.Number != "17" {
		t.Fatalf("%+v %v", r, err)
	}
	if told["0d"] != ca.Revoked || told["0b"] != ca.Active {
		t.Errorf("told %v", told)
	}
	for serial, want := range map[string]string{"0x0A": "revoked", "0x0B": "good", "0x0C": "revoked", "0x0D": "revoked", "0x0E": "unknown"} {
		if got := f.ocspSays(e, serial); got != want {
			t.Errorf("OCSP of %s: %s, want %s", serial, got, want)
		}
	}
	// A hold that becomes final.
	for number, reason := range []string{"certificateHold", "superseded"} {
		if r, err := bring(e.crl([]string{"12", "13"}[number], revokedLine("0B", reason))); err != nil || r.Revoked != 1 || r.Reactivated != 0 {
			t.Errorf("%s: %+v %v", reason, r, err)
		}
	}
	if r, err := bring(e.crl("14")); err != nil || r.Reactivated != 0 {
		t.Errorf("an empty list gave back what is final: %+v %v", r, err)
	}
	f.reopen()
	if _, err := bring(e.read("ca.crl")); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("after a restart the list is new again: %v", err)
	}
}

// TestGivenSigner: a signer that ends is logged and counted ten days ahead; when it has ended there is no answer until there
// is another one.
func TestGivenSigner(t *testing.T) {
	var logs bytes.Buffer
	f, e, state := answering(t, config(func(c *ca.Config) { c.Logger = slog.New(slog.NewTextHandler(&logs, nil)) }))
	f.clock.Store(int64(354 * 24 * time.Hour))
	if n := f.Metrics().OCSPSignersEnding; n != 0 {
		t.Errorf("%d signers end in eleven days", n)
	}
	f.clock.Add(int64(2 * 24 * time.Hour))
	request := pkix.OCSPRequest{Certs: []pkix.OCSPCertID{pkix.NewOCSPCertID(5, state.Cert, pkix.SerialFromBytes([]byte{0x0a}))}}.Marshal()
	for range 3 {
		if answer, err := f.AnswerOCSP(t.Context(), append([]byte{}, request...)); err != nil || answer.Status != "revoked" {
			t.Errorf("%s %v", answer.Status, err)
		}
	}
	if n, said := f.Metrics().OCSPSignersEnding, strings.Count(logs.String(), "ends soon"); n != 1 || said != 1 {
		t.Errorf("%d counted, logged %d times", n, said)
	}
	f.clock.Add(int64(12 * 24 * time.Hour))
	answer, err := f.AnswerOCSP(t.Context(), request)
	if err == nil || answer.Status != "internalError" || !bytes.Equal(answer.DER, pkix.OCSPErrorResponse(pkix.OCSPInternalError)) {
		t.Errorf("after its end: %s %v", answer.Status, err)
	}
	if _, err := f.SetSigner(t.Context(), ca.SignerRequest{CA: "partner"}); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("a signer of our own for a key that is elsewhere: %v", err)
	}
	if _, err := f.SetSigner(t.Context(), ca.SignerRequest{CA: "partner", Certificate: e.read("ocsp.pem"), Key: e.read("ocsp.key")}); err == nil || !strings.Contains(err.Error(), "ended at") {
		t.Errorf("the one that has ended: %v", err)
	}
	f.clock.Store(0)
	e.sign("next", "0x71", "extendedKeyUsage=OCSPSigning")
	if _, err := f.SetSigner(t.Context(), ca.SignerRequest{CA: "partner", Certificate: e.read("next.pem"), Key: e.read("next.key")}); err != nil {
		t.Fatal(err)
	}
	out := wants(t, []string{"revoked"}, "openssl", "ocsp", "-issuer", e.path("ca.pem"), "-serial", "0x0A", "-url", f.OCSPURL(), "-CAfile", e.path("ca.pem"), "-resp_text")
	if !strings.Contains(strings.ReplaceAll(out, " = ", "="), "Subject: O=Elsewhere, CN=next") {
		t.Errorf("another signer answers:\n%s", out)
	}
}

// TestGivenSignerOfAKeyThatIsHere: it is used instead of one of our own making, and taken away again.
func TestGivenSignerOfAKeyThatIsHere(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	e.sign("ocsp", "0x70", "extendedKeyUsage=OCSPSigning")
	req := e.request()
	req.SignerCertificate, req.SignerKey, req.Name = e.read("ocsp.pem"), e.read("ocsp.key"), "here"
	f.importCA(req)
	for _, want := range []string{"Subject: O=Elsewhere, CN=ocsp", "Subject: CN=sekisho OCSP responder"} {
		out := wants(t, []string{"0x01: unknown", "Response verify OK"}, "openssl", "ocsp", "-issuer", e.path("ca.pem"), "-serial", "0x01", "-url", f.OCSPURL(), "-CAfile", e.path("ca.pem"), "-resp_text")
		if !strings.Contains(strings.ReplaceAll(out, " = ", "="), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
		if _, err := f.SetSigner(t.Context(), ca.SignerRequest{CA: "here"}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImportCertificates: those of an imported CA become rows that can be held and revoked; what is known is said to be.
func TestImportCertificates(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	req := e.request()
	req.Name, req.CRL = "legacy", e.crl("01", revokedLine("0B", "certificateHold"), revokedLine("0C", "keyCompromise"))
	f.importCA(req)
	for name, serial := range map[string]string{"a": "0x0A", "b": "0x0B", "c": "0x0C"} {
		e.sign(name, serial, "extendedKeyUsage=clientAuth")
	}
	bring := func(bundle ...[]byte) ([]ca.Imported, error) {
		return f.ImportCertificates(t.Context(), ca.ImportCertificatesRequest{ZoneID: zone, Certificates: bytes.Join(bundle, nil)})
	}
	all := [][]byte{e.read("a.pem"), e.read("b.pem"), e.read("c.pem"), e.read("a.pem")}
	done, err := bring(all...)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []ca.ImportOutcome{ca.ImportStored, ca.ImportCompleted, ca.ImportCompleted, ca.ImportKnown} {
		if done[i].Outcome != want || len(done[i].Row.DER) == 0 {
			t.Errorf("certificate %d: %s, want %s", i+1, done[i].Outcome, want)
		}
	}
	if !done[1].Row.OnHold() || done[2].Row.Reason != pkix.KeyCompromise {
		t.Error("the state of a row changed with its certificate")
	}
	f.reactivate(done[1].Row.ID)
	f.revoke(done[0].Row.ID, pkix.Superseded)
	rows, total, err := f.Certificates(t.Context(), ca.Filter{ZoneID: zone, Profile: ca.ProfileClient})
	if err != nil || total != 3 || len(rows) != 3 {
		t.Errorf("%d of %d rows, %v", len(rows), total, err)
	}
	// The key of c is known now, and blocked: another certificate of it comes in revoked.
	e.write("c2.ext", "extendedKeyUsage=clientAuth")
	e.run("x509", "-req", "-in", e.path("c.csr"), "-CA", e.path("ca.pem"), "-CAkey", e.path("ca.key"), "-set_serial", "0x0E", "-extfile", e.path("c2.ext"), "-out", e.path("c2.pem"))
	if done, err := bring(e.read("c2.pem")); err != nil || done[0].Outcome != ca.ImportBlocked || done[0].Row.Status != ca.Revoked {
		t.Errorf("a certificate of a blocked key: %+v %v", done, err)
	}
	before := f.inventory()
	e.sign("clash", "0x0A", "extendedKeyUsage=clientAuth")
	e.sign("sub", "0x20", caExtensions)
	other := newElsewhere(t, ecKey(), caExtensions)
	other.sign("x", "0x0A", "extendedKeyUsage=clientAuth")
	e.sign("good", "0x21", "extendedKeyUsage=clientAuth")
	if _, err := bring(e.read("good.pem"), e.read("clash.pem")); !errors.Is(err, ca.ErrConflict) || !strings.Contains(err.Error(), "serial 0a") {
		t.Errorf("a serial number that another certificate has: %v", err)
	}
	for name, bundle := range map[string][]byte{
		"certificate 2 of 2": append(e.read("good.pem"), other.read("x.pem")...), "it is a CA": e.read("sub.pem"), "no PEM block": []byte("x"),
		"this is a private key": e.read("ca.key"),
	} {
		if _, err := bring(bundle); !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want one about %q", err, name)
		}
	}
	if _, err := f.ImportCertificates(t.Context(), ca.ImportCertificatesRequest{CA: "issuing", Certificates: e.read("good.pem")}); !errors.Is(err, ca.ErrInvalid) {
		t.Errorf("the wrong CA: %v", err)
	}
	if after := f.inventory(); after != before {
		t.Errorf("%s, before %s", after, before)
	}
}

// TestImportCertificatesBound: one certificate more than an import takes is refused with the bound, and nothing is stored;
// as many as it takes are.
func TestImportCertificatesBound(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	made := testpki.NewCA(t)
	key, err := pkix.EncodePrivateKey(made.Key)
	if err != nil {
		t.Fatal(err)
	}
	f.importCA(ca.ImportRequest{Certificate: made.PEM, Key: key})
	shared := made.Client("shared")
	bundle := make([][]byte, ca.MaxImportCertificates+1)
	for i := range bundle {
		bundle[i] = pkix.EncodeCertificate(made.Client("many", testpki.Key(shared.Key)).Cert.Raw)
	}
	bring := func(bundle [][]byte) ([]ca.Imported, error) {
		return f.ImportCertificates(t.Context(), ca.ImportCertificatesRequest{ZoneID: zone, Certificates: bytes.Join(bundle, nil)})
	}
	before := f.inventory()
	if _, err := bring(bundle); !errors.Is(err, ca.ErrInvalid) || !strings.Contains(err.Error(), "1001 certificates; one import takes at most 1000") {
		t.Errorf("one too many: %v", err)
	}
	if after := f.inventory(); after != before {
		t.Errorf("%s, before %s", after, before)
	}
	if done, err := bring(bundle[1:]); err != nil || len(done) != ca.MaxImportCertificates {
		t.Errorf("%d imported, %v", len(done), err)
	}
}

// TestRevokedCA: a CA of ours that the CA above it has revoked is revoked in OCSP too.
func TestRevokedCA(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	sub := e.sub(newElsewhere(t, ecKey(), caExtensions), "sub", caExtensions).request()
	sub.Name = "sub"
	f.importCA(sub)
	req := e.request()
	req.Name, req.CRL = "above", e.crl("10", revokedLine("4D", "keyCompromise"))
	f.importCA(req)
	if got := f.ocspSays(e, "0x4D"); got != "revoked" {
		t.Errorf("OCSP of the CA that is revoked: %s", got)
	}
	if n := len(f.ClientAnchors()); n != 2 { // the one in force and "above"
		t.Errorf("clients of %d CAs are let in, those of the revoked one among them", n)
	}
	_, _, err := f.IssueWithKey(t.Context(), ca.IssueRequest{
		ZoneID: zone, CA: "sub", Profile: ca.ProfileClient, Subject: "CN=x", ValidDays: 1, Actor: "test",
	}, pkix.ECDSAP256)
	if err == nil || !strings.Contains(err.Error(), "sub is revoked by the CA above it") {
		t.Errorf("issuing by it: %v", err)
	}
}

// TestListThatBreaksOff: a CA that a list revokes in the part that is stored issues no more, whatever becomes of the rest,
// and when who brought the list has gone meanwhile.
func TestListThatBreaksOff(t *testing.T) {
	for _, broken := range []string{"disk", "caller"} {
		t.Run(broken, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var commits atomic.Int64
			f, e, _ := answering(t, config(func(c *ca.Config) {
				c.OnChange = func(row ca.Certificate) {
					if broken == "caller" && row.Serial.String() == "4d" {
						cancel()
					}
				}
			}))
			sub := e.sub(newElsewhere(t, ecKey(), caExtensions), "sub", caExtensions).request()
			sub.Name = "sub"
			f.importCA(sub)
			before := len(f.ClientAnchors())
			fault := func(point string) error {
				if point == "before-commit" && commits.Add(1) == 2 {
					return syscall.EIO
				}
				return nil
			}
			if broken == "disk" {
				f.fault.Store(&fault)
			}
			lines := []string{revokedLine("4D", "keyCompromise")}
			for n := range 1000 { // so that there are two parts
				lines = append(lines, revokedLine(fmt.Sprintf("%X", 0x100000+n), "superseded"))
			}
			list := e.crl("11", lines...)
			if _, err := f.ImportCRL(ctx, ca.ImportCRLRequest{CA: "partner", CRL: list}); (err != nil) != (broken == "disk") {
				t.Errorf("import: %v", err)
			}
			cancel()
			if n := len(f.ClientAnchors()); n != before-1 {
				t.Errorf("clients of %d CAs are let in, want %d", n, before-1)
			}
		})
	}
}

// TestHeldCAComesBack: the clients of a CA that the CA above it has on hold are let in again when the hold ends.
func TestHeldCAComesBack(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	e := newElsewhere(t, ecKey(), caExtensions)
	sub := e.sub(newElsewhere(t, ecKey(), caExtensions), "sub", caExtensions).request()
	sub.Name = "sub"
	f.importCA(sub)
	req := e.request()
	req.Name, req.CRL = "above", e.crl("10", revokedLine("4D", "certificateHold"))
	f.importCA(req)
	if n := len(f.ClientAnchors()); n != 2 {
		t.Fatalf("on hold: clients of %d CAs are let in, want 2", n)
	}
	held, _, err := f.Certificates(t.Context(), ca.Filter{OnHold: true})
	if err != nil || len(held) != 1 {
		t.Fatalf("%d on hold, %v", len(held), err)
	}
	if _, err := f.Reactivate(t.Context(), ca.ChangeRequest{ID: held[0].ID, Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	if n := len(f.ClientAnchors()); n != 3 {
		t.Errorf("reactivated: clients of %d CAs are let in, want 3", n)
	}
	f.failAt("after-commit") // it is stored all the same
	if _, err := f.Hold(t.Context(), ca.ChangeRequest{ID: held[0].ID, Actor: "test"}); err == nil {
		t.Fatal("no error")
	}
	f.fault.Store(nil)
	if n := len(f.ClientAnchors()); n != 2 {
		t.Errorf("on hold with an error: clients of %d CAs are let in, want 2", n)
	}
}

// TestCompromisedKeyIsKnownLater: who has the key of a certificate that only a CRL called compromised is revoked, and the
// edge told, when the certificate comes or when the CRL comes after it; also where the commit fails on its way back.
func TestCompromisedKeyIsKnownLater(t *testing.T) {
	for _, point := range []string{"", "after-commit"} {
		for _, first := range []string{"list", "certificate"} {
			t.Run(first+" first "+point, func(t *testing.T) {
				told := map[string]ca.Status{}
				f, e, _ := answering(t, config(func(c *ca.Config) { c.OnChange = func(row ca.Certificate) { told[row.Serial.String()] = row.Status } }))
				e.sign("one", "0x0D", "extendedKeyUsage=clientAuth")
				e.run("x509", "-req", "-in", e.path("one.csr"), "-CA", e.path("ca.pem"), "-CAkey", e.path("ca.key"), "-set_serial", "0x0E",
					"-days", "365", "-extfile", e.path("one.ext"), "-out", e.path("two.pem"))
				bring := func(name string) error {
					_, err := f.ImportCertificates(t.Context(), ca.ImportCertificatesRequest{ZoneID: zone, Certificates: e.read(name)})
					return err
				}
				list := func() error {
					_, err := f.ImportCRL(t.Context(), ca.ImportCRLRequest{CA: "partner", CRL: e.crl("11", revokedLine("0D", "keyCompromise"))})
					return err
				}
				steps := []func() error{func() error { return bring("two.pem") }, list, func() error { return bring("one.pem") }}
				if first == "certificate" {
					steps[1], steps[2] = steps[2], steps[1]
				}
				for i, step := range steps {
					if i == 2 {
						f.failAt(point)
					}
					if err := step(); (err != nil) != (i == 2 && point != "") {
						t.Fatalf("step %d: %v", i+1, err)
					}
				}
				f.fault.Store(nil)
				if told["0d"] != ca.Revoked || told["0e"] != ca.Revoked {
					t.Errorf("told %v", told)
				}
				if got := f.ocspSays(e, "0x0E"); got != "revoked" {
					t.Errorf("OCSP of the other certificate of the key: %s", got)
				}
			})
		}
	}
}

// TestListedTwice: a list that has a serial number twice, for good and on hold, revokes for good.
func TestListedTwice(t *testing.T) {
	f, e, _ := answering(t)
	issuer, err := pkix.ParseCertificate(e.read("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := keystore.ParseKey(e.read("ca.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(reason pkix.Reason) x509.RevocationListEntry {
		return x509.RevocationListEntry{SerialNumber: big.NewInt(0x0D), RevocationTime: time.Unix(1e9, 0), ReasonCode: int(reason)}
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(100), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{entry(pkix.KeyCompromise), entry(pkix.CertificateHold)},
	}, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	bring := func(list []byte) ca.ImportCRLResult {
		r, err := f.ImportCRL(t.Context(), ca.ImportCRLRequest{CA: "partner", CRL: list})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := bring(der); r.Entries != 1 || r.Revoked != 1 {
		t.Errorf("%+v", r)
	}
	bring(e.crl("65"))
	if got := f.ocspSays(e, "0x0D"); got != "revoked" {
		t.Errorf("when the list has it no more: %s", got)
	}
}

// TestRevokedSigner: an OCSP signer that the CA has revoked signs no more.
func TestRevokedSigner(t *testing.T) {
	f, e, _ := answering(t)
	issuer, err := pkix.ParseCertificate(e.read("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(serial byte) (ca.OCSPAnswer, error) {
		id := pkix.NewOCSPCertID(crypto.SHA256, issuer, pkix.SerialFromBytes([]byte{serial}))
		return f.AnswerOCSP(t.Context(), pkix.OCSPRequest{Certs: []pkix.OCSPCertID{id}}.Marshal())
	}
	if answer, err := ask(0x0A); err != nil || !answer.Cacheable {
		t.Fatalf("before: %s, %v", answer.Status, err)
	}
	list := e.crl("11", revokedLine("0A", "superseded"), revokedLine("70", "keyCompromise"))
	if _, err := f.ImportCRL(t.Context(), ca.ImportCRLRequest{CA: "partner", ZoneID: zone, CRL: list}); err != nil {
		t.Fatal(err)
	}
	for _, serial := range []byte{0x70, 0x0A} { // the second was asked for before
		if answer, err := ask(serial); answer.Status != "internalError" || err == nil || !strings.Contains(err.Error(), "revoked since") {
			t.Errorf("an answer by it: %s, %v", answer.Status, err)
		}
	}
}

// TestRevokedDelegate: a signer of our own making that is revoked signs no more, and what it signed is given no more.
func TestRevokedDelegate(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	f.run()
	row := f.issue("x")
	f.askGood(row)
	before := f.delegate(row)
	delegate, err := f.store.CertificateByID(t.Context(), pkix.CertID{Issuer: row.IssuerKey, Serial: pkix.SerialOf(before.SerialNumber)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Revoke(t.Context(), ca.RevokeRequest{ID: delegate.ID, Actor: "test", Reason: pkix.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	r, err := pkix.ParseOCSPResponse(f.ask(row).DER)
	if err != nil || len(r.Certificates) != 1 || r.Certificates[0].Equal(before) || f.delegate(row).Equal(before) {
		t.Errorf("the signer that is revoked still signs, or what it signed is given, %v", err)
	}
}

// TestRevokedDelegateOfBefore: what a signer of our own making has signed is given no more when it is revoked, also where
// another signs by now.
func TestRevokedDelegateOfBefore(t *testing.T) {
	f := newCA(t, pkix.ECDSAP256)
	row, other := f.issue("x"), f.issue("y")
	before := f.delegate(other)
	f.clock.Add(int64(before.NotAfter.AddDate(0, 0, -10).Add(-5 * time.Minute).Sub(f.cfg.Now())))
	f.askGood(row)
	f.clock.Add(int64(10 * time.Minute)) // another is due, and the answer not half over
	if f.delegate(other).Equal(before) {
		t.Fatal("no other signer")
	}
	old, err := f.store.CertificateByID(t.Context(), pkix.CertID{Issuer: row.IssuerKey, Serial: pkix.SerialOf(before.SerialNumber)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Revoke(t.Context(), ca.RevokeRequest{ID: old.ID, Actor: "test", Reason: pkix.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	r, err := pkix.ParseOCSPResponse(f.ask(row).DER)
	if err != nil || len(r.Certificates) != 1 || r.Certificates[0].Equal(before) {
		t.Errorf("what the signer that is revoked has signed is given, %v", err)
	}
}

// TestSignerChangesMeanwhile: an answer that the signer before was making when another came in force is given to nobody
// after that, also where it came in force with an error.
func TestSignerChangesMeanwhile(t *testing.T) {
	for _, point := range []string{"", "after-commit"} {
		t.Run("fails at "+point, func(t *testing.T) {
			var meanwhile func()
			f, e, _ := answering(t, config(func(c *ca.Config) {
				c.Now = func() time.Time {
					if do := meanwhile; do != nil {
						meanwhile = nil
						do()
					}
					return time.Now()
				}
			}))
			e.sign("next", "0x71", "extendedKeyUsage=OCSPSigning")
			issuer, err := pkix.ParseCertificate(e.read("ca.pem"))
			if err != nil {
				t.Fatal(err)
			}
			signerOf := func(serial byte) pkix.Serial {
				id := pkix.NewOCSPCertID(crypto.SHA256, issuer, pkix.SerialFromBytes([]byte{serial}))
				answer, err := f.AnswerOCSP(t.Context(), pkix.OCSPRequest{Certs: []pkix.OCSPCertID{id}}.Marshal())
				if err != nil {
					t.Fatal(err)
				}
				r, err := pkix.ParseOCSPResponse(answer.DER)
				if err != nil || len(r.Certificates) != 1 {
					t.Fatalf("%v, or no signer", err)
				}
				return pkix.SerialOf(r.Certificates[0].SerialNumber)
			}
			if got := signerOf(0x0A); got.String() != "70" {
				t.Fatalf("before: signed by %s", got)
			}
			meanwhile = func() {
				f.failAt(point)
				_, err := f.SetSigner(t.Context(), ca.SignerRequest{CA: "partner", Certificate: e.read("next.pem"), Key: e.read("next.key")})
				f.fault.Store(nil)
				if (err != nil) != (point != "") {
					t.Errorf("other signer: %v", err)
				}
			}
			signerOf(0x0B)
			for _, serial := range []byte{0x0A, 0x0B} {
				if got := signerOf(serial); got.String() != "71" {
					t.Errorf("%x: signed by %s, want 71", serial, got)
				}
			}
		})
	}
}
