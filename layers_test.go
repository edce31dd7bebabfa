package sekisho_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layer says how high a package stands. Imports go down only.
type layer int

const (
	formats  layer = iota + 1 // 1: bytes <-> values, pure
	domain                    // 2a
	decision                  // 2b
	assembly                  // 2c
	surface                   // 3: listeners, handlers, remote clients
	adapter                   // 4: the store
	wiring                    // cmd
	testOnly                  // builders and suites for tests
)

// layerText is how a failure names a layer, as docs/ARCHITECTURE.md does.
var layerText = map[layer]string{
	formats: "1 (formats)", domain: "2a (domain)", decision: "2b", assembly: "2c",
	surface: "3 (surfaces)", adapter: "4 (adapter)", wiring: "wiring", testOnly: "tests only",
}

// row is the place of one package. A package imports every layer below its own (see mayImport) and, of its own
// layer, only its peers and its own sub-folders. rooms: its sub-folders are roles inside it and need no row.
type row struct {
	layer layer
	peers []string
	rooms bool
}

// table is the layer table of docs/ARCHITECTURE.md. Change both in one commit that says why.
var table = map[string]row{
	".":           {layer: testOnly},
	"cmd/sekisho": {layer: wiring, rooms: true},

	"internal/pkix":    {layer: formats},
	"internal/rules":   {layer: formats, peers: []string{"internal/pkix"}},
	"internal/acme":    {layer: formats, peers: []string{"internal/pkix"}},
	"internal/keyless": {layer: formats, peers: []string{"internal/pkix"}},
	"internal/ct":      {layer: formats, peers: []string{"internal/pkix"}},
	"internal/crlset":  {layer: formats, peers: []string{"internal/pkix"}},
	"internal/dnssec":  {layer: formats, peers: []string{"internal/pkix"}},

	"internal/outbound":  {layer: domain},
	"internal/certpath":  {layer: domain, peers: []string{"internal/trust"}},
	"internal/ca/lint":   {layer: domain},
	"internal/identity":  {layer: domain},
	"internal/trust":     {layer: domain},
	"internal/keystore":  {layer: domain},
	"internal/principal": {layer: domain},
	"internal/auditlog":  {layer: domain},
	"internal/alert":     {layer: domain},

	"internal/revocation": {layer: decision, rooms: true},
	"internal/access":     {layer: decision},
	"internal/ca":         {layer: decision},

	"internal/verify":         {layer: assembly},
	"internal/acme/challenge": {layer: assembly},
	"internal/acme/orders":    {layer: assembly, peers: []string{"internal/acme/challenge"}},
	"internal/site":           {layer: assembly},
	"internal/servercert":     {layer: assembly},

	"internal/edge":              {layer: surface, rooms: true},
	"internal/admin":             {layer: surface, rooms: true},
	"internal/ca/responder":      {layer: surface},
	"internal/acme/acmeserver":   {layer: surface},
	"internal/acme/acmewalk":     {layer: surface},
	"internal/acme/pebble":       {layer: surface, peers: []string{"internal/acme/acmeserver"}},
	"internal/keyless/keyserver": {layer: surface},
	"internal/keyless/keyclient": {layer: surface},
	"internal/tunnel":            {layer: surface},
	"internal/worker":            {layer: surface},
	"internal/ct/ctwatch":        {layer: surface},
	"internal/ct/ctlog":          {layer: surface},
	"internal/crlset/crlfetch":   {layer: surface},
	"internal/dnssec/dnsquery":   {layer: surface},

	"internal/store":           {layer: adapter, rooms: true},
	"internal/store/storetest": {layer: testOnly},
	"internal/testpki":         {layer: testOnly},
	"internal/telemetry":       {layer: wiring},
}

// mayImport says which layers a layer sees. Inside one layer the row's peers decide.
var mayImport = map[layer][]layer{
	formats:  nil,
	domain:   {formats},
	decision: {formats, domain},
	assembly: {formats, domain, decision},
	surface:  {formats, domain, decision, assembly},
	adapter:  {formats, domain, decision, assembly},
	wiring:   {formats, domain, decision, assembly, surface, adapter, wiring},
	testOnly: {formats, domain, decision, assembly, surface, adapter, testOnly},
}

// arrowReason says why an arrow up, or sideways, is refused: keyed by the importer's layer.
var arrowReason = map[layer]string{
	formats:  "a format is bytes and values: it sees pkix and nothing else of ours, so that it can be fuzzed, reused and read alone",
	domain:   "domain packages know the formats, not one another: each must be understood without the rest",
	decision: "2b decides over domain values; what is put together from several decisions lives in 2c",
	assembly: "2c puts decisions together; it must not know who serves or stores them",
	surface:  "a surface never imports another one, or the store: cmd hands over an http.Handler, http.RoundTripper, crypto.Signer, net.Conn or a func",
	adapter:  "the store implements hooks that use builtin, standard and layer 1-2 types, so it never needs a surface",
	wiring:   "only tests import the builders for tests",
	testOnly: "builders for tests do not know the wiring",
}

