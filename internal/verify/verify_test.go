package verify

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/identity"
	ourpkix "sekisho/internal/pkix"
	"sekisho/internal/revocation"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

func setOf(t testing.TB, anchors ...*x509.Certificate) *trust.Set {
	t.Helper()
	set, err := trust.NewSet([]trust.CA{{Name: "ca", Anchors: anchors}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func chain(l testpki.Leaf) []*x509.Certificate {
	return append([]*x509.Certificate{l.Cert}, l.Chain...)
}

func TestCheck(t *testing.T) {
	now := time.Now()
	ca, foreign := testpki.NewCA(t), testpki.NewCA(t, testpki.Name("foreign"))
	sub := ca.Intermediate("sub")
	constrained := ca.Intermediate("constrained", testpki.Edit(func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"good.example"}, true
	}))
	named := func(name string) testpki.Option {
		return testpki.Edit(func(c *x509.Certificate) { c.DNSNames = []string{name} })
	}
	critical := testpki.Edit(func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
	})
	keyUsage := func(u x509.KeyUsage) testpki.Option {
		return testpki.Edit(func(c *x509.Certificate) { c.KeyUsage = u })
	}
	short := ca.Intermediate("short", testpki.Edit(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }))
	servers := ca.Intermediate("servers", testpki.Edit(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }))
	old := now.Add(-30 * time.Minute) // after the issuers' notBefore, an hour ago
	cases := []struct {
		name      string
		presented []*x509.Certificate
		reason    identity.Reason
		path      int // certificates
	}{
		{"none", nil, identity.NoCertificate, 0},
		{"plain", chain(ca.Client("x")), identity.OK, 2},
		{"through an intermediate", chain(sub.Client("x")), identity.OK, 3},
		{"intermediate not sent", chain(sub.Client("x"))[:1], identity.Untrusted, 0},
		{"no SAN, no EKU, no KU", chain(ca.Client("x", testpki.NoSAN(), testpki.NoEKU(), testpki.NoKeyUsage())), identity.OK, 2},
		{"X.509 v1", chain(ca.Client("x", testpki.V1())), identity.OK, 2},
		{"wrong usage", chain(ca.Client("x", testpki.WrongEKU())), identity.WrongUsage, 0},
		{"key for encryption alone", chain(ca.Client("x", keyUsage(x509.KeyUsageKeyEncipherment|x509.KeyUsageDataEncipherment))), identity.WrongUsage, 0},
		{"key for certificates alone", chain(ca.Client("x", keyUsage(x509.KeyUsageCertSign|x509.KeyUsageCRLSign))), identity.WrongUsage, 0},
		{"a CA as client", []*x509.Certificate{ca.Intermediate("ca", keyUsage(x509.KeyUsageCertSign)).Cert}, identity.WrongUsage, 0},
		{"key for agreement", chain(ca.Client("x", keyUsage(x509.KeyUsageKeyAgreement))), identity.OK, 2},
		{"path too long", chain(short.Intermediate("below").Client("x")), identity.Untrusted, 0},
		{"intermediate for servers alone", chain(servers.Client("x")), identity.WrongUsage, 0},
		{"expired", chain(ca.Client("x", testpki.NotAfter(old))), identity.Expired, 2},
		{"expired through an intermediate", chain(sub.Client("x", testpki.NotAfter(old))), identity.Expired, 3},
		{"expired and foreign", chain(foreign.Client("x", testpki.NotAfter(old))), identity.Untrusted, 0},
		{"expired intermediate", chain(ca.Intermediate("old", testpki.NotAfter(old)).Client("x")), identity.Expired, 3},
		{"not yet valid", chain(ca.Client("x", testpki.NotBefore(now.Add(time.Hour)))), identity.NotYetValid, 2},
		{"foreign", chain(foreign.Client("x")), identity.Untrusted, 0},
		{"a leaf as issuer", []*x509.Certificate{ca.Client("x").Cert, ca.Client("y").Cert}, identity.OK, 2},
		{"critical extension nobody knows", chain(ca.Client("x", critical)), identity.Malformed, 0},
		{"inside the name constraints", chain(constrained.Client("x", named("a.good.example"))), identity.OK, 3},
		{"outside the name constraints", chain(constrained.Client("x", named("a.bad.example"))), identity.Untrusted, 0},
		{"eleven certificates", slices.Repeat(chain(ca.Client("x")), 11), identity.TooComplex, 0},
	}
	v := New(Config{})
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			for round := range 2 { // the second from the cache, if that is where it is
				id := v.Check(setOf(t, ca.Cert), tc.presented)
				if id.Reason() != tc.reason || len(id.Path()) != tc.path || id.Verified() != (tc.reason == identity.OK) {
					t.Errorf("round %d: reason %q, path of %d, error %v; want %q, %d", round, id.Reason(), len(id.Path()), id.Err(), tc.reason, tc.path)
				}
				if tc.reason != identity.OK && tc.reason != identity.NoCertificate && id.Err() == nil {
					t.Error("no explanation")
				}
			}
			if tc.presented != nil && v.Check(nil, tc.presented).Verified() {
				t.Error("the nil set trusts somebody")
			}
		})
	}
}

