package sekisho_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	// namedFile is a file in a cell of docs/THREATS.md, with the tests that are named behind it.
	namedFile = regexp.MustCompile("`([a-z0-9/]+_test\\.go)`((?:,? Test[A-Za-z0-9]+)+)")
	namedTest = regexp.MustCompile(`Test[A-Za-z0-9]+`)
)

// TestThreats: every test that docs/THREATS.md names is where it says.
func TestThreats(t *testing.T) {
	page, err := os.ReadFile("docs/THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range namedFile.FindAllStringSubmatch(string(page), -1) {
		code, err := os.ReadFile(m[1])
		if err != nil {
			t.Error(err)
			continue
		}
		for _, name := range namedTest.FindAllString(m[2], -1) {
			found++
			if !strings.Contains(string(code), "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("%s has no %s", m[1], name)
			}
		}
	}
	if all := len(namedTest.FindAllString(string(page), -1)); found != all || found == 0 {
		t.Errorf("%d tests are named, %d of them with their file", all, found)
	}
}
