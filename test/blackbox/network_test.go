package blackbox

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// network is where nodes, numbered from 1, live.
type network interface {
	address(node int) string
	http(node int) string
	// prepare comes before the node's first start.
	prepare(node int)
	// command is what a node's command line begins with.
	command(node int) []string
}

// loopback has all nodes on this machine's loopback: nothing can be cut.
type loopback struct{ base int }

// loopbacks keeps tests that run at the same time apart.
var loopbacks atomic.Int32

// newLoopback finds free ports for so many nodes.
func newLoopback(t *testing.T, count int) loopback {
	t.Helper()
	own := int(loopbacks.Add(1)) * 2000
	for try := range 100 {
		l := loopback{base: 21000 + (os.Getpid()*61+own+try*311)%9000}
		if l.free(count) {
			return l
		}
	}
	t.Fatal("no free ports")
	return loopback{}
}

func (l loopback) free(count int) bool {
	for i := range count {
		for _, address := range []string{l.address(i + 1), l.http(i + 1)} {
			c, err := net.Listen("tcp", address)
			if err != nil {
				return false
			}
			c.Close()
		}
	}
	return true
}

func (l loopback) address(node int) string { return fmt.Sprintf("127.0.0.1:%d", l.base+2*node) }
func (l loopback) http(node int) string    { return fmt.Sprintf("127.0.0.1:%d", l.base+2*node+1) }
func (loopback) prepare(int)               {}
func (loopback) command(int) []string      { return nil }

// routed gives each node a network namespace; what they send each other goes
// through this one, which routes it, or not. The load is here: it reaches all nodes
// always.
type routed struct{ t *testing.T }

// newRouted needs namespaces of its own: see isolated.
func newRouted(t *testing.T) *routed {
	t.Helper()
	r := &routed{t: t}
	r.ip("link set lo up")
	return r
}

// prepare makes the network of a node.
func (r *routed) prepare(n int) {
	r.ip("netns add n%d", n)
	r.ip("link add v%d type veth peer name eth0 netns n%d", n, n)
	r.ip("addr add 10.77.%d.1/24 dev v%d", n, n)
	r.ip("link set v%d up", n)
	r.ip("-n n%d addr add %s/24 dev eth0", n, host(n))
	r.ip("-n n%d link set eth0 up", n)
	r.ip("-n n%d link set lo up", n)
	r.ip("-n n%d route add default via 10.77.%d.1", n, n)
}

func host(node int) string { return fmt.Sprintf("10.77.%d.2", node) }

func (*routed) address(node int) string { return host(node) + ":7800" }
func (*routed) http(node int) string    { return host(node) + ":7801" }
func (*routed) command(node int) []string {
	return []string{"ip", "netns", "exec", fmt.Sprintf("n%d", node)}
}

// ip runs a command of iproute2.
func (r *routed) ip(format string, args ...any) { run(r.t, "ip", format, args...) }

func run(t *testing.T, program, format string, args ...any) {
	t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	if out, err := exec.Command(program, words...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(words, " "), err, out)
	}
}

// cut drops what one node sends another, without a word to either; mend ends that.
// The number tells several cuts between the same two nodes apart.
func (r *routed) cut(number, from, to int) {
	r.ip("rule add pref %d from %s to %s blackhole", 100+number, host(from), host(to))
}

func (r *routed) mend(number, from, to int) {
	r.ip("rule del pref %d from %s to %s blackhole", 100+number, host(from), host(to))
}

// slow lets only so much through to and from a node; fast ends that.
func (r *routed) slow(node int, rate string) {
	run(r.t, "tc", "qdisc add dev v%d root tbf rate %s burst 10k latency 200ms", node, rate)
	run(r.t, "tc", "-n n%d qdisc add dev eth0 root tbf rate %s burst 10k latency 200ms", node, rate)
}

func (r *routed) fast(node int) {
	run(r.t, "tc", "qdisc del dev v%d root", node)
	run(r.t, "tc", "-n n%d qdisc del dev eth0 root", node)
}
