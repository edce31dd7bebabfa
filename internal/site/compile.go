package site

import (
	"context"
	"errors"
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
	Fallback string     // name of the host for clients without a server name; may be empty
	Managed  trust.CA   // the CA of the house, which associations with CAID "" mean
	Trust    []trust.CA // every CA that the configuration names in its list of them, also those that no host uses
}

// BaseHost is one configured host. The Trust of Host is ignored: it is made of CAs, Managed and the associations.
type BaseHost struct {
	Host
	CAs     []trust.CA // CAs named by the configuration
	Managed bool       // the configuration names the CA of the house
}

// Applied is what the API says: it is put on top of a [Base].
type Applied struct {
	CAs          []TrustedCA
	Associations []Association
	Settings     []Settings
}

// place is a hostname of a zone, in canonical form.
type place struct{ zoneID, name string }

// Compile makes the snapshot of a configuration and the API's records. An association moves a host from [Off] to
// [Request] and adds its CA; one for a name that a wildcard host serves, or a host of another name, makes that name a
// host of its own; one for a name nobody serves waits. Settings switch the forwarding of certificates on for their hostname.
func Compile(base Base, api Applied) (*Snapshot, error) {
	ties, err := tiesOf(base, api)
	if err != nil {
		return nil, err
	}
	forwards := make(map[place]bool)
	for _, s := range api.Settings {
		if s.ClientCertificateForwarding {
			forwards[place{s.ZoneID, CanonicalName(s.Hostname)}] = true
		}
	}
	hosts := specialise(base.Hosts, api)
	out := make([]*Host, 0, len(hosts))
	for _, b := range hosts {
		h := b.Host
		at := place{h.Zone.ID, CanonicalName(h.Name)}
		cas := slices.Clone(b.CAs)
		if b.Managed {
			cas = append(cas, base.Managed)
		}
		for _, t := range ties[at] {
			if t.id != "" || !b.Managed {
				cas = append(cas, t.ca)
			}
		}
		if len(ties[at]) > 0 && h.Mode == Off {
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
		h.Forward.DERBase64 = h.Forward.DERBase64 || forwards[at]
		out = append(out, &h)
	}
	return NewSnapshot(out, base.Fallback)
}

// tie is one CA of a hostname; id is "" for the managed one.
type tie struct {
	id string
	ca trust.CA
}

// tiesOf returns the CAs that associations give to each name, the managed one first, then in the order of the records.
func tiesOf(base Base, api Applied) (map[place][]tie, error) {
	cas, err := parseAll(api.CAs)
	if err != nil {
		return nil, err
	}
	cas[""] = base.Managed
	rank := make(map[string]int, len(api.CAs))
	for i, r := range api.CAs {
		rank[r.ID] = i + 1
	}
	ties := make(map[place][]tie)
	for _, a := range api.Associations {
		ca, ok := cas[a.CAID]
		if !ok {
			return nil, fmt.Errorf("site: %q is tied to the CA %s: %w", a.Hostname, a.CAID, ErrNoTrustedCA)
		}
		at := place{a.ZoneID, CanonicalName(a.Hostname)}
		if !slices.ContainsFunc(ties[at], func(t tie) bool { return t.id == a.CAID }) {
			ties[at] = append(ties[at], tie{a.CAID, ca})
		}
	}
	for _, list := range ties {
		slices.SortFunc(list, func(a, b tie) int { return rank[a.id] - rank[b.id] })
	}
	return ties, nil
}

// specialise makes each name that records speak of a host of its own, where it is another name of a host or a wildcard
// serves it, so that the record is applied to that name and to no other.
func specialise(hosts []BaseHost, api Applied) []BaseHost {
	s := splitter{hosts: slices.Clone(hosts), byName: make(map[string][]int)}
	for i, b := range hosts {
		for _, name := range append([]string{b.Name}, b.Names...) {
			key := CanonicalName(name)
			s.byName[key] = append(s.byName[key], i)
		}
	}
	for _, a := range api.Associations {
		s.single(a.ZoneID, CanonicalName(a.Hostname))
	}
	for _, v := range api.Settings {
		if v.ClientCertificateForwarding {
			s.single(v.ZoneID, CanonicalName(v.Hostname))
		}
	}
	return s.hosts
}

// splitter is hosts by their canonical names; byName is kept as names move.
type splitter struct {
	hosts  []BaseHost
	byName map[string][]int
}

// single splits a name from the hosts of its zone that have it among others, and adds a copy of the wildcard hosts that
// serve it, on the listeners where nobody else has it. No name is there twice that was there once.
func (s *splitter) single(zoneID, name string) {
	same := func(n string) bool { return CanonicalName(n) == name }
	for at, i := range s.byName[name] {
		b := s.hosts[i]
		if b.Zone.ID == zoneID && slices.ContainsFunc(b.Names, same) {
			s.hosts[i].Names = slices.DeleteFunc(slices.Clone(b.Names), same)
			s.byName[name][at] = s.add(b, name)
		}
	}
	_, parent, ok := strings.Cut(name, ".")
	if !ok {
		return
	}
	for _, i := range s.byName["*."+parent] {
		b := s.hosts[i]
		taken := slices.ContainsFunc(s.byName[name], func(o int) bool { return overlap(s.hosts[o].Listeners, b.Listeners) })
		if b.Zone.ID == zoneID && !taken {
			s.byName[name] = append(s.byName[name], s.add(b, name))
		}
	}
}

// add appends a copy of a host that has one name alone, and returns where.
func (s *splitter) add(b BaseHost, name string) int {
	b.Name, b.Names = name, nil
	s.hosts = append(s.hosts, b)
	return len(s.hosts) - 1
}

// Source holds the current snapshot and makes new ones. [Source.Load] is safe at any time from any goroutine;
// rebuilds are serialised. A rebuild that fails changes nothing.
type Source struct {
	records Records
	onSwap  func()
	prepare func(context.Context, *Snapshot)
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

// Prepare has fn called with each new snapshot before it is in force, so that what its hosts need is there by then. It
// must be called before [Source.SetBase].
func (s *Source) Prepare(fn func(context.Context, *Snapshot)) { s.prepare = fn }

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

// SetManaged swaps in another CA of the house, or changes nothing and says why.
func (s *Source) SetManaged(ctx context.Context, managed trust.CA) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	base := s.base
	base.Managed = managed
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
	var snapshot *Snapshot
	var err error
	for range 3 { // a CA that is deleted, or added and tied, between two reads is a CA without a record for that moment
		var api Applied
		if api, err = s.applied(ctx); err != nil {
			return err
		}
		if snapshot, err = Compile(base, api); !errors.Is(err, ErrNoTrustedCA) {
			break
		}
	}
	if err != nil {
		return err
	}
	if s.prepare != nil {
		s.prepare(ctx, snapshot)
	}
	s.current.Store(snapshot)
	if s.onSwap != nil {
		s.onSwap()
	}
	return nil
}

// applied reads what the API says.
func (s *Source) applied(ctx context.Context) (api Applied, err error) {
	if s.records == nil {
		return api, nil
	}
	if api.Associations, err = s.records.Associations(ctx); err != nil {
		return api, fmt.Errorf("site: read hostname associations: %w", err)
	}
	if api.CAs, err = s.records.TrustedCAs(ctx); err != nil {
		return api, fmt.Errorf("site: read the CAs that came by API: %w", err)
	}
	if api.Settings, err = s.records.AllSettings(ctx); err != nil {
		return api, fmt.Errorf("site: read hostname settings: %w", err)
	}
	return api, nil
}
