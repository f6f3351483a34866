package consultest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

// ManagementToken may do everything at an agent with ACLs.
const ManagementToken = "6f1e6d2a-0d3c-4c0e-9d0b-8b4a3c9c1f00"

// patience is how long an agent may take to start. A server on an old data
// directory needs an election of 1 to 4 s, more on a busy machine.
const patience = 60 * time.Second

// Options say what an agent is like.
type Options struct {
	// Keep lets data survive a restart; without it each start begins empty.
	Keep bool
	// ACL denies what no token allows; see ManagementToken.
	ACL bool
}

// Agent is one Consul server on loopback. Its address stays the same over
// restarts.
type Agent struct {
	t       TB
	options Options
	binary  string
	dir     string
	ports   [3]int // http, server, serf

	mu      sync.Mutex
	process *os.Process
	ended   chan struct{}
}

// Start starts an agent and waits until it answers. It ends with the test.
func Start(t TB, o Options) *Agent {
	t.Helper()
	a := New(t, o)
	a.Start()
	return a
}

// New prepares an agent that does not run yet: until Start, connections to its
// address are refused.
func New(t TB, o Options) *Agent {
	t.Helper()
	a := &Agent{t: t, options: o, binary: Binary(t), dir: t.TempDir()}
	for i := range a.ports {
		a.ports[i] = freePort(t)
	}
	t.Cleanup(a.Kill)
	return a
}

// Addr is where clients connect, host:port.
func (a *Agent) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.ports[0])) }

// Client is a client of the agent. The empty token is the anonymous one.
func (a *Agent) Client(token string) *api.Client {
	a.t.Helper()
	c, err := api.NewClient(&api.Config{Address: a.Addr(), Token: token})
	if err != nil {
		a.t.Fatalf("client: %v", err)
	}
	return c
}

// Management is a client that may do everything.
func (a *Agent) Management() *api.Client {
	a.t.Helper()
	if a.options.ACL {
		return a.Client(ManagementToken)
	}
	return a.Client("")
}

// Start starts the agent, again if it ran before, and waits until it answers.
func (a *Agent) Start() {
	a.t.Helper()
	if err := a.launch(); err != nil {
		a.t.Fatalf("start consul: %v", err)
	}
	if err := a.waitReady(); err != nil {
		log, readErr := os.ReadFile(a.logPath())
		a.t.Fatalf("consul: %v (log: %v)\n%s", err, readErr, log)
	}
}

// Kill ends the agent at once, as kill -9 does, and waits until it is gone.
func (a *Agent) Kill() {
	a.mu.Lock()
	process, ended := a.process, a.ended
	a.process = nil
	a.mu.Unlock()
	if process == nil {
		return
	}
	if err := process.Kill(); err != nil {
		a.t.Logf("kill consul: %v", err)
	}
	<-ended
}

// Freeze stops the agent in its tracks: connections stay open, answers do not
// come.
func (a *Agent) Freeze() { a.t.Helper(); a.signal(syscall.SIGSTOP) }

// Thaw lets a frozen agent go on.
func (a *Agent) Thaw() { a.t.Helper(); a.signal(syscall.SIGCONT) }

func (a *Agent) signal(s syscall.Signal) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.process == nil {
		a.t.Fatalf("consul does not run")
	}
	if err := a.process.Signal(s); err != nil {
		a.t.Fatalf("signal %v: %v", s, err)
	}
}

func (a *Agent) logPath() string { return filepath.Join(a.dir, "consul.log") }

// config is the agent's configuration. Every port is set: those that are not
// would be the same for all agents.
func (a *Agent) config() map[string]any {
	c := map[string]any{
		"node_name": "consultest", "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
		"ports": map[string]int{
			"http": a.ports[0], "server": a.ports[1], "serf_lan": a.ports[2], "serf_wan": -1,
			"https": -1, "grpc": -1, "grpc_tls": -1, "dns": -1,
		},
		"disable_update_check": true, "log_level": "warn", "leave_on_terminate": false,
	}
	if a.options.Keep {
		c["server"], c["bootstrap_expect"], c["data_dir"] = true, 1, filepath.Join(a.dir, "data")
		c["performance"] = map[string]any{"raft_multiplier": 1, "rpc_hold_timeout": "2s", "leave_drain_time": "0s"}
		c["raft_logstore"] = map[string]any{"wal": map[string]any{"segment_size_mb": 4}}
	}
	if a.options.ACL {
		c["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]string{"initial_management": ManagementToken, "agent": ManagementToken},
		}
	}
	return c
}

// launch starts the process. It dies with this one: the death signal follows
// the thread that forked, so a goroutine keeps its thread until the child ends.
func (a *Agent) launch() error {
	raw, err := json.Marshal(a.config())
	if err != nil {
		return err
	}
	file := filepath.Join(a.dir, "config.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return err
	}
	args := []string{"agent", "-config-file=" + file}
	if !a.options.Keep {
		args = append(args, "-dev")
	}
	log, err := os.OpenFile(a.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(a.binary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = a.dir, log, log
	cmd.Env = []string{"HOME=" + a.dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed: always an error
		}
		log.Close()
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	a.mu.Lock()
	a.process, a.ended = cmd.Process, ended
	a.mu.Unlock()
	return nil
}

// waitReady returns once the agent has a leader and its own node in the catalog.
func (a *Agent) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := a.Management()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		nodes, _, err := client.Catalog().Nodes((&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		if err == nil && len(nodes) == 1 {
			return nil
		}
		select {
		case <-tick.C:
		case <-a.ended:
			return fmt.Errorf("it ended (%v)", err)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %v, %d nodes", err, len(nodes))
		}
	}
}

// Ports are taken from below the range from which the system takes those of
// outgoing connections, beginning anywhere so that test processes do not meet.
const lowPort, highPort = 20000, 32000

var ports struct {
	sync.Mutex
	next int
}

// freePort is a port that nobody listens on, TCP or UDP, and that this process
// gives away only once.
func freePort(t TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = lowPort + rand.IntN(highPort-lowPort)
	}
	for range highPort - lowPort {
		port := ports.next
		if ports.next++; ports.next == highPort {
			ports.next = lowPort
		}
		if free(port) {
			return port
		}
	}
	t.Fatalf("no port within %d to %d is free", lowPort, highPort)
	return 0
}

func free(port int) bool {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		tcp.Close()
		return false
	}
	return tcp.Close() == nil && udp.Close() == nil
}
