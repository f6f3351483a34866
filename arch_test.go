package dynactor_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dynactor/dynactor"

// Limits on size: what the tail of long functions and files does to a reader.
const (
	maxFileLines     = 500
	maxFunctionLines = 80
	wantFunction95   = 50
)

// imports says what each package may import of ours, and which libraries.
// A folder's rule holds for all below it that have none of their own. The
// standard library is free except where pure says otherwise.
var imports = map[string]rule{
	".":                {},
	"dynamo":           {pure: true},
	"dynamo/clock":     {pure: true, ours: []string{"dynamo"}},
	"dynamo/version":   {pure: true, ours: []string{"dynamo", "dynamo/clock"}},
	"dynamo/vnode":     {pure: true, ours: []string{"dynamo", "dynamo/clock", "dynamo/version"}},
	"dynamo/quorum":    {pure: true, ours: []string{"dynamo"}},
	"dynamo/bucket":    {pure: true, ours: []string{"dynamo", "dynamo/quorum"}},
	"dynamo/ring":      {pure: true, ours: []string{"dynamo"}, libraries: []string{"github.com/zeebo/xxh3"}},
	"dynamo/member":    {pure: true, ours: []string{"dynamo", "dynamo/bucket", "dynamo/quorum", "dynamo/ring"}},
	"dynamo/request":   {pure: true, ours: []string{"dynamo", "dynamo/clock", "dynamo/version", "dynamo/quorum", "dynamo/ring"}},
	"dynamo/founding":  {pure: true, ours: []string{"dynamo"}},
	"dynamo/admission": {pure: true},
	"dynamo/detector":  {pure: true, ours: []string{"dynamo"}},
	"dynamo/transfer":  {pure: true, ours: []string{"dynamo"}},
	"dynamo/hashtree":  {pure: true, ours: []string{"dynamo"}, libraries: []string{"github.com/zeebo/xxh3"}},
	"dynamo/exchange":  {pure: true, ours: []string{"dynamo", "dynamo/hashtree"}},
	"dynamo/reap":      {pure: true, ours: []string{"dynamo", "dynamo/clock", "dynamo/version"}},
	"dynamo/sim":       {pure: true, ours: []string{"dynamo"}, libraries: []string{"math/rand/v2"}},
	"dynamo/sim/cmd":   {ours: []string{"dynamo"}},
	"messages":         {ours: []string{"dynamo"}, libraries: []string{"google.golang.org/protobuf"}},
	"storage":          {},
	"storage/memory":   {ours: []string{"storage"}, libraries: []string{"github.com/tidwall/btree", "github.com/google/btree"}},
	"storage/cached":   {ours: []string{"storage"}, libraries: []string{"github.com/hashicorp/golang-lru"}},
	"storage/faulty":   {ours: []string{"storage"}},
	"storage/internal": {ours: []string{"storage"}},
	"storage/pebbledb": {
		ours:      []string{"storage"},
		libraries: []string{"github.com/cockroachdb/pebble", "github.com/cockroachdb/errors", "golang.org/x/sys"},
	},
	"storage/storagetest": {ours: []string{"storage"}, libraries: []string{"pgregory.net/rapid"}},
	"actors/rt":           {libraries: []string{"github.com/asynkron/protoactor-go", "golang.org/x/sys"}},
	"actors/link": {
		ours:      []string{"messages", "actors/rt"},
		libraries: []string{"github.com/asynkron/protoactor-go", "google.golang.org/protobuf"},
	},
	"actors": {
		ours:      []string{"dynamo", "messages", "storage", "actors/rt", "actors/link"},
		libraries: []string{"github.com/asynkron/protoactor-go", "google.golang.org/protobuf"},
	},
	"bootstrap": {
		ours: []string{"dynamo", "messages", "storage", "actors", "client"},
		libraries: []string{
			"github.com/asynkron/protoactor-go", "github.com/hashicorp/consul/api", "gopkg.in/yaml.v3", "golang.org/x/sys",
			"google.golang.org/protobuf", "golang.org/x/term", "github.com/prometheus/client_golang",
		},
	},
	"bootstrap/telemetry": {
		ours:      []string{"actors", "dynamo", "messages", "storage"},
		libraries: []string{"go.opentelemetry.io/otel", "github.com/prometheus/client_golang", "github.com/prometheus/otlptranslator"},
	},
	"bootstrap/page":        {ours: []string{"client", "dynamo"}, libraries: []string{"github.com/chromedp"}},
	"bootstrap/clustertest": {ours: []string{"bootstrap", "client", "dynamo", "storage"}},
	"client": {
		ours: []string{"messages", "actors/link", "actors/rt", "dynamo"},
		libraries: []string{
			"github.com/asynkron/protoactor-go", "google.golang.org/protobuf",
			// The API only: applications bring the rest, if they want it.
			"go.opentelemetry.io/otel/trace", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes",
		},
	},
	"client/lookup": {ours: []string{"client", "dynamo"}},
	"bench":         {libraries: []string{"github.com/HdrHistogram/hdrhistogram-go"}},
	"cmd": {
		ours: []string{"bench", "bootstrap", "client", "messages", "dynamo"},
		libraries: []string{
			"github.com/alecthomas/kong", "github.com/alecthomas/kong-yaml", "github.com/HdrHistogram/hdrhistogram-go",
			"github.com/vbauerster/mpb", "golang.org/x/term", "golang.org/x/sys", "github.com/willabides/kongplete",
			"github.com/posener/complete", "gopkg.in/yaml.v3", "github.com/jotaen/kong-completion",
			"charm.land/bubbletea/v2", "github.com/charmbracelet/x/ansi", "github.com/reeflective/readline",
		},
	},
	"test": {
		ours: []string{"bootstrap", "client", "dynamo", "messages", "test/journal", "test/load"},
		libraries: []string{
			"github.com/hashicorp/consul/api", "github.com/HdrHistogram/hdrhistogram-go",
		},
	},
}

