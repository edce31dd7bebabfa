package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"

	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

func serves(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }

func host(name string, mode Mode, listeners ...string) *Host {
	return &Host{Name: name, Mode: mode, Listeners: listeners, Certificate: serves}
}

func TestSnapshotHost(t *testing.T) {
	api := host("api.example.com", Off)
	api.Names = []string{"127.0.0.1", "::1"}
	wild := host("*.example.com", Off)
	public, strict := host("localhost", Off, "public"), host("localhost", Off, "strict")
	s, err := NewSnapshot([]*Host{api, wild, public, strict}, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		listener, name string
		want           *Host
	}{
		{"public", "api.example.com", api},
		{"public", "API.Example.COM.", api},
		{"public", "127.0.0.1", api},
		{"public", "[::1]", api},
		{"public", "0:0:0:0:0:0:0:1", api},
		{"public", "other.example.com", wild},
		{"public", "a.b.example.com", nil},
		{"public", "example.com", nil},
		{"public", "localhost", public},
		{"strict", "localhost", strict},
		{"other", "localhost", nil},
		{"strict", "", strict},
		{"public", "unknown.test", nil},
		{"public", "api.example.com:443", nil},
		{"public", "api.example.com/x", nil},
		{"public", "*.example.com", wild},
		{"public", "fe80::1%eth0", nil},
		{"public", "[api.example.com]", nil},
		{"public", "[127.0.0.1]", nil},
	} {
		if got := s.Host(c.listener, c.name); got != c.want {
			t.Errorf("Host(%q, %q) = %v, want %v", c.listener, c.name, got, c.want)
		}
	}
}

func TestNewSnapshotRefuses(t *testing.T) {
	noCertificate := host("a.test", Off)
	noCertificate.Certificate = nil
	for _, c := range []struct {
		what     string
		hosts    []*Host
		fallback string
		text     string
	}{
		{"same name on all listeners", []*Host{host("a.test", Off), host("A.test.", Off, "x")}, "", "different listeners"},
		{"unknown mode", []*Host{host("a.test", "maybe")}, "", "use off, request or require"},
		{"no certificate", []*Host{noCertificate}, "", "no server certificate"},
		{"no host name", []*Host{host("https://a.test", Off)}, "", "no host name"},
		{"unknown default", []*Host{host("a.test", Off)}, "b.test", "default host"},
	} {
		if _, err := NewSnapshot(c.hosts, c.fallback); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want an error that says %q", c.what, err, c.text)
		}
	}
}

// managedBase is one wildcard host that asks for nothing and one host that a file ties to the CA of the house.
func managedBase(t *testing.T) Base {
	t.Helper()
	zone := Zone{ID: "z", Name: "example.com"}
	ca := testpki.NewCA(t)
	off := BaseHost{Host: *host("*.example.com", Off)}
	tied := BaseHost{Host: *host("tied.example.com", Require), Managed: true}
	off.Zone, tied.Zone = zone, zone
	return Base{Zones: []Zone{zone}, Hosts: []BaseHost{off, tied}, Managed: trust.CA{Name: "managed", Anchors: []*x509.Certificate{ca.Cert}}}
}

