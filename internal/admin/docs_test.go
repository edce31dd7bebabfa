package admin

import (
	"os"
	"strings"
	"testing"
)

// TestDocsNameEveryRoute: docs/api.md has every path of the table, with its methods on the same line.
func TestDocsNameEveryRoute(t *testing.T) {
	data, err := os.ReadFile("../../docs/api.md")
	check(t, err)
	lines := strings.Split(string(data), "\n")
	a := newAPI(t)
	for _, r := range a.server.routes() {
		found := false
		for _, line := range lines {
			if strings.HasPrefix(line, "| ") && strings.Contains(line, "`"+r.pattern+"`") && strings.Contains(strings.Split(line, "`")[0], r.method) {
				found = true
			}
		}
		if !found {
			t.Errorf("docs/api.md has no line for %s %s", r.method, r.pattern)
		}
	}
}
