package main

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sekisho/internal/pkix"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
	"sekisho/internal/verify"
)

// checkpoint is a running server whose host localhost takes the clients of CAs that come by API.
type checkpoint struct{ *process }

func newCheckpoint(t *testing.T, dir string) checkpoint {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sekisho.yaml")
	config := `
listen: {edge: "127.0.0.1:0", admin: "127.0.0.1:0", pki: "127.0.0.1:0", metrics: "127.0.0.1:0"}
outbound: {allow: [127.0.0.0/8]}
log: {access: "off"}
limits: {handshakes_per_ip: 5000}
hosts:
  - {name: localhost, names: ["127.0.0.1"], default: true, echo: true, client_auth: {mode: require}}
`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return checkpoint{start(t, dir, "--config", file, "--data", dir)}
}

// trust has the host take the clients of a CA by a policy.
func (c checkpoint) trust(o *faultyCA, policy trust.Policy) {
	c.t.Helper()
	status, answer := c.api("POST", "/sekisho/trust", map[string]any{
		"name": o.name, "certificates": string(o.PEM), "policy": policy, "hostnames": []string{"localhost"},
	})
	var made trustedCA
	if err := json.Unmarshal(answer.Result, &made); err != nil || status != http.StatusOK {
		c.t.Fatalf("trust %s: %d %v %+v\n%s", o.name, status, err, answer.Errors, c.log)
	}
	o.id = made.ID
}

// soften lets clients of the CA in when no source answers.
func (c checkpoint) soften(o *faultyCA) {
	c.t.Helper()
	if status, answer := c.api("PATCH", "/sekisho/trust/"+o.id+"/policy", map[string]string{"on_failure": trust.Soft}); status != http.StatusOK {
		c.t.Fatalf("policy of %s: %d %+v", o.name, status, answer.Errors)
	}
}

// Verdicts of the edge: status and reason.
const (
	comesIn   = "200"
	isRevoked = "403 revoked"
	isUnknown = "403 revocation_unknown"
)

// ask is the edge's verdict about a new connection of the client: the status, and the reason if it is refused.
func (c checkpoint) ask(leaf testpki.Leaf) string {
	c.t.Helper()
	client := c.client(leaf.TLS())
	defer client.CloseIdleConnections() // or the server would go on asking about its certificate
	verdict, err := c.askOn(client)
	if err != nil {
		c.t.Fatalf("%v\n%s", err, c.log)
	}
	return verdict
}

func (c checkpoint) askOn(client *http.Client) (string, error) {
	req, err := http.NewRequest(http.MethodGet, c.ready.Edge+"/", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusOK {
		return comesIn, err
	}
	var refusal struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(body, &refusal); err != nil {
		return "", fmt.Errorf("%d, %w: %s", resp.StatusCode, err, body)
	}
	return strconv.Itoa(resp.StatusCode) + " " + refusal.Reason, nil
}

func (c checkpoint) want(leaf testpki.Leaf, verdict, when string) {
	c.t.Helper()
	if got := c.ask(leaf); got != verdict {
		c.t.Errorf("%s: the edge says %s, want %s", when, got, verdict)
	}
}

// explain is what the API says of a certificate.
func (c checkpoint) explain(leaf testpki.Leaf) verify.Explanation {
	c.t.Helper()
	status, answer := c.api("POST", "/sekisho/explain", map[string]string{"certificate": string(leaf.CertPEM), "host": "localhost"})
	var x verify.Explanation
	if err := json.Unmarshal(answer.Result, &x); err != nil || status != http.StatusOK || len(x.Sources) == 0 {
		c.t.Fatalf("explain: %d %v %s", status, err, answer.Result)
	}
	return x
}

// source is what the explanation says of one source of the leaf: its answer and what is wrong with it.
func source(x verify.Explanation, kind trust.Source) (answer, problem, address, number string) {
	for _, s := range x.Sources[0].Sources {
		if s.Source == kind {
			return s.Answer, s.Error, s.Address, s.Number
		}
	}
	return "", "", "", ""
}

// explains demands that explain names a source of the leaf by its address and says what is wrong with it, soon: on a busy
// machine a source may fail after the edge has given up waiting for it.
func (c checkpoint) explains(leaf testpki.Leaf, kind trust.Source, address string, says ...string) {
	c.t.Helper()
	var problem, at string
	told := func() bool {
		_, problem, at, _ = source(c.explain(leaf), kind)
		return at == address && !slices.ContainsFunc(says, func(s string) bool { return !strings.Contains(problem, s) })
	}
	for end := time.Now().Add(15 * time.Second); !told() && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if at != address {
		c.t.Errorf("explain names %q, want %q", at, address)
	}
	for _, s := range says {
		if !strings.Contains(problem, s) {
			c.t.Errorf("explain says %q, want %q in it", problem, s)
		}
	}
}

// count is the value of a counter; one that was never raised is 0.
func (c checkpoint) count(name string) int {
	c.t.Helper()
	n, err := strconv.Atoi(c.metric(name))
	if text := c.metric(name); err != nil && text != "" {
		c.t.Errorf("metric %s: %s", name, text)
	}
	return n
}

// counting notes the counters, and demands later that each was raised, or is soon.
func (c checkpoint) counting(names ...string) (raised func()) {
	c.t.Helper()
	before := map[string]int{}
	for _, name := range names {
		before[name] = c.count(name)
	}
	return func() {
		c.t.Helper()
		for _, name := range names {
			c.eventually(fmt.Sprintf("metric %s is above %d", name, before[name]), func() bool { return c.count(name) > before[name] })
		}
	}
}

// eventually waits until a condition holds.
func (c checkpoint) eventually(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	c.t.Fatalf("in vain waited until %s\n%s", what, c.log)
}

// faultyCA is an outside CA that publishes, as long as it is told to, something else than what it should.
type faultyCA struct {
	*outside
	name, id        string
	list, responder atomic.Pointer[fault] // in place of the right answer
}

// fault answers a request wrongly.
type fault func(o *faultyCA, w http.ResponseWriter, r *http.Request)

func newFaultyCA(t *testing.T, name string) *faultyCA {
	o := &faultyCA{outside: &outside{CA: testpki.NewCA(t, testpki.Name(name)), t: t}, name: name}
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	o.url = server.URL
	return o
}

func (o *faultyCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	wrong := o.responder.Load()
	if strings.HasSuffix(r.URL.Path, ".crl") {
		wrong = o.list.Load()
	}
	if wrong != nil {
		(*wrong)(o, w, r)
		return
	}
	o.outside.ServeHTTP(w, r)
}

// client is a certificate that names a list, a responder, both or neither; "" names none.
func (o *faultyCA) client(name, list, responder string) testpki.Leaf {
	return o.Client(name, testpki.Edit(sourcesOf(list, responder)))
}

func sourcesOf(list, responder string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		if list != "" {
			c.CRLDistributionPoints = []string{list}
		}
		if responder != "" {
			c.OCSPServer = []string{responder}
		}
	}
}