// An expired anchor is no anchor, and the identity says expired.
func TestExpiredAnchor(t *testing.T) {
	ca := testpki.NewCA(t, testpki.NotAfter(time.Now().Add(-time.Minute)))
	id := New(Config{}).Check(setOf(t, ca.Cert), chain(ca.Client("x")))
	if id.Reason() != identity.Expired || len(id.Path()) != 2 {
		t.Errorf("%q %v", id.Reason(), id.Err())
	}
}

func TestIntermediateOfTheSet(t *testing.T) {
	ca := testpki.NewCA(t)
	sub := ca.Intermediate("sub")
	set, err := trust.NewSet([]trust.CA{{Name: "ca", Anchors: []*x509.Certificate{ca.Cert}, Intermediates: []*x509.Certificate{sub.Cert}}})
	if err != nil {
		t.Fatal(err)
	}
	if id := New(Config{}).Check(set, chain(sub.Client("x"))[:1]); !id.Verified() {
		t.Errorf("%q %v", id.Reason(), id.Err())
	}
}

func TestRevocationAndRecheck(t *testing.T) {
	ca := testpki.NewCA(t)
	sub := ca.Intermediate("sub")
	leaf := sub.Client("x")
	index := revocation.NewIndex()
	v := New(Config{Revocation: revocation.NewChecker(revocation.CheckerConfig{Index: index})})
	set := setOf(t, ca.Cert)
	id := v.Check(set, chain(leaf))
	if !id.Verified() {
		t.Fatal(id.Err())
	}
	for name, cert := range map[string]ourpkix.CertID{
		"leaf": ourpkix.CertIDOf(leaf.Cert, sub.Cert), "intermediate": ourpkix.CertIDOf(sub.Cert, ca.Cert),
	} {
		e := revocation.Entry{ID: cert, Reason: ourpkix.CertificateHold, At: time.Now()}
		index.Apply(revocation.Change{Entry: e, Revoked: true})
		for _, id := range []identity.Identity{v.Check(set, chain(leaf)), v.Recheck(set, id), v.Recheck(set, v.Recheck(set, id))} {
			if id.Reason() != identity.Revoked || id.Err() == nil || !strings.Contains(id.Err().Error(), "certificateHold") {
				t.Errorf("%s: %q %v", name, id.Reason(), id.Err())
			}
			if got, ok := id.CertID(); !ok || got != ourpkix.CertIDOf(leaf.Cert, sub.Cert) {
				t.Errorf("%s: named %v %v", name, got, ok)
			}
		}
		refused := v.Recheck(set, id)
		index.Apply(revocation.Change{Entry: e})
		if got := v.Recheck(set, refused); !got.Verified() {
			t.Errorf("%s: after reactivation %q", name, got.Reason())
		}
	}
	if id := v.Recheck(set, identity.Identity{}); id.Reason() != identity.NoCertificate {
		t.Errorf("anonymous became %q", id.Reason())
	}
}

