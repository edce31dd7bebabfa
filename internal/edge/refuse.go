package edge

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"sekisho/internal/identity"
)

// statusClientGone is what the log says when the client left before there was an answer; it is never sent.
const statusClientGone = 499

// refusal is an answer of the edge itself.
type refusal struct {
	status int
	code   int    // in the JSON form; stable
	reason string // one word for logs, metrics and the JSON form
	text   string // one line
	advice string // what the reader can do, for the page
	close  bool   // ends an HTTP/1.1 connection, as its client cannot do better on it
}

const (
	adviceOwner = "If you think this is wrong, send the request number below to the people who run this service."
	adviceAgain = "Try again in a moment. If it keeps happening, send the request number below to the people who run this service."
)

// refusalFor is the 403 for an identity that is not verified.
func refusalFor(reason identity.Reason) refusal {
	r := refusal{status: http.StatusForbidden, reason: string(reason), advice: adviceOwner}
	switch reason {
	case identity.NoCertificate:
		r.code, r.text = 4030, "client certificate required"
		r.advice = "This service lets in clients with a certificate only, and none was sent. Install yours, close all windows of the browser, and choose it when asked."
	case identity.Revoked:
		r.code, r.text = 4031, "client certificate was revoked"
		r.advice = "The certificate was withdrawn by those who issued it. Ask them for a new one."
	case identity.Expired:
		r.code, r.text = 4032, "client certificate has expired"
		r.advice = "Ask those who issued the certificate for a new one."
	case identity.NotYetValid:
		r.code, r.text = 4033, "client certificate is not yet valid"
		r.advice = "The certificate's validity begins later."
	case identity.Untrusted:
		r.code, r.text = 4034, "client certificate is not from a trusted CA"
		r.advice = "Another certificate may be the right one for this service: close all windows of the browser and choose it when asked."
	case identity.WrongUsage:
		r.code, r.text = 4035, "client certificate is not meant for client authentication"
		r.advice = "Its extended key usage does not name client authentication. Ask those who issued it for one that does."
	case identity.RevocationUnknown, identity.RevocationPending:
		r.code, r.text = 4040, "client certificate could not be checked for revocation"
		r.advice = "Those who issued the certificate cannot be asked at the moment whether it is still good. " + adviceAgain
	case identity.WeakSignature:
		r.code, r.text = 4041, "client certificate has a weak signature"
		r.advice = "It is signed in a way that is not safe any more. Ask those who issued the certificate for a new one."
	case identity.TooComplex:
		r.code, r.text = 4036, "client certificate chain is too complex to verify"
	case identity.Malformed:
		r.code, r.text = 4037, "client certificate is malformed"
	default:
		r.code, r.text = 4039, "client certificate was refused"
	}
	return r
}

func refusalCrossOrigin() refusal {
	return refusal{
		status: http.StatusForbidden, code: 4038, reason: "cross_origin", text: "cross-origin request refused",
		advice: "Another web site made your browser send this request. A certificate goes along with every request, so this service takes changes from its own pages only.",
	}
}

func refusalMisdirected() refusal {
	return refusal{
		status: http.StatusMisdirectedRequest, code: 4210, reason: "misdirected", close: true,
		text:   "misdirected request: this connection was made for another host; open a new one for this host",
		advice: "The address in the request is not the one that the encrypted connection was made for. Open it in a new window.",
	}
}

func refusalMethod() refusal {
	return refusal{
		status: http.StatusMethodNotAllowed, code: 4050, reason: "method", text: "method not allowed",
		advice: "TRACE and CONNECT are not served here.",
	}
}

func refusalTarget() refusal {
	return refusal{
		status: http.StatusBadRequest, code: 4001, reason: "target", close: true, text: "malformed request: the method or the path cannot be understood",
		advice: "The address has a form that web servers do not understand.",
	}
}

// refuse answers with a refusal, as decided.
func (x *exchange) refuse(r refusal) {
	x.refused, x.reason = true, r.reason
	x.reply(r)
}

// reply sends an answer of the edge in the form that the client accepts.
func (x *exchange) reply(r refusal) {
	x.endBody()
	h := x.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h["X-Request-Id"] = x.idValue[:]
	if r.close && x.r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	if r.status == http.StatusMethodNotAllowed {
		h.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	var body []byte
	switch accepts(x.r.Header["Accept"]) {
	case formHTML:
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		body = x.html(r)
	case formJSON:
		h.Set("Content-Type", "application/json")
		body = jsonRefusal(r)
	default:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = []byte(r.text + "\n")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.status = r.status
	x.w.WriteHeader(r.status)
	n, _ := x.w.Write(body) // the client may have gone
	x.bytes = int64(n)
}

// jsonRefusal is the refusal in Cloudflare's envelope, with the reason as a word of its own.
func jsonRefusal(r refusal) []byte {
	type problem struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Success  bool      `json:"success"`
		Errors   []problem `json:"errors"`
		Messages []string  `json:"messages"`
		Result   *struct{} `json:"result"`
		Reason   string    `json:"reason"`
	}{Errors: []problem{{r.code, r.text}}, Messages: []string{}, Reason: r.reason})
	if err != nil {
		panic("sekisho/edge: refusal: " + err.Error()) // constants always encode
	}
	return append(body, '\n')
}

// html is the refusal as a page for people.
func (x *exchange) html(r refusal) []byte {
	var page bytes.Buffer
	err := x.p.page.Execute(&page, pageData{
		Status: r.status, Title: http.StatusText(r.status), Text: heading(r.text), Advice: r.advice, Host: x.name,
		Subject: x.subject(), Serial: x.serial(), RequestID: x.id, Time: x.start.UTC().Format("2006-01-02 15:04:05 UTC"),
	})
	if err != nil {
		panic("sekisho/edge: page: " + err.Error()) // every field exists, a buffer takes everything
	}
	return page.Bytes()
}

// heading is the text up to a colon, as a heading is written.
func heading(text string) string {
	text, _, _ = strings.Cut(text, ":")
	return strings.ToUpper(text[:1]) + text[1:]
}

// form is how a refusal is written.
type form int

const (
	formText form = iota
	formHTML
	formJSON
)

// accepts chooses the form by the Accept header (RFC 9110, Section 12.5.1): the one with the highest weight, the first
// of equals. A client that accepts anything, as curl does, gets text; one that names HTML or JSON gets that.
func accepts(values []string) form {
	best, weight := formText, 0.0
	for _, value := range values {
		for item := range tokens(value) {
			kind, parameters, _ := strings.Cut(item, ";")
			f, scale := mediaForm(strings.ToLower(strings.TrimSpace(kind)))
			if w := quality(parameters) * scale; w > weight {
				best, weight = f, w
			}
		}
	}
	return best
}

// mediaForm is the form for a media range, and a scale that makes a wildcard lose against a name of the same weight.
func mediaForm(kind string) (form, float64) {
	switch {
	case kind == "text/html", kind == "application/xhtml+xml":
		return formHTML, 1
	case kind == "application/json", strings.HasSuffix(kind, "+json"), kind == "application/*":
		return formJSON, 1
	case kind == "text/plain":
		return formText, 1
	case kind == "*/*", kind == "text/*":
		return formText, 0.0001
	}
	return formText, 0
}

// quality reads the weight among the parameters of a media range; 1 when it has none, 0 when it is no number.
func quality(parameters string) float64 {
	for parameters != "" {
		var p string
		p, parameters, _ = strings.Cut(parameters, ";")
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "q") {
			q, err := strconv.ParseFloat(value, 64)
			if err != nil || q < 0 || q > 1 {
				return 0
			}
			return q
		}
	}
	return 1
}
