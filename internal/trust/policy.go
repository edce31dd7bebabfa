package trust

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Source is a kind of place that says whether a certificate is revoked.
type Source string

// The sources.
const (
	Ledger Source = "ledger" // our own CA's record of what it issued
	CRL    Source = "crl"    // lists from files, URLs and the distribution points of certificates, with their deltas
	OCSP   Source = "ocsp"   // asked at the responder of the certificate or a configured one, or stapled by the client
	CRLSet Source = "crlset" // Chromium's compact list
)

// How many sources must answer, what their failure means, and which certificates of a path are judged.
const (
	RequireAny = "any"   // one fresh good answer is enough
	RequireAll = "all"   // every source that a certificate has must give a fresh good answer
	Hard       = "hard"  // without the answers that are required the client is refused
	Soft       = "soft"  // it is let in, and log and metrics say so
	Chain      = "chain" // every certificate below the trust anchor is judged
	Leaf       = "leaf"  // the client's own certificate alone
	EKUDemand  = "demand"
	EKUIgnore  = "ignore"
)

// Policy says how the clients of a CA are judged. "Revoked" from any source is revoked, whatever else is said and
// however old the answer is. The zero Policy is the default: the lists and responders that certificates name, one fresh
// good answer, hard, the whole chain; a certificate that names no source, of a CA without lists, is let in and marked
// as unchecked. The JSON form is that of the store, the API and `sekisho trust`.
type Policy struct {
	Sources   []Source      `json:"sources,omitempty"`    // asked; empty: crl, ocsp, and crlset where CRLSets are named
	Require   string        `json:"require,omitempty"`    // any (default) or all
	OnFailure string        `json:"on_failure,omitempty"` // hard (default) or soft
	Scope     string        `json:"scope,omitempty"`      // chain (default) or leaf
	Refresh   time.Duration `json:"refresh,omitempty"`    // how often the sources of certificates in use are asked again, nanoseconds; 0: 5 minutes for OCSP, as their nextUpdate says for lists
	Grace     time.Duration `json:"grace,omitempty"`      // how long after nextUpdate an answer counts as fresh, nanoseconds; at most 30 days

	CRLs            []string `json:"crls,omitempty"`             // paths of files, which are watched, and http or https URLs
	CRLSets         []string `json:"crlsets,omitempty"`          // paths and https URLs of CRLSets, raw format
	OCSPResponders  []string `json:"ocsp_responders,omitempty"`  // http or https URLs, asked instead of those in certificates
	IgnoreCDP       bool     `json:"ignore_cdp,omitempty"`       // do not fetch from the distribution points in certificates
	IgnoreAIA       bool     `json:"ignore_aia,omitempty"`       // do not ask the responders in certificates
	OCSPNonce       bool     `json:"ocsp_nonce,omitempty"`       // send a nonce, and take only answers that repeat it
	OCSPSHA256      bool     `json:"ocsp_sha256,omitempty"`      // name the issuer by SHA-256 instead of SHA-1 in requests
	IgnoreStaple    bool     `json:"ignore_staple,omitempty"`    // do not use what clients staple
	EKU             string   `json:"eku,omitempty"`              // demand (default): an extended key usage extension must name clientAuth; ignore
	AllowAlgorithms []string `json:"allow_algorithms,omitempty"` // weak signature algorithms taken all the same: sha1-rsa, sha1-ecdsa
	DenyAlgorithms  []string `json:"deny_algorithms,omitempty"`  // of those in Algorithms that are not weak
	AllowedPolicies []string `json:"allowed_policies,omitempty"` // certificate policies (dotted OIDs), one of which a path must be valid for; empty: any
}

// maxGrace bounds Policy.Grace.
const maxGrace = 30 * 24 * time.Hour

// Bounds of Policy.Refresh.
const (
	minRefresh = time.Second
	maxRefresh = 24 * time.Hour
)

// maxPlaces bounds each list of places in a Policy.
const maxPlaces = 32

// WeakAlgorithms are the names of signature algorithms that are refused unless Policy.AllowAlgorithms has them.
func WeakAlgorithms() []string { return []string{"sha1-rsa", "sha1-ecdsa"} }

// Algorithms are the names of the signature algorithms that are taken unless Policy.DenyAlgorithms has them.
func Algorithms() []string {
	return []string{
		"sha256-rsa", "sha384-rsa", "sha512-rsa", "sha256-rsa-pss", "sha384-rsa-pss", "sha512-rsa-pss",
		"sha256-ecdsa", "sha384-ecdsa", "sha512-ecdsa", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87",
	}
}

// AskedSources returns the sources in force: those named, or the default.
func (p Policy) AskedSources() []Source {
	if len(p.Sources) > 0 {
		return p.Sources
	}
	sources := []Source{CRL, OCSP}
	if len(p.CRLSets) > 0 {
		sources = append(sources, CRLSet)
	}
	return sources
}

