// Check reads the journals of a load and what was found in the end, and says
// whether the store kept its promises.
//
//	check [-strict] [-final FILE] JOURNAL...
//
// It prints counts of operations and what it found, and ends with status 0 when
// that is nothing, 1 when something is wrong, 2 when it could not tell.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/dynactor/dynactor/test/journal"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// exit statuses.
const (
	clean   = 0
	wrong   = 1
	unknown = 2
)

// shownFindings is how many findings of a kind are printed.
const shownFindings = 10

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var o Options
	final := flags.String("final", "", "`file` with what keys had in the end")
	flags.BoolVar(&o.Strict, "strict", false, "no node failed during the run: reads must show all that was acknowledged before")
	if err := flags.Parse(args); err != nil {
		return unknown
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(stderr, "check: name at least one journal")
		return unknown
	}
	var ops []journal.Op
	for _, path := range flags.Args() {
		more, err := journal.Read[journal.Op](path)
		if err != nil {
			fmt.Fprintln(stderr, "check:", err)
			return unknown
		}
		ops = append(ops, more...)
	}
	var finals []journal.Final
	if o.NoFinal = *final == ""; !o.NoFinal {
		var err error
		if finals, err = journal.Read[journal.Final](*final); err != nil {
			fmt.Fprintln(stderr, "check:", err)
			return unknown
		}
	}
	findings := Check(ops, finals, o)
	report(stdout, ops, finals, findings)
	if len(findings) > 0 {
		return wrong
	}
	return clean
}

func report(w io.Writer, ops []journal.Op, finals []journal.Final, findings []Finding) {
	type outcome struct {
		kind journal.Kind
		how  journal.Outcome
	}
	counts, keys := map[outcome]int{}, map[string]bool{}
	for _, op := range ops {
		counts[outcome{op.Kind, op.Outcome}]++
		keys[op.Key] = true
	}
	fmt.Fprintf(w, "operations=%d keys=%d final=%d\n", len(ops), len(keys), len(finals))
	for _, k := range []journal.Kind{journal.Put, journal.Delete, journal.Get} {
		fmt.Fprintf(w, "%-6s ok=%d unknown=%d failed=%d\n", k, counts[outcome{k, journal.OK}], counts[outcome{k, journal.Unknown}], counts[outcome{k, journal.Failed}])
	}
	of := map[Kind]int{}
	for _, f := range findings {
		if of[f.Kind]++; of[f.Kind] <= shownFindings {
			fmt.Fprintf(w, "%s: %s: %s\n", f.Kind, f.Key, f.Text)
		}
	}
	for _, k := range []Kind{Lost, Ghost, Foreign, Resurrected, Zombie, Stale, Unequal, Unread, Reused} {
		fmt.Fprintf(w, "%s=%d ", k, of[k])
	}
	fmt.Fprintf(w, "findings=%d\n", len(findings))
}
