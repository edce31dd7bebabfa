package admin

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"sekisho/internal/site"
	"sekisho/internal/testpki"
	"sekisho/internal/trust"
)

// FuzzReadBundle: what is taken can be put into force, holds no private key, and is taken again as it is stored.
func FuzzReadBundle(f *testing.F) {
	root := testpki.NewCA(f)
	pem := string(root.PEM)
	for _, seed := range []string{
		"", "hello", pem, pem + pem, string(root.Intermediate("inter").PEM) + pem, pem[:200], strings.ReplaceAll(pem, "\n", `\n`),
		"words\n" + pem, pem + string(root.Client("me").CertPEM), string(testpki.NewCA(f, testpki.V1()).PEM), strings.ReplaceAll(pem, "CERTIFICATE", "PRIVATE KEY"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := readBundle(text, time.Unix(1_800_000_000, 0))
		if err != nil {
			return
		}
		ca, err := site.TrustedCA{PEM: b.pem}.Parse()
		if err != nil {
			t.Fatalf("taken, and cannot be put into force: %v", err)
		}
		if _, err := trust.NewSet([]trust.CA{ca}); err != nil || strings.Contains(b.pem, "PRIVATE") {
			t.Fatalf("%v\n%s", err, b.pem)
		}
		if again, err := readBundle(b.pem, time.Unix(1_800_000_000, 0)); err != nil || again.pem != b.pem {
			t.Fatalf("not taken as it is stored: %v", err)
		}
	})
}

// FuzzPolicy: a policy that is taken is one that its own check takes, and comes back from the store's form as it was.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"scope":"leaf","crls":["/a.crl"]}`, `{"grace":-1}`, `{"grace":"1h"}`, `{"sources":["ocsp"],"crls":["/a.crl"]}`, `{"crls":["a"]}`, `{"x":1}`, `[]`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var fields policyFields
		if len(body) == 0 || decodeJSON(body, &fields) != nil || checkPolicy(trust.Policy(fields), "") != nil {
			return
		}
		if err := trust.Policy(fields).Check(); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		var again policyFields
		if err := decodeJSON(text, &again); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(text) {
			t.Fatalf("%s becomes %s, %v", text, twice, err)
		}
	})
}

// FuzzDecodeJSON: a body is taken only when encoding/json takes it; every refusal is an answer.
func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{`{}`, `{"csr":"a","validity_days":3}`, `{"csr":"-----BEGIN`, "{\"csr\":\"a\nb\"}", `[]`, `null`, ` {} x`, `{"csr":1}`, "'", "\xef\xbb\xbf{}", `{"a":1,"a":2}`, "{\"a\":\"\xff\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 {
			return
		}
		var req, again issueRequest
		err := decodeJSON(body, &req)
		if err == nil {
			if json.Unmarshal(body, &again) != nil {
				t.Fatalf("%q is taken", body)
			}
			return
		}
		if r, ok := errors.AsType[*refusal](err); !ok || r.status != 400 || r.problems[0].Message == "" {
			t.Fatalf("%q: %v", body, err)
		}
	})
}

// FuzzPage: whatever is asked for, a page is within the list and its bounds.
func FuzzPage(f *testing.F) {
	for _, seed := range []string{"", "page=2&per_page=5", "limit=3&offset=4", "page=999999999&per_page=1000&offset=1000000000", "page=-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		p, err := pageOf(q)
		if err != nil {
			return
		}
		part := cut(p, make([]int, 23))
		if p.skip() < 0 || p.size < 1 || p.size > maxPerPage || len(part.items) > p.size || part.info.Count != len(part.items) || part.info.TotalCount != 23 {
			t.Fatalf("%q: %+v %+v", query, p, part.info)
		}
	})
}