// Asks reports whether a source is in force.
func (p Policy) Asks(s Source) bool { return slices.Contains(p.AskedSources(), s) }

// Allows reports whether a signature algorithm of the given name, one of Algorithms or WeakAlgorithms, is taken.
func (p Policy) Allows(algorithm string) bool {
	if slices.Contains(WeakAlgorithms(), algorithm) {
		return slices.Contains(p.AllowAlgorithms, algorithm)
	}
	return slices.Contains(Algorithms(), algorithm) && !slices.Contains(p.DenyAlgorithms, algorithm)
}

// Check finds what is wrong with a policy: unknown words, contradictions, places that are neither a path nor a URL.
func (p Policy) Check() error {
	var errs []error
	word := func(field, value string, known ...string) {
		if value != "" && !slices.Contains(known, value) {
			errs = append(errs, fmt.Errorf("%s %.40q: use %s", field, value, strings.Join(known, " or ")))
		}
	}
	for _, s := range p.Sources {
		// Ledger is for our own CA alone: of another CA its silence would mean that nothing is ever revoked.
		word("sources", string(s), string(CRL), string(OCSP), string(CRLSet))
	}
	word("require", p.Require, RequireAny, RequireAll)
	word("on_failure", p.OnFailure, Hard, Soft)
	word("scope", p.Scope, Chain, Leaf)
	word("eku", p.EKU, EKUDemand, EKUIgnore)
	for _, a := range p.AllowAlgorithms {
		word("allow_algorithms", a, WeakAlgorithms()...)
	}
	for _, a := range p.DenyAlgorithms {
		word("deny_algorithms", a, Algorithms()...)
	}
	if p.Grace < 0 || p.Grace > maxGrace {
		errs = append(errs, fmt.Errorf("grace %s: use 0 to %s", p.Grace, maxGrace))
	}
	if p.Refresh != 0 && (p.Refresh < minRefresh || p.Refresh > maxRefresh) {
		errs = append(errs, fmt.Errorf("refresh %s: use 0 for the default, or %s to %s", p.Refresh, minRefresh, maxRefresh))
	}
	errs = append(errs, p.checkPlaces(), p.checkUnused())
	return errors.Join(errs...)
}

func (p Policy) checkPlaces() error {
	var errs []error
	for _, place := range p.CRLSets {
		if IsURL(place) && !strings.EqualFold(place[:min(len(place), 8)], "https://") {
			errs = append(errs, fmt.Errorf("crlsets: %.80q: use https or a file: a CRLSet has no signature of its own", place))
		}
	}
	for _, list := range []struct {
		field string
		items []string
		files bool
	}{{"crls", p.CRLs, true}, {"crlsets", p.CRLSets, true}, {"ocsp_responders", p.OCSPResponders, false}} {
		if len(list.items) > maxPlaces {
			errs = append(errs, fmt.Errorf("%s: %d are too many; at most %d", list.field, len(list.items), maxPlaces))
			continue
		}
		for _, item := range list.items {
			if err := checkPlace(item, list.files); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", list.field, err))
			}
		}
	}
	return errors.Join(errs...)
}

// checkUnused refuses places of sources that are not asked: they would do nothing.
func (p Policy) checkUnused() error {
	var errs []error
	for _, f := range []struct {
		field  string
		set    bool
		source Source
	}{{"crls", len(p.CRLs) > 0, CRL}, {"crlsets", len(p.CRLSets) > 0, CRLSet}, {"ocsp_responders", len(p.OCSPResponders) > 0, OCSP}} {
		if f.set && !p.Asks(f.source) {
			errs = append(errs, fmt.Errorf("%s are given but sources does not name %s", f.field, f.source))
		}
	}
	return errors.Join(errs...)
}

// checkPlace wants an http or https URL, or, where files are allowed, an absolute or relative path.
func checkPlace(place string, files bool) error {
	if IsURL(place) {
		u, err := url.Parse(place)
		if err != nil || u.Host == "" || len(place) > 2048 {
			return fmt.Errorf("%.80q is no URL", place)
		}
		return nil
	}
	switch {
	case !files:
		return fmt.Errorf("%.80q: want a URL that begins with http:// or https://", place)
	case place == "" || strings.Contains(place, "://") || strings.ContainsRune(place, 0) || len(place) > 4096:
		return fmt.Errorf("%.80q is neither a path nor an http or https URL", place)
	}
	return nil
}

// IsURL reports whether a place is an http or https URL, not a path.
func IsURL(place string) bool {
	lower := strings.ToLower(place[:min(len(place), 8)])
	return strings.HasPrefix(lower, "http://") || strings.HasPrefix(lower, "https://")
}
