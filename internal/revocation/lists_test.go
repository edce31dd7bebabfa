package revocation

import (
	"context"
	"crypto"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
	"sekisho/internal/revocation/ocsp"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// A list that a lax policy had fetched is not good for a strict one, and what it revokes is revoked for both.
func TestInvariant06AlgorithmsAreOfEachPolicy(t *testing.T) {
	w := newSourceWorld(t)
	ca := testpki.NewCA(t)
	leaf, revoked := ca.Client("x", points(w.url+"/ca.crl")), ca.Client("y", points(w.url+"/ca.crl"))
	w.handle["/ca.crl"] = func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(list(t, ca, 1, revoked)) }
	strict := trust.Policy{DenyAlgorithms: []string{"sha256-ecdsa"}}
	for _, step := range []struct {
		name   string
		leaf   testpki.Leaf
		policy trust.Policy
		want   State
	}{
		{"lax", leaf, trust.Policy{}, Good},
		{"strict after lax", leaf, strict, Unknown},
		{"strict, revoked", revoked, strict, Revoked},
		{"lax, revoked", revoked, trust.Policy{}, Revoked},
	} {
		if v := w.resolve(ca, step.leaf, step.policy); v.State != step.want {
			t.Errorf("%s: %+v, want %s", step.name, v, step.want)
		}
	}
}

// The one that signs lists for the CA, and names a list of its own, is asked about before its list counts.
func TestSignerOfAListIsResolved(t *testing.T) {
	for _, bad := range []bool{false, true} {
		w := newSourceWorld(t)
		root := testpki.NewCA(t, testpki.Name("root"))
		signer := root.Intermediate("crl signer", points(w.url+"/root.crl"))
		issuing := root.Intermediate("issuing")
		w.handle["/root.crl"] = func(rw http.ResponseWriter, _ *http.Request) {
			if bad {
				_, _ = rw.Write(list(t, root, 1, testpki.Leaf{Cert: signer.Cert}))
				return
			}
			_, _ = rw.Write(list(t, root, 1))
		}
		w.handle["/indirect.crl"] = func(rw http.ResponseWriter, _ *http.Request) {
			der, err := pkix.SignCRL(pkix.CRLTemplate{
				Issuer: signer.Cert, Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour), Indirect: true,
			}, nil, signer.Key)
			if err != nil {
				t.Error(err)
			}
			_, _ = rw.Write(der)
		}
		leaf := issuing.Client("x", testpki.Edit(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pointOfIssuer(w.url+"/indirect.crl", signer.Cert.RawSubject))
		}))
		ca := caOf(root, trust.Policy{Scope: trust.Leaf})
		ca.Intermediates = []*x509.Certificate{issuing.Cert, signer.Cert}
		path := []*x509.Certificate{leaf.Cert, issuing.Cert, root.Cert}
		want := map[bool]State{false: Good, true: Unknown}[bad]
		var v Verdict
		for range 3 { // the list, then the one about its signer
			v = w.checker.Resolve(t.Context(), path, ca)
		}
		if v.State != want {
			_, reports := w.checker.Explain(path, ca, time.Now())
			t.Errorf("signer revoked %v: %+v, want %s\n%+v", bad, v, want, reports)
		}
	}
}

// pointOfIssuer is the extension of one distribution point whose list is by another issuer.
func pointOfIssuer(url string, issuer []byte) x509pkix.Extension {
	group := func(n int) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(group(0), func(b *cryptobyte.Builder) {
				b.AddASN1(group(0), func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
				})
			})
			b.AddASN1(group(2), func(b *cryptobyte.Builder) {
				b.AddASN1(group(4), func(b *cryptobyte.Builder) { b.AddBytes(issuer) })
			})
		})
	})
	return x509pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: b.BytesOrPanic()}
}

