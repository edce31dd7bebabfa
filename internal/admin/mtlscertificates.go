package admin

import (
	"context"
	"crypto/x509"
	"slices"

	"sekisho/internal/pkix"
	"sekisho/internal/site"
)

// mtlsObject is a CA as Cloudflare's API Shield shows it. What is said of a chain is said of its first certificate.
type mtlsObject struct {
	ID           string  `json:"id"`
	Name         string  `json:"name"`
	CA           bool    `json:"ca"`
	Certificates string  `json:"certificates"` // PEM
	Issuer       string  `json:"issuer"`
	SerialNumber string  `json:"serial_number"` // decimal, unlike that of a client certificate
	Signature    string  `json:"signature"`
	Type         string  `json:"type"`
	ExpiresOn    *string `json:"expires_on"`
	UploadedOn   *string `json:"uploaded_on"`
	UpdatedAt    *string `json:"updated_at,omitempty"` // in the answer that creates it only
}

// newMTLSObject leaves empty what a certificate that cannot be read any more would say: it must be possible to see and
// delete it.
func newMTLSObject(ca site.TrustedCA) mtlsObject {
	o := mtlsObject{ID: ca.ID, Name: ca.Name, CA: true, Certificates: ca.PEM, Type: "custom", UploadedOn: stamp(ca.UploadedOn)}
	if cert := firstCertificate(ca); cert != nil {
		o.Issuer, o.SerialNumber = pkix.DNString(cert.RawIssuer), cert.SerialNumber.String()
		o.Signature, o.ExpiresOn = certSignature(cert), stamp(cert.NotAfter)
	}
	return o
}

// firstCertificate is nil when the record cannot be read.
func firstCertificate(ca site.TrustedCA) *x509.Certificate {
	certs, err := pkix.ParseCertificates([]byte(ca.PEM))
	if err != nil {
		return nil
	}
	return certs[0]
}

// mtlsRequest is Cloudflare's body.
type mtlsRequest struct {
	CA           *bool  `json:"ca"`
	Certificates string `json:"certificates"`
	Name         string `json:"name"`
	PrivateKey   string `json:"private_key"`
}

func (s *server) addMTLS(ctx context.Context, c *call, req mtlsRequest) (noted, error) {
	if err := s.checkAccount(c.path("account")); err != nil {
		return noted{}, err
	}
	switch {
	case req.CA == nil:
		return noted{}, invalid("/ca", "ca: say true; only certificates of CAs are kept here")
	case !*req.CA:
		return noted{}, invalid("/ca", "ca: only CAs are kept here; the certificate that the edge shows to an origin is the host's upstream_tls in the configuration file")
	case req.PrivateKey != "":
		return noted{}, invalid("/private_key", "private_key: a CA is trusted by its certificates alone: keep its key to yourself; it was not stored")
	}
	ca, messages, err := s.addTrustedCA(ctx, c, newTrust{
		product: site.MTLS, name: req.Name, certificates: req.Certificates, pointer: "/certificates",
	})
	if err != nil {
		return noted{}, err
	}
	object := newMTLSObject(ca)
	object.UpdatedAt = stamp(ca.UpdatedOn)
	return noted{result: object, messages: messages}, nil
}

func (s *server) listMTLS(ctx context.Context, c *call, _ none) (list[mtlsObject], error) {
	if err := s.checkAccount(c.path("account")); err != nil {
		return list[mtlsObject]{}, err
	}
	p, err := pageOf(c.query)
	if err != nil {
		return list[mtlsObject]{}, err
	}
	all, err := s.Records.TrustedCAs(ctx)
	if err != nil {
		return list[mtlsObject]{}, err
	}
	objects := []mtlsObject{}
	for _, ca := range all {
		if ca.Product == site.MTLS {
			objects = append(objects, newMTLSObject(ca))
		}
	}
	return cut(p, objects), nil
}

// mtls finds the CA that the path names.
func (s *server) mtls(ctx context.Context, c *call) (site.TrustedCA, error) {
	if err := s.checkAccount(c.path("account")); err != nil {
		return site.TrustedCA{}, err
	}
	ca, err := s.trustedCA(ctx, c.path("id"))
	if err == nil && ca.Product != site.MTLS {
		return site.TrustedCA{}, noSuchCA(ca.ID)
	}
	return ca, err
}

func (s *server) getMTLS(ctx context.Context, c *call, _ none) (mtlsObject, error) {
	ca, err := s.mtls(ctx, c)
	if err != nil {
		return mtlsObject{}, err
	}
	return newMTLSObject(ca), nil
}

func (s *server) deleteMTLS(ctx context.Context, c *call, _ none) (mtlsObject, error) {
	ca, err := s.mtls(ctx, c)
	if err != nil {
		return mtlsObject{}, err
	}
	clear := "clear them first: PUT zones/{zone}/certificate_authorities/hostname_associations with {\"hostnames\":[],\"mtls_certificate_id\":\"" + ca.ID + "\"}"
	return newMTLSObject(ca), s.deleteTrustedCA(ctx, c, ca, clear)
}

// serviceObject is something that uses a CA.
type serviceObject struct {
	Service string `json:"service"`
	Status  string `json:"status"`
}

// listServices answers one line a zone whose hostnames are tied to the CA.
func (s *server) listServices(ctx context.Context, c *call, _ none) ([]serviceObject, error) {
	ca, err := s.mtls(ctx, c)
	if err != nil {
		return nil, err
	}
	all, err := s.Records.Associations(ctx)
	if err != nil {
		return nil, err
	}
	services := []serviceObject{}
	var zones []string
	for _, a := range ofCA(all, ca.ID) {
		if !slices.Contains(zones, a.ZoneID) {
			zones = append(zones, a.ZoneID)
			services = append(services, serviceObject{Service: "hostname_associations", Status: "active"})
		}
	}
	return services, nil
}
