package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
)

// patience bounds every wait for a process.
const patience = 40 * time.Second

// process is a node process of a test.
type process struct {
	name, address, http, dir string
	args                     []string
	cmd                      *exec.Cmd
	done                     chan error
}

// freePorts finds a base so that base + 10 i and the port after it are free.
func freePorts(t *testing.T, nodes int) int {
	t.Helper()
	r := newRand()
	for range 200 {
		base := 20000 + (os.Getpid()*37+r.IntN(9000))%9000
		free := true
		for i := range 2 * nodes {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(base+10*(i/2)+i%2)))
			if err != nil {
				free = false
				break
			}
			l.Close()
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// command makes a command that is this test binary as node. The process dies
// with the test.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "DYNACTOR_TEST_BE_NODE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// log is where its output goes.
func (p *process) log() string { return filepath.Join(p.dir, p.name+".log") }

// start runs the process; run again after it ended it is a restart.
func (p *process) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := command(p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	p.cmd, p.done = cmd, done
}

// end sends a signal and waits for the process to end.
func (p *process) end(t *testing.T, sig syscall.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(patience):
		t.Fatalf("%s does not end on %v", p.name, sig)
		return nil
	}
}

// waitReady polls /readyz.
func (p *process) waitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ready(ctx, p.http) != nil {
		select {
		case <-tick.C:
		case err := <-p.done:
			t.Fatalf("%s ended: %v\n%s", p.name, err, tail(p.log(), 0))
		case <-ctx.Done():
			t.Fatalf("%s is not ready\n%s", p.name, tail(p.log(), 0))
		}
	}
}

// processes starts a cluster of node processes on disk, with flags besides those that it needs.
func processes(t *testing.T, nodes int, flags ...string) []*process {
	t.Helper()
	// A child's death signal follows the thread that made it.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	base, dir := freePorts(t, nodes), t.TempDir()
	var all []*process
	var seeds []string
	for i := range nodes {
		p := &process{name: fmt.Sprintf("n%d", i+1), dir: dir, http: fmt.Sprintf("127.0.0.1:%d", base+10*i+1)}
		p.address = fmt.Sprintf("127.0.0.1:%d", base+10*i)
		seeds = append(seeds, "--seed="+p.address)
		all = append(all, p)
	}
	for i, p := range all {
		p.args = append([]string{
			"start", "--name=" + p.name, "--listen=" + p.address, "--http=" + p.http, "--data-dir=" + filepath.Join(dir, p.name),
			"--partitions=16", "--cache-mb=8",
		}, slices.Concat(seeds, flags)...)
		if i == 0 {
			p.args = append(p.args, "--found")
		}
		p.start(t)
		t.Cleanup(func() { p.end(t, syscall.SIGKILL) })
	}
	for _, p := range all {
		p.waitReady(t)
	}
	return all
}

// load writes unique values and keeps a journal of what was acknowledged.
type load struct {
	bucket *client.Bucket
	next   atomic.Int64
	acked  atomic.Int64
	mu     sync.Mutex
	// journal maps a key to the values acknowledged under it.
	journal map[string][]string
	// definite are failures that say nothing was written.
	definite map[string]bool
	errors   []error
}

// worker writes until told to stop: values of their own under keys of their
// own, and every fourth into one of a few keys that all workers add to, with
// the context of a read.
func (l *load) worker(ctx context.Context) {
	for ctx.Err() == nil {
		i := l.next.Add(1)
		value := fmt.Sprintf("v%d", i)
		key := "own-" + value
		var err error
		if i%4 == 0 {
			key = fmt.Sprintf("set-%d", i/4%8)
			err = l.add(ctx, key, value)
		} else {
			_, err = l.bucket.Put(ctx, key, []byte(value))
		}
		l.note(ctx, key, value, err)
	}
}

// add puts a value into a set: the union of what is there, and it.
func (l *load) add(ctx context.Context, key, value string) error {
	_, err := l.bucket.Update(ctx, key, union, func(old []byte) ([]byte, error) {
		return []byte(strings.TrimPrefix(string(old)+","+value, ",")), nil
	})
	return err
}

// union merges sets that are written as lists with commas.
func union(siblings []client.Value) ([]byte, error) {
	var all []string
	for _, s := range siblings {
		all = append(all, strings.Split(string(s.Value), ",")...)
	}
	slices.Sort(all)
	return []byte(strings.Join(slices.Compact(all), ",")), nil
}

func (l *load) note(ctx context.Context, key, value string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.acked.Add(1)
		l.journal[key] = append(l.journal[key], value)
	case ctx.Err() != nil || errors.Is(err, client.ErrUnknown):
	default:
		l.definite[value] = true
		l.errors = append(l.errors, err)
	}
}

