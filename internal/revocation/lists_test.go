package revocation

import (
	"crypto"
	"crypto/x509"
	x509pkix "crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/http"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
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
