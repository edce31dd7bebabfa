package revocation

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/crlset"
	"sekisho/internal/outbound"
	"sekisho/internal/pkix"
	"sekisho/internal/revocation/crl"
	"sekisho/internal/revocation/ocsp"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// sourceWorld is a checker with every source, and a server whose answers the test writes.
type sourceWorld struct {
	t       *testing.T
	url     string
	handle  map[string]http.HandlerFunc // by path
	checker *Checker
	sets    *SetKeeper
	lists   *crl.Keeper
	changes atomic.Int64
}

func newSourceWorld(t *testing.T) *sourceWorld {
	w := &sourceWorld{t: t, handle: make(map[string]http.HandlerFunc)}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if h := w.handle["/"+first]; h != nil {
			h(rw, r)
			return
		}
		http.NotFound(rw, r)
	}))
	w.url = server.URL
	client := outbound.New(outbound.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	quiet := slog.New(slog.DiscardHandler)
	changed := func(issuers []pkix.KeyID) { w.checker.Changed(issuers) }
	w.lists = crl.NewKeeper(crl.KeeperConfig{Client: client, Logger: quiet, OnChange: changed})
	w.sets = NewSetKeeper(SetKeeperConfig{HTTP: client, Logger: quiet, OnChange: changed})
	responders := ocsp.New(ocsp.Config{HTTP: client, Logger: quiet, Revoked: func(d, i *x509.Certificate) bool { return w.checker.KnownRevoked(d, i) }})
	w.checker = NewChecker(CheckerConfig{
		Lists: w.lists, OCSP: responders, Sets: w.sets, Logger: quiet, OnChange: func([]pkix.KeyID) { w.changes.Add(1) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.checker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		w.lists.Close()
		client.Close()
		server.Close()
	})
	return w
}

// list signs a CRL of a CA that revokes the leaves.
func list(t *testing.T, ca *testpki.CA, number int64, revoked ...testpki.Leaf) []byte {
	t.Helper()
	var entries []byte
	for _, l := range revoked {
		entries = pkix.AppendCRLEntry(entries, pkix.CRLEntry{Serial: pkix.SerialOf(l.Cert.SerialNumber), At: time.Now()})
	}
	der, err := pkix.SignCRL(pkix.CRLTemplate{
		Issuer: ca.Cert, Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
	}, entries, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// answering is an OCSP responder that gives one status, signed by a CA or a delegate of it.
func answering(t *testing.T, signer *testpki.CA, delegate *testpki.Leaf, status pkix.OCSPStatus) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		asked, err := pkix.ParseOCSPRequest(body)
		if err != nil {
			t.Error(err)
			return
		}
		now := time.Now()
		template := pkix.OCSPTemplate{Responder: signer.Cert, ProducedAt: now, Nonce: asked.Nonce, Responses: []pkix.OCSPSingle{{
			ID: asked.Certs[0], Status: status, RevokedAt: now, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
		}}}
		key := signer.Key
		if delegate != nil {
			template.Responder, template.Include, key = delegate.Cert, []*x509.Certificate{delegate.Cert}, delegate.Key
		}
		der, err := pkix.SignOCSP(template, key)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(der)
	}
}

// longURL makes the client use POST, so that the responder above need not read paths.
func (w *sourceWorld) ocspURL() string { return w.url + "/ocsp/" + strings.Repeat("x", 250) }

func (w *sourceWorld) resolve(ca *testpki.CA, leaf testpki.Leaf, p trust.Policy) Verdict {
	return w.checker.Resolve(w.t.Context(), []*x509.Certificate{leaf.Cert, ca.Cert}, caOf(ca, p))
}

func caOf(ca *testpki.CA, p trust.Policy) *trust.CA {
	return &trust.CA{ID: "ca", Name: "ca", Anchors: []*x509.Certificate{ca.Cert}, Policy: p}
}

func points(urls ...string) testpki.Option {
	return testpki.Edit(func(c *x509.Certificate) { c.CRLDistributionPoints = urls })
}

// A certificate that names a source of which nothing comes is never taken for one that names none.
func TestNamedSourceWithoutAnswerIsUnknown(t *testing.T) {
	w := newSourceWorld(t)
	root := testpki.NewCA(t, testpki.Name("root"))
	issuing := root.Intermediate("issuing")
	w.handle["/root.crl"] = func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(list(t, root, 1)) }
	for name, url := range map[string]string{
		"LDAP alone": "ldap://directory/cn=x?certificateRevocationList", "not there": w.url + "/none.crl",
		"the list of the root in its place": w.url + "/root.crl",
	} {
		leaf := issuing.Client("x", points(url))
		path := []*x509.Certificate{leaf.Cert, issuing.Cert, root.Cert}
		v := w.checker.Resolve(t.Context(), path, caOf(root, trust.Policy{Scope: trust.Leaf}))
		if v.State != Unknown || v.Allows() || v.Pending {
			t.Errorf("%s: %+v", name, v)
		}
	}
	leaf := issuing.Client("plain")
	if v := w.checker.Judge([]*x509.Certificate{leaf.Cert, issuing.Cert, root.Cert}, caOf(root, trust.Policy{}), time.Now()); v.State != Unchecked {
		t.Errorf("no source: %+v", v)
	}
	configured := trust.Policy{CRLs: []string{"/nowhere/list.crl"}}
	if v := w.checker.Judge([]*x509.Certificate{leaf.Cert, issuing.Cert, root.Cert}, caOf(root, configured), time.Now()); v.Allows() {
		t.Errorf("a policy with lists that nobody loaded: %+v", v)
	}
}

