package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" help:"bash, zsh or fish." enum:"bash,zsh,fish"`
}

// Run prints a script that completes commands and flags. It is made from the
// same definitions as the help, so it cannot fall behind.
func (c *completionCmd) Run(s *streams, k *kong.Context) error {
	script := completionScript(c.Shell, k.Model)
	_, err := fmt.Fprint(s.out, script)
	return err
}

// words lists the commands, and the flags of each.
func words(app *kong.Application) (commands []string, flags map[string][]string) {
	flags = map[string][]string{}
	for _, n := range app.Children {
		if n.Hidden {
			continue
		}
		commands = append(commands, n.Name)
		for _, group := range n.AllFlags(true) {
			for _, f := range group {
				flags[n.Name] = append(flags[n.Name], "--"+f.Name)
			}
		}
	}
	return commands, flags
}

func completionScript(shell string, app *kong.Application) string {
	commands, flags := words(app)
	var b strings.Builder
	all := strings.Join(commands, " ")
	switch shell {
	case "fish":
		fmt.Fprintf(&b, "complete -c node -n __fish_use_subcommand -f -a '%s'\n", all)
		for _, c := range commands {
			for _, f := range flags[c] {
				fmt.Fprintf(&b, "complete -c node -n '__fish_seen_subcommand_from %s' -l %s\n", c, strings.TrimPrefix(f, "--"))
			}
		}
		return b.String()
	case "zsh":
		b.WriteString("#compdef node\nautoload -U +X bashcompinit && bashcompinit\n")
	}
	b.WriteString("_node_complete() {\n  local word=${COMP_WORDS[COMP_CWORD]} list\n  case ${COMP_WORDS[1]} in\n")
	for _, c := range commands {
		fmt.Fprintf(&b, "    %s) list='%s' ;;\n", c, strings.Join(flags[c], " "))
	}
	fmt.Fprintf(&b, "  esac\n  [ \"$COMP_CWORD\" = 1 ] && list='%s'\n", all)
	b.WriteString("  COMPREPLY=($(compgen -W \"$list\" -- \"$word\"))\n}\ncomplete -o default -F _node_complete node\n")
	return b.String()
}
