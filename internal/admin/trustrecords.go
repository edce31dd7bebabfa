package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sekisho/internal/auditlog"
	"sekisho/internal/pkix"
	"sekisho/internal/site"
	"sekisho/internal/trust"
)

const (
	maxTrustedCAs = 500    // of one product; Cloudflare has 5
	maxTies       = 10_000 // hostnames tied to CAs of others, all together: each may become a host of its own
	maxCAName     = 255    // bytes
)

// newTrust is a CA that is to be stored.
type newTrust struct {
	product      site.Product
	zoneID       string // "" for the account
	name         string
	certificates string // PEM
	pointer      string // of the certificates in the body
	policy       trust.Policy
	hostnames    []string
	zones        []site.Zone // whose hostnames may be tied
	namesPointer string      // of the hostnames in the body
}

// addTrustedCA stores a CA with its hostnames and puts them into force.
func (s *server) addTrustedCA(ctx context.Context, c *call, n newTrust) (site.TrustedCA, []message, error) {
	s.trusting.Lock()
	defer s.trusting.Unlock()
	if err := checkCAName(n.name); err != nil {
		return site.TrustedCA{}, nil, err
	}
	b, err := readBundle(n.certificates, s.Now())
	if err != nil {
		return site.TrustedCA{}, nil, invalid(n.pointer, err.Error())
	}
	if err := s.roomForCA(ctx, n.product); err != nil {
		return site.TrustedCA{}, nil, err
	}
	now := s.Now().UTC()
	ca := site.TrustedCA{
		ID: newUUID(), Product: n.product, ZoneID: n.zoneID, Name: n.name, PEM: b.pem, Policy: n.policy, UploadedOn: now, UpdatedOn: now,
	}
	ties, err := s.tiesOf(ctx, n.zones, ca.ID, n.hostnames, n.namesPointer)
	if err != nil {
		return site.TrustedCA{}, nil, err
	}
	messages := allowWeak(&ca, b)
	entry := s.trustEntry(c, "trust.add", ca)
	entry.Detail["certificates"], entry.Detail["hostnames"] = subjects(b), namesOf(ties)
	if err := s.Records.AddTrustedCA(ctx, ca, ties, entry); err != nil {
		return site.TrustedCA{}, nil, err
	}
	if err := s.putIntoForce(ctx); err != nil {
		return site.TrustedCA{}, nil, err
	}
	return ca, append(messages, s.waitingFor(ties)...), nil
}

func checkCAName(name string) error {
	if len(name) > maxCAName || strings.ContainsFunc(name, isControl) {
		return invalid("/name", fmt.Sprintf("name: give at most %d bytes without control characters", maxCAName))
	}
	return nil
}

