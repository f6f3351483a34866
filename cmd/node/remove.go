package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
)

type clusterRemoveCmd struct {
	operator
	Names []string `arg:"" name:"name" help:"The members. What only they had is lost."`
	Force bool     `help:"No majority is left without them: ask all others, and only them, to go on without. Give the address of one with --node."`
	Yes   bool     `help:"With --force: do not ask."`
}

// Run stages removals, or makes them by force.
func (c *clusterRemoveCmd) Run(s *streams) error {
	if c.Yes && !c.Force {
		return usageError("--yes goes with --force")
	}
	if c.Force {
		return c.force(s)
	}
	return c.do(s, func(ctx context.Context, cl *client.Cluster) (status client.ClusterStatus, err error) {
		for _, name := range c.Names {
			if status, err = cl.Stage(ctx, member.Change{Kind: member.Remove, Node: dynamo.NodeID(name)}); err != nil {
				break
			}
		}
		return status, err
	}, showStaged)
}

const forceWarning = `WARNING: %s will be removed by force.
  Do this only when they are lost for good. What only they had is lost, acknowledged writes and changes of the
  cluster alike. Should one of them still run, stop it: clients that reach it, and nobody else, do not know.
`

var errNotConfirmed = errors.New("not confirmed; nothing was changed")

func (c *clusterRemoveCmd) force(s *streams) error {
	fmt.Fprintf(s.err, forceWarning, strings.Join(c.Names, ", "))
	if err := confirm(s, c.Yes); err != nil {
		return err
	}
	return c.do(s, func(ctx context.Context, cl *client.Cluster) (client.ClusterStatus, error) {
		return cl.Force(ctx, c.Names...)
	},
		func(w io.Writer, status client.ClusterStatus) error {
			showForced(w, &status.Document)
			showMovement(w, &status.Document)
			_, err := fmt.Fprintln(w, "Watch it with node cluster status.")
			return err
		})
}

// confirm asks whether to do what the warning said.
func confirm(s *streams, yes bool) error {
	if yes {
		return nil
	}
	fmt.Fprint(s.err, "Type yes to go on: ")
	line, err := bufio.NewReader(io.LimitReader(s.in, maxAnswer)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return errNotConfirmed
	}
	return nil
}

// maxAnswer is the longest answer to a question in bytes.
const maxAnswer = 100

// showForced says which versions were made by force.
func showForced(w io.Writer, d *member.Document) {
	for _, f := range d.Forced {
		fmt.Fprintf(w, "FORCED: version %d was made from version %d without %s.\n", f.Version, f.At, list(f.Lost))
	}
}
