package responder

import (
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sekisho/internal/pkix"
)

const (
	ocspRequestType  = "application/ocsp-request"
	ocspResponseType = "application/ocsp-response"
)

var errTooLong = errors.New("the request is too long")

// ocsp serves POST /ocsp and GET /ocsp/{base64}. Whatever an OCSP client sends, its answer is an OCSPResponse in HTTP
// 200: clients do not look into other statuses (RFC 6960, Appendix A.2).
func (r *responder) ocsp(w http.ResponseWriter, req *http.Request) {
	switch req.Method {
	case http.MethodGet, http.MethodHead:
		if req.URL.EscapedPath() == "/ocsp" {
			http.Error(w, "send an OCSP request: POST its DER here, or GET it in base64 below /ocsp/", http.StatusBadRequest)
			return
		}
		der, err := requestInPath(req.URL)
		if err != nil {
			der = nil // not DER either: malformedRequest
		}
		r.answer(w, req, der)
	case http.MethodPost:
		if media, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || media != ocspRequestType {
			w.Header().Set("Accept-Post", ocspRequestType)
			http.Error(w, "the content type of an OCSP request is "+ocspRequestType, http.StatusUnsupportedMediaType)
			return
		}
		der, err := io.ReadAll(io.LimitReader(req.Body, pkix.MaxOCSPRequestBytes+1))
		if err != nil {
			http.Error(w, "the request could not be read", http.StatusBadRequest)
			return
		}
		r.answer(w, req, der)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "OCSP requests are GET or POST", http.StatusMethodNotAllowed)
	}
}

// answer writes the OCSPResponse to a request in DER.
func (r *responder) answer(w http.ResponseWriter, req *http.Request, der []byte) {
	answer, err := r.cfg.Authority.AnswerOCSP(req.Context(), der)
	if err != nil && req.Context().Err() == nil {
		r.cfg.Logger.ErrorContext(req.Context(), "OCSP request failed", "error", err)
	}
	h := w.Header()
	h.Set("Content-Type", ocspResponseType)
	if !answer.Cacheable || req.Method == http.MethodPost {
		// RFC 6960, Section 4.4.1: an answer with a nonce is for one request. Refusals are for nobody else either.
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Length", strconv.Itoa(len(answer.DER)))
		if req.Method != http.MethodHead {
			_, _ = w.Write(answer.DER) // the client is gone; nobody to tell
		}
		return
	}
	// RFC 5019, Section 6.2: the headers of an answer that may be kept. Expires agrees with Cache-Control.
	h.Set("ETag", answer.ETag)
	h.Set("Cache-Control", r.cacheControl(answer.NextUpdate))
	h.Set("Expires", r.cfg.Now().Add(r.maxAge(answer.NextUpdate)).UTC().Format(http.TimeFormat))
	r.serve(w, req, answer.DER, answer.ThisUpdate)
}

// requestInPath decodes the base64 below /ocsp/. Clients send it percent-encoded or bare, so that / and // occur in the
// path, + may have become a blank, and = may be missing; some use the URL alphabet.
func requestInPath(u *url.URL) ([]byte, error) {
	text, err := url.PathUnescape(strings.TrimPrefix(u.EscapedPath(), "/ocsp/"))
	if err != nil {
		return nil, err
	}
	if len(text) > base64.StdEncoding.EncodedLen(pkix.MaxOCSPRequestBytes) {
		return nil, errTooLong
	}
	text = strings.NewReplacer(" ", "+", "-", "+", "_", "/").Replace(text)
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
}
