// Package dynactor is a highly available key-value store: the system of
// "Dynamo: Amazon's Highly Available Key-value Store" (SOSP 2007), built from
// actors.
//
// Where to go from here: docs/paper.md maps each section of the paper to code
// and test; docs/architecture.md has the actor tree and a picture of a put and
// of a get; README.md says how to run it.
package dynactor
