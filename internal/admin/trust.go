package admin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"sekisho/internal/pkix"
	"sekisho/internal/site"
	"sekisho/internal/trust"
)

// trustObject is a CA whose clients hosts let in, wherever it came from.
type trustObject struct {
	ID            string              `json:"id"` // UUID; of the configuration file its name or path; "managed"
	Name          string              `json:"name"`
	Origin        string              `json:"origin"` // api, file or managed
	Product       string              `json:"product,omitempty"`
	ZoneID        string              `json:"zone_id,omitempty"`
	Hosts         []string            `json:"hosts"`     // hosts in force that trust it
	Hostnames     []string            `json:"hostnames"` // tied by API
	Waiting       []string            `json:"waiting"`   // those of hostnames that no host serves
	Policy        trust.Policy        `json:"policy"`
	Anchors       []trustedCertObject `json:"anchors"`
	Intermediates []trustedCertObject `json:"intermediates"`
	ExpiresOn     *string             `json:"expires_on"` // when the first anchor does
	UploadedOn    *string             `json:"uploaded_on,omitempty"`
	UpdatedOn     *string             `json:"updated_on,omitempty"`
	Certificates  string              `json:"certificates,omitempty"` // PEM, in answers about one CA only
	Error         string              `json:"error,omitempty"`        // why the record cannot be used any more
}

// trustedCertObject is a certificate of a CA.
type trustedCertObject struct {
	Subject           string  `json:"subject"` // RFC 4514
	SerialNumber      string  `json:"serial_number"`
	FingerprintSHA256 string  `json:"fingerprint_sha256"`
	KeyType           string  `json:"key_type"`
	Signature         string  `json:"signature"`
	ExpiresOn         *string `json:"expires_on"`
}

func trustedCerts(certs []*x509.Certificate) []trustedCertObject {
	objects := make([]trustedCertObject, len(certs))
	for i, c := range certs {
		objects[i] = trustedCertObject{
			Subject: pkix.DNString(c.RawSubject), SerialNumber: pkix.SerialOf(c.SerialNumber).String(), FingerprintSHA256: pkix.FingerprintOf(c.Raw).String(),
			KeyType: pkix.KeyTypeOf(c.PublicKey), Signature: certSignature(c), ExpiresOn: stamp(c.NotAfter),
		}
	}
	return objects
}

const managedID = "managed" // as the configuration file calls the CA of the house

// trustView is one look at what hosts trust.
type trustView struct {
	s       *server
	ties    []site.Association
	records []site.TrustedCA
	base    site.Base
	users   map[string][]string // names of hosts in force by the id of a CA
	files   []trust.CA          // of the configuration file
}

func (s *server) trustView(ctx context.Context) (trustView, error) {
	v := trustView{s: s, base: s.Base(), users: make(map[string][]string)}
	var err error
	if v.ties, err = s.Records.Associations(ctx); err != nil {
		return v, err
	}
	if v.records, err = s.Records.TrustedCAs(ctx); err != nil {
		return v, err
	}
	if len(v.base.Managed.Anchors) == 0 {
		v.base.Managed = trust.CA{Name: managedID, Anchors: s.Authority.ClientAnchors()}
	}
	for _, h := range s.Hosts() {
		for _, ca := range h.Trust.CAs() {
			v.users[ca.ID] = append(v.users[ca.ID], h.Name)
		}
	}
	v.files = slices.Clone(v.base.Trust)
	for _, h := range v.base.Hosts {
		for _, ca := range h.CAs {
			if !slices.ContainsFunc(v.files, func(have trust.CA) bool { return have.ID == ca.ID }) {
				v.files = append(v.files, ca)
			}
		}
	}
	return v, nil
}

