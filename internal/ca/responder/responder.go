// Package responder publishes over plain HTTP what the CA says in public: CRLs, OCSP answers and the CAs' certificates.
//
//	GET  /crl/{ca}/{shard}.crl         the CRL that certificates name, DER
//	GET  /crl/{ca}/{shard}-delta.crl   the delta to it, which it names
//	GET  /crl/{ca}.crl                 the list of all shards, for clients that know one list per CA
//	GET  /ca/{ca}.cer                  a CA's certificate, DER
//	GET  /ca/{sha256}.cer              a cross certificate or one of a CA's chain, by its fingerprint, DER
//	GET  /ca.pem                       the roots in force, PEM, the newest first
//	POST /ocsp                         an OCSPRequest, DER
//	GET  /ocsp/{request}               the same in base64
//
// Nothing here is secret and nothing changes state, so there is no authentication. It refuses requests over 64 KiB and
// clients that read slower than 16 KiB a second, and it never lets an HTTP cache hold an answer beyond [Config.MaxAge] and
// [Config.OCSPMaxAge]: a revocation must show within a second.
//
//	http.ListenAndServe("127.0.0.1:8441", responder.New(responder.Config{Authority: authority}))
package responder

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

// Config is what the responder needs.
type Config struct {
	Authority *ca.Authority
	Logger    *slog.Logger // nil: slog.Default()
	// MaxAge is how long an HTTP cache may hold CRLs without asking again. 0, the default: not at all; a cache asks each
	// time and gets 304 Not Modified while nothing changed.
	MaxAge time.Duration
	// OCSPMaxAge is the same for OCSP answers that are asked for by GET. It ends with an answer's nextUpdate.
	OCSPMaxAge time.Duration
	Now        func() time.Time // nil: time.Now
}

// New makes the handler.
func New(cfg Config) http.Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &responder{cfg: cfg, gzip: newGzipCache(), headers: newOCSPHeaders(), patience: 30 * time.Second, slowest: 16 << 10}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /crl/{ca}/{file}", r.crl)
	mux.HandleFunc("GET /crl/{file}", r.crl)
	mux.HandleFunc("GET /ca/{file}", r.issuer)
	mux.HandleFunc("GET /ca.pem", r.root)
	return r.withOCSP(mux)
}

type responder struct {
	cfg      Config
	gzip     *gzipCache
	headers  *ocspHeaders
	patience time.Duration // a client may take that long for an answer,
	slowest  int           // and a second longer for each so many octets of it
}

