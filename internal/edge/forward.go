package edge

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"net/http"
	"strings"

	"sekisho/internal/pkix"
	"sekisho/internal/site"
)

// field is a header field under its canonical name. The values are shared between requests and never changed.
type field struct {
	name   string
	values []string
}

// identityHeaders is what one connection's upstreams are told about its client, in one combination of formats. It is
// made once per standing and combination, so that a request on a kept connection encodes nothing.
type identityHeaders struct {
	forward  site.Forward
	client   *clientFacts
	fields   []field          // empty for an anonymous or refused client
	tooLarge bool             // the fingerprint only
	next     *identityHeaders // of the same standing, for another Forward; there are 16 at most
}

// clientFacts is what log lines and pages say about the client of a connection, and what every upstream is told of it
// whether it has a certificate or not.
type clientFacts struct {
	subject      string // RFC 4514, empty without a certificate
	serial       string // upper hex in whole bytes
	forwardedFor []string
	proto        []string
	port         []string
}

// headersFor returns what the upstream of a host is told about the client of a connection; made when missing.
func (p *pipeline) headersFor(c *conn, s *standing, host *site.Host) *identityHeaders {
	forward := host.Forward
	if host.Mode == site.Off {
		forward = site.Forward{}
	}
	first := s.headers.Load()
	for h := first; h != nil; h = h.next {
		if h.forward == forward {
			return h
		}
	}
	var chain []*x509.Certificate
	if s.identity.Verified() {
		chain = s.identity.Chain()
	}
	h := newIdentityHeaders(chain, forward, p.maxIdentity)
	h.next = first
	if first != nil {
		h.client = first.client
	} else {
		h.client = newClientFacts(c, s.identity.Leaf())
	}
	s.headers.CompareAndSwap(first, h) // a lost race costs another encoding, nothing else
	if h.tooLarge && !c.warned.Swap(true) {
		p.logger.Warn("identity headers are too large: the upstream gets the fingerprint only",
			"host", host.Name, "remote", c.remote, "limit", p.maxIdentity, "subject", h.client.subject)
	}
	return h
}

// newIdentityHeaders encodes a chain as presented, leaf first, in the formats of f. When names and values together
// exceed limit bytes, the upstream gets Cf-Client-Cert-Sha256 (and XFCC's Hash, if XFCC is on) instead of all.
func newIdentityHeaders(chain []*x509.Certificate, f site.Forward, limit int) *identityHeaders {
	h := &identityHeaders{forward: f}
	if len(chain) == 0 {
		return h
	}
	leaf, fingerprint := chain[0], pkix.FingerprintOf(chain[0].Raw).String()
	if f.RFC9440 {
		h.add("Client-Cert", byteSequence(leaf.Raw))
		if len(chain) > 1 {
			items := make([]string, 0, len(chain)-1)
			for _, c := range chain[1:] {
				items = append(items, byteSequence(c.Raw))
			}
			h.add("Client-Cert-Chain", strings.Join(items, ", "))
		}
	}
	if f.DERBase64 {
		h.add("Cf-Client-Cert-Der-Base64", base64.StdEncoding.EncodeToString(leaf.Raw))
		h.add("Cf-Client-Cert-Sha256", fingerprint)
	}
	if f.XFCC {
		h.add("X-Forwarded-Client-Cert", xfcc(chain, fingerprint, f.XFCCWithCert))
	}
	if h.size() <= limit {
		return h
	}
	h.fields, h.tooLarge = nil, true
	h.add("Cf-Client-Cert-Sha256", fingerprint)
	if f.XFCC {
		h.add("X-Forwarded-Client-Cert", "Hash="+fingerprint)
	}
	return h
}

func (h *identityHeaders) add(name, value string) {
	h.fields = append(h.fields, field{name, []string{value}})
}

func (h *identityHeaders) size() int {
	n := 0
	for _, f := range h.fields {
		n += len(f.name) + len(f.values[0])
	}
	return n
}

// set writes the fields into a request's header.
func (h *identityHeaders) set(header http.Header) {
	for _, f := range h.fields {
		header[f.name] = f.values
	}
}

// byteSequence is a structured field's Byte Sequence (RFC 9440, Section 2.1; RFC 9651, Section 3.3.5).
func byteSequence(der []byte) string { return ":" + base64.StdEncoding.EncodeToString(der) + ":" }

// xfcc is one element of X-Forwarded-Client-Cert in Envoy's order: Hash, Cert, Chain, Subject, URI, DNS.
func xfcc(chain []*x509.Certificate, fingerprint string, withCert bool) string {
	var b strings.Builder
	b.WriteString("Hash=" + fingerprint)
	if withCert {
		b.WriteString(`;Cert="` + urlPEM(chain[:1]) + `";Chain="` + urlPEM(chain) + `"`)
	}
	b.WriteString(`;Subject="` + headerDN(pkix.DNString(chain[0].RawSubject)) + `"`)
	for _, u := range chain[0].URIs {
		b.WriteString(";URI=" + xfccValue(u.String()))
	}
	for _, name := range chain[0].DNSNames {
		b.WriteString(";DNS=" + xfccValue(name))
	}
	return b.String()
}

// urlPEM is the certificates as PEM, percent-encoded as Envoy does.
func urlPEM(chain []*x509.Certificate) string {
	var text strings.Builder
	for _, c := range chain {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D").Replace(text.String())
}

const upperHex = "0123456789ABCDEF"

// headerDN makes RFC 4514 text safe inside a quoted XFCC value: bytes that are no printable ASCII, quotes and
// backslashes become hex pairs (RFC 4514, Section 2.4), so that no parser of XFCC can be led to end the value early.
func headerDN(dn string) string {
	var b strings.Builder
	for i := 0; i < len(dn); i++ {
		c := dn[i]
		if c == '\\' && i+1 < len(dn) && (dn[i+1] == '\\' || dn[i+1] == '"') {
			i++
			c = dn[i]
		} else if c >= ' ' && c < 0x7f && c != '"' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'\\', upperHex[c>>4], upperHex[c&15]})
	}
	return b.String()
}

// xfccValue is a URI or DNS name from a certificate: percent-encoded where a header or a quoted value cannot hold it,
// and quoted when it contains one of XFCC's separators.
func xfccValue(value string) string {
	var b strings.Builder
	quote := false
	for i := range len(value) {
		c := value[i]
		switch {
		case c <= ' ' || c >= 0x7f || c == '"' || c == '\\':
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
			continue
		case c == ',' || c == ';' || c == '=':
			quote = true
		}
		b.WriteByte(c)
	}
	if quote {
		return `"` + b.String() + `"`
	}
	return b.String()
}

// newClientFacts reads what is known of a connection's client.
func newClientFacts(c *conn, leaf *x509.Certificate) *clientFacts {
	f := &clientFacts{forwardedFor: []string{c.remote}, proto: []string{"https"}}
	if leaf != nil {
		f.subject = pkix.DNString(leaf.RawSubject)
		f.serial = pkix.SerialOf(leaf.SerialNumber).Upper()
	}
	if c.raw != nil {
		if _, port, err := net.SplitHostPort(c.raw.LocalAddr().String()); err == nil {
			f.port = []string{port}
		}
	}
	return f
}
