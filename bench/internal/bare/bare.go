// Package bare is the floor that Go sets: httputil.ReverseProxy behind RequireAndVerifyClientCert, and nothing else.
// It has no policy, no revocation and no identity headers; a product in Go is measured by what it adds to this.
//
//	err := bare.Run(ctx, "127.0.0.1:18443", "http://127.0.0.1:18080", files)
package bare

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	"sekisho/bench/internal/pki"
)

// Run serves until the context ends.
func Run(ctx context.Context, addr, origin string, f pki.Files) error {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", f.CA)
	}
	to, err := url.Parse(origin)
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr:              addr,
		TLSConfig:         &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
		ReadHeaderTimeout: 10 * time.Second,
		Handler: &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
			Transport: &http.Transport{MaxIdleConnsPerHost: 256},
		},
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // in the middle of whatever it does
	if err := server.ListenAndServeTLS(f.Cert, f.Key); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