// bannedInFormats are imports that layer 1 may not have, with the reason.
var bannedInFormats = map[string]string{
	"net":          "a format does not dial or listen (net/netip and net/url are fine)",
	"net/http":     "a format knows no protocol around it; the caller hands over bytes",
	"os":           "a format reads no files; the caller hands over bytes",
	"os/exec":      "a format runs nothing",
	"database/sql": "a format is not stored by itself; package store does that",
	"log":          "a format returns errors; who handles them logs",
	"log/slog":     "a format returns errors; who handles them logs",
}

// codecs are the third-party modules that layer 1 may import: pure codecs, each in the dependency list of the design.
var codecs = []string{
	"golang.org/x/crypto/", "github.com/miekg/dns", "github.com/go-jose/go-jose/v4", "software.sslmate.com/src/go-pkcs12",
}

// clock are the functions of package time that read or wait for the clock.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// pkg is the part of `go list -json` that the tests read.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
	Imports    []string // of the non-test files
	Standard   bool
}

// module is the path of the root module.
const module = "sekisho"

// name is the package's folder in the module, "." for the root.
func (p pkg) name() string { return inModule(p.ImportPath) }

// inModule turns an import path of this module into its folder, and any other into "".
func inModule(importPath string) string {
	if importPath == module {
		return "."
	}
	if rest, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return rest
	}
	return ""
}

// place finds the row of a package: its own, or that of the nearest folder above that has rooms.
// home is the folder the row belongs to.
func place(name string) (r row, home string, ok bool) {
	if r, ok := table[name]; ok {
		return r, name, true
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if r, ok := table[dir]; ok && r.rooms {
			return r, dir, true
		}
	}
	return row{}, "", false
}

// arrow returns why from may not import to (both folders of this module), or "".
func arrow(from, to string) string {
	f, fHome, ok := place(from)
	if !ok {
		return "" // reported once, as a package without a row
	}
	t, tHome, ok := place(to)
	switch {
	case !ok, fHome == tHome, f.layer == testOnly && t.layer != wiring:
		return ""
	case to == "internal/telemetry" && fHome != "cmd/sekisho":
		return "telemetry is wiring: a package exposes its counters, cmd registers them"
	case slices.Contains(mayImport[f.layer], t.layer), slices.Contains(f.peers, to):
		return ""
	}
	return arrowReason[f.layer]
}

// banned returns why a package of layer l may not import a package from outside this module, or "".
func banned(l layer, imp string) string {
	if imp == "testing" || strings.HasPrefix(imp, "testing/") {
		if l == testOnly {
			return ""
		}
		return "package testing registers flags and has no place in the product; builders for tests live in testpki and storetest"
	}
	if l != formats {
		return ""
	}
	if why := bannedInFormats[imp]; why != "" {
		return why
	}
	first, _, _ := strings.Cut(imp, "/")
	if strings.Contains(first, ".") && !slices.ContainsFunc(codecs, func(c string) bool { return strings.HasPrefix(imp, c) }) {
		return "layer 1 takes no third-party module but the codecs " + strings.Join(codecs, ", ")
	}
	return ""
}

// TestLayers refuses every import that the layer table does not allow, and in layer 1 the clock and goroutines.
func TestLayers(t *testing.T) {
	for _, p := range listPackages(t) {
		r, _, ok := place(p.name())
		if !ok {
			t.Errorf("%s has no layer: add it to the table (layers_test.go, and docs/ARCHITECTURE.md in the same commit)", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			why := banned(r.layer, imp)
			if to := inModule(imp); to != "" {
				why = arrow(p.name(), to)
			}
			if why != "" {
				t.Errorf("%s, layer %s, may not import %s: %s", p.ImportPath, layerText[r.layer], imp, why)
			}
		}
		if r.layer == formats {
			checkPure(t, p)
		}
	}
}

// TestLayersArrows pins the judge itself: one arrow of each kind.
func TestLayersArrows(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		ok       bool
	}{
		{"internal/rules", "internal/pkix", true},
		{"internal/pkix", "internal/rules", false},
		{"internal/ct", "internal/crlset", false},
		{"internal/certpath", "internal/trust", true},
		{"internal/trust", "internal/certpath", false},
		{"internal/ca", "internal/ca/lint", true},
		{"internal/ca/lint", "internal/ca", false},
		{"internal/revocation", "internal/ca", false},
		{"internal/verify", "internal/revocation", true},
		{"internal/verify", "internal/site", false},
		{"internal/edge", "internal/site", true},
		{"internal/edge", "internal/edge/upstream", true},
		{"internal/admin", "internal/edge/upstream", false},
		{"internal/edge", "internal/admin", false},
		{"internal/edge", "internal/store", false},
		{"internal/edge", "internal/telemetry", false},
		{"internal/edge", "internal/testpki", false},
		{"internal/acme/pebble", "internal/acme/acmeserver", true},
		{"internal/store", "internal/ca", true},
		{"internal/store", "internal/admin", false},
		{"internal/store/storetest", "internal/store", true},
		{"internal/testpki", "internal/pkix", true},
		{"cmd/sekisho", "internal/telemetry", true},
		{"cmd/sekisho", "internal/testpki", false},
	} {
		if why := arrow(tc.from, tc.to); (why == "") != tc.ok {
			t.Errorf("%s -> %s: allowed %v, want %v (%s)", tc.from, tc.to, why == "", tc.ok, why)
		}
	}
	for imp, ok := range map[string]bool{
		"net": false, "net/netip": true, "net/url": true, "log/slog": false, "testing": false,
		"golang.org/x/crypto/cryptobyte": true, "github.com/spf13/cobra": false,
	} {
		if why := banned(formats, imp); (why == "") != ok {
			t.Errorf("layer 1 imports %s: allowed %v, want %v", imp, why == "", ok)
		}
	}
}

