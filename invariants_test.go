package sekisho_test

import (
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// invariant is one promise of the design. It is due as soon as the package that keeps it exists.
type invariant struct {
	number int
	text   string
	keeper string // folder; until it exists, a missing test is only logged
}

var invariants = []invariant{
	{1, "a refused certificate never reaches an upstream where the host requires one", "internal/edge"},
	{2, "revocation cuts only the connections of that certificate", "internal/edge"},
	{3, "a ticket resumes only its own host, CA set and certificate, and none for over 18 hours", "internal/edge"},
	{4, "no header that carries identity reaches the upstream unless sekisho wrote it", "internal/edge"},
	{5, "SNI and Host that differ in trust set: 421", "internal/edge"},
	{6, "a source that cannot be read fails as its policy says; a broken reload changes nothing", "internal/site"},
	{7, "unknown is never good", "internal/ca/responder"},
	{8, "no certificate without a ledger row, no row without a certificate", "internal/ca"},
	{9, "serial numbers are compared as integers", "internal/pkix"},
	{10, "the key server signs only what its policy for that key names", "internal/keyless/keyserver"},
	{11, "a private key is never logged, never answered after creation, never readable by others", "internal/keystore"},
	{12, "the admin API without a valid credential does nothing; loopback-only without TLS", "internal/admin"},
	{13, "hostile input has a budget", "internal/pkix"},
	{14, "every goroutine has a parent that waits; a second start after kill -9 is an ordinary start", "cmd/sekisho"},
	{15, "errors tell what was wrong, where, and what to do; nothing is silently ignored", "cmd/sekisho"},
}

// numbered finds the numbers in the name of a test: TestInvariant04HeaderSpoofing, TestTicketsInvariant03.
var numbered = regexp.MustCompile(`Invariant([0-9]{2})`)

// TestInvariants checks that each invariant has a test with its number in its name, in any module of the repository.
func TestInvariants(t *testing.T) {
	tests := map[int][]string{}
	for _, f := range goFiles(t) {
		if !strings.HasSuffix(f, "_test.go") {
			continue
		}
		for _, d := range parseFile(t, f, f).ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") {
				continue
			}
			for _, m := range numbered.FindAllStringSubmatch(fn.Name.Name, -1) {
				n, _ := strconv.Atoi(m[1]) // two digits, by the expression
				tests[n] = append(tests[n], f+" "+fn.Name.Name)
			}
		}
	}
	for _, inv := range invariants {
		found := tests[inv.number]
		delete(tests, inv.number)
		switch _, err := os.Stat(inv.keeper); {
		case len(found) > 0:
			t.Logf("invariant %02d: %d tests", inv.number, len(found))
		case err != nil:
			t.Logf("invariant %02d: none yet; %s, which keeps it, does not exist (%s)", inv.number, inv.keeper, inv.text)
		default:
			t.Errorf("invariant %02d has no test: name one TestInvariant%02d… (%s)", inv.number, inv.number, inv.text)
		}
	}
	for _, n := range sortedKeys(tests) {
		t.Errorf("there is no invariant %02d: %s", n, strings.Join(tests[n], ", "))
	}
}

// goFiles returns every Go file of the repository, all modules, relative to its root.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata"):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ".go"):
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}
