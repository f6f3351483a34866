// Package client is what applications import: a client of the store that lives
// in an actor system, the application's own or one that it makes.
//
// A Client dials nodes and never listens. It learns the ring from the first
// node that answers, sends each request straight to a node of the key's
// preference list (paper § 4.5), goes to the next one when that fails, and
// repeats a write under the same request id, so that a repeated write is
// carried out once. The ring is polled every ten seconds, and at once when a
// node says that it is stale (§ 6.4).
//
// Three outcomes of a write are told apart: no error, it is done; ErrUnknown,
// it may or may not take effect; any other error, it was not done.
//
// The store keeps concurrent versions (§ 4.4). A get may return several values;
// a put with the context of that get replaces them all. Update does both, with
// the application's own function to merge (§ 6, business logic specific
// reconciliation).
package client