// roomForCA refuses a CA above the bound, with the words and the code of the product.
func (s *server) roomForCA(ctx context.Context, product site.Product) error {
	all, err := s.Records.TrustedCAs(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, ca := range all {
		if ca.Product == product {
			n++
		}
	}
	switch {
	case n < maxTrustedCAs:
		return nil
	case product == site.Access:
		return refuse(http.StatusBadRequest, codeAccessQuota, fmt.Sprintf("access.api.error.certificate_limit_reached: "+
			"max number of certificates reached: there are %d; delete one that no hostname needs", n))
	}
	return refuse(http.StatusBadRequest, codeMTLSQuota, fmt.Sprintf("Hit maximum CA cert allocation. There are %d; delete one that no hostname needs", n))
}

// allowWeak switches on, in the policy of a new CA, the weak algorithms by which its own certificates are signed, says so
// and how to undo it, and adds the other things worth knowing about a bundle.
func allowWeak(ca *site.TrustedCA, b bundle) []message {
	messages := []message{}
	for _, text := range b.warnings {
		messages = append(messages, message{Code: codeNote, Message: text})
	}
	for _, w := range b.weak {
		if !slices.Contains(ca.Policy.AllowAlgorithms, w.algorithm) {
			ca.Policy.AllowAlgorithms = append(ca.Policy.AllowAlgorithms, w.algorithm)
		}
		messages = append(messages, message{Code: codeNote, Message: w.what + " is signed with SHA-1, which can be forged: allow_algorithms of this CA's policy has " +
			w.algorithm + " now, for its clients too; to refuse it: sekisho trust policy " + ca.ID + " --allow-algorithm '', or PATCH " +
			prefix + "/sekisho/trust/" + ca.ID + `/policy with {"allow_algorithms":[]}`})
	}
	return messages
}

// tiesOf finds the zone of each hostname. The answer is never nil: no hostnames are no ties.
func (s *server) tiesOf(ctx context.Context, zones []site.Zone, caID string, hostnames []string, pointer string) ([]site.Association, error) {
	ties := []site.Association{}
	if len(hostnames) == 0 {
		return ties, nil
	}
	if len(hostnames) > maxHostnames {
		return nil, invalid(pointer, fmt.Sprintf("hostnames: %d are too many: give at most %d, or a wildcard", len(hostnames), maxHostnames))
	}
	for i, hostname := range hostnames {
		zone, name, err := s.zoneOf(zones, hostname)
		if err != nil {
			foreign := invalid(fmt.Sprintf("%s/%d", pointer, i), "access.api.error.hostnames_must_belong_to_your_domain: "+err.Error())
			foreign.problems[0].Code = codeForeignHostname
			return nil, foreign
		}
		ties = append(ties, site.Association{ZoneID: zone.ID, CAID: caID, Hostname: name})
	}
	slices.SortFunc(ties, func(a, b site.Association) int {
		return strings.Compare(a.Hostname+" "+a.ZoneID, b.Hostname+" "+b.ZoneID)
	})
	ties = slices.Compact(ties)
	return ties, s.roomForTies(ctx, caID, "", len(ties), pointer)
}

// roomForTies refuses hostnames above the bound. The CA's own, in one zone or in all (""), are about to be replaced.
func (s *server) roomForTies(ctx context.Context, caID, zoneID string, more int, pointer string) error {
	all, err := s.Records.Associations(ctx)
	if err != nil {
		return err
	}
	n := more
	for _, a := range all {
		if a.CAID != "" && (a.CAID != caID || zoneID != "" && a.ZoneID != zoneID) {
			n++
		}
	}
	if n > maxTies {
		return invalid(pointer, fmt.Sprintf("hostnames: all CAs together would have %d: at most %d are possible; use a wildcard host of the configuration file", n, maxTies))
	}
	return nil
}

// waitingFor tells of the hostnames that no host in force serves. Without a server nobody knows.
func (s *server) waitingFor(ties []site.Association) []message {
	messages := []message{}
	for _, a := range s.waiting(ties) {
		messages = append(messages, message{
			Code: codeNote, Message: a.Hostname + " waits: no host serves it; the CA is in force there as soon as one does",
		})
	}
	return messages
}

func (s *server) waiting(ties []site.Association) []site.Association {
	type place struct{ zoneID, name string }
	hosts := s.Hosts()
	served := make(map[place]bool)
	for _, h := range hosts {
		for _, name := range append([]string{h.Name}, h.Names...) {
			served[place{h.Zone.ID, site.CanonicalName(name)}] = true
		}
	}
	var waiting []site.Association
	for _, a := range ties {
		_, parent, _ := strings.Cut(a.Hostname, ".")
		if len(hosts) > 0 && !served[place{a.ZoneID, a.Hostname}] && !served[place{a.ZoneID, "*." + parent}] {
			waiting = append(waiting, a)
		}
	}
	return waiting
}

// trustEntry is the audit record of a change of a CA.
func (s *server) trustEntry(c *call, action string, ca site.TrustedCA) auditlog.Entry {
	return auditlog.Entry{
		At: s.Now().UTC(), Actor: c.caller.Name, Action: action, Object: ca.ID, Outcome: "done",
		Detail: map[string]string{"name": ca.Name, "product": string(ca.Product)},
	}
}

// subjects names the certificates of a bundle for the audit log.
func subjects(b bundle) string {
	texts := make([]string, len(b.certs))
	for i, c := range b.certs {
		texts[i] = pkix.DNString(c.RawSubject) + " sha256=" + pkix.FingerprintOf(c.Raw).String()
	}
	return clip(strings.Join(texts, "; "), 2000)
}

func namesOf(ties []site.Association) string {
	return clip(strings.Join(hostnamesOf(ties), " "), 2000)
}

// hostnamesOf is never nil.
func hostnamesOf(ties []site.Association) []string {
	names := make([]string, len(ties))
	for i, a := range ties {
		names[i] = a.Hostname
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ofCA returns what is tied to a CA, in every zone.
func ofCA(all []site.Association, id string) []site.Association {
	return slices.DeleteFunc(slices.Clone(all), func(a site.Association) bool { return a.CAID != id })
}

// trustedCA finds a record by its id.
func (s *server) trustedCA(ctx context.Context, id string) (site.TrustedCA, error) {
	all, err := s.Records.TrustedCAs(ctx)
	if err != nil {
		return site.TrustedCA{}, err
	}
	for _, ca := range all {
		if ca.ID == id {
			return ca, nil
		}
	}
	return site.TrustedCA{}, noSuchCA(id)
}

func noSuchCA(id string) *refusal {
	return refuse(http.StatusNotFound, codeNotFound, "no CA has the id "+clip(id, 60))
}

// newNames are hostnames that take the place of those a CA has.
type newNames struct {
	zones     []site.Zone
	hostnames []string
	pointer   string
}

// updateTrustedCA changes a record and, unless names is nil, its hostnames, and puts that into force.
func (s *server) updateTrustedCA(ctx context.Context, c *call, id string, change func(*site.TrustedCA) error, names *newNames) (site.TrustedCA, []message, error) {
	s.trusting.Lock()
	defer s.trusting.Unlock()
	ca, err := s.trustedCA(ctx, id)
	if err != nil {
		return ca, nil, err
	}
	if err := change(&ca); err != nil {
		return ca, nil, err
	}
	ca.UpdatedOn = s.Now().UTC()
	entry := s.trustEntry(c, "trust.update", ca)
	entry.Detail["policy"] = policyText(ca.Policy)
	var ties []site.Association
	if names != nil {
		if ties, err = s.tiesOf(ctx, names.zones, ca.ID, names.hostnames, names.pointer); err != nil {
			return ca, nil, err
		}
		entry.Detail["hostnames"] = namesOf(ties)
	}
	err = s.Records.UpdateTrustedCA(ctx, ca, ties, entry)
	if errors.Is(err, site.ErrNoTrustedCA) {
		return ca, nil, noSuchCA(id)
	}
	if err == nil {
		err = s.putIntoForce(ctx)
	}
	return ca, s.waitingFor(ties), err
}

// deleteTrustedCA forgets a CA to which no hostname is tied.
func (s *server) deleteTrustedCA(ctx context.Context, c *call, ca site.TrustedCA, clear string) error {
	s.trusting.Lock()
	defer s.trusting.Unlock()
	err := s.Records.DeleteTrustedCA(ctx, ca.ID, s.trustEntry(c, "trust.remove", ca))
	switch {
	case errors.Is(err, site.ErrNoTrustedCA):
		return noSuchCA(ca.ID)
	case errors.Is(err, site.ErrTied):
		all, err := s.Records.Associations(ctx)
		if err != nil {
			return err
		}
		return refuse(http.StatusBadRequest, codeConflict, "the certificate is still associated with hostnames: "+
			clip(strings.Join(hostnamesOf(ofCA(all, ca.ID)), ", "), 300)+"; "+clear)
	case err != nil:
		return err
	}
	return s.putIntoForce(ctx)
}

// newUUID is a random UUID (RFC 9562, Section 5.4).
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
