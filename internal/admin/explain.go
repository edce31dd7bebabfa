package admin

import (
	"context"
	"net/http"

	"sekisho/internal/pkix"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// needsEdge refuses what a command asks of the store while no server runs: nothing was judged there.
func needsEdge() error {
	return refuse(http.StatusNotFound, codeNotFound, "only a running server can say that: start it with sekisho serve and ask again")
}

// explainRequest is the body of the POST: whom to judge, and as a client of which host.
type explainRequest struct {
	Certificate string `json:"certificate"` // PEM, the leaf first
	Host        string `json:"host"`        // "": the default host, or the only one
}

// explainCertificate answers how a certificate is judged now, source by source. It fetches nothing.
func (s *server) explainCertificate(_ context.Context, c *call, req explainRequest) (verify.Explanation, error) {
	if s.Judge == nil {
		return verify.Explanation{}, needsEdge()
	}
	chain, err := pkix.ParseCertificates([]byte(req.Certificate))
	if err != nil {
		return verify.Explanation{}, invalid("/certificate", "certificate: "+clip(err.Error(), 200))
	}
	x, err := s.Judge(req.Host, chain)
	if err != nil {
		return verify.Explanation{}, invalid("/host", "host: "+clip(err.Error(), 200))
	}
	return x, nil
}

// explainRefusal answers why a request was refused for its client's certificate, as it was known at that moment.
func (s *server) explainRefusal(_ context.Context, c *call, _ none) (verify.Explanation, error) {
	if s.Refusal == nil {
		return verify.Explanation{}, needsEdge()
	}
	x, ok := s.Refusal(c.path("request"))
	if !ok {
		return verify.Explanation{}, refuse(http.StatusNotFound, codeNotFound,
			"no refusal for a certificate is remembered under "+clip(c.path("request"), 60)+": the latest 1024 are, until the server stops")
	}
	return x, nil
}

// explainUsage answers which clients of a CA were seen whose certificates lack clientAuth.
func (s *server) explainUsage(ctx context.Context, c *call, _ none) (verify.UsageReport, error) {
	if s.Usage == nil {
		return verify.UsageReport{}, needsEdge()
	}
	v, err := s.trustView(ctx)
	if err != nil {
		return verify.UsageReport{}, err
	}
	for _, o := range v.all() {
		if o.ID != c.path("ca") {
			continue
		}
		ca := trust.CA{ID: o.ID, Policy: o.Policy}
		if o.Origin == managedID {
			ca.ID = v.base.Managed.ID
		}
		report := s.Usage(ca)
		report.CA = o.ID
		return report, nil
	}
	return verify.UsageReport{}, noSuchCA(c.path("ca"))
}
