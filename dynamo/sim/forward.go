package sim

import (
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
)

// forwardShell passes a write to a node that may coordinate it, trying the
// preference list in order, and passes the answer back.
type forwardShell struct {
	exchange
	message *putRequest
	next    []dynamo.Replica
	// at is the node that has the request now.
	at int
}

func (f *forwardShell) receive(from int, body any) {
	if _, over := body.(deadline); f.ended || !over && from != f.at {
		return
	}
	switch m := body.(type) {
	case putReply:
		f.finish(m)
	case failure:
		if m.notAttempted() {
			f.pass()
			return
		}
		f.finish(m)
	case deadline:
		f.finish(failure{codeUnknown})
	}
}

func (f *forwardShell) undelivered(to int, _ request.Reason) {
	if !f.ended && to == f.at {
		f.pass()
	}
}

func (f *forwardShell) pass() {
	for len(f.next) > 0 {
		to := f.to(f.next[0])
		f.next = f.next[1:]
		if to == f.n {
			continue
		}
		m := *f.message
		m.hops, m.timeout = m.hops+1, f.left()
		c, me := f.n.c, f.pid()
		f.at = to.index
		take := c.timely(m.timeout, func() { to.takePut(&m, me, order{}) })
		c.net.sendOnce(f.n.index, to.index, func() { to.arrive(take) }, f.n.returned(me, to.index))
		return
	}
	f.finish(failure{codeUnavailable})
}

func (f *forwardShell) finish(body any) {
	f.reply(body)
	f.end()
}
