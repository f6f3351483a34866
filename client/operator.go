package client

import (
	"context"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/messages"
)

type (
	// Lookup is what a node has of a key: its own record and what it keeps for others,
	// without the values.
	Lookup = messages.Lookup
	// Copy is one record of a key.
	Copy = messages.Copy
	// Busy is an actor, and how many messages it handles a second.
	Busy = messages.Busy
	// LogLine is one event that a node has logged.
	LogLine = messages.Line
	// Setting is a setting of a node that can change while it runs.
	Setting = messages.NodeSetting
	// By is what the busiest actors are sorted by.
	By = messages.By
)

// What the busiest actors are sorted by.
const (
	ByRate    = messages.ByRate
	ByWaiting = messages.ByWaiting
	ByOldest  = messages.ByOldest
)

// MaxBusiest is how many of the busiest actors a node tells of at most.
const MaxBusiest = messages.MaxBusiest

// consoleMs is how long a node's console may take to answer.
const consoleMs = 1000

// badAnswer is an answer that is not as it must be.
func badAnswer(node string, err error) error {
	return &Error{Kind: ErrInternal, Node: node, Text: err.Error()}
}

// Lookup asks every member what it has of a key: replicas, and those that keep hints of it.
// Members that do not answer are in the error; the others' answers are there all the same.
// status says what the node that was asked for the members knows.
func (c *Cluster) Lookup(ctx context.Context, bucket, key string) (status ClusterStatus, all map[string]Lookup, err error) {
	k := dynamo.Key{Bucket: bucket, Name: key}
	if err := k.Validate(); err != nil {
		return status, nil, &Error{Kind: ErrInvalid, Text: err.Error()}
	}
	if status, err = c.known(ctx); err != nil {
		return status, nil, err
	}
	type found struct {
		node string
		Lookup
	}
	said, err := ofAll(status.members(), func(node string) ([]found, error) {
		m := &messages.LookupRequest{Bucket: []byte(bucket), Key: []byte(key), TimeoutMs: consoleMs}
		r, err := askMember[*messages.LookupReply](ctx, c.client, node, messages.TargetConsole, m)
		if err != nil {
			return nil, err
		}
		l, err := messages.ToLookup(r)
		if err != nil {
			return nil, badAnswer(node, err)
		}
		return []found{{node, l}}, nil
	})
	all = map[string]Lookup{}
	for _, f := range said {
		all[f.node] = f.Lookup
	}
	return status, all, err
}

// Busiest lists the actors of a node that have most to do; all is how many actors there are.
// However many ask, the node looks twice a second at most, and rates are between its looks.
func (c *Cluster) Busiest(ctx context.Context, node string, by By, limit int) (busy []Busy, all int, err error) {
	m := &messages.BusiestRequest{By: uint32(by), Limit: uint32(max(0, min(limit, MaxBusiest))), TimeoutMs: consoleMs}
	r, err := askMember[*messages.BusiestReply](ctx, c.client, node, messages.TargetConsole, m)
	if err != nil {
		return nil, 0, err
	}
	if busy, all, err = messages.ToBusy(r); err != nil {
		return nil, 0, badAnswer(node, err)
	}
	return busy, all, nil
}

// LogCursor is how far somebody has read the log of a node.
type LogCursor struct{ run, last uint64 }

// Log returns what a node has logged since the cursor, oldest first, the latest limit of it
// (0: as many as one answer has), and how many lines it has left out. The zero cursor is the
// beginning; so is any when the node has started anew.
func (c *Cluster) Log(ctx context.Context, node string, from LogCursor, limit int) (lines []LogLine, lost uint64, next LogCursor, err error) {
	m := &messages.LogRequest{After: from.last, Run: from.run, Limit: uint32(max(0, min(limit, messages.MaxLogLines))), TimeoutMs: consoleMs}
	r, err := askMember[*messages.LogReply](ctx, c.client, node, messages.TargetConsole, m)
	if err != nil {
		return nil, 0, from, err
	}
	if lines, err = messages.ToLines(r); err != nil {
		return nil, 0, from, badAnswer(node, err)
	}
	next = LogCursor{run: r.GetRun(), last: from.last}
	if from.run != next.run {
		next.last = 0
	}
	for _, l := range lines {
		next.last = max(next.last, l.Number)
	}
	return lines, r.GetLost(), next, nil
}

// Settings lists what can be changed of a node while it runs.
func (c *Cluster) Settings(ctx context.Context, node string) ([]Setting, error) {
	return c.settings(ctx, node, &messages.SettingsRequest{TimeoutMs: consoleMs})
}

// Set changes one setting of a node until it stops, and lists all as they are then.
// ErrRefused: the node does not let it be changed, or not by this client.
func (c *Cluster) Set(ctx context.Context, node, name, value string) ([]Setting, error) {
	return c.settings(ctx, node, &messages.SettingsRequest{Name: name, Value: value, TimeoutMs: consoleMs})
}

func (c *Cluster) settings(ctx context.Context, node string, m *messages.SettingsRequest) ([]Setting, error) {
	r, err := askMember[*messages.SettingsReply](ctx, c.client, node, messages.TargetConsole, m)
	if err != nil {
		return nil, err
	}
	all, err := messages.ToSettings(r)
	if err != nil {
		return nil, badAnswer(node, err)
	}
	return all, nil
}

// Fate says what Restart or Kill would do to an actor of a node, and does nothing.
func (c *Cluster) Fate(ctx context.Context, node, actor string, kill bool) (string, error) {
	return c.control(ctx, node, &messages.ControlRequest{Actor: actor, Kill: kill, Ask: true, TimeoutMs: consoleMs})
}

// Restart makes an actor of a node fail, so that its supervisor decides what comes of it, and
// says what that is. ErrRefused: the node does not allow it, or not to this client.
func (c *Cluster) Restart(ctx context.Context, node, actor string) (string, error) {
	return c.control(ctx, node, &messages.ControlRequest{Actor: actor, TimeoutMs: consoleMs})
}

// Kill stops an actor of a node that is a request, or that its supervisor starts again.
func (c *Cluster) Kill(ctx context.Context, node, actor string) (string, error) {
	return c.control(ctx, node, &messages.ControlRequest{Actor: actor, Kill: true, TimeoutMs: consoleMs})
}

func (c *Cluster) control(ctx context.Context, node string, m *messages.ControlRequest) (string, error) {
	r, err := askMember[*messages.ControlReply](ctx, c.client, node, messages.TargetConsole, m)
	if err != nil {
		return "", err
	}
	return r.GetConsequence(), nil
}
