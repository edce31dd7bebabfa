package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sekisho/internal/auditlog"
	"sekisho/internal/site"
)

// maxHostnames bounds a list of hostnames in one call: every one may become a host of its own.
const maxHostnames = 1000

// associationsRequest is the body of the PUT. Absent hostnames clear the list, as an empty list does: Cloudflare's
// older client leaves an empty one out.
type associationsRequest struct {
	Hostnames []string `json:"hostnames"`
	CA        string   `json:"mtls_certificate_id"` // absent or "": the CA of the house
}

type associationsObject struct {
	Hostnames []string `json:"hostnames"`
}

func (s *server) getAssociations(ctx context.Context, c *call, _ none) (noted, error) {
	z, err := s.zone(ctx, c.path("zone"))
	if err != nil {
		return noted{}, err
	}
	caID := c.query.Get("mtls_certificate_id")
	if err := s.knownCA(ctx, caID); err != nil {
		return noted{}, err
	}
	return s.associations(ctx, z, caID)
}

// associations is the answer of both calls: what the API has tied. What the configuration file ties is told beside it,
// so that the list can be sent back as it is.
func (s *server) associations(ctx context.Context, z site.Zone, caID string) (noted, error) {
	all, err := s.Records.Associations(ctx)
	if err != nil {
		return noted{}, err
	}
	all = slices.DeleteFunc(all, func(a site.Association) bool { return a.ZoneID != z.ID })
	answer := noted{result: associationsObject{Hostnames: hostnamesOf(ofCA(all, caID))}}
	if caID != "" {
		return answer, nil
	}
	for _, name := range s.tiedByFile(z.ID) {
		answer.messages = append(answer.messages, message{
			Code: codeReadOnly, Message: name + " is tied to this CA by the configuration file, too",
		})
	}
	return answer, nil
}

// knownCA refuses a CA that there is not. The one of the house has no id here, those of Access have calls of their own.
func (s *server) knownCA(ctx context.Context, id string) error {
	switch {
	case id == "":
		return nil
	case !uuid.MatchString(id):
		return invalid("/mtls_certificate_id", "mtls_certificate_id: "+clip(id, 60)+" is no id of a CA")
	}
	switch ca, err := s.trustedCA(ctx, id); {
	case err != nil:
		if r := asRefusal(err); r != nil && r.status == http.StatusNotFound {
			return refuse(http.StatusNotFound, codeNotFound, "no CA has the id "+id+"; leave mtls_certificate_id out for the managed CA")
		}
		return err
	case ca.Product != site.MTLS:
		return refuse(http.StatusNotFound, codeNotFound, "the CA "+id+" came by Access: its hostnames are changed by PUT access/certificates/"+id)
	}
	return nil
}

func (s *server) putAssociations(ctx context.Context, c *call, req associationsRequest) (noted, error) {
	z, err := s.zone(ctx, c.path("zone"))
	if err != nil {
		return noted{}, err
	}
	s.trusting.Lock()
	defer s.trusting.Unlock()
	if err := s.knownCA(ctx, req.CA); err != nil {
		return noted{}, err
	}
	names, err := s.namesToTie(z, req)
	if err != nil {
		return noted{}, err
	}
	if req.CA != "" {
		if err := s.roomForTies(ctx, req.CA, z.ID, len(names), "/hostnames"); err != nil {
			return noted{}, err
		}
	}
	entry := auditlog.Entry{
		At: s.Now().UTC(), Actor: c.caller.Name, Action: "hostname_associations.replace", Object: z.ID, Outcome: "done",
		Detail: map[string]string{"hostnames": clip(strings.Join(names, " "), 2000)},
	}
	if req.CA != "" {
		entry.Detail["ca"] = req.CA
	}
	if err := s.Records.ReplaceAssociations(ctx, z.ID, req.CA, names, entry); err != nil {
		return noted{}, err
	}
	if err := s.putIntoForce(ctx); err != nil {
		return noted{}, err
	}
	answer, err := s.associations(ctx, z, req.CA)
	ties := make([]site.Association, len(names))
	for i, name := range names {
		ties[i] = site.Association{ZoneID: z.ID, Hostname: name}
	}
	answer.messages = append(answer.messages, s.waitingFor(ties)...)
	return answer, err
}

