package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// safe is a text that does nothing to a terminal: what cannot be printed is escaped.
func safe(s string) string {
	var out strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			out.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		s = s[size:]
	}
	return out.String()
}

// safeLines is safe for a text of several lines.
func safeLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = safe(lines[i])
	}
	return strings.Join(lines, "\n")
}

// pasted is a text that was pasted as the prompt takes it: on one line, and what cannot be
// printed written as it is in double quotes.
func pasted(text string) string {
	return safe(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, strings.TrimRight(text, "\n")))
}

// drawn is a line that is edited as the terminal gets it: each rune that cannot be printed has
// one that can in its place.
func drawn(line []rune) string {
	const pictures, deletePicture = 0x2400, 0x2421 // of the controls of ASCII
	out := make([]rune, len(line))
	for i, r := range line {
		switch {
		case unicode.IsPrint(r) || r == '\t' || r == '\n': // the editor lays these out
			out[i] = r
		case r < ' ':
			out[i] = pictures + r
		case r == 0x7f:
			out[i] = deletePicture
		default:
			out[i] = unicode.ReplacementChar
		}
	}
	return string(out)
}

// writeJSON prints JSON for scripts. What a terminal cannot print is escaped, so that JSON
// does nothing to one either.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(safeJSON(b.Bytes()))
	return err
}

// safeJSON escapes what cannot be printed in an encoded value: the encoder leaves characters
// above the ASCII controls as they are, but for two. They only occur in texts.
func safeJSON(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, r := range string(b) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
