// Command node is the store in one binary: a node, a cluster on this machine
// to try it out, and a client for scripts and people.
//
// Exit status: 0 done; 1 failed; 2 usage; 3 not found; 4 unavailable (quorum
// not met or no node reached); 5 conflict where one value was demanded;
// 6 refused.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/dynactor/dynactor/bootstrap"
	"github.com/dynactor/dynactor/client"
)

// version is set by the build.
var version = "dev"

const (
	// gcPercent is GOGC unless the environment sets it.
	gcPercent = 400
	// leastProcs is GOMAXPROCS on a machine with fewer cores, unless the environment sets it.
	leastProcs = 4
)

// Exit statuses.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNotFound
	exitUnavailable
	exitConflict
	exitRefused
)

// cli is every command and flag.
type cli struct {
	Start      startCmd      `cmd:"" group:"node" help:"Run a node of a cluster."`
	Dev        devCmd        `cmd:"" group:"node" help:"Run a whole cluster on this machine to try things out."`
	Get        getCmd        `cmd:"" group:"data" help:"Read a key."`
	Put        putCmd        `cmd:"" group:"data" help:"Write a key."`
	Delete     deleteCmd     `cmd:"" group:"data" help:"Delete a key: all its values, or those that --context has seen."`
	Import     importCmd     `cmd:"" group:"data" help:"Write the records of a file, one JSON object a line."`
	Export     exportCmd     `cmd:"" group:"data" help:"Print all values of a bucket, one a line."`
	Cluster    clusterCmd    `cmd:"" group:"admin" help:"Look at the cluster, and change its members."`
	Bucket     bucketCmd     `cmd:"" group:"admin" help:"Create buckets and change their properties."`
	Console    consoleCmd    `cmd:"" group:"admin" help:"Look into running nodes: actors, what they do, what went wrong."`
	Bench      benchCmd      `cmd:"" group:"tools" help:"Measure throughput and latency."`
	Completion completionCmd `cmd:"" group:"tools" help:"Print a completion script for a shell: source <(node completion bash)."`
	Version    versionCmd    `cmd:"" group:"tools" help:"Print the version."`
}

const description = `Dynactor, a highly available key-value store: Amazon's Dynamo as actors.

Try it: "node dev" starts three nodes on this machine; then, in a second terminal,
"node put hello world" and "node get hello".

Every flag may also come from the environment as DYNACTOR_ and its name
(--data-dir is DYNACTOR_DATA_DIR). Exit status: 0 done, 1 failed, 2 usage,
3 not found, 4 unavailable, 5 several values where one was demanded, 6 refused.`

// streams are where a command reads and writes; tests bring their own.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	tune()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], &streams{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}

// tune sets what Go leaves to the environment, where that says nothing.
func tune() {
	if _, set := os.LookupEnv("GOGC"); !set {
		// The heap is small beside the store's own cache, which the collector
		// does not manage: collecting less often costs little memory and saves
		// up to a third of the CPU time.
		debug.SetGCPercent(gcPercent)
	}
	if _, set := os.LookupEnv("GOMAXPROCS"); !set && runtime.NumCPU() < leastProcs && runtime.GOMAXPROCS(0) == runtime.NumCPU() {
		// With one or two, a compaction or a collection keeps requests waiting until Go
		// takes the thread from it, after 10 ms; the kernel lets a thread that has waited run sooner.
		// Not where a quota of the container has set less than there are cores: more threads would only use it up at once.
		runtime.GOMAXPROCS(leastProcs)
	}
}

// run carries out a command line and returns the exit status.
func run(ctx context.Context, args []string, s *streams) int {
	var c cli
	exit := -1
	parser, err := newParser(&c, args, func(code int) { exit = code }, kong.Writers(s.out, s.err), kong.Bind(s),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		fmt.Fprintln(s.err, "node:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if exit >= 0 {
		return exit // help was printed
	}
	if err != nil {
		return usage(parser, s, err)
	}
	k.Bind(k)
	if err := k.Run(); err != nil {
		fmt.Fprintln(s.err, wrap("node: "+plain(err), columnsOf(s.err)))
		return status(err)
	}
	return exitOK
}

// plain is an error as people see it.
func plain(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = safe(strings.TrimPrefix(line, "client: "))
	}
	return strings.Join(lines, "\n")
}

// newParser makes the parser of command lines; exit is called instead of
// ending the process after help was printed.
func newParser(c *cli, args []string, exit func(int), more ...kong.Option) (*kong.Kong, error) {
	return kong.New(c, append(more, kong.Name("node"), kong.Description(description), kong.DefaultEnvars("DYNACTOR"),
		kong.Exit(exit), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.ExplicitGroups([]kong.Group{{Key: "node", Title: "Nodes:"}, {Key: "data", Title: "Data:"}, {Key: "admin", Title: "Administration:"}, {Key: "tools", Title: "Tools:"}}),
		kong.Resolvers(fileResolver(args)))...)
}

// usage prints what is wrong with a command line and how the command is used.
func usage(parser *kong.Kong, s *streams, err error) int {
	fmt.Fprintln(s.err, wrap("node: "+safeLines(err.Error()), columnsOf(s.err)))
	var p *kong.ParseError
	if errors.As(err, &p) && p.Context.Selected() != nil {
		fmt.Fprintf(s.err, "See: node %s --help\n", p.Context.Selected().Path())
	} else {
		fmt.Fprintln(s.err, "See: node --help")
	}
	return exitUsage
}

// usageError is a command line whose flags do not go together.
type usageError string

func (e usageError) Error() string { return string(e) }

// errNotFound ends a command whose key has no value; nothing is printed twice.
var errNotFound = errors.New("not found")

// status is the exit status for an error.
func status(err error) int {
	var (
		problems *bootstrap.Problems
		misused  usageError
	)
	switch {
	case errors.As(err, &problems), errors.As(err, &misused):
		return exitUsage
	case errors.Is(err, errNotFound), errors.Is(err, client.ErrNotFound):
		return exitNotFound
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrOverloaded), errors.Is(err, client.ErrUnknown):
		return exitUnavailable
	case errors.Is(err, client.ErrConflict):
		return exitConflict
	case errors.Is(err, client.ErrRefused):
		return exitRefused
	case errors.Is(err, client.ErrInvalid), errors.Is(err, client.ErrContext), errors.Is(err, client.ErrTooLarge):
		return exitFailed
	}
	return exitFailed
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s *streams) error {
	_, err := fmt.Fprintln(s.out, "dynactor", version)
	return err
}
