package inorder

import (
	"sync"
	"sync/atomic"
)

// closedGate is added to the counter of a Gate when it is shut: far below zero,
// so that operations under way cannot lift it to zero again.
const closedGate = -1 << 62

// Gate counts the operations under way so that a closing engine can wait for
// them, at the price of two atomic additions per operation. Enter may be nested,
// which a read lock would not allow while somebody waits to close.
type Gate struct {
	n    atomic.Int64
	once sync.Once
	idle chan struct{}
}

// NewGate returns an open gate.
func NewGate() *Gate { return &Gate{idle: make(chan struct{})} }

// Enter starts an operation. It returns false when the gate is shut; otherwise
// Leave must follow.
func (g *Gate) Enter() bool {
	if g.n.Add(1) > 0 {
		return true
	}
	g.Leave()
	return false
}

// Leave ends an operation.
func (g *Gate) Leave() {
	if g.n.Add(-1) == closedGate {
		g.once.Do(func() { close(g.idle) })
	}
}

// Shut refuses new operations. It returns false when the gate was shut before.
func (g *Gate) Shut() bool {
	for {
		n := g.n.Load()
		if n < 0 {
			return false
		}
		if g.n.CompareAndSwap(n, n+closedGate) {
			if n == 0 {
				g.once.Do(func() { close(g.idle) })
			}
			return true
		}
	}
}

// Idle is closed when the gate is shut and the last operation has left.
func (g *Gate) Idle() <-chan struct{} { return g.idle }