// The responder says "revoked" after the list has said "good" and the client was let in: that is noticed.
func TestLateRevokedAnswerCounts(t *testing.T) {
	w := newSourceWorld(t)
	ca := testpki.NewCA(t)
	leaf := ca.Client("x", testpki.Edit(func(c *x509.Certificate) {
		c.CRLDistributionPoints, c.OCSPServer = []string{w.url + "/ca.crl"}, []string{w.ocspURL()}
	}))
	w.handle["/ca.crl"] = func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(list(t, ca, 1)) }
	release := make(chan struct{})
	w.handle["/ocsp"] = func(rw http.ResponseWriter, r *http.Request) {
		<-release
		answering(t, ca, nil, pkix.OCSPRevoked)(rw, r)
	}
	if v := w.resolve(ca, leaf, trust.Policy{}); v.State != Good {
		t.Fatalf("%+v", v)
	}
	before := w.changes.Load()
	epoch := w.checker.Epoch()
	close(release)
	for deadline := time.Now().Add(30 * time.Second); w.changes.Load() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody was told")
		}
	}
	v := w.checker.Judge([]*x509.Certificate{leaf.Cert, ca.Cert}, caOf(ca, trust.Policy{}), time.Now())
	if v.State != Revoked || w.checker.Epoch() == epoch {
		t.Errorf("%+v, epoch %d", v, w.checker.Epoch())
	}
}

