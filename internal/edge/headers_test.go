package edge

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// innocent names resemble forgeable ones, or are what every browser sends.
func innocent() []string {
	return []string{
		"Accept", "Accept-Encoding", "Authorization", "Cache-Control", "Content-Type", "Cookie", "Client-Hints", "Client-Version",
		"Cfg-Version", "Certificate", "Date", "Etag", "Forward", "From", "If-Match", "Origin", "Range", "Referer", "Remote",
		"Sec-Fetch-Site", "Sec-Websocket-Key", "Ssl", "Te", "Traceparent", "True", "User-Agent", "Via", "X-Api-Key", "X-Client-Version",
		"X-Csrf-Token", "X-Forward", "X-Real", "X-Remote", "X-Requested-With", "X-Trace-Id", "Grpc-Timeout", "-", "--",
	}
}

func TestForgeableNames(t *testing.T) {
	m := newNameMatcher(forgeables())
	for _, f := range forgeables() {
		if f.reason == "" {
			t.Errorf("%q has no reason", f.prefix)
		}
		title := http.CanonicalHeaderKey(f.prefix)
		for _, name := range []string{
			f.prefix, title, strings.ToUpper(f.prefix), title + "-More", title + "x",
			strings.ReplaceAll(title, "-", "_"), strings.ReplaceAll(title, "-", "."), strings.ReplaceAll(title, "-", "--"),
			strings.ReplaceAll(title, "-", "_-~"), "_" + title, "-" + f.prefix,
		} {
			if !m.match(name) {
				t.Errorf("%q is let through, want it removed like %q", name, f.prefix)
			}
		}
	}
	for _, name := range innocent() {
		if name == "Ssl" || name == "Remote" || name == "X-Real" || name == "X-Remote" {
			continue // the name of a family alone is removed with it
		}
		if m.match(name) {
			t.Errorf("%q is removed, want it let through", name)
		}
	}
}

func TestStripAllocatesNothing(t *testing.T) {
	m := newNameMatcher(forgeables())
	h := http.Header{}
	for _, name := range innocent() {
		if !m.match(name) {
			h.Set(name, "x")
		}
	}
	if n := testing.AllocsPerRun(100, func() { m.strip(h) }); n != 0 {
		t.Errorf("strip allocates %v times a request, want 0", n)
	}
}

func TestRemoveHopByHop(t *testing.T) {
	h := http.Header{
		"Connection": {"close, X-Mine ,te", "x-also"}, "X-Mine": {"1"}, "X-Also": {"1"}, "X-Stays": {"1"},
		"Te": {"gzip, trailers;q=0.5"}, "Keep-Alive": {"timeout=5"}, "Proxy-Connection": {"keep-alive"}, "Upgrade": {"h2c"},
		"Http2-Settings": {"AAMAAABkAARAAAAAAAIAAAAA"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X"}, "Proxy-Authorization": {"Basic x"},
	}
	removeHopByHop(h, true)
	if diff := cmp.Diff(http.Header{"X-Stays": {"1"}}, h); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	h = http.Header{"Te": {"trailers"}}
	removeHopByHop(h, true)
	if diff := cmp.Diff(http.Header{"Te": {"trailers"}}, h); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestHostName(t *testing.T) {
	for _, tt := range []struct {
		host, name string
		ok         bool
	}{
		{"a.example", "a.example", true},
		{"a.example:8443", "a.example", true},
		{"a.example.:8443", "a.example.", true},
		{"A.Example:", "A.Example", true},
		{"[::1]:8443", "[::1]", true},
		{"[::1]", "[::1]", true},
		{"127.0.0.1:1", "127.0.0.1", true},
		{"", "", true},
		{":8443", ":8443", false},
		{"::1", "::1", false},
		{".", ".", false},
		{"a.example:http", "a.example:http", false},
		{"a@b", "a@b", false},
		{"a/b", "a/b", false},
		{"[::1%25eth0]:1", "[::1%25eth0]", false},
	} {
		name, ok := hostName(tt.host)
		if name != tt.name || ok != tt.ok {
			t.Errorf("hostName(%q) = %q, %v, want %q, %v", tt.host, name, ok, tt.name, tt.ok)
		}
	}
}

// normalForm is the slow reference for nameMatcher.
func normalForm(name string) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(name)) {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			b.WriteByte(c)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
			b.WriteByte('-')
		}
	}
	return b.String()
}

func FuzzForgeableName(f *testing.F) {
	table := forgeables()
	m := newNameMatcher(table)
	for _, e := range table {
		f.Add(e.prefix)
		f.Add(strings.ReplaceAll(e.prefix, "-", "_"))
	}
	for _, name := range innocent() {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		want, normal := false, normalForm(name)
		for _, e := range table {
			want = want || strings.HasPrefix(normal, e.prefix) || normal+"-" == e.prefix
		}
		if got := m.match(name); got != want {
			t.Errorf("match(%q) = %v, want %v (%q)", name, got, want, normal)
		}
	})
}

func BenchmarkStrip(b *testing.B) {
	m := newNameMatcher(forgeables())
	h := http.Header{
		"Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "User-Agent": {"x"}, "Cookie": {"a=b"}, "Content-Type": {"x"},
		"Authorization": {"x"}, "Referer": {"x"}, "Sec-Fetch-Site": {"none"}, "X-Requested-With": {"x"}, "Cache-Control": {"x"},
	}
	b.ReportAllocs()
	for b.Loop() {
		m.strip(h)
	}
}
