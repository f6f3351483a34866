package client

import "time"

// Context is what a client has seen of a key (paper § 4.1). It is opaque; it
// may be kept and sent elsewhere, and is valid for its own key only.
type Context []byte

// Value is one of a key's concurrent values.
type Value struct {
	Value []byte
	// Time is when it was written, by the clock of the node that took it.
	Time time.Time
	// Dot names the write that made it, for people.
	Dot string
	// Expires is when it ends to exist; zero is never.
	Expires time.Time
}

// Object is what a get returns: no value, one, or several that are concurrent.
type Object struct {
	Values []Value
	// Context covers all values, and a deletion if that is what was found.
	Context Context
}

// Exists reports whether there is a value.
func (o Object) Exists() bool { return len(o.Values) > 0 }

// One returns the value when there is exactly one; else ErrNotFound or
// ErrConflict.
func (o Object) One() ([]byte, error) {
	switch len(o.Values) {
	case 0:
		return nil, ErrNotFound
	case 1:
		return o.Values[0].Value, nil
	}
	return nil, ErrConflict
}

// Written is what a put returns.
type Written struct {
	// Context is for the next put of the key.
	Context Context
	// Replicas is how many had confirmed when the answer was sent.
	Replicas int
}
