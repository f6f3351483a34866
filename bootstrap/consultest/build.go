// Package consultest runs real Consul agents for tests: it builds the program
// from the module in tools/consul, starts agents on loopback, and kills,
// freezes and restarts them. Nothing is left behind but the built program, in
// the user's cache folder.
package consultest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// Required names the variable that makes a missing program an error and has it
// built; without it tests that need it are skipped until it has been.
const Required = "CONSUL_REQUIRED"

// buildFlags are those of the one line that builds Consul: any other would
// compile it anew for minutes.
var buildFlags = []string{"build", "-trimpath", "-ldflags=-s -w"}

// buildEnv goes with them.
var buildEnv = []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS="}

const program = "github.com/hashicorp/consul"

// errNotBuilt: the program is not in the cache.
var errNotBuilt = errors.New("consul is not built")

// TB is what the package needs of a *testing.T.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	TempDir() string
}

// binary finds the program once per process, and builds it if it is required.
var binary = sync.OnceValues(func() (string, error) {
	module, err := toolsModule()
	if err != nil {
		return "", err
	}
	path, err := cachePath(module)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	if os.Getenv(Required) == "" {
		return "", fmt.Errorf("%w: make test-consul builds it (minutes, the first time)", errNotBuilt)
	}
	return path, build(module, path)
})

// Binary is the path of the program. Without it the test is skipped, or fails
// when CONSUL_REQUIRED is set.
func Binary(t TB) string {
	t.Helper()
	path, err := binary()
	switch {
	case errors.Is(err, errNotBuilt):
		t.Skipf("%v", err)
	case err != nil:
		t.Fatalf("consul: %v", err)
	}
	return path
}

// toolsModule finds tools/consul from the folder of the test.
func toolsModule() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		module := filepath.Join(dir, "tools", "consul")
		if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
			return module, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("tools/consul is not above the test's folder")
		}
		dir = parent
	}
}

// cachePath is where the program of this module, these flags and this version
// of Go is kept.
func cachePath(module string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(b))
		h.Write(b)
	}
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH, buildFlags, buildEnv)
	return filepath.Join(cache, "dynactor", "consul-"+hex.EncodeToString(h.Sum(nil)[:8])), nil
}

// build builds the program beside its place and moves it there, while no other
// process does.
func build(module, path string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return nil // another process was quicker
	}
	part := path + ".part"
	cmd := exec.Command("go", append(buildFlags, "-o", part, program)...)
	cmd.Dir, cmd.Env = module, append(os.Environ(), buildEnv...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return os.Rename(part, path)
}
