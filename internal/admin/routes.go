package admin

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// prefix is where Cloudflare's API lives; everything is under it.
const prefix = "/client/v4"

// routes is the table of every call. A GET answers HEAD as well.
func (s *server) routes() []route {
	const (
		certificates = "/zones/{zone}/client_certificates"
		ties         = "/zones/{zone}/certificate_authorities/hostname_associations"
		zoneSwitches = "/zones/{zone}/access/certificates/settings"
		switches     = "/accounts/{account}/access/certificates/settings"
		mtls         = "/accounts/{account}/mtls_certificates"
		zoneAccess   = "/zones/{zone}/access/certificates"
		access       = "/accounts/{account}/access/certificates"
		trusted      = "/sekisho/trust"
	)
	routes := []route{
		{"GET", "/user/tokens/verify", handle(s, "token.verify", s.verifyToken)},
		{"GET", "/accounts", handle(s, "account.list", s.listAccounts)},
		{"GET", "/accounts/{account}", handle(s, "account.get", s.getAccount)},
		{"GET", "/zones", handle(s, "zone.list", s.listZones)},
		{"GET", "/zones/{zone}", handle(s, "zone.get", s.getZone)},

		{"POST", certificates, handle(s, "certificate.issue", s.issueCertificate)},
		{"GET", certificates, handle(s, "certificate.list", s.listCertificates)},
		{"GET", certificates + "/{id}", handle(s, "certificate.get", s.getCertificate)},
		{"PATCH", certificates + "/{id}", handle(s, "certificate.reactivate", s.reactivateCertificate)},
		{"DELETE", certificates + "/{id}", handle(s, "certificate.revoke", s.revokeCertificate)},

		{"GET", ties, handle(s, "hostname_associations.get", s.getAssociations)},
		{"PUT", ties, handle(s, "hostname_associations.replace", s.putAssociations)},
		{"GET", zoneSwitches, handle(s, "access_settings.get", s.getSettings)},
		{"PUT", zoneSwitches, handle(s, "access_settings.put", s.putSettings)},
		{"GET", switches, handle(s, "access_settings.get", s.getSettings)},
		{"PUT", switches, handle(s, "access_settings.put", s.putSettings)},

		{"POST", mtls, handle(s, "trust.add", s.addMTLS)},
		{"GET", mtls, handle(s, "trust.list", s.listMTLS)},
		{"GET", mtls + "/{id}", handle(s, "trust.get", s.getMTLS)},
		{"DELETE", mtls + "/{id}", handle(s, "trust.remove", s.deleteMTLS)},
		{"GET", mtls + "/{id}/associations", handle(s, "trust.services", s.listServices)},

		{"GET", trusted, handle(s, "trust.list", s.listTrust)},
		{"POST", trusted, handle(s, "trust.add", s.addTrust)},
		{"GET", trusted + "/{ca}", handle(s, "trust.get", s.getTrust)},
		{"DELETE", trusted + "/{ca}", handle(s, "trust.remove", s.deleteTrust)},
		{"PUT", trusted + "/{ca}/policy", handle(s, "trust.update", s.putPolicy)},
		{"PATCH", trusted + "/{ca}/policy", handle(s, "trust.update", s.patchPolicy)},
		{"PUT", trusted + "/{ca}/hostnames", handle(s, "trust.update", s.putTrustHostnames)},
		{"POST", trusted + "/{ca}/crls", handle(s, "trust.update", s.addCRLPlace)},
		{"GET", trusted + "/{ca}/eku", handle(s, "trust.eku", s.explainUsage)},

		{"GET", "/sekisho/ca", handle(s, "ca.show", s.showCA)},
		{"GET", "/sekisho/ca/{name}/crl", handle(s, "ca.crl", s.showCRL)},
		{"POST", "/sekisho/ca/{name}/crl", handle(s, "ca.import_crl", s.importCRL)},
		{"PUT", "/sekisho/ca/{name}/ocsp-signer", handle(s, "ca.ocsp_signer", s.putSigner)},
		{"PUT", "/sekisho/ca/{name}/trust", handle(s, "ca.trust", s.putTrust)},
		{"POST", "/sekisho/ca/import", handle(s, "ca.import", s.importCA)},
		{"POST", "/sekisho/ca/rotate", handle(s, "ca.rotate", s.rotateCA)},
		{"POST", "/sekisho/certificates/import", handle(s, "certificate.import", s.importCertificates)},
		{"POST", "/sekisho/explain", handle(s, "explain.certificate", s.explainCertificate)},
		{"GET", "/sekisho/explain/{request}", handle(s, "explain.refusal", s.explainRefusal)},
		{"GET", "/sekisho/version", handle(s, "version.show", s.showVersion)},
		{"GET", "/sekisho/tokens", handle(s, "token.list", s.listTokens)},
		{"POST", "/sekisho/tokens", handle(s, "token.create", s.createToken)},
		{"DELETE", "/sekisho/tokens/{token}", handle(s, "token.revoke", s.revokeToken)},
		{"GET", "/sekisho/audit", handle(s, "audit.list", s.listAudit)},
		{"POST", "/sekisho/config/reload", handle(s, "config.reload", s.reloadConfig)},
	}
	for _, certificates := range []string{zoneAccess, access} {
		routes = append(routes,
			route{"POST", certificates, handle(s, "trust.add", s.addAccess)},
			route{"GET", certificates, handle(s, "trust.list", s.listAccess)},
			route{"GET", certificates + "/{id}", handle(s, "trust.get", s.getAccess)},
			route{"PUT", certificates + "/{id}", handle(s, "trust.update", s.putAccess)},
			route{"DELETE", certificates + "/{id}", handle(s, "trust.remove", s.deleteAccess)})
	}
	return routes
}

// handler is the table behind the guard.
func (s *server) handler() http.Handler {
	methods := make(map[string]byMethod)
	for _, r := range s.routes() {
		if methods[r.pattern] == nil {
			methods[r.pattern] = make(byMethod)
		}
		methods[r.pattern][r.method] = r.handler
	}
	mux := http.NewServeMux()
	for pattern, m := range methods {
		m[""] = s.methodNotAllowed(m.names())
		mux.Handle(prefix+pattern, m)
	}
	mux.Handle("/", handle(s, "admin.call", func(_ context.Context, c *call, _ none) (none, error) {
		return none{}, noRoute(c.url)
	}))
	return s.guard(mux)
}

// byMethod is the handlers of one path; that of "" answers every method that has none.
type byMethod map[string]http.Handler

func (m byMethod) names() []string {
	var names []string
	for name := range m {
		names = append(names, name)
		if name == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return names
}

// ServeHTTP passes the request to the handler of its method.
func (m byMethod) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	h, ok := m[method]
	if !ok {
		h = m[""]
	}
	h.ServeHTTP(w, r)
}

// methodNotAllowed says what a path is asked with. Like every answer it needs a credential.
func (s *server) methodNotAllowed(allowed []string) http.Handler {
	text := strings.Join(allowed, ", ")
	return handle(s, "admin.call", func(_ context.Context, c *call, _ none) (none, error) {
		refused := refuse(http.StatusMethodNotAllowed, codeMethod, "Method not allowed: "+c.url+" takes "+text)
		refused.allow = text
		return none{}, refused
	})
}
