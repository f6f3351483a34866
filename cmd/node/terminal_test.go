package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// terminal is a console in a process of its own at a pseudo terminal, and an emulator that draws
// what comes and answers what is asked of terminals, such as where the cursor is.
type terminal struct {
	keys *os.File // where somebody types and looks
	tty  *os.File // the console's side, held open so that its modes can be read
	cmd  *exec.Cmd
	done chan error
	// fresh are the modes of the terminal before the console has started.
	fresh unix.Termios

	mu     sync.Mutex
	screen *vt.Emulator
	raw    []byte   // all that came
	titles []string // that the window was given
	hidden bool     // the cursor
}

// home is the environment of a user, with a folder of his own.
func home(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	return []string{"HOME=" + dir, "XDG_STATE_HOME=" + filepath.Join(dir, "state"), "INPUTRC=" + filepath.Join(dir, "none"), "TERM=xterm-256color"}
}

// atTerminal starts a console at a terminal of some columns and rows.
func atTerminal(t *testing.T, env []string, columns, rows int, args ...string) *terminal {
	t.Helper()
	runtime.LockOSThread() // see processes
	t.Cleanup(runtime.UnlockOSThread)
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{keys: keys, tty: tty, done: make(chan error, 1), screen: vt.NewEmulator(columns, rows)}
	x.screen.SetCallbacks(vt.Callbacks{
		Title:            func(title string) { x.titles = append(x.titles, title) },
		CursorVisibility: func(visible bool) { x.hidden = !visible },
	})
	x.resize(t, columns, rows)
	x.fresh = x.modes(t)
	x.cmd = command(append([]string{"console"}, args...)...)
	x.cmd.Env = append(x.cmd.Env, env...)
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr.Setsid, x.cmd.SysProcAttr.Setctty = true, true
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pumps sync.WaitGroup
	pumps.Go(x.draw)
	pumps.Go(x.answer)
	go func() { x.done <- x.cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen at the end:\n%s", strings.Join(x.lines(), "\n"))
		}
		if err := x.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		<-x.done
		if err := errors.Join(tty.Close(), keys.Close(), x.screen.InputPipe().(io.Closer).Close()); err != nil {
			t.Error(err)
		}
		pumps.Wait()
	})
	return x
}

// draw draws what the console prints, until both sides are closed.
func (x *terminal) draw() {
	buf := make([]byte, 4096)
	for {
		n, err := x.keys.Read(buf)
		x.mu.Lock()
		x.raw = append(x.raw, buf[:n]...)
		_, broken := x.screen.Write(buf[:n])
		x.mu.Unlock()
		if err != nil || broken != nil {
			return
		}
	}
}

// answer passes on what the terminal answers.
func (x *terminal) answer() {
	buf := make([]byte, 256)
	for {
		n, err := x.screen.Read(buf)
		if err != nil {
			return
		}
		if _, err := x.keys.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (x *terminal) resize(t *testing.T, columns, rows int) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.screen.Resize(columns, rows)
	if err := pty.Setsize(x.keys, &pty.Winsize{Rows: uint16(rows), Cols: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
}

// modes are how the terminal takes what is typed.
func (x *terminal) modes(t *testing.T) unix.Termios {
	t.Helper()
	modes, err := unix.IoctlGetTermios(int(x.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *modes
}

// lines are the screen, without what is blank at the ends.
func (x *terminal) lines() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	lines := strings.Split(x.screen.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// full reports whether the alternate screen is shown, and the cursor is not.
func (x *terminal) full() (alternate, hidden bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.IsAltScreen(), x.hidden
}

// usual reports whether the usual screen is shown, and the cursor.
func (x *terminal) usual() bool {
	alternate, hidden := x.full()
	return !alternate && !hidden
}

// typed sends keys in one piece.
func (x *terminal) typed(t *testing.T, keys string) {
	t.Helper()
	if _, err := x.keys.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// shows waits until the screen holds a text.
func (x *terminal) shows(t *testing.T, text string) {
	t.Helper()
	eventually(t, text+" on the screen", func() bool { return strings.Contains(strings.Join(x.lines(), "\n"), text) })
}

// edited reports whether the line that is edited is this one, and the prompt waits for keys. It
// asks where the cursor is each time it draws; keys that come together with the answer are lost
// (fixed in the library by its pull request 118, which is in no release yet).
func (x *terminal) edited(line string) bool {
	x.mu.Lock()
	at := x.screen.CursorPosition()
	drawn := strings.HasSuffix(string(x.raw), ansi.SetModeTextCursorEnable)
	x.mu.Unlock()
	lines := x.lines()
	return drawn && at.Y < len(lines) && strings.TrimRight(lines[at.Y], " ") == strings.TrimRight(line, " ")
}

// edit types keys, and waits until the line that is edited is this one.
func (x *terminal) edit(t *testing.T, keys, line string) {
	t.Helper()
	x.typed(t, keys)
	eventually(t, "the line "+line, func() bool { return x.edited(line) })
}

// prompted is a prompt, and what is typed behind it.
var prompted = regexp.MustCompile(`^n[123]>( |$)`)

// ready waits for a prompt on an empty line.
func (x *terminal) ready(t *testing.T) {
	t.Helper()
	eventually(t, "the prompt", func() bool {
		return slices.ContainsFunc([]string{"n1>", "n2>", "n3>"}, x.edited)
	})
}

// enter ends the line that is edited, and returns what the command printed: as it is drawn, and
// as it was sent, without colours.
func (x *terminal) enter(t *testing.T, keys string) (drawn, sent string) {
	t.Helper()
	x.mu.Lock()
	before := len(x.raw)
	x.mu.Unlock()
	prompts := func() (at []int, lines []string) {
		lines = x.lines()
		for i, line := range lines {
			if prompted.MatchString(line) {
				at = append(at, i)
			}
		}
		return at, lines
	}
	old, _ := prompts()
	x.typed(t, keys+"\r")
	eventually(t, "an answer and a prompt", func() bool {
		at, _ := prompts()
		return len(at) > len(old) && slices.ContainsFunc([]string{"n1>", "n2>", "n3>"}, x.edited)
	})
	at, lines := prompts()
	x.mu.Lock()
	defer x.mu.Unlock()
	sent = string(x.raw[before:])
	_, sent, _ = strings.Cut(sent, "\x1b[0 q") // how the cursor looks again when the line has ended
	sent, _, _ = strings.Cut(sent, "\x1b[1 q") // and when the next one is edited
	sent = strings.ReplaceAll(ansi.Strip(sent), "\r\n", "\n")
	if i := strings.LastIndex(sent, "\n"); i >= 0 {
		sent = sent[:i+1] // without the prompt
	}
	return strings.Join(lines[at[len(at)-2]+1:at[len(at)-1]], "\n") + "\n", sent
}

// run carries out a command on a clear screen.
func (x *terminal) run(t *testing.T, line string) (drawn, sent string) {
	t.Helper()
	x.ready(t)
	x.typed(t, "\x0c")
	eventually(t, "a clear screen", func() bool { return len(x.lines()) == 1 })
	x.ready(t)
	return x.enter(t, line)
}

// ended waits for the end of the console and returns its exit status.
func (x *terminal) ended(t *testing.T) int {
	t.Helper()
	select {
	case err := <-x.done:
		x.done <- err
	case <-time.After(patience):
		t.Fatal("the console does not end")
	}
	return x.cmd.ProcessState.ExitCode()
}
