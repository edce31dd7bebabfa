package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// updateExplain has the golden files written anew: go test ./cmd/sekisho -run TestExplainGolden -update
var updateExplain = flag.Bool("update", false, "write the golden files of explain")

// explainWorld is what the golden explanations are about: a CA with a list and a responder, and clients of it.
type explainWorld struct {
	checkpoint
	ca      *faultyCA
	clients map[string]testpki.Leaf
}

func newExplainWorld(t *testing.T) explainWorld {
	w := explainWorld{newCheckpoint(t, t.TempDir()), newFaultyCA(t, "Golden Root"), map[string]testpki.Leaf{}}
	serial := int64(0x1000)
	add := func(ca *faultyCA, name, list, responder string) {
		serial++
		w.clients[name] = ca.Client(name, testpki.Serial(big.NewInt(serial)), testpki.Edit(sourcesOf(list, responder)))
	}
	list, responder := w.ca.url+"/ca.crl", w.ca.url+"/ocsp"
	add(w.ca, "good-by-crl", list, "")
	add(w.ca, "revoked-by-crl", list, "")
	add(w.ca, "good-by-ocsp", "", responder)
	add(w.ca, "revoked-by-ocsp", "", responder)
	add(w.ca, "good-list-down", w.ca.url+"/down.crl", responder)
	add(w.ca, "unknown-list-down", w.ca.url+"/down.crl", "")
	add(w.ca, "unchecked", "", "")
	add(w.ca, "not-asked-yet", w.ca.url+"/later.crl", responder)
	add(newFaultyCA(t, "Unknown Root"), "unknown-issuer", "", "")
	down := fault(func(o *faultyCA, rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down.crl" {
			http.Error(rw, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = rw.Write(o.signed(nil, w.clients["revoked-by-crl"]))
	})
	w.ca.list.Store(&down)
	w.ca.revoke(w.clients["revoked-by-ocsp"])
	w.trust(w.ca, trust.Policy{})
	return w
}

// explained runs the command and returns what an operator sees, made the same for each run.
func (w explainWorld) explained(dir string, args ...string) string {
	w.t.Helper()
	stdout, stderr, code := sekisho(w.t, "", append(append([]string{"explain"}, args...), "--data", w.dir)...)
	if len(args) > 3 && !json.Valid([]byte(stdout)) {
		w.t.Errorf("no JSON: %s", stdout)
	}
	text := fmt.Sprintf("$ sekisho explain %s\n%s%s(exit code %d)\n", strings.Join(args, " "), stdout, stderr, code)
	for _, r := range []struct{ pattern, with string }{
		{regexp.QuoteMeta(dir + "/"), ""},
		{`127\.0\.0\.1:\d+`, "ADDRESS"},
		{`20\d\d-\d\d-\d\d`, "2006-01-02"},
		{`T\d\d:\d\d:\d\d(\.\d+)?Z`, "T15:04:05Z"}, // as long as before, so that tables stay tables
		{`[0-9a-f]{64}`, "FINGERPRINT"},
		{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, "ID"},
		{`\b[0-9a-f]{24}\b`, "REQUEST-ID"},
		{`OCSP/M[A-Za-z0-9+/%=]+`, "OCSP/REQUEST"},
		{`\b[0-9a-f]{20,34}\b`, "SERIAL"},
		{`(?m) +$`, ""},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return text
}

// TestExplainGolden compares what `sekisho explain` prints, as text and as JSON, with the files in testdata/explain. They
// are there to be read: this is what an operator has to understand a refusal by.
func TestExplainGolden(t *testing.T) {
	t.Parallel()
	w := newExplainWorld(t)
	verdicts := map[string]string{
		"good-by-crl": comesIn, "revoked-by-crl": isRevoked, "good-by-ocsp": comesIn, "revoked-by-ocsp": isRevoked, "good-list-down": comesIn,
		"unknown-list-down": isUnknown, "unchecked": comesIn, "not-asked-yet": "", "unknown-issuer": "", // Go's client keeps a certificate to itself that the server does not ask for
	}
	dir := t.TempDir()
	for name, verdict := range verdicts {
		t.Run(name, func(t *testing.T) {
			w := w
			w.checkpoint = w.under(t)
			if verdict != "" {
				w.want(w.clients[name], verdict, "before it is explained")
			}
			file := filepath.Join(dir, name+".pem")
			if err := os.WriteFile(file, w.clients[name].CertPEM, 0o600); err != nil {
				t.Fatal(err)
			}
			got := w.explained(dir, file, "--host", "localhost") + "\n" + w.explained(dir, file, "--host", "localhost", "--json")
			compareGolden(t, filepath.Join("testdata", "explain", name+".txt"), got)
		})
	}
	t.Run("refused-request", func(t *testing.T) {
		w := w
		w.checkpoint = w.under(t)
		resp, err := w.client(w.clients["revoked-by-crl"].TLS()).Get(w.ready.Edge)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		id := resp.Header.Get("X-Request-Id")
		compareGolden(t, filepath.Join("testdata", "explain", "refused-request.txt"), w.explained(dir, id)+"\n"+w.explained(dir, id, "--json"))
	})
	w.stop()
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *updateExplain {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", file, diff)
	}
}