// checkPure refuses the clock and goroutines in the files of a layer-1 package.
func checkPure(t *testing.T, p pkg) {
	t.Helper()
	for _, file := range parse(t, p) {
		name := importName(file.ast, "time")
		ast.Inspect(file.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine in layer 1: formats are synchronous, the caller decides about concurrency", file.pos(n))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && name != "" && x.Name == name && slices.Contains(clock, n.Sel.Name) {
					t.Errorf("%s: time.%s in layer 1: the caller passes the time in", file.pos(n), n.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestIdentityConstructors allows package verify alone to say who somebody is: every exported New function of
// package identity that makes an Identity is called from there and nowhere else in the product.
func TestIdentityConstructors(t *testing.T) {
	const identity, verify = "internal/identity", "internal/verify"
	pkgs := listPackages(t)
	i := slices.IndexFunc(pkgs, func(p pkg) bool { return p.name() == identity })
	if i < 0 {
		t.Fatalf("%s is gone: the rule that only verify makes identities guards nothing", identity)
	}
	makers := constructors(t, pkgs[i])
	if len(makers) == 0 {
		t.Fatalf("%s has no exported New function: the rule that only verify makes identities guards nothing", identity)
	}
	for _, p := range pkgs {
		if p.name() == identity || p.name() == verify || !slices.Contains(p.Imports, module+"/"+identity) {
			continue
		}
		for _, file := range parse(t, p) {
			name := importName(file.ast, module+"/"+identity)
			ast.Inspect(file.ast, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && slices.Contains(makers, sel.Sel.Name) {
					t.Errorf("%s: identity.%s: only package verify says who somebody is; ask it", file.pos(n), sel.Sel.Name)
				}
				return true
			})
		}
	}
}

// constructors returns the names of the exported functions New… of a package.
func constructors(t *testing.T, p pkg) []string {
	t.Helper()
	var names []string
	for _, file := range parse(t, p) {
		for _, d := range file.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "New") {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// parsedFile is a syntax tree with the means to name a place in it.
type parsedFile struct {
	ast  *ast.File
	fset *token.FileSet
	path string // from the module root
}

// pos is FILE:LINE of a node.
func (f parsedFile) pos(n ast.Node) string {
	return f.path + ":" + strconv.Itoa(f.fset.Position(n.Pos()).Line)
}

// parse reads the non-test files of a package.
func parse(t *testing.T, p pkg) []parsedFile {
	t.Helper()
	var files []parsedFile
	for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
		files = append(files, parseFile(t, filepath.Join(p.Dir, name), path.Join(p.name(), name)))
	}
	return files
}

// parseFile reads one file; shown is how failures name it.
func parseFile(t *testing.T, file, shown string) parsedFile {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("parse %s: %v", shown, err)
	}
	return parsedFile{f, fset, shown}
}

// importName is the name under which a file knows an import path, "" when it does not import it.
func importName(f *ast.File, importPath string) string {
	for _, i := range f.Imports {
		if i.Path.Value != strconv.Quote(importPath) {
			continue
		}
		if i.Name != nil {
			return i.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// listPackages returns every package of the root module, as the go command sees them.
func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Dir,GoFiles,CgoFiles,Imports,Standard", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 2 {
		t.Fatalf("go list found %d packages: run the test in the module root", len(pkgs))
	}
	return pkgs
}

// sortedKeys returns the keys of a map in order.
func sortedKeys[K int | string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
