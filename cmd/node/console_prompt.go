package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/reeflective/readline"
	"golang.org/x/term"
)

// converse carries out what is typed: with a prompt at a terminal, else one command a line, up
// to the first that fails.
func (x *consoleSession) converse(ctx context.Context) error {
	if f, ok := x.in.(*os.File); ok && isTerminal(f) && isTerminal(x.out) && f == os.Stdin {
		return x.prompt(ctx)
	}
	lines := bufio.NewScanner(x.in)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		if err := x.do(ctx, lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// prompt reads commands from the terminal. Ctrl-C ends the command that runs, or forgets the
// line; Ctrl-D ends the console.
func (x *consoleSession) prompt(ctx context.Context) error {
	// Ctrl-C is for the command that runs, and must not end the process.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	attached := ""
	if err := x.attach(ctx, &attached); err != nil {
		return err
	}
	shell := newShell()
	shell.Prompt.Primary(func() string { return safe(attached) + "> " })
	shell.Completer = func(line []rune, cursor int) readline.Completions { return offer(x, ctx, string(line[:cursor])) }
	if kept, err := openHistory(); err == nil {
		shell.History.Add("node console", kept)
	} else if err := say(x.err, "node: no history is kept: "+safe(err.Error())); err != nil {
		return err
	}
	x.ask = func(question string) (string, error) {
		one := newShell()
		one.Prompt.Primary(func() string { return question })
		return readTyped(ctx, one)
	}
	if err := say(x.out, fmt.Sprintf("Attached to %s. help lists the commands, Tab completes, Ctrl-C cancels, Ctrl-D ends.", safe(attached))); err != nil {
		return err
	}
	for {
		line, err := readTyped(ctx, shell)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, readline.ErrInterrupt), err == nil && strings.TrimSpace(line) == "":
			continue
		case err != nil:
			return err
		}
		if err := x.carryOut(ctx, line); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if err := x.attach(ctx, &attached); err != nil {
			if err := say(x.err, "node: "+plain(err)); err != nil {
				return err
			}
		}
	}
}

// newShell reads lines, and shows none to the terminal that does more there than to be read:
// texts that are pasted may hold escape sequences.
func newShell() *readline.Shell {
	shell := readline.NewShell()
	shell.PasteTransformer = pasted
	shell.SyntaxHighlighter = drawn
	return shell
}

// carryOut does one command, until Ctrl-C, and tells what went wrong. It fails only if that
// cannot be told.
func (x *consoleSession) carryOut(ctx context.Context, line string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	err := x.do(ctx, line)
	switch {
	case ctx.Err() != nil:
		return say(x.err, "\ncancelled")
	case err != nil:
		return say(x.err, plain(err))
	}
	return nil
}

// askPlainly asks where there is no prompt.
func (x *consoleSession) askPlainly(question string) (string, error) {
	if _, err := fmt.Fprint(x.err, question); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(io.LimitReader(x.in, 64)).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return line, err
}

// readTyped reads a line, or ends when the process is told to.
func readTyped(ctx context.Context, shell *readline.Shell) (string, error) {
	type typed struct {
		line string
		err  error
	}
	state, err := term.GetState(int(os.Stdin.Fd()))
	if err != nil {
		return "", err
	}
	done := make(chan typed, 1)
	go func() {
		line, err := shell.Readline()
		done <- typed{line, err}
	}()
	select {
	case t := <-done:
		return t.line, t.err
	case <-ctx.Done(): // nothing ends the read, but the process
		return "", errors.Join(ctx.Err(), term.Restore(int(os.Stdin.Fd()), state))
	}
}

// attach finds out which node is asked.
func (x *consoleSession) attach(ctx context.Context, node *string) error {
	ctx, cancel := context.WithTimeout(ctx, x.limit)
	defer cancel()
	status, err := x.known(ctx)
	if err == nil {
		*node = status.Asked
	}
	return err
}

// historyBytes is how long the file of the history may be; of one that is longer, the end is
// kept.
const historyBytes = 256 << 10

// history is a history whose lines do nothing to the terminal. Lists of them are drawn as they
// are, when one is searched.
type history struct{ readline.History }

// GetLine implements readline.History.
func (h history) GetLine(pos int) (string, error) {
	line, err := h.History.GetLine(pos)
	return pasted(line), err
}

func openHistory() (readline.History, error) {
	path, err := historyFile()
	if err != nil {
		return nil, err
	}
	kept, err := readline.NewHistoryFromFile(path)
	return history{kept}, err
}

// historyFile is where the history is kept: in the user's folder for state, readable by nobody
// else, for names of keys may be in it.
func historyFile() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		state = filepath.Join(home, ".local", "state")
	}
	folder := filepath.Join(state, "dynactor")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(folder, "console_history")
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	if len(b) > historyBytes {
		b = b[len(b)-historyBytes/2:]
		_, after, _ := strings.Cut(string(b), "\n")
		if err := os.WriteFile(path, []byte(after), 0o600); err != nil {
			return "", err
		}
	}
	if err == nil {
		err = os.Chmod(path, 0o600)
	} else {
		err = os.WriteFile(path, nil, 0o600)
	}
	return path, err
}
