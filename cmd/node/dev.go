package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/dynactor/dynactor/bootstrap"
)

// devCmd is node dev.
type devCmd struct {
	Nodes      int    `help:"How many nodes; more than last time join." default:"3"`
	DataDir    string `help:"Folder for data and logs; what is there is found again." default:"data" type:"path"`
	Port       int    `help:"Node i listens on this port + 10 i and serves health on the port after that." default:"7800"`
	Consul     string `help:"Address of a Consul agent to find each other by; without it the nodes get a list."`
	Cluster    string `help:"The cluster's name." default:"dynactor"`
	Partitions int    `help:"Number of partitions, fixed when the cluster is founded." default:"64"`
	Config     string `help:"YAML file with settings for all nodes, and buckets to create." type:"existingfile"`
}

// devReady is how long a cluster on one machine may take to serve.
const devReady = 60 * time.Second

// devNode is one node process.
type devNode struct {
	name, address, http string
	log                 string
	logged              int64 // what the log held from earlier runs
	cmd                 *exec.Cmd
	done                chan error
	gone                bool
}

// Run starts the node processes and waits until it is told to stop them.
func (c *devCmd) Run(ctx context.Context, s *streams) error {
	if err := c.check(); err != nil {
		return err
	}
	// A child's death signal follows the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nodes, err := c.startAll()
	if err == nil {
		err = c.waitReady(ctx, nodes)
	}
	if err == nil {
		c.greet(s, nodes)
		c.watch(ctx, s, nodes)
		fmt.Fprintln(s.out, "stopping ...")
	}
	return errors.Join(err, c.stopAll(s, nodes))
}

// check reports what would fail later with a worse message.
func (c *devCmd) check() error {
	if c.Nodes < 1 || c.Nodes > 100 {
		return usageError(fmt.Sprintf("--nodes is %d, allowed are 1 to 100", c.Nodes))
	}
	last := c.Port + 10*(c.Nodes-1) + 1
	if c.Port < 1 || last > 65535 {
		return usageError(fmt.Sprintf("--port %d: %d nodes need ports up to %d, there are 65535", c.Port, c.Nodes, last))
	}
	had, err := c.had()
	if err != nil {
		return err
	}
	// More than there were join by themselves; one whose folder is gone is filled.
	if had > c.Nodes {
		return fmt.Errorf("%s holds a cluster of %d nodes: start it with --nodes %d or more, or choose another --data-dir", c.DataDir, had, had)
	}
	return c.checkPorts()
}

// had is the highest number of a node that has data here.
func (c *devCmd) had() (int, error) {
	stores, err := filepath.Glob(filepath.Join(c.DataDir, "n[0-9]*", "store"))
	highest := 0
	for _, s := range stores {
		if i, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(s)), "n")); err == nil {
			highest = max(highest, i)
		}
	}
	return highest, err
}

// checkPorts reports a port that somebody else has: their node would answer in
// the place of ours.
func (c *devCmd) checkPorts() error {
	for i := range c.Nodes {
		node, health := c.address(i)
		for _, address := range []string{node, health} {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("%w (is another cluster running? stop it, or choose another --port)", err)
			}
			if err := l.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *devCmd) address(i int) (node, health string) {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port+10*i)), net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port+10*i+1))
}

func (c *devCmd) startAll() ([]*devNode, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(c.DataDir, "logs"), 0o700); err != nil {
		return nil, err
	}
	var nodes []*devNode
	for i := range c.Nodes {
		n, err := c.start(self, i)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func (c *devCmd) start(self string, i int) (*devNode, error) {
	n := &devNode{name: fmt.Sprintf("n%d", i+1), done: make(chan error, 1)}
	n.address, n.http = c.address(i)
	n.log = filepath.Join(c.DataDir, "logs", n.name+".log")
	args := []string{
		"start", "--name=" + n.name, "--cluster=" + c.Cluster, "--listen=" + n.address, "--http=" + n.http,
		"--data-dir=" + filepath.Join(c.DataDir, n.name), "--partitions=" + strconv.Itoa(c.Partitions),
		"--auto-join", "--console-control",
	}
	if c.Config != "" {
		args = append(args, "--config="+c.Config)
	}
	if c.Consul != "" {
		args = append(args, "--consul="+c.Consul, "--found", "--expect="+strconv.Itoa(c.Nodes))
	} else {
		if i == 0 {
			args = append(args, "--found")
		}
		for j := range c.Nodes {
			if seed, _ := c.address(j); j != i {
				args = append(args, "--seed="+seed)
			}
		}
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if n.logged, err = log.Seek(0, io.SeekEnd); err != nil {
		return nil, err
	}
	n.cmd = exec.Command(self, args...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	// A process group of its own: Ctrl-C reaches this process only, which then
	// stops the nodes in order. If this process is killed they stop too.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", n.name, err)
	}
	go func() { n.done <- n.cmd.Wait() }()
	return n, nil
}

// waitReady waits until every node serves; one that ends before is an error with
// the end of its log.
func (c *devCmd) waitReady(ctx context.Context, nodes []*devNode) error {
	waiting, cancel := context.WithTimeout(ctx, devReady)
	defer cancel()
	for _, n := range nodes {
		for {
			err := ready(waiting, n.http)
			if err == nil {
				break
			}
			// The others wait for one that has ended.
			if err := ended(nodes); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return errors.New("stopped before the cluster was ready")
			case <-waiting.Done():
				return fmt.Errorf("%s does not serve (%w); the end of %s:\n%s", n.name, err, n.log, tail(n.log, n.logged))
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// ended is the end of the first node that has ended, if one has.
func ended(nodes []*devNode) error {
	for _, n := range nodes {
		select {
		case err := <-n.done:
			n.gone = true
			return fmt.Errorf("%s ended (%w); the end of %s:\n%s", n.name, exitError(err), n.log, tail(n.log, n.logged))
		default:
		}
	}
	return nil
}

// exitError makes an error also of an exit with status 0.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// ready asks a node whether it serves.
func ready(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", req.URL, resp.Status)
	}
	return nil
}

// tail is the end of a log behind an offset, for an error.
func tail(path string, from int64) string {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "(no log)"
	}
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b[min(from, int64(len(b))):]), "\n"), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-8):], "\n  ")
}

