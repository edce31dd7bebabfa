package site

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sekisho/internal/trust"
)

// Base is what the configuration says: hosts as written, before associations and settings of the API are applied.
// A Base is immutable once given to a [Source].
type Base struct {
	Zones    []Zone
	Hosts    []BaseHost
	Fallback string   // name of the host for clients without a server name; may be empty
	Managed  trust.CA // the CA of the house, which associations with CAID "" mean
}

// BaseHost is one configured host. The Trust of Host is ignored: it is made of CAs, Managed and the associations.
type BaseHost struct {
	Host
	CAs     []trust.CA // CAs named by the configuration
	Managed bool       // the configuration names the CA of the house
}

// Compile makes the snapshot of a configuration and the API's records. An association moves a host from [Off] to
// [Request] and adds its CA; one for a name that a wildcard host serves, or a host of another name, makes that name a
// host of its own; one for a name nobody serves waits. Settings switch the forwarding of certificates on for their hostname.
func Compile(base Base, associations []Association, settings []Settings) (*Snapshot, error) {
	hosts := specialise(base.Hosts, associations, settings)
	out := make([]*Host, 0, len(hosts))
	for _, b := range hosts {
		h := b.Host
		cas := slices.Clone(b.CAs)
		associated := slices.ContainsFunc(associations, func(a Association) bool {
			return a.CAID == "" && a.ZoneID == h.Zone.ID && CanonicalName(a.Hostname) == CanonicalName(h.Name)
		})
		if b.Managed || associated {
			cas = append(cas, base.Managed)
		}
		if associated && h.Mode == Off {
			h.Mode = Request
		}
		h.Trust = nil
		if h.Mode != Off {
			set, err := trust.NewSet(cas)
			if err != nil {
				return nil, fmt.Errorf("site: host %q: %w", h.Name, err)
			}
			h.Trust = set
		}
		for _, s := range settings {
			if s.ClientCertificateForwarding && s.ZoneID == h.Zone.ID && CanonicalName(s.Hostname) == CanonicalName(h.Name) {
				h.Forward.DERBase64 = true
			}
		}
		out = append(out, &h)
	}
	return NewSnapshot(out, base.Fallback)
}

// specialise makes each name that records speak of a host of its own, where it is another name of a host or a wildcard
// serves it, so that the record is applied to that name and to no other.
func specialise(hosts []BaseHost, associations []Association, settings []Settings) []BaseHost {
	out := slices.Clone(hosts)
	for _, a := range associations {
		out = single(out, a.ZoneID, CanonicalName(a.Hostname))
	}
	for _, s := range settings {
		if s.ClientCertificateForwarding {
			out = single(out, s.ZoneID, CanonicalName(s.Hostname))
		}
	}
	return out
}

// single splits a name from the hosts of its zone that have it among others, and adds a copy of the wildcard hosts that
// serve it, on the listeners where nobody else has it. What is returned has no name twice that hosts had once.
func single(hosts []BaseHost, zoneID, name string) []BaseHost {
	is := func(want string) func(string) bool {
		return func(n string) bool { return CanonicalName(n) == want }
	}
	own := func(b BaseHost) BaseHost {
		b.Name, b.Names = name, nil
		return b
	}
	for i, b := range slices.Clone(hosts) {
		if b.Zone.ID == zoneID && slices.ContainsFunc(b.Names, is(name)) {
			hosts[i].Names = slices.DeleteFunc(slices.Clone(b.Names), is(name))
			hosts = append(hosts, own(b))
		}
	}
	_, parent, ok := strings.Cut(name, ".")
	if !ok {
		return hosts
	}
	for _, b := range slices.Clone(hosts) {
		if b.Zone.ID != zoneID || !is("*."+parent)(b.Name) && !slices.ContainsFunc(b.Names, is("*."+parent)) {
			continue
		}
		taken := slices.ContainsFunc(hosts, func(o BaseHost) bool {
			return (is(name)(o.Name) || slices.ContainsFunc(o.Names, is(name))) && overlap(o.Listeners, b.Listeners)
		})
		if !taken {
			hosts = append(hosts, own(b))
		}
	}
	return hosts
}

// Source holds the current snapshot and makes new ones. [Source.Load] is safe at any time from any goroutine;
// rebuilds are serialised. A rebuild that fails changes nothing.
type Source struct {
	records Records
	onSwap  func()
	current atomic.Pointer[Snapshot]

	mu   sync.Mutex
	base Base
}

// NewSource returns a source without a snapshot: call [Source.SetBase] before anything loads it. Without records (nil)
// the configuration alone counts. onSwap, when not nil,
// is called after each swap, before the rebuild returns.
func NewSource(records Records, onSwap func()) *Source {
	return &Source{records: records, onSwap: onSwap}
}

// Load returns the current snapshot.
func (s *Source) Load() *Snapshot { return s.current.Load() }

// Base returns the configuration in force.
func (s *Source) Base() Base {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.base
}

// SetBase swaps in a new configuration, or changes nothing and says why.
func (s *Source) SetBase(ctx context.Context, base Base) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.rebuildLocked(ctx, base); err != nil {
		return err
	}
	s.base = base
	return nil
}

// Refresh reads the records again and swaps in what they say now, or changes nothing and says why.
func (s *Source) Refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rebuildLocked(ctx, s.base)
}

func (s *Source) rebuildLocked(ctx context.Context, base Base) error {
	var associations []Association
	var settings []Settings
	if s.records != nil {
		var err error
		if associations, err = s.records.Associations(ctx); err != nil {
			return fmt.Errorf("site: read hostname associations: %w", err)
		}
		if settings, err = s.records.AllSettings(ctx); err != nil {
			return fmt.Errorf("site: read hostname settings: %w", err)
		}
	}
	snapshot, err := Compile(base, associations, settings)
	if err != nil {
		return err
	}
	s.current.Store(snapshot)
	if s.onSwap != nil {
		s.onSwap()
	}
	return nil
}
