package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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
	s, err := Compile(base,
		[]Association{{ZoneID: "z", Hostname: "Devices.example.com"}, {ZoneID: "other", Hostname: "x.example.com"}, {ZoneID: "z", Hostname: "waiting.test"}},
		[]Settings{{ZoneID: "z", Hostname: "fw.example.com", ClientCertificateForwarding: true}})
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
			s, err := Compile(Base{Hosts: tc.hosts, Fallback: "api.example.com", Managed: trust.CA{Anchors: []*x509.Certificate{ca.Cert}}},
				[]Association{{ZoneID: "z", Hostname: "www.example.com"}, {ZoneID: "z", Hostname: "foreign.example.com"}, {ZoneID: "z", Hostname: "split.example.com"}},
				[]Settings{{ZoneID: "z", Hostname: "www.example.com", ClientCertificateForwarding: true}})
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
	err          error
}

func (r *records) Associations(context.Context) ([]Association, error) { return r.associations, r.err }
func (r *records) AllSettings(context.Context) ([]Settings, error)     { return nil, r.err }

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
