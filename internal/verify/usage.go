package verify

import (
	"cmp"
	"crypto/x509"
	"slices"
	"time"

	"sekisho/internal/certpath"
	"sekisho/internal/pkix"
	"sekisho/internal/trust"
)

// UsageReport says whom a CA's reading of the extended key usage concerns: clients that were seen with certificates
// which have the extension and do not name clientAuth in it, as those of public CAs by now. The JSON form is that
// of the API and of `sekisho trust eku`.
type UsageReport struct {
	CA      string        `json:"ca"`       // id
	EKU     string        `json:"eku"`      // the policy in force: demand refuses these clients, ignore lets them in
	Since   time.Time     `json:"since"`    // what was seen before is not known
	Clients []UsageClient `json:"clients"`  // the last seen first
	LeftOut uint64        `json:"left_out"` // connections by clients that the table had no room for, of any CA
}

// UsageClient is one certificate of the report.
type UsageClient struct {
	CertificateFacts
	Lacking     string    `json:"lacking"`            // subject of the certificate that lacks clientAuth: the client's, or an issuer's
	Usages      []string  `json:"extended_key_usage"` // that it has
	Hosts       []string  `json:"hosts"`
	Connections uint64    `json:"connections"`
	First       time.Time `json:"first_seen"`
	Last        time.Time `json:"last_seen"`
}

// SeenClient is a client that proved its key and that a CA lets in only while its policy ignores extended key usages, as
// an edge remembers it.
type SeenClient struct {
	CA          string            // id
	Leaf        *x509.Certificate // what the client presented first
	Lacking     *x509.Certificate // the one of its path that lacks clientAuth, the first of several
	Hosts       []string
	Connections uint64
	First, Last time.Time
}

// LackingClientAuth returns the first of the certificates that has an extended key usage which names neither clientAuth
// nor any usage; nil when none has. It allocates nothing.
func LackingClientAuth(certs []*x509.Certificate) *x509.Certificate {
	for _, c := range certs {
		if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 &&
			!slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return c
		}
	}
	return nil
}

// UsageOf is the report about a CA: whom `eku: demand` refuses, or would refuse.
func UsageOf(ca trust.CA, seen []SeenClient) UsageReport {
	report := UsageReport{CA: ca.ID, EKU: cmp.Or(ca.Policy.EKU, trust.EKUDemand), Clients: []UsageClient{}}
	for _, s := range seen {
		if s.CA == ca.ID {
			report.Clients = append(report.Clients, UsageClient{
				CertificateFacts: factsOf(s.Leaf), Lacking: clip(pkix.DNString(s.Lacking.RawSubject)), Usages: usageNames(s.Lacking),
				Hosts: s.Hosts, Connections: s.Connections, First: s.First.UTC(), Last: s.Last.UTC(),
			})
		}
	}
	slices.SortStableFunc(report.Clients, func(a, b UsageClient) int { return b.Last.Compare(a.Last) })
	return report
}

// NeedsEKUIgnored finds a CA of set that what a client presented, leaf first, has a path to when extended key usages are
// ignored and none otherwise, and the certificate of the path that lacks clientAuth. ok is false when there is none. The
// work is that of building a few paths.
func (v *Verifier) NeedsEKUIgnored(set *trust.Set, presented []*x509.Certificate) (ca *trust.CA, lacking *x509.Certificate, ok bool) {
	if len(presented) == 0 || bounded(presented) != nil {
		return nil, nil, false
	}
	for _, group := range set.Groups() {
		o, err := optionsFor(group, v.now())
		if err != nil {
			continue // a policy that was checked has none
		}
		o.EKU = trust.EKUIgnore
		paths, err := certpath.Build(presented[0], presented[1:], o)
		if err != nil {
			continue // not these CAs' client, or refused for something else
		}
		o.EKU = trust.EKUDemand
		if _, err := certpath.Build(presented[0], presented[1:], o); err == nil {
			continue
		}
		ca, lacking = set.CAOf(paths[0][len(paths[0])-1]), LackingClientAuth(paths[0])
		if ca != nil && lacking != nil {
			return ca, lacking, true
		}
	}
	return nil, nil, false
}

// usageNames are the extended key usages of a certificate: registered names, others as dotted object identifiers.
func usageNames(c *x509.Certificate) []string {
	names := []string{}
	for _, usage := range c.ExtKeyUsage {
		names = append(names, usage.String())
	}
	for _, oid := range c.UnknownExtKeyUsage {
		names = append(names, oid.String())
	}
	return names[:min(len(names), maxUsages)]
}

// maxUsages bounds the usages that a report names of one certificate: a stranger's CA wrote them.
const maxUsages = 32