// An answer that one CA's policy had asked for counts for another only if that one takes it.
func TestAnswersAreJudgedByEachPolicy(t *testing.T) {
	w := newSourceWorld(t)
	ca := testpki.NewCA(t)
	leaf := ca.Client("x", testpki.Edit(func(c *x509.Certificate) { c.OCSPServer = []string{w.ocspURL()} }))
	w.handle["/ocsp"] = answering(t, ca, nil, pkix.OCSPGood)
	if v := w.resolve(ca, leaf, trust.Policy{}); v.State != Good {
		t.Fatalf("%+v", v)
	}
	path := []*x509.Certificate{leaf.Cert, ca.Cert}
	for name, p := range map[string]trust.Policy{
		"nonce": {OCSPNonce: true}, "algorithm": {DenyAlgorithms: []string{"sha256-ecdsa"}},
	} {
		if v := w.checker.Judge(path, caOf(ca, p), time.Now()); v.State != Unknown || !v.Pending {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := w.resolve(ca, leaf, trust.Policy{OCSPNonce: true}); v.State != Good {
		t.Errorf("asked with a nonce: %+v", v)
	}
}

// A delegated responder that is itself revoked is not believed.
func TestRevokedDelegate(t *testing.T) {
	w := newSourceWorld(t)
	ca := testpki.NewCA(t)
	delegate := ca.Client("responder", testpki.Edit(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }))
	w.handle["/ocsp"] = answering(t, ca, &delegate, pkix.OCSPGood)
	client := func() testpki.Leaf {
		return ca.Client("x", testpki.Edit(func(c *x509.Certificate) { c.OCSPServer = []string{w.ocspURL()} }))
	}
	if v := w.resolve(ca, client(), trust.Policy{}); v.State != Good {
		t.Fatalf("before: %+v", v)
	}
	file := filepath.Join(t.TempDir(), "ca.crl")
	if err := os.WriteFile(file, list(t, ca, 1, delegate), 0o600); err != nil {
		t.Fatal(err)
	}
	w.checker.SetCAs(t.Context(), []trust.CA{*caOf(ca, trust.Policy{CRLs: []string{file}})})
	if v := w.resolve(ca, client(), trust.Policy{Sources: []trust.Source{trust.OCSP}}); v.State != Unknown || v.Allows() {
		t.Errorf("after: %+v", v)
	}
}

// While a new configuration is prepared, the lists of the old one stay in force; they go when it is.
func TestListsStayUntilTheOldCAsAreForgotten(t *testing.T) {
	w := newSourceWorld(t)
	ca := testpki.NewCA(t)
	leaf := ca.Client("x")
	file := filepath.Join(t.TempDir(), "ca.crl")
	if err := os.WriteFile(file, list(t, ca, 1, leaf), 0o600); err != nil {
		t.Fatal(err)
	}
	old := caOf(ca, trust.Policy{CRLs: []string{file}})
	path := []*x509.Certificate{leaf.Cert, ca.Cert}
	w.checker.SetCAs(t.Context(), []trust.CA{*old})
	w.checker.ForgetCAs()
	next := map[string][]trust.CA{"without the CA": nil, "without the list": {*caOf(ca, trust.Policy{})}}
	for name, cas := range next {
		w.checker.SetCAs(t.Context(), cas)
		if v := w.checker.Judge(path, old, time.Now()); v.State != Revoked {
			t.Errorf("%s, while it is prepared: %+v", name, v)
		}
		w.checker.ForgetCAs()
		if n := len(w.lists.Lists("ca")); n != 0 {
			t.Errorf("%s: %d lists are kept", name, n)
		}
		w.checker.SetCAs(t.Context(), []trust.CA{*old})
		w.checker.ForgetCAs()
	}
}

// A CRLSet that could not be used is tried again, also when neither the file nor its time has changed since; and one that
// was broken on its way is not taken for the one in force.
func TestCRLSetIsTriedAgain(t *testing.T) {
	now := time.Now()
	k := NewSetKeeper(SetKeeperConfig{Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)})
	place := filepath.Join(t.TempDir(), "set")
	if err := os.Mkdir(place, 0o700); err != nil { // opens, and cannot be read
		t.Fatal(err)
	}
	stamp := now.Add(-time.Hour)
	if err := os.Chtimes(place, stamp, stamp); err != nil {
		t.Fatal(err)
	}
	policy := trust.Policy{CRLSets: []string{place}}
	k.SetPlaces(t.Context(), []trust.CA{{ID: "ca", Policy: policy}})
	if h := k.at(place); h.err == nil || h.stamp != "" || !h.next.After(now) {
		t.Fatalf("%+v", h)
	}
	header := `{"Version":0,"ContentType":"CRLSet","Sequence":7,"DeltaFrom":0,"NumParents":0,"BlockedSPKIs":[]}`
	raw := append([]byte{byte(len(header)), 0}, header...)
	if err := os.Remove(place); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(place, raw[:20], 0o600); err != nil { // half-written
		t.Fatal(err)
	}
	now = now.Add(setRetry)
	k.refresh(t.Context(), false)
	if h := k.at(place); h.err == nil || h.set != nil {
		t.Fatalf("half a set: %+v", h)
	}
	if err := os.WriteFile(place, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(setRetry)
	k.refresh(t.Context(), false)
	if h := k.at(place); h.err != nil || h.set == nil || h.set.Sequence != 7 {
		t.Fatalf("%+v", h)
	}
	k.SetPlaces(t.Context(), nil)
	if k.at(place) == nil {
		t.Error("forgotten before the new configuration is in force")
	}
	k.Forget()
	if k.at(place) != nil {
		t.Error("kept for nobody")
	}
}

// A CRLSet of a URL that never answers delays no file, what is no file is refused without being opened, and a set that is
// written twice within one tick of the file's clock is read twice.
func TestCRLSetPlacesAreIndependent(t *testing.T) {
	w := newSourceWorld(t)
	w.handle["/hang"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	ca := testpki.NewCA(t)
	one, two := ca.Client("one"), ca.Client("two")
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "set"), filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	put := func(leaf testpki.Leaf) {
		set, err := crlset.New(crlset.Header{Sequence: 1}, map[pkix.KeyID][]pkix.Serial{pkix.KeyIDOf(ca.Cert): {pkix.SerialOf(leaf.Cert.SerialNumber)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, set.Append(nil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(one)
	good := caOf(ca, trust.Policy{CRLSets: []string{file, fifo}})
	bad := trust.CA{ID: "bad", Policy: trust.Policy{CRLSets: []string{w.url + "/hang/1", w.url + "/hang/2"}}}
	first, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	w.checker.SetCAs(first, []trust.CA{*good, bad})
	stop()
	if h := w.sets.at(fifo); h == nil || h.err == nil || !strings.Contains(h.err.Error(), "not a regular file") {
		t.Errorf("a FIFO: %+v", h)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.sets.Run(ctx) }()
	put(two)
	begin := time.Now()
	for w.checker.Judge([]*x509.Certificate{two.Cert, ca.Cert}, good, time.Now()).State != Revoked {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the file was not read again")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the file was read again after %v", took)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
