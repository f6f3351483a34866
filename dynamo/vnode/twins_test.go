package vnode

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo/version"
)

// retry coordinates a write of the model again, at a replica that may not have
// heard of it: a client lost its coordinator and tried another one.
func (m *amnesia) retry(t *rapid.T, w, at int) {
	m.now++
	m.retried = true
	p := m.puts[w]
	p.Retry, p.Now = true, m.now
	r, err := m.states[at].Coordinate(m.stored[at], p)
	if errors.Is(err, ErrUnknown) {
		return // it is forgotten there
	}
	if err != nil {
		t.Fatalf("retry of %d at %d: %v", w, at, err)
	}
	m.stored[at] = r.Stored
	m.held = append(m.held, r.Stored.Record)
}

// forgot reports whether a record may have forgotten a request that was
// coordinated twice: of such a one a twin may come back. Each message has at
// most one request that those before it have not.
func (m *amnesia) forgot() bool { return m.retried && len(m.held) > version.RecentRequests }

// TestTwins runs the model of amnesia_test.go with writes that are coordinated more
// than once. As long as the requests are remembered, a write that a context
// covered under one of its dots is gone under all of them, and one that no
// context covered is there, whatever met in which order.
func TestTwins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const replicas = 3
		m := newAmnesia(replicas)
		at := rapid.IntRange(0, replicas-1)
		var seen []version.Record
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				var context version.Record
				if len(seen) > 0 && rapid.Bool().Draw(t, "with context") {
					context = rapid.SampledFrom(seen).Draw(t, "seen")
				}
				m.put(t, at.Draw(t, "at"), context)
			},
			"retry": func(t *rapid.T) {
				if m.next == 0 {
					t.Skip()
				}
				m.retry(t, rapid.IntRange(0, m.next-1).Draw(t, "write"), at.Draw(t, "at"))
			},
			"read": func(t *rapid.T) { seen = append(seen, m.stored[at.Draw(t, "at")].Record) },
			"deliver": func(t *rapid.T) {
				if len(m.held) == 0 {
					t.Skip()
				}
				m.deliver(t, rapid.SampledFrom(m.held).Draw(t, "message"), at.Draw(t, "at"))
			},
			"forget the key": func(t *rapid.T) { m.stored[at.Draw(t, "at")] = Stored{} }, // the messages are there still
			"": func(t *rapid.T) {
				m.check(t, nil)
				var up, down version.Record
				for i, rec := range m.held {
					up, down = version.Merge(up, rec), version.Merge(m.held[len(m.held)-1-i], down)
				}
				if !m.forgot() && !up.Equal(down) {
					t.Fatalf("the order of merging matters:\n%+v\n%+v", up, down)
				}
			},
		})
	})
}
