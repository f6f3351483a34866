package blackbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// programs is the folder of the binaries under test, node and check.
var programs string

// inside is the environment variable that tells a test that it runs in namespaces
// of its own: it has the folder of the programs.
const inside = "DYNACTOR_TEST_INSIDE"

func TestMain(m *testing.M) { os.Exit(build(m)) }

// build builds the programs for the tests.
func build(m *testing.M) int {
	if programs = os.Getenv(inside); programs != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "dynactor-programs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, args := range [][]string{
		{"-o", dir, "../../cmd/node", "../check"},
		{"-tags", "wrongclock", "-o", filepath.Join(dir, wrongClock), "../../cmd/node"},
	} {
		if out, err := exec.Command("go", append([]string{"build"}, args...)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
	}
	programs = dir
	return m.Run()
}

// isolated runs the rest of the test in network, mount and process namespaces of its
// own and reports whether this is that run; the other one has to return then.
// Whatever the test starts, mounts or sets up ends with its first process. Without
// root there are no namespaces: the test goes on where it is, and network tells.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		if err := ownMounts(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Log("skipped: network cuts, slow links and full disks need root")
		return true
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Log("skipped: network cuts, slow links and full disks need iproute2:", err)
			return true
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v="+fmt.Sprint(testing.Verbose()), "-test.count=1", "-test.timeout="+left(t).String())
	cmd.Env = append(os.Environ(), inside+"="+programs, "TMPDIR="+t.TempDir())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
	}
	lockThread(t)
	if err := cmd.Run(); err != nil {
		t.Fatalf("in namespaces of its own: %v", err)
	}
	return false
}

// left is the time that the test still has.
func left(t *testing.T) time.Duration {
	deadline, ok := t.Deadline()
	if !ok {
		return 0
	}
	return time.Until(deadline) - time.Second
}

// ownMounts makes mounts private, so that ours stay here, and gives these
// namespaces their own /proc and /run, where iproute2 keeps its names.
func ownMounts() error {
	for _, m := range []struct {
		from, to, kind string
		flags          uintptr
	}{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
	} {
		if err := syscall.Mount(m.from, m.to, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.to, err)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// check runs the checker on a journal and what was found in the end, and returns
// what it says; findings fail the test.
func check(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command(filepath.Join(programs, "check"), args...).CombinedOutput()
	t.Logf("check:\n%s", out)
	if err != nil {
		t.Errorf("check: %v", err)
	}
}
