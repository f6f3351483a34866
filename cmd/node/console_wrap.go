package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"
)

// columnsOf is how many columns a terminal has; 0 of what is none, or does not say.
func columnsOf(w any) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// say prints a text and ends the line. At a terminal lines end between words.
func say(w io.Writer, text string) error {
	_, err := fmt.Fprintln(w, wrap(text, columnsOf(w)))
	return err
}

// wrap breaks lines that are longer than a number of columns, 0 for any, between words. What is
// behind a break is indented as its line is. Neither hyphens nor slashes end a word: flags and
// names of actors stay whole. A word that is longer than a line is left to the terminal.
func wrap(text string, columns int) string {
	if columns <= 0 {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		rest := strings.TrimLeft(line, " ")
		lines[i] = hang(rest, line[:len(line)-len(rest)], columns)
	}
	return strings.Join(lines, "\n")
}

// hang wraps one line, with an indent before each part of it.
func hang(line, indent string, columns int) string {
	var out strings.Builder
	out.WriteString(indent)
	at, first := ansi.StringWidth(indent), true
	for _, word := range strings.Split(line, " ") { // of two spaces, one is a word without letters
		n := ansi.StringWidth(word)
		switch {
		case first:
		case at+1+n > columns:
			out.WriteString("\n" + indent)
			at = ansi.StringWidth(indent)
		default:
			out.WriteByte(' ')
			at++
		}
		out.WriteString(word)
		at, first = at+n, false
	}
	return out.String()
}
