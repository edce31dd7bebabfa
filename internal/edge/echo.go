package edge

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// echo is the built-in upstream: it answers what an upstream at this place would have got, as JSON with method, path,
// query and headers (canonical names; several values of one name joined by ", "), and Hello World for /hello.
func (x *exchange) echo() {
	_, _ = io.Copy(io.Discard, x.r.Body) // as an upstream would; a client that breaks off shows when writing
	if x.r.URL.Path == "/hello" {
		x.answer("text/plain; charset=utf-8", []byte("Hello World\n"))
		return
	}
	headers := make(map[string]string, len(x.r.Header)+1)
	headers["Host"] = x.r.Host
	for name, values := range x.r.Header {
		headers[http.CanonicalHeaderKey(name)] = strings.Join(values, ", ")
	}
	body, err := json.MarshalIndent(struct {
		Method  string            `json:"method"`
		Path    string            `json:"path"`
		Query   string            `json:"query,omitempty"`
		Headers map[string]string `json:"headers"`
	}{x.r.Method, x.r.URL.Path, x.r.URL.RawQuery, headers}, "", "  ")
	if err != nil {
		panic("sekisho/edge: echo: " + err.Error()) // strings always encode
	}
	x.answer("application/json", append(body, '\n'))
}

// answer sends 200 with a body.
func (x *exchange) answer(contentType string, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h["X-Request-Id"] = x.idValue[:]
	x.status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	n, _ := x.w.Write(body) // the client may have gone
	x.bytes = int64(n)
}