// missing returns the acknowledged values that a read does not show, and the
// values that failed for certain and are there all the same.
func (l *load) missing(t *testing.T) (lost, ghosts []string) {
	t.Helper()
	keys := slices.Collect(maps.Keys(l.journal))
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(keys)); i = next.Add(1) - 1 {
				gone, there, err := l.compare(t.Context(), keys[i])
				mu.Lock()
				lost, ghosts = append(lost, gone...), append(ghosts, there...)
				mu.Unlock()
				if err != nil {
					t.Errorf("read %s: %v", keys[i], err)
					return
				}
			}
		})
	}
	wg.Wait()
	return lost, ghosts
}

// compare is missing for one key.
func (l *load) compare(ctx context.Context, key string) (lost, ghosts []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	o, err := l.bucket.Get(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	have := map[string]bool{}
	for _, v := range o.Values {
		for _, x := range strings.Split(string(v.Value), ",") {
			have[x] = true
		}
	}
	for _, v := range l.journal[key] {
		if !have[v] {
			lost = append(lost, key+"="+v)
		}
	}
	for v := range have {
		if l.definite[v] {
			ghosts = append(ghosts, key+"="+v)
		}
	}
	return lost, ghosts, nil
}

// until waits for a number of acknowledged writes.
func (l *load) until(t *testing.T, n int64) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for l.acked.Load() < n {
		select {
		case <-tick.C:
		case <-deadline:
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("%d of %d writes were acknowledged; errors: %v", l.acked.Load(), n, l.errors)
		}
	}
}

// TestKilledNode kills a node of three under load: requests go on, and nothing
// that was acknowledged is missing, neither while it is away nor after it is
// back, nor after all were killed at once.
func TestKilledNode(t *testing.T) {
	nodes := processes(t, 3)
	config := client.Default()
	config.Nodes = []string{nodes[0].address, nodes[1].address, nodes[2].address}
	cl, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	l := &load{bucket: cl.Bucket("b"), journal: map[string][]string{}, definite: map[string]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { l.worker(ctx) })
	}
	l.until(t, 1000)
	nodes[1].end(t, syscall.SIGKILL)
	at := l.acked.Load()
	l.until(t, at+1500) // goes on with two of three
	nodes[1].start(t)
	nodes[1].waitReady(t)
	l.until(t, l.acked.Load()+1000)
	cancel()
	wg.Wait()
	if len(l.errors) > 0 {
		t.Errorf("%d requests failed, first: %v", len(l.errors), l.errors[0])
	}
	check := func(when string) {
		t.Helper()
		lost, ghosts := l.missing(t)
		if len(lost) > 0 || len(ghosts) > 0 {
			t.Fatalf("%s: of %d acknowledged writes %d are lost: %v; failed for certain and there: %v", when, l.acked.Load(), len(lost), lost, ghosts)
		}
	}
	check("with all nodes back")
	for _, n := range nodes {
		n.end(t, syscall.SIGKILL)
	}
	for _, n := range nodes {
		n.start(t)
	}
	for _, n := range nodes {
		n.waitReady(t)
	}
	check("after all were killed")
}

// TestOrderlyStop stops a node with SIGTERM: it ends by itself with status 0,
// and finds its cluster again.
func TestOrderlyStop(t *testing.T) {
	nodes := processes(t, 3)
	at := []string{"--node=" + nodes[0].address}
	must(t, "", append([]string{"put", "k", "v"}, at...)...)
	for _, n := range nodes {
		if err := n.end(t, syscall.SIGTERM); err != nil {
			t.Fatalf("%s ended with %v\n%s", n.name, err, tail(filepath.Join(n.dir, n.name+".log"), 0))
		}
	}
	for _, n := range nodes {
		n.start(t)
	}
	for _, n := range nodes {
		n.waitReady(t)
	}
	if got := must(t, "", append([]string{"get", "k"}, at...)...); got != "v" {
		t.Fatalf("after a restart of all: %q", got)
	}
}

func TestForeignDataDirectory(t *testing.T) {
	nodes := processes(t, 1)
	n := nodes[0]
	locked := node(t, "", "start", "--name=n1", "--listen=127.0.0.1:0", "--data-dir="+filepath.Join(n.dir, "n1"))
	if locked.code != exitFailed || !strings.Contains(locked.err, "another process") {
		t.Errorf("a directory in use: exit status %d, %s", locked.code, locked.err)
	}
	n.end(t, syscall.SIGTERM)
	for _, tc := range []struct{ name, cluster, want string }{
		{"other", "dynactor", `it is of node "n1", this node is "other"`},
		{"n1", "elsewhere", `it is of cluster "dynactor", this node is to be of "elsewhere"`},
	} {
		r := node(t, "", "start", "--name="+tc.name, "--cluster="+tc.cluster, "--listen=127.0.0.1:0", "--data-dir="+filepath.Join(n.dir, "n1"))
		if r.code != exitFailed || !strings.Contains(r.err, tc.want) {
			t.Errorf("exit status %d, want %q in: %s", r.code, tc.want, r.err)
		}
	}
}
