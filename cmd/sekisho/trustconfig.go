package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sekisho/internal/pkix"
	"sekisho/internal/site"
	"sekisho/internal/trust"
)

// readTrust reads the list trust and the files that it names, and returns every mistake found.
func (b *baseBuilder) readTrust() []error {
	var errs []error
	for i, c := range b.cfg.Trust {
		ca, err := c.read()
		switch {
		case c.Name == "" || c.Name == "managed":
			err = errors.New("name: give it one of its own; managed is our own CA")
		case slices.ContainsFunc(b.trusted, func(have trust.CA) bool { return have.Name == c.Name }):
			err = errors.New("name: another one has it, too")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("trust[%d] %q: %w", i, c.Name, err))
			continue
		}
		b.trusted = append(b.trusted, ca)
	}
	for i, c := range b.cfg.Trust {
		used := slices.ContainsFunc(b.cfg.Hosts, func(h HostConfig) bool { return slices.Contains(h.ClientAuth.CA, c.Name) })
		if !used && c.Name != "" {
			b.warnings = append(b.warnings, fmt.Sprintf("trust[%d] %q: no host names it in client_auth.ca, so it lets nobody in", i, c.Name))
		}
	}
	return errs
}

// read makes a CA of what the file says of it.
func (c TrustConfig) read() (trust.CA, error) {
	policy, err := c.policy()
	if err != nil {
		return trust.CA{}, err
	}
	if c.Certs == "" {
		return trust.CA{}, errors.New("certs: name the PEM file of its certificates")
	}
	data, err := os.ReadFile(c.Certs)
	if err != nil {
		return trust.CA{}, fmt.Errorf("certs: %w", err)
	}
	certs, err := pkix.ParseCertificates(data)
	if err != nil {
		return trust.CA{}, fmt.Errorf("certs %s: %w", c.Certs, err)
	}
	anchors, intermediates, err := site.SplitBundle(certs)
	if err != nil {
		return trust.CA{}, fmt.Errorf("certs %s: %w", c.Certs, err)
	}
	return trust.CA{ID: c.Name, Name: c.Name, Anchors: anchors, Intermediates: intermediates, Policy: policy}, nil
}

func (c TrustConfig) policy() (trust.Policy, error) {
	p := trust.Policy{
		Require: c.Require, OnFailure: c.OnFailure, Scope: c.Scope, Refresh: c.Refresh, Grace: c.Grace, OCSPResponders: c.OCSPResponders,
		IgnoreCDP: c.IgnoreCDP, IgnoreAIA: c.IgnoreAIA, OCSPNonce: c.OCSPNonce, OCSPSHA256: c.OCSPSHA256, IgnoreStaple: c.IgnoreStaple,
		EKU: c.EKU, AllowAlgorithms: c.AllowAlgorithms, DenyAlgorithms: c.DenyAlgorithms, AllowedPolicies: c.AllowedPolicies,
	}
	for _, s := range c.Sources {
		p.Sources = append(p.Sources, trust.Source(s))
	}
	var err error
	if p.CRLs, err = absolutePlaces(c.CRLs); err != nil {
		return p, err
	}
	if p.CRLSets, err = absolutePlaces(c.CRLSets); err != nil {
		return p, err
	}
	return p, p.Check()
}

// absolutePlaces leaves URLs alone, of any scheme, and makes paths absolute, so that two spellings of one file are one
// place. An empty one stays for the check to find.
func absolutePlaces(places []string) ([]string, error) {
	var out []string
	for _, place := range places {
		if place != "" && !strings.Contains(place, "://") {
			var err error
			if place, err = filepath.Abs(place); err != nil {
				return nil, err
			}
		}
		out = append(out, place)
	}
	return out, nil
}

// clientCA finds a CA that a host names: one of the list, or a file of its own.
func (b *baseBuilder) clientCA(name string) (trust.CA, error) {
	for _, ca := range b.trusted {
		if ca.Name == name {
			return ca, nil
		}
	}
	if slices.ContainsFunc(b.cfg.Trust, func(c TrustConfig) bool { return c.Name == name }) {
		return trust.CA{}, fmt.Errorf("client_auth.ca: the CA %q of the list trust cannot be used", name) // its own error says why
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return trust.CA{}, fmt.Errorf("client_auth.ca: %w", err)
	}
	certs, err := pkix.ParseCertificates(data)
	if err != nil {
		return trust.CA{}, fmt.Errorf("client_auth.ca %s: %w", name, err)
	}
	return trust.CA{ID: name, Name: name, Anchors: certs}, nil
}

// check looks at the prefixes. A prefix with bits behind its length is a slip worth asking about.
func (c OutboundConfig) check() error {
	var errs []error
	for _, l := range []struct {
		key   string
		items []string
	}{{"allow", c.Allow}, {"deny", c.Deny}} {
		for _, item := range l.items {
			if _, err := netip.ParseAddr(item); err == nil {
				continue
			}
			p, err := netip.ParsePrefix(item)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("outbound.%s %q: write a prefix such as 10.0.0.0/8, or an address", l.key, item))
			case p != p.Masked():
				errs = append(errs, fmt.Errorf("outbound.%s %q: the prefix is %s", l.key, item, p.Masked()))
			}
		}
	}
	return errors.Join(errs...)
}