func TestCompileAppliesRecords(t *testing.T) {
	base := managedBase(t)
	s, err := Compile(base, Applied{
		Associations: []Association{
			{ZoneID: "z", Hostname: "Devices.example.com"}, {ZoneID: "other", Hostname: "x.example.com"}, {ZoneID: "z", Hostname: "waiting.test"},
		},
		Settings: []Settings{{ZoneID: "z", Hostname: "fw.example.com", ClientCertificateForwarding: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		mode  Mode
		cas   int
		cf    bool
		exact bool
	}{
		{"devices.example.com", Request, 1, false, true}, // an association moves off to request
		{"fw.example.com", Off, 0, true, true},           // settings alone ask for nothing
		{"x.example.com", Off, 0, false, false},          // somebody else's zone
		{"tied.example.com", Require, 1, false, true},
	} {
		h := s.Host("edge", c.name)
		if h == nil {
			t.Fatalf("%s: no host", c.name)
		}
		if h.Mode != c.mode || len(h.Trust.CAs()) != c.cas || h.Forward.DERBase64 != c.cf || (h.Name == c.name) != c.exact {
			t.Errorf("%s: served by %q, mode %s, %d CAs, cf %v", c.name, h.Name, h.Mode, len(h.Trust.CAs()), h.Forward.DERBase64)
		}
	}
	if s.Host("edge", "waiting.test") != nil {
		t.Error("a name that no host serves got one")
	}
	if a, b := s.Host("edge", "devices.example.com"), s.Host("edge", "x.example.com"); a.Policy() == b.Policy() {
		t.Error("hosts of different policy have the same key")
	}
	if a, b := s.Host("edge", "fw.example.com"), s.Host("edge", "x.example.com"); a.Policy() != b.Policy() || a.Session() == b.Session() {
		t.Error("two hosts of one policy: policies must be equal, sessions must not")
	}
}

// A record for one of a host's other names is applied to that name alone; it neither goes unheard nor breaks the
// snapshot, which would keep the server from starting.
func TestInvariant06RecordForAnotherNameOfAHost(t *testing.T) {
	zone := Zone{ID: "z", Name: "example.com"}
	ca := testpki.NewCA(t)
	alias, wild := BaseHost{Host: *host("api.example.com", Off)}, BaseHost{Host: *host("*.example.com", Off)}
	alias.Names = []string{"WWW.example.com", "127.0.0.1"}
	foreign := BaseHost{Host: *host("other.example.net", Off)}
	foreign.Names = []string{"foreign.example.com"}
	split := BaseHost{Host: *host("split.example.com", Off, "one")}
	alias.Zone, wild.Zone, split.Zone, foreign.Zone = zone, zone, zone, Zone{ID: "y"}
	for _, tc := range []struct {
		name  string
		hosts []BaseHost
	}{
		{"with a wildcard", []BaseHost{alias, wild, foreign, split}},
		{"wildcard among other names", func() []BaseHost {
			w := BaseHost{Host: *host("example.com", Off)}
			w.Names, w.Zone = []string{"*.example.com"}, zone
			return []BaseHost{w, alias, foreign, split}
		}()},
		{"without", []BaseHost{alias, foreign, split}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := Base{Hosts: tc.hosts, Fallback: "api.example.com", Managed: trust.CA{Anchors: []*x509.Certificate{ca.Cert}}}
			s, err := Compile(base, Applied{
				Associations: []Association{{ZoneID: "z", Hostname: "www.example.com"}, {ZoneID: "z", Hostname: "foreign.example.com"}, {ZoneID: "z", Hostname: "split.example.com"}},
				Settings:     []Settings{{ZoneID: "z", Hostname: "www.example.com", ClientCertificateForwarding: true}},
			})
			if err != nil {
				t.Fatal(err)
			}
			for name, mode := range map[string]Mode{
				"www.example.com": Request, "api.example.com": Off, "127.0.0.1": Off, "foreign.example.com": Off, "split.example.com": Request,
			} {
				if h := s.Host("one", name); h == nil || h.Mode != mode {
					t.Errorf("%s: %+v, want mode %s", name, h, mode)
				}
			}
			if h := s.Host("one", "www.example.com"); !h.Forward.DERBase64 || len(h.Trust.CAs()) != 1 {
				t.Errorf("www: %+v", h)
			}
			if tc.hosts[0].Names != nil && alias.Names[0] != "WWW.example.com" {
				t.Error("the base was changed")
			}
		})
	}
}

// record is a CA that came by API.
func record(id string, ca *testpki.CA, policy trust.Policy) TrustedCA {
	return TrustedCA{ID: id, Product: MTLS, Name: "name " + id, PEM: string(ca.PEM), Policy: policy}
}

// TestCompileTrustedCAs: what is tied by API is added to what the file says, host by host and in one order.
func TestCompileTrustedCAs(t *testing.T) {
	base := managedBase(t)
	a, b := testpki.NewCA(t), testpki.NewCA(t)
	chain := b.Intermediate("inter")
	second := record("b", b, trust.Policy{Scope: trust.Leaf})
	second.PEM = string(chain.PEM) + second.PEM
	api := Applied{CAs: []TrustedCA{record("a", a, trust.Policy{}), second, record("unused", a, trust.Policy{})}}
	for _, tie := range [][2]string{
		{"b", "two.example.com"},
		{"a", "two.example.com"},
		{"a", "TWO.example.com"},
		{"", "two.example.com"},
		{"b", "tied.example.com"},
		{"", "tied.example.com"},
		{"a", "waiting.test"},
		{"b", "one.example.com"},
	} {
		api.Associations = append(api.Associations, Association{ZoneID: "z", CAID: tie[0], Hostname: tie[1]})
	}
	api.Associations = append(api.Associations, Association{ZoneID: "y", CAID: "a", Hostname: "foreign.example.com"})
	s, err := Compile(base, api)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, cas string
		mode      Mode
	}{
		{"two.example.com", "managed,name a,name b", Request},
		{"one.example.com", "name b", Request},
		{"tied.example.com", "managed,name b", Require},
		{"foreign.example.com", "", Off},
	} {
		h := s.Host("edge", c.name)
		var names []string
		for _, ca := range h.Trust.CAs() {
			names = append(names, ca.Name)
		}
		if got := strings.Join(names, ","); got != c.cas || h.Mode != c.mode {
			t.Errorf("%s: mode %s, CAs %q; want %s and %q", c.name, h.Mode, got, c.mode, c.cas)
		}
	}
	ca := s.Host("edge", "one.example.com").Trust.CAs()[0]
	if ca.ID != "b" || ca.Policy.Scope != trust.Leaf || len(ca.Anchors) != 1 || !ca.Anchors[0].Equal(b.Cert) || len(ca.Intermediates) != 1 || !ca.Intermediates[0].Equal(chain.Cert) {
		t.Errorf("compiled %+v", ca)
	}

	untied := api
	untied.Associations = api.Associations[:1] // b at two.example.com alone
	after, err := Compile(base, untied)
	if err != nil {
		t.Fatal(err)
	}
	if h := after.Host("edge", "two.example.com"); len(h.Trust.CAs()) != 1 || h.Policy() == s.Host("edge", "two.example.com").Policy() {
		t.Errorf("a CA that was untied is trusted still: %+v", h.Trust.CAs())
	}
	if h := after.Host("edge", "one.example.com"); h.Mode != Off || h.Trust != nil {
		t.Errorf("a host without its CA: mode %s", h.Mode)
	}
}

// Two hosts that judge clients of one CA by different policies share neither connections nor tickets.
func TestInvariant05PolicyHoldsTheCAsPolicy(t *testing.T) {
	ca := testpki.NewCA(t)
	compile := func(p trust.Policy) *Host {
		t.Helper()
		s, err := Compile(managedBase(t), Applied{
			CAs: []TrustedCA{record("a", ca, p)}, Associations: []Association{{ZoneID: "z", CAID: "a", Hostname: "x.example.com"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s.Host("edge", "x.example.com")
	}
	loose, again, strict := compile(trust.Policy{OnFailure: trust.Soft}), compile(trust.Policy{OnFailure: trust.Soft}), compile(trust.Policy{})
	if loose.Policy() != again.Policy() || loose.Session() != again.Session() {
		t.Error("one policy has two keys")
	}
	if loose.Policy() == strict.Policy() || loose.Session() == strict.Session() {
		t.Error("a stricter policy has the keys of the looser one")
	}
}

// A record that cannot be used keeps the snapshot that there is: a host never trusts or asks for less in silence.
func TestInvariant06BrokenCARecord(t *testing.T) {
	ca := testpki.NewCA(t)
	r := &records{cas: []TrustedCA{record("a", ca, trust.Policy{})}, associations: []Association{{ZoneID: "z", CAID: "a", Hostname: "x.example.com"}}}
	source := NewSource(r, nil)
	if err := source.SetBase(t.Context(), managedBase(t)); err != nil {
		t.Fatal(err)
	}
	before := source.Load()
	broken := r.cas[0]
	broken.PEM = "rot"
	for name, c := range map[string]struct {
		cas  []TrustedCA
		text string
	}{
		"not readable": {[]TrustedCA{broken}, "sekisho trust remove a"},
		"gone":         {nil, "x.example.com"},
	} {
		r.cas = c.cas
		if err := source.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want an error that says %q", name, err, c.text)
		}
		if source.Load() != before {
			t.Errorf("%s: the snapshot was swapped", name)
		}
	}
}

func TestSplitBundle(t *testing.T) {
	root, other := testpki.NewCA(t, testpki.Name("root")), testpki.NewCA(t, testpki.Name("other"))
	inter := root.Intermediate("inter")
	low := inter.Intermediate("low")
	oldKey, newKey := testpki.NewCA(t, testpki.Name("rolled")), testpki.NewCA(t, testpki.Name("rolled"))
	// The new key by the old: RFC 4210, Section 4.4.
	link := oldKey.Intermediate("rolled", testpki.Edit(func(c *x509.Certificate) { c.AuthorityKeyId = oldKey.Cert.SubjectKeyId }))
	renewed := testpki.NewCA(t, testpki.Name("root"), testpki.Key(root.Key))
	v1a, v1b := testpki.NewCA(t, testpki.V1()), testpki.NewCA(t, testpki.V1())
	for _, c := range []struct {
		name            string
		in              []*testpki.CA
		anchors, helper []*testpki.CA
	}{
		{"a root", []*testpki.CA{root}, []*testpki.CA{root}, nil},
		{"a chain in TLS order", []*testpki.CA{low, inter, root}, []*testpki.CA{root}, []*testpki.CA{low, inter}},
		{"a chain without its root", []*testpki.CA{low, inter}, []*testpki.CA{inter}, []*testpki.CA{low}},
		{"twice", []*testpki.CA{root, inter, root, inter}, []*testpki.CA{root}, []*testpki.CA{inter}},
		{"two roots", []*testpki.CA{root, other, inter}, []*testpki.CA{root, other}, []*testpki.CA{inter}},
		{"a renewed root", []*testpki.CA{root, renewed}, []*testpki.CA{root, renewed}, nil},
		{"two keys of one name", []*testpki.CA{oldKey, newKey}, []*testpki.CA{oldKey, newKey}, nil},
		{"a link between keys", []*testpki.CA{oldKey, link}, []*testpki.CA{oldKey}, []*testpki.CA{link}},
		{"two v1 roots of one name", []*testpki.CA{v1a, v1b}, []*testpki.CA{v1a, v1b}, nil},
	} {
		certs := func(cas []*testpki.CA) (certs []*x509.Certificate) {
			for _, ca := range cas {
				certs = append(certs, ca.Cert)
			}
			return certs
		}
		anchors, helpers, err := SplitBundle(certs(c.in))
		same := func(a, b []*x509.Certificate) bool { return slices.EqualFunc(a, b, (*x509.Certificate).Equal) }
		if err != nil || !same(anchors, certs(c.anchors)) || !same(helpers, certs(c.helper)) {
			t.Errorf("%s: %d anchors, %d helpers, %v", c.name, len(anchors), len(helpers), err)
		}
	}
	if _, _, err := SplitBundle(nil); !errors.Is(err, ErrNoAnchor) {
		t.Errorf("nothing: %v", err)
	}
}

// Hosts that take other versions of TLS do not share connections or tickets.
func TestInvariant05PolicyHoldsTLSVersion(t *testing.T) {
	loose, same, strict := host("a.test", Off), host("b.test", Off), host("c.test", Off)
	same.MinVersion, strict.MinVersion = tls.VersionTLS12, tls.VersionTLS13
	if _, err := NewSnapshot([]*Host{loose, same, strict}, ""); err != nil {
		t.Fatal(err)
	}
	if loose.Policy() != same.Policy() || loose.Policy() == strict.Policy() {
		t.Error("policies do not tell versions of TLS apart")
	}
}

// records are a store's answers, or its error.
type records struct {
	Records
	associations []Association
	cas          []TrustedCA
	err          error
}

func (r *records) Associations(context.Context) ([]Association, error) { return r.associations, r.err }
func (r *records) AllSettings(context.Context) ([]Settings, error)     { return nil, r.err }
func (r *records) TrustedCAs(context.Context) ([]TrustedCA, error)     { return r.cas, r.err }

func TestInvariant06BrokenReloadChangesNothing(t *testing.T) {
	r := &records{}
	swaps := 0
	source := NewSource(r, func() { swaps++ })
	if err := source.SetBase(t.Context(), managedBase(t)); err != nil {
		t.Fatal(err)
	}
	before := source.Load()
	broken := managedBase(t)
	broken.Hosts = append(broken.Hosts, broken.Hosts[0])
	if err := source.SetBase(t.Context(), broken); !errors.Is(err, ErrDuplicate) {
		t.Errorf("a base with one host twice: %v", err)
	}
	r.err = errors.New("disk on fire")
	if err := source.Refresh(t.Context()); !errors.Is(err, r.err) {
		t.Errorf("a refresh with a broken store: %v", err)
	}
	if source.Load() != before || swaps != 1 || len(source.Base().Hosts) != 2 {
		t.Error("a refused reload changed something")
	}
	r.err, r.associations = nil, []Association{{ZoneID: "z", Hostname: "devices.example.com"}}
	if err := source.Refresh(t.Context()); err != nil || source.Load() == before || swaps != 2 {
		t.Errorf("a good refresh did not take: %v", err)
	}
}

func FuzzCanonicalName(f *testing.F) {
	for _, s := range []string{"a.example.com.", "[::1]", "::ffff:127.0.0.1", "A", "", ".", "a b", "x:1", "[fe80::1%25eth0]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		once := CanonicalName(name)
		if strings.HasSuffix(once, ".") {
			return // "a.." is no name of ours; it matches no host
		}
		if again := CanonicalName(once); again != once {
			t.Errorf("CanonicalName(%q) = %q, and of that %q", name, once, again)
		}
		if strings.ContainsAny(once, " /@\\") || strings.ToLower(once) != once {
			t.Errorf("CanonicalName(%q) = %q", name, once)
		}
	})
}
