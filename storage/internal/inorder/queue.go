// Package inorder hands values from many goroutines to one, in order and
// without waking it more often than needed. The engines call the done functions
// of their commits through it.
package inorder

import "sync"

// Queue is an unbounded first-in first-out queue with many producers and one
// consumer. The consumer takes all that is there at once, so a burst costs one
// wake-up. It must not be copied.
type Queue[T any] struct {
	mu      sync.Mutex
	ready   sync.Cond
	items   []T
	waiting bool
	closed  bool
}

// New returns an empty queue.
func New[T any]() *Queue[T] {
	q := &Queue[T]{}
	q.ready.L = &q.mu
	return q
}

// Push adds v at the end. The queue must not be closed.
func (q *Queue[T]) Push(v T) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		panic("inorder: Push after Close")
	}
	q.items = append(q.items, v)
	wake := q.waiting
	q.waiting = false
	q.mu.Unlock()
	if wake {
		q.ready.Signal()
	}
}

// Take waits until there is something and returns all of it, or false when the
// queue is closed and empty. It keeps buf, the result of an earlier Take or nil,
// as room for the values to come.
func (q *Queue[T]) Take(buf []T) ([]T, bool) {
	clear(buf) // let go of what the values hold
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 {
		if q.closed {
			return nil, false
		}
		q.waiting = true
		q.ready.Wait()
	}
	items := q.items
	q.items = buf[:0]
	return items, true
}

// Close lets Take return false once the queue is empty. Calling it again does
// nothing.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	q.closed, q.waiting = true, false
	q.mu.Unlock()
	q.ready.Signal()
}