// namesToTie checks a list of hostnames and returns it sorted, in the form in which it is stored, each name once.
func (s *server) namesToTie(z site.Zone, req associationsRequest) ([]string, error) {
	hostnames := req.Hostnames
	if len(hostnames) > maxHostnames {
		return nil, invalid("/hostnames", fmt.Sprintf("hostnames: %d are too many: give at most %d, or a wildcard", len(hostnames), maxHostnames))
	}
	var tied []string // what the file says of the managed CA says nothing of others
	if req.CA == "" {
		tied = s.tiedByFile(z.ID)
	}
	names := []string{}
	for i, hostname := range hostnames {
		pointer := fmt.Sprintf("/hostnames/%d", i)
		name, err := s.hostnameOf(z, hostname)
		if err != nil {
			return nil, invalid(pointer, err.Error())
		}
		if slices.Contains(tied, name) {
			readOnly := invalid(pointer, name+" is tied to this CA by the configuration file (client_auth of the host "+name+
				") and cannot be changed by the API: leave it out here, or change the file")
			readOnly.problems[0].Code = codeReadOnly
			return nil, readOnly
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// putIntoForce makes the edge work by what was stored. The change is durable whatever happens here, so an error says
// both things: it is stored, and it is not in force.
func (s *server) putIntoForce(ctx context.Context) error {
	return notInForce(s.SiteChanged(ctx))
}

// notInForce answers a change that is stored and that the hosts do not work by.
func notInForce(err error) error {
	if err == nil {
		return nil
	}
	r := refuse(http.StatusInternalServerError, codeNotInForce,
		"the change is stored but not in force: the hosts could not be built anew ("+clip(err.Error(), 300)+
			"); it comes into force with the next reload that succeeds")
	r.noRetry, r.cause = true, err
	return r
}

// tiedByFile returns the names of a zone that the configuration file ties to the managed CA.
func (s *server) tiedByFile(zoneID string) []string {
	var names []string
	for _, h := range s.Hosts() {
		if h.Zone.ID == zoneID && h.ManagedByFile {
			names = append(names, site.CanonicalName(h.Name))
			for _, n := range h.Names {
				names = append(names, site.CanonicalName(n))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// hostnameOf returns a host name in the form in which it is stored, or says why it is none of the zone's. It belongs
// to the zone when it is the zone's domain or below it, or when a host of the zone serves it.
func (s *server) hostnameOf(z site.Zone, hostname string) (string, error) {
	name := site.CanonicalName(strings.TrimSpace(hostname))
	if err := checkHostname(name); err != nil {
		return "", fmt.Errorf("%q %w", clip(hostname, 100), err)
	}
	domain := site.CanonicalName(z.Name)
	if name == domain || strings.HasSuffix(name, "."+domain) {
		return name, nil
	}
	for _, h := range s.Hosts() {
		if h.Zone.ID != z.ID {
			continue
		}
		for _, served := range append([]string{h.Name}, h.Names...) {
			if site.CanonicalName(served) == name {
				return name, nil
			}
		}
	}
	return "", fmt.Errorf("%q does not belong to the zone %s: its names end in .%s", clip(hostname, 100), z.Name, domain)
}

// checkHostname refuses what can be no host name (RFC 1123, Section 2.1, with underscores, and *. before it). The name
// is in canonical form; "" is what that makes of a bad one.
func checkHostname(name string) error {
	if name == "" || len(name) > 253 {
		return errNoHostname
	}
	if strings.Contains(name, ":") {
		return nil // an IPv6 address, or CanonicalName would have refused it
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(name, "*."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return errNoHostname
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return errNoHostname
			}
		}
	}
	return nil
}