// An intermediate CA that two roots certify is good as long as one of its certificates is, whether the path was found
// before or not; the leaf's own revocation counts on every path.
func TestOtherPathWhenAnIssuerIsRevoked(t *testing.T) {
	one, two := testpki.NewCA(t, testpki.Name("one")), testpki.NewCA(t, testpki.Name("two"))
	sub := one.Intermediate("sub")
	cross := two.Intermediate("sub", testpki.Key(sub.Key))
	leaf := sub.Client("x")
	presented := []*x509.Certificate{leaf.Cert, sub.Cert, cross.Cert}
	ids := map[string]ourpkix.CertID{"sub": ourpkix.CertIDOf(sub.Cert, one.Cert), "cross": ourpkix.CertIDOf(cross.Cert, two.Cert), "leaf": ourpkix.CertIDOf(leaf.Cert, sub.Cert)}
	for _, size := range []int{0, -1} {
		for _, tc := range []struct {
			revoked []string
			reason  identity.Reason
		}{
			{nil, identity.OK},
			{[]string{"sub"}, identity.OK},
			{[]string{"cross"}, identity.OK},
			{[]string{"sub", "cross"}, identity.Revoked},
			{[]string{"leaf"}, identity.Revoked},
		} {
			index := revocation.NewIndex()
			v := New(Config{Revocation: revocation.NewChecker(revocation.CheckerConfig{Index: index}), CacheSize: size})
			set := setOf(t, one.Cert, two.Cert)
			for range 3 { // before, and twice after
				if id := v.Check(set, presented); len(id.Path()) != 3 || id.Reason() != identity.OK && id.Reason() != tc.reason {
					t.Errorf("%v revoked, cache %d: %q", tc.revoked, size, id.Reason())
				}
				for _, name := range tc.revoked {
					index.Apply(revocation.Change{Entry: revocation.Entry{ID: ids[name]}, Revoked: true})
				}
			}
			if id := v.Check(set, presented); id.Reason() != tc.reason {
				t.Errorf("%v revoked, cache %d: %q %v, want %q", tc.revoked, size, id.Reason(), id.Err(), tc.reason)
			}
		}
	}
}

// A full path cache costs a few hundred bytes an entry, also for large certificates.
func TestCacheIsSmall(t *testing.T) {
	ca := testpki.NewCA(t)
	set := setOf(t, ca.Cert)
	big := testpki.Edit(func(c *x509.Certificate) { c.OCSPServer = []string{"http://" + strings.Repeat("a", 4000) + ".example"} })
	const entries = 2048
	v := New(Config{CacheSize: entries})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for range entries {
		if !v.Check(set, chain(ca.Client("x", big))).Verified() {
			t.Fatal("not verified")
		}
	}
	each := int64(heap()-before) / entries
	t.Logf("%d bytes an entry", each)
	if each > 400 {
		t.Errorf("%d bytes an entry", each)
	}
	runtime.KeepAlive(v)
}

// The cache does not carry a path past its end, from one set to another, or from one certificate to another.
func TestCacheIsJudgedAgain(t *testing.T) {
	now := time.Now()
	clock := now
	v := New(Config{Now: func() time.Time { return clock }})
	ca, other := testpki.NewCA(t), testpki.NewCA(t)
	leaf := ca.Client("x", testpki.NotAfter(now.Add(time.Hour)))
	set := setOf(t, ca.Cert)
	if !v.Check(set, chain(leaf)).Verified() {
		t.Fatal("not verified")
	}
	if id := v.Check(setOf(t, other.Cert), chain(leaf)); id.Verified() {
		t.Error("verified under another set")
	}
	if id := v.Check(set, []*x509.Certificate{other.Client("x").Cert, leaf.Cert}); id.Verified() {
		t.Error("another leaf verified")
	}
	clock = now.Add(2 * time.Hour)
	if id := v.Check(set, chain(leaf)); id.Reason() != identity.Expired {
		t.Errorf("after its end: %q", id.Reason())
	}
	clock = now
	if id := v.Check(set, chain(leaf)); !id.Verified() {
		t.Errorf("inside again: %q", id.Reason())
	}
}

