package responder

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestInvariant13SlowReader: who asks for a long answer and does not read it loses the connection; who reads it gets all.
func TestInvariant13SlowReader(t *testing.T) {
	r := &responder{patience: 200 * time.Millisecond, slowest: 1 << 30}
	body := bytes.Repeat([]byte("a"), 64<<20)
	closed := make(chan struct{}, 2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.serve(w, req, body, time.Now())
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("the connection of a client that reads nothing is open after 20 s")
	}
	r.patience = time.Minute
	recorded := httptest.NewRecorder()
	r.serve(recorded, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), body, time.Now())
	if recorded.Body.Len() != len(body) {
		t.Errorf("%d octets of %d", recorded.Body.Len(), len(body))
	}
}