type rule struct {
	// pure packages also keep away from whatever is not a function of its
	// arguments; see impure.
	pure      bool
	ours      []string
	libraries []string
}

// impure are standard packages that decide nothing in the paper.
var impure = []string{"sync", "net", "os", "log", "io/fs", "math/rand", "crypto/rand", "runtime", "context", "testing", "unsafe"}

// impureCalls are functions of allowed packages that read clocks or wait.
var impureCalls = map[string][]string{
	"time": {"Now", "After", "AfterFunc", "Sleep", "Since", "Until", "Tick", "NewTimer", "NewTicker"},
	"rand": {"Int", "IntN", "N", "Float64", "Perm", "Shuffle", "Uint64", "Uint32", "Int64N", "Uint64N", "Int64"},
}

type pkg struct {
	Dir, ImportPath string
	GoFiles         []string
	Imports         []string
	Standard        bool
}

// packages lists the module's packages as go list sees them.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,GoFiles,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// ruleFor finds the rule of a package or of the nearest folder above it.
func ruleFor(path string) (rule, bool) {
	for p := path; ; p = filepath.Dir(p) {
		if r, ok := imports[p]; ok {
			return r, true
		}
		if p == "." {
			return rule{}, false
		}
	}
}

func relative(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// under reports whether path is one of the prefixes or below one.
func under(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return path == p || strings.HasPrefix(path, p+"/")
	})
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name, _ := relative(p.ImportPath)
		r, ok := ruleFor(name)
		if !ok {
			t.Errorf("%s: no rule says what it may import; add one", name)
			continue
		}
		for _, imp := range p.Imports {
			if err := r.check(name, imp); err != nil {
				t.Error(err)
			}
		}
	}
}

