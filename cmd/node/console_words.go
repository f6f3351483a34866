package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// word is one word of a command line.
type word struct {
	text string
	// quoted: it stood in quotes, and is no keyword.
	quoted bool
}

// split takes a command line apart at spaces. A word in double quotes is as Go writes it, and
// may have any bytes: "a b", "\x00\xff", "say \"hi\"". Words without quotes are taken as they
// are, a backslash too.
func split(line string) ([]word, error) {
	var out []word
	for rest := strings.TrimLeftFunc(line, unicode.IsSpace); rest != ""; rest = strings.TrimLeftFunc(rest, unicode.IsSpace) {
		if rest[0] != '"' {
			end := strings.IndexFunc(rest, unicode.IsSpace)
			if end < 0 {
				end = len(rest)
			}
			out = append(out, word{text: rest[:end]})
			rest = rest[end:]
			continue
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, fmt.Errorf("the quotes of %s do not end, or what is in them is not as Go writes it: \"a b\", \"\\x00\"", safe(cutText(rest, 40)))
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, err
		}
		rest = rest[len(quoted):]
		if rest != "" && strings.IndexFunc(rest, unicode.IsSpace) != 0 {
			return nil, fmt.Errorf("put a space behind %s", safe(cutText(quoted, 40)))
		}
		out = append(out, word{text, true})
	}
	return out, nil
}

// cutText is the beginning of a text.
func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// asWord writes a word so that split takes it for that text: in quotes only if it must be.
func asWord(text string) string {
	plain := text != "" && text[0] != '"' && text != "on"
	for _, r := range text {
		plain = plain && r != unicode.ReplacementChar && unicode.IsPrint(r) && !unicode.IsSpace(r)
	}
	if plain {
		return text
	}
	return strconv.QuoteToASCII(text)
}
