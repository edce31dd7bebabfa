package sekisho_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// The size budget. Only the function limit refuses; the rest is reported, so that growth is seen before it hurts.
const (
	maxFunc      = 100 // lines: refused
	askFunc      = 60  // lines: asks a question
	askFile      = 500 // lines
	askParams    = 5
	askFields    = 15 // of a struct; Config types are exempt
	askInterface = 8  // methods
)

// longFuncs are the functions that may be over maxFunc lines, "folder Func" or "folder Type.Func", with the reason:
// a parser's or protocol's one switch, which would be harder to read in pieces.
var longFuncs = map[string]string{}

// sizes are the figures of the product's non-test files.
type sizes struct {
	files, funcs, params []int
	asks                 []string
	inits, vars          []string
	code, test           int // lines
	undocumented         []string
	exported             int
}

// TestSizeBudget counts what is large. Functions over 100 lines fail unless longFuncs excuses them.
func TestSizeBudget(t *testing.T) {
	var s sizes
	used := map[string]bool{}
	for _, name := range goFiles(t) {
		f := parseFile(t, name, name)
		lines := f.fset.File(f.ast.Pos()).LineCount()
		if strings.HasSuffix(name, "_test.go") {
			s.test += lines
			continue
		}
		s.code += lines
		s.files = append(s.files, lines)
		if lines > askFile {
			s.ask("%s: %d lines", name, lines)
		}
		for _, long := range s.count(f) {
			if longFuncs[long.name] == "" {
				t.Errorf("%s: %s is %d lines long, over %d: cut it, or give its reason in longFuncs", long.pos, long.name, long.lines, maxFunc)
			}
			used[long.name] = true
		}
	}
	for _, name := range sortedKeys(longFuncs) {
		if !used[name] {
			t.Errorf("longFuncs excuses %q, which is short or gone: take it out", name)
		}
	}
	s.report(t)
}

// longFunc is a function over the limit.
type longFunc struct {
	name, pos string
	lines     int
}

// count adds a file's declarations and returns its functions over maxFunc.
func (s *sizes) count(f parsedFile) []longFunc {
	var long []longFunc
	for _, d := range f.ast.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			n := f.fset.Position(d.End()).Line - f.fset.Position(d.Pos()).Line + 1
			s.funcs = append(s.funcs, n)
			s.params = append(s.params, d.Type.Params.NumFields())
			if n > askFunc {
				s.ask("%s: %s is %d lines", f.pos(d), funcName(d), n)
			}
			if n > maxFunc {
				long = append(long, longFunc{path.Dir(f.path) + " " + funcName(d), f.pos(d), n})
			}
			if p := d.Type.Params.NumFields(); p > askParams {
				s.ask("%s: %s has %d parameters", f.pos(d), funcName(d), p)
			}
			if d.Name.Name == "init" && d.Recv == nil {
				s.inits = append(s.inits, f.pos(d))
			}
			if typeName, _, method := strings.Cut(funcName(d), "."); !method || ast.IsExported(typeName) {
				s.documented(f, d, d.Name, d.Doc)
			}
		case *ast.GenDecl:
			s.general(f, d)
		}
	}
	return long
}

// general adds a var or type declaration.
func (s *sizes) general(f parsedFile, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.ValueSpec:
			if d.Tok != token.VAR {
				continue
			}
			for _, n := range spec.Names {
				if n.Name != "_" && !strings.HasPrefix(strings.ToLower(n.Name), "err") {
					s.vars = append(s.vars, f.pos(n)+" "+n.Name)
				}
			}
		case *ast.TypeSpec:
			s.documented(f, spec, spec.Name, cmp.Or(spec.Doc, d.Doc))
			switch t := spec.Type.(type) {
			case *ast.StructType:
				if n := t.Fields.NumFields(); n > askFields && !strings.Contains(strings.ToLower(spec.Name.Name), "config") {
					s.ask("%s: struct %s has %d fields", f.pos(spec), spec.Name.Name, n)
				}
			case *ast.InterfaceType:
				if n := t.Methods.NumFields(); n > askInterface {
					s.ask("%s: interface %s has %d methods", f.pos(spec), spec.Name.Name, n)
				}
			}
		}
	}
}

// documented counts an exported declaration and whether it has a doc comment.
func (s *sizes) documented(f parsedFile, n ast.Node, name *ast.Ident, doc *ast.CommentGroup) {
	if !name.IsExported() || f.ast.Name.Name == "main" {
		return
	}
	s.exported++
	if doc == nil {
		s.undocumented = append(s.undocumented, f.pos(n)+" "+name.Name)
	}
}

// report logs the figures beside the budget.
func (s *sizes) report(t *testing.T) {
	t.Helper()
	slices.Sort(s.files)
	slices.Sort(s.funcs)
	slices.Sort(s.params)
	t.Logf("code %d lines, tests %d: ratio %.2f (budget 0.9-1.5)", s.code, s.test, float64(s.test)/float64(max(s.code, 1)))
	t.Logf("files: %d, median %d lines (80-200), largest %d", len(s.files), median(s.files), last(s.files))
	t.Logf("functions: %d, median %d lines (12), largest %d, most parameters %d", len(s.funcs), median(s.funcs), last(s.funcs), last(s.params))
	t.Logf("init functions: %d (0) %s", len(s.inits), strings.Join(s.inits, ", "))
	t.Logf("package variables other than errors: %d %s", len(s.vars), strings.Join(s.vars, ", "))
	t.Logf("exported and documented: %d of %d; without: %s", s.exported-len(s.undocumented), s.exported, strings.Join(s.undocumented, ", "))
	for _, a := range s.asks {
		t.Logf("asks a question: %s", a)
	}
}

func (s *sizes) ask(format string, args ...any) {
	s.asks = append(s.asks, fmt.Sprintf(format, args...))
}

// funcName is Func, or Type.Func for a method.
func funcName(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	t := d.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	switch g := t.(type) {
	case *ast.IndexExpr:
		t = g.X
	case *ast.IndexListExpr:
		t = g.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + d.Name.Name
	}
	return d.Name.Name
}

// median and last read a sorted slice; both are 0 when it is empty.
func median(s []int) int {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)/2]
}

func last(s []int) int {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1]
}
