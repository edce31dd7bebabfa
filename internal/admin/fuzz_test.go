package admin

import (
	"encoding/json"
	"errors"
	"net/url"
	"testing"
)

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