// withOCSP takes OCSP requests out before the mux sees them: it would redirect a path with // in it, which base64 has.
func (r *responder) withOCSP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.hurry(w, 0)
		if path := requestPath(req); isOCSP(path) {
			r.ocsp(w, req, path)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// hurry ends the connection of a client that reads an answer of size octets too slowly: anybody may ask here, and who
// never reads would hold a connection for good.
func (r *responder) hurry(w http.ResponseWriter, size int) {
	allowed := r.patience + time.Duration(size/r.slowest)*time.Second
	// A writer that has no deadlines belongs to a wrapper, which has its own.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(allowed))
}

// crl serves /crl/{ca}/{shard}.crl, /crl/{ca}/{shard}-delta.crl and /crl/{ca}.crl.
func (r *responder) crl(w http.ResponseWriter, req *http.Request) {
	name, isCRL := strings.CutSuffix(req.PathValue("file"), ".crl")
	if !isCRL {
		http.NotFound(w, req)
		return
	}
	crl, err := r.find(req.Context(), req.PathValue("ca"), name)
	if err != nil {
		r.fail(w, req, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/pkix-crl")
	h.Set("ETag", crl.ETag)
	h.Set("Cache-Control", r.cacheControl(crl.NextUpdate))
	h.Set("Vary", "Accept-Encoding")
	body := crl.DER
	// A client that has the list, in either form, gets none; nothing is compressed for it.
	if has := req.Header.Get("If-None-Match"); acceptsGzip(req.Header.Values("Accept-Encoding")) && !matches(has, crl.ETag) {
		tag := gzipTag(crl.ETag) // RFC 9110, Section 8.8.3.3: other octets, another strong tag
		if matches(has, tag) {
			h.Set("ETag", tag)
		} else if small := r.gzip.of(crl); small != nil {
			h.Set("ETag", tag)
			h.Set("Content-Encoding", "gzip")
			body = small
		}
	}
	r.serve(w, req, body, crl.ThisUpdate)
}

// find is the list that a path names: of a CA and "0" or "0-delta", or with an empty id of all shards of the CA in name.
func (r *responder) find(ctx context.Context, id, name string) (ca.CRL, error) {
	if id == "" {
		return r.cfg.Authority.FullCRL(ctx, name)
	}
	number, isDelta := strings.CutSuffix(name, "-delta")
	shard, err := strconv.Atoi(number)
	switch {
	case err != nil || strconv.Itoa(shard) != number:
		return ca.CRL{}, ca.ErrNotFound
	case isDelta:
		return r.cfg.Authority.DeltaCRL(ctx, id, shard)
	}
	return r.cfg.Authority.CRL(ctx, id, shard)
}

// issuer serves /ca/{ca}.cer, where certificates' authority information access points, and what is sent along with a CA.
func (r *responder) issuer(w http.ResponseWriter, req *http.Request) {
	id, isCert := strings.CutSuffix(req.PathValue("file"), ".cer")
	records, err := r.cfg.Authority.CAs(req.Context())
	if err != nil {
		r.fail(w, req, err)
		return
	}
	for _, record := range records {
		if isCert && record.ID == id {
			w.Header().Set("Content-Type", "application/pkix-cert")
			w.Header().Set("ETag", `"`+pkix.FingerprintOf(record.DER).String()+`"`)
			w.Header().Set("Cache-Control", "public, max-age=86400") // a CA's certificate never changes under its id
			r.serve(w, req, record.DER, record.CreatedOn)
			return
		}
		extra, err := x509.ParseCertificates(record.Extra)
		if err != nil {
			r.fail(w, req, err)
			return
		}
		for _, cert := range extra {
			if print := pkix.FingerprintOf(cert.Raw).String(); isCert && print == id {
				w.Header().Set("Content-Type", "application/pkix-cert")
				w.Header().Set("ETag", `"`+print+`"`)
				w.Header().Set("Cache-Control", "public, max-age=86400")
				r.serve(w, req, cert.Raw, cert.NotBefore)
				return
			}
		}
	}
	http.NotFound(w, req)
}

// root serves /ca.pem, what a client trusts.
func (r *responder) root(w http.ResponseWriter, req *http.Request) {
	roots := r.cfg.Authority.Roots()
	if len(roots) == 0 {
		r.fail(w, req, ca.ErrNotReady)
		return
	}
	body := pkix.EncodeCertificates(roots)
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("ETag", `"`+pkix.FingerprintOf(body).String()+`"`)
	w.Header().Set("Cache-Control", "no-cache")
	r.serve(w, req, body, roots[0].NotBefore)
}

// serve writes a body with its length, or 304 where the client has it (RFC 9110, Section 13). The ETag is set before;
// Last-Modified has whole seconds, in which a CRL can change twice, so it never decides (a 304 would hide a revocation).
func (r *responder) serve(w http.ResponseWriter, req *http.Request, body []byte, modified time.Time) {
	h := w.Header()
	h.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	if matches(req.Header.Get("If-None-Match"), h.Get("ETag")) {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if req.Method != http.MethodHead {
		r.hurry(w, len(body))
		_, _ = w.Write(body) //nolint:gosec // the client is gone; nobody to tell. Lists and certificates, of their own types: no HTML
	}
}

// matches compares an If-None-Match header with a tag, weakly (RFC 9110, Section 13.1.2).
func matches(header, tag string) bool {
	if strings.TrimSpace(header) == "*" {
		return true
	}
	for candidate := range strings.SplitSeq(header, ",") {
		if strings.TrimPrefix(strings.TrimSpace(candidate), "W/") == tag && tag != "" {
			return true
		}
	}
	return false
}

// maxAge is how long caches may keep an answer: MaxAge, but never beyond its own end.
func (r *responder) maxAge(nextUpdate time.Time) time.Duration {
	return max(min(r.cfg.MaxAge, nextUpdate.Sub(r.cfg.Now())), 0)
}

func (r *responder) cacheControl(nextUpdate time.Time) string {
	age := r.maxAge(nextUpdate)
	if age < time.Second {
		return "public, no-cache, no-transform"
	}
	return "public, no-transform, must-revalidate, max-age=" + strconv.Itoa(int(age/time.Second))
}

// fail answers an error; what is not the client's fault is logged.
func (r *responder) fail(w http.ResponseWriter, req *http.Request, err error) {
	switch {
	case errors.Is(err, ca.ErrNotFound):
		http.NotFound(w, req)
	case req.Context().Err() != nil:
		// The client is gone.
	default:
		r.cfg.Logger.ErrorContext(req.Context(), "PKI request failed", "path", req.URL.Path, "error", err)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "temporarily unavailable", http.StatusServiceUnavailable)
	}
}
