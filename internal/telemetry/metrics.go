package telemetry

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sekisho/internal/ca"
	"sekisho/internal/edge"
	"sekisho/internal/outbound"
	"sekisho/internal/revocation"
	"sekisho/internal/revocation/crl"
	"sekisho/internal/revocation/ocsp"
)

// Sources is where the numbers come from. A nil func leaves its metrics out.
type Sources struct {
	Connections func() edge.ConnectionMetrics
	Requests    func() edge.RequestMetrics
	CA          func() ca.Metrics
	Revoked     func() int // certificates in the revocation index
	Revocation  func() Revocation
	Ready       func() bool // whether the edge serves; nil means always
}

// Revocation is the counters of the sources of revocation beside our own ledger.
type Revocation struct {
	Lists    crl.Metrics
	Sets     revocation.SetMetrics
	OCSP     ocsp.Metrics
	Outbound outbound.Metrics
}

// Handler serves /metrics in Prometheus' text format, /healthz (the process lives) and /readyz (the edge serves).
func Handler(s Sources) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{s})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s.Ready != nil && !s.Ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return mux
}

// collector turns the sources' values into metrics at each scrape.
type collector struct{ Sources }

// Describe sends nothing: the metrics are not checked beforehand (prometheus.Collector calls this "unchecked").
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	out := sink{ch}
	if c.Connections != nil {
		out.connections(c.Connections())
	}
	if c.Requests != nil {
		out.requests(c.Requests())
	}
	if c.CA != nil {
		out.ca(c.CA())
	}
	if c.Revocation != nil {
		out.revocation(c.Revocation())
	}
	if c.Revoked != nil {
		out.gauge("revoked_certificates", "Revoked certificates that every handshake and request is checked against.", float64(c.Revoked()))
	}
}

// sink sends metrics under the prefix sekisho_.
type sink struct{ ch chan<- prometheus.Metric }

func (s sink) counter(name, help string, value uint64) {
	s.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("sekisho_"+name, help, nil, nil), prometheus.CounterValue, float64(value))
}

func (s sink) gauge(name, help string, value float64) {
	s.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("sekisho_"+name, help, nil, nil), prometheus.GaugeValue, value)
}

// labelled sends one counter for each value of a label, in order.
func (s sink) labelled(name, help, label string, values map[string]uint64) {
	desc := prometheus.NewDesc("sekisho_"+name, help, []string{label}, nil)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		s.ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(values[key]), key)
	}
}

func (s sink) connections(m edge.ConnectionMetrics) {
	s.counter("connections_accepted_total", "TCP connections taken by the edge.", m.Accepted)
	s.labelled("connections_limited_total", "TCP connections closed at once, by limit.", "limit", m.Limited)
	s.labelled("handshakes_total", "TLS handshakes completed, by kind.", "kind", map[string]uint64{"full": m.Full, "resumed": m.Resumed})
	s.labelled("handshakes_refused_total", "TLS handshakes refused for the client's certificate, by reason.", "reason", m.Refused)
	s.labelled("handshake_errors_total", "TLS handshakes that failed otherwise, by kind.", "kind", m.Errors)
	s.labelled("clients_judged_total", "Clients with a certificate of a CA of the host, by what was known of its revocation at the handshake.", "revocation", m.Judged)
	s.labelled("tickets_refused_total", "Session tickets that led to a full handshake, by reason.", "reason", m.TicketsRefused)
	s.gauge("connections", "Live connections of the edge.", float64(m.Live))
	s.labelled("connections_cut_total", "Connections ended by decision, by reason.", "reason", m.Cut)
}

func (s sink) revocation(m Revocation) {
	s.gauge("revocation_list_places", "Files, URLs and distribution points of CRLs that are kept current.", float64(m.Lists.Places))
	s.gauge("revocation_list_places_failing", "Those of which the latest attempt failed, or brought a list that does not count now; the one before may be in force still.", float64(m.Lists.Failing))
	s.gauge("revocation_lists", "CRLs in force.", float64(m.Lists.Lists))
	s.gauge("revocation_list_entries", "Entries of the CRLs in force.", float64(m.Lists.Entries))
	s.gauge("revocation_list_bytes", "Octets of the CRLs in force, in DER.", float64(m.Lists.Bytes))
	s.labelled("revocation_list_fetches_total", "Attempts at CRLs, by result; refused: a list came and was not taken.", "result", map[string]uint64{
		"new": m.Lists.Fetched, "unchanged": m.Lists.Unchanged, "failed": m.Lists.Failed, "refused": m.Lists.Refused,
	})
	if !m.Lists.LastSuccess.IsZero() {
		s.gauge("revocation_list_last_success_timestamp_seconds", "When an attempt at a CRL last succeeded.", float64(m.Lists.LastSuccess.Unix()))
	}
	s.gauge("revocation_crlsets", "Files and URLs of CRLSets that are kept current.", float64(m.Sets.Places))
	s.gauge("revocation_crlsets_failing", "Those of which the latest attempt failed; the set before may be in force still.", float64(m.Sets.Failing))
	s.gauge("revocation_crlset_entries", "Serial numbers in the CRLSets in force.", float64(m.Sets.Serials))
	s.gauge("ocsp_answers", "OCSP answers remembered.", float64(m.OCSP.Answers))
	s.labelled("ocsp_questions_total", "Questions to OCSP responders and stapled answers, by result.", "result", map[string]uint64{
		"good": m.OCSP.Good, "revoked": m.OCSP.Revoked, "unknown": m.OCSP.Unknown, "failed": m.OCSP.Failed,
		"stapled": m.OCSP.Stapled, "stapled_refused": m.OCSP.StapledRefused,
	})
	o := m.Outbound
	s.labelled("outbound_requests_total", "HTTP requests for revocation, by result.", "result", map[string]uint64{
		"ok": o.OK, "not_modified": o.NotModified, "refused_address": o.RefusedAddress, "too_large": o.TooLarge,
		"timeout": o.Timeout, "status": o.Status, "redirect": o.Redirect, "error": o.Error,
	})
}

