package edge

import "net/http"

// forgeable is a header name, or the beginning of one, that an upstream could take for something the edge says about
// the client. A client's copy never reaches the upstream (DESIGN, invariant 4).
type forgeable struct {
	prefix string // in the form that nameMatcher compares: lower case, one '-' for each run of other bytes
	reason string
}

// forgeables is the table of what is removed from every request, whether the edge sets the header itself or not:
// a header that is switched off today may be switched on tomorrow, and the upstream believes it on both days.
// An entry stands for every name that begins with it.
func forgeables() []forgeable {
	const (
		rfc9440    = "RFC 9440: the client certificate; the edge is the only one who saw it"
		forwarding = "says where a request came from; the edge writes its own"
		cloudflare = "Cloudflare's edge writes these; origins moved from there believe them"
		certText   = "certificate facts as nginx, Apache, HAProxy, Traefik or a load balancer writes them"
		user       = "names the user on behalf of an authenticating proxy"
		own        = "the edge's own names"
	)
	return []forgeable{
		{"client-cert", rfc9440},
		{"clientcert", rfc9440},
		{"x-client-cert", rfc9440},
		{"x-clientcert", rfc9440},
		{"forwarded", "RFC 7239: " + forwarding},
		{"x-forwarded", forwarding}, // -for, -host, -proto, -port, -server, -prefix, -by, -ssl, -client-cert, -tls-..., -user
		{"x-original-forwarded", forwarding},
		{"x-original-host", forwarding},
		{"x-original-remote", forwarding},
		{"x-original-ur", "X-Original-URL, -URI: the path as a proxy saw it; IIS and Symfony believe it rather than the request line"},
		{"x-original-method", forwarding},
		{"x-rewrite-url", "as X-Original-URL"},
		{"x-real-", forwarding},
		{"x-realip", forwarding},
		{"x-client-ip", forwarding},
		{"x-clientip", forwarding},
		{"client-ip", forwarding},
		{"true-client", forwarding},
		{"x-true-client", forwarding},
		{"x-cluster-client", forwarding},
		{"x-originating-ip", forwarding},
		{"x-remote-", user}, // -ip, -addr, -user, -group
		{"x-envoy-", "Envoy's trusted names (external address, peer metadata)"},
		{"fastly-client", forwarding},
		{"fastly-ssl", forwarding},
		{"fly-client", forwarding},
		{"x-appengine-", forwarding},
		{"x-azure-", forwarding},
		{"cf-", cloudflare}, // -client-cert-..., -cert-..., -access-..., -connecting-ip..., -ray, -visitor, -ipcountry, -worker
		{"cdn-loop-client", cloudflare},
		{"x-ssl", certText},
		{"ssl-", certText}, // -client-cert, -client-verify, -client-subject-dn, -client-s-dn, -session-id
		{"x-tls", certText},
		{"tls-client", certText},
		{"x-client-dn", certText},
		{"x-client-s-dn", certText},
		{"x-client-i-dn", certText},
		{"x-client-subject", certText},
		{"x-client-issuer", certText},
		{"x-client-serial", certText},
		{"x-client-verify", certText},
		{"x-client-verified", certText},
		{"x-client-fingerprint", certText},
		{"x-client-san", certText},
		{"x-client-cn", certText},
		{"x-client-ssl", certText},
		{"x-client-tls", certText},
		{"x-cert", certText},
		{"x-peer-cert", certText},
		{"x-mtls", certText},
		{"x-subject-dn", certText},
		{"x-issuer-dn", certText},
		{"x-spiffe", "a workload's SPIFFE ID"},
		{"x-arr-", "Azure App Service: X-ARR-ClientCert"},
		{"x-amzn-mtls-", "AWS load balancer in mTLS verify or passthrough mode"},
		{"x-amzn-tls-", "AWS load balancer's TLS facts"},
		{"x-amzn-oidc-", user},
		{"x-amzn-request-context", user},
		{"x-ms-client-principal", user},
		{"x-goog-iap-", user},
		{"x-goog-authenticated-user", user},
		{"x-auth-request-", user},
		{"x-authenticated-", user},
		{"x-webauth-", user},
		{"x-pomerium-", user},
		{"x-apigateway-", user},
		{"x-endpoint-api-", user},
		{"x-consumer-", user},   // Kong
		{"x-credential-", user}, // Kong
		{"x-anonymous-consumer", user},
		{"x-authentik-", user},
		{"x-vouch-", user},
		{"tailscale-", user},
		{"remote-", user}, // -user, -addr, -groups: what CGI calls REMOTE_USER
		{"auth-user", user},
		{"proxy", "CGI makes HTTP_PROXY of it (CVE-2016-5385); the rest of the family concerns one connection only"},
		{"x-sekisho-", own},
		{"x-request-id", "written by the edge, so that its log line and the upstream's name the same request"},
	}
}

// nameMatcher finds forgeable names. It is immutable and safe for concurrent use.
type nameMatcher struct {
	byFirst [256][]string // prefixes by first byte
}

func newNameMatcher(table []forgeable) *nameMatcher {
	m := new(nameMatcher)
	for _, f := range table {
		first := f.prefix[0]
		m.byFirst[first] = append(m.byFirst[first], f.prefix)
	}
	return m
}

// match reports whether a header name is, or begins with, one of the table in any spelling: letters in either case,
// and any run of bytes that are neither letter nor digit for a dash. CGI, WSGI and PHP turn "Client_Cert" and
// "Client-Cert" into the same variable, some servers "Client.Cert" too. It allocates nothing.
func (m *nameMatcher) match(name string) bool {
	start := 0
	for start < len(name) && fold(name[start]) == '-' {
		start++
	}
	if start == len(name) {
		return false
	}
	for _, prefix := range m.byFirst[fold(name[start])] {
		if beginsWith(name[start:], prefix) {
			return true
		}
	}
	return false
}

// beginsWith compares name, normalised on the way, with a prefix in normal form. A prefix that ends in a dash also
// matches the name without it.
func beginsWith(name, prefix string) bool {
	i := 0
	for p := 0; p < len(prefix); p++ {
		if i == len(name) {
			return p == len(prefix)-1 && prefix[p] == '-'
		}
		if fold(name[i]) != prefix[p] {
			return false
		}
		i++
		if prefix[p] == '-' {
			for i < len(name) && fold(name[i]) == '-' {
				i++
			}
		}
	}
	return true
}

// fold maps a letter to lower case, a digit to itself and any other byte to '-'.
func fold(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	}
	return '-'
}

// strip removes every forgeable header.
func (m *nameMatcher) strip(h http.Header) {
	for name := range h {
		if m.match(name) {
			delete(h, name)
		}
	}
}

// removeHopByHop removes the header fields that are about this connection only (RFC 9110, Section 7.6.1): those that
// Connection names, and those that are so by definition. It keeps "TE: trailers", which gRPC asks for, when trailers
// are wanted. It must run before anything of our own is added: "Connection: Client-Cert" is a known attack.
func removeHopByHop(h http.Header, keepTE bool) {
	for _, line := range h["Connection"] {
		for token := range tokens(line) {
			h.Del(token)
		}
	}
	trailers := keepTE && hasToken(h["Te"], "trailers")
	for _, name := range [...]string{
		"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
	} {
		delete(h, name)
	}
	if trailers {
		h["Te"] = []string{"trailers"}
	}
}
