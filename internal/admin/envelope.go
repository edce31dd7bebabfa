package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// envelope is the outside of every answer, as in Cloudflare's API. Errors and messages are arrays, never null.
type envelope struct {
	Success    bool        `json:"success"`
	Errors     []problem   `json:"errors"`
	Messages   []message   `json:"messages"`
	Result     any         `json:"result"`
	ResultInfo *resultInfo `json:"result_info,omitempty"`
}

// message tells of something beside the result that the caller should know.
type message struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// resultInfo says which part of a list an answer is.
type resultInfo struct {
	Page       int `json:"page"`
	PerPage    int `json:"per_page"`
	Count      int `json:"count"`
	TotalCount int `json:"total_count"`
	TotalPages int `json:"total_pages"`

	// AtLeast is ours: there may be more, and counting them would take long. Pages go on while they are full.
	AtLeast bool `json:"total_count_is_minimum,omitempty"`
}

// list is the result of a handler that answers a part of a list.
type list[T any] struct {
	items []T
	info  *resultInfo
}

// noted is a result with messages beside it.
type noted struct {
	result   any
	messages []message
}

// wrap puts a handler's result into the envelope of success.
func wrap(result any) envelope {
	e := envelope{Success: true, Errors: []problem{}, Messages: []message{}, Result: result}
	if n, ok := result.(noted); ok {
		e.Result = n.result
		e.Messages = append(e.Messages, n.messages...)
	}
	if l, ok := e.Result.(interface{ unpack() (any, *resultInfo) }); ok {
		e.Result, e.ResultInfo = l.unpack()
	}
	return e
}

func (l list[T]) unpack() (any, *resultInfo) {
	if l.items == nil {
		return []T{}, l.info
	}
	return l.items, l.info
}

// writeJSON sends an envelope. The security headers are set already.
func writeJSON(w http.ResponseWriter, status int, e envelope) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // certificates and DNs stay readable; nosniff and the media type keep browsers from guessing
	if err := enc.Encode(e); err != nil {
		panic("sekisho/admin: an answer that cannot be encoded: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes())
}

// stamp is a time as the API writes it: RFC 3339, UTC, whole seconds for certificates. The zero time is null.
func stamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	text := t.UTC().Format(time.RFC3339)
	return &text
}