// A good answer from before the revocation, which a client has kept, does not take it back, though the responder rounds
// its times and both have the same thisUpdate.
func TestInvariant01KeptStapleDoesNotUnrevoke(t *testing.T) {
	w := newSourceWorld(t)
	ca := testpki.NewCA(t)
	leaf := ca.Client("x", testpki.Edit(func(c *x509.Certificate) { c.OCSPServer = []string{w.ocspURL()} }))
	hour := time.Now().Truncate(time.Minute).Add(-time.Minute)
	answer := func(status pkix.OCSPStatus, produced time.Time) []byte {
		der, err := pkix.SignOCSP(pkix.OCSPTemplate{Responder: ca.Cert, ProducedAt: produced, Responses: []pkix.OCSPSingle{{
			ID:     pkix.NewOCSPCertID(crypto.SHA1, ca.Cert, pkix.SerialOf(leaf.Cert.SerialNumber)),
			Status: status, RevokedAt: hour, Reason: pkix.KeyCompromise, ThisUpdate: hour, NextUpdate: hour.Add(4 * time.Hour),
		}}}, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	kept := answer(pkix.OCSPGood, hour.Add(time.Second))
	w.handle["/ocsp"] = func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write(answer(pkix.OCSPRevoked, hour.Add(30*time.Second)))
	}
	if v := w.resolve(ca, leaf, trust.Policy{}); v.State != Revoked {
		t.Fatalf("asked: %+v", v)
	}
	path, by := []*x509.Certificate{leaf.Cert, ca.Cert}, caOf(ca, trust.Policy{})
	err := w.checker.Offer(path, by, kept)
	if v := w.checker.Judge(path, by, time.Now()); err == nil || v.State != Revoked {
		t.Errorf("after the staple: %v, %+v", err, v)
	}
}

// Lists that cannot speak of a certificate name nobody to ask about it: the work for one client does not grow with them.
func TestInvariant13FetchesDoNotGrowWithLists(t *testing.T) {
	for _, n := range []int{1, 30} {
		w := newSourceWorld(t)
		root := testpki.NewCA(t, testpki.Name("root"))
		dir := t.TempDir()
		ca := caOf(root, trust.Policy{})
		var first *testpki.CA
		for i := range n {
			in := root.Intermediate(fmt.Sprintf("int %d", i), testpki.Edit(func(c *x509.Certificate) { c.OCSPServer = []string{"http://127.0.0.1:1/"} }))
			if i == 0 {
				first = in
			}
			ca.Intermediates = append(ca.Intermediates, in.Cert)
			file := filepath.Join(dir, fmt.Sprint(i))
			if err := os.WriteFile(file, list(t, in, 1), 0o600); err != nil {
				t.Fatal(err)
			}
			ca.Policy.CRLs = append(ca.Policy.CRLs, file)
		}
		w.checker.SetCAs(t.Context(), []trust.CA{*ca})
		leaf := first.Client("x")
		path := []*x509.Certificate{leaf.Cert, first.Cert, root.Cert}
		if fetches := w.checker.due(path, ca); len(fetches) != 1 { // the intermediate's responder
			t.Errorf("%d lists: %d fetches", n, len(fetches))
		}
	}
}

// A client that staples the same answer in each handshake does not put off that its responder is asked.
func TestInvariant01StaplesDoNotPutOffTheResponder(t *testing.T) {
	w := newSourceWorld(t)
	ca := testpki.NewCA(t)
	leaf := ca.Client("x", testpki.Edit(func(c *x509.Certificate) { c.OCSPServer = []string{w.ocspURL()} }))
	hour := time.Now().Truncate(time.Minute).Add(-time.Minute)
	kept, err := pkix.SignOCSP(pkix.OCSPTemplate{Responder: ca.Cert, ProducedAt: hour, Responses: []pkix.OCSPSingle{{
		ID:     pkix.NewOCSPCertID(crypto.SHA1, ca.Cert, pkix.SerialOf(leaf.Cert.SerialNumber)),
		Status: pkix.OCSPGood, ThisUpdate: hour, NextUpdate: hour.Add(7 * 24 * time.Hour),
	}}}, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	path, by := []*x509.Certificate{leaf.Cert, ca.Cert}, caOf(ca, trust.Policy{})
	now := time.Now()
	c := ocsp.New(ocsp.Config{Now: func() time.Time { return now }})
	w.checker.cfg.OCSP = c
	w.checker.cfg.Now = func() time.Time { return now }
	id := pkix.CertIDOf(leaf.Cert, ca.Cert)
	stale := 0
	for range 24 * 15 { // a day, a connection every 4 minutes
		if err := w.checker.Offer(path, by, kept); err != nil {
			t.Fatal(err)
		}
		now = now.Add(4 * time.Minute)
		if staleSoon(c.Cached(id), 0, id, now) {
			stale++
		}
	}
	if stale == 0 {
		t.Error("never asked")
	}
}

// What the operator puts into a file is in force, be it of another CA of the bundle than before.
func TestFileOfAnotherCAIsTaken(t *testing.T) {
	w := newSourceWorld(t)
	root := testpki.NewCA(t, testpki.Name("root"))
	a, b := root.Intermediate("issuing 1"), root.Intermediate("issuing 2")
	file := filepath.Join(t.TempDir(), "partner.crl")
	lb := b.Client("lb")
	if err := os.WriteFile(file, list(t, a, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := caOf(root, trust.Policy{Scope: trust.Leaf, CRLs: []string{file}})
	ca.Intermediates = []*x509.Certificate{a.Cert, b.Cert}
	w.checker.SetCAs(t.Context(), []trust.CA{*ca})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.lists.Run(ctx) }()
	if err := os.WriteFile(file+".n", list(t, b, 7, lb), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".n", file); err != nil {
		t.Fatal(err)
	}
	path := []*x509.Certificate{lb.Cert, b.Cert, root.Cert}
	begin := time.Now()
	for w.checker.Judge(path, ca, time.Now()).State != Revoked {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("a client that the file revokes: %+v, %v", w.checker.Judge(path, ca, time.Now()), w.lists.Lists("ca")[0].Err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