// object makes the object of a CA. id is that of the records' associations: "" for the managed one.
func (v trustView) object(ca trust.CA, origin, id string) trustObject {
	o := trustObject{
		ID: ca.ID, Name: ca.Name, Origin: origin, Hosts: []string{}, Hostnames: []string{}, Waiting: []string{}, Policy: ca.Policy,
		Anchors: trustedCerts(ca.Anchors), Intermediates: trustedCerts(ca.Intermediates),
	}
	o.Hosts = append(o.Hosts, v.users[ca.ID]...)
	slices.Sort(o.Hosts)
	o.Hosts = slices.Compact(o.Hosts)
	if origin != "file" {
		ties := ofCA(v.ties, id)
		o.Hostnames, o.Waiting = hostnamesOf(ties), hostnamesOf(v.s.waiting(ties))
	}
	if len(ca.Anchors) > 0 {
		first := slices.MinFunc(ca.Anchors, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		o.ExpiresOn = stamp(first.NotAfter)
	}
	return o
}

func (v trustView) record(r site.TrustedCA) trustObject {
	ca, err := r.Parse()
	if err != nil {
		ca = trust.CA{ID: r.ID, Name: r.Name, Policy: r.Policy}
	}
	o := v.object(ca, "api", r.ID)
	o.Product, o.ZoneID, o.UploadedOn, o.UpdatedOn = string(r.Product), r.ZoneID, stamp(r.UploadedOn), stamp(r.UpdatedOn)
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

// all returns every CA: that of the house, those of the configuration file, those of the API in the order they came.
func (v trustView) all() []trustObject {
	var objects []trustObject
	if len(v.base.Managed.Anchors) > 0 {
		o := v.object(v.base.Managed, "managed", "")
		o.ID, o.Name = managedID, cmp.Or(o.Name, managedID)
		objects = append(objects, o)
	}
	for _, ca := range v.files {
		objects = append(objects, v.object(ca, "file", ca.ID))
	}
	for _, r := range v.records {
		objects = append(objects, v.record(r))
	}
	return objects
}

func (s *server) listTrust(ctx context.Context, c *call, _ none) (list[trustObject], error) {
	p, err := pageOf(c.query)
	if err != nil {
		return list[trustObject]{}, err
	}
	v, err := s.trustView(ctx)
	if err != nil {
		return list[trustObject]{}, err
	}
	return cut(p, v.all()), nil
}

func (s *server) getTrust(ctx context.Context, c *call, _ none) (trustObject, error) {
	return s.trustObject(ctx, c.path("ca"))
}

// trustObject is one CA with its certificates.
func (s *server) trustObject(ctx context.Context, id string) (trustObject, error) {
	v, err := s.trustView(ctx)
	if err != nil {
		return trustObject{}, err
	}
	for _, r := range v.records {
		if r.ID == id {
			o := v.record(r)
			o.Certificates = r.PEM
			return o, nil
		}
	}
	for _, o := range v.all() {
		if o.ID != id {
			continue
		}
		for _, ca := range append([]trust.CA{v.base.Managed}, v.files...) {
			if ca.ID == id || id == managedID && o.Origin == managedID {
				o.Certificates = string(pkix.EncodeCertificates(append(slices.Clone(ca.Anchors), ca.Intermediates...)))
				break
			}
		}
		return o, nil
	}
	return trustObject{}, noSuchCA(id)
}

// changeable finds a record of the API and says of other CAs who decides about them.
func (s *server) changeable(ctx context.Context, id string) (site.TrustedCA, error) {
	ca, err := s.trustedCA(ctx, id)
	if err == nil || asRefusal(err) == nil {
		return ca, err
	}
	switch o, other := s.trustObject(ctx, id); {
	case other != nil:
		return ca, err
	case o.Origin == managedID:
		return ca, refuse(http.StatusBadRequest, codeReadOnly, "the managed CA is judged by its own ledger: nothing of it is changed here; "+
			"its hostnames are in zones/{zone}/certificate_authorities/hostname_associations")
	default:
		return ca, refuse(http.StatusBadRequest, codeReadOnly, "the configuration file decides about the CA "+clip(id, 100)+": change it there and reload")
	}
}

// trustRequest adds a CA with its policy and its hostnames in one step.
type trustRequest struct {
	Name         string       `json:"name"`
	Certificates string       `json:"certificates"`
	Product      string       `json:"product"` // mtls (default) or access
	Policy       trust.Policy `json:"policy"`
	Hostnames    []string     `json:"hostnames"`
}

func (trustRequest) bodyIsOurs() {}

func (s *server) addTrust(ctx context.Context, c *call, req trustRequest) (noted, error) {
	product := site.Product(cmp.Or(req.Product, string(site.MTLS)))
	switch {
	case strings.TrimSpace(req.Name) == "":
		return noted{}, invalid("/name", "name: give the CA a name")
	case product != site.MTLS && product != site.Access:
		return noted{}, invalid("/product", "product: want mtls or access")
	}
	if err := checkPolicy(req.Policy, "/policy"); err != nil {
		return noted{}, err
	}
	zones, err := s.Records.Zones(ctx)
	if err != nil {
		return noted{}, err
	}
	ca, messages, err := s.addTrustedCA(ctx, c, newTrust{
		product: product, name: req.Name, certificates: req.Certificates, pointer: "/certificates", policy: req.Policy,
		hostnames: req.Hostnames, zones: zones, namesPointer: "/hostnames",
	})
	if err != nil {
		return noted{}, err
	}
	object, err := s.trustObject(ctx, ca.ID)
	return noted{result: object, messages: messages}, err
}

func (s *server) deleteTrust(ctx context.Context, c *call, _ none) (accessID, error) {
	ca, err := s.changeable(ctx, c.path("ca"))
	if err != nil {
		return accessID{}, err
	}
	return accessID{ID: ca.ID}, s.deleteTrustedCA(ctx, c, ca, "clear them first: sekisho trust untie "+ca.ID+", or PUT "+prefix+"/sekisho/trust/"+ca.ID+`/hostnames with {"hostnames":[]}`)
}

// update changes a CA of the API and answers with it.
func (s *server) update(ctx context.Context, c *call, change func(*site.TrustedCA) error, names *newNames) (noted, error) {
	ca, err := s.changeable(ctx, c.path("ca"))
	if err != nil {
		return noted{}, err
	}
	_, messages, err := s.updateTrustedCA(ctx, c, ca.ID, change, names)
	if err != nil {
		return noted{}, err
	}
	object, err := s.trustObject(ctx, ca.ID)
	return noted{result: object, messages: messages}, err
}

// hostnamesRequest replaces the hostnames of a CA in every zone.
type hostnamesRequest struct {
	Hostnames []string `json:"hostnames"`
}

func (hostnamesRequest) bodyIsOurs() {}

func (s *server) putTrustHostnames(ctx context.Context, c *call, req hostnamesRequest) (noted, error) {
	if req.Hostnames == nil {
		return noted{}, invalid("/hostnames", "hostnames: give a list; an empty one unties the CA")
	}
	zones, err := s.Records.Zones(ctx)
	if err != nil {
		return noted{}, err
	}
	return s.update(ctx, c, func(*site.TrustedCA) error { return nil }, &newNames{zones: zones, hostnames: req.Hostnames, pointer: "/hostnames"})
}

// policyRequest is a policy, or some fields of one, that is read once it is known on top of what.
type policyRequest struct{ raw json.RawMessage }

// UnmarshalJSON keeps the body.
func (p *policyRequest) UnmarshalJSON(data []byte) error {
	p.raw = bytes.Clone(data)
	return nil
}

// policyFields is a policy as a body: a field that is unknown would otherwise leave a CA less strict than it was meant.
type policyFields trust.Policy

func (policyFields) bodyIsOurs() {}

// putPolicy sets the whole policy: what is left out has its default.
func (s *server) putPolicy(ctx context.Context, c *call, req policyRequest) (noted, error) {
	return s.setPolicy(ctx, c, func(trust.Policy) policyFields { return policyFields{} }, req)
}

// patchPolicy sets the fields that are there and leaves the others.
func (s *server) patchPolicy(ctx context.Context, c *call, req policyRequest) (noted, error) {
	return s.setPolicy(ctx, c, func(p trust.Policy) policyFields { return policyFields(p) }, req)
}

func (s *server) setPolicy(ctx context.Context, c *call, from func(trust.Policy) policyFields, req policyRequest) (noted, error) {
	return s.update(ctx, c, func(ca *site.TrustedCA) error {
		fields := from(ca.Policy)
		if err := decodeJSON(req.raw, &fields); err != nil {
			return err
		}
		ca.Policy = trust.Policy(fields)
		return checkPolicy(ca.Policy, "")
	}, nil)
}

// crlRequest names one more place of CRLs.
type crlRequest struct {
	CRL string `json:"crl"`
}

func (crlRequest) bodyIsOurs() {}

func (s *server) addCRLPlace(ctx context.Context, c *call, req crlRequest) (noted, error) {
	return s.update(ctx, c, func(ca *site.TrustedCA) error {
		if !slices.Contains(ca.Policy.CRLs, req.CRL) {
			ca.Policy.CRLs = append(ca.Policy.CRLs, req.CRL)
		}
		err := checkPolicy(ca.Policy, "")
		if r := asRefusal(err); r != nil {
			for i := range r.problems {
				r.problems[i].Source = &source{Pointer: "/crl"}
			}
		}
		return err
	}, nil)
}

// checkPolicy answers each mistake in a policy with its pointer. Paths are absolute here: whoever calls works in another
// directory than the server.
func checkPolicy(p trust.Policy, pointer string) error {
	refused := &refusal{status: http.StatusBadRequest}
	for _, err := range parts(p.Check()) {
		field, _, _ := strings.Cut(err.Error(), " ")
		refused.problems = append(refused.problems, problem{
			Code: codeInvalid, Message: err.Error(), Source: &source{Pointer: pointer + "/" + strings.TrimSuffix(field, ":")},
		})
	}
	for _, l := range []struct {
		field  string
		places []string
	}{{"crls", p.CRLs}, {"crlsets", p.CRLSets}} {
		for _, place := range l.places {
			if !trust.IsURL(place) && !filepath.IsAbs(place) && len(refused.problems) == 0 {
				refused.problems = append(refused.problems, problem{
					Code: codeInvalid, Message: l.field + ": " + clip(place, 100) + " is no http or https URL and no absolute path on the server",
					Source: &source{Pointer: pointer + "/" + l.field},
				})
			}
		}
	}
	if len(refused.problems) == 0 {
		return nil
	}
	return refused
}

// parts takes joined errors apart.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}

// policyText is a policy for the audit log.
func policyText(p trust.Policy) string {
	data, err := json.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return clip(string(data), 4000)
}
