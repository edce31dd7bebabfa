package admin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"sekisho/internal/auditlog"
	"sekisho/internal/principal"
)

// maxBody is the most a request may carry.
const maxBody = 1 << 20

// call is one authenticated and authorized request, as handlers see it.
type call struct {
	caller principal.Caller
	path   func(name string) string // ids in the path, checked for their form
	query  url.Values
	url    string // the path, for messages
}

// route is one line of the table in routes.go.
type route struct {
	method  string
	pattern string // a pattern of net/http without method; "" for every path that no other route has
	handler http.Handler
}

// none is the request of a call without a body, or whose body means nothing.
type none struct{}

// optional marks a request whose body may be absent.
type optional interface{ bodyIsOptional() }

// large marks a request whose body may be larger than maxBody. Its answer may take largeTime.
type large interface{ bodyLimit() int64 }

const largeTime = 15 * time.Minute

// handle is the one adapter between HTTP and the handlers: authenticate, authorize, check the ids of the path, decode,
// call, answer in the envelope. Handlers return errors and never write them. action names the call in the audit log,
// where refused calls that would change something are recorded with the object they name.
func handle[Req, Resp any](s *server, action string, fn func(context.Context, *call, Req) (Resp, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.Now()
		caller, err := s.authenticate(r)
		if err == nil {
			err = authorize(caller, r.Method)
		}
		var result Resp
		if err == nil {
			var req Req
			c := &call{caller: caller, path: r.PathValue, url: r.URL.Path}
			if c.query, err = queryOf(r.URL); err == nil {
				err = decode(w, r, &req)
			}
			if err == nil {
				ctx := r.Context()
				if !isSafe(r.Method) { // a change that has begun is ended and told to the edge, also when its caller hangs up
					ctx = context.WithoutCancel(ctx)
				}
				result, err = fn(ctx, c, req)
			}
		}
		if err != nil {
			s.fail(w, r, failed{caller: caller, action: action, start: start, err: err})
			return
		}
		s.Logger.LogAttrs(r.Context(), levelOf(r.Method), "admin call", callAttrs(r, caller, s.Now().Sub(start), http.StatusOK)...)
		writeJSON(w, http.StatusOK, wrap(result))
	})
}

// queryOf reads the query. What cannot be read is an error: net/url would leave it out, and a filter or the reason of a
// revocation with it.
func queryOf(u *url.URL) (url.Values, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeInvalid, "the query cannot be read: "+clip(err.Error(), 200))
	}
	for _, name := range []string{"reason", "serial_number", "fingerprint_sha256", "common_name", "profile", "san", "ca", "expires_from", "expires_before", "issued_from", "issued_before", "state", "order", "archived"} {
		switch values := q[name]; {
		case len(values) > 1:
			return nil, invalidQuery(name, "it is there twice: give it once")
		case len(values) == 1 && values[0] == "": // an unset variable in a script must not mean every certificate
			return nil, invalidQuery(name, "it is empty: give a value or leave it out")
		}
	}
	return q, nil
}

// authorize decides what a role may do: read is for GET and HEAD only.
func authorize(caller principal.Caller, method string) error {
	need := principal.Edit
	if isSafe(method) {
		need = principal.Read
	}
	if caller.Require(need) == nil {
		return nil
	}
	return refuse(http.StatusForbidden, codeAuthentication, fmt.Sprintf(
		"Authentication error: this token's role %q does not allow %s: use a token of role %q", caller.Role, method, need))
}

func isSafe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

func levelOf(method string) slog.Level {
	if isSafe(method) {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

func callAttrs(r *http.Request, caller principal.Caller, took time.Duration, status int) []slog.Attr {
	return []slog.Attr{
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", status),
		slog.String("actor", caller.Name), slog.String("remote", r.RemoteAddr), slog.Duration("duration", took),
	}
}

// decode reads the body into req, when the call has one. Fields that req does not have are passed over: official
// clients send some that mean nothing here. The Content-Type is not asked for: curl's own default is a form.
func decode(w http.ResponseWriter, r *http.Request, req any) error {
	if err := checkIDs(r); err != nil {
		return err
	}
	if _, ok := req.(*none); ok {
		return nil
	}
	limit := int64(maxBody)
	if l, ok := req.(large); ok {
		limit = l.bodyLimit()
		// A writer that has no deadlines belongs to a wrapper, which has its own.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(largeTime))
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(largeTime))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return bodyError(err)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if _, ok := req.(optional); ok {
			return nil
		}
		return refuse(http.StatusBadRequest, codeMalformed, "the request has no body: send a JSON object")
	}
	return decodeJSON(body, req)
}

// checkIDs refuses a path whose ids are not of the form that ids have, as Cloudflare does.
func checkIDs(r *http.Request) error {
	for _, name := range []string{"zone", "account", "token"} {
		if id := r.PathValue(name); id != "" && !hexID.MatchString(id) {
			return noRoute(r.URL.Path)
		}
	}
	if id := r.PathValue("id"); id != "" && !uuid.MatchString(id) {
		return noRoute(r.URL.Path)
	}
	return nil
}

// failed is a call that ended in an error.
type failed struct {
	caller principal.Caller // zero when nobody was authenticated
	action string
	start  time.Time
	err    error
}

// fail answers an error, records it when it refused an authenticated caller a change, and logs it once.
func (s *server) fail(w http.ResponseWriter, r *http.Request, f failed) {
	answer, level := asRefusal(f.err), slog.LevelInfo
	attrs := []slog.Attr{slog.Any("error", f.err)}
	if answer == nil {
		reference := rand.Text()[:12]
		level = slog.LevelError
		attrs = append(attrs, slog.String("reference", reference))
		told := s.Explain(f.err)
		answer = refuse(http.StatusInternalServerError, codeInternal,
			cmp.Or(told, "internal error")+"; the server's log has more under the reference "+reference)
		answer.noRetry = told != "" // a full disk is full a second later
	}
	if f.caller.Name != "" && (!isSafe(r.Method) || answer.status == http.StatusForbidden) {
		s.recordRefusal(r, f, answer)
	}
	attrs = append(callAttrs(r, f.caller, s.Now().Sub(f.start), answer.status), attrs...)
	s.Logger.LogAttrs(r.Context(), level, "admin call refused", attrs...)
	if answer.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="sekisho"`)
	}
	if answer.allow != "" {
		w.Header().Set("Allow", answer.allow)
	}
	if answer.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	if answer.noRetry {
		w.Header().Set("X-Should-Retry", "false")
	}
	writeJSON(w, answer.status, envelope{Errors: answer.problems, Messages: []message{}})
}

// recordRefusal writes the refusal to the audit log. The record outlives the request: a caller who hangs up is recorded.
func (s *server) recordRefusal(r *http.Request, f failed, answer *refusal) {
	object := r.URL.Path
	for _, name := range []string{"id", "ca", "token", "zone", "account"} {
		if id := r.PathValue(name); id != "" {
			object = id
			break
		}
	}
	entry := auditlog.Entry{
		At: s.Now().UTC(), Actor: f.caller.Name, Action: f.action, Object: clip(object, 128), Outcome: "refused",
		Detail: map[string]string{"reason": clip(answer.Error(), 400), "call": r.Method + " " + clip(r.URL.Path, 200)},
	}
	if err := s.Audit(context.WithoutCancel(r.Context()), entry); err != nil {
		s.Logger.ErrorContext(r.Context(), "a refusal could not be recorded", "action", f.action, "object", object, "error", err)
	}
}

// clip cuts a text to n bytes, at a rune's start.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && text[n]&0xc0 == 0x80 {
		n--
	}
	return text[:n] + "…"
}