func (r rule) check(name, imp string) error {
	if ours, ok := relative(imp); ok {
		if !under(ours, r.ours) && !strings.HasPrefix(ours, name+"/") {
			return fmt.Errorf("%s must not import %s", name, ours)
		}
		return nil
	}
	standard := !strings.Contains(strings.Split(imp, "/")[0], ".")
	switch {
	case under(imp, r.libraries):
	case !standard:
		return fmt.Errorf("%s must not import %s", name, imp)
	case r.pure && under(imp, impure):
		return fmt.Errorf("%s is pure and must not import %s", name, imp)
	}
	return nil
}

// files parses the sources of a package, without tests and generated code.
func files(t *testing.T, p pkg) (*token.FileSet, map[string]*ast.File) {
	t.Helper()
	fset := token.NewFileSet()
	out := map[string]*ast.File{}
	for _, f := range p.GoFiles {
		if strings.HasSuffix(f, ".pb.go") {
			continue
		}
		path := filepath.Join(p.Dir, f)
		parsed, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = parsed
	}
	return fset, out
}

func TestPureCodeReadsNoClock(t *testing.T) {
	for _, p := range packages(t) {
		name, _ := relative(p.ImportPath)
		if r, ok := ruleFor(name); !ok || !r.pure {
			continue
		}
		fset, parsed := files(t, p)
		for _, f := range parsed {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: pure code starts no goroutine", fset.Position(n.Pos()))
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Obj == nil && slices.Contains(impureCalls[x.Name], n.Sel.Name) {
						t.Errorf("%s: pure code does not call %s.%s", fset.Position(n.Pos()), x.Name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		_, parsed := files(t, p)
		var with []string
		for path, f := range parsed {
			if f.Doc != nil {
				with = append(with, filepath.Base(path))
			}
		}
		if len(p.GoFiles) > 0 && len(with) != 1 {
			t.Errorf("%s: one file has the package comment, here %d do: %v", p.ImportPath, len(with), with)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, p := range packages(t) {
		fset, parsed := files(t, p)
		for _, f := range parsed {
			for _, d := range f.Decls {
				undocumented(d, func(n ast.Node, name string) {
					t.Errorf("%s: exported %s has no comment", fset.Position(n.Pos()), name)
				})
			}
		}
	}
}

func undocumented(d ast.Decl, report func(ast.Node, string)) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d.Recv)) {
			report(d, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					report(s, s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					report(s, s.Names[0].Name)
				}
			}
		}
	}
}

func exportedReceiver(r *ast.FieldList) bool {
	e := r.List[0].Type
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	if s, ok := e.(*ast.IndexExpr); ok {
		e = s.X
	}
	id, ok := e.(*ast.Ident)
	return ok && id.IsExported()
}

func TestSizes(t *testing.T) {
	var lengths []int
	for _, p := range packages(t) {
		fset, parsed := files(t, p)
		for path, f := range parsed {
			if n := fset.File(f.Pos()).LineCount(); n > maxFileLines {
				t.Errorf("%s has %d lines, at most %d: split it by noun or state", path, n, maxFileLines)
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
				lengths = append(lengths, n)
				if n > maxFunctionLines {
					t.Errorf("%s: %s has %d lines, at most %d", fset.Position(fn.Pos()), fn.Name.Name, n, maxFunctionLines)
				}
			}
		}
	}
	slices.Sort(lengths)
	if p95 := lengths[len(lengths)*95/100]; p95 > wantFunction95 {
		t.Errorf("the 95th percentile of function lengths is %d lines, want at most %d", p95, wantFunction95)
	}
}

// TestNoSleepInTests keeps tests from waiting for time instead of a condition.
// Sleeping inside a synctest bubble is fine: time is not real there.
func TestNoSleepInTests(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || path == "arch_test.go" {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		synctest := slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if ok && !synctest && sel.Sel.Name == "Sleep" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: wait for a condition, not for time", fset.Position(n.Pos()))
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