// signed is a list of the CA, number 6 unless edit says otherwise.
func (o *faultyCA) signed(edit func(*pkix.CRLTemplate), leaves ...testpki.Leaf) []byte {
	now := time.Now()
	template := pkix.CRLTemplate{Issuer: o.Cert, Number: big.NewInt(6), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	if edit != nil {
		edit(&template)
	}
	var entries []byte
	for _, l := range leaves {
		entries = pkix.AppendCRLEntry(entries, pkix.CRLEntry{Serial: pkix.SerialOf(l.Cert.SerialNumber), At: now, Reason: pkix.KeyCompromise})
	}
	der, err := pkix.SignCRL(template, entries, o.Key)
	if err != nil {
		o.t.Errorf("%s: %v", o.name, err)
	}
	return der
}

// tlv is an element in DER.
func tlv(tag byte, contents ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.Tag(tag), func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(contents...)) })
	return b.BytesOrPanic()
}

// content takes the header off an element.
func content(t *testing.T, der []byte) []byte {
	t.Helper()
	input := cryptobyte.String(der)
	var inner cryptobyte.String
	var tag asn1.Tag
	if !input.ReadAnyASN1(&inner, &tag) {
		t.Errorf("no element: %x", der)
	}
	return inner
}

// resigned changes the fields of what is signed in a list or a basic OCSP response, and signs it again: it is of the CA,
// and says what the CA's own program would never write.
func resigned(t *testing.T, der []byte, key crypto.Signer, edit func(fields [][]byte)) []byte {
	t.Helper()
	input := cryptobyte.String(content(t, der))
	var tbs cryptobyte.String
	if !input.ReadASN1(&tbs, asn1.SEQUENCE) {
		t.Errorf("nothing is signed in %x", der)
	}
	var fields [][]byte
	for !tbs.Empty() {
		var field cryptobyte.String
		var tag asn1.Tag
		if !tbs.ReadAnyASN1Element(&field, &tag) {
			t.Errorf("cannot be read: %x", tbs)
			break
		}
		fields = append(fields, field)
	}
	edit(fields)
	out, err := pkix.SignTBS(tlv(0x30, fields...), key)
	if err != nil {
		t.Error(err)
	}
	return out
}

// unknownCritical is a critical extension 1.3.6.1.4.1.32473.1, of the number that RFC 5612 keeps for examples.
func unknownCritical() []byte {
	return tlv(0x30, tlv(0x06, []byte{0x2b, 6, 1, 4, 1, 0x81, 0xfd, 0x59, 1}), tlv(0x01, []byte{0xff}), tlv(0x04, []byte{5, 0}))
}

// nowhere is an address that refuses connections.
func nowhere(t *testing.T) string {
	t.Helper()
	return "http://127.0.0.1:" + freePort(t)
}

// answers answers with octets.
func answers(make func(o *faultyCA) []byte) fault {
	return func(o *faultyCA, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make(o)) }
}

// answersStatus answers with a status and nothing else.
func answersStatus(code int) fault {
	return func(_ *faultyCA, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// endless sends zeros until the client has enough.
func endless(_ *faultyCA, w http.ResponseWriter, _ *http.Request) {
	chunk := make([]byte, 1<<20)
	chunk[0], chunk[1] = 0x30, 0x84 // the beginning of a list
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// cutOff promises more than it sends.
func cutOff(body func(o *faultyCA) []byte) fault {
	return func(o *faultyCA, w http.ResponseWriter, _ *http.Request) {
		der := body(o)
		w.Header().Set("Content-Length", strconv.Itoa(len(der)))
		_, _ = w.Write(der[:len(der)/2])
	}
}
