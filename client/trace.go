package client

import (
	"context"
	"time"

	"github.com/dynactor/dynactor/messages"
)

type (
	// Timeline is what happened to a request at one place: the client's has those of the
	// nodes that it asked in it. Times are of each place's own clock.
	Timeline = messages.Timeline
	// Step is one thing that happened to a request.
	Step = messages.Step
	// Spent is what the time went for at a replica.
	Spent = messages.Spent
	// SlowRequest is a request that took long.
	SlowRequest = messages.SlowRequest
)

// Trace has a request tell what happened to it, in t, whether it succeeds or fails. The
// answer comes when nothing is awaited any more: up to a second later than without, when a
// replica is silent. Of a call that makes several requests, t has the last.
// An answer that is later is not asked for twice (Config.HedgeAfter).
func Trace(t *Timeline) Option { return func(o *options) { o.timeline = t } }

// SlowRequests tells which requests took longest on a node, of those that began in the last
// five minutes, slowest first. A limit of 0 is all that the node keeps: 32 for each minute.
func (c *Cluster) SlowRequests(ctx context.Context, node string, limit int) ([]SlowRequest, error) {
	m := &messages.SlowRequestsRequest{TimeoutMs: 1000}
	if limit > 0 {
		m.Limit = uint32(min(limit, messages.MaxSlow))
	}
	r, err := askMember[*messages.SlowRequestsReply](ctx, c.client, node, messages.TargetConsole, m)
	if err != nil {
		return nil, err
	}
	all, err := messages.ToSlow(r)
	if err != nil {
		return nil, &Error{Kind: ErrInternal, Node: node, Text: err.Error()}
	}
	return all, nil
}

// note adds a step to the client's timeline, if one was asked for.
func (t *try) note(s Step) {
	if t.timeline != nil && len(t.timeline.Steps) < messages.MaxSteps {
		s.At = time.Since(t.started)
		t.timeline.Steps = append(t.timeline.Steps, s)
	}
}

// noteAnswer adds an answer, and what its node says of the request.
func (t *try) noteAnswer(got answered) {
	if t.timeline == nil {
		return
	}
	var inner *messages.TimelineRecord
	step := Step{What: messages.StepAnswered, Node: got.node}
	switch m := got.message.(type) {
	case *messages.GetReply:
		inner = m.GetTimeline()
	case *messages.PutReply:
		inner = m.GetTimeline()
	case *messages.Failure:
		inner, step.What, step.Text = m.GetTimeline(), messages.StepFailed, messages.CodeName(m.GetCode())
	}
	// A request does not fail for what its timeline lacks.
	step.Inner, _ = messages.ToTimeline(inner)
	t.note(step)
}
