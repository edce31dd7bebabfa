package peer

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sekisho/bench/internal/load"
	"sekisho/bench/internal/pki"
)

// asked is how many certificates OCSP is asked about in turn.
const asked = 1000

// typeOCSP is the header of an OCSP request by POST.
const typeOCSP = "Content-Type: application/ocsp-request\r\n"

// PlainNames are the servers that can do a row of OCSP or of issuing, in the order of the table. cfssl's responder has
// ready answers only, so it repeats no nonce.
func PlainNames(row load.Row) []string {
	switch row {
	case load.OCSPGet:
		return []string{"sekisho", "openssl", "cfssl"}
	case load.OCSPNonce:
		return []string{"sekisho", "openssl"}
	case load.Issue1, load.Issue16:
		return []string{"sekisho", "cfssl"}
	}
	return nil
}

// StartPlain runs a server of OCSP answers or certificates alone on the core and returns what to ask it, once it has
// answered. The connections of openssl's responder must all carry a request: one that is closed without one hangs it.
func StartPlain(ctx context.Context, name string, row load.Row, c Config) (*Peer, [][]byte, error) {
	var p *Peer
	var requests [][]byte
	var err error
	switch {
	case name == "sekisho":
		p, requests, err = startSekishoPKI(ctx, row, c)
	case row == load.OCSPGet || row == load.OCSPNonce:
		p, requests, err = startResponder(ctx, name, row, c)
	default:
		p, requests, err = startCFSSL(ctx, c)
	}
	if err != nil {
		return nil, nil, err
	}
	err = p.until(20*time.Millisecond, func() error {
		_, err := load.Ask(p.Addr, row, requests[0])
		return err
	})
	if err != nil {
		p.Stop()
		return nil, nil, fmt.Errorf("%s: %w\n%s", name, err, p.said())
	}
	return p, requests, nil
}

// startResponder runs openssl's or cfssl's OCSP responder.
func startResponder(ctx context.Context, name string, row load.Row, c Config) (*Peer, [][]byte, error) {
	r, err := pki.MakeResponder(filepath.Dir(c.Files.CA), asked)
	if err != nil {
		return nil, nil, err
	}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, err
	}
	args := []string{
		c.OpenSSL, "ocsp", "-port", port, "-index", r.Index, "-CA", r.CA, "-rsigner", r.Cert, "-rkey", r.Key, "-nmin", "60", "-ignore_err",
	}
	if name == "cfssl" {
		args = []string{c.CFSSL, "ocspserve", "-address", "127.0.0.1", "-port", port, "-responses", r.Responses, "-path", "/", "-loglevel", "3"}
	}
	var requests [][]byte
	for _, id := range r.IDs {
		requests = append(requests, ocspHTTP(row, "/", pki.OCSPRequest(id, row == load.OCSPNonce)))
	}
	p, err := startProgram(ctx, name, addr, c, args)
	return p, requests, err
}

// ocspHTTP is an OCSP request by the method of the row.
func ocspHTTP(row load.Row, path string, der []byte) []byte {
	if row == load.OCSPGet {
		return load.Get(strings.TrimSuffix(path, "/") + "/" + url.PathEscape(base64.StdEncoding.EncodeToString(der)))
	}
	return load.Post(path, typeOCSP, der)
}

// startCFSSL runs cfssl's CA.
func startCFSSL(ctx context.Context, c Config) (*Peer, [][]byte, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, nil, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, err
	}
	csr, err := pki.CSR()
	if err != nil {
		return nil, nil, err
	}
	body, err := json.Marshal(map[string]string{"certificate_request": csr})
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Dir(c.Files.CA)
	p, err := startProgram(ctx, "cfssl", addr, c, []string{
		c.CFSSL, "serve", "-address", "127.0.0.1", "-port", port, "-ca", c.Files.CA, "-ca-key", filepath.Join(dir, "ca-key.pem"), "-loglevel", "3",
	})
	return p, [][]byte{load.Post("/api/v1/cfssl/sign", "Content-Type: application/json\r\n", body)}, err
}

// sekishoReady is what sekisho writes about itself.
type sekishoReady struct {
	Admin  string `json:"admin"`
	PKI    string `json:"pki"`
	ZoneID string `json:"zone_id"`
	Token  string `json:"token"`
}

// startSekishoPKI runs sekisho; for OCSP it has it issue the certificates first.
func startSekishoPKI(ctx context.Context, row load.Row, c Config) (*Peer, [][]byte, error) {
	p, err := Start(ctx, "sekisho", c)
	if err != nil {
		return nil, nil, err
	}
	requests, err := p.preparePKI(row, c)
	if err != nil {
		text := p.said()
		p.Stop()
		return nil, nil, fmt.Errorf("sekisho: %w\n%s", err, text)
	}
	return p, requests, nil
}

func (p *Peer) preparePKI(row load.Row, c Config) ([][]byte, error) {
	var ready sekishoReady
	err := p.until(20*time.Millisecond, func() error { // it is written after the edge listens
		text, err := os.ReadFile(filepath.Join(c.Dir, "ready.json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &ready)
	})
	if err != nil {
		return nil, err
	}
	csr, err := pki.CSR()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{"csr": csr, "validity_days": 365})
	if err != nil {
		return nil, err
	}
	issue := load.Post("/client/v4/zones/"+ready.ZoneID+"/client_certificates",
		"Authorization: Bearer "+ready.Token+"\r\nContent-Type: application/json\r\n", body)
	admin := strings.TrimPrefix(ready.Admin, "http://")
	if row == load.Issue1 || row == load.Issue16 {
		p.Addr = admin
		return [][]byte{issue}, nil
	}
	p.Addr = strings.TrimPrefix(ready.PKI, "http://")
	var requests [][]byte
	var issuer *x509.Certificate
	for range asked {
		answer, err := load.Ask(admin, load.Issue1, issue)
		if err != nil {
			return nil, err
		}
		der, err := ocspAbout(answer, row, &issuer)
		if err != nil {
			return nil, err
		}
		requests = append(requests, ocspHTTP(row, "/ocsp", der))
	}
	return requests, nil
}

// ocspAbout is the OCSP request about a certificate in an answer of sekisho's API. The issuer is fetched once.
func ocspAbout(answer []byte, row load.Row, issuer **x509.Certificate) ([]byte, error) {
	var issued struct {
		Result struct {
			Certificate string `json:"certificate"`
		} `json:"result"`
	}
	text := string(answer)
	from, to := strings.IndexByte(text, '{'), strings.LastIndexByte(text, '}')
	if from < 0 || to < from {
		return nil, fmt.Errorf("no JSON in %.200q", text)
	}
	if err := json.Unmarshal([]byte(text[from:to+1]), &issued); err != nil {
		return nil, err
	}
	if *issuer == nil {
		var err error
		if *issuer, err = fetchIssuer(issued.Result.Certificate); err != nil {
			return nil, err
		}
	}
	id, err := pki.LeafID(issued.Result.Certificate, *issuer)
	if err != nil {
		return nil, err
	}
	return pki.OCSPRequest(id, row == load.OCSPNonce), nil
}

// fetchIssuer fetches the CA's certificate from where the leaf says that it is.
func fetchIssuer(leaf string) (*x509.Certificate, error) {
	cert, err := pki.ParsePEM([]byte(leaf))
	if err != nil {
		return nil, err
	}
	if len(cert.IssuingCertificateURL) == 0 {
		return nil, errors.New("the certificate does not say where its issuer's is")
	}
	resp, err := http.Get(cert.IssuingCertificateURL[0])
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
