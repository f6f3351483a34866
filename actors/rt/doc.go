// Package rt holds the runtime seams under the actors: the parts of
// protoactor's actor package that the library lets its user replace, and that
// a store under load has to replace.
//
//   - [NewMailbox]: bounded in messages and bytes. It never blocks a sender
//     and never loses a message without saying so.
//   - [Inline], [NewWorkers]: where handlers and blocking work run.
//   - [NewWheel]: one goroutine that sends every timer's message.
//   - [Clock]: a clock that nothing stops.
//   - [NewSystem]: an actor system that is quiet and whose answers cannot
//     reach a stranger after a restart.
//   - [StopOnFailure], [RestartWithLimit], [RestartWithBackoff]: what a crash
//     of a child means.
//   - [Registry]: what a console shows of an actor without asking the actor;
//     [Visit]: what only the actor knows.
//   - [Failures]: what went wrong lately.
//
// The package knows protoactor and nothing of the store: messages are opaque,
// and what they weigh, when they expire and how they are refused comes in as
// functions.
package rt
