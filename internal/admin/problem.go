package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"sekisho/internal/ca"
	"sekisho/internal/principal"
)

// The codes of our errors. Where Cloudflare has a code for the case, it is that one.
const (
	codeNotFound        = 1000  // no such object
	codeNoZone          = 1001  // no such zone
	codeInvalid         = 1004  // a field or parameter is wrong; source says which
	codeConflict        = 1005  // the object is not in a state from which this is possible
	codeReadOnly        = 1006  // the configuration file decides this
	codeNotInForce      = 1007  // stored, but the edge still works by the old state
	codeNotReady        = 1008  // the CA is not ready yet
	codeInternal        = 1009  // our fault; the log has the reason under the reference
	codeNote            = 1010  // of a message: something worth knowing about what was done
	codeMTLSQuota       = 1489  // Hit maximum CA cert allocation.
	codeHeaders         = 6003  // Invalid request headers
	codeEmail           = 6102  // Invalid format for X-Auth-Email header
	codeKey             = 6103  // Invalid format for X-Auth-Key header
	codeAuthorization   = 6111  // Invalid format for Authorization header
	codeMalformed       = 6007  // the body is no JSON
	codeNoRoute         = 7003  // no such path, or an id in it of the wrong form
	codeAuthentication  = 10000 // Authentication error
	codeMethod          = 10405 // the path does not know this method
	codeAccessQuota     = 12130 // max number of certificates reached
	codeForeignHostname = 12036 // access.api.error.hostnames_must_belong_to_your_domain
)

// problem is one error of an envelope.
type problem struct {
	Code             int     `json:"code"`
	Message          string  `json:"message"`
	DocumentationURL string  `json:"documentation_url,omitempty"`
	Source           *source `json:"source,omitempty"`
	Chain            []link  `json:"error_chain,omitempty"`
}

// source points at what was wrong: a JSON pointer into the body (RFC 6901), or a query parameter.
type source struct {
	Pointer   string `json:"pointer,omitempty"`
	Parameter string `json:"parameter,omitempty"`
}

// link is one error of an error_chain, which older endpoints of Cloudflare have.
type link struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// refusal is the error that a handler returns to choose its answer: an HTTP status and the errors of the envelope.
type refusal struct {
	status   int
	problems []problem
	allow    string // for 405: the methods of the path
	noRetry  bool   // tell clients that a status which they retry would come again
	cause    error  // for the log; may be nil
}

// Error returns the messages.
func (r *refusal) Error() string {
	texts := make([]string, len(r.problems))
	for i, p := range r.problems {
		texts[i] = p.Message
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns what lies behind, if anything does.
func (r *refusal) Unwrap() error { return r.cause }

func refuse(status, code int, text string) *refusal {
	return &refusal{status: status, problems: []problem{{Code: code, Message: text}}}
}

// invalid refuses a field of the body, named by its JSON pointer.
func invalid(pointer, text string) *refusal {
	return &refusal{
		status:   http.StatusBadRequest,
		problems: []problem{{Code: codeInvalid, Message: text, Source: &source{Pointer: pointer}}},
	}
}

// invalidQuery refuses a query parameter.
func invalidQuery(name, text string) *refusal {
	return &refusal{
		status:   http.StatusBadRequest,
		problems: []problem{{Code: codeInvalid, Message: name + ": " + text, Source: &source{Parameter: name}}},
	}
}

// badHeaders is Cloudflare's answer to a credential of the wrong form.
func badHeaders(chain ...link) *refusal {
	return &refusal{
		status:   http.StatusBadRequest,
		problems: []problem{{Code: codeHeaders, Message: "Invalid request headers", Chain: chain}},
	}
}

// noRoute answers a path that leads nowhere; the two errors are those of Cloudflare.
func noRoute(path string) *refusal {
	return &refusal{status: http.StatusNotFound, problems: []problem{
		{Code: codeNoRoute, Message: "Could not route to " + path + ", perhaps your object identifier is invalid?"},
		{Code: 7000, Message: "No route for that URI"},
	}}
}

// asRefusal turns any error into an answer; nil when the error is our own fault and its text is for the log only.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	if bad, ok := errors.AsType[*ca.RequestError](err); ok {
		return invalid("/"+bad.Field, bad.Field+": "+bad.Message)
	}
	switch {
	case errors.Is(err, principal.ErrUnauthenticated):
		return refuse(http.StatusUnauthorized, codeAuthentication, "Authentication error")
	case errors.Is(err, principal.ErrForbidden):
		return refuse(http.StatusForbidden, codeAuthentication, "Authentication error: "+principal.ErrForbidden.Error())
	case errors.Is(err, ca.ErrNotFound):
		return refuse(http.StatusNotFound, codeNotFound, "no such object")
	case errors.Is(err, ca.ErrKeyBlocked):
		return invalid("/csr", ca.ErrKeyBlocked.Error()+": make a new key")
	case errors.Is(err, ca.ErrConflict):
		return refuse(http.StatusBadRequest, codeConflict, "the object is not in a state from which this is possible")
	case errors.Is(err, ca.ErrTooWide):
		return refuse(http.StatusBadRequest, codeInvalid, err.Error())
	case errors.Is(err, ca.ErrNamesPending):
		return refuse(http.StatusBadRequest, codeNotReady, err.Error())
	case errors.Is(err, ca.ErrNotReady):
		return refuse(http.StatusBadRequest, codeNotReady, ca.ErrNotReady.Error())
	case errors.Is(err, context.Canceled):
		return refuse(http.StatusServiceUnavailable, codeInternal, "the request was given up before it was done")
	}
	return nil
}