func TestCacheIsBounded(t *testing.T) {
	ca := testpki.NewCA(t)
	v := New(Config{CacheSize: 32})
	set := setOf(t, ca.Cert)
	var leaves []testpki.Leaf
	for n := range 100 {
		leaves = append(leaves, ca.Client("x", testpki.Serial(big.NewInt(int64(n+1)))))
	}
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for _, l := range leaves {
				if id := v.Check(set, chain(l)); !id.Verified() || id.Leaf().SerialNumber.Cmp(l.Cert.SerialNumber) != 0 {
					t.Errorf("wrong identity for serial %v", l.Cert.SerialNumber)
				}
			}
		})
	}
	work.Wait()
	total := 0
	for i := range v.cache.shards {
		s := &v.cache.shards[i]
		if len(s.index) != len(s.slots) {
			t.Errorf("shard %d: %d keys, %d slots", i, len(s.index), len(s.slots))
		}
		total += len(s.slots)
	}
	if total == 0 || total > 32 {
		t.Errorf("%d paths remembered, want at most 32", total)
	}
}

// Certificates as a newcomer makes them with openssl, without configuration, are honoured.
func TestOpenSSLMadeCertificates(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	load := func(name string) *x509.Certificate {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	key := []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"}
	run(append([]string{"req", "-x509", "-subj", "/CN=v3 root", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30"}, key...)...)
	run(append([]string{"req", "-new", "-subj", "/CN=v1 root", "-keyout", "v1ca.key", "-out", "v1ca.csr"}, key...)...)
	run("x509", "-req", "-in", "v1ca.csr", "-signkey", "v1ca.key", "-out", "v1ca.pem", "-days", "30")
	run(append([]string{"req", "-new", "-subj", "/CN=Iwa Te", "-keyout", "c.key", "-out", "c.csr"}, key...)...)
	run("x509", "-req", "-in", "c.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "c.pem", "-days", "10")
	run("x509", "-req", "-in", "c.csr", "-CA", "v1ca.pem", "-CAkey", "v1ca.key", "-CAcreateserial", "-out", "c1.pem", "-days", "10")

	root, v1root := load("ca.pem"), load("v1ca.pem")
	if v1root.Version != 1 || load("c.pem").Version != 1 || root.KeyUsage != 0 {
		t.Fatalf("openssl made versions %d, %d and key usage %d; the test wants v1, v1 and none", v1root.Version, load("c.pem").Version, root.KeyUsage)
	}
	for name, anchor := range map[string]*x509.Certificate{"c.pem": root, "c1.pem": v1root} {
		if id := New(Config{}).Check(setOf(t, anchor), []*x509.Certificate{load(name)}); !id.Verified() {
			t.Errorf("%s: %q %v", name, id.Reason(), id.Err())
		}
		if id := New(Config{}).Check(setOf(t, root, v1root), []*x509.Certificate{load(name)}); !id.Verified() {
			t.Errorf("%s among two: %q %v", name, id.Reason(), id.Err())
		}
	}
	if id := New(Config{}).Check(setOf(t, v1root), []*x509.Certificate{load("c.pem")}); id.Verified() {
		t.Error("a foreign certificate is verified")
	}
}

// Hostile chains of look-alike CAs cost a bounded amount of work.
func TestWorkIsBounded(t *testing.T) {
	ca := testpki.NewCA(t)
	var presented []*x509.Certificate
	for range 9 {
		presented = append(presented, testpki.NewCA(t).Cert) // one name, nine keys
	}
	leaf := testpki.NewCA(t).Client("x")
	start := time.Now()
	id := New(Config{}).Check(setOf(t, ca.Cert), append([]*x509.Certificate{leaf.Cert}, presented...))
	if id.Verified() || time.Since(start) > time.Second {
		t.Errorf("%q after %v", id.Reason(), time.Since(start))
	}
}

func BenchmarkVerifyCached(b *testing.B) {
	ca := testpki.NewCA(b)
	set := setOf(b, ca.Cert)
	v := New(Config{})
	var chains [][]*x509.Certificate
	for range 256 {
		chains = append(chains, chain(ca.Client("x")))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if !v.Check(set, chains[i&255]).Verified() {
			b.Fatal("not verified")
		}
		i++
	}
}

func BenchmarkVerifyNeverSeen(b *testing.B) {
	ca := testpki.NewCA(b)
	set := setOf(b, ca.Cert)
	v := New(Config{CacheSize: -1})
	presented := chain(ca.Client("x"))
	b.ReportAllocs()
	for b.Loop() {
		if !v.Check(set, presented).Verified() {
			b.Fatal("not verified")
		}
	}
}