func (s sink) requests(m edge.RequestMetrics) {
	classes := map[string]uint64{}
	for class, name := range []string{"aborted", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		classes[name] = m.ByClass[class]
	}
	s.labelled("requests_total", "Requests by class of the answer's status.", "class", classes)
	s.labelled("requests_refused_total", "Requests refused, by reason.", "reason", m.Refused)
	s.labelled("requests_anonymous_total", "Requests let in without identity by hosts that only ask for one, by reason.", "reason", m.Anonymous)
	s.labelled("upstream_errors_total", "Errors towards origins, by stage.", "stage", m.UpstreamErrors)
	s.counter("response_bytes_total", "Octets of response bodies.", m.BytesSent)
	s.counter("upgraded_total", "Connections switched to another protocol, such as WebSocket.", m.Upgraded)
	buckets := make(map[float64]uint64, len(m.Duration.Bounds))
	var count uint64
	for i, n := range m.Duration.Counts {
		count += n
		if i < len(m.Duration.Bounds) {
			buckets[m.Duration.Bounds[i]] = count
		}
	}
	desc := prometheus.NewDesc("sekisho_request_duration_seconds", "From a request's headers to the end of its answer.", nil, nil)
	s.ch <- prometheus.MustNewConstHistogram(desc, count, m.Duration.Sum, buckets)
}

func (s sink) ca(m ca.Metrics) {
	u := func(n int64) uint64 { return uint64(max(n, 0)) }
	s.labelled("ca_decisions_total", "Decisions of the CA.", "decision", map[string]uint64{
		"issued": u(m.Issued), "refused": u(m.Refused), "revoked": u(m.Revoked), "held": u(m.Held), "reactivated": u(m.Reactivated),
	})
	s.labelled("ocsp_answers_total", "OCSP answers, by status.", "status", map[string]uint64{
		"good": u(m.OCSPGood), "revoked": u(m.OCSPRevoked), "unknown": u(m.OCSPUnknown), "error": u(m.OCSPErrors),
	})
	s.labelled("ocsp_responses_total", "OCSP responses, by origin.", "origin", map[string]uint64{"cache": u(m.OCSPCached), "signed": u(m.OCSPSigned)})
	s.counter("ocsp_renewals_total", "OCSP answers in memory signed anew before anybody had to wait for it.", u(m.OCSPRenewed))
	s.labelled("crl_publications_total", "CRLs signed, by result.", "result", map[string]uint64{"published": u(m.CRLPublished), "failed": u(m.CRLFailures)})
	s.labelled("crl_files_total", "CRLs written to disk, by result; newer: left alone, for the file has a number above the ledger's.", "result", map[string]uint64{
		"written": u(m.CRLFiles), "failed": u(m.CRLFileFailures - m.CRLFilesNewer), "newer": u(m.CRLFilesNewer),
	})
	s.gauge("crl_bytes", "Size of the CRLs of the issuing CA's shards together.", float64(m.CRLBytes))
	s.gauge("crl_number", "Highest number of the CRLs of the issuing CA's shards.", float64(m.CRLNumber))
	s.gauge("ca_ocsp_signers_ending", "OCSP signers made elsewhere that end within 10 days, or have ended.", float64(m.OCSPSignersEnding))
	for name, at := range map[string]time.Time{"crl_next_update_seconds": m.CRLNextUpdate, "ca_root_not_after_seconds": m.RootNotAfter, "ca_issuing_not_after_seconds": m.IssuingNotAfter} {
		if !at.IsZero() {
			s.gauge(name, "Unix time.", float64(at.Unix()))
		}
	}
}
