package responder

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sekisho/internal/ca"
	"sekisho/internal/pkix"
)

const (
	ocspPath         = "/ocsp"
	ocspRequestType  = "application/ocsp-request"
	ocspResponseType = "application/ocsp-response"
)

var (
	errTooLong   = errors.New("the request is too long")
	errNotBase64 = errors.New("the request is not base64")
)

// ocspHeaders are the values of headers that are the same for many answers, so that they are not made for each.
type ocspHeaders struct {
	contentType, noStore, noCache []string
	expires                       atomic.Pointer[httpDate]
}

// httpDate is a second as HTTP writes it.
type httpDate struct {
	second int64
	text   []string
}

func newOCSPHeaders() *ocspHeaders {
	return &ocspHeaders{contentType: []string{ocspResponseType}, noStore: []string{"no-store"}, noCache: []string{"public, no-cache, no-transform"}}
}

// date writes a time; those of one second come out of memory.
func (h *ocspHeaders) date(at time.Time) []string {
	second := at.Unix()
	if known := h.expires.Load(); known != nil && known.second == second {
		return known.text
	}
	fresh := &httpDate{second, []string{at.UTC().Format(http.TimeFormat)}}
	h.expires.Store(fresh)
	return fresh.text
}

// requestPath is the path of a request as it was sent, percent signs included. URL.EscapedPath would tell the same but
// for taking the path apart three times.
func requestPath(req *http.Request) string {
	if !strings.HasPrefix(req.RequestURI, "/") { // a proxy's request, http://host/ocsp, or *
		return req.URL.EscapedPath()
	}
	path, _, _ := strings.Cut(req.RequestURI, "?")
	return path
}

// isOCSP reports whether a path is one of the OCSP responder's.
func isOCSP(path string) bool {
	rest, found := strings.CutPrefix(path, ocspPath)
	return found && (rest == "" || rest[0] == '/')
}

// ocsp serves POST /ocsp and GET /ocsp/{base64}. Whatever an OCSP client sends, its answer is an OCSPResponse in HTTP
// 200: clients do not look into other statuses (RFC 6960, Appendix A.2).
func (r *responder) ocsp(w http.ResponseWriter, req *http.Request, path string) {
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		if path == ocspPath {
			http.Error(w, "send an OCSP request: POST its DER here, or GET it in base64 below /ocsp/", http.StatusBadRequest)
			return
		}
		der, err := decodePath(path)
		if err != nil {
			der = nil // not DER either: malformedRequest
		}
		r.answer(w, req, der)
	case http.MethodPost:
		r.post(w, req)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "OCSP requests are GET or POST", http.StatusMethodNotAllowed)
	}
}

// post serves POST. Of a request that is too long no more is read than shows it, nothing at all where its length is
// said; then the connection is closed, for what else comes on it would have to be read first.
func (r *responder) post(w http.ResponseWriter, req *http.Request) {
	if !isOCSPRequest(req.Header.Get("Content-Type")) {
		w.Header().Set("Accept-Post", ocspRequestType)
		http.Error(w, "the content type of an OCSP request is "+ocspRequestType, http.StatusUnsupportedMediaType)
		return
	}
	if req.ContentLength > pkix.MaxOCSPRequestBytes {
		w.Header().Set("Connection", "close")
		r.answer(w, req, nil)
		return
	}
	der, err := readBody(req)
	if err != nil {
		http.Error(w, "the request could not be read", http.StatusBadRequest)
		return
	}
	if len(der) > pkix.MaxOCSPRequestBytes {
		w.Header().Set("Connection", "close")
	}
	r.answer(w, req, der)
}

// isOCSPRequest reads a Content-Type.
func isOCSPRequest(text string) bool {
	if text == ocspRequestType {
		return true
	}
	media, _, err := mime.ParseMediaType(text)
	return err == nil && media == ocspRequestType
}

// readBody reads a body up to one octet over the bound.
func readBody(req *http.Request) ([]byte, error) {
	if n := req.ContentLength; n >= 0 {
		der := make([]byte, n)
		_, err := io.ReadFull(req.Body, der)
		return der, err
	}
	return io.ReadAll(io.LimitReader(req.Body, pkix.MaxOCSPRequestBytes+1))
}

// answer writes the OCSPResponse to a request in DER.
func (r *responder) answer(w http.ResponseWriter, req *http.Request, der []byte) {
	answer, err := r.cfg.Authority.AnswerOCSP(req.Context(), der)
	if err != nil && req.Context().Err() == nil {
		r.cfg.Logger.ErrorContext(req.Context(), "OCSP request failed", "error", err)
	}
	h := w.Header() // written to in the canonical spelling, since Set would look for it in each answer
	if !answer.Cacheable || req.Method == http.MethodPost {
		// RFC 6960, Section 4.4.1: an answer with a nonce is for one request. Refusals are for nobody else either.
		h["Cache-Control"] = r.headers.noStore
	} else if r.describe(h, answer); matches(req.Header.Get("If-None-Match"), answer.ETag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h["Content-Type"] = r.headers.contentType
	h["Content-Length"] = []string{strconv.Itoa(len(answer.DER))}
	if req.Method != http.MethodHead {
		_, _ = w.Write(answer.DER) // the client is gone; nobody to tell
	}
}

// describe sets the headers of an answer that caches may keep (RFC 5019, Section 6.2). Expires says what Cache-Control
// does.
func (r *responder) describe(h http.Header, answer ca.OCSPAnswer) {
	now := r.cfg.Now()
	age := max(min(r.cfg.OCSPMaxAge, answer.NextUpdate.Sub(now)), 0).Truncate(time.Second)
	h["Cache-Control"] = r.headers.noCache
	if age > 0 {
		h["Cache-Control"] = []string{"public, no-transform, must-revalidate, max-age=" + strconv.Itoa(int(age/time.Second))}
	}
	h["Etag"] = []string{answer.ETag}
	h["Expires"] = r.headers.date(now.Add(age))
	h["Last-Modified"] = []string{answer.ThisUpdate.UTC().Format(http.TimeFormat)}
}

// decodePath decodes the base64 below /ocsp/. Clients send it percent-encoded or bare, so that / and // occur in the
// path, + may have become a blank, and = may be missing; some use the URL alphabet.
func decodePath(path string) ([]byte, error) {
	text := strings.TrimPrefix(strings.TrimPrefix(path, ocspPath), "/")
	if len(text) > 3*base64.StdEncoding.EncodedLen(pkix.MaxOCSPRequestBytes) {
		return nil, errTooLong
	}
	plain := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '%' {
			if i+2 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2]) {
				return nil, errNotBase64
			}
			c = fromHex(text[i+1])<<4 | fromHex(text[i+2])
			i += 2
		}
		switch c {
		case ' ', '-':
			c = '+'
		case '_':
			c = '/'
		case '\r', '\n': // base64.Encoding passes over them
			return nil, errNotBase64
		}
		plain = append(plain, c)
	}
	for len(plain) > 0 && plain[len(plain)-1] == '=' {
		plain = plain[:len(plain)-1]
	}
	if len(plain) > base64.StdEncoding.EncodedLen(pkix.MaxOCSPRequestBytes) {
		return nil, errTooLong
	}
	n, err := base64.RawStdEncoding.Decode(plain, plain) // in place: four octets become three
	if err != nil {
		return nil, errNotBase64
	}
	return plain[:n], nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func fromHex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
