package upstream

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// httpOrigin is net/http's server; conns counts its connections, open those
// that are open.
type httpOrigin struct {
	*httptest.Server
	conns, open atomic.Int32
}

func newHTTPOrigin(t testing.TB, h http.HandlerFunc, configure ...func(*httptest.Server)) *httpOrigin {
	t.Helper()
	o := &httpOrigin{Server: httptest.NewUnstartedServer(h)}
	o.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			o.conns.Add(1)
			o.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			o.open.Add(-1)
		}
	}
	for _, f := range configure {
		f(o.Server)
	}
	if o.URL == "" {
		o.Start()
	}
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}