// greet prints the nodes and what to try.
func (c *devCmd) greet(s *streams, nodes []*devNode) {
	w := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tADDRESS\tHTTP\tPID\tPARTITIONS")
	for _, n := range nodes {
		fmt.Fprintf(w, "%s\t%s\thttp://%s\t%d\t%d\n", n.name, n.address, n.http, n.cmd.Process.Pid, partitions(n.http))
	}
	if err := w.Flush(); err != nil {
		return // the terminal is gone; so is the reader
	}
	self, at := "node", ""
	if exe, err := os.Executable(); err == nil {
		self = exe
		if wd, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(wd, exe); err == nil && !strings.HasPrefix(rel, "..") {
				self = "./" + rel
			}
		}
	}
	if nodes[0].address != "127.0.0.1:7800" {
		at = " --node " + nodes[0].address
	}
	if c.Cluster != "dynactor" {
		at += " --cluster " + c.Cluster
	}
	fmt.Fprintf(s.out, `
The cluster %q is ready. In another terminal, try:
  %[2]s put%[3]s hello world
  %[2]s get%[3]s hello
  %[2]s put%[3]s hello moon        # a write without context: now there are two siblings
  %[2]s get%[3]s hello             # shows both, and the context that covers them
  %[2]s bench%[3]s --duration 5s
  %[2]s console%[3]s                 # what happens inside: help lists the commands
A page that shows the same is at http://%[6]s/.
Logs are in %[4]s. Ctrl-C stops all nodes; the data stays in %[5]s.
`, c.Cluster, self, at, filepath.Join(c.DataDir, "logs"), c.DataDir, nodes[0].http)
}

// watch waits for the end and tells of nodes that end before.
func (c *devCmd) watch(ctx context.Context, s *streams, nodes []*devNode) {
	type death struct {
		n   *devNode
		err error
	}
	deaths := make(chan death, len(nodes))
	for _, n := range nodes {
		go func() {
			err := <-n.done
			n.done <- err // for stopAll
			deaths <- death{n, err}
		}()
	}
	for alive := len(nodes); alive > 0; {
		select {
		case <-ctx.Done():
			return
		case d := <-deaths:
			if ctx.Err() != nil {
				return
			}
			alive--
			fmt.Fprintf(s.out, "%s (pid %d) ended: %v. Its log is %s\n", d.n.name, d.n.cmd.Process.Pid, exitError(d.err), d.n.log)
			if alive > 0 {
				fmt.Fprintf(s.out, "The others go on. To bring it back:\n  %s\n", commandLine(d.n.cmd.Args))
			}
		}
	}
}

// commandLine writes arguments as a shell takes them.
func commandLine(args []string) string {
	var quoted []string
	for _, a := range args {
		if strings.ContainsFunc(a, func(r rune) bool {
			return !strings.ContainsRune("/.,:=_-", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
		}) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted = append(quoted, a)
	}
	return strings.Join(quoted, " ")
}

// stopAll ends the nodes that live, in order, and kills what does not end.
func (c *devCmd) stopAll(s *streams, nodes []*devNode) error {
	var all error
	for _, n := range nodes {
		if !n.gone {
			if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				all = errors.Join(all, err)
			}
		}
	}
	limit := time.After(bootstrap.StopTimeout + 2*time.Second)
	for _, n := range nodes {
		if n.gone {
			continue
		}
		select {
		case <-n.done:
		case <-limit:
			all = errors.Join(all, fmt.Errorf("%s did not stop in time and was killed", n.name), n.cmd.Process.Kill())
			<-n.done
		}
	}
	return all
}
