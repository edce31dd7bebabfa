package upstream

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
)

// secureOrigin is an https origin; the name its certificate has is example.com.
func secureOrigin(t *testing.T, h2 bool) (*httpOrigin, *x509.CertPool) {
	o := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if r.TLS != nil {
			n = len(r.TLS.PeerCertificates)
		}
		fmt.Fprintf(w, "%s, %d certificates, %s", r.Proto, n, r.Host)
	}, func(s *httptest.Server) {
		s.EnableHTTP2 = h2
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		s.StartTLS()
	})
	pool := x509.NewCertPool()
	pool.AddCert(o.Certificate())
	return o, pool
}

func TestHTTPS(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		o, pool := secureOrigin(t, h2)
		scheme, proto := "https", "HTTP/1.1"
		if h2 {
			scheme, proto = "h2s", "HTTP/2.0"
		}
		target := strings.Replace(o.URL, "https", scheme, 1)
		tr := newTransport(t, Config{URLs: []string{target}, RootCAs: pool, ServerName: "example.com", ClientCertificates: o.TLS.Certificates})
		for range 3 {
			resp, body, err := fetch(tr, newRequest(t, "GET", nil))
			if err != nil || body != proto+", 1 certificates, app.example" {
				t.Fatalf("%q %v", body, err)
			}
			if resp.TLS == nil || resp.TLS.ServerName != "example.com" {
				t.Error("no TLS state in the response")
			}
		}
		if n := o.conns.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}

		for want, cfg := range map[string]Config{
			"certificate signed by unknown authority": {},
			"certificate is valid for":                {RootCAs: pool, ServerName: "wrong.test"},
		} {
			cfg.URLs = []string{target}
			_, _, err := fetch(newTransport(t, cfg), newRequest(t, "GET", nil))
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Op != OpDial || e.Addr != target || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", scheme, err, want)
			}
		}
	}
}

func TestH2C(t *testing.T) {
	o := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Agent", r.UserAgent())
		io.WriteString(w, r.Proto+" ")
		io.Copy(w, r.Body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}, func(s *httptest.Server) {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
	})
	tr := newTransport(t, Config{URLs: []string{"h2c" + strings.TrimPrefix(o.URL, "http")}})
	req := newRequest(t, "POST", io.LimitReader(endless{}, 100_000))
	req.Header.Set("Connection", "close")
	resp, body, err := fetch(tr, req)
	if err != nil || !strings.HasPrefix(body, "HTTP/2.0 ") || len(body) != 100_009 {
		t.Fatal(len(body), err)
	}
	if resp.Trailer.Get("Grpc-Status") != "0" || resp.Header.Get("X-Agent") != "" {
		t.Errorf("trailer %v, header %v", resp.Trailer, resp.Header)
	}
}

func TestUpgrade(t *testing.T) {
	o := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		c, brw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		line, _ := brw.ReadString('\n')
		io.WriteString(c, "echo "+line)
	})
	tr := newTransport(t, Config{URLs: []string{o.URL}})
	edge := newHTTPOrigin(t, (&httputil.ReverseProxy{
		Transport: tr,
		Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetXForwarded() },
	}).ServeHTTP)
	c, err := edge.Client().Transport.(*http.Transport).DialContext(t.Context(), "tcp", edge.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" {
		t.Fatal(resp, err)
	}
	io.WriteString(c, "hello\n")
	if line, err := r.ReadString('\n'); err != nil || line != "echo hello\n" {
		t.Errorf("%q %v", line, err)
	}
}

// TestReverseProxy is an ordinary exchange through httputil.ReverseProxy.
func TestReverseProxy(t *testing.T) {
	o := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Forwarded", r.Header.Get("X-Forwarded-Proto"))
		w.WriteHeader(http.StatusEarlyHints)
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	tr := newTransport(t, Config{URLs: []string{o.URL}})
	proxy := &httputil.ReverseProxy{Transport: tr, Rewrite: func(pr *httputil.ProxyRequest) { pr.SetXForwarded() }}
	edge := newHTTPOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // else the server reads the body's rest away when the answer begins
		proxy.ServeHTTP(w, r)
	})
	for _, size := range []int{0, 100, 1 << 20} {
		data := strings.Repeat("x", size)
		resp, err := edge.Client().Post(edge.URL, "text/plain", strings.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != data || resp.Header.Get("X-Forwarded") != "http" {
			t.Errorf("size %d: %d bytes, %v %v", size, len(got), resp.Header, err)
		}
	}
	if n := o.conns.Load(); n != 1 {
		t.Errorf("%d connections to the origin", n)
	}
}

// TestUnsolicitedTLS has the origin send more than the response in one flight:
// crypto/tls reads it ahead, and it must not answer the next request.
func TestUnsolicitedTLS(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	pair, pool := secureOrigin(t, false)
	for name, size := range map[string]int{"short": 2, "long": 30_000} {
		good := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
		for split, writes := range map[string][]string{"one record": {good + evil}, "records": {good, evil}} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go serveFlights(c, pair.TLS, writes)
				}
			}()
			tr := newTransport(t, Config{URLs: []string{"https://" + l.Addr().String()}, RootCAs: pool, ServerName: "example.com"})
			for i := range 5 {
				_, body, err := fetch(tr, newRequest(t, "GET", nil))
				if err != nil || len(body) != size || strings.Contains(body, "evil") {
					t.Errorf("%s, %s, request %d: %.20q %v", name, split, i, body, err)
				}
			}
			l.Close()
		}
	}
}

// serveFlights answers each request by TLS records that leave in one piece.
func serveFlights(c net.Conn, cfg *tls.Config, writes []string) {
	defer c.Close()
	held := &holdingConn{Conn: c}
	tc := tls.Server(held, cfg)
	r := bufio.NewReader(tc)
	for readHead(r) != "" {
		held.hold = true
		for _, w := range writes {
			io.WriteString(tc, w)
		}
		held.hold = false
		held.Write(nil)
	}
}

// holdingConn keeps what is written while hold is set, and sends it with the
// next piece.
type holdingConn struct {
	net.Conn
	hold bool
	held []byte
}

func (c *holdingConn) Write(p []byte) (int, error) {
	c.held = append(c.held, p...)
	if c.hold {
		return len(p), nil
	}
	_, err := c.Conn.Write(c.held)
	c.held = nil
	return len(p), err
}
