package blackbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
)

// patience bounds every wait for the cluster.
const patience = 60 * time.Second

// messageLife is how old a record in a message may be where a test's program lets itself
// be told: short, so that tombstones are reaped while harm is done, and processes stand
// still for longer.
const messageLife = "3s"

// process is one node of a test.
type process struct {
	number              int
	name, address, http string
	dir, logPath        string
	args                []string
	cmd                 *exec.Cmd
	ended               chan struct{}
	err                 error
}

// nodes are the processes of a cluster, and those that are yet to join.
type nodes struct {
	t *testing.T
	// program is the name of the node's program.
	program string
	dir     string
	net     network
	all     []*process
	args    []string
}

// lockThread keeps the test on its thread: a child's death signal follows the
// thread that made it.
func lockThread(t *testing.T) {
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
}

// newNodes founds a cluster of so many nodes.
func newNodes(t *testing.T, count int, net network, args ...string) *nodes {
	t.Helper()
	return newNodesOf(t, "node", count, net, args...)
}

// newNodesOf founds a cluster of nodes that run a program.
func newNodesOf(t *testing.T, program string, count int, net network, args ...string) *nodes {
	t.Helper()
	lockThread(t)
	ns := &nodes{t: t, program: program, dir: t.TempDir(), net: net, args: args}
	var seeds []string
	for i := range count {
		seeds = append(seeds, "--seed="+net.address(i+1))
	}
	for range count {
		p := ns.add(append(seeds, "--found")...)
		p.start(t)
	}
	for _, p := range ns.all {
		p.waitReady(t)
	}
	return ns
}

// add makes the next node, which is not started yet.
func (ns *nodes) add(args ...string) *process {
	i := len(ns.all) + 1
	p := &process{number: i, name: fmt.Sprintf("n%d", i), address: ns.net.address(i), http: ns.net.http(i)}
	p.dir, p.logPath = filepath.Join(ns.dir, p.name), filepath.Join(ns.dir, p.name+".log")
	p.args = append(ns.net.command(i), filepath.Join(programs, ns.program), "start", "--name="+p.name, "--listen="+p.address, "--http="+p.http,
		"--data-dir="+filepath.Join(p.dir, "data"), "--cache-mb=8")
	p.args = append(append(p.args, ns.args...), args...)
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		ns.t.Fatal(err)
	}
	if _, ok := ns.net.(*routed); ok && i == smallDisk {
		mountSmallDisk(ns.t, p)
	}
	ns.net.prepare(i)
	ns.all = append(ns.all, p)
	ns.t.Cleanup(func() {
		p.signal(ns.t, syscall.SIGKILL)
		p.wait(ns.t)
	})
	return p
}

// join starts a node that asks the others to be staged.
func (ns *nodes) join() *process {
	var seeds []string
	for _, p := range ns.all[:3] {
		seeds = append(seeds, "--seed="+p.address)
	}
	p := ns.add(seeds...)
	p.start(ns.t)
	return p
}

// byName finds a node.
func (ns *nodes) byName(name string) *process {
	for _, p := range ns.all {
		if p.name == name {
			return p
		}
	}
	ns.t.Fatalf("no node %s", name)
	return nil
}

func (p *process) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "DYNACTOR_WRONG_CLOCK="+p.clock(), "DYNACTOR_MESSAGE_LIFE="+messageLife)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		p.err = cmd.Wait()
		close(ended)
	}()
}

// lives reports whether the process was started and has not ended.
func (p *process) lives() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("%s: %v", p.name, err)
	}
}

// wait waits for the process to end and returns how it did.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	if p.cmd == nil {
		return nil
	}
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		t.Errorf("%s does not end", p.name)
		return nil
	}
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	_ = p.wait(t) // killed, of course
}

// tail is the end of the log, for a test that fails.
func (p *process) tail() string {
	out, err := os.ReadFile(p.logPath)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(out), "\n")
	return p.name + ":\n" + strings.Join(lines[max(0, len(lines)-30):], "\n")
}

// health is what a node says of itself.
type health struct {
	Health struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason"`
		Hints  struct {
			Records int `json:"records"`
		} `json:"hints"`
		Damage struct {
			Partitions int `json:"partitions"`
		} `json:"damage"`
	} `json:"health"`
	Peers []struct {
		Reachable bool   `json:"reachable"`
		Bulk      string `json:"bulk"`
	} `json:"peers"`
}

func (p *process) health(ctx context.Context) (health, error) {
	var h health
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.http+"/readyz", nil)
	if err != nil {
		return h, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return h, err
	}
	defer resp.Body.Close()
	return h, json.NewDecoder(resp.Body).Decode(&h)
}

// linked waits until each node is ready and believes that it can reach each other one:
// one that came and went is suspected for a while.
func (ns *nodes) linked() {
	ns.t.Helper()
	for _, p := range ns.all {
		p.waitReady(ns.t)
		eventually(ns.t, p.name+" reaches the others", func() bool {
			h, err := p.health(ns.t.Context())
			up := 0
			for _, other := range h.Peers {
				if other.Reachable && other.Bulk == "up" {
					up++
				}
			}
			return err == nil && up == len(ns.all)-1
		})
	}
}

func (p *process) waitReady(t *testing.T) {
	t.Helper()
	eventually(t, p.name+" is ready", func() bool {
		h, err := p.health(t.Context())
		if !p.lives() {
			t.Fatalf("%s ended: %v\n%s", p.name, p.err, p.tail())
		}
		return err == nil && h.Health.Ready
	})
}

// eventually polls a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	within(t, patience, what, holds)
}

// within polls a condition for so long.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// connect makes a client that begins with some of the nodes.
func connect(t *testing.T, to ...*process) *client.Client {
	t.Helper()
	config := client.Default()
	config.Nodes = nil
	for _, p := range to {
		config.Nodes = append(config.Nodes, p.address)
	}
	cl, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	})
	return cl
}
