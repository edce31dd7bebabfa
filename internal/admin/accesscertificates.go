package admin

import (
	"context"
	"crypto/md5" //nolint:gosec // Cloudflare's fingerprint is of MD5; nothing is decided by it
	"fmt"
	"strings"

	"sekisho/internal/site"
)

// accessObject is a CA as Cloudflare's Access shows it: without its PEM.
type accessObject struct {
	ID                  string   `json:"id"`
	Name                string   `json:"name"`
	Fingerprint         string   `json:"fingerprint"`
	AssociatedHostnames []string `json:"associated_hostnames"`
	CreatedAt           *string  `json:"created_at"`
	UpdatedAt           *string  `json:"updated_at"`
	ExpiresOn           *string  `json:"expires_on"`
}

func newAccessObject(ca site.TrustedCA, ties []site.Association) accessObject {
	o := accessObject{
		ID: ca.ID, Name: ca.Name, AssociatedHostnames: hostnamesOf(ofCA(ties, ca.ID)), CreatedAt: stamp(ca.UploadedOn), UpdatedAt: stamp(ca.UpdatedOn),
	}
	if cert := firstCertificate(ca); cert != nil {
		o.Fingerprint, o.ExpiresOn = md5Fingerprint(cert.Raw), stamp(cert.NotAfter)
	}
	return o
}

// md5Fingerprint is what `openssl x509 -noout -fingerprint -md5` prints.
func md5Fingerprint(der []byte) string {
	sum := md5.Sum(der) //nolint:gosec // see the import
	octets := make([]string, len(sum))
	for i, b := range sum {
		octets[i] = fmt.Sprintf("%02X", b)
	}
	return "MD5 Fingerprint=" + strings.Join(octets, ":")
}

// accessRequest is Cloudflare's body, of POST and of PUT.
type accessRequest struct {
	Name                *string  `json:"name"`
	Certificate         string   `json:"certificate"`
	AssociatedHostnames []string `json:"associated_hostnames"`
}

func (s *server) addAccess(ctx context.Context, c *call, req accessRequest) (noted, error) {
	zones, err := s.settingsZones(ctx, c)
	if err != nil {
		return noted{}, err
	}
	if req.Name == nil || strings.TrimSpace(*req.Name) == "" {
		return noted{}, invalid("/name", "name: give the CA a name")
	}
	ca, messages, err := s.addTrustedCA(ctx, c, newTrust{
		product: site.Access, zoneID: c.path("zone"), name: *req.Name, certificates: req.Certificate, pointer: "/certificate",
		hostnames: req.AssociatedHostnames, zones: zones, namesPointer: "/associated_hostnames",
	})
	if err != nil {
		return noted{}, err
	}
	object, err := s.accessObject(ctx, ca)
	return noted{result: object, messages: messages}, err
}

func (s *server) accessObject(ctx context.Context, ca site.TrustedCA) (accessObject, error) {
	ties, err := s.Records.Associations(ctx)
	return newAccessObject(ca, ties), err
}

func (s *server) listAccess(ctx context.Context, c *call, _ none) (list[accessObject], error) {
	if _, err := s.settingsZones(ctx, c); err != nil {
		return list[accessObject]{}, err
	}
	p, err := pageOf(c.query)
	if err != nil {
		return list[accessObject]{}, err
	}
	all, err := s.Records.TrustedCAs(ctx)
	if err != nil {
		return list[accessObject]{}, err
	}
	ties, err := s.Records.Associations(ctx)
	if err != nil {
		return list[accessObject]{}, err
	}
	objects := []accessObject{}
	for _, ca := range all {
		if ca.Product == site.Access && ca.ZoneID == c.path("zone") {
			objects = append(objects, newAccessObject(ca, ties))
		}
	}
	return cut(p, objects), nil
}

// access finds the CA that the path names, of that zone or of the account, and the zones that its hostnames may be of.
func (s *server) access(ctx context.Context, c *call) (site.TrustedCA, []site.Zone, error) {
	zones, err := s.settingsZones(ctx, c)
	if err != nil {
		return site.TrustedCA{}, nil, err
	}
	ca, err := s.trustedCA(ctx, c.path("id"))
	if err == nil && (ca.Product != site.Access || ca.ZoneID != c.path("zone")) {
		err = noSuchCA(ca.ID)
	}
	return ca, zones, err
}

func (s *server) getAccess(ctx context.Context, c *call, _ none) (accessObject, error) {
	ca, _, err := s.access(ctx, c)
	if err != nil {
		return accessObject{}, err
	}
	return s.accessObject(ctx, ca)
}

// putAccess replaces the hostnames; absent ones are cleared, an absent name stays.
func (s *server) putAccess(ctx context.Context, c *call, req accessRequest) (noted, error) {
	ca, zones, err := s.access(ctx, c)
	if err != nil {
		return noted{}, err
	}
	if req.Name != nil && *req.Name != "" {
		if err := checkCAName(*req.Name); err != nil {
			return noted{}, err
		}
	}
	rename := func(ca *site.TrustedCA) error {
		if req.Name != nil && *req.Name != "" {
			ca.Name = *req.Name
		}
		return nil
	}
	names := newNames{zones: zones, hostnames: req.AssociatedHostnames, pointer: "/associated_hostnames"}
	ca, messages, err := s.updateTrustedCA(ctx, c, ca.ID, rename, &names)
	if err != nil {
		return noted{}, err
	}
	object, err := s.accessObject(ctx, ca)
	return noted{result: object, messages: messages}, err
}

// accessID is Cloudflare's answer to the deletion of a CA of Access.
type accessID struct {
	ID string `json:"id"`
}

func (s *server) deleteAccess(ctx context.Context, c *call, _ none) (accessID, error) {
	ca, _, err := s.access(ctx, c)
	if err != nil {
		return accessID{}, err
	}
	return accessID{ID: ca.ID}, s.deleteTrustedCA(ctx, c, ca, `clear them first: PUT the certificate with {"associated_hostnames":[]}`)
}
